"""Steady-state trials: which piece of a recording is decoded, cut and checked."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import xarray as xr
from scipy import signal

from engramma.data.recording import Cohort, Recording
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError, DataError

#: The nine parieto-occipital channels that the steady-state literature decodes from.
OCCIPITAL = ("Pz", "PO3", "PO5", "PO4", "PO6", "POz", "O1", "Oz", "O2")


@dataclass(frozen=True)
class Window:
    """Which samples and channels of each trial are decoded.

    Parameters
    ----------
    latency : float
        Seconds from stimulus onset to the first sample: the visual latency.
    length : float
        Seconds of signal.
    sfreq : float
        Sampling rate that the decoder works at, in Hz.
    channels : tuple of str, optional
        Names of the channels, in this order; all of the recording by default.
    resample : bool
        Whether a recording of another rate is resampled. Without it, it is refused.
    scale : float
        Factor to microvolts: 1e6 for a recording in volts.
    """

    latency: float = 0.14
    length: float = 0.4
    sfreq: float = 250.0
    channels: tuple[str, ...] | None = None
    resample: bool = False
    scale: float = 1.0

    @property
    def n_samples(self) -> int:
        """Number of samples that are cut."""
        return round(self.length * self.sfreq)


@dataclass(frozen=True, eq=False)
class Trials:
    """Cut trials.

    Parameters
    ----------
    signals : ndarray, shape (n_trials, n_channels, n_samples)
        float32, microvolts.
    stimulus, subject : ndarray of str, shape (n_trials,)
    block : ndarray of str, shape (n_trials,)
        Session and run; blocks of different subjects may share a name.
    channels : tuple of str
    """

    signals: np.ndarray
    stimulus: np.ndarray
    subject: np.ndarray
    block: np.ndarray
    channels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.signals)

    def select(self, which: np.ndarray) -> Trials:
        """Return some trials, by mask or index."""
        return Trials(
            self.signals[which],
            self.stimulus[which],
            self.subject[which],
            self.block[which],
            self.channels,
        )


def members(data: Recording | Cohort) -> list[Recording]:
    """Return the recordings of a cohort, or the one recording."""
    return list(data.values()) if isinstance(data, Cohort) else [data]


def block_ids(recording: Recording) -> np.ndarray:
    """Session and run of each presentation."""
    pairs = zip(recording.coord("session"), recording.coord("run"), strict=True)
    return np.asarray([f"{session}/{run}" for session, run in pairs])


def cut(data: Recording | Cohort, window: Window) -> Trials:
    """Cut the window from every trial and check it.

    Parameters
    ----------
    data : Recording or Cohort
        With a time axis, in seconds from stimulus onset; the same channels in every recording.
    window : Window

    Returns
    -------
    Trials

    Raises
    ------
    DataError
        If there is no time axis, the sampling rate is another, the window reaches beyond the
        trial, a channel is missing, or samples are NaN or not in microvolts.
    """
    parts = [_cut_one(recording, window) for recording in members(data)]
    channels = parts[0].channels
    for part in parts[1:]:
        if part.channels != channels:
            raise DataError(
                "the subjects were recorded with different channels",
                where=f"subject {part.subject[0]!r} against {parts[0].subject[0]!r}",
                mend="name the channels they share: Window(channels=...)",
            )
    return Trials(
        np.concatenate([p.signals for p in parts]),
        np.concatenate([p.stimulus for p in parts]),
        np.concatenate([p.subject for p in parts]),
        np.concatenate([p.block for p in parts]),
        channels,
    )


def _cut_one(recording: Recording, window: Window) -> Trials:
    if not recording.has_time:
        raise DataError(
            "steady-state responses need a time axis",
            where=repr(recording),
            mend="give presentation x unit x time, one unit a channel",
        )
    names = [str(u) for u in recording.coord("unit")]
    channels = tuple(names) if window.channels is None else window.channels
    missing = [c for c in channels if c not in names]
    if missing:
        raise DataError(
            f"the recording has no channel {missing[0]!r}",
            where=f"it has {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}",
            mend="name channels of the recording, or channels=None for all",
        )
    sfreq = sampling_rate(recording)
    first_time = float(recording.coord("time")[0])
    array = recording.array.isel(unit=[names.index(c) for c in channels])
    if not _same_rate(sfreq, window.sfreq):
        if not window.resample:
            raise DataError(
                f"the recording is sampled at {sfreq:g} Hz, the decoder works at "
                f"{window.sfreq:g} Hz",
                mend="ask for it: Window(resample=True), or set Window(sfreq=...)",
            )
        values = np.asarray(array.values)
        _check_finite(values, recording)
        ratio = Fraction(window.sfreq / sfreq).limit_denominator(1000)
        values = signal.resample_poly(values, ratio.numerator, ratio.denominator, axis=-1)
        array = xr.DataArray(values, dims=array.dims)
    first = round((window.latency - first_time) * window.sfreq)
    last = first + window.n_samples
    if window.n_samples < 1 or first < 0 or last > array.sizes["time"]:
        end = first_time + array.sizes["time"] / window.sfreq
        raise DataError(
            f"the window {window.latency:g} to {window.latency + window.length:g} s lies beyond "
            "the trial",
            where=f"trials reach from {first_time:g} to {end:g} s",
            mend="choose another latency or length, or read longer trials",
        )
    # Cut before loading: a window is a small part of a trial that may lie on disk.
    values = np.asarray(array.isel(time=slice(first, last)).values, dtype=np.float32)
    _check_finite(values, recording)
    values = values * np.float32(window.scale)
    spread = float(values.std())
    if 0 < spread < 1e-3:
        raise DataError(
            f"the signals have a standard deviation of {spread:.1e}, which is too small for EEG "
            "in microvolts",
            mend="for a recording in volts, say Window(scale=1e6)",
        )
    return Trials(
        values,
        recording.coord("stimulus"),
        recording.coord("subject"),
        block_ids(recording),
        channels,
    )


def sampling_rate(recording: Recording) -> float:
    """Return the sampling rate of the time axis, in Hz.

    Raises
    ------
    DataError
        If the samples are not evenly spaced, or there is one only.
    """
    steps = np.diff(recording.coord("time"))
    if len(steps) == 0 or np.ptp(steps) > 0.01 * steps.mean():
        raise DataError(
            "the time axis is not evenly spaced" if len(steps) else "there is one time point only",
            mend="resample the recording to an even time axis in seconds",
        )
    return float(1.0 / steps.mean())


def target_table(stimuli: StimulusSet, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flicker frequency (Hz) and phase (radians) of the named stimuli.

    Raises
    ------
    DataError
        If the table has no such column, or a value is missing.
    """
    table = stimuli.select(list(ids)).table
    for column in ("frequency", "phase"):
        if column not in table:
            raise DataError(
                f"the stimulus table has no column {column!r}",
                where=f"it has {', '.join(map(str, table.columns)) or 'none'}",
                mend="give the flicker frequency (Hz) and phase (radians) of each target",
            )
    values = table[["frequency", "phase"]].to_numpy(dtype=float)
    bad = ~np.isfinite(values).all(axis=1) | (values[:, 0] <= 0)
    if bad.any():
        raise DataError(
            "a target has no usable frequency or phase",
            where=f"stimulus {ids[np.flatnonzero(bad)[0]]!r}",
            mend="give a positive frequency in Hz and a phase in radians",
        )
    return values[:, 0], values[:, 1]


def check_length(window: Window, shortest: int) -> None:
    """Refuse a window with fewer samples than a method can work on."""
    if window.n_samples < shortest:
        raise ConfigError(
            f"a window of {window.n_samples} samples is too short; it takes {shortest}",
            where=f"{window.length:g} s at {window.sfreq:g} Hz",
            mend="decode a longer window",
        )


def _same_rate(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-3 * b


def _check_finite(values: np.ndarray, recording: Recording) -> None:
    bad = ~np.isfinite(values).all(axis=-1)
    if bad.any():
        trial, channel = (int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"{int(bad.any(axis=-1).sum())} trials hold NaN or infinity",
            where=f"presentation {trial} (stimulus {recording.coord('stimulus')[trial]!r}), "
            f"channel number {channel}",
            mend="drop or interpolate these trials or channels first",
        )
