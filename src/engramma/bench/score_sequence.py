"""Train a small model around a sequence layer, and score its answers under ever harder conditions.

Every contestant gets the same model: token embeddings (shared with the output), two blocks of the
layer and a feed-forward network, the same batches in the same order, the same number of steps and
the same optimiser. What differs is the layer. Layers of one width differ in how many parameters and
how much state they have; so the width can be chosen, contestant by contestant, to make one of the
two equal (``-o equal=parameters``, ``-o equal=state``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engramma.contracts import Scored
from engramma.errors import ConfigError
from engramma.memory.layer import MemoryLayer, state_size
from engramma.memory.linear import GatedDeltaNet
from engramma.memory.model import SequenceModel, n_parameters
from engramma.memory.training import Generator, accuracy, fit
from engramma.worlds.streams import TokenStream

#: Weight of a layer's own loss (load balance of a mixture), as published for MoM.
AUXILIARY = 0.01


@dataclass(frozen=True)
class TokenTask:
    """What to train on, and what to ask afterwards.

    Parameters
    ----------
    train : callable
        ``train(rng) -> TokenStream``: one batch.
    tests : mapping of number to sequence of TokenStream
        Held-out batches under each condition, by its place on the task's axis.
    steps : int
        Batches of training.
    seed : int
        Of initial weights and batches.
    equal : {"width", "parameters", "state"}
        What the contestants have in common.
    measure : callable
        ``measure(model, batches) -> float``; share of right answers by default.
    """

    train: Generator
    tests: Mapping[float, Sequence[TokenStream]]
    steps: int
    seed: int
    equal: str = "width"
    measure: Callable[[nn.Module, Sequence[TokenStream]], float] = accuracy


def score_layer(layer: Any, task: TokenTask, *, blocks: int = 2) -> Scored:
    """Train a model around copies of ``layer`` and score it.

    Parameters
    ----------
    layer : MemoryLayer
        Gives the configuration; copies with fresh weights are trained.
    task : TokenTask
    blocks : int

    Returns
    -------
    Scored
        The mean over conditions, the score in each, and what the layer costs.
    """
    model = build(layer, task, blocks)
    fit(
        model,
        task.train,
        steps=task.steps,
        seed=task.seed,
        learning_rate=5e-3,
        auxiliary=own_loss,
        description=type(layer).__name__,
    )
    curve = {place: task.measure(model, batches) for place, batches in task.tests.items()}
    return Scored(float(np.mean(list(curve.values()))), curve, cost(model, task))


def build(layer: Any, task: TokenTask, blocks: int = 2) -> SequenceModel:
    """Make the model that all contestants share, with a vocabulary that serves all conditions.

    Raises
    ------
    ConfigError
        If the system is no layer that maps batch x token x dim to the same.
    """
    if not isinstance(layer, MemoryLayer):
        raise ConfigError(
            f"{type(layer).__name__} is no engramma.memory.layer.MemoryLayer",
            mend="derive the layer from it, so that a model can be built around copies of it",
        )
    n_tokens = max(batch.n_tokens for batches in task.tests.values() for batch in batches)
    dim = matched_width(layer, task.equal)
    return SequenceModel(lambda: layer.fresh(dim=dim), n_tokens, blocks=blocks, seed=task.seed)


def matched_width(layer: MemoryLayer, equal: str) -> int:
    """Width that makes a layer equal to a gated DeltaNet 64 wide, as nearly as multiples of 16 do.

    Parameters
    ----------
    layer : MemoryLayer
    equal : {"width", "parameters", "state"}
        With ``"state"``, a layer whose state grows keeps its own width.

    Raises
    ------
    ConfigError
        If ``equal`` is something else.
    """
    count: dict[str, Callable[[MemoryLayer], int]] = {
        "parameters": n_parameters,
        "state": lambda layer: state_size(layer.initial_state(1)),
    }
    if equal == "width" or (equal == "state" and layer.growing):
        return layer.dim
    if equal not in count:
        raise ConfigError(
            f"contestants cannot be made equal in {equal!r}",
            mend="use width, parameters or state",
        )
    measure = count[equal]
    wanted = measure(GatedDeltaNet(64))
    distance = {}
    for dim in range(16, 257, 16):
        try:
            size = measure(layer.fresh(dim=dim))
        except ConfigError:  # a width that its heads cannot share
            continue
        distance[dim] = abs(np.log(max(size, 1) / wanted))
    return min(distance, key=lambda dim: distance[dim])


def cost(model: SequenceModel, task: TokenTask) -> dict[str, float]:
    """Parameters, numbers of state after the longest test, and tokens a second without gradient."""
    longest = max((b for bs in task.tests.values() for b in bs), key=lambda b: b.tokens.shape[1])
    tokens = torch.as_tensor(longest.tokens[:8])
    seconds = []
    with torch.no_grad():
        for _ in range(3):
            start = time.perf_counter()
            _, state = model(tokens)
            seconds.append(time.perf_counter() - start)
    return {
        "parameters": float(n_parameters(model)),
        "state": float(state_size(state)),
        "tokens a second": tokens.numel() / float(np.median(seconds)),
    }


def own_loss(model: nn.Module) -> Tensor:
    """Weighted sum of the layers' own losses; 0 where they have none."""
    losses = [loss() for loss in _own_losses(model)]
    return AUXILIARY * torch.stack(losses).sum() if losses else torch.zeros(())


def _own_losses(model: nn.Module) -> list[Callable[[], Tensor]]:
    return [m.balance_loss for m in model.modules() if hasattr(m, "balance_loss")]  # type: ignore[misc]
