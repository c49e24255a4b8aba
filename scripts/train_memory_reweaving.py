"""Train the miniatures that the claims of memory reweaving are tried on.

    python scripts/train_memory_reweaving.py                 # all kinds and seeds
    python scripts/train_memory_reweaving.py cmr-0 base-0    # some of them

Each takes some minutes of one core and is kept in a work folder, so that a run can be broken off
and several can work side by side. Stage 0 trains the language model of a seed on texts shorter than
its window; then both kinds go on for as many steps on longer ones: first the adapter alone, then
everything (the base model all the time). The loss is cross-entropy of next tokens, plus that of
answers once more; the memory also learns where to read (`retrieval_loss`), and gradients pass
through its buffers.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engramma.memory.decoder import causal_mask
from engramma.memory.miniatures import train_missing
from engramma.memory.stages import Stage, fit_stages
from engramma.memory.training import accuracy
from engramma.nn.weights import read_weights, save_weights
from engramma.systems.sequence.memory_reweaving import retrieval_loss
from engramma.systems.sequence.memory_reweaving_claims import (
    FILE,
    KINDS,
    SEEDS,
    WINDOW,
    texts,
    untrained,
)
from engramma.worlds.streams import TokenStream

BATCH = 48
SHORT_STEPS, ADAPTER_STEPS, ALL_STEPS = 4000, 200, 800
GAPS = (24, 40, 72)


def short(rng: np.random.Generator) -> TokenStream:
    """Texts within the window."""
    return texts(rng, BATCH, int(rng.integers(6)))


def long(rng: np.random.Generator) -> TokenStream:
    """Texts beyond it."""
    return texts(rng, BATCH, int(rng.choice(GAPS)))


def loss(model: nn.Module, stream: TokenStream) -> Tensor:
    """Cross-entropy of next tokens and of answers; with a memory, that of reading too."""
    tokens, targets = torch.as_tensor(stream.tokens), torch.as_tensor(stream.targets)
    if isinstance(model, Plain):
        logits, reading = model(tokens)[0], 0.0
    else:
        logits, reading = retrieval_loss(model, tokens, torch.as_tensor(stream.distance))
    asked = targets >= 0
    every = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    return every + F.cross_entropy(logits[asked], targets[asked]) + reading


class Plain(nn.Module):
    """The language model of a memory, without it."""

    def __init__(self, memory: nn.Module) -> None:
        super().__init__()
        self.lm = memory.lm

    def forward(self, tokens: Tensor) -> tuple[Tensor, None]:
        """Logits, in the same window."""
        logits = self.lm.get_input_embeddings().weight
        mask = causal_mask(0, tokens.shape[1], WINDOW, logits).expand(len(tokens), -1, -1, -1)
        return self.lm(tokens, attention_mask=mask, use_cache=False).logits, None


def train(name: str, folder: Path) -> None:
    """Train one model and keep its weights with what it reached."""
    kind, _, seed = name.partition("-")
    model = untrained(kind, int(seed))
    model.cut = False
    start = time.process_time()

    def report(number: int, hundred: int, value: float) -> None:
        seconds = time.process_time() - start
        print(f"{name} stage {number}.{hundred + 1}: {value:.3f}, {seconds:.0f} s", flush=True)

    early = folder / f"short_{seed}.safetensors"
    if early.exists():
        model.load_state_dict(read_weights(early)[0], strict=False)
    else:
        fit_stages(Plain(model), [Stage(short, loss, SHORT_STEPS)], seed=int(seed), after=report)
        save_weights(early, {k: v for k, v in model.state_dict().items() if k.startswith("lm.")})
    every = [
        Stage(long, loss, ADAPTER_STEPS, 3e-3, trained=lambda n: n.startswith("adapter.")),
        Stage(long, loss, ALL_STEPS, 3e-3, 0.8),
    ]
    if kind == "base":
        every = [replace(stage, trained=None) for stage in every]
    fit_stages(
        Plain(model) if kind == "base" else model,
        every,
        seed=int(seed),
        after=lambda n, h, value: report(n + 1, h, value),
    )
    kept = {
        k: v
        for k, v in model.state_dict().items()
        if k != "lm.lm_head.weight" and (kind != "base" or k.startswith("lm."))
    }
    # Measured as it will be read: in half precision.
    model.load_state_dict({k: v.half().float() for k, v in kept.items()}, strict=False)
    reached = {
        gap: round(accuracy(model, [texts(np.random.default_rng([int(seed), 77]), 256, gap)]), 4)
        for gap in (0, 32, 96, 320)
    }
    path = folder / f"{name}.safetensors"
    save_weights(path, kept, accuracy=json.dumps(reached))
    print(f"{name}: {reached}, {time.process_time() - start:.0f} s of one core", flush=True)


def main() -> None:
    """Train what is named and not there yet, then merge."""
    every = [f"{kind}-{seed}" for seed in range(SEEDS) for kind in KINDS]
    train_missing(train, every, FILE, "reweaving-work", __doc__)


if __name__ == "__main__":
    main()
