"""Noise of virtual brains: what varies from one presentation of a stimulus to the next.

All parts have unit variance before they are weighed, so that shares of variance are what they
say, and with them the noise ceiling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from engramma.errors import ConfigError


@dataclass(frozen=True)
class NoiseOptions:
    """What noise is made of, in shares of its variance; the rest is each unit's own.

    Parameters
    ----------
    correlated : float
        Share that neighbouring units have in common.
    smoothness : float
        Standard deviation (mm) of the kernel that makes neighbours alike.
    temporal : float
        Correlation of successive samples within a run (AR(1)).
    drift : float
        Share that drifts slowly over each run.
    session_drift : float
        Share by which the mean of a unit changes from session to session; each unit's own noise
        takes its place where there is one session only.
    """

    correlated: float = 0.3
    smoothness: float = 4.0
    temporal: float = 0.2
    drift: float = 0.1
    session_drift: float = 0.02

    def __post_init__(self) -> None:
        parts = (self.correlated, self.drift, self.session_drift)
        if min(parts) < 0 or sum(parts) > 1:
            raise ConfigError(
                "correlated, drift and session_drift are shares of variance",
                where=f"they are {', '.join(f'{p:g}' for p in parts)}",
                mend="use numbers from 0 that add up to 1 at most",
            )
        if not -1 < self.temporal < 1 or self.smoothness <= 0:
            raise ConfigError(
                f"temporal={self.temporal:g} and smoothness={self.smoothness:g} make no noise",
                mend="use -1 < temporal < 1 and smoothness > 0 (mm)",
            )


def fluctuations(
    run: np.ndarray,
    session: np.ndarray,
    position: np.ndarray,
    options: NoiseOptions,
    *,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw noise of unit variance in each unit.

    Parameters
    ----------
    run, session : ndarray, shape (n_samples,)
        Samples of one run lie next to each other.
    position : ndarray, shape (n_units, 3)
        Millimetres.
    options : NoiseOptions
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n_samples, n_units), float32
        Independent between runs, but for the mean of each session.
    """
    n_samples, n_units = len(run), len(position)
    starts = np.flatnonzero(np.r_[True, run[1:] != run[:-1]])
    lengths = np.diff(np.r_[starts, n_samples])
    levels, of_sample = np.unique(session, return_inverse=True)
    between = options.session_drift if len(levels) > 1 else 0.0
    alone = 1 - options.correlated - options.drift - between
    noise = np.empty((n_samples, n_units), dtype=np.float32)
    kernel = _kernel(position, options.smoothness)
    for start, length in zip(starts, lengths, strict=True):
        own, shared = (_autoregressive(length, n_units, options.temporal, rng) for _ in range(2))
        slow = _slow(length, n_units, rng)
        noise[start : start + length] = (
            np.sqrt(alone) * own
            + np.sqrt(options.correlated) * (shared @ kernel)
            + np.sqrt(options.drift) * slow
        )
    means = rng.standard_normal((len(levels), n_units), dtype=np.float32)
    noise += np.float32(np.sqrt(between)) * means[of_sample]
    return noise


def _autoregressive(n: int, n_units: int, rho: float, rng: np.random.Generator) -> np.ndarray:
    """AR(1) series of unit variance from their first sample on."""
    white = rng.standard_normal((n, n_units), dtype=np.float32)
    white[1:] *= np.float32(np.sqrt(1 - rho**2))
    one, feedback = np.ones(1, dtype=np.float32), np.asarray([1, -rho], dtype=np.float32)
    return np.asarray(lfilter(one, feedback, white, axis=0), dtype=np.float32)


def _kernel(position: np.ndarray, smoothness: float) -> csr_array:
    """Gaussian of the distance between units, cut off at 3 standard deviations; unit columns."""
    tree = cKDTree(position)
    pairs = tree.sparse_distance_matrix(tree, 3 * smoothness, output_type="coo_matrix")
    weights = np.exp(-(pairs.data**2) / (2 * smoothness**2))
    kernel = csr_array((weights, (pairs.row, pairs.col)), shape=pairs.shape)
    norm = np.sqrt(np.asarray(kernel.power(2).sum(axis=0)).ravel())
    return csr_array(kernel.multiply(1 / norm), dtype=np.float32)


def _slow(n: int, n_units: int, rng: np.random.Generator) -> np.ndarray:
    """Random mixtures of the three slowest cosines of a run, of unit variance over the run."""
    weights = rng.standard_normal((3, n_units)).astype(np.float32)
    if n < 4:
        return rng.standard_normal((n, n_units), dtype=np.float32)
    time = (np.arange(n, dtype=np.float32) + 0.5) * np.float32(np.pi / n)
    waves = np.sqrt(np.float32(2)) * np.cos(np.arange(1, 4)[:, None] * time).astype(np.float32)
    return waves.T @ (weights / np.linalg.norm(weights, axis=0))
