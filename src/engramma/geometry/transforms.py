"""Transforms of RDMs: ranks, ranges, thresholds and shortest paths.

The thresholded RDM (`clip_transform`) and its shortest paths (`geodesic`) are the RGTM and RGDM
of Lin & Kriegeskorte 2024 ("The topology and geometry of neural representations", PNAS).
"""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, shortest_path
from scipy.stats import rankdata

from engramma.errors import ConfigError, DataError, DataWarning
from engramma.geometry.pairs import checked_rdms, n_stimuli_of, pair_indices, to_pairs, to_square


def rank_transform(rdm: np.ndarray) -> np.ndarray:
    """Ranks 1 ... n_pairs of the dissimilarities of each RDM; ties share their mean rank.

    Parameters
    ----------
    rdm : ndarray, shape (..., n_pairs)

    Returns
    -------
    ndarray of float64, shape (..., n_pairs)
    """
    rdm = np.asarray(rdm)
    _check(rdm)
    return rankdata(rdm, axis=-1)


def min_max(rdm: np.ndarray) -> np.ndarray:
    """Stretch each RDM to the range 0 ... 1.

    Raises
    ------
    DataError
        If all dissimilarities of an RDM are equal.
    """
    rdm = np.asarray(rdm, dtype=np.float64)
    _check(rdm)
    low, high = rdm.min(axis=-1, keepdims=True), rdm.max(axis=-1, keepdims=True)
    if (high == low).any():
        raise DataError(
            "all dissimilarities of an RDM are equal, so it has no range",
            where=f"RDM {np.flatnonzero(np.ravel(high == low))[0]}",
            mend="check the patterns it was computed from",
        )
    return (rdm - low) / (high - low)


def quantile_transform(rdm: np.ndarray) -> np.ndarray:
    """Ranks scaled to 0 ... 1, so that all RDMs have one distribution (but for ties)."""
    ranks = rank_transform(rdm)
    return (ranks - 1) / (ranks.shape[-1] - 1)


def clip_transform(rdm: np.ndarray, l: float, u: float) -> np.ndarray:  # noqa: E741
    """Set small dissimilarities to 0, large ones to 1, and stretch those between (RGTM).

    With thresholds ``t_l`` and ``t_u`` at the ``l`` and ``u`` quantile of each RDM, this is
    ``clip((d - t_l) / (t_u - t_l), 0, 1)``. ``l = 0, u = 1`` keeps the whole geometry; ``l = u``
    gives a graph: 0 up to the threshold (an edge), 1 above it.

    Parameters
    ----------
    rdm : ndarray, shape (..., n_pairs)
    l, u : float
        Quantiles, ``0 <= l <= u <= 1``.

    Raises
    ------
    ConfigError
        If the quantiles are out of order or range.
    """
    if not 0 <= l <= u <= 1:
        raise ConfigError(
            f"l = {l:g} and u = {u:g} are not two quantiles in order",
            mend="choose 0 <= l <= u <= 1",
        )
    rdm = np.asarray(rdm, dtype=np.float64)
    _check(rdm)
    low, high = np.quantile(rdm, [l, u], axis=-1, keepdims=True)
    width = high - low
    step = (rdm > high).astype(np.float64)
    scaled = np.clip((rdm - low) / np.where(width > 0, width, 1.0), 0.0, 1.0)
    return np.where(width > 0, scaled, step)


def sigmoid_transform(rdm: np.ndarray, slope: float = 10.0, centre: float = 0.5) -> np.ndarray:
    """Smooth form of `clip_transform`, for an RDM in the range 0 ... 1."""
    rdm = np.asarray(rdm, dtype=np.float64)
    _check(rdm)
    return 1.0 / (1.0 + np.exp(-slope * (rdm - centre)))


def shortest_edges(rdm: np.ndarray, fraction: float) -> np.ndarray:
    """Mask of the ``fraction`` of pairs that lie closest, shape (n_pairs,); ties are kept."""
    if not 0 < fraction <= 1:
        raise ConfigError(f"a fraction lies in 0 ... 1, not at {fraction:g}")
    rdm = np.asarray(rdm)
    _check(rdm)
    keep = max(1, round(fraction * rdm.shape[-1]))
    return rdm <= np.partition(rdm, keep - 1)[keep - 1]


def nearest_edges(rdm: np.ndarray, k: int) -> np.ndarray:
    """Mask of the pairs of which one is among the ``k`` nearest of the other, shape (n_pairs,)."""
    square = to_square(np.asarray(rdm, dtype=np.float64))
    n = len(square)
    if not 1 <= k < n:
        raise ConfigError(f"{n} stimuli have 1 to {n - 1} neighbours, not {k}")
    np.fill_diagonal(square, np.inf)
    nearest = np.argsort(square, axis=1, kind="stable")[:, :k]
    near = np.zeros((n, n), dtype=bool)
    near[np.arange(n)[:, None], nearest] = True
    return to_pairs(near | near.T)


def n_components(edges: np.ndarray) -> int:
    """Return the number of parts into which a graph falls; ``edges`` is a mask over pairs."""
    return int(connected_components(_graph(np.ones(len(edges)), edges), directed=False)[0])


def geodesic(
    rdm: np.ndarray,
    edges: np.ndarray | None = None,
    disconnected: Literal["raise", "cap"] = "raise",
) -> np.ndarray:
    """Lengths of the shortest paths along the graph of an RDM (RGDM, before ranking).

    Parameters
    ----------
    rdm : ndarray, shape (n_pairs,)
        Non-negative dissimilarities: the lengths of the edges.
    edges : ndarray of bool, shape (n_pairs,), optional
        Which pairs are joined. By default all that are smaller than 1, which is what
        `clip_transform` leaves below its upper threshold.
    disconnected : {"raise", "cap"}
        What to do where no path joins two stimuli: raise, or warn and set these pairs to the
        longest path found plus the longest edge.

    Returns
    -------
    ndarray, shape (n_pairs,)

    Raises
    ------
    DataError
        If a dissimilarity is negative, or the graph falls apart and ``disconnected="raise"``.
    """
    rdm = checked_rdms(rdm, "dissimilarities")[0]
    if (rdm < 0).any():
        raise DataError(
            "an edge of negative length makes no path",
            mend="transform the RDM to 0 ... 1 first (crossnobis distances can be negative)",
        )
    edges = rdm < 1 if edges is None else np.asarray(edges, dtype=bool)
    if edges.shape != rdm.shape:
        raise DataError(f"{len(edges)} edges are given for {len(rdm)} pairs")
    # A sparse graph keeps edges of length zero, which a dense one would take for no edge.
    paths = to_pairs(shortest_path(_graph(rdm, edges), method="D", directed=False))
    missing = ~np.isfinite(paths)
    if missing.any():
        parts = n_components(edges)
        what = f"the graph falls into {parts} parts: {missing.sum()} pairs have no path"
        mend = "raise the upper threshold, or keep more edges"
        if disconnected == "raise":
            raise DataError(what, mend=mend + ', or pass disconnected="cap"')
        reached = paths[~missing].max(initial=0.0)
        paths[missing] = reached + rdm[edges].max(initial=0.0) if edges.any() else 1.0
        warnings.warn(f"{what}; they were set to {paths[missing][0]:g}", DataWarning, stacklevel=2)
    return paths


def _graph(lengths: np.ndarray, edges: np.ndarray) -> csr_array:
    """Sparse graph with one entry an edge."""
    n = n_stimuli_of(len(edges))
    first, second = pair_indices(n)
    return csr_array((lengths[edges], (first[edges], second[edges])), shape=(n, n))


def _check(rdm: np.ndarray) -> None:
    """Refuse RDMs that are no upper triangles or hold NaN."""
    checked_rdms(rdm.reshape(-1, rdm.shape[-1]) if rdm.ndim else rdm, "dissimilarities")
