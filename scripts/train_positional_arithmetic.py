"""Train the small models of sums that positional-arithmetic's claims ask.

``python scripts/train_positional_arithmetic.py`` trains, for each seed and each format in which its
claims compare sums, a GPT-2 of three layers, and writes it where engramma looks for its miniatures.
It takes four to twelve minutes a model on one quiet core. All else is learned when it is checked.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from engramma.memory.language_model import PROBING_WEIGHTS
from engramma.systems.probing.positional_arithmetic_claims import SUMS, sums_learner, weights_name

SEEDS = (0, 1, 2)


def main() -> None:
    """Train all formats with all seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=PROBING_WEIGHTS)
    parser.add_argument("--formats", nargs="+", choices=list(SUMS), default=list(SUMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    options = parser.parse_args()
    for seed in options.seeds:
        for name in options.formats:
            learner = sums_learner(seed, name)
            losses = learner.train(SUMS[name].steps)
            learner.save(options.to / weights_name(seed, name))
            print(f"{name}, seed {seed}: loss {losses[-1]:.4f}", flush=True)


if __name__ == "__main__":
    main()
