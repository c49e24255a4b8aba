"""Correspondence between the units of two representations: one to one, one to few, group to group.

Everything here works on matrices of similarity or covariance, so that the samples themselves need
never lie in memory together (see `engramma.nn.statistics.StreamingCovariance`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from engramma.errors import ConfigError, DataError

Kind = Literal["bipartite", "semi"]


@dataclass(frozen=True)
class Matching:
    """Pairs of units.

    Parameters
    ----------
    first, second : ndarray of int, shape (n_pairs,)
        ``first[i]`` is matched with ``second[i]``; ``first`` is sorted.
    similarity : ndarray, shape (n_pairs,)
    """

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray

    @property
    def mean(self) -> float:
        """Mean similarity of the pairs."""
        return float(self.similarity.mean())


def match_units(similarity: np.ndarray, kind: Kind = "bipartite") -> Matching:
    """Match the units of two representations.

    Parameters
    ----------
    similarity : ndarray, shape (n_first, n_second)
    kind : {"bipartite", "semi"}
        ``"bipartite"``: one to one, with the largest sum of similarities (Hungarian algorithm);
        where one side has more units, some of its units stay alone. ``"semi"``: for each unit of
        the first its best unit of the second, which may be chosen more than once.

    Raises
    ------
    DataError
        If there is no unit on a side, or a similarity is not finite.
    """
    similarity = np.asarray(similarity, dtype=np.float64)
    if similarity.ndim != 2 or 0 in similarity.shape:
        raise DataError(
            f"similarities have shape {similarity.shape}", mend="give first units x second units"
        )
    if not np.isfinite(similarity).all():
        row, column = map(int, np.argwhere(~np.isfinite(similarity))[0])
        raise DataError(
            "a similarity is not finite",
            where=f"units {row} and {column}",
            mend="leave out units that do not vary",
        )
    if kind == "bipartite":
        first, second = linear_sum_assignment(similarity, maximize=True)
    elif kind == "semi":
        first, second = np.arange(len(similarity)), similarity.argmax(axis=1)
    else:
        raise ConfigError(f"there is no matching {kind!r}", mend="choose bipartite or semi")
    return Matching(first, second, similarity[first, second])


# -- one to few ----------------------------------------------------------------------------


def sparse_map(
    within: np.ndarray,
    between: np.ndarray,
    penalty: float,
    *,
    start: np.ndarray | None = None,
    tolerance: float = 1e-7,
    max_iterations: int = 20_000,
) -> np.ndarray:
    """Weights that predict each second unit from few first units.

    For standardised units the weights ``w`` of a target minimise
    ``1/2 E[(y - w x)^2] + penalty |w|_1 = 1/2 - w c + 1/2 w C w + penalty |w|_1``, with ``C`` the
    correlations among the first units and ``c`` theirs with the target: the lasso. All targets are
    solved at once by accelerated proximal gradient steps (Beck & Teboulle 2009, restarted where
    the momentum points uphill).

    Parameters
    ----------
    within : ndarray, shape (n_first, n_first)
        Correlations among the first units.
    between : ndarray, shape (n_first, n_second)
        Correlations of first with second units.
    penalty : float
        Zero gives least squares.
    start : ndarray, shape (n_first, n_second), optional
        Weights to start from, such as those of a neighbouring penalty.
    tolerance : float
        Largest violation of the optimality conditions that ends the iteration.
    max_iterations : int

    Returns
    -------
    ndarray, shape (n_first, n_second)

    Raises
    ------
    ConfigError
        If the penalty is negative.
    DataError
        If the iteration does not converge.
    """
    if penalty < 0:
        raise ConfigError(f"a penalty of {penalty:g} is negative")
    if penalty == 0:
        return np.linalg.lstsq(within, between, rcond=1e-10)[0]
    step = 1.0 / np.linalg.eigvalsh(within)[-1]
    weights = np.zeros_like(between) if start is None else start
    ahead, momentum = weights, 1.0
    for _ in range(max_iterations):
        moved = _shrink(ahead - step * (within @ ahead - between), step * penalty)
        uphill = ((ahead - moved) * (moved - weights)).sum() > 0
        faster = 1.0 if uphill else (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        push = 0.0 if uphill else (momentum - 1) / faster
        ahead, weights, momentum = moved + push * (moved - weights), moved, faster
        gradient = within @ weights - between
        violation = np.where(
            weights != 0,
            np.abs(gradient + penalty * np.sign(weights)),
            np.maximum(np.abs(gradient) - penalty, 0),
        )
        if violation.max() < tolerance:
            return weights
    raise DataError(
        f"the sparse map did not converge (optimality missed by {violation.max():.1e})",
        mend="raise the penalty, or leave out units that are copies of each other",
    )


def _shrink(values: np.ndarray, by: float) -> np.ndarray:
    """Move every value towards zero, and stop there."""
    return np.sign(values) * np.maximum(np.abs(values) - by, 0.0)


# -- group to group ------------------------------------------------------------------------


@dataclass(frozen=True)
class Blocks:
    """Groups of units that belong together.

    Parameters
    ----------
    labels : ndarray of int, shape (n_units,)
    eigenvalues : ndarray
        Smallest eigenvalues of the normalised Laplacian, ascending.
    cohesion : ndarray, shape (n_blocks,)
        Mean affinity within each block over the mean affinity of all pairs; 1 where the block is
        nothing special, NaN for a block without pairs.
    """

    labels: np.ndarray
    eigenvalues: np.ndarray
    cohesion: np.ndarray

    @property
    def n_blocks(self) -> int:
        """Number of groups."""
        return len(self.cohesion)


def bipartite_affinity(between: np.ndarray) -> np.ndarray:
    """Affinity of all units of both sides: ``|between|`` across, nothing within a side."""
    n, m = between.shape
    affinity = np.zeros((n + m, n + m))
    affinity[:n, n:] = np.abs(between)
    affinity[n:, :n] = np.abs(between).T
    return affinity


def joint_affinity(
    within_first: np.ndarray, within_second: np.ndarray, between: np.ndarray
) -> np.ndarray:
    """Affinity of all units of both sides, within and across: absolute correlations."""
    joint = np.abs(np.block([[within_first, between], [between.T, within_second]]))
    np.fill_diagonal(joint, 0.0)
    return joint


def spectral_blocks(
    affinity: np.ndarray,
    n_blocks: int | None = None,
    *,
    max_blocks: int = 12,
    rng: np.random.Generator,
) -> Blocks:
    """Group units by spectral clustering.

    The eigenvectors of the normalised Laplacian ``I - D^-1/2 A D^-1/2`` with the smallest
    eigenvalues, each row scaled to unit length, are grouped by K-means (Ng, Jordan & Weiss 2002).

    Parameters
    ----------
    affinity : ndarray, shape (n_units, n_units)
        Symmetric and not negative.
    n_blocks : int, optional
        By default the number before the largest gap between eigenvalues.
    max_blocks : int
        Most blocks that the gap may choose.
    rng : numpy.random.Generator
        Starts K-means.

    Raises
    ------
    DataError
        If a unit has no affinity with any other.
    """
    affinity = np.asarray(affinity, dtype=np.float64)
    n = len(affinity)
    if affinity.shape != (n, n) or not np.allclose(affinity, affinity.T) or (affinity < 0).any():
        raise DataError("an affinity is a symmetric matrix without negative entries")
    degree = affinity.sum(axis=1)
    if (degree <= 0).any():
        raise DataError(
            "a unit has no affinity with any other",
            where=f"unit {int(np.argmin(degree))}",
            mend="leave it out",
        )
    scale = 1 / np.sqrt(degree)
    values, vectors = np.linalg.eigh(np.eye(n) - scale[:, None] * affinity * scale)
    most = min(max_blocks, n - 1)
    if n_blocks is None:
        n_blocks = int(np.argmax(np.diff(values[: most + 1]))) + 1
    if not 1 <= n_blocks <= n:
        raise ConfigError(f"{n} units make 1 to {n} blocks, not {n_blocks}")
    rows = vectors[:, :n_blocks]
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    labels = _k_means(rows, n_blocks, rng)
    return Blocks(labels, values[: most + 1], _cohesion(affinity, labels))


def hierarchical_blocks(
    affinity: np.ndarray,
    *,
    max_blocks: int = 12,
    min_units: int = 8,
    depth: int = 3,
    rng: np.random.Generator,
) -> np.ndarray:
    """Split blocks again into blocks, until no gap shows or they are small.

    Returns
    -------
    ndarray of int, shape (n_levels, n_units)
        Block of every unit at each level; deeper levels only split blocks of the level above.
    """
    levels = [spectral_blocks(affinity, max_blocks=max_blocks, rng=rng).labels]
    while len(levels) < depth:
        above, finer = levels[-1], np.zeros_like(levels[-1])
        count = 0
        for block in range(above.max() + 1):
            units = np.flatnonzero(above == block)
            part = affinity[np.ix_(units, units)]
            inner = np.zeros(len(units), dtype=int)
            # A single block has nothing to be split off from, and loose units cannot be placed.
            if len(units) >= min_units and above.max() > 0 and (part.sum(axis=1) > 0).all():
                inner = spectral_blocks(part, max_blocks=max_blocks, rng=rng).labels
            finer[units] = count + inner
            count += inner.max() + 1
        if count == above.max() + 1:
            break
        levels.append(finer)
    return np.stack(levels)


def _k_means(rows: np.ndarray, n_blocks: int, rng: np.random.Generator) -> np.ndarray:
    """Labels in order of first appearance, none of them empty."""
    from sklearn.cluster import KMeans

    start = int(rng.integers(2**31))
    labels = KMeans(n_blocks, n_init=10, random_state=start).fit_predict(rows)
    _, first = np.unique(labels, return_index=True)
    order = {int(labels[i]): rank for rank, i in enumerate(np.sort(first))}
    return np.array([order[int(label)] for label in labels])


def _cohesion(affinity: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean affinity of pairs within each block, relative to all pairs."""
    n = len(affinity)
    overall = affinity.sum() / (n * (n - 1))
    ratios = np.full(labels.max() + 1, np.nan)
    for block in range(len(ratios)):
        units = labels == block
        size = int(units.sum())
        if size > 1:
            ratios[block] = affinity[np.ix_(units, units)].sum() / (size * (size - 1)) / overall
    return ratios
