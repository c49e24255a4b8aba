"""How alike two RDMs are.

All measures take ``counts``: how often each stimulus occurs in a bootstrap sample. A pair of
different stimuli then counts as often as the product of their counts, and pairs between copies of
one stimulus, whose dissimilarity is zero by construction, do not count at all. So a bootstrap
weights pairs that were sorted once, and never rebuilds an RDM.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from engramma.errors import ConfigError, DataError
from engramma.geometry.kendall import ConcordantPairs, dense_ranks
from engramma.geometry.pairs import checked_rdms, n_stimuli_of, pair_indices
from engramma.geometry.whitening import inner_with_covariance, inner_with_variances

Similarity = Literal[
    "pearson", "spearman", "kendall", "rho-a", "cosine", "whitened-cosine", "whitened-pearson"
]
SIMILARITIES: tuple[str, ...] = Similarity.__args__  # type: ignore[attr-defined]

#: Takes counts (n_samples, n_stimuli) and returns similarities (n_samples, n_a, n_b).
Prepared = Callable[[np.ndarray], np.ndarray]


def compare(
    a: np.ndarray,
    b: np.ndarray,
    method: Similarity = "spearman",
    *,
    counts: np.ndarray | None = None,
    covariance: np.ndarray | None = None,
) -> np.ndarray:
    """Similarity of each RDM in ``a`` to each in ``b``.

    Parameters
    ----------
    a, b : ndarray, shape (n_a, n_pairs) and (n_b, n_pairs)
    method : str
        ``"pearson"``, ``"spearman"``, ``"cosine"``; ``"kendall"``: tau-a, which does not reward
        tied predictions (Nili et al. 2014, PLoS Comput Biol); ``"rho-a"``: expected Spearman
        correlation under random breaking of ties; ``"whitened-cosine"``, ``"whitened-pearson"``:
        under the covariance that estimates of dissimilarities have (Diedrichsen et al. 2020,
        arXiv 2007.02789).
    counts : ndarray of int, shape (n_stimuli,) or (n_samples, n_stimuli), optional
        How often each stimulus occurs.
    covariance : ndarray, shape (n_stimuli,) or (n_stimuli, n_stimuli), optional
        Of the pattern estimates, for the whitened measures; equal and independent by default.

    Returns
    -------
    ndarray, shape (n_a, n_b), or (n_samples, n_a, n_b) with two-dimensional counts
        NaN where a bootstrap sample leaves an RDM without variation.

    Raises
    ------
    DataError
        If RDMs differ in size, hold NaN, have fewer than three stimuli or (without ``counts``)
        do not vary.
    """
    a, b = checked_rdms(a, "the first RDMs"), checked_rdms(b, "the second RDMs")
    if a.shape[1] != b.shape[1]:
        raise DataError(
            f"RDMs with {a.shape[1]} and {b.shape[1]} pairs cannot be compared",
            mend="compute both over the same stimuli, in the same order",
        )
    n = n_stimuli_of(a.shape[1])
    if counts is None:
        result = prepare(a, b, method, covariance)(np.ones((1, n)))[0]
        _check_varies(result)
        return result
    counts = np.asarray(counts, dtype=np.float64)
    if counts.shape[-1] != n or (counts < 0).any():
        raise DataError(f"counts of shape {counts.shape} are given for {n} stimuli")
    result = prepare(a, b, method, covariance)(np.atleast_2d(counts))
    return result if counts.ndim > 1 else result[0]


def prepare(
    a: np.ndarray, b: np.ndarray, method: str, covariance: np.ndarray | None = None
) -> Prepared:
    """Do once what does not depend on how often each stimulus occurs; see `compare`."""
    if covariance is not None and not method.startswith("whitened"):
        raise ConfigError(
            f"{method} takes no covariance", mend="use whitened-cosine or whitened-pearson"
        )
    if method in ("spearman", "rho-a"):
        return _rank_similarity(a, b, unbiased_by_ties=method == "rho-a")
    if method in ("pearson", "cosine"):
        return _linear_similarity(a, b, centred=method == "pearson")
    if method == "kendall":
        return _kendall_similarity(a, b)
    if method in ("whitened-cosine", "whitened-pearson"):
        return _whitened_similarity(a, b, method == "whitened-pearson", covariance)
    raise ConfigError(
        f"there is no similarity of RDMs {method!r}", mend=f"use {', '.join(SIMILARITIES)}"
    )


def pair_weights(counts: np.ndarray) -> np.ndarray:
    """How often each pair of different stimuli occurs, shape (..., n_pairs)."""
    first, second = pair_indices(counts.shape[-1])
    return counts[..., first] * counts[..., second]


class WeightedRanks:
    """Ranks of values of which each occurs a given number of times.

    Sorting is done once; ranks under new weights then cost one cumulative sum.

    Parameters
    ----------
    values : ndarray, shape (n_rows, n_values)
    """

    def __init__(self, values: np.ndarray) -> None:
        rows, n = values.shape
        order = np.argsort(values, axis=1, kind="stable")
        ordered = np.take_along_axis(values, order, axis=1)
        place = np.empty_like(order)
        np.put_along_axis(place, order, np.arange(n)[None], axis=1)
        # First and last sorted position of the values that equal each one.
        starts = np.ones((rows, n), dtype=bool)
        starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        first = np.maximum.accumulate(np.where(starts, np.arange(n), 0), axis=1)
        ends = np.roll(starts, -1, axis=1)
        ends[:, -1] = True
        last = np.minimum.accumulate(np.where(ends, np.arange(n), n)[:, ::-1], axis=1)[:, ::-1]
        offset = np.arange(rows)[:, None] * n
        self._order = order
        self._first = np.take_along_axis(first, place, axis=1) + offset
        self._last = np.take_along_axis(last, place, axis=1) + offset

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Mean rank of each value among all copies, shape (n_rows, n_values)."""
        ordered = weights[self._order]
        upto = np.cumsum(ordered, axis=1)
        before = upto - ordered
        return (upto.ravel()[self._last] + before.ravel()[self._first] + 1) / 2


def correlate(a: np.ndarray, b: np.ndarray, weights: np.ndarray, centred: bool) -> np.ndarray:
    """Weighted Pearson correlation (or cosine) of rows, shape (n_a, n_b); NaN where constant."""
    a, own_a = _centred(a, weights, centred)
    b, own_b = _centred(b, weights, centred)
    return ((a * weights) @ b.T) / np.sqrt(own_a[:, None] * own_b)


def _centred(
    values: np.ndarray, weights: np.ndarray, centred: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Remove weighted means; also return weighted squared norms, NaN where nothing is left."""
    before = np.einsum("ij,ij,j->i", values, values, weights)
    if centred:
        values = values - (values @ weights / weights.sum())[:, None]
    own = np.einsum("ij,ij,j->i", values, values, weights)
    return values, np.where(own > 1e-12 * before, own, np.nan)


# -- one function a family of measures -----------------------------------------------------


def _linear_similarity(a: np.ndarray, b: np.ndarray, *, centred: bool) -> Prepared:
    def similarity(counts: np.ndarray) -> np.ndarray:
        return np.stack([correlate(a, b, w, centred) for w in pair_weights(counts)])

    return similarity


def _rank_similarity(a: np.ndarray, b: np.ndarray, *, unbiased_by_ties: bool) -> Prepared:
    ranks_a, ranks_b = WeightedRanks(a), WeightedRanks(b)

    def similarity(counts: np.ndarray) -> np.ndarray:
        values = []
        for w in pair_weights(counts):
            left, right = ranks_a(w), ranks_b(w)
            if unbiased_by_ties:
                n = w.sum()
                middle = (n + 1) / 2
                inner = ((left - middle) * w) @ (right - middle).T
                values.append(12 * inner / (n**3 - n))
            else:
                values.append(correlate(left, right, w, centred=True))
        return np.stack(values)

    return similarity


def _kendall_similarity(a: np.ndarray, b: np.ndarray) -> Prepared:
    ranks_b = [dense_ranks(y) for y in b]
    pairs = [[ConcordantPairs(x, y) for y in ranks_b] for x in map(dense_ranks, a)]

    def similarity(counts: np.ndarray) -> np.ndarray:
        weights = pair_weights(counts)
        return np.stack([np.stack([p.tau_a(weights) for p in row], -1) for row in pairs], axis=1)

    return similarity


def _whitened_similarity(
    a: np.ndarray, b: np.ndarray, centred: bool, covariance: np.ndarray | None
) -> Prepared:
    both, n_a = np.concatenate([a, b]), len(a)
    n = n_stimuli_of(a.shape[1])
    covariance = np.ones(n) if covariance is None else np.asarray(covariance, dtype=np.float64)
    if covariance.shape not in ((n,), (n, n)):
        raise DataError(
            f"the covariance has shape {covariance.shape} for {n} stimuli",
            mend="give one variance a stimulus, or a stimulus x stimulus matrix",
        )

    def similarity(counts: np.ndarray) -> np.ndarray:
        if covariance.ndim == 2 and (counts != 1).any():
            raise ConfigError(
                "copies of a stimulus have no place in a full covariance of patterns",
                mend="give one variance a stimulus for the bootstrap",
            )
        values = []
        for c, w in zip(counts, pair_weights(counts), strict=True):
            rows, own = _centred(both, w, centred)
            if covariance.ndim == 2:
                inner = inner_with_covariance(rows, covariance)
            else:
                inner = inner_with_variances(rows, covariance, c)
            norm = np.sqrt(np.where(np.isnan(own), np.nan, np.diag(inner)))
            values.append((inner / norm / norm[:, None])[:n_a, n_a:])
        return np.stack(values)

    return similarity


def _check_varies(similarity: np.ndarray) -> None:
    """Name the RDM that correlates with nothing."""
    undefined = np.isnan(similarity)
    if not undefined.any():
        return
    rows = np.flatnonzero(undefined.all(axis=1))
    which = (
        f"RDM {rows[0]} of the first ones"
        if len(rows)
        else f"RDM {np.flatnonzero(undefined.all(axis=0))[0]} of the second ones"
    )
    raise DataError(
        "an RDM does not vary over pairs, so nothing correlates with it",
        where=which,
        mend="leave it out, or check the labels or patterns it was made from",
    )
