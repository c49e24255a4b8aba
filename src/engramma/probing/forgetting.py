"""Forgetting on purpose: input embeddings that are drawn anew while a model is trained.

Chen et al. 2023, "Improving language plasticity via pretraining with active forgetting"; Anand et
al. 2025, arXiv:2406.00053, who stop it after a while.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engramma.errors import ConfigError


@dataclass
class Forgetter:
    """Draws the input embeddings of a model anew, now and then; works on any model.

    Parameters
    ----------
    every : int
        Steps k between resets.
    until : int, optional
        Last step N at which one may come; for ever by default.
    probability : float
        With which each token is drawn anew at a reset.
    std : float
        Of fresh embeddings.
    seed : int

    Raises
    ------
    ConfigError
        If a number makes no sense.
    """

    every: int
    until: int | None = None
    probability: float = 1.0
    std: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        if self.every < 1 or not 0 < self.probability <= 1:
            raise ConfigError(
                f"nothing is forgotten every {self.every} steps with probability "
                f"{self.probability}",
                where="Forgetter",
                mend="every is 1 or more, and the probability lies above 0 and at most at 1",
            )

    def step(self, model: Any, optimiser: torch.optim.Optimizer, t: int) -> bool:
        """Forget, if it is time to.

        Parameters
        ----------
        model : Module
            With ``get_input_embeddings``, as models of transformers have.
        optimiser : Optimizer
            Its moments of what is forgotten are cleared: else the first updates would be made of
            gradients of embeddings that are gone.
        t : int
            Steps made so far.

        Returns
        -------
        bool
            Whether embeddings were drawn anew.

        Raises
        ------
        ConfigError
            If input and output embeddings are one tensor, or the optimiser does not train them.
        """
        if t == 0 or t % self.every or (self.until is not None and t > self.until):
            return False
        weight = model.get_input_embeddings().weight
        head = getattr(model, "get_output_embeddings", lambda: None)()
        if head is not None and head.weight is weight:
            raise ConfigError(
                "input and output embeddings are tied: forgetting words would wipe the output",
                where=type(model).__name__,
                mend="build the model with tie_word_embeddings=False",
            )
        if not any(weight is p for group in optimiser.param_groups for p in group["params"]):
            raise ConfigError(
                "the optimiser does not train these embeddings",
                where=type(model).__name__,
                mend="give the optimiser that trains the model",
            )
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + t)
        rows = torch.rand(len(weight), generator=generator) < self.probability
        with torch.no_grad():
            weight[rows] = self.std * torch.randn(weight.shape, generator=generator)[rows]
        state = optimiser.state[weight]
        if bool(rows.all()):
            state.clear()  # the count of steps too, so that moments are unbiased again
        for value in state.values():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                value[rows] = 0.0
        return True
