"""Noise ceilings: how well any model could predict a unit, given how noisy it is.

A ceiling comes from repeats of the same stimulus, or from other subjects. It is always stated as
a correlation or as explained variance, *of the average of so many repeats*: a model scored on
single trials has a lower ceiling than one scored on averages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engramma.data.recording import Recording
from engramma.errors import DataError


@dataclass(frozen=True, eq=False)
class Ceiling:
    """A noise ceiling per unit.

    Parameters
    ----------
    correlation : ndarray, shape (n_units,) or (n_units, n_times)
        Highest correlation a perfect model can reach with the mean of ``n_averaged`` repeats.
    method : str
    n_averaged : float
        Repeats averaged in the responses the ceiling is for.
    reliability : ndarray
        Share of variance that is signal; may be negative by chance, which is kept, because
        clipping it at zero would bias the average over units upwards.
    """

    correlation: np.ndarray
    method: str
    n_averaged: float
    reliability: np.ndarray

    @property
    def explained_variance(self) -> np.ndarray:
        """Highest explained variance, the squared correlation."""
        return self.correlation**2


def repeats_array(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Responses by stimulus and repetition; stimuli shown once are left out.

    Returns
    -------
    stacked : ndarray, shape (n_stimuli, n_repeats, n_units[, n_times])
        float32, padded with NaN where a stimulus was shown less often than others.
    present : ndarray of bool, shape (n_stimuli, n_repeats)

    Raises
    ------
    DataError
        If no stimulus was shown twice.
    """
    stimulus = recording.coord("stimulus")
    levels, inverse, counts = np.unique(stimulus, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(counts >= 2)
    if len(kept) == 0:
        raise DataError(
            "no stimulus was shown twice, so there is no noise ceiling from repeats",
            where=f"{len(levels)} stimuli, each shown once",
            mend="record repeats, or take the ceiling from other subjects",
        )
    values = recording.values
    shape = (len(kept), counts[kept].max(), *values.shape[1:])
    stacked = np.full(shape, np.nan, dtype=np.float32)
    for row, level in enumerate(kept):
        members = values[inverse == level]
        stacked[row, : len(members)] = members
    return stacked, np.arange(shape[1]) < counts[kept, None]


def variance_ceiling(recording: Recording, n_averaged: int | None = None) -> Ceiling:
    """Variance-component ceiling, as used with the Natural Scenes Dataset.

    Noise variance is the variance over repeats, averaged over stimuli (weighted by degrees of
    freedom); signal variance is the variance of stimulus means minus the noise left in them.
    The ceiling of an average of n repeats is ``ncsnr^2 / (ncsnr^2 + 1/n)`` in explained variance,
    with ``ncsnr`` the ratio of signal to noise standard deviations (Allen et al. 2022, Nature
    Neuroscience, Methods).

    Parameters
    ----------
    recording : Recording
    n_averaged : int, optional
        Repeats averaged where the ceiling is used; by default the (harmonic) mean number of
        repeats of the recording.

    Returns
    -------
    Ceiling
    """
    stacked, present = repeats_array(recording)
    stacked = stacked.astype(np.float64)
    if len(stacked) < 2:
        raise DataError("a ceiling needs at least two repeated stimuli")
    count = present.sum(axis=1)
    means = np.nanmean(stacked, axis=1)
    deviations = np.nan_to_num(stacked - means[:, None])
    noise = (deviations**2).sum(axis=(0, 1)) / (count - 1).sum()
    harmonic = len(count) / (1.0 / count).sum()
    signal = means.var(axis=0, ddof=1) - noise / harmonic
    n = harmonic if n_averaged is None else float(n_averaged)
    with np.errstate(invalid="ignore", divide="ignore"):
        reliability = np.where(noise + signal > 0, signal / (signal + noise / n), 0.0)
    return Ceiling(
        np.sqrt(np.clip(reliability, 0.0, 1.0)), "variance components", float(n), reliability
    )


def split_half_ceiling(
    recording: Recording,
    *,
    rng: np.random.Generator,
    n_splits: int = 50,
    n_averaged: int | None = None,
) -> Ceiling:
    """Split-half reliability, corrected to full length by Spearman-Brown.

    Repeats are split at random into halves ``n_splits`` times, the halves correlated over
    stimuli, the correlations averaged, and the length corrected: for k times as many repeats,
    ``k r / (1 + (k - 1) r)`` (Spearman 1910; Brown 1910). Its square root is the correlation that
    a perfect model reaches with the average.

    Parameters
    ----------
    recording : Recording
    rng : numpy.random.Generator
    n_splits : int
    n_averaged : int, optional
        As in `variance_ceiling`.

    Returns
    -------
    Ceiling
    """
    stacked, present = repeats_array(recording)
    if len(stacked) < 3:
        raise DataError(
            "split-half reliability needs at least three repeated stimuli",
            where=f"{len(stacked)} stimuli were shown twice or more",
        )
    count = present.sum(axis=1)
    filled = np.nan_to_num(stacked)
    total = np.zeros(stacked.shape[2:])
    # The number of repeats per half may differ between stimuli: use the mean half length.
    for _ in range(n_splits):
        order = np.where(present, rng.random(present.shape), np.inf).argsort(axis=1)
        rank = order.argsort(axis=1)
        half = count // 2
        first = rank < half[:, None]
        second = (rank >= half[:, None]) & (rank < 2 * half[:, None])
        a = np.einsum("sr,sr...->s...", first / half[:, None], filled, optimize=True)
        b = np.einsum("sr,sr...->s...", second / half[:, None], filled, optimize=True)
        total += _correlate(a, b)
    half_length = float((count // 2).mean())
    n = float(len(count) / (1.0 / count).sum()) if n_averaged is None else float(n_averaged)
    r = total / n_splits
    k = n / half_length
    reliability = k * r / (1.0 + (k - 1.0) * r)
    return Ceiling(np.sqrt(np.clip(reliability, 0.0, 1.0)), "split half", n, reliability)


def between_subject_ceiling(recordings: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ceiling from other subjects, for units that subjects share.

    Parameters
    ----------
    recordings : sequence of ndarray, each of shape (n_stimuli, n_units)
        Mean responses of each subject to the same stimuli in the same order; the same units
        (regions, sensors, a common space).

    Returns
    -------
    lower, upper : ndarray, shape (n_subjects, n_units)
        Correlation of each subject with the mean of the *other* subjects, and with the mean of
        *all* subjects (which contains it, hence the upper bound).
    """
    shapes = {np.shape(r) for r in recordings}
    if len(recordings) < 2 or len(shapes) != 1:
        raise DataError(
            "a between-subject ceiling needs at least two subjects with the same stimuli and units",
            where=f"{len(recordings)} subjects with shapes {sorted(shapes)}",
            mend="average units into regions that all subjects have",
        )
    stack = np.stack([np.asarray(r, dtype=np.float64) for r in recordings])
    stack = stack - stack.mean(axis=1, keepdims=True)
    scale = stack.std(axis=1, keepdims=True)
    stack = np.divide(stack, scale, out=np.zeros_like(stack), where=scale > 0)
    total = stack.sum(axis=0)
    lower = np.stack([_correlate(s, total - s) for s in stack])
    upper = np.stack([_correlate(s, total) for s in stack])
    return lower, upper


def _correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlate over the first axis; 0 where a column is constant."""
    a = a - a.mean(axis=0)
    b = b - b.mean(axis=0)
    norm = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    product = (a * b).sum(axis=0)
    return np.divide(product, norm, out=np.zeros_like(product), where=norm > 1e-12)
