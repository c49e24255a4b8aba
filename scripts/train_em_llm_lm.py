"""Train the language model of themed events that em-llm uses by default.

``python scripts/train_em_llm_lm.py`` trains a Llama of two layers on streams of 256 tokens with
facts and questions (`engramma.worlds.event_streams.themed_stream`), measures it on new ones and
writes it where engramma looks for its miniatures. It takes about three minutes on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from engramma.memory.language_model import (
    WEIGHTS,
    load_miniature,
    save_miniature,
    small_language_model,
)
from engramma.nn.seed import seeded
from engramma.nn.train import train
from engramma.worlds.event_streams import ASK, N_KEYS, N_TOKENS, N_VALUES, themed_stream

#: Tokens (sequence x token), and weights of their losses.
Batch = tuple[torch.Tensor, torch.Tensor]

LENGTH = 256
STEPS_AN_EPOCH = 50
#: Weight of an answer's loss beside that of other tokens, of which there are many more.
ANSWER = 5.0


def drills(rng: np.random.Generator, size: int, n_facts: int = 8) -> Batch:
    """Nothing but facts, then a question about each of them, in another order."""
    keys = 1 + rng.permuted(np.tile(np.arange(N_KEYS), (size, 1)), axis=1)[:, :n_facts]
    values = 1 + N_KEYS + rng.integers(0, N_VALUES, (size, n_facts))
    order = rng.permuted(np.tile(np.arange(n_facts), (size, 1)), axis=1)
    stated = np.stack([keys, values], 2)
    again = np.take_along_axis(stated, order[..., None], 1)
    asked = np.concatenate([np.full((size, n_facts, 1), ASK), again], 2)
    tokens = np.concatenate([stated.reshape(size, -1), asked.reshape(size, -1)], 1)
    weights = np.zeros(tokens.shape, dtype=np.float32)
    weights[:, 2 * n_facts + 2 :: 3] = 1.0
    return torch.from_numpy(tokens), torch.from_numpy(weights)


def streams(rng: np.random.Generator, size: int) -> Batch:
    """Themed events as in use."""
    drawn = [themed_stream(rng, LENGTH, facts=0.7, questions=0.7) for _ in range(size)]
    weights = np.ones((size, LENGTH), dtype=np.float32)
    for row, stream in zip(weights, drawn, strict=True):
        row[stream.asked] = ANSWER
    return torch.from_numpy(np.stack([s.tokens for s in drawn])), torch.from_numpy(weights)


def loss(model: torch.nn.Module, item: Batch) -> torch.Tensor:
    """Weighted cross-entropy of each token given those before it."""
    tokens, weights = item
    logits = model(tokens, use_cache=False).logits[:, :-1]
    losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    kept = weights[:, 1:].flatten()
    return (losses * kept).sum() / kept.sum()


@torch.no_grad()
def accuracy(model: torch.nn.Module, item: Batch) -> float:
    """Share of questions answered rightly."""
    tokens, weights = item
    named = model(tokens, use_cache=False).logits.argmax(-1)[:, :-1]
    asked = weights[:, 1:] == weights.max()
    return float((named == tokens[:, 1:])[asked].float().mean())


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=WEIGHTS / "em_llm.safetensors")
    parser.add_argument("--epochs", type=int, nargs=2, default=(8, 22), metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = small_language_model(N_TOKENS, dim=64, layers=2, heads=2, seed=options.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=sum(options.epochs) + 1, pct_start=0.05
    )

    def batches(epoch: int) -> Iterable[Batch]:
        rng = np.random.default_rng([options.seed, epoch])
        for step in range(STEPS_AN_EPOCH):
            drilled = epoch < options.epochs[0] or step % 4 == 0
            yield drills(rng, 64) if drilled else streams(rng, 12)

    new = np.random.default_rng([options.seed + 1, 99])
    exams = {"drills": drills(new, 100), "streams": streams(new, 100)}

    def tell(epoch: int, mean: float) -> None:
        if epoch % 5 == 4:
            scores = ", ".join(f"{n} {accuracy(model, e):.3f}" for n, e in exams.items())
            print(f"epoch {epoch + 1}: loss {mean:.3f}; answers to {scores}", flush=True)

    with seeded(options.seed):
        train(
            model,
            loss,
            batches,
            epochs=sum(options.epochs),
            optimizer=optimizer,
            scheduler=schedule,
            clip=1.0,
            description="language model of themed events",
            after_epoch=tell,
        )
    save_miniature(options.to, model)
    print(f"after rounding: {accuracy(load_miniature(options.to), exams['streams']):.3f}")


if __name__ == "__main__":
    main()
