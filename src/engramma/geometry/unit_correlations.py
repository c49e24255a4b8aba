"""Correlations within and between the units of two networks that see the same stimuli."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engramma.errors import DataError
from engramma.nn.statistics import StreamingCovariance, positions_as_samples

CHUNK = 8192


@dataclass(frozen=True)
class Correlations:
    """Correlations within and between the live units of two networks.

    Parameters
    ----------
    within_first, within_second : ndarray
        ``C^n`` and ``C^m``.
    between : ndarray, shape (n_first, n_second)
        ``C^{n,m}``.
    live_first, live_second : ndarray of int
        Positions of the units that vary, in the arrays that were given.
    dead_first, dead_second : ndarray of int
        Positions of those that do not.
    """

    within_first: np.ndarray
    within_second: np.ndarray
    between: np.ndarray
    live_first: np.ndarray
    live_second: np.ndarray
    dead_first: np.ndarray
    dead_second: np.ndarray


def correlate(a: np.ndarray, b: np.ndarray) -> Correlations:
    """Gather correlations in one pass, in float64; every position of a map is a sample.

    Parameters
    ----------
    a, b : ndarray, shape (n_stimuli, n_units) or (n_stimuli, n_maps, height, width)
        Activations for the same stimuli in the same order; widths may differ.

    Raises
    ------
    DataError
        If samples do not pair up, are not finite, or all units of a network are dead.
    """
    x, y = positions_as_samples(np.asarray(a)), positions_as_samples(np.asarray(b))
    moments = StreamingCovariance(x.shape[1] + y.shape[1], x.shape[1] + y.shape[1])
    if len(x) != len(y):
        raise DataError(
            f"{len(x)} and {len(y)} samples cannot be paired",
            mend="run both networks on the same stimuli, in layers with the same positions",
        )
    for start in range(0, len(x), CHUNK):
        both = np.concatenate([x[start : start + CHUNK], y[start : start + CHUNK]], axis=1)
        moments.update(both, both)
    # Rounding leaves a constant unit a spread of this order.
    least = 1e-7 * np.maximum(np.abs(moments.mean_first), np.finfo(np.float32).tiny)
    return split_correlations(moments.correlation, moments.std_first > least, x.shape[1])


def split_correlations(matrix: np.ndarray, alive: np.ndarray, n_first: int) -> Correlations:
    """Split a joint correlation matrix, and drop units that do not vary."""
    first, second = alive[:n_first], alive[n_first:]
    for name, live in (("first", first), ("second", second)):
        if not live.any():
            raise DataError(
                f"no unit of the {name} network varies",
                mend="check its input, or choose another layer",
            )
    i, j = np.flatnonzero(first), np.flatnonzero(second)
    return Correlations(
        within_first=matrix[np.ix_(i, i)],
        within_second=matrix[np.ix_(n_first + j, n_first + j)],
        between=matrix[np.ix_(i, n_first + j)],
        live_first=i,
        live_second=j,
        dead_first=np.flatnonzero(~first),
        dead_second=np.flatnonzero(~second),
    )


def standardised(
    a: np.ndarray,
    b: np.ndarray,
    found: Correlations,
    test: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Live units of ``a`` and ``b`` (or of ``test``), by the mean and deviation of a and b."""
    scaled = []
    for k, (fit, live) in enumerate(((a, found.live_first), (b, found.live_second))):
        x = positions_as_samples(np.asarray(fit))[:, live].astype(np.float64)
        mean, std = x.mean(axis=0), x.std(axis=0, ddof=1)
        if test is not None:
            x = positions_as_samples(np.asarray(test[k]))[:, live].astype(np.float64)
        scaled.append((x - mean) / std)
    return scaled[0], scaled[1]
