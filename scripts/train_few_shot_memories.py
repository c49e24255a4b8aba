"""Pretrain the small models of few-shot-memories, one a bigram language.

    python scripts/train_few_shot_memories.py [bigrams-0 ...]

Each takes a quarter of a minute of one core. Single models are kept in ``few-shot-work``; when all
are there, they are merged into the file that is shipped.
"""

import json
from pathlib import Path

import numpy as np
import torch

from engramma.memory.miniatures import train_missing
from engramma.nn.weights import save_weights
from engramma.probing.bigrams import BigramLanguage
from engramma.probing.training import train_language_model
from engramma.systems.probing.few_shot_memories import FILE, miniature

SEEDS, STEPS, ROWS = 3, 400, 32


def train(name: str, folder: Path) -> None:
    seed = int(name.split("-")[1])
    language = BigramLanguage(seed=seed)
    model = miniature(seed, trained=False)

    def batch(rng: np.random.Generator):
        tokens = torch.from_numpy(language.sample(ROWS, rng=rng))
        return tokens, torch.ones(tokens.shape)

    losses = train_language_model(
        model.network, batch, steps=STEPS, rate=4e-3, seed=seed, description=name
    )
    fresh = language.sample(500, rng=np.random.default_rng([seed, 9]))
    reached = {
        "loss": losses[-1],
        "surprisal": float(model.surprisal(torch.from_numpy(fresh)).nanmean()),
        "entropy": float(-language.log_probability(fresh).mean()),
    }
    print(name, reached, flush=True)
    save_weights(
        folder / f"{name}.safetensors", model.network.state_dict(), accuracy=json.dumps(reached)
    )


if __name__ == "__main__":
    every = [f"bigrams-{seed}" for seed in range(SEEDS)]
    train_missing(train, every, FILE, "few-shot-work", __doc__)
