"""Train a model in stages, each with its own texts, loss, parameters and learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engramma.errors import ConfigError
from engramma.nn.seed import seeded
from engramma.nn.train import train

#: Steps between changes of the learning rate, and of what counts as an epoch.
PERIOD = 100


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Parameters
    ----------
    make : callable
        ``make(rng) -> batch``; its generator is seeded with the run's seed, the stage and the step.
    loss : callable
        ``loss(model, batch) -> scalar tensor``.
    steps : int
    learning_rate : float
        Of AdamW.
    decay : float
        Factor on the rate each hundred steps.
    trained : callable, optional
        ``trained(name) -> bool``: which parameters; all that require gradients by default.
    name : str
        Label of the progress bar.
    """

    make: Callable[[np.random.Generator], Any]
    loss: Callable[[nn.Module, Any], Tensor]
    steps: int
    learning_rate: float = 3e-3
    decay: float = 1.0
    trained: Callable[[str], bool] | None = None
    name: str = "training"


def fit_stages(
    model: nn.Module,
    stages: Sequence[Stage],
    *,
    seed: int = 0,
    clip: float = 1.0,
    after: Callable[[int, int, float], None] | None = None,
) -> list[float]:
    """Train ``model`` through all stages.

    Parameters
    ----------
    model : nn.Module
        Left in evaluation mode.
    stages : sequence of Stage
    seed : int
    clip : float
        Largest gradient norm.
    after : callable, optional
        ``after(stage, hundred, mean_loss)``, each hundred steps.

    Returns
    -------
    list of float
        Mean loss of each hundred steps.
    """
    history: list[float] = []
    for number, stage in enumerate(stages):
        history += _fit(model, stage, number, seed, clip, after)
    return history


def _fit(
    model: nn.Module,
    stage: Stage,
    number: int,
    seed: int,
    clip: float,
    after: Callable[[int, int, float], None] | None,
) -> list[float]:
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    chosen = [p for n, p in named.items() if stage.trained is None or stage.trained(n)]
    if not chosen:
        raise ConfigError(
            f"stage {number + 1} trains no parameter",
            where=stage.name,
            mend="let trained() choose some, and see that they require gradients",
        )
    optimizer = torch.optim.AdamW(chosen, lr=stage.learning_rate)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, stage.decay)

    def batches(epoch: int) -> Iterator[Any]:
        for step in range(PERIOD * epoch, min(PERIOD * (epoch + 1), stage.steps)):
            yield stage.make(np.random.default_rng([seed, number, step]))

    others = [p for p in named.values() if not any(p is c for c in chosen)]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        with seeded(seed):
            return train(
                model,
                stage.loss,
                batches,
                epochs=-(-stage.steps // PERIOD),
                optimizer=optimizer,
                scheduler=scheduler,
                clip=clip,
                description=stage.name,
                after_epoch=None if after is None else lambda e, loss: after(number, e, loss),
            )
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
