"""Changes of whole heads that fit whole prompts: held at their mean, or led to other positions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from engramma.probing.ablation import Head, ablate_heads, mean_values
from engramma.probing.hooks import Edit
from engramma.probing.model import LanguageModel
from engramma.probing.paired_prompts import PairedPrompts
from engramma.probing.places import Place


@contextmanager
def without_heads(
    model: LanguageModel, heads: Iterable[Head], prompts: PairedPrompts | None = None
) -> Iterator[LanguageModel]:
    """Keep heads at their mean over clean prompts and their positions, or at zero without any.

    Parameters
    ----------
    model : LanguageModel
    heads : iterable of (layer, head)
    prompts : PairedPrompts, optional
    """
    heads = list(heads)
    edits = ablate_heads(model, heads)
    if prompts is not None:
        places = {Place("heads", layer) for layer, _ in heads}
        means = mean_values(model, prompts.clean, prompts.last, places)
        edits = ablate_heads(model, heads, "mean", means)
    with model.edited(edits):
        yield model


def attend_to(heads: Iterable[Head], targets: Tensor, last: Tensor) -> list[Edit]:
    """Edits that lead the attention of heads at the last token to given positions, evenly.

    Parameters
    ----------
    heads : iterable of (layer, head)
    targets : Tensor of int64, shape (prompt, target)
    last : Tensor of int64, shape (prompt,)
    """
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        by_layer.setdefault(layer, []).append(head)
    index = torch.arange(len(last))

    def led(chosen: Sequence[int]) -> Callable[[Tensor], Tensor]:
        def change(pattern: Tensor) -> Tensor:
            row = even_attention(targets, pattern.shape[-1]).to(pattern.dtype)
            for head in chosen:
                pattern[index, head, last] = row
            return pattern

        return change

    return [Edit(Place("pattern", layer), led(chosen)) for layer, chosen in by_layer.items()]


def even_attention(targets: Tensor, n_tokens: int) -> Tensor:
    """Attention that is shared evenly by positions (prompt x target); prompt x token."""
    weights = torch.full(targets.shape, 1 / targets.shape[1])
    return torch.zeros(len(targets), n_tokens).scatter_add(1, targets, weights)
