"""Which box hides this object? After pauses as long as in training, and after longer ones."""

from __future__ import annotations

from functools import partial

import numpy as np

from engramma.bench.tasks.ballet import TEST_EPISODES, Watching, score
from engramma.contracts import Task
from engramma.registry import add_task
from engramma.worlds.object_permanence import N_FEATURES, hide

OBJECTS, DELAYS = 4, (16, 48)


def prepare(seed: int) -> Watching:
    """Four objects, pauses of 16 steps in training."""
    tests = {
        delay: hide(
            np.random.default_rng([seed, delay, 1]), TEST_EPISODES, n_objects=OBJECTS, delay=delay
        )
        for delay in DELAYS
    }
    train = partial(hide, n_objects=OBJECTS, delay=DELAYS[0], questions=OBJECTS)
    return Watching(seed, N_FEATURES, train, tests)


add_task(
    Task(
        name="object-permanence",
        contract="SequenceLayer",
        description=f"Which of {OBJECTS} boxes hides this object? Trained with pauses of "
        f"{DELAYS[0]} steps, tested with up to {DELAYS[1]}.",
        prepare=prepare,
        score=score,
        metric="accuracy (mean over pauses)",
        chance=1 / OBJECTS,
        axis="steps of a pause",
    )
)
