"""Representational dissimilarity matrices from patterns.

Every measure here comes from inner products of patterns, so that one or a few symmetric matrix
products give a whole RDM. Products run in the precision of the input (float32 for recordings)
over chunks of units and are summed in float64; the mean pattern, which no distance depends on,
is removed first, so that large offsets cost no digits.

Squared distances are divided by the number of units, as in rsatoolbox: they do not grow with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from engramma.errors import ConfigError, DataError
from engramma.geometry.noise import CHUNK, Noise
from engramma.geometry.pairs import to_pairs

Method = Literal[
    "sqeuclidean", "euclidean", "correlation", "cosine", "mahalanobis", "crossnobis", "poisson"
]
METHODS: tuple[str, ...] = Method.__args__  # type: ignore[attr-defined]


def rdm(
    patterns: np.ndarray,
    method: Method = "correlation",
    *,
    noise: Noise | None = None,
    stimuli: Sequence[str] | None = None,
    prior_rate: float = 1.0,
    prior_weight: float = 0.1,
) -> np.ndarray:
    """Compute one RDM, or one for each leading index.

    Parameters
    ----------
    patterns : ndarray, shape (..., n_stimuli, n_units)
        One pattern a stimulus; for ``"crossnobis"`` shape (..., n_folds, n_stimuli, n_units).
        float64 is computed in float64, anything else in float32. Leading axes may be subjects,
        time points, layers.
    method : str
        ``"sqeuclidean"``: mean squared difference over units. ``"euclidean"``: its root.
        ``"correlation"``: 1 - Pearson correlation. ``"cosine"``: 1 - cosine.
        ``"mahalanobis"``: squared difference in units of ``noise``, divided by the number of
        units. ``"crossnobis"``: the same, cross-validated between folds, so that its mean is
        zero where two patterns differ by noise alone (Walther et al. 2016, NeuroImage; it can be
        negative). ``"poisson"``: symmetrised Kullback-Leibler divergence of Poisson rates.
    noise : Noise, optional
        For ``"mahalanobis"`` (required) and ``"crossnobis"`` (identity by default).
    stimuli : sequence of str, optional
        Names for error messages.
    prior_rate, prior_weight : float
        For ``"poisson"``: rates are averaged with ``prior_rate``, weighted ``prior_weight``
        against 1.

    Returns
    -------
    ndarray of float64, shape (..., n_pairs)

    Raises
    ------
    DataError
        If patterns hold NaN, a pattern does not vary (correlation), is zero (cosine) or negative
        (poisson), or there are fewer than two stimuli; the stimulus is named.
    """
    patterns = np.asarray(patterns)
    if patterns.dtype != np.float64:
        patterns = patterns.astype(np.float32, copy=False)
    axes = 3 if method == "crossnobis" else 2
    if method not in METHODS:
        raise ConfigError(f"there is no dissimilarity {method!r}", mend=f"use {', '.join(METHODS)}")
    if noise is not None and method not in ("mahalanobis", "crossnobis"):
        raise ConfigError(
            f"{method} distances take no noise covariance",
            mend='use method="mahalanobis" or "crossnobis"',
        )
    if patterns.ndim < axes or 0 in patterns.shape:
        raise DataError(
            f"patterns have shape {patterns.shape}",
            mend="give (..., n_stimuli, n_units), with n_folds before them for crossnobis",
        )
    if patterns.shape[-2] < 2:
        raise DataError("a dissimilarity needs at least two stimuli", where="one was given")
    names = list(map(str, stimuli)) if stimuli is not None else None
    leading = patterns.shape[: patterns.ndim - axes]
    rows = []
    for one in patterns.reshape(-1, *patterns.shape[-axes:]):
        if method == "crossnobis":
            inner = _inner_between_folds(one, noise)
        elif method == "mahalanobis":
            inner = _required(noise).inner(one)
        else:
            mean = one.mean(axis=1, dtype=np.float64)
            inner = _inner(one, method, names, mean, prior_rate, prior_weight)
            _check_varies(inner, method, mean, one.shape, one.dtype, names)
        _check_finite(inner, one, names)
        rows.append(_distances(inner, method, patterns.shape[-1], names))
    return np.stack(rows).reshape(*leading, -1)


def rdm_from_blocks(
    blocks: Callable[[], Iterable[np.ndarray]],
    method: Method = "correlation",
    *,
    stimuli: Sequence[str] | None = None,
) -> np.ndarray:
    """Compute an RDM from chunks of units, so that the patterns never lie in memory together.

    Parameters
    ----------
    blocks : callable
        Returns an iterator over arrays of shape (n_stimuli, some units); for ``"crossnobis"``
        (n_folds, n_stimuli, some units). It is called twice for ``"correlation"``, whose first
        pass finds the mean of each pattern.
    method : str
        Any that needs no noise covariance.
    stimuli : sequence of str, optional

    Returns
    -------
    ndarray of float64, shape (n_pairs,)
    """
    if method == "mahalanobis":
        raise ConfigError("Mahalanobis distances need all units at once", mend="use rdm(...)")
    names = list(map(str, stimuli)) if stimuli is not None else None
    mean = np.zeros(1)
    if method == "correlation":
        sums, count = np.zeros(1), 0
        for block in blocks():
            sums, count = sums + block.sum(axis=1, dtype=np.float64), count + block.shape[1]
        mean = sums / count
    inner, n_units, dtype = np.zeros((1, 1)), 0, np.dtype(np.float32)
    for block in blocks():
        if method == "crossnobis":
            part = _inner_between_folds(block, None)
        else:
            part = _inner(block, method, names, mean)
        _check_finite(part, block, names)
        inner, n_units, dtype = inner + part, n_units + block.shape[-1], block.dtype
    _check_varies(inner, method, mean, (len(inner), n_units), dtype, names)
    return _distances(inner, method, n_units, names)


def crossnobis_between(train: np.ndarray, test: np.ndarray, noise: Noise) -> np.ndarray:
    """Crossnobis distances between the mean of some folds and another fold.

    Parameters
    ----------
    train, test : ndarray, shape (n_stimuli, n_units)
        ``noise`` must come from the training folds (or from elsewhere): residuals that know the
        test patterns bias the distances away from zero.
    noise : Noise

    Returns
    -------
    ndarray, shape (n_pairs,)
    """
    inner = noise.inner(train, test)
    return _distances((inner + inner.T) / 2, "crossnobis", train.shape[1], None)


# -- inner products ------------------------------------------------------------------------


def _chunks(n_units: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, n_units, CHUNK))


def _inner(
    patterns: np.ndarray,
    method: str,
    names: list[str] | None,
    mean: np.ndarray,
    prior_rate: float = 1.0,
    prior_weight: float = 0.1,
) -> np.ndarray:
    """Inner products of patterns, each prepared as ``method`` asks; ``mean`` is over units."""
    n, n_units = patterns.shape
    total = np.zeros((n, n))
    for part in _chunks(n_units):
        chunk = patterns[:, part]
        if method == "correlation":
            chunk = chunk - mean[:, None].astype(chunk.dtype)
            total += chunk @ chunk.T
        elif method == "cosine":
            chunk = np.ascontiguousarray(chunk)
            total += chunk @ chunk.T
        elif method == "poisson":
            _check_rates(chunk, names)
            rate = (chunk + prior_rate * prior_weight) / (1 + prior_weight)
            log = np.log(rate)
            cross = (rate - rate.mean(axis=0)) @ (log - log.mean(axis=0)).T
            total += (cross + cross.T) / 2
        else:
            chunk = chunk - chunk.mean(axis=0)
            total += chunk @ chunk.T
    return total


def _inner_between_folds(folds: np.ndarray, noise: Noise | None) -> np.ndarray:
    """Mean over pairs of folds of the inner products between them.

    The sum over pairs of different folds is the product of the sums minus the products of each
    fold with itself: one symmetric product a fold and one more, however many pairs there are.
    """
    n_folds, n, n_units = folds.shape
    if n_folds < 2:
        raise DataError(
            "crossnobis needs at least two folds",
            where="one was given",
            mend="give repeats of every stimulus, or use another dissimilarity",
        )
    total = np.zeros((n, n))
    if noise is not None:
        total += noise.inner(folds.sum(axis=0))
        for fold in folds:
            total -= noise.inner(fold)
    else:
        for part in _chunks(n_units):
            summed = np.zeros((n, folds[0, :, part].shape[1]), folds.dtype)
            for fold in folds:
                chunk = fold[:, part] - fold[:, part].mean(axis=0)
                total -= chunk @ chunk.T
                summed += chunk
            total += summed @ summed.T
    return total / (n_folds * (n_folds - 1))


def _distances(inner: np.ndarray, method: str, n_units: int, names: list[str] | None) -> np.ndarray:
    """Dissimilarities from inner products, shape (n_pairs,)."""
    own = np.diag(inner)
    if method in ("correlation", "cosine"):
        if (own <= 0).any():
            raise DataError(
                "a pattern is zero for every unit, so it has no direction",
                where=_name(int(np.argmin(own)), names),
                mend="leave the stimulus out, or use another dissimilarity",
            )
        scale = 1 / np.sqrt(own)
        return to_pairs(1.0 - np.clip(inner * scale[:, None] * scale, -1.0, 1.0))
    squared = to_pairs(own[:, None] + own - 2 * inner) / n_units
    if method == "crossnobis":
        return squared
    squared = np.maximum(squared, 0.0)
    return np.sqrt(squared) if method == "euclidean" else squared


# -- checks --------------------------------------------------------------------------------


def _name(index: int, names: list[str] | None) -> str:
    return f"stimulus {names[index]!r}" if names else f"stimulus {index}"


def _required(noise: Noise | None) -> Noise:
    if noise is None:
        raise ConfigError(
            "Mahalanobis distances need a noise covariance",
            mend='pass noise= (see estimate_noise), or use method="sqeuclidean"',
        )
    return noise


def _check_finite(inner: np.ndarray, patterns: np.ndarray, names: list[str] | None) -> None:
    """Name the pattern with NaN or infinity; it shows on the diagonal of the inner products."""
    if np.isfinite(np.diag(inner)).all():
        return
    bad = ~np.isfinite(patterns)
    per_stimulus = bad.sum(axis=-1).reshape(-1, patterns.shape[-2]).sum(axis=0)
    if not per_stimulus.any():
        raise DataError("patterns are too large for their precision", mend="scale them down")
    worst = int(np.flatnonzero(per_stimulus)[0])
    raise DataError(
        "patterns hold NaN or infinity",
        where=f"{_name(worst, names)}, {per_stimulus[worst]} values "
        f"({int((per_stimulus > 0).sum())} stimuli in all)",
        mend="leave out the units or stimuli concerned",
    )


def _check_varies(
    inner: np.ndarray,
    method: str,
    mean: np.ndarray,
    shape: tuple[int, ...],
    dtype: np.dtype,
    names: list[str] | None,
) -> None:
    """Refuse a pattern that is the same for every unit: its correlation is not defined."""
    if method != "correlation":
        return
    # What rounding leaves of a constant pattern after its mean was removed.
    rounding = shape[1] * (2 * np.finfo(dtype).eps * np.abs(mean)) ** 2
    flat = np.flatnonzero(np.diag(inner) <= rounding)
    if len(flat):
        raise DataError(
            "a pattern has zero variance over units, so its correlation is not defined",
            where=f"{_name(int(flat[0]), names)} ({len(flat)} stimuli in all)",
            mend="leave the stimulus out, or use another dissimilarity",
        )


def _check_rates(chunk: np.ndarray, names: list[str] | None) -> None:
    negative = (chunk < 0).any(axis=1)
    if negative.any():
        raise DataError(
            "Poisson rates cannot be negative",
            where=_name(int(np.flatnonzero(negative)[0]), names),
            mend="give spike counts or rates that are not z-scored",
        )
