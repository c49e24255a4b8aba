"""Train the small models that circuit-reuse and sae-circuits use.

``python scripts/train_circuit_reuse.py`` trains three GPT-2 of three layers on indirect objects,
coloured objects and induction (`engramma.probing.paired_tokens`), each with a seed of its own, and
writes two of its states where engramma looks for its miniatures: ``circuit_reuse_SEED``, which does
both tasks, and ``circuit_reuse_SEED_plateau``, the last one before coloured objects rise above
chance, to be repaired. It takes about three minutes a seed on one quiet core.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engramma.memory.language_model import PROBING_WEIGHTS, load_miniature, save_miniature
from engramma.probing.paired_prompts import PairedPrompts
from engramma.probing.paired_tokens import (
    VOCABULARY,
    colour_tokens,
    identification_tokens,
    training_batch,
)
from engramma.probing.training import learned_position_model, train_language_model

SEEDS = (0, 1, 2)
RATE, POSITIONS = 3e-3, 32
#: Steps between tests, and right answers up to which coloured objects are on their plateau.
EVERY, PLATEAU = 125, 0.5
#: Right answers to coloured objects at which training ends.
ENOUGH = 0.97


class Learned(Exception):
    """Both tasks are done."""


@torch.no_grad()
def accuracy(network: Any, prompts: PairedPrompts) -> float:
    """Share of prompts whose answer is above its foils."""
    return float(prompts.right(network(prompts.clean).logits[:, -1]).float().mean())


def train(seed: int, steps: int, folder: Path) -> None:
    """Train one model, and write it and its plateau."""
    network = learned_position_model(
        VOCABULARY, dim=64, layers=3, heads=4, neurons=128, positions=POSITIONS, seed=seed
    )
    new = np.random.default_rng([seed, 99])
    exams = (identification_tokens(300, rng=new), colour_tokens(300, rng=new))
    plateau: dict[str, Any] = {}

    def look(step: int) -> None:
        if step % EVERY:
            return
        network.eval()
        names, colours = (accuracy(network, exam) for exam in exams)
        network.train()
        if names > 0.95 and colours < PLATEAU:
            plateau.update(weights=copy.deepcopy(network.state_dict()), step=step, right=colours)
        print(f"seed {seed}, step {step}: {names:.3f}, {colours:.3f}", flush=True)
        if names > 0.99 and colours > ENOUGH:
            raise Learned

    try:
        train_language_model(
            network,
            training_batch(16),
            steps=steps,
            rate=RATE,
            decay=False,
            seed=seed,
            after_step=look,
        )
    except Learned:
        network.eval()
    path = folder / f"circuit_reuse_{seed}.safetensors"
    save_miniature(path, network)
    print(f"after rounding: {[accuracy(load_miniature(path), exam) for exam in exams]}", flush=True)
    if not plateau:
        raise SystemExit(f"seed {seed} has no plateau: names and colours were learned together")
    network.load_state_dict(plateau["weights"])
    print(f"plateau: step {plateau['step']}, {plateau['right']:.3f} of coloured objects")
    save_miniature(folder / f"circuit_reuse_{seed}_plateau.safetensors", network)


def main() -> None:
    """Train all seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=PROBING_WEIGHTS)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    options = parser.parse_args()
    for seed in options.seeds:
        train(seed, options.steps, options.to)


if __name__ == "__main__":
    main()
