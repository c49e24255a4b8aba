"""Change or note what attention heads look at, row by row of their patterns."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from engramma.probing.ablation import Head, heads_by_layer
from engramma.probing.hooks import Edit
from engramma.probing.model import LanguageModel
from engramma.probing.places import Place


def uniform_attention(
    model: LanguageModel, heads: Iterable[Head], rows: slice = slice(None)
) -> list[Edit]:
    """Edits that let heads attend to all visible positions alike.

    Parameters
    ----------
    model : LanguageModel
    heads : iterable of (layer, head)
    rows : slice
        Of the patterns (positions that attend) to change.

    Raises
    ------
    ConfigError
        If there is no such head.
    """

    def even(layer: int, chosen: Tensor) -> Edit:
        def change(pattern: Tensor) -> Tensor:
            new, total = pattern.shape[-2:]
            visible = torch.ones(new, total, dtype=pattern.dtype).tril(total - new)
            pattern[:, chosen, rows] = (visible / visible.sum(dim=1, keepdim=True))[rows]
            return pattern

        return Edit(Place("pattern", layer), change)

    return [even(layer, chosen) for layer, chosen in heads_by_layer(model, heads).items()]


def scramble_attention(model: LanguageModel, heads: Iterable[Head], seed: int = 0) -> list[Edit]:
    """Edits that give each row of a head's pattern to random visible positions.

    Parameters
    ----------
    model : LanguageModel
    heads : iterable of (layer, head)
    seed : int
        Of the positions, which are the same for all heads of a layer and all sequences.

    Raises
    ------
    ConfigError
        If there is no such head.
    """

    def scrambled(layer: int, chosen: Tensor) -> Edit:
        def change(pattern: Tensor) -> Tensor:
            new, total = pattern.shape[-2:]
            rank = np.random.default_rng([seed, layer]).random((new, total))
            hidden = np.triu(np.ones((new, total), dtype=bool), total - new + 1)
            rank = np.where(hidden, 1.0 + np.arange(total), rank)
            order = torch.from_numpy(rank.argsort(axis=1))
            picked = pattern[:, chosen]
            pattern[:, chosen] = picked.gather(3, order.expand_as(picked))
            return pattern

        return Edit(Place("pattern", layer), change)

    return [scrambled(layer, chosen) for layer, chosen in heads_by_layer(model, heads).items()]


def note_strongest(layer: int, seen: dict[int, list[np.ndarray]]) -> Edit:
    """Edit that changes nothing and notes where each head looks most from the last position.

    Nothing else of the pattern is kept, so that long contexts need no memory.

    Parameters
    ----------
    layer : int
    seen : dict of int to list of ndarray
        Gets, at each run, the positions (sequence x head) of the layer.
    """

    def look(pattern: Tensor) -> Tensor:
        seen.setdefault(layer, []).append(pattern[:, :, -1].argmax(dim=-1).numpy())
        return pattern

    return Edit(Place("pattern", layer), look)


def note_attention(layer: int, seen: dict[int, Tensor], since: Tensor, to: Tensor) -> Edit:
    """Edit that changes nothing and notes the mean attention of each head between positions.

    Parameters
    ----------
    layer : int
    seen : dict of int to Tensor
        Gets the mean over sequences and pairs, shape (head,).
    since, to : Tensor of int64, shape (sequence, pair)
        Positions that attend, and that are attended to.
    """

    def look(pattern: Tensor) -> Tensor:
        sequence = torch.arange(len(pattern))[:, None]
        seen[layer] = pattern[sequence, :, since, to].mean(dim=(0, 1))
        return pattern

    return Edit(Place("pattern", layer), look)
