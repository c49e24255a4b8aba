"""Train the small models that circuit-reuse and sae-circuits use.

``python scripts/train_circuit_reuse.py`` trains, for each seed, two GPT-2 of three layers on
indirect objects, coloured objects and induction (`engramma.probing.paired_tokens`), and writes them
where engramma looks for its miniatures: ``circuit_reuse_SEED``, which practised coloured objects
with several questions a sequence until it does both tasks, and ``circuit_reuse_SEED_plateau``,
which did not practise, as it was last before coloured objects rose above chance: to be repaired. It
takes about three minutes a seed on one quiet core.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engramma.memory.language_model import PROBING_WEIGHTS, save_miniature
from engramma.probing.paired_prompts import PairedPrompts
from engramma.probing.paired_tokens import (
    VOCABULARY,
    colour_tokens,
    identification_tokens,
    training_batch,
)
from engramma.probing.training import learned_position_model, train_language_model

SEEDS = (0, 1, 2)
RATE, POSITIONS, ROWS = 3e-3, 32, 16
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


def train(
    seed: int,
    steps: int,
    *,
    practice: bool,
    look: Callable[[Any, int, float, float], None] | None = None,
) -> tuple[Any, bool]:
    """Train a model until both tasks are done; return it, and whether they are.

    ``look(network, step, names, colours)`` sees the shares of right answers now and then.
    """
    network = learned_position_model(
        VOCABULARY, dim=64, layers=3, heads=4, neurons=128, positions=POSITIONS, seed=seed
    )
    new = np.random.default_rng([seed, 99])
    exams = (identification_tokens(300, rng=new), colour_tokens(300, rng=new))

    def after_step(step: int) -> None:
        if step % EVERY:
            return
        network.eval()
        names, colours = (accuracy(network, exam) for exam in exams)
        network.train()
        print(f"seed {seed}, step {step}: {names:.3f}, {colours:.3f}", flush=True)
        if look:
            look(network, step, names, colours)
        if names > 0.99 and colours > ENOUGH:
            raise Learned

    try:
        train_language_model(
            network,
            training_batch(ROWS, practice=practice),
            steps=steps,
            rate=RATE,
            decay=False,
            seed=seed,
            after_step=after_step,
        )
    except Learned:
        return network.eval(), True
    return network, False


def train_both_tasks(seed: int, steps: int, path: Path) -> None:
    """Train with practice, and write the model if it learned both tasks."""
    network, learned = train(seed, steps, practice=True)
    if not learned:
        raise SystemExit(f"seed {seed} has not learned both tasks in {steps} steps")
    save_miniature(path, network)


def train_plateau(seed: int, steps: int, path: Path) -> None:
    """Train without practice, and write the last state before coloured objects are learned."""
    plateau: dict[str, Any] = {}

    def look(network: Any, step: int, names: float, colours: float) -> None:
        if names > 0.95 and colours < PLATEAU:
            plateau.update(weights=copy.deepcopy(network.state_dict()), step=step, right=colours)

    network, _ = train(seed, steps, practice=False, look=look)
    if not plateau:
        raise SystemExit(f"seed {seed} has no plateau: names and colours were learned together")
    network.load_state_dict(plateau["weights"])
    print(f"plateau: step {plateau['step']}, {plateau['right']:.3f} of coloured objects")
    save_miniature(path, network)


def main() -> None:
    """Train all seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=PROBING_WEIGHTS)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    options = parser.parse_args()
    for seed in options.seeds:
        train_both_tasks(seed, options.steps, options.to / f"circuit_reuse_{seed}.safetensors")
        train_plateau(seed, options.steps, options.to / f"circuit_reuse_{seed}_plateau.safetensors")


if __name__ == "__main__":
    main()
