"""How well responses were predicted, unit by unit.

A unit that does not vary, or whose prediction does not, scores 0 in every score here: nothing
of it was predicted, and a mean over units stays defined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engramma.contracts import Estimate
from engramma.errors import ConfigError, DataError

_UNITS = 4096


def correlation(truth: Any, prediction: Any) -> np.ndarray:
    """Pearson correlation of each unit over presentations.

    Parameters
    ----------
    truth, prediction : array, shape (n_presentations, n_units[, n_times])

    Returns
    -------
    ndarray, shape (n_units[, n_times]), float64

    Raises
    ------
    DataError
        If shapes differ or there are fewer than two presentations.
    """

    def score(y: np.ndarray, p: np.ndarray) -> np.ndarray:
        level_y, level_p = np.abs(y).max(axis=0), np.abs(p).max(axis=0)
        y, p = y - y.mean(axis=0), p - p.mean(axis=0)
        norm_y, norm_p = np.linalg.norm(y, axis=0), np.linalg.norm(p, axis=0)
        varies = _varies(norm_y, level_y, len(y)) & _varies(norm_p, level_p, len(y))
        safe = np.where(varies, norm_y * norm_p, 1.0)
        return np.where(varies, np.einsum("nu,nu->u", y, p) / safe, 0.0)

    return _by_unit(score, truth, prediction)


def correlation_within(truth: Any, prediction: Any, folds: Iterable[np.ndarray]) -> np.ndarray:
    """Correlation within each test set, averaged over them by their size.

    Correlated over all test sets at once, predictions of nothing score below zero: a fold whose
    responses are high was trained on low ones.

    Parameters
    ----------
    truth, prediction : array, shape (n_presentations, n_units, ...)
    folds : iterable of ndarray of int
        Rows of each test set; those of fewer than two are left out.

    Returns
    -------
    ndarray, shape (n_units, ...)
    """
    truth, prediction = _pair(truth, prediction)
    total, count = np.zeros(truth.shape[1:]), 0
    for rows in folds:
        if len(rows) < 2:
            continue
        total += len(rows) * correlation(truth[rows], prediction[rows])
        count += len(rows)
    if not count:
        raise DataError(
            "every test set holds one presentation, which has no correlation",
            mend="use folds of at least two presentations",
        )
    return total / count


def r2(truth: Any, prediction: Any) -> np.ndarray:
    """Coefficient of determination of each unit: ``1 - SSE / SST``, SST about its own mean.

    Parameters and errors as `correlation`.
    """

    def score(y: np.ndarray, p: np.ndarray) -> np.ndarray:
        level = np.abs(y).max(axis=0)
        total = ((y - y.mean(axis=0)) ** 2).sum(axis=0)
        varies = _varies(np.sqrt(total), level, len(y))
        error = ((y - p) ** 2).sum(axis=0)
        return np.where(varies, 1.0 - error / np.where(varies, total, 1.0), 0.0)

    return _by_unit(score, truth, prediction)


@dataclass(frozen=True)
class NormalisedScore:
    """Scores as a share of what the noise leaves to be predicted.

    Parameters
    ----------
    values : ndarray
        ``score / max(ceiling, floor)``, every unit.
    kept : ndarray of bool
        Units whose ceiling reaches the floor; the others' values say little.
    floor : float
    """

    values: np.ndarray
    kept: np.ndarray
    floor: float

    @property
    def n_kept(self) -> int:
        """Number of units whose ceiling reaches the floor."""
        return int(self.kept.sum())

    @property
    def mean(self) -> float:
        """Mean over the units kept (NaN if there are none).

        Where the ceiling comes from the very data that are scored, the units kept are those whose
        noise happened to repeat, and this mean is too high: divide mean by mean over all units
        instead, as `engramma.study` does, or take the ceiling from other data.
        """
        return float(self.values[self.kept].mean()) if self.kept.any() else float("nan")


def ceiling_normalised(scores: Any, ceiling: Any, floor: float = 0.05) -> NormalisedScore:
    """Divide scores by their noise ceiling, which is not let below ``floor``.

    Score and ceiling must be of one kind: a correlation by a ceiling on correlation, explained
    variance by a ceiling on explained variance.

    Parameters
    ----------
    scores, ceiling : array, shape (n_units, ...)
        A ceiling of NaN counts as below the floor.
    floor : float
        Positive; without it units of pure noise would score anything.

    Raises
    ------
    ConfigError
        If ``floor`` is not positive.
    DataError
        If shapes differ.
    """
    if not floor > 0:
        raise ConfigError(f"the floor of a ceiling must be positive, not {floor!r}")
    scores, ceiling = np.asarray(scores, np.float64), np.asarray(ceiling, np.float64)
    if scores.shape != ceiling.shape:
        raise DataError(f"scores have shape {scores.shape}, ceilings {ceiling.shape}")
    kept = ceiling >= floor
    return NormalisedScore(scores / np.where(kept, ceiling, floor), kept, floor)


def two_versus_two(truth: Any, prediction: Any, groups: Any = None) -> float:
    """Share of pairs of presentations that are matched to their own predictions.

    For presentations i and j the right matching must be closer than the crossed one:
    ``d(t_i, p_i) + d(t_j, p_j) < d(t_i, p_j) + d(t_j, p_i)``, with ``d`` one minus the
    correlation over units; a tie counts a half. Chance is 0.5 (Mitchell et al. 2008, Science).

    Parameters
    ----------
    truth, prediction : array, shape (n_presentations, n_units[, n_times])
    groups : array, shape (n_presentations,), optional
        Stimulus ids: pairs of one stimulus are not compared.

    Raises
    ------
    DataError
        If shapes differ or no pair is left to compare.
    """
    truth, prediction = _pair(truth, prediction)

    def rows(values: np.ndarray) -> np.ndarray:
        values = values - values.mean(axis=1, keepdims=True)
        norm = np.linalg.norm(values, axis=1, keepdims=True)
        return values / np.where(norm > 0, norm, 1.0)

    closeness = rows(truth) @ rows(prediction).T
    own = np.diag(closeness)
    margin = own[:, None] + own[None] - closeness - closeness.T
    pairs = np.triu(np.ones(margin.shape, dtype=bool), k=1)
    if groups is not None:
        groups = np.asarray(groups)
        pairs &= groups[:, None] != groups[None]
    if not pairs.any():
        raise DataError(
            "no two presentations of different stimuli can be compared",
            mend="test on at least two stimuli",
        )
    margin = margin[pairs]
    tie = np.abs(margin) <= 1e-12
    return float(np.mean(np.where(tie, 0.5, margin > 0)))


def bootstrap_interval(
    score: Callable[[np.ndarray], float],
    groups: Any,
    *,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """Percentile interval of a score over resampled presentations.

    Parameters
    ----------
    score : callable
        From indices of presentations (which may repeat) to a number, such as
        ``lambda i: correlation(truth[i], prediction[i]).mean()``.
    groups : array of shape (n_presentations,) or int
        What is drawn together: stimulus ids keep the repeats of a stimulus together. A number
        stands for that many presentations, each drawn by itself.
    rng : numpy.random.Generator
    n_resamples : int
    level : float
        Coverage.

    Returns
    -------
    Estimate
        The score of all presentations and its interval; ``details`` hold the numbers of
        resamples and groups.

    Raises
    ------
    DataError
        If there are fewer than two groups.
    ConfigError
        If ``level`` or ``n_resamples`` cannot be.
    """
    if not 0 < level < 1 or n_resamples < 1:
        raise ConfigError(
            f"an interval of level {level} from {n_resamples} resamples cannot be",
            mend="use a level between 0 and 1 and at least one resample",
        )
    labels = np.arange(groups) if np.ndim(groups) == 0 else np.asarray(groups)
    names, codes = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise DataError(
            f"an interval cannot be drawn from {len(names)} group(s) of presentations",
            mend="use at least two stimuli",
        )
    members = [np.flatnonzero(codes == i) for i in range(len(names))]
    draws = np.empty(n_resamples)
    for i in range(n_resamples):
        drawn = rng.integers(len(names), size=len(names))
        draws[i] = score(np.concatenate([members[d] for d in drawn]))
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    details = {"n_resamples": n_resamples, "n_groups": len(names), "level": level}
    return Estimate(float(score(np.arange(len(labels)))), float(low), float(high), details)


def _varies(norm: np.ndarray, level: np.ndarray, n: int) -> np.ndarray:
    """Whether a deviation from the mean is more than the rounding of float32 data."""
    return np.asarray(norm > 1e-6 * level * np.sqrt(n))


def _pair(truth: Any, prediction: Any) -> tuple[np.ndarray, np.ndarray]:
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape:
        raise DataError(
            f"responses have shape {truth.shape}, predictions {prediction.shape}",
            mend="predict for the same presentations, units and times",
        )
    if truth.ndim < 2 or len(truth) < 2:
        raise DataError(
            f"scores need a presentation x unit array of two presentations or more, "
            f"not shape {truth.shape}"
        )
    n = len(truth)
    return truth.reshape(n, -1), prediction.reshape(n, -1)


def _by_unit(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray], truth: Any, prediction: Any
) -> np.ndarray:
    """Apply ``score`` to chunks of units, in float64."""
    shape = np.shape(truth)[1:]
    truth, prediction = _pair(truth, prediction)
    out = np.empty(truth.shape[1])
    for start in range(0, truth.shape[1], _UNITS):
        here = slice(start, start + _UNITS)
        out[here] = score(truth[:, here].astype(np.float64), prediction[:, here].astype(np.float64))
    return out.reshape(shape)
