"""Spans of time above chance, corrected over time by their cluster mass.

Maris and Oostenveld, *J. Neuroscience Methods* 164, 2007. The p value is of a whole span: where
exactly it begins and ends is not tested (Sassenhagen and Draschkow, *Psychophysiology* 56, 2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label
from scipy.stats import t as student

from engramma.errors import ConfigError, DataError


@dataclass(frozen=True)
class Span:
    """A run of neighbouring times above chance.

    Parameters
    ----------
    start, stop : float
        First and last time in it, seconds.
    mass : float
        Sum over its times of the excess statistic.
    p_value : float
        Share of permutations whose largest cluster is as large, counting the data themselves.
    """

    start: float
    stop: float
    mass: float
    p_value: float


def permutation_spans(
    observed: np.ndarray, null: np.ndarray, time: np.ndarray, *, alpha: float = 0.05
) -> tuple[Span, ...]:
    """Find spans for one subject, against scores under permuted labels.

    Scores become z values by the mean and standard deviation over permutations at each time, and
    clusters are runs of times above their ``1 - alpha`` quantile.

    Parameters
    ----------
    observed : ndarray, shape (n_times,)
    null : ndarray, shape (n_permutations, n_times)
    time : ndarray, shape (n_times,)
    alpha : float

    Raises
    ------
    ConfigError
        If there are too few permutations for ``alpha``.
    """
    _check(alpha, len(null))
    every = np.vstack([observed, null])
    spread = every.std(axis=0)
    z = (every - every.mean(axis=0)) / np.where(spread > 0, spread, 1)
    threshold = np.quantile(z, 1 - alpha, axis=0)
    return _spans(z, threshold, time)


def sign_flip_spans(
    scores: np.ndarray,
    time: np.ndarray,
    *,
    chance: float,
    rng: np.random.Generator,
    n_permutations: int = 1000,
    alpha: float = 0.05,
) -> tuple[Span, ...]:
    """Find spans for a group, flipping the sign of whole subjects.

    Parameters
    ----------
    scores : ndarray, shape (n_subjects, n_times)
    time : ndarray, shape (n_times,)
    chance : float
        Subtracted from the scores.
    rng : numpy.random.Generator
    n_permutations : int
        All sign patterns are taken instead where there are no more of them.
    alpha : float
        Size of the one-sided t test that clusters are formed with.

    Raises
    ------
    DataError
        If there is one subject only.
    """
    n = len(scores)
    if scores.ndim != 2 or n < 2:
        raise DataError(
            "a group test needs the scores of at least two subjects",
            mend="test one subject with permuted labels instead (permutation_spans)",
        )
    if 2**n <= n_permutations + 1:
        signs = 1.0 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        _check(alpha, n_permutations)
        drawn = rng.choice([-1.0, 1.0], (n_permutations, n))
        signs = np.vstack([np.ones(n), drawn])
    centred = scores - chance
    mean = signs @ centred / n
    square = (centred**2).mean(axis=0)
    error = np.sqrt(np.maximum(square - mean**2, 1e-12 * square + 1e-300) / (n - 1))
    return _spans(mean / error, np.full(len(time), student.ppf(1 - alpha, n - 1)), time)


def _check(alpha: float, n: int) -> None:
    if not 0 < alpha < 1 or n < 1 / alpha:
        raise ConfigError(
            f"{n} permutations are too few for alpha={alpha:g}",
            mend=f"use at least {int(np.ceil(1 / max(alpha, 1e-6)))}",
        )


def _spans(statistic: np.ndarray, threshold: np.ndarray, time: np.ndarray) -> tuple[Span, ...]:
    """Clusters of the first row, judged by the largest cluster of every row."""
    largest = np.asarray([max((m for *_, m in _clusters(r, threshold)), default=0.0)
                          for r in statistic])  # fmt: skip
    return tuple(
        Span(float(time[a]), float(time[b]), m, float((largest >= m - 1e-9).mean()))
        for a, b, m in _clusters(statistic[0], threshold)
    )


def _clusters(row: np.ndarray, threshold: np.ndarray) -> list[tuple[int, int, float]]:
    marked, count = label(row > threshold)
    edges = [np.flatnonzero(marked == i + 1) for i in range(count)]
    return [(int(e[0]), int(e[-1]), float(row[e].sum())) for e in edges]
