"""From what a layer puts out to one vector a stimulus."""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch.nn import functional as F

from engramma.errors import ConfigError

#: What ``pool=`` may be.
POOLS = ("mean", "grid", "gridN", "flatten", "first", "last")


class Tokens(NamedTuple):
    """A layer's output for sequences: of words, of image patches, or of moments of sound.

    Parameters
    ----------
    values : tensor, shape (n_stimuli, n_tokens, n_channels)
    mask : tensor of bool, shape (n_stimuli, n_tokens), optional
        Which tokens are real and not padding; without it, all.
    prefix : int
        How many tokens at the start stand for no place (class and register tokens).
    side : int, optional
        Of image patches: rows and columns of the square they lie on.
    """

    values: torch.Tensor
    mask: torch.Tensor | None = None
    prefix: int = 0
    side: int | None = None


Activation = torch.Tensor | Tokens


def grid_size(pool: str) -> int | None:
    """Cells along each side of a grid (``"grid"``: 4, ``"grid8"``: 8), or None for other pools.

    Raises
    ------
    ConfigError
        If ``pool`` is not known.
    """
    match = re.fullmatch(r"grid([1-9]\d*)?", pool)
    if match is None and pool not in POOLS:
        raise ConfigError(
            f"there is no pooling {pool!r}",
            mend="use mean, grid (4 x 4 cells), grid8 (8 x 8 cells ...), flatten, first or last",
        )
    return int(match[1] or 4) if match else None


def pool_activation(activation: Activation, pool: str, layer: str) -> torch.Tensor:
    """Pool one batch of activations over places or tokens.

    Parameters
    ----------
    activation : tensor or Tokens
        Vectors (n, c) stay as they are; maps (n, c, height, width) and sequences are pooled.
    pool : str
        ``"mean"`` over places or real tokens. ``"gridN"``: mean within N x N cells of a map, or N
        stretches of a sequence. ``"flatten"``: everything. ``"first"``, ``"last"``: one token.
    layer : str
        For error messages.

    Returns
    -------
    tensor, shape (n, n_features), float32

    Raises
    ------
    ConfigError
        If the pooling does not fit this kind of output.
    """
    cells = grid_size(pool)
    if isinstance(activation, Tokens):
        return _pool_tokens(activation, pool, cells, layer).float()
    values = activation.float()
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim == 2:
        return values
    if values.ndim == 3:
        return _pool_tokens(Tokens(values), pool, cells, layer)
    if pool in ("first", "last"):
        raise ConfigError(
            f"pool={pool!r} takes one token, but layer {layer!r} puts out maps",
            mend="use pool='mean', 'grid' or 'flatten'",
        )
    if pool == "mean":
        return values.flatten(2).mean(dim=2)
    if cells is not None and values.ndim == 4:
        values = F.adaptive_avg_pool2d(values, cells)
    return values.flatten(1)


def _pool_tokens(tokens: Tokens, pool: str, cells: int | None, layer: str) -> torch.Tensor:
    values, mask = tokens.values.float(), tokens.mask
    if mask is None:
        mask = torch.ones(values.shape[:2], dtype=torch.bool)
    if pool == "first":
        return values[torch.arange(len(values)), mask.int().argmax(dim=1)]
    if pool == "last":
        place = torch.arange(mask.shape[1])[None] * mask
        return values[torch.arange(len(values)), place.argmax(dim=1)]
    if pool == "mean":
        weights = mask[..., None].to(values.dtype)
        return (values * weights).sum(dim=1) / weights.sum(dim=1)
    if cells is not None:
        if tokens.side is not None:
            places = values[:, tokens.prefix :].transpose(1, 2)
            maps = places.unflatten(2, (tokens.side, tokens.side))
            return F.adaptive_avg_pool2d(maps, cells).flatten(1)
        rows = [F.adaptive_avg_pool1d(v[m].T, cells) for v, m in zip(values, mask, strict=True)]
        return torch.stack(rows).flatten(1)
    if not bool(mask.all()):
        raise ConfigError(
            f"pool='flatten' needs sequences of one length, and those of layer {layer!r} differ",
            mend="use pool='mean', 'last' or 'grid'",
        )
    return values.flatten(1)
