"""Train a sequence model to watch episodes and to answer the questions at their end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engramma.memory.training import cosine
from engramma.nn.seed import seeded
from engramma.nn.train import train
from engramma.worlds.episodes import Episodes

#: ``make(rng, n_episodes) -> Episodes``.
Generator = Callable[[np.random.Generator, int], Episodes]


def learn(
    model: nn.Module,
    stages: Sequence[tuple[Generator, int]],
    *,
    seed: int,
    batch: int = 16,
    learning_rate: float = 3e-3,
    reconstruct: float = 0.0,
    description: str = "watching",
) -> list[float]:
    """Train on cross-entropy among the choices of each question.

    Parameters
    ----------
    model : nn.Module
        ``model(inputs) -> (scores, state)``. The first ``n_answers`` scores are answers; with
        ``reconstruct``, those after them give the input of the same step back.
    stages : sequence of (generator, int)
        What episodes to draw, and for how many steps; easy ones first. The generators are seeded
        with ``seed`` and the number of the step.
    seed : int
    batch : int
        Episodes a step.
    learning_rate : float
        Of AdamW, at its peak; it rises and falls again over all stages together.
    reconstruct : float
        Weight of the squared error of the reconstruction.
    description : str

    Returns
    -------
    list of float
        Mean loss of each stage.
    """
    total = sum(steps for _, steps in stages)
    starts = np.cumsum([0, *(steps for _, steps in stages)])
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.01
    )

    def batches(stage: int) -> Iterator[Episodes]:
        make, steps = stages[stage]
        for step in range(starts[stage], starts[stage] + steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * cosine(step, total, warmup=0.05)
            yield make(np.random.default_rng([seed, step]), batch)

    def loss(model: nn.Module, episodes: Episodes) -> Tensor:
        inputs = torch.from_numpy(episodes.inputs)
        scores, _ = model(inputs)
        value = question_loss(scores[:, -episodes.questions :], episodes)
        if reconstruct:
            value = value + reconstruct * F.mse_loss(scores[..., episodes.n_answers :], inputs)
        return value

    with seeded(seed):
        return train(
            model,
            loss,
            batches,
            epochs=len(stages),
            optimizer=optimizer,
            clip=1.0,
            description=description,
        )


def question_loss(scores: Tensor, episodes: Episodes) -> Tensor:
    """Cross-entropy of the right choice among the choices.

    Parameters
    ----------
    scores : Tensor, shape (episode, question, at least ``n_answers``)
    episodes : Episodes
    """
    choices = torch.from_numpy(episodes.choices)[:, None].expand(-1, scores.shape[1], -1)
    logits = scores.gather(2, choices)
    return F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(episodes.asked).flatten())


@torch.no_grad()
def accuracy(model: Any, episodes: Episodes) -> float:
    """Share of the questions that are answered rightly."""
    scores, _ = model(torch.from_numpy(episodes.inputs))
    asked = scores[:, -episodes.questions :, : episodes.n_answers]
    return float(episodes.correct(asked.numpy()).mean())
