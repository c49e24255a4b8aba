"""Features in time: lags, finite impulse response, haemodynamics, resampling to volumes.

For continuous recordings (stories, films, speech), where features are a time course, sample x
feature, and the brain answers later.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.signal import fftconvolve
from scipy.stats import gamma

from engramma.errors import DataError


def lagged(values: np.ndarray, lags: Sequence[int]) -> np.ndarray:
    """Put copies of a time course side by side, each shifted by a lag.

    Parameters
    ----------
    values : ndarray, shape (n_samples, n_features)
    lags : sequence of int
        In samples. A positive lag looks back: row t holds ``values[t - lag]``. What lies before
        the start or after the end is 0; `trim` cuts it off.

    Returns
    -------
    ndarray, shape (n_samples, n_lags x n_features)
        All features at the first lag, then all at the second, and so on.
    """
    values = _time_course(values)
    n, width = values.shape
    out = np.zeros((n, len(lags) * width), dtype=values.dtype)
    for i, lag in enumerate(lags):
        columns = slice(i * width, (i + 1) * width)
        if 0 <= lag < n:
            out[lag:, columns] = values[: n - lag]
        elif -n < lag < 0:
            out[:lag, columns] = values[-lag:]
    return out


def fir(values: np.ndarray, delays: Sequence[float], interval: float) -> np.ndarray:
    """Finite impulse response: lags given in seconds.

    Parameters
    ----------
    values : ndarray, shape (n_samples, n_features)
    delays : sequence of float
        Seconds after the stimulus, such as (2, 4, 6, 8) for fMRI.
    interval : float
        Seconds between samples (the repetition time).

    Raises
    ------
    DataError
        If a delay is no multiple of the interval.
    """
    steps = np.asarray(delays, dtype=float) / interval
    lags = np.round(steps).astype(int)
    if (np.abs(steps - lags) > 0.01).any():
        wrong = np.asarray(delays)[np.abs(steps - lags) > 0.01][0]
        raise DataError(
            f"a delay of {wrong:g} s is no multiple of the sampling interval of {interval:g} s",
            mend="choose delays that are, or resample the features first",
        )
    return lagged(values, lags.tolist())


def canonical_hrf(interval: float, duration: float = 32.0) -> np.ndarray:
    """Canonical haemodynamic response of SPM: a peak near 5 s and an undershoot near 15 s.

    The difference of two gamma densities of shape 6 and 16 and scale 1 s, the second divided by
    6 (Friston et al. 1998, NeuroImage 7, 30; ``spm_hrf`` with its default parameters).

    Parameters
    ----------
    interval : float
        Seconds between samples.
    duration : float
        Seconds.

    Returns
    -------
    ndarray, shape (duration / interval,)
        Sums to 1.
    """
    if not 0 < interval < duration:
        raise DataError(
            f"a haemodynamic response of {duration:g} s cannot be sampled every {interval:g} s",
            mend="give the sampling interval in seconds",
        )
    time = np.arange(int(np.ceil(duration / interval))) * interval
    response = gamma.pdf(time, 6) - gamma.pdf(time, 16) / 6
    total = response.sum()
    if total <= 0:
        raise DataError(
            f"an interval of {interval:g} s misses the haemodynamic response",
            mend="sample the features more finely, then bring them to volumes",
        )
    return response / total


def convolve_hrf(values: np.ndarray, interval: float) -> np.ndarray:
    """Convolve each feature with the canonical haemodynamic response.

    Parameters
    ----------
    values : ndarray, shape (n_samples, n_features)
    interval : float
        Seconds between samples; finer than the response changes (at most 1 s is advised).

    Returns
    -------
    ndarray, shape (n_samples, n_features), float32
        As long as the input: what the response does after its end is cut off.
    """
    values = _time_course(values)
    kernel = canonical_hrf(interval)[:, None]
    return fftconvolve(values, kernel, axes=0)[: len(values)].astype(np.float32)


def lanczos(
    values: np.ndarray,
    times: np.ndarray,
    new_times: np.ndarray,
    window: float = 3.0,
    cutoff: float | None = None,
) -> np.ndarray:
    """Bring features at irregular times (of words) to regular ones (of volumes), low-passed.

    Each new sample sums all old ones, weighted by sinc(f d) sinc(f d / window) of their distance d
    in time, where |f d| < window; f is the cut-off times two. As word-level features are sums of
    impulses, a volume during which twice as many words are heard gets twice the value. Lanczos
    1956, "Applied Analysis"; for language encoding models Huth et al. 2016, Nature 532, 453.

    Parameters
    ----------
    values : ndarray, shape (n_words, n_features)
    times : ndarray, shape (n_words,)
        Seconds.
    new_times : ndarray, shape (n_volumes,)
        Seconds, evenly spaced.
    window : float
        Lobes of the kernel.
    cutoff : float, optional
        Hz; by default half the rate of the new samples (Nyquist).

    Returns
    -------
    ndarray, shape (n_volumes, n_features), float32

    Raises
    ------
    DataError
        If times do not fit the values, or the new times are not evenly spaced.
    """
    values, times, new_times = _time_course(values), np.asarray(times), np.asarray(new_times)
    if times.shape != (len(values),):
        raise DataError(
            f"{len(values)} rows of features have {times.size} times", mend="give one time a row"
        )
    steps = np.diff(new_times)
    if len(steps) == 0 or steps.min() <= 0 or np.ptp(steps) > 0.01 * steps.mean():
        raise DataError(
            "the new times are not evenly spaced", mend="give the times of the volumes in seconds"
        )
    rate = 1 / steps.mean() if cutoff is None else 2 * cutoff
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    reach = window / rate
    first = np.searchsorted(times, new_times - reach, side="left")
    last = np.searchsorted(times, new_times + reach, side="right")
    out = np.zeros((len(new_times), values.shape[1]), dtype=np.float32)
    for row, (start, stop) in enumerate(zip(first, last, strict=True)):
        distance = rate * (new_times[row] - times[start:stop])
        out[row] = (np.sinc(distance) * np.sinc(distance / window)) @ values[start:stop]
    return out


def trim(values: np.ndarray, start: int, end: int = 0) -> np.ndarray:
    """Cut ``start`` samples off the beginning and ``end`` off the end; responses likewise.

    Raises
    ------
    DataError
        If nothing would be left.
    """
    stop = len(values) - end
    if start < 0 or end < 0 or stop <= start:
        raise DataError(
            f"cutting {start} and {end} samples off {len(values)} leaves nothing",
            mend="cut fewer",
        )
    return values[start:stop]


def _time_course(values: np.ndarray) -> np.ndarray:
    """Check that features are sample x feature."""
    values = np.asarray(values)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or not np.isfinite(values).all():
        raise DataError(
            f"features in time have shape {values.shape} or hold NaN",
            mend="give a finite sample x feature matrix",
        )
    return values.astype(np.float32, copy=False)
