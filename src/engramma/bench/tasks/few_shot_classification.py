"""Naming digits by labels that hold for one episode only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engramma.contracts import Scored, Task
from engramma.registry import add_task
from engramma.worlds.few_shot import (
    DIGITS_TEST,
    DIGITS_TRAIN,
    EpisodeSource,
    FewShotEpisodes,
    ImageEpisodes,
    digits,
    split_classes,
    turned,
)

WAYS, LENGTH, DIM = 3, 15, 32
STEPS, BATCH, TEST_EPISODES = 400, 32, 512
#: Instances of a class whose accuracy is told.
INSTANCES = (1, 2, 5)


@dataclass(frozen=True, eq=False)
class FewShot:
    """Episodes to learn from, made as they are needed, and held-out ones.

    Parameters
    ----------
    seed : int
    source : EpisodeSource
    test : FewShotEpisodes
    """

    seed: int
    source: EpisodeSource
    test: FewShotEpisodes


def prepare(seed: int) -> FewShot:
    """Make episodes of digits 0 to 5, turned too, to learn from, and of 6 to 9 for the test."""
    seen, unseen = split_classes(digits(), DIGITS_TRAIN, DIGITS_TEST)
    test = ImageEpisodes(unseen, WAYS, LENGTH)
    rng = np.random.default_rng([seed, 1])
    return FewShot(seed, ImageEpisodes(turned(seen), WAYS, LENGTH), test.draw(rng, TEST_EPISODES))


def fitted(system: Any, data: FewShot, *, steps: int = STEPS) -> Any:
    """Train a model of two blocks around a layer; same episodes and steps for everyone."""
    import torch

    from engramma.memory.model import SequenceModel
    from engramma.nn.seed import seeded
    from engramma.nn.train import train

    n_inputs = data.test.observed.shape[-1]
    n_outputs = data.test.codes.shape[-1]
    model = SequenceModel(
        lambda: system.fresh(dim=DIM), n_inputs, n_outputs, vectors=True, seed=data.seed
    )

    def loss(model: Any, batch: FewShotEpisodes) -> Any:
        batch.check_delay()
        y, _ = model(torch.as_tensor(batch.observed))
        target = torch.as_tensor(batch.targets)
        if batch.n_classes:
            return torch.nn.functional.cross_entropy(y.flatten(0, 1), target.flatten())
        return (y - target).square().mean()

    with seeded(data.seed):
        train(
            model,
            loss,
            lambda epoch: [data.source.draw(np.random.default_rng([data.seed, 2, epoch]), BATCH)],
            epochs=steps,
            optimizer=torch.optim.Adam(model.parameters(), lr=3e-3),
            clip=1.0,
            description="episodes",
        )
    return model


def answers(model: Any, episodes: FewShotEpisodes) -> np.ndarray:
    """Return what a trained model says at each step, episode x step x output."""
    import torch

    with torch.no_grad():
        return np.asarray(model(torch.as_tensor(episodes.observed))[0])


def accuracies(said: np.ndarray, episodes: FewShotEpisodes) -> dict[float, float]:
    """Accuracy at each of `INSTANCES`."""
    right = said.argmax(-1) == episodes.targets
    return {k: float(right[episodes.instance == k].mean()) for k in INSTANCES}


def score(system: Any, data: FewShot) -> Scored:
    """Return the accuracy at the second instance of a class: one example had to be enough."""
    from engramma.memory.model import n_parameters

    model = fitted(system, data)
    curve = accuracies(answers(model, data.test), data.test)
    return Scored(curve[2], curve, {"parameters": float(n_parameters(model))})


def nearest_neighbour(data: FewShot) -> float:
    """Accuracy at the second instance of the label of the nearest image seen so far."""
    x, targets = data.test.inputs, data.test.targets
    distances = ((x[:, :, None] - x[:, None]) ** 2).sum(-1)
    later = np.triu(np.ones(distances.shape[1:], dtype=bool))
    nearest = np.where(later, np.inf, distances).argmin(-1)
    right = np.take_along_axis(targets, nearest, 1) == targets
    return float(right[data.test.instance == 2].mean())


add_task(
    Task(
        name="few-shot-classification",
        contract="SequenceLayer",
        description=f"Which of {WAYS} labels has this digit, when each label was seen once?",
        prepare=prepare,
        score=score,
        metric="accuracy at the 2nd instance of a class",
        chance=1 / WAYS,
        ceiling=nearest_neighbour,
        axis="instance of a class",
    )
)
