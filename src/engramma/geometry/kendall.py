"""Kendall's tau-a in O(n log n), for many weightings of the same two variables at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


class ConcordantPairs:
    """Two variables, sorted so that concordant minus discordant pairs are quickly counted.

    Sorted by ``x``, a pair is discordant where the later value has the smaller ``y``. Such
    inversions are counted by the binary digits of the rank of ``y``: two ranks first differ at one
    digit, and are inverted there if the digit of the earlier one is 1 and that of the later one 0.
    So for each digit a cumulative sum over values that agree in all higher digits is enough, and
    all that depends on the order is done here, once.

    Parameters
    ----------
    x, y : ndarray of int, shape (n,)
        Ranks, see `dense_ranks`.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        if x.max() < y.max():  # fewer digits to go through
            x, y = y, x
        joint = x * (int(y.max()) + 1) + y
        order = np.argsort(joint)
        by_y = np.argsort(y)
        self._ties = [
            (1, order, _starts(x[order])),
            (1, by_y, _starts(y[by_y])),
            (-1, order, _starts(joint[order])),
        ]
        self._levels = list(_levels(y[order], order))

    def tau_a(self, weights: np.ndarray) -> np.ndarray:
        """Concordant minus discordant pairs, divided by all pairs.

        Parameters
        ----------
        weights : ndarray, shape (n_samples, n)
            How often each value occurs; copies are tied in both variables.

        Returns
        -------
        ndarray, shape (n_samples,)
        """
        step = 32  # samples whose weights stay in the cache, side by side
        parts = [
            self._tau_a(np.ascontiguousarray(weights[start : start + step].T))
            for start in range(0, len(weights), step)
        ]
        return np.concatenate(parts)

    def _tau_a(self, weights: np.ndarray) -> np.ndarray:
        discordant = np.zeros(weights.shape[1])
        for ones, zeros, upto, start in self._levels:
            held = np.zeros((len(ones) + 1, weights.shape[1]))
            np.cumsum(weights[ones], axis=0, out=held[1:])
            earlier = held[upto]
            earlier -= held[start]
            discordant += np.einsum("ij,ij->j", weights[zeros], earlier)
        n = weights.sum(axis=0)
        total = n * (n - 1) / 2
        tied = sum(sign * _tied_pairs(weights, order, starts) for sign, order, starts in self._ties)
        return (total - tied - 2 * discordant) / total


def dense_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks 0, 1, 2, ... with ties equal and no gaps."""
    order = np.argsort(values)
    ordered = values[order]
    ranks = np.zeros(len(values), dtype=np.int64)
    ranks[order[1:]] = np.cumsum(ordered[1:] != ordered[:-1])
    return ranks


def _levels(y: np.ndarray, order: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """For each digit of ``y``, from the highest: what `ConcordantPairs` needs to count there.

    Yields the values with digit 1 and those with digit 0, both sorted by higher digits and then
    by ``x``; and for each of the latter how many of the former come before it, and how many come
    before the run of equal higher digits that it stands in.
    """
    smaller = np.concatenate([[0], np.cumsum(np.bincount(y))])
    narrow = y.astype(np.uint16) if y.max() < 2**16 else y  # sorted by radix
    for digit in range(int(y.max()).bit_length() - 1, -1, -1):
        sort = np.argsort(narrow >> (digit + 1), kind="stable")
        v = y[sort]
        one = (v >> digit) & 1 == 1
        before = np.concatenate([[0], np.cumsum(one)])
        zero = np.flatnonzero(~one)
        start = smaller[(v[zero] >> (digit + 1)) << (digit + 1)]
        placed = order[sort]
        yield placed[one], placed[zero], before[zero], before[start]


def _starts(ordered: np.ndarray) -> np.ndarray:
    """Positions at which a new value starts."""
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))


def _tied_pairs(weights: np.ndarray, order: np.ndarray, starts: np.ndarray) -> np.ndarray:
    untied = len(starts) == len(order)
    held = weights if untied else np.add.reduceat(weights[order], starts, axis=0)
    return np.einsum("ij,ij->j", held, held - 1) / 2
