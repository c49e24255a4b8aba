"""Retrieval of events from a million stored tokens: by graph index, and by exact search.

``python benchmarks/event_retrieval.py`` stores events of 32 tokens on average (31,250 for a million
tokens), whose keys are as wide as those of SmolLM2 (9 heads of 64), and times what one layer does
for one query: searching, filling the budget of 2048 tokens, and the queue of neighbours. How much
of what exact search finds the graph finds too is the recall.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from _measure import arguments, table, timed, write_json

TARGET = 0.020
N_QUERIES = 20


def make(n_events: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Keys of events and queries, of 500 topics in 32 dimensions, with noise in all."""
    rng = np.random.default_rng(seed)
    topics = rng.standard_normal((500, 32), dtype=np.float32)
    spread = rng.standard_normal((32, width), dtype=np.float32) / np.float32(6)

    def draw(n: int) -> np.ndarray:
        latent = topics[rng.integers(0, 500, n)]
        latent = latent + np.float32(0.7) * rng.standard_normal((n, 32), dtype=np.float32)
        noise = rng.standard_normal((n, width), dtype=np.float32)
        return latent @ spread + np.float32(0.3) * noise

    return draw(n_events), draw(N_QUERIES)


def store_of(kind: str, keys: np.ndarray, sizes: np.ndarray) -> Any:
    """Return a store of one layer, whose tokens have keys and values of one number."""
    import torch

    from engramma.memory.event_store import EventStore

    store = EventStore(1, index=kind)
    starts = (np.concatenate([[0], sizes.cumsum()[:-1]])).tolist()
    events = [[at, [0] * size, ""] for at, size in zip(starts, sizes.tolist(), strict=True)]
    nothing = torch.zeros(1, int(sizes.sum()), 1)
    tensors = {"keys.0": nothing, "values.0": nothing, "event_keys.0": torch.from_numpy(keys)}
    store.restore(tensors, {"layers": 1, "events": events, "queues": [[]]})
    return store


def recall(found: list[list[int]], exact: list[list[int]]) -> float:
    """Share of what exact search retrieves that is found too."""
    return float(
        np.mean([len(set(f) & set(e)) / len(e) for f, e in zip(found, exact, strict=True)])
    )


def main() -> int:
    """Store, measure, print; return 1 where a target is missed."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=576, help="of an event's key: 576")
    options = parser.parse_args()
    import torch
    from threadpoolctl import threadpool_limits

    n_tokens = 50_000 if options.small else options.tokens
    sizes = np.random.default_rng(1).integers(8, 57, n_tokens // 32)
    keys, queries = make(len(sizes), options.width)
    rows, results, missed, answers = [], {}, [], {}
    torch.set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        for kind in ("exact", "graph"):
            if kind == "graph":
                import faiss

                faiss.omp_set_num_threads(options.threads)
            building, store = timed(lambda k=kind: store_of(k, keys, sizes))
            store.retrieve(0, queries[0])
            store.queues[0] = []
            seconds, answers[kind] = timed(
                lambda s=store: [s.retrieve(0, query) for query in queries]
            )
            seconds /= len(queries)
            share = recall(answers[kind], answers["exact"])
            rows.append((kind, building, 1000 * seconds, share))
            results[kind] = {"build": building, "query": seconds, "recall": share}
    if results["graph"]["query"] > TARGET and not options.small:
        missed.append(f"graph: {results['graph']['query']:.3f} s a query, not {TARGET:g}")
    title = f"{len(sizes)} events of {int(sizes.sum())} tokens, keys of {options.width} numbers"
    columns = ("index", "building, s", "a query, ms", "recall")
    table(f"{title}, {options.threads} threads", columns, rows)
    for line in missed:
        print("MISSED", line)
    path: Path | None = options.json
    write_json(path, {"events": len(sizes), "retrieval": results, "missed": missed})
    return bool(missed)


if __name__ == "__main__":
    raise SystemExit(main())
