"""What areas of the cortex do over time when something is perceived.

An area holds populations of neurons. Each has an amplitude for each stimulus, which follows what
its area perceives, and a time course: exactly zero until the latency, then a pulse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError, DataError
from engramma.worlds.area_features import area_features

#: Seconds from the response of the sender until feedback arrives.
FEEDBACK_DELAY = 0.05
#: Shape of the gamma distribution of latencies: skewed, as latencies are.
_SHAPE = 2.0


@dataclass(frozen=True)
class Area:
    """An area: where it is, when it responds, and to what.

    Parameters
    ----------
    place, direction : tuple of float
        Of its dipoles, in a head of radius 1 (right, front, up).
    latency, rise : float
        The response is zero until ``latency`` (s) and has its peak ``rise`` seconds later.
    follows : str
        One of `engramma.worlds.area_features.FOLLOWS`; what it is given by ``drives`` goes before.
    populations : int
    spread : float
        Seconds over which the latencies of the populations are spread, from ``latency`` on.
    gain : float
        Strength at the sensors, against that of other areas.
    """

    place: tuple[float, float, float]
    direction: tuple[float, float, float]
    latency: float
    rise: float
    follows: str
    populations: int = 4
    spread: float = 0.02
    gain: float = 1.0


#: Areas that see and understand: low-level content from 60 to about 150 ms, then categories, and
#: meaning from 250 to 400 ms.
SOURCES: Mapping[str, Area] = {
    "V1": Area((0.05, -0.72, 0.15), (0.5, -0.6, 0.6), 0.06, 0.035, "pixels"),
    "LO": Area((0.5, -0.6, 0.0), (0.8, 0.2, 0.5), 0.09, 0.04, "orientation"),
    "right fusiform": Area((0.5, -0.45, -0.3), (0.4, 0.5, 0.7), 0.12, 0.05, "category"),
    "left fusiform": Area((-0.5, -0.45, -0.3), (-0.4, 0.5, 0.7), 0.13, 0.05, "category"),
    "anterior temporal": Area((-0.6, 0.15, -0.2), (-0.3, 0.6, 0.6), 0.25, 0.12, "meaning"),
}


@dataclass(frozen=True, eq=False)
class Populations:
    """Populations of one brain.

    Parameters
    ----------
    area : ndarray of str, shape (n,)
        Populations of an area share the jitter of a trial.
    amplitude : ndarray of float32, shape (n_stimuli, n)
        Mean 0 and standard deviation 1 over stimuli; that of a population which answers every
        stimulus alike is constant.
    latency, rise : ndarray, shape (n,)
        In seconds.
    places, directions : ndarray, shape (n, 3)
        In a head of radius 1.
    gain : ndarray, shape (n,)
    """

    area: np.ndarray
    amplitude: np.ndarray
    latency: np.ndarray
    rise: np.ndarray
    places: np.ndarray
    directions: np.ndarray
    gain: np.ndarray

    @property
    def names(self) -> list[str]:
        """The areas, in their order."""
        return list(dict.fromkeys(self.area.tolist()))

    def silenced(self) -> Populations:
        """Return populations that answer every stimulus alike."""
        return replace(self, amplitude=0 * self.amplitude + self.amplitude.mean(axis=0))


@dataclass(frozen=True)
class Stages:
    """How areas work, whatever they follow.

    Parameters
    ----------
    jitter : float or mapping of str to float
        Standard deviation (s) of the latency over trials, of all areas or by area. Delays are
        gamma-distributed and only ever late, so that nothing responds before its latency.
    nonlinearity : float
        0: amplitudes are linear in what the area follows. 1: they are rectified.
    feedback : float
        Size, against its own response, of a second response of the earliest area, which follows
        what the latest area does and comes 50 ms after it.
    common : float
        Amplitude of the population in each area that answers every stimulus alike, against the
        standard deviation of the others.
    idiosyncrasy : float
        Share of the variance in what populations follow that differs between subjects.
    anatomy : float
        Standard deviation of places between subjects, in a head of radius 1.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """

    jitter: float | Mapping[str, float] = 0.0
    nonlinearity: float = 0.0
    feedback: float = 0.0
    common: float = 3.0
    idiosyncrasy: float = 0.3
    anatomy: float = 0.04
    areas: Mapping[str, Area] = field(default_factory=lambda: SOURCES)

    def __post_init__(self) -> None:
        given = self.jitter.values() if isinstance(self.jitter, Mapping) else [self.jitter]
        sizes = (*given, self.feedback, self.common, self.anatomy)
        shares = (self.nonlinearity, self.idiosyncrasy)
        if min(sizes) < 0 or not all(0 <= s <= 1 for s in shares):
            raise ConfigError(
                "areas cannot work with these numbers",
                mend="use jitter, feedback, common and anatomy >= 0, and nonlinearity and "
                "idiosyncrasy between 0 and 1",
            )
        if isinstance(self.jitter, Mapping):
            check_areas("jitter", self.jitter, self.areas)

    def jitter_of(self, area: str) -> float:
        """Return the standard deviation (s) of the latency of one area over trials."""
        if isinstance(self.jitter, Mapping):
            return self.jitter.get(area, 0.0)
        return self.jitter


def check_areas(option: str, given: Mapping[str, object], areas: Mapping[str, Area]) -> None:
    """Raise `ConfigError` if a mapping names an area that is not there."""
    unknown = [name for name in given if name not in areas]
    if unknown:
        raise ConfigError(
            f"there is no area {unknown[0]!r}",
            where=f"option {option}",
            mend=f"areas are {', '.join(areas)}",
        )


def make_populations(
    stimuli: StimulusSet,
    stages: Stages,
    *,
    rng: np.random.Generator,
    shared: np.random.Generator,
    drives: Mapping[str, np.ndarray] | None = None,
) -> Populations:
    """Draw the populations of one subject.

    Parameters
    ----------
    stimuli : StimulusSet
    stages : Stages
    rng : numpy.random.Generator
        What is this subject's own: anatomy, and its part of the mixing.
    shared : numpy.random.Generator
        What subjects have in common; pass one with the same seed for each.
    drives : mapping of str to ndarray (n_stimuli, n_features), optional
        By area, what it follows instead.

    Raises
    ------
    ConfigError, DataError
        If a drive belongs to no area or does not fit the stimuli.
    """
    drives = dict(drives or {})
    check_areas("drives", drives, stages.areas)
    n, parts = len(stimuli), []
    mixed: dict[str, np.ndarray] = {}
    for name, area in stages.areas.items():
        features = _given(name, drives[name], n) if name in drives else area_features(
            stimuli, area.follows
        )  # fmt: skip
        width = (features.shape[1], area.populations)
        own = stages.idiosyncrasy
        weights = np.sqrt(1 - own) * shared.standard_normal(width)
        weights += np.sqrt(own) * rng.standard_normal(width)
        mixed[name] = _rectified(standard(features @ weights), stages.nonlinearity)
        parts.append(_place(name, area, mixed[name], rng, stages))
    if stages.feedback:
        first = min(stages.areas, key=lambda a: stages.areas[a].latency)
        last = max(stages.areas, key=lambda a: stages.areas[a].latency)
        sender, area = stages.areas[last], stages.areas[first]
        late = Area(
            area.place, area.direction, sender.latency + FEEDBACK_DELAY, sender.rise, "",
            area.populations, area.spread, area.gain * stages.feedback,
        )  # fmt: skip
        weights = shared.standard_normal((sender.populations, area.populations))
        amplitude = standard(mixed[last] @ weights)
        parts.append(_place(f"{first} (feedback)", late, amplitude, rng, stages))
    fields = {
        key: np.concatenate([p[key] for p in parts], axis=1 if key == "amplitude" else 0)
        for key in parts[0]
    }
    return Populations(**fields)


def standard(values: np.ndarray) -> np.ndarray:
    """Give each column mean 0 and standard deviation 1; constant ones become 0."""
    values = values - values.mean(axis=0)
    spread = values.std(axis=0)
    return np.asarray(values / np.where(spread > 1e-9, spread, 1.0) * (spread > 1e-9))


def pulses(time: np.ndarray, latency: np.ndarray, rise: np.ndarray) -> np.ndarray:
    """Gamma-like pulses: exactly 0 until the latency, 1 at the peak ``rise`` seconds later."""
    after = np.maximum(time - latency, 0) / rise
    return np.asarray(after**2 * np.exp(2 * (1 - after)), dtype=np.float32)


def activity(
    populations: Populations,
    shown: np.ndarray,
    time: np.ndarray,
    stages: Stages,
    rng: np.random.Generator,
) -> np.ndarray:
    """Activity of each population in each trial, trial x population x time, float32.

    Parameters
    ----------
    populations : Populations
    shown : ndarray of int, shape (n_trials,)
        Row of the stimulus of each trial.
    time : ndarray, shape (n_times,)
        Seconds from onset.
    stages : Stages
    rng : numpy.random.Generator
        Of the jitter.
    """
    delay = np.zeros((len(shown), len(populations.area)))
    for name in populations.names:
        late = delays(stages.jitter_of(name), rng.uniform(size=len(shown)))
        delay[:, populations.area == name] = late[:, None]
    if delay.any():
        start = populations.latency + delay
        course = pulses(time, start[..., None], populations.rise[:, None])
    else:
        course = pulses(time, populations.latency[:, None], populations.rise[:, None])
    return np.asarray(populations.amplitude[shown][..., None] * course)


def course_moments(
    populations: Populations, time: np.ndarray, stages: Stages, n: int = 200
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Mean course of each population over jitter, and its covariances within each area.

    Returns
    -------
    mean : ndarray, shape (n_populations, n_times)
    covariance : dict of str to ndarray, shape (area's populations, same, n_times)
        Empty for areas without jitter.
    """
    mean = np.zeros((len(populations.area), len(time)))
    covariance = {}
    for name in populations.names:
        members = populations.area == name
        latency, rise = populations.latency[members], populations.rise[members]
        jitter = stages.jitter_of(name)
        late = delays(jitter, (np.arange(n) + 0.5) / n) if jitter else np.zeros(1)
        course = pulses(time, (latency + late[:, None])[..., None], rise[:, None])
        mean[members] = course.mean(axis=0)
        if jitter:
            apart = course - course.mean(axis=0)
            covariance[name] = np.einsum("qpt,qrt->prt", apart, apart) / len(late)
    return mean, covariance


def delays(jitter: float, quantile: np.ndarray) -> np.ndarray:
    """Quantiles of the gamma-distributed delay (s) with standard deviation ``jitter``."""
    from scipy.special import gammaincinv

    return np.asarray(gammaincinv(_SHAPE, quantile) * jitter / np.sqrt(_SHAPE))


def _place(
    name: str,
    area: Area,
    amplitude: np.ndarray,
    rng: np.random.Generator,
    stages: Stages,
) -> dict[str, np.ndarray]:
    """Fields of the populations of an area; the last of them answers every stimulus alike."""
    n = area.populations + 1
    constant = np.full((len(amplitude), 1), stages.common)
    offset = area.spread * np.append(np.linspace(0, 1, area.populations), 0.0)
    centre = np.asarray(area.place) + stages.anatomy * rng.standard_normal(3)
    places = centre + 0.03 * rng.standard_normal((n, 3))
    # A deep or shallow draw stays within the brain.
    places *= np.minimum(1, 0.86 / np.linalg.norm(places, axis=1, keepdims=True))
    # Populations in one area lie side by side and, on a folded cortex, point different ways.
    directions = np.asarray(area.direction) + 0.5 * rng.standard_normal((n, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return {
        "area": np.full(n, name, dtype=object),
        "amplitude": np.hstack([amplitude, constant]).astype(np.float32),
        "latency": area.latency + offset,
        "rise": np.full(n, area.rise),
        "places": places,
        "directions": directions,
        "gain": np.full(n, area.gain),
    }


def _rectified(values: np.ndarray, share: float) -> np.ndarray:
    return standard((1 - share) * values + share * standard(np.maximum(values, 0)))


def _given(area: str, drive: np.ndarray, n: int) -> np.ndarray:
    drive = np.asarray(drive, dtype=float)
    if drive.ndim != 2 or len(drive) != n or not np.isfinite(drive).all():
        raise DataError(
            f"the drive of area {area!r} has shape {drive.shape} or holds NaN",
            where="option drives",
            mend=f"give finite numbers, {n} stimuli x features",
        )
    return drive - drive.mean(axis=0)
