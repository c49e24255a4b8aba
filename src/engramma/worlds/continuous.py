"""Continuous EEG or MEG that follows a sequence of features, such as speech that is heard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from engramma.data.recording import Cohort, Recording
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError, DataError
from engramma.registry import world
from engramma.worlds.area_courses import standard
from engramma.worlds.artefacts import (
    Disturbances,
    add_body,
    add_faults,
    make_noise,
    noise_covariance,
)
from engramma.worlds.forward import lead_field
from engramma.worlds.sensors import CENTRE, RADIUS, Sensors, make_sensors
from engramma.worlds.viewers import SHIFT, TURN, flat_options

#: Auditory cortex, left and right, and language areas of the left, in a head of radius 1.
PLACES: Mapping[str, tuple[float, float, float]] = {
    "left auditory": (-0.6, -0.1, 0.05),
    "right auditory": (0.6, -0.1, 0.05),
    "left temporal": (-0.62, -0.3, 0.0),
    "left frontal": (-0.5, 0.45, 0.1),
}


@dataclass(frozen=True, eq=False)
class Continuous:
    """A feature sequence and what brains that follow it do.

    Parameters
    ----------
    cohort : Cohort
        A presentation is a segment; segments of a subject, in the order of ``onset`` (s), join
        without a gap. presentation x unit x time in V, T or T/m.
    features : ndarray of float32, shape (n_segments, n_features, n_times)
        What is heard, in the order of ``cohort.stimuli``.
    events : DataFrame
        One row a word: ``onset`` (s from the start of the sequence), ``segment`` (stimulus id).
    lag : float
        Seconds from feature to response.
    """

    cohort: Cohort
    features: np.ndarray
    events: pd.DataFrame
    lag: float


@world("continuous")
def continuous(
    seed: int = 0,
    *,
    features: np.ndarray | None = None,
    n_features: int = 12,
    n_segments: int = 60,
    duration: float = 3.0,
    sfreq: float = 20.0,
    lag: float = 0.15,
    smoothing: float = 0.05,
    montage: str = "cap32",
    n_subjects: int = 2,
    n_sources: int = 12,
    idiosyncrasy: float = 0.5,
    snr: float = 0.5,
    signal: bool = True,
    **options: Any,
) -> Continuous:
    """Record virtual subjects who listen to the same sequence.

    Parameters
    ----------
    seed : int
    features : ndarray, shape (n_features, n_times), optional
        What is heard, at ``sfreq``, such as an envelope, word onsets or embeddings of speech; cut
        into segments of ``duration``. By default words come three times a second: an envelope,
        word onsets, and further smooth features.
    n_features, n_segments : int
        Where no features are given.
    duration : float
        Seconds a segment.
    sfreq : float
        Samples a second.
    lag, smoothing : float
        Sources follow the features this much later (s), smoothed by a Gaussian of this standard
        deviation (s), which is cut off at the time of the feature: responses come after causes.
    montage : str
        A cap or a helmet; see `engramma.worlds.sensors.make_sensors`.
    n_subjects, n_sources : int
    idiosyncrasy : float
        Share of the variance in what sources follow that differs between subjects.
    snr : float
        Standard deviation of the response at the sensor that sees most, against the noise.
    signal : bool
        False: nothing follows the features.
    **options
        Further fields of `engramma.worlds.artefacts.Disturbances`; shares are of segments.

    Returns
    -------
    Continuous
        ``true_ceiling`` of units is the share of variance that follows the features.

    Raises
    ------
    ConfigError, DataError
        If an option is unknown or out of range, or the features do not fit.
    """
    n_times = round(duration * sfreq)
    sizes = (n_times, n_segments, n_features, n_subjects, n_sources)
    if min(sizes) < 1 or min(lag, snr) < 0 or smoothing < 0 or not 0 <= idiosyncrasy <= 1:
        raise ConfigError(
            "a continuous recording cannot be made with these numbers",
            mend="use counts >= 1, duration >= 1 / sfreq, lag, smoothing and snr >= 0, "
            "0 <= idiosyncrasy <= 1",
        )
    (disturbances,) = flat_options("continuous", options, Disturbances)
    streams = np.random.SeedSequence(seed).spawn(n_subjects + 2)
    onsets = np.zeros(0)
    if features is None:
        of_words = np.random.default_rng(streams[0])
        features, onsets = _speech(n_features, n_segments * n_times, sfreq, of_words)
    features = _checked(features, n_times)
    n_segments = features.shape[1] // n_times
    heard = standard(features.T)
    kernel = _kernel(lag, smoothing, sfreq)
    delayed = np.stack([np.convolve(f, kernel)[: len(heard)] for f in heard.T], axis=1)
    ids = [f"segment{i:04d}" for i in range(n_segments)]
    stimuli = StimulusSet(pd.DataFrame({"onset": np.arange(n_segments) * duration}, index=ids))
    tuning = np.random.default_rng(streams[1]).standard_normal((heard.shape[1], n_sources))
    members = {}
    for i, stream in enumerate(streams[2:], start=1):
        rng = np.random.default_rng(stream)
        own = rng.standard_normal(tuning.shape)
        weights = np.sqrt(1 - idiosyncrasy) * tuning + np.sqrt(idiosyncrasy) * own
        sensors = make_sensors(montage).posed(
            TURN * rng.standard_normal(3), SHIFT * rng.standard_normal(3)
        )
        sources = standard(delayed @ weights).astype(np.float32).T
        members[f"sub-{i:02d}"] = _record(
            f"sub-{i:02d}",
            sensors,
            sources,
            stimuli,
            n_times,
            sfreq,
            snr,
            signal,
            disturbances,
            rng,
        )
    position = np.minimum(onsets // duration, n_segments - 1).astype(int)
    events = pd.DataFrame({"onset": onsets, "segment": np.asarray(ids, dtype=object)[position]})
    cut = heard.T.reshape(heard.shape[1], n_segments, n_times).swapaxes(0, 1)
    facts = {"world": "continuous", "seed": seed, "modality": make_sensors(montage).modality}
    return Continuous(Cohort(members, facts), cut.astype(np.float32), events, lag)


def _record(
    subject: str,
    sensors: Sensors,
    sources: np.ndarray,
    stimuli: StimulusSet,
    n_times: int,
    sfreq: float,
    snr: float,
    signal: bool,
    disturbances: Disturbances,
    rng: np.random.Generator,
) -> Recording:
    """One subject: sources to sensors, noise without a seam, artefacts, segments."""
    n_sources, total = sources.shape
    areas = [list(PLACES)[i % len(PLACES)] for i in range(n_sources)]
    places = np.asarray([PLACES[a] for a in areas]) + 0.05 * rng.standard_normal((n_sources, 3))
    directions = rng.standard_normal((n_sources, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    field = lead_field(sensors, np.asarray(CENTRE) + RADIUS * places)
    field = np.einsum("kpx,px->kp", field, directions)
    brain, white = noise_covariance(sensors, disturbances)
    noise_variance = np.diag(brain) + white
    covariance = np.cov(sources).reshape(n_sources, n_sources)
    field = field / np.sqrt((field**2 / noise_variance[:, None]).max(axis=0))
    variance = np.einsum("kp,kr,pr->k", field, field, covariance)
    field *= signal * snr / np.sqrt((variance / noise_variance).max())
    variance = np.einsum("kp,kr,pr->k", field, field, covariance)
    data = make_noise(1, total, brain, white, sfreq=sfreq, exponent=disturbances.exponent, rng=rng)
    data += field.astype(np.float32) @ sources
    n_blinks = rng.binomial(total // n_times, disturbances.blinks, size=1)
    blinks = add_body(data, sensors, np.arange(total) / sfreq, disturbances, n_blinks, rng)
    cut = np.ascontiguousarray(data[0].reshape(len(data[0]), -1, n_times).swapaxes(0, 1))
    found = add_faults(cut, disturbances, rng)
    return Recording.from_arrays(
        cut,
        np.asarray(stimuli.ids, dtype=object),
        subject=subject,
        unit=sensors.names,
        time=np.arange(n_times) / sfreq,
        unit_coords={
            "kind": sensors.kinds,
            "true_ceiling": variance / (variance + noise_variance),
            **dict(zip("xyz", sensors.positions.T, strict=True)),
        },
        presentation_coords={"onset": stimuli.table["onset"].to_numpy(float)},
        stimuli=stimuli,
        modality=sensors.modality,
        source="virtual subject",
        sfreq=sfreq,
        truth={"areas": areas, "signal": signal, "blinks": [t for _, t in blinks], **found},
    )


def _kernel(lag: float, smoothing: float, sfreq: float) -> np.ndarray:
    """Impulse response of a source: a Gaussian around the lag, never before the cause."""
    reach = lag + 4 * smoothing
    after = np.arange(round(reach * sfreq) + 1)
    away = after - round(lag * sfreq)
    kernel = np.exp(-(away**2) / (2 * max(smoothing * sfreq, 1e-3) ** 2))
    return np.asarray(kernel / kernel.sum())


def _speech(
    n_features: int, n_times: int, sfreq: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Envelope, word onsets and further smooth features; and the times (s) of the onsets."""
    gaps = rng.gamma(8, 1 / 24, size=int(4 * n_times / sfreq) + 10)
    onsets = np.cumsum(gaps)
    onsets = onsets[onsets < n_times / sfreq]
    impulses = np.zeros(n_times)
    loudness = rng.uniform(0.5, 1.5, len(onsets))
    np.add.at(impulses, (onsets * sfreq).astype(int), loudness)
    decay = np.exp(-np.arange(round(0.3 * sfreq)) / (0.1 * sfreq))
    further = rng.standard_normal((max(0, n_features - 2), n_times))
    window = np.hanning(max(3, round(0.3 * sfreq)) + 2)
    rows = [np.convolve(impulses, decay)[:n_times], impulses]
    rows += [np.convolve(f, window, mode="same") for f in further]
    return np.stack(rows[:n_features]), onsets


def _checked(features: np.ndarray, n_times: int) -> np.ndarray:
    features = np.asarray(features, dtype=float)
    fits = features.ndim == 2 and features.shape[1] >= n_times and np.isfinite(features).all()
    if not fits:
        raise DataError(
            f"features of shape {features.shape} cannot be cut into segments of {n_times} samples",
            where="option features",
            mend="give finite numbers, features x times, at sfreq, and at least one segment long",
        )
    return features[:, : features.shape[1] // n_times * n_times]
