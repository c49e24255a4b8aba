"""Weights of fewer bits, for as long as a ``with`` block lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from engramma.errors import ConfigError
from engramma.probing.model import LanguageModel


def round_weight(weight: Tensor, bits: int, axis: int = 1) -> Tensor:
    r"""Round to symmetric steps, with one scale for each output channel.

    Parameters
    ----------
    weight : Tensor, shape (a, b)
    bits : int
        32 changes nothing and 16 is bfloat16; with b < 16 bits there are the steps
        :math:`-(2^{b-1} - 1), \dots, 2^{b-1} - 1`.
    axis : int
        Of the inputs.

    Raises
    ------
    ConfigError
        If ``bits`` is none of 2 to 8, 16 and 32.
    """
    if bits == 32:
        return weight.clone()
    if bits == 16:
        return weight.to(torch.bfloat16).to(weight.dtype)
    if not 2 <= bits <= 8:
        raise ConfigError(f"{bits} bits cannot be", where="bits", mend="use 2 to 8, 16 or 32")
    top = 2 ** (bits - 1) - 1
    scale = (weight.abs().amax(dim=axis, keepdim=True) / top).clamp(min=1e-12)
    return (weight / scale).round().clamp(-top, top) * scale


@contextmanager
@torch.no_grad()
def quantised(model: LanguageModel, bits: int) -> Iterator[LanguageModel]:
    """Round the matrices of all blocks; embeddings and output stay, as in 8-bit libraries."""
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        for block in model.anatomy.blocks:
            for module in block.modules():
                weight = getattr(module, "weight", None)
                if isinstance(weight, Tensor) and weight.ndim == 2:
                    kept.append((weight, weight.clone()))
                    # The layers of GPT-2 hold their matrices the other way round.
                    axis = 1 if isinstance(module, nn.Linear) else 0
                    weight.copy_(round_weight(weight, bits, axis))
        yield model
    finally:
        for weight, before in kept:
            weight.copy_(before)
