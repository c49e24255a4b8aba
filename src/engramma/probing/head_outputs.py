"""What attention heads add to the residual stream, one vector a head and prompt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from engramma.errors import DataError
from engramma.probing.ablation import Head
from engramma.probing.model import LanguageModel
from engramma.probing.paired_prompts import PairedPrompts
from engramma.probing.places import Place

Pool = Literal["mean", "last"]


@torch.no_grad()
def head_outputs(
    model: LanguageModel, tokens: Tensor, last: Tensor, pool: Pool = "mean", rows: int = 64
) -> Tensor:
    """Collect what each head adds to the residual stream, pooled over positions.

    Parameters
    ----------
    model : LanguageModel
    tokens : Tensor of int64, shape (prompt, token)
        Padded on the right.
    last : Tensor of int64, shape (prompt,)
    pool : {"mean", "last"}
    rows : int
        Prompts at a time.

    Returns
    -------
    Tensor, shape (prompt, layer * head, d)
    """
    anatomy = model.anatomy
    places = [Place("heads", layer) for layer in range(anatomy.n_layers)]
    parts = []
    for part, end in zip(tokens.split(rows), last.split(rows), strict=True):
        positions = torch.arange(part.shape[1])
        weights = (positions <= end[:, None]).float() / (end[:, None] + 1)
        if pool == "last":
            weights = (positions == end[:, None]).float()
        run = model.run(part, keep=places, at=0)
        pooled = [torch.einsum("bthw,bt->bhw", run[place], weights) for place in places]
        added = [
            torch.einsum("bhw,hwd->bhd", z, anatomy.output_weight(layer))
            for layer, z in enumerate(pooled)
        ]
        parts.append(torch.cat(added, dim=1))
    return torch.cat(parts)


def paired_head_outputs(
    model: LanguageModel, prompts: PairedPrompts, pool: Pool = "mean"
) -> tuple[Tensor, np.ndarray]:
    """`head_outputs` of clean prompts, labelled 1, and of corrupted ones, labelled 0."""
    both = [head_outputs(model, t, prompts.last, pool) for t in (prompts.clean, prompts.corrupted)]
    return torch.cat(both), np.repeat([1, 0], len(prompts))


@dataclass(frozen=True)
class PublishedOutputs:
    """Head outputs as the authors share them.

    Parameters
    ----------
    x : Tensor, shape (2 N, head, d)
        The first half positive.
    y : ndarray of 0 and 1, shape (2 N,)
    heads : list of (layer, head)
    truth : ndarray of bool, shape (head,)
        Whether a head belongs to the published circuit.
    """

    x: Tensor
    y: np.ndarray
    heads: list[Head]
    truth: np.ndarray


def read_head_outputs(folder: str | Path) -> PublishedOutputs:
    """Read ``resid_heads_mean.pt``, ``labels_heads_mean.pt`` and ``ground_truth.pt``.

    Raises
    ------
    DataError
        If a file is missing, or is not of that form.
    """
    folder = Path(folder)
    try:
        x, labels, circuit = (
            torch.load(folder / f"{name}.pt", weights_only=True)
            for name in ("resid_heads_mean", "labels_heads_mean", "ground_truth")
        )
        pairs = [str(label)[1:].split("H") for label in labels]
        heads = [(int(layer), int(head)) for layer, head in pairs]
        wanted = {(int(layer), int(head)) for layer, head in circuit}
        if x.ndim != 3 or x.shape[1] != len(heads) or len(x) % 2 or not wanted <= set(heads):
            raise ValueError(f"outputs {tuple(x.shape)}, {len(heads)} labels, {len(wanted)} heads")
    except Exception as error:
        raise DataError(
            f"these are no head outputs as published ({error})",
            where=str(folder),
            mend="x is 2N x head x d, labels are such as 'L0H1', the truth is (layer, head) pairs",
        ) from error
    truth = np.array([head in wanted for head in heads])
    return PublishedOutputs(x.float(), np.repeat([1, 0], len(x) // 2), heads, truth)
