"""Which dancer danced this dance? After pauses as long as in training, and after longer ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from engramma.contracts import Scored, Task
from engramma.memory.watching import Generator
from engramma.registry import add_task
from engramma.worlds.ballet import N_FEATURES, watch
from engramma.worlds.episodes import Episodes

STEPS, DIM, TEST_EPISODES = 400, 32, 200
DANCERS, DELAYS = 2, (16, 48)


@dataclass(frozen=True)
class Watching:
    """Episodes to learn from, made as they are needed, and held-out ones by length of the pause.

    Parameters
    ----------
    seed : int
    n_inputs : int
        Features of a step.
    train : Generator
    tests : dict of int to Episodes
    """

    seed: int
    n_inputs: int
    train: Generator
    tests: dict[int, Episodes]


def prepare(seed: int) -> Watching:
    """Two dancers, pauses of 16 steps in training."""
    tests = {
        delay: watch(
            np.random.default_rng([seed, delay, 1]), TEST_EPISODES, n_dancers=DANCERS, delay=delay
        )
        for delay in DELAYS
    }
    train = partial(watch, n_dancers=DANCERS, delay=DELAYS[0], questions=DANCERS)
    return Watching(seed, N_FEATURES, train, tests)


def score(system: Any, data: Watching, *, steps: int = STEPS) -> Scored:
    """Train a model of two blocks around a layer; same episodes and steps for everyone."""
    from engramma.memory.model import SequenceModel, n_parameters
    from engramma.memory.watching import accuracy, learn

    n_answers = next(iter(data.tests.values())).n_answers
    model = SequenceModel(
        lambda: system.fresh(dim=DIM), data.n_inputs, n_answers, vectors=True, seed=data.seed
    )
    learn(model, [(data.train, steps)], seed=data.seed, description=type(system).__name__)
    curve = {float(delay): accuracy(model, episodes) for delay, episodes in data.tests.items()}
    return Scored(
        float(np.mean(list(curve.values()))), curve, {"parameters": float(n_parameters(model))}
    )


add_task(
    Task(
        name="ballet",
        contract="SequenceLayer",
        description=f"Which of {DANCERS} dancers danced this dance? Trained with pauses of "
        f"{DELAYS[0]} steps, tested with up to {DELAYS[1]}.",
        prepare=prepare,
        score=score,
        metric="accuracy (mean over pauses)",
        chance=1 / DANCERS,
        axis="steps of a pause",
    )
)
