"""Predicting a sinusoid from a few of its points."""

from __future__ import annotations

from typing import Any

import numpy as np

from engramma.bench.tasks.few_shot_classification import FewShot, answers, fitted
from engramma.contracts import Scored, Task
from engramma.registry import add_task
from engramma.worlds.few_shot import REACH, FewShotEpisodes, SinusoidEpisodes

SHOTS, TEST_EPISODES = 10, 512
#: Shots after which the score is told.
SHOWN = (1, 2, 5, 10)


def prepare(seed: int) -> FewShot:
    """Make sinusoids to learn from, and new ones for the test."""
    source = SinusoidEpisodes(SHOTS)
    return FewShot(seed, source, source.draw(np.random.default_rng([seed, 1]), TEST_EPISODES))


def errors(said: np.ndarray, episodes: FewShotEpisodes) -> np.ndarray:
    """Mean squared error after 0, 1, 2, ... shots."""
    return np.asarray(((said - episodes.targets) ** 2).mean(axis=(0, 2)))


def explained(said: np.ndarray, episodes: FewShotEpisodes, shots: int = SHOTS) -> float:
    """Share of the targets' mean square that predictions account for after ``shots`` examples."""
    mean_square = float((episodes.targets[:, shots] ** 2).mean())
    return 1 - float(errors(said, episodes)[shots]) / mean_square


def score(system: Any, data: FewShot) -> Scored:
    """Train a model of two blocks around a layer, and look at what it says after all shots."""
    from engramma.memory.model import n_parameters

    model = fitted(system, data)
    said = answers(model, data.test)
    curve = {float(k): explained(said, data.test, k) for k in SHOWN}
    return Scored(curve[SHOTS], curve, {"parameters": float(n_parameters(model))})


def ridge(episodes: FewShotEpisodes, penalty: float = 1e-3) -> np.ndarray:
    """Ridge regression on sin x and cos x, from the points shown so far: it knows the family."""
    x = episodes.inputs[..., 0].astype(float) * REACH
    basis = np.stack([np.sin(x), np.cos(x)], -1)
    return _sequential(basis @ basis.transpose(0, 2, 1), episodes.targets, penalty)


def gaussian_process(
    episodes: FewShotEpisodes, width: float = 1.5, penalty: float = 1e-3
) -> np.ndarray:
    """Gaussian process with a squared exponential kernel: it knows only that y is smooth."""
    x = episodes.inputs[..., 0].astype(float) * REACH
    kernel = np.exp(-((x[:, :, None] - x[:, None]) ** 2) / (2 * width**2))
    return _sequential(kernel, episodes.targets, penalty)


def _sequential(kernel: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    """Kernel ridge predictions of each step from the steps before it."""
    said = np.zeros(targets.shape)
    for k in range(1, targets.shape[1]):
        gram = kernel[:, :k, :k] + penalty * np.eye(k)
        said[:, k] = (kernel[:, k, None, :k] @ np.linalg.solve(gram, targets[:, :k]))[:, 0]
    return said


def ceiling(data: FewShot) -> float:
    """Return the score of `ridge`, which knows that it sees sinusoids of this frequency."""
    return explained(ridge(data.test), data.test)


add_task(
    Task(
        name="few-shot-regression",
        contract="SequenceLayer",
        description=f"What is a sinusoid's next value, after {SHOTS} points of it?",
        prepare=prepare,
        score=score,
        metric=f"explained share of the mean square after {SHOTS} shots (1 - MSE / mean square)",
        chance=0.0,
        ceiling=ceiling,
        axis="shots",
    )
)
