"""Train the small models of relation-neurons on facts between token numbers.

    python scripts/train_relation_neurons.py            # all kinds and seeds
    python scripts/train_relation_neurons.py narrow-0   # some of them

The object is the only loss; a model takes less than a minute of one core. Single models are kept in
a work folder, so that a run can be broken off.
"""

from __future__ import annotations

import json
from pathlib import Path

from engramma.memory.miniatures import train_missing
from engramma.nn.weights import save_weights
from engramma.probing.facts import TokenFacts
from engramma.probing.model import LanguageModel
from engramma.probing.training import train_language_model
from engramma.systems.probing.relation_neurons import answer
from engramma.systems.probing.relation_neurons_claims import FILE, SEEDS, untrained

#: Of 256 facts each.
STEPS = {"narrow": 400, "wide": 250}


def train(name: str, folder: Path) -> None:
    """Train one model and keep its weights with the share of facts it knows."""
    kind, _, seed = name.partition("-")
    facts, network = TokenFacts(int(seed)), untrained(kind, int(seed))
    train_language_model(
        network,
        facts.batch,
        steps=STEPS[kind],
        rate=2e-3,
        weight_decay=0.0,
        warm_up=20,
        seed=int(seed),
        description=name,
    )
    # Output and input embeddings are the same; what is measured is what will be read.
    kept = {k: v for k, v in network.state_dict().items() if k != "lm_head.weight"}
    network.load_state_dict({k: v.half().float() for k, v in kept.items()}, strict=False)
    known = float(answer(LanguageModel(network), facts.prompts)[0].mean())
    save_weights(folder / f"{name}.safetensors", kept, accuracy=json.dumps(round(known, 4)))
    print(f"{name}: {known:.1%} of its facts known", flush=True)


def main() -> None:
    """Train what is named and not there yet, then merge."""
    every = [f"{kind}-{seed}" for kind, n in SEEDS.items() for seed in range(n)]
    train_missing(train, every, FILE, "relation-neurons-work", __doc__)


if __name__ == "__main__":
    main()
