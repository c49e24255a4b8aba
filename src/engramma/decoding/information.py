"""How much a selection tells: bits per choice and information transfer rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from engramma.errors import ConfigError


def bits_per_selection(accuracy: ArrayLike, n_targets: int) -> np.ndarray:
    r"""Bits that one choice among ``n_targets`` conveys at the given accuracy.

    .. math:: B = \log_2 M + P \log_2 P + (1 - P) \log_2 \frac{1 - P}{M - 1}

    and by convention 0 below chance (Wolpaw et al., *Clinical Neurophysiology* 113, 2002).
    Errors are taken to fall evenly on the other targets.

    Parameters
    ----------
    accuracy : array_like
        Fractions correct, between 0 and 1.
    n_targets : int
        Number of targets, at least two.

    Returns
    -------
    ndarray
        Bits, of the shape of ``accuracy``; at most ``log2(n_targets)``.

    Raises
    ------
    ConfigError
        If an accuracy is no fraction, or there are fewer than two targets.
    """
    p = np.asarray(accuracy, dtype=float)
    if n_targets < 2:
        raise ConfigError(f"a choice needs at least two targets, not {n_targets}")
    if not ((p >= 0) & (p <= 1)).all():
        raise ConfigError(
            "accuracies lie between 0 and 1",
            where=f"they range from {p.min():g} to {p.max():g}",
            mend="divide percentages by 100, and drop NaN",
        )
    correct = np.where(p > 0, p * np.log2(np.where(p > 0, p, 1.0)), 0.0)
    wrong = np.where(p < 1, (1 - p) * np.log2(np.where(p < 1, 1 - p, 1.0) / (n_targets - 1)), 0.0)
    return np.asarray(np.where(p < 1 / n_targets, 0.0, np.log2(n_targets) + correct + wrong))


def information_transfer_rate(accuracy: ArrayLike, n_targets: int, seconds: float) -> np.ndarray:
    """Bits per minute.

    The rate is convex in the accuracy, so the mean of rates (per subject and block, as published
    tables have it) is larger than the rate of the mean accuracy.

    Parameters
    ----------
    accuracy : array_like
        Fractions correct, one a subject and block.
    n_targets : int
    seconds : float
        Time of one selection: the signal used *plus* the time to shift the gaze.

    Returns
    -------
    ndarray
        Bits per minute, of the shape of ``accuracy``.
    """
    if seconds <= 0:
        raise ConfigError(f"a selection takes some time, not {seconds:g} s")
    return np.asarray(bits_per_selection(accuracy, n_targets) * 60.0 / seconds)
