"""Linear decoding of steady-state visual evoked potentials: filter banks, CCA, FBCCA and TRCA.

Everything here works on plain arrays, trial x channel x sample (with a band axis in front of the
channels where a filter bank was applied).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg, signal

from engramma.errors import ConfigError, DataError

# -- filter banks --------------------------------------------------------------------------


def chebyshev_bank(
    sfreq: float, low: Sequence[float] = (8, 16, 24), high: float = 90.0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Band-passes ``low``-``high`` Hz of total order 2: Chebyshev type I with 1 dB ripple.

    The sub-bands of Guney et al. 2022.
    """
    _check_bands(sfreq, low, high)
    return [signal.cheby1(1, 1, (cutoff, high), "bandpass", fs=sfreq) for cutoff in low]


def harmonic_bank(sfreq: float, n_bands: int = 5) -> list[tuple[np.ndarray, np.ndarray]]:
    """Band-passes that begin at successive harmonics: 6, 14, 22, ... to 90 Hz.

    Chebyshev type I with 0.5 dB ripple, of the order that attenuates by 40 dB 2 to 6 Hz below and
    10 Hz above the band: the filter bank in the released code of Nakanishi et al. 2018
    (task-related component analysis).
    """
    lows = [6.0 + 8 * k for k in range(n_bands)]
    _check_bands(sfreq, lows, 100.0)
    bank = []
    for k, low in enumerate(lows):
        stop = low - (2.0 if k == 0 else 4.0 if k == 1 else 6.0)
        order, edges = signal.cheb1ord((low, 90.0), (stop, 100.0), 3, 40, fs=sfreq)
        bank.append(signal.cheby1(order, 0.5, edges, "bandpass", fs=sfreq))
    return bank


def filter_bank(signals: np.ndarray, bank: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Filter forwards and backwards (zero phase) in every band.

    The ends are extended oddly by three times the filter order, as MATLAB's ``filtfilt`` does.

    Parameters
    ----------
    signals : ndarray, shape (n_trials, n_channels, n_samples)
    bank : sequence of (b, a)

    Returns
    -------
    ndarray, shape (n_trials, n_bands, n_channels, n_samples)
        float32.

    Raises
    ------
    ConfigError
        If the trials are shorter than the extension.
    """
    filtered = np.empty((len(signals), len(bank), *signals.shape[1:]), dtype=np.float32)
    for k, (b, a) in enumerate(bank):
        padding = 3 * (max(len(a), len(b)) - 1)
        if signals.shape[-1] <= padding:
            raise ConfigError(
                f"{signals.shape[-1]} samples are too few for a filter that needs {padding + 1}",
                mend="decode a longer window",
            )
        filtered[:, k] = signal.filtfilt(b, a, signals.astype(np.float64), axis=-1, padlen=padding)
    return filtered


def band_weights(n_bands: int) -> np.ndarray:
    """Weights :math:`k^{-1.25} + 0.25` of the squared correlations (Chen et al. 2015, eq. 7)."""
    return np.arange(1, n_bands + 1) ** -1.25 + 0.25


# -- canonical correlation -----------------------------------------------------------------


def references(
    frequencies: np.ndarray, n_samples: int, sfreq: float, n_harmonics: int = 5
) -> np.ndarray:
    """Sines and cosines of each frequency and its harmonics below the Nyquist frequency.

    Returns
    -------
    ndarray, shape (n_targets, 2 * n_harmonics, n_samples)
    """
    frequencies = np.asarray(frequencies, dtype=float)
    fitting = int(0.499 * sfreq / frequencies.max())
    if fitting < 1:
        raise ConfigError(
            f"{frequencies.max():g} Hz cannot be seen at a sampling rate of {sfreq:g} Hz",
            mend="record at more than twice the flicker frequency",
        )
    harmonics = np.arange(1, min(n_harmonics, fitting) + 1)
    time = np.arange(n_samples) / sfreq
    angle = 2 * np.pi * frequencies[:, None, None] * harmonics[:, None] * time
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def canonical_correlations(signals: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Largest canonical correlation of each trial with each target's reference.

    Both are centred and orthonormalised (QR); the canonical correlations are then the singular
    values of the product (Björck & Golub 1973).

    Parameters
    ----------
    signals : ndarray, shape (n_trials, n_channels, n_samples)
    targets : ndarray, shape (n_targets, n_references, n_samples)

    Returns
    -------
    ndarray, shape (n_trials, n_targets)
    """
    most = max(signals.shape[1], targets.shape[1])
    if signals.shape[-1] <= most:
        raise ConfigError(
            f"{signals.shape[-1]} samples cannot be correlated canonically in {most} dimensions",
            mend="decode a longer window, fewer channels or fewer harmonics",
        )
    left, right = _orthonormal(signals), _orthonormal(targets)
    scores = np.empty((len(signals), len(targets)))
    for k, basis in enumerate(right):
        scores[:, k] = np.linalg.norm(left @ basis.T, ord=2, axis=(1, 2))
    return scores


def _orthonormal(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=-1, keepdims=True)
    q, r = np.linalg.qr(np.swapaxes(centred.astype(np.float64), -1, -2))
    # A dimension that depends on earlier ones (a flat or copied channel) spans nothing.
    diagonal = np.abs(np.diagonal(r, axis1=-2, axis2=-1))
    keep = diagonal > 1e-10 * diagonal.max(axis=-1, keepdims=True).clip(1e-300)
    return np.asarray(np.swapaxes(q * keep[..., None, :], -1, -2))


def filter_bank_cca(banded: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Weighted sum over bands of squared canonical correlations (Chen et al. 2015, PNAS 112).

    Parameters
    ----------
    banded : ndarray, shape (n_trials, n_bands, n_channels, n_samples)
    targets : ndarray, shape (n_targets, n_references, n_samples)

    Returns
    -------
    ndarray, shape (n_trials, n_targets)
    """
    weights = band_weights(banded.shape[1])
    scores = [w * canonical_correlations(banded[:, k], targets) ** 2 for k, w in enumerate(weights)]
    return np.sum(scores, axis=0)


# -- task-related component analysis -------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TaskRelatedComponents:
    """Spatial filters and templates of one subject (Nakanishi et al. 2018, IEEE TBME 65).

    Parameters
    ----------
    filters : ndarray, shape (n_bands, n_targets, n_channels)
    templates : ndarray, shape (n_bands, n_targets, n_channels, n_samples)
    """

    filters: np.ndarray
    templates: np.ndarray

    @classmethod
    def fit(cls, banded: np.ndarray, target: np.ndarray, n_targets: int) -> TaskRelatedComponents:
        """Learn the filter of each band and target that repeats best from trial to trial.

        Parameters
        ----------
        banded : ndarray, shape (n_trials, n_bands, n_channels, n_samples)
        target : ndarray of int, shape (n_trials,)
        n_targets : int

        Raises
        ------
        DataError
            If a target has fewer than two trials.
        """
        counts = np.bincount(target, minlength=n_targets)
        if counts.min() < 2:
            raise DataError(
                f"task-related components need two trials a target, but one has {counts.min()}",
                where=f"target number {int(counts.argmin())}",
                mend="train on two blocks or more, or use FBCCA, which needs none",
            )
        _, n_bands, n_channels, n_samples = banded.shape
        filters = np.empty((n_bands, n_targets, n_channels))
        templates = np.empty((n_bands, n_targets, n_channels, n_samples))
        for m in range(n_targets):
            trials = np.swapaxes(banded[target == m], 0, 1)  # band x trial x channel x sample
            templates[:, m] = trials.mean(axis=1, dtype=np.float64)
            filters[:, m] = [_most_repeatable(band) for band in trials]
        return cls(filters, templates)

    def scores(self, banded: np.ndarray, ensemble: bool = True) -> np.ndarray:
        """Weighted correlation of filtered trials with filtered templates.

        Parameters
        ----------
        banded : ndarray, shape (n_trials, n_bands, n_channels, n_samples)
        ensemble : bool
            Whether each trial passes the filters of all targets (eTRCA) or of the target it is
            compared with.

        Returns
        -------
        ndarray, shape (n_trials, n_targets)
        """
        total = np.zeros((len(banded), self.templates.shape[1]))
        for k, weight in enumerate(band_weights(banded.shape[1])):
            for m in range(total.shape[1]):
                w = self.filters[k] if ensemble else self.filters[k, m : m + 1]
                seen = (w @ banded[:, k]).reshape(len(banded), -1)
                total[:, m] += weight * _correlate(seen, (w @ self.templates[k, m]).ravel())
        return total


def _most_repeatable(trials: np.ndarray) -> np.ndarray:
    """Filter w that maximises w'Sw / w'Qw for trial x channel x sample."""
    centred = trials - trials.mean(axis=-1, keepdims=True, dtype=np.float64)
    summed = centred.sum(axis=0)
    own = np.einsum("tcn,tdn->cd", centred, centred)
    between = summed @ summed.T - own  # covariances of different trials, summed
    ridge = 1e-10 * np.trace(own) / len(own) + 1e-300  # keeps a flat channel from being singular
    _, vectors = linalg.eigh(between, own + ridge * np.eye(len(own)))
    return np.asarray(vectors[:, -1])


def _correlate(rows: np.ndarray, one: np.ndarray) -> np.ndarray:
    rows = rows - rows.mean(axis=1, keepdims=True)
    one = one - one.mean()
    size = np.linalg.norm(rows, axis=1) * np.linalg.norm(one)
    return np.asarray(rows @ one / np.where(size > 0, size, 1.0))


def _check_bands(sfreq: float, low: Sequence[float], high: float) -> None:
    if high >= sfreq / 2 or any(cutoff >= high for cutoff in low):
        raise ConfigError(
            f"bands up to {high:g} Hz do not fit a sampling rate of {sfreq:g} Hz",
            where=f"lower edges {', '.join(f'{c:g}' for c in low)} Hz",
            mend="decode at 250 Hz, or use fewer bands",
        )
