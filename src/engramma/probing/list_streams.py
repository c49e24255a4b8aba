"""Streams of tokens in which a list comes twice, for models that are trained in place.

A stream reads ``filler, MARKER list END, filler, MARKER list END``. Filler follows a fixed Markov
chain, which can only be learned into the weights; lists are drawn anew in each stream, so that the
second one can only be known from the first. The same stream is a needle in a haystack (the first
list is the needle, the second marker the question) and a test of verbatim memory.

The published experiments use text; these are their like for networks of some ten thousand
parameters (Wu et al. 2024, arXiv:2404.15574; Armeni, Honey & Linzen 2022, CoNLL).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from engramma.errors import ConfigError
from engramma.memory.language_model import PROBING_WEIGHTS, load_miniature
from engramma.nn.weights import load_shipped
from engramma.probing.model import LanguageModel
from engramma.probing.recurrent_model import RecurrentModel

#: What a list begins and ends with.
MARKER, END = 0, 1
#: First and last + 1 of the tokens of filler, and of those of lists.
FILLER, NOUNS = (2, 16), (16, 64)
N_TOKENS = NOUNS[1]
#: The second list: the first again, the same nouns in another order, or other nouns.
Condition = Literal["repeat", "permute", "novel"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
#: Transformers that come with engramma (``scripts/train_list_streams.py``): with repeated lists
#: in training, and of two layers without.
Trained = Literal["one_layer", "two_layers", "four_layers", "never_repeated"]


@dataclass(frozen=True)
class ListPairs:
    """Streams with two lists each.

    Parameters
    ----------
    tokens : ndarray of int64, shape (stream, token)
    first, second : ndarray of int64, shape (stream, noun)
        Positions of the nouns.
    """

    tokens: np.ndarray
    first: np.ndarray
    second: np.ndarray

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Tokens at positions (stream x noun)."""
        return np.take_along_axis(self.tokens, positions, axis=1)


@cache
def transitions() -> np.ndarray:
    """Probability of each token of filler after each other, row by row; rather uneven."""
    size = FILLER[1] - FILLER[0]
    return np.random.default_rng(20221).dirichlet(np.full(size, 0.3), size)


def filler(rng: np.random.Generator, n: int, length: int) -> np.ndarray:
    """Draw filler from the chain, n x length."""
    below = transitions().cumsum(axis=1)
    drawn = rng.random((n, length))
    state = rng.integers(0, len(below), n)
    tokens = np.empty((n, length), dtype=np.int64)
    for place in range(length):
        tokens[:, place] = state
        state = (drawn[:, place, None] > below[state]).sum(axis=1).clip(max=len(below) - 1)
    return tokens + FILLER[0]


def draw_lists(rng: np.random.Generator, n: int, nouns: int, lists: int = 1) -> np.ndarray:
    """Draw n times some lists without any noun twice, n x list x noun."""
    pool = np.tile(np.arange(*NOUNS), (n, 1))
    return rng.permuted(pool, axis=1)[:, : lists * nouns].reshape(n, lists, nouns)


def other_orders(rng: np.random.Generator, n: int, length: int) -> np.ndarray:
    """Draw n orders of ``length`` items, never the one they are in, n x length.

    Raises
    ------
    ConfigError
        If there is no other order.
    """
    if length < 2:
        raise ConfigError(
            f"a list of {length} has one order only", where="permute", mend="use two nouns or more"
        )
    orders = np.tile(np.arange(length), (n, 1))
    same = np.ones(n, dtype=bool)
    while same.any():
        orders[same] = rng.permuted(orders[same], axis=1)
        same = (orders == np.arange(length)).all(axis=1)
    return orders


def list_pairs(
    rng: np.random.Generator,
    n: int,
    *,
    nouns: int = 5,
    length: int = 64,
    gap: int | None = None,
    condition: Condition = "repeat",
) -> ListPairs:
    """Streams that end with the second list.

    The same generator state gives the same filler and the same first lists under all conditions.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
    nouns : int
        In a list.
    length : int
        Tokens of a stream.
    gap : int, optional
        Tokens of filler between the lists; by default the first list lies anywhere, with a gap of
        at least 2.
    condition : {"repeat", "permute", "novel"}

    Raises
    ------
    ConfigError
        If two lists and the gap do not fit, or there is no such condition.
    """
    room = length - 2 * (nouns + 2) - (2 if gap is None else gap)
    if room < 0 or nouns < 1 or 2 * nouns > NOUNS[1] - NOUNS[0]:
        raise ConfigError(
            f"two lists of {nouns} do not fit into {length} tokens with a gap of {gap}",
            where="list_pairs",
            mend=f"a list takes its nouns and 2 tokens more; there are {NOUNS[1] - NOUNS[0]} nouns",
        )
    if condition not in CONDITIONS:
        raise ConfigError(
            f"there is no condition {condition!r}", mend=f"use one of {', '.join(CONDITIONS)}"
        )
    tokens = filler(rng, n, length)
    start = rng.integers(0, room + 1, n) if gap is None else np.full(n, room)
    lists = draw_lists(rng, n, nouns, lists=2)
    second = lists[:, 1 if condition == "novel" else 0]
    if condition == "permute":
        second = np.take_along_axis(second, other_orders(rng, n, nouns), axis=1)
    places = [start, np.full(n, length - nouns - 2)]
    for place, items in zip(places, (lists[:, 0], second), strict=True):
        whole = np.pad(items, ((0, 0), (1, 1)), constant_values=((0, 0), (MARKER, END)))
        np.put_along_axis(tokens, place[:, None] + np.arange(nouns + 2), whole, axis=1)
    first, last = (place[:, None] + 1 + np.arange(nouns) for place in places)
    return ListPairs(tokens, first, last)


def training_batch(
    rng: np.random.Generator,
    size: int = 32,
    *,
    length: int = 64,
    novel: float = 0.3,
    nouns: tuple[int, int] = (3, 8),
) -> tuple[Tensor, Tensor]:
    """Streams to learn from, and how much each token counts (all the same).

    No list is ever permuted, so that order is not taught.

    Parameters
    ----------
    rng : numpy.random.Generator
    size : int
        Streams; their lists have one length, drawn anew for each batch.
    length : int
    novel : float
        Share of streams whose second list is another one.
    nouns : (int, int)
        Fewest and most nouns in a list.

    Returns
    -------
    tokens : Tensor of int64, shape (size, length)
    weights : Tensor, shape (size, length)
    """
    count = int(rng.integers(nouns[0], nouns[1] + 1))
    n_novel = int(rng.binomial(size, novel))
    shared = {"nouns": count, "length": length}
    other = list_pairs(rng, n_novel, condition="novel", **shared)
    same = list_pairs(rng, size - n_novel, condition="repeat", **shared)
    tokens = torch.from_numpy(np.concatenate([other.tokens, same.tokens]))
    return tokens, torch.ones(tokens.shape)


def drill_batch(
    rng: np.random.Generator, size: int = 32, *, spare: int = 2, novel: bool = False
) -> tuple[Tensor, Tensor]:
    """Long lists with next to nothing between them, of which only the second counts.

    A few hundred of these batches teach a small transformer to look back to where the present
    token stood before; in streams that are mostly filler that takes many times as long.

    Parameters
    ----------
    rng : numpy.random.Generator
    size : int
    spare : int
        Tokens of filler, before and between the lists: with many of them, the second list lies at
        very different distances from the first, and cannot be copied by counting.
    novel : bool
        Whether all second lists are other ones, from which no memory is to be learned.

    Returns
    -------
    tokens, weights
        See `training_batch`.
    """
    nouns = int(rng.integers(8, 11))
    pairs = list_pairs(
        rng,
        size,
        nouns=nouns,
        length=2 * nouns + 4 + spare,
        condition="novel" if novel else "repeat",
    )
    weights = np.zeros(pairs.tokens.shape, dtype=np.float32)
    np.put_along_axis(weights, pairs.second[:, 1:], 1.0, axis=1)
    return torch.from_numpy(pairs.tokens), torch.from_numpy(weights)


@cache
def stream_transformer(name: Trained, seed: int = 0) -> LanguageModel:
    """Return a transformer trained on these streams, with seed 0, 1 or 2; do not change it."""
    path = _shipped(name, seed)
    return LanguageModel(load_miniature(path).requires_grad_(False), name=path.stem)


def stream_lstm(seed: int = 0) -> RecurrentModel:
    """Return the LSTM trained like the transformers, with seed 0, 1 or 2; do not change it."""
    model: RecurrentModel = load_shipped(RecurrentModel, _shipped("lstm", seed))
    return model


def _shipped(name: str, seed: int) -> Path:
    return PROBING_WEIGHTS / f"list_streams_{name}_{seed}.safetensors"
