"""Reading a hierarchical chunk memory against attending to all that it stores.

``python benchmarks/hcam.py`` answers single queries from M = 256 chunks of C = 16 tokens, 64 wide:
in two steps (M + kC scores), looking into all chunks, and by softmax attention to all M C tokens
with its keys and values kept. The first two must give the same answer.
"""

from __future__ import annotations

from functools import partial

import torch
from threadpoolctl import threadpool_limits

from _measure import arguments, table, timed, write_json
from engramma.memory.attention import SoftmaxAttention
from engramma.memory.chunks import ChunkAttention
from engramma.nn.seed import seeded

DIM, CHUNK, TOP_K = 64, 16, 4
REPEATS = 50


def main() -> int:
    options = arguments(__doc__ or "").parse_args()
    sizes = (16, 64) if options.small else (16, 64, 256, 1024)
    rows, results, missed = [], {}, []
    with threadpool_limits(options.threads), seeded(0), torch.no_grad():
        torch.set_num_threads(options.threads)
        chunks = ChunkAttention(DIM, CHUNK, TOP_K).eval()
        full = SoftmaxAttention(DIM).eval()
        for m in sizes:
            contents, query = torch.randn(1, m, CHUNK, DIM), torch.randn(1, 1, DIM)
            visible = torch.ones(1, 1, m, dtype=torch.bool)
            memory = (query, contents.mean(2), contents, visible)
            _, cache = full(contents.flatten(1, 2))
            sparse, ours = timed(partial(chunks, *memory, "sparse"), REPEATS)
            dense, same = timed(partial(chunks, *memory, "dense"), REPEATS)
            theirs, _ = timed(partial(full, query, cache), REPEATS)
            error = float((ours - same).abs().max() / same.abs().max())
            if error > 1e-5:
                missed.append(f"M = {m}: the two ways differ by {error:.1e}")
            scores = (m + TOP_K * CHUNK) / (m * CHUNK)
            rows.append((m, error, scores, sparse * 1e3, dense * 1e3, theirs * 1e3))
            results[str(m)] = {
                "error": error,
                "scores_of_full_attention": scores,
                "milliseconds": {
                    "sparse": sparse * 1e3,
                    "dense": dense * 1e3,
                    "full": theirs * 1e3,
                },
            }
    columns = ("M", "error", "scores, of MC", "two steps, ms", "all chunks, ms", "attention, ms")
    table(f"One query, C = {CHUNK}, k = {TOP_K}, D = {DIM}", columns, rows)
    write_json(options.json, {"hcam": results, "missed": missed})
    return bool(missed)


if __name__ == "__main__":
    raise SystemExit(main())
