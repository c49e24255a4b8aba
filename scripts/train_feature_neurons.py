"""Train the small models of feature-neurons on a language of topics.

    python scripts/train_feature_neurons.py            # all kinds and seeds
    python scripts/train_feature_neurons.py plain-0    # some of them

Less than a minute of one core a model. Single models are kept in a work folder, so that a run can
be broken off.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from engramma.memory.miniatures import train_missing
from engramma.nn.weights import save_weights
from engramma.probing.model import LanguageModel
from engramma.probing.training import train_language_model
from engramma.systems.probing.feature_neurons_claims import FILE, LANGUAGE, SEEDS, untrained


def train(name: str, folder: Path) -> None:
    """Train one model and keep its weights with its surprisal of new texts."""
    kind, _, seed = name.partition("-")
    network = untrained(kind, int(seed))
    train_language_model(
        network,
        LANGUAGE.batch,
        steps=500,
        rate=3e-3,
        seed=int(seed),
        description=name,
    )
    # Where both embeddings are the same, one is kept; what is measured is what will be read.
    tied = network.config.tie_word_embeddings
    kept = {k: v for k, v in network.state_dict().items() if not (tied and k == "lm_head.weight")}
    network.load_state_dict({k: v.half().float() for k, v in kept.items()}, strict=False)
    texts = LANGUAGE.texts(np.random.default_rng([int(seed), 9]), 256, 32)
    nats = float(LanguageModel(network).surprisal(texts)[:, 1:].mean())
    save_weights(folder / f"{name}.safetensors", kept, accuracy=json.dumps(round(nats, 4)))
    print(f"{name}: {nats:.3f} nats a token", flush=True)


def main() -> None:
    """Train what is named and not there yet, then merge."""
    every = [f"{kind}-{seed}" for kind, n in SEEDS.items() for seed in range(n)]
    train_missing(train, every, FILE, "feature-neurons-work", __doc__)


if __name__ == "__main__":
    main()
