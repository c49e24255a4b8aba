"""Train the models that the claims of hcam compare on the symbolic ballet.

``python scripts/train_hcam.py`` trains three HCAMs, three full attentions with absolute positions
and three LSTMs, on the same episodes, and writes their weights beside the system; ``--kind lstm``
trains one kind only. All take some five minutes on one core. Each seed is one model: seeds are
those of its initial weights and of its training episodes, which no claim uses again.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from engramma.memory.watching import accuracy, learn
from engramma.systems.sequence.hcam_claims import (
    KINDS,
    N_MODELS,
    STEPS,
    ballet_model,
    save_models,
    training_stages,
)
from engramma.worlds.ballet import watch


def main() -> None:
    """Train, report on new episodes, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    for kind in parser.parse_args().kind or list(KINDS):
        models = []
        for seed in range(N_MODELS):
            start = time.process_time()
            model = ballet_model(kind, seed)
            learn(model, training_stages(STEPS[kind]), seed=seed, description=f"{kind} {seed}")
            models.append(model)
            for delay in (16, 48):
                episodes = watch(np.random.default_rng([seed, delay, 999]), 300, delay=delay)
                print(f"{kind} {seed}: {accuracy(model, episodes):.3f} at delay {delay}")
            print(f"{time.process_time() - start:.0f} s of CPU time", flush=True)
        save_models(kind, models)


if __name__ == "__main__":
    main()
