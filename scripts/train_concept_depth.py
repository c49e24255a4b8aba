"""Train the small models of concept-depth on coin stories.

    python scripts/train_concept_depth.py            # all seeds
    python scripts/train_concept_depth.py coins-0    # some of them

All three questions are learned together, with the answer as the only loss; about a minute of one
core a model. Single models are kept in a work folder, so that a run can be broken off.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from engramma.memory.miniatures import train_missing
from engramma.nn.weights import save_weights
from engramma.probing.concepts import CoinStories
from engramma.probing.model import LanguageModel
from engramma.probing.training import train_language_model
from engramma.systems.probing.concept_depth_claims import FILE, SEEDS, untrained

STEPS = 800


def train(name: str, folder: Path) -> None:
    """Train one model and keep its weights with its accuracy for each question."""
    kind, _, seed = name.partition("-")
    world, network = CoinStories(int(seed)), untrained(kind, int(seed))
    train_language_model(
        network,
        world.batch,
        steps=STEPS,
        rate=3e-3,
        seed=int(seed),
        description=name,
    )
    # Output and input embeddings are the same; what is measured is what will be read.
    kept = {k: v for k, v in network.state_dict().items() if k != "lm_head.weight"}
    network.load_state_dict({k: v.half().float() for k, v in kept.items()}, strict=False)
    reached = []
    for question in range(3):
        tokens, labels = world.draw(np.random.default_rng([int(seed), 9]), 1000, question)
        said = LanguageModel(network).logits(tokens, at=-1).argmax(dim=-1)
        reached.append(round(float((said == world.answers(labels)).float().mean()), 4))
    save_weights(folder / f"{name}.safetensors", kept, accuracy=json.dumps(reached))
    print(f"{name}: {reached}", flush=True)


def main() -> None:
    """Train what is named and not there yet, then merge."""
    train_missing(
        train, [f"coins-{seed}" for seed in range(SEEDS)], FILE, "concept-depth-work", __doc__
    )


if __name__ == "__main__":
    main()
