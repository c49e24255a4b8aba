"""Low-rank adaptation: a small trainable correction beside frozen weights (Hu et al. 2022).

Each chosen linear map x W becomes x W + (alpha / rank) x A B, with A (in x rank) random and B
(rank x out) zero, so that nothing changes before it is trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engramma.errors import ConfigError
from engramma.nn.seed import seeded

#: Maps that the authors of HMT adapt in a Llama.
LLAMA_MAPS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LowRank(nn.Module):
    """A frozen linear map and its correction."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        self.linear, self.scale = linear.requires_grad_(False), alpha / rank
        weight = linear.weight
        down = torch.randn(linear.in_features, rank, device=weight.device, dtype=weight.dtype)
        self.down = nn.Parameter(down / rank)
        self.up = nn.Parameter(weight.new_zeros(rank, linear.out_features))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        mapped: Tensor = self.linear(x)
        return mapped + self.scale * (self.dropout(x) @ self.down @ self.up)


def add_low_rank(
    model: nn.Module,
    names: Sequence[str] = LLAMA_MAPS,
    *,
    rank: int = 8,
    alpha: float = 32.0,
    dropout: float = 0.1,
    seed: int = 0,
) -> list[str]:
    """Freeze a model, and put corrections beside its linear maps of these names.

    Returns
    -------
    list of str
        Names of the maps that were changed.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if rank < 1:
        raise ConfigError(f"a rank of {rank}", where="add_low_rank", mend="use at least 1")
    chosen = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in names
    ]
    if not chosen:
        raise ConfigError(
            f"the model has no linear map called {', '.join(names)}",
            where=type(model).__name__,
            mend="name some of its own, the last part of the name is enough",
        )
    model.requires_grad_(False)
    with seeded(seed):
        for name in chosen:
            parent, _, last = name.rpartition(".")
            owner = model.get_submodule(parent)
            setattr(owner, last, LowRank(getattr(owner, last), rank, alpha, dropout))
    return chosen
