r"""What single neurons tell: as detectors of a label, and as directions in the vocabulary.

`average_precision` is that of Suau et al. 2022 ("Self-conditioning pre-trained language models"):
the response of a neuron is a score, and its average precision says how well it alone tells positive
from negative examples. With precision P and recall R at the n-th largest distinct response,

.. math:: AP = \sum_n (R_n - R_{n-1}) P_n,

which is what scikit-learn computes for one neuron; here it is computed for all neurons and labels
from one sort.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engramma.errors import DataError
from engramma.probing.model import LanguageModel
from engramma.probing.places import Kind, Place
from engramma.progress import track


def average_precision(
    responses: np.ndarray, labels: np.ndarray, *, neurons: int = 4096
) -> np.ndarray:
    """Average precision of each neuron for each label.

    Parameters
    ----------
    responses : ndarray, shape (prompt, ...)
        Any axes of neurons after the first, such as layer x neuron.
    labels : ndarray of bool, shape (label, prompt) or (prompt,)
    neurons : int
        So many at a time.

    Returns
    -------
    ndarray of float32, shape (label, ...) or (...)

    Raises
    ------
    DataError
        If a label has no positive or no negative prompt, or a response is not finite.
    """
    marks = np.atleast_2d(np.asarray(labels, dtype=bool))
    n = len(responses)
    if marks.shape[1] != n:
        raise DataError(f"{marks.shape[1]} labels cannot be paired with {n} prompts")
    positives = marks.sum(axis=1)
    if (positives == 0).any() or (positives == n).any():
        raise DataError(
            f"a label has {positives.min()} to {positives.max()} positives of {n} prompts",
            where="labels",
            mend="give positive and negative prompts",
        )
    flat = responses.reshape(n, -1)
    found = np.empty((len(marks), flat.shape[1]), dtype=np.float32)
    for start in range(0, flat.shape[1], neurons):
        part = slice(start, start + neurons)
        found[:, part] = _precision(np.ascontiguousarray(flat[:, part].T), marks)
    found = found.reshape(len(marks), *responses.shape[1:])
    return found if np.ndim(labels) == 2 else found[0]


def _precision(rows: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Average precision of rows (neuron x prompt) for marks (label x prompt)."""
    if not np.isfinite(rows).all():
        raise DataError("a response is not finite", where="responses", mend="check the model")
    n = rows.shape[1]
    order = np.argsort(-rows, axis=1)
    values = np.take_along_axis(rows, order, axis=1)
    # Equal responses share one threshold: each counts with the precision at the end of its group.
    ends = np.broadcast_to(np.arange(n), rows.shape).copy()
    ends[:, :-1][values[:, :-1] == values[:, 1:]] = n
    ends = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    found = np.empty((len(marks), len(rows)), dtype=np.float32)
    for index, mark in enumerate(marks):
        hits = mark[order]
        precision = np.cumsum(hits, axis=1) / np.arange(1.0, n + 1)
        at_end = np.take_along_axis(precision, ends, axis=1)
        found[index] = np.where(hits, at_end, 0.0).sum(axis=1) / mark.sum()
    return found


@dataclass(frozen=True)
class Recorded:
    """What was seen while prompts were read.

    Parameters
    ----------
    responses : ndarray of float32, shape (prompt, layer, neuron)
        At each prompt's last token.
    likeliest : Tensor of int64, shape (prompt,)
        The token that the model would say next.
    """

    responses: np.ndarray
    likeliest: Tensor


def record(
    model: LanguageModel, tokens: Tensor, last: Tensor, kind: Kind, rows: int = 64
) -> Recorded:
    """Responses of all neurons, or values of a place of all layers, at the last token.

    Parameters
    ----------
    model : LanguageModel
    tokens : Tensor of int64, shape (prompt, token)
    last : Tensor of int64, shape (prompt,)
    kind : str
        ``gate``, ``up``, ``neurons``, or any other place with one axis of features.
    rows : int
        Prompts at a time.
    """
    places = [Place(kind, layer) for layer in range(model.anatomy.n_layers)]
    values: list[Tensor] = [torch.empty(0)] * len(tokens)
    words = torch.empty(len(tokens), dtype=torch.long)
    for index, part, end in by_length(tokens, last, rows):
        run = model.run(part, keep=places, at=end)
        row = torch.arange(len(part))
        found = torch.stack([run[p][row, end] for p in places], dim=1).float()
        for number, value in zip(index.tolist(), found, strict=True):
            values[number] = value
        words[index] = run.logits.argmax(dim=-1)
    return Recorded(torch.stack(values).numpy(), words)


def by_length(
    tokens: Tensor, last: Tensor, rows: int = 64
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield prompts of like length together, without needless padding.

    Yields
    ------
    index, tokens, last : Tensor
        Which prompts, their tokens (prompt, token), and the position of each one's last.
    """
    parts = torch.argsort(last, stable=True).split(rows)
    for index in track(parts, "reading prompts"):
        yield index, tokens[index, : int(last[index].max()) + 1], last[index]


@dataclass(frozen=True)
class TopTokens:
    """The tokens that vectors are most aligned with.

    Parameters
    ----------
    tokens : Tensor of int64, shape (vector, m)
        Best first.
    probability : Tensor, shape (vector, m)
        Softmax over the whole vocabulary.
    """

    tokens: Tensor
    probability: Tensor

    @property
    def concentration(self) -> Tensor:
        """Probability of the best token, shape (vector,)."""
        return self.probability[:, 0]


@torch.no_grad()
def top_tokens(vectors: Tensor, vocabulary: Tensor, m: int = 10, *, rows: int = 256) -> TopTokens:
    """Project vectors on the vocabulary and keep the best tokens only.

    Vectors are taken some at a time: all products of a model with 8 billion parameters would be
    60 billion numbers.

    Parameters
    ----------
    vectors : Tensor, shape (vector, D)
    vocabulary : Tensor, shape (token, D)
        Rows of the output embedding.
    m : int
        Tokens kept.
    rows : int
        Vectors at a time.

    Raises
    ------
    DataError
        If the widths differ.
    """
    if vectors.shape[1] != vocabulary.shape[1]:
        raise DataError(
            f"vectors of width {vectors.shape[1]} meet a vocabulary of width {vocabulary.shape[1]}",
            where="top_tokens",
            mend="read weights that live in the residual stream of the same model",
        )
    found, shares = [], []
    for part in track(vectors.float().split(rows), "projecting on the vocabulary"):
        products = part @ vocabulary.T
        best = products.topk(min(m, len(vocabulary)), dim=1)
        shares.append((best.values - products.logsumexp(dim=1, keepdim=True)).exp())
        found.append(best.indices)
    return TopTokens(torch.cat(found), torch.cat(shares))
