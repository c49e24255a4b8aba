"""What else sensors pick up: the rest of the brain, blinks, the heart, the mains, bad contacts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from engramma.errors import ConfigError
from engramma.worlds.forward import BRAIN, eye_field, heart_field, lead_field
from engramma.worlds.sensors import CENTRE, RADIUS, Sensors

#: Dipoles that stand for the rest of the brain, the same in every head.
N_DIPOLES = 300
#: White noise of one sensor (V, T, T/m): electrodes and amplifiers of EEG, SQUIDs of MEG at a
#: bandwidth of about 50 Hz (3 fT and 3 fT/cm per root hertz).
SENSOR_NOISE = {"eeg": 1e-6, "mag": 20e-15, "grad": 2e-12}
#: Moments (A m) of a blink, which is about 90 uV at the forehead, and of the heart at its R peak.
BLINK, HEART = 2.7e-7, 1.5e-5


@dataclass(frozen=True)
class Disturbances:
    """Noise and artefacts.

    Parameters
    ----------
    brain_noise : float
        Standard deviation of the moment (A m) of each of `N_DIPOLES` dipoles. The default
        makes about 8 uV of EEG and 0.3 to 0.4 pT of MEG.
    exponent : float
        Power of the brain noise falls as 1/f to this exponent.
    sensor_noise : float
        White noise, against `SENSOR_NOISE`.
    blinks : float
        Share of presentations with a blink.
    heartbeat : float
        Size of the heart's field, against a typical one.
    line : float
        Standard deviation of the hum of the mains, against the white noise of the sensor.
    line_frequency : float
        Hz.
    outliers : float
        Share of presentations and channels with a short burst that is a thousand times too large.
    bad_channels : float
        Share of presentations and channels that hold nothing but noise of a loose contact, ten
        times as large as all else.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """

    brain_noise: float = 6.3e-9
    exponent: float = 1.0
    sensor_noise: float = 1.0
    blinks: float = 0.1
    heartbeat: float = 1.0
    line: float = 0.0
    line_frequency: float = 50.0
    outliers: float = 0.0
    bad_channels: float = 0.0

    def __post_init__(self) -> None:
        sizes = ("brain_noise", "exponent", "sensor_noise", "heartbeat", "line", "line_frequency")
        for name in sizes:
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}", mend="use a number >= 0")
        for name in ("blinks", "outliers", "bad_channels"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}", mend="use a share between 0 and 1"
                )
        if self.brain_noise == 0 and self.sensor_noise == 0:
            raise ConfigError(
                "a recording needs noise: its strength is what signals are set against",
                mend="use brain_noise or sensor_noise > 0",
            )


def noise_covariance(sensors: Sensors, disturbances: Disturbances) -> tuple[np.ndarray, np.ndarray]:
    """Covariance of the brain noise over sensors, and variance of the white noise of each.

    Returns
    -------
    brain : ndarray, shape (n_sensors, n_sensors)
    white : ndarray, shape (n_sensors,)
    """
    rng = np.random.default_rng(300)
    away = rng.standard_normal((N_DIPOLES, 3))
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    # Cortex: most of it is in the outer half of the brain.
    depth = rng.uniform(0.5, 0.97, (N_DIPOLES, 1)) * BRAIN * RADIUS
    field = lead_field(sensors, np.asarray(CENTRE) + depth * away)
    field = field.reshape(len(sensors.names), -1) * disturbances.brain_noise
    white = np.asarray([SENSOR_NOISE[k] for k in sensors.kinds]) * disturbances.sensor_noise
    return field @ field.T, white**2


def make_noise(
    n: int,
    n_times: int,
    brain: np.ndarray,
    white: np.ndarray,
    *,
    sfreq: float,
    exponent: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw noise of given covariance at each time; brain noise has a 1/f spectrum.

    Parameters
    ----------
    n, n_times : int
        Segments and samples.
    brain, white : ndarray
        As from `noise_covariance`.
    sfreq, exponent : float
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of float32, shape (n, n_sensors, n_times)
    """
    values, vectors = np.linalg.eigh(brain)
    root = (vectors * np.sqrt(np.maximum(values, 0))).astype(np.float32)
    kept = values > 1e-12 * max(values.max(), 1e-300)
    out = np.empty((n, len(brain), n_times), dtype=np.float32)
    step = max(1, 2**23 // (len(brain) * n_times))
    for start in range(0, n, step):
        some = out[start : start + step]
        slow = coloured(
            (len(some), int(kept.sum()), n_times), sfreq=sfreq, exponent=exponent, rng=rng
        )
        np.matmul(root[:, kept], slow, out=some)
        sd = np.sqrt(white, dtype=np.float64).astype(np.float32)
        some += sd[:, None] * rng.standard_normal(some.shape, dtype=np.float32)
    return out


def coloured(
    shape: tuple[int, ...], *, sfreq: float, exponent: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw noise along the last axis with power 1/f^exponent and variance 1, float32.

    Below the lowest frequency that fits into twice the length, power is level.
    """
    length = 2 * shape[-1]  # longer than asked: the two ends need not meet
    frequency = scipy.fft.rfftfreq(length, 1 / sfreq)
    frequency[0] = frequency[1]
    gain = frequency ** (-exponent / 2)
    # Variance is the mean power over all frequencies, of which the inner ones count twice.
    weight = np.full(len(gain), 2.0)
    weight[[0, -1]] = 1.0
    gain /= np.sqrt((weight * gain**2).sum() / length)
    spectrum = scipy.fft.rfft(rng.standard_normal((*shape[:-1], length), dtype=np.float32))
    spectrum *= gain.astype(np.float32)
    return np.asarray(scipy.fft.irfft(spectrum, n=length)[..., : shape[-1]], dtype=np.float32)


def add_body(
    data: np.ndarray,
    sensors: Sensors,
    time: np.ndarray,
    disturbances: Disturbances,
    n_blinks: np.ndarray,
    rng: np.random.Generator,
) -> list[tuple[int, float]]:
    """Add blinks, heartbeats and the hum of the mains to a recording, in place.

    Parameters
    ----------
    data : ndarray, shape (n, n_sensors, n_times)
    sensors : Sensors
    time : ndarray, shape (n_times,)
        Seconds.
    disturbances : Disturbances
    n_blinks : ndarray of int, shape (n,)
        Blinks in each segment, at any time.
    rng : numpy.random.Generator

    Returns
    -------
    list of (int, float)
        Segment and time (s) of each blink.
    """
    segments = np.repeat(np.arange(len(data)), n_blinks)
    moments = rng.uniform(time[0], time[-1], len(segments))
    sizes = BLINK * rng.uniform(0.8, 1.4, len(segments))
    eyes = eye_field(sensors).astype(np.float32)
    for segment, moment, size in zip(segments, moments, sizes, strict=True):
        data[segment] += np.outer(eyes, np.float32(size) * _bump(time, moment, 0.07))
    beats = HEART * disturbances.heartbeat * heartbeats(len(data), time, rng)
    data += _spread_out(heart_field(sensors), beats)
    if disturbances.line:
        data += _hum(len(data), sensors, time, disturbances, rng)
    return list(zip(segments.tolist(), moments.tolist(), strict=True))


def add_faults(
    data: np.ndarray, disturbances: Disturbances, rng: np.random.Generator
) -> dict[str, list[int]]:
    """Add bursts and bad channels to a recording, in place.

    Parameters
    ----------
    data : ndarray, shape (n, n_sensors, n_times)
    disturbances : Disturbances
    rng : numpy.random.Generator

    Returns
    -------
    dict of str to list of int
        ``outliers`` and ``bad_channels``: flat indices into presentation x sensor.
    """
    n, n_sensors, n_times = data.shape
    spread = data.std(axis=(0, 2))
    flat = data.reshape(n * n_sensors, n_times)
    hit = np.flatnonzero(rng.random(len(flat)) < disturbances.outliers)
    width = max(1, n_times // 10)
    first = rng.integers(0, n_times - width + 1, len(hit))
    flat[hit[:, None], first[:, None] + np.arange(width)] *= 1000
    bad = np.flatnonzero(rng.random(len(flat)) < disturbances.bad_channels)
    loose = rng.standard_normal((len(bad), n_times), dtype=np.float32)
    flat[bad] = 10 * spread[bad % n_sensors, None] * loose
    return {"outliers": hit.tolist(), "bad_channels": bad.tolist()}


def heartbeats(n: int, time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Course of the heart's dipole in each of n segments: 1 at R peaks, then a T wave.

    A beat comes every 0.9 s, give or take 0.05 s, at another phase in each segment.
    """
    duration = time[-1] - time[0] + 1.8
    n_beats = int(np.ceil(duration / 0.75)) + 1
    gaps = np.clip(rng.normal(0.9, 0.05, (n, n_beats)), 0.75, 1.05)
    peaks = time[0] - 0.9 + rng.uniform(0, 0.9, (n, 1)) + np.cumsum(gaps, axis=1) - gaps[:, :1]
    course = np.zeros((n, len(time)), dtype=np.float32)
    for peak in peaks.T[..., None]:
        course += _bump(time, peak, 0.012) + 0.25 * _bump(time, peak + 0.28, 0.04)
    return course


def _hum(
    n: int, sensors: Sensors, time: np.ndarray, disturbances: Disturbances, rng: np.random.Generator
) -> np.ndarray:
    if 2 * disturbances.line_frequency * np.diff(time).max() >= 1:
        raise ConfigError(
            f"{disturbances.line_frequency:g} Hz cannot be told at {1 / np.diff(time).max():g} "
            "samples a second",
            where="option line",
            mend="use a higher sfreq, or line=0: the amplifier has filtered the hum out",
        )
    size = np.asarray([SENSOR_NOISE[k] for k in sensors.kinds]) * disturbances.line
    size = size * rng.uniform(0.5, 1.5, len(size)) * np.sqrt(2)
    phase = rng.uniform(0, 2 * np.pi, (n, 1))
    return _spread_out(size, np.sin(2 * np.pi * disturbances.line_frequency * time + phase))


def _bump(time: np.ndarray, centre: np.ndarray | float, width: float) -> np.ndarray:
    return np.asarray(np.exp(-((time - centre) ** 2) / (2 * width**2)), dtype=np.float32)


def _spread_out(field: np.ndarray, course: np.ndarray) -> np.ndarray:
    """Field x course of each segment, float32."""
    return np.asarray(
        field[:, None].astype(np.float32) * course[:, None].astype(np.float32), dtype=np.float32
    )
