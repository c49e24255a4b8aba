"""Train the small models of prior-influence: three that read noisy symbols, three clean ones.

    python scripts/train_prior_influence.py [noisy-0 ...]

Each takes half a minute of one core. Single models are kept in ``prior-influence-work``; when all
are there, they are merged into the file that is shipped.
"""

import json
from pathlib import Path

import numpy as np

from engramma.memory.miniatures import train_missing
from engramma.nn.weights import save_weights
from engramma.probing.answers import score
from engramma.probing.training import train_language_model
from engramma.systems.probing.prior_influence import (
    CLEAN_STEPS,
    FILE,
    NOISY_STEPS,
    miniature,
    miniature_items,
    miniature_world,
)

SEEDS = 3


def train(name: str, folder: Path) -> None:
    kind, seed = name.split("-")
    world = miniature_world(kind, int(seed))
    model = miniature(kind, int(seed), trained=False)
    losses = train_language_model(
        model.network,
        world.batch,
        steps=NOISY_STEPS if kind == "noisy" else CLEAN_STEPS,
        rate=2e-3,
        seed=int(seed),
        description=name,
    )
    every = np.arange(world.letters**2)
    right = score(model, miniature_items(world, every, "normal")).correct
    exact = score(model, miniature_items(world, every, "exact")).correct
    reached = {
        "loss": losses[-1],
        "normal": float(right.mean()),
        "common": float(right[world.by_prior[:40]].mean()),
        "rare": float(right[world.by_prior[200:]].mean()),
        "exact": float(exact.mean()),
    }
    print(name, reached, flush=True)
    save_weights(
        folder / f"{name}.safetensors", model.network.state_dict(), accuracy=json.dumps(reached)
    )


if __name__ == "__main__":
    every = [f"{kind}-{seed}" for kind in ("noisy", "clean") for seed in range(SEEDS)]
    train_missing(train, every, FILE, "prior-influence-work", __doc__)
