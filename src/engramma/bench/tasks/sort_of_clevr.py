"""Which shape is nearest? Questions about six objects, for any sequence layer.

The objects are given as a list (the state description of sort-of-CLEVR), after the question and
before a last token, at which the answer is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engramma.contracts import Task
from engramma.registry import add_task
from engramma.worlds.sort_of_clevr import ANSWERS, SortOfCLEVR, make_sort_of_clevr

N_TRAIN, N_TEST = 2000, 500
DIM, STEPS, BATCH = 32, 250, 64
#: The most common answer of each of the three binary questions.
CHANCE = 0.44


@dataclass(frozen=True, eq=False)
class Scenes:
    """Scenes to learn from and to be asked about, and the seed of the training."""

    train: SortOfCLEVR
    test: SortOfCLEVR
    seed: int


def prepare(seed: int) -> Scenes:
    """Render new scenes."""
    train, test = (
        make_sort_of_clevr(n, rng=np.random.default_rng([seed, part]))
        for part, n in enumerate((N_TRAIN, N_TEST))
    )
    return Scenes(train, test, seed)


def score(system: Any, data: Scenes) -> float:
    """Fraction correct of a model of two blocks around the layer, trained on binary questions."""
    import torch

    from engramma.memory.model import SequenceModel
    from engramma.memory.questions import LastToken, correct, learn
    from engramma.nn.seed import seeded

    told, answer = as_tokens(data.train), torch.from_numpy(data.train.answers["binary"]).flatten()
    with seeded(data.seed):
        model = LastToken(
            SequenceModel(
                lambda: system.fresh(dim=DIM),
                told.shape[-1],
                len(ANSWERS),
                vectors=True,
                seed=data.seed,
            )
        )

    def batch(rng: np.random.Generator) -> Any:
        chosen = torch.from_numpy(rng.integers(0, len(answer), BATCH))
        return (told[chosen],), answer[chosen]

    learn(model, batch, steps=STEPS, seed=data.seed)
    right = torch.from_numpy(data.test.answers["binary"]).flatten()
    return float(correct(model, (as_tokens(data.test),), right).mean())


def as_tokens(scenes: SortOfCLEVR) -> Any:
    """Question, six objects and an empty last token, each in columns of its own."""
    import torch

    asked, objects = scenes.questions["binary"], scenes.objects()
    n_images, n_questions, size = asked.shape
    tokens = np.zeros((n_images, n_questions, 8, size + objects.shape[-1] + 1), np.float32)
    tokens[:, :, 0, :size] = asked
    tokens[:, :, 1:7, size:-1] = objects[:, None]
    tokens[:, :, 7, -1] = 1
    return torch.from_numpy(tokens).flatten(0, 1)


add_task(
    Task(
        name="sort-of-clevr",
        contract="SequenceLayer",
        description="What shape is the nearest object, the farthest, and how many are alike?",
        prepare=prepare,
        score=score,
        metric="accuracy (new scenes)",
        chance=CHANCE,
    )
)
