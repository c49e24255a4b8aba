"""Slots that compete for tokens, each with weights of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def keep_top(weights: Tensor, k: int | None) -> Tensor:
    """Set all but the ``k`` largest weights of the last dimension to zero.

    The others are not renormalised. All are kept where there are no more than ``k``, or for None.
    """
    if k is None or k >= weights.shape[-1]:
        return weights
    best = weights.topk(k, dim=-1)
    return torch.zeros_like(weights).scatter(-1, best.indices, best.values)


class SlotLinear(nn.Module):
    """A linear map for each slot: batch x slot x ``n_inputs`` to batch x slot x ``n_outputs``."""

    def __init__(self, slots: int, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        bound = n_outputs**-0.5
        self.weight = nn.Parameter(torch.empty(slots, n_inputs, n_outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(slots, n_outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Map each slot by its own weights."""
        return torch.einsum("bni,nio->bno", x, self.weight) + self.bias
