"""A virtual subject in the EEG cap or the MEG helmet: areas, forward model, noise, artefacts."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any

import numpy as np

from engramma.data.recording import Recording
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError
from engramma.registry import worlds
from engramma.worlds.area_courses import (
    Populations,
    Stages,
    activity,
    course_moments,
    make_populations,
)
from engramma.worlds.artefacts import (
    Disturbances,
    add_body,
    add_faults,
    make_noise,
    noise_covariance,
)
from engramma.worlds.forward import lead_field
from engramma.worlds.sensors import CENTRE, RADIUS, Sensors, make_sensors

#: How a head sits differently in each session: standard deviations in rad and in m.
TURN, SHIFT = 0.03, 0.003


@dataclass(frozen=True)
class Viewing:
    """How a virtual subject views, and is recorded.

    Parameters
    ----------
    montage : str
        See `engramma.worlds.sensors.make_sensors`.
    sfreq : float
        Samples a second.
    start, stop : float
        Seconds from stimulus onset.
    snr : float
        Standard deviation over stimuli of what the areas add, before jitter smears it, at its
        peak over sensors and times, against that of the noise of the sensor.
    signal : bool
        False leaves out everything that depends on the stimulus: the control.
    stages : Stages
    disturbances : Disturbances

    Raises
    ------
    ConfigError
        If a number is out of range.
    """

    montage: str = "cap32"
    sfreq: float = 100.0
    start: float = -0.2
    stop: float = 0.8
    snr: float = 0.8
    signal: bool = True
    stages: Stages = field(default_factory=Stages)
    disturbances: Disturbances = field(default_factory=Disturbances)

    def __post_init__(self) -> None:
        if self.sfreq <= 0 or not self.start < 0 < self.stop or self.snr < 0:
            raise ConfigError(
                "an evoked recording cannot be made with these numbers",
                mend="use sfreq > 0, start < 0 < stop and snr >= 0",
            )

    @property
    def time(self) -> np.ndarray:
        """Seconds from onset."""
        steps = np.arange(round(self.start * self.sfreq), round(self.stop * self.sfreq) + 1)
        return np.asarray(steps / self.sfreq)


def flat_options(world: str, options: Mapping[str, Any], *kinds: type) -> list[Any]:
    """Make settings of several kinds from options that bear the names of their fields.

    Raises
    ------
    ConfigError
        If no kind has an option of that name.
    """
    names = [{f.name for f in fields(kind)} for kind in kinds]
    known = sorted(set().union(*names) - {"stages", "disturbances"})
    for name in options:
        if name not in known:
            own = inspect.signature(worlds.get(world)).parameters
            close = difflib.get_close_matches(name, [*own, *known], n=2)
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            raise ConfigError(
                f"the world {world!r} has no option {name!r}",
                mend=f"{hint}further options are {', '.join(known)}",
            )
    return [
        kind(**{f.name: _typed(f, options[f.name]) for f in fields(kind) if f.name in options})
        for kind in kinds
    ]


def _typed(of: Field[Any], value: Any) -> Any:
    """Turn what a command line writes into the number or the truth value that a field takes."""
    if not isinstance(value, str) or str(of.type) == "str":
        return value
    try:
        return {"true": True, "false": False}[value.lower()] if of.type == "bool" else float(value)
    except (KeyError, ValueError) as error:
        wanted = "true or false" if of.type == "bool" else "a number"
        raise ConfigError(f"{of.name} is {value!r}", mend=f"use {wanted}") from error


def viewing_of(world: str, options: Mapping[str, Any]) -> Viewing:
    """Make `Viewing` from flat options: its fields, those of `Stages` and `Disturbances`."""
    stages, disturbances, viewing = flat_options(world, options, Stages, Disturbances, Viewing)
    return replace(viewing, stages=stages, disturbances=disturbances)


def view(
    stimuli: StimulusSet,
    shown: np.ndarray,
    viewing: Viewing,
    *,
    rng: np.random.Generator,
    shared: np.random.Generator,
    subject: str,
    run: np.ndarray,
    session: np.ndarray | None = None,
    drives: Mapping[str, np.ndarray] | None = None,
) -> Recording:
    """Record one new virtual subject.

    Parameters
    ----------
    stimuli : StimulusSet
    shown : ndarray of int, shape (n_presentations,)
        Row of the stimulus of each presentation.
    viewing : Viewing
    rng : numpy.random.Generator
        Anatomy, own mixing, jitter, noise and artefacts follow it.
    shared : numpy.random.Generator
        What subjects have in common; see `make_populations`.
    subject : str
    run, session : ndarray, shape (n_presentations,)
        With several sessions, the head sits a little differently in each.
    drives : mapping of str to ndarray, optional
        What areas follow; see `make_populations`.

    Returns
    -------
    Recording
        presentation x unit x time in V, T or T/m; units carry ``kind`` and ``x, y, z`` (m).
        ``true_ceiling`` (unit x time) is the share of the variance of a single presentation
        that is signal, where no artefact hits it. ``attrs["truth"]`` tells, by area, the
        latency, what it follows, and place (m) and moment (A m, of one standard deviation) of
        its populations, and the artefacts.
    """
    of_brain, of_jitter, of_noise, of_artefacts, of_pose = rng.spawn(5)
    time, stages = viewing.time, viewing.stages
    sensors = make_sensors(viewing.montage).posed(
        TURN * of_pose.standard_normal(3), _shift(of_pose)
    )
    populations = make_populations(stimuli, stages, rng=of_brain, shared=shared, drives=drives)
    brain, white = noise_covariance(sensors, viewing.disturbances)
    noise_variance = np.diag(brain) + white
    moments = viewing.snr * unit_moments(populations, sensors, time, noise_variance)
    if not viewing.signal:
        populations = populations.silenced()
    ceiling = true_ceiling(
        populations,
        np.unique(shown),
        population_field(populations, sensors) * moments,
        time,
        stages,
        noise_variance,
    )
    data = make_noise(
        len(shown),
        len(time),
        brain,
        white,
        sfreq=viewing.sfreq,
        exponent=viewing.disturbances.exponent,
        rng=of_noise,
    )
    sessions = np.full(len(shown), "1") if session is None else np.asarray(session)
    for number, one in enumerate(dict.fromkeys(sessions.tolist())):
        seat = sensors if number == 0 else sensors.posed(
            TURN * of_pose.standard_normal(3), _shift(of_pose)
        )  # fmt: skip
        field_of = (population_field(populations, seat) * moments).astype(np.float32)
        rows = np.flatnonzero(sessions == one)
        for some in np.array_split(rows, max(1, len(rows) // 256)):
            data[some] += field_of @ activity(populations, shown[some], time, stages, of_jitter)
    blinking = (of_artefacts.random(len(shown)) < viewing.disturbances.blinks).astype(int)
    add_body(data, sensors, time, viewing.disturbances, blinking, of_artefacts)
    found = add_faults(data, viewing.disturbances, of_artefacts)
    recording = Recording.from_arrays(
        data,
        np.asarray(stimuli.ids, dtype=object)[shown],
        subject=subject,
        session=sessions,
        run=run,
        unit=sensors.names,
        time=time,
        unit_coords={
            "kind": sensors.kinds,
            **dict(zip("xyz", sensors.positions.T, strict=True)),
        },
        stimuli=stimuli,
        modality=sensors.modality,
        source="virtual subject",
        sfreq=viewing.sfreq,
        truth={
            **_facts(populations, moments, stages),
            "blinks": np.flatnonzero(blinking).tolist(),
            **found,
            "signal": viewing.signal,
        },
    )
    array = recording.array.assign_coords(true_ceiling=(("unit", "time"), ceiling))
    return Recording(array, stimuli)


def population_field(populations: Populations, sensors: Sensors) -> np.ndarray:
    """Field of each population with a moment of 1 A m, sensor x population."""
    field_of = lead_field(sensors, np.asarray(CENTRE) + RADIUS * populations.places)
    return np.asarray(np.einsum("kpx,px->kp", field_of, populations.directions))


def unit_moments(
    populations: Populations, sensors: Sensors, time: np.ndarray, noise_variance: np.ndarray
) -> np.ndarray:
    """Moments (A m, one standard deviation) with which the peak signal-to-noise ratio is 1.

    Areas are equally strong, up to their gain, at the sensor that sees them best, however deep
    they lie. Ratios are those of standard deviations over stimuli, without jitter.
    """
    field_of = population_field(populations, sensors) / np.sqrt(noise_variance)[:, None]
    varies = populations.amplitude.std(axis=0) > 0
    moments = np.array(populations.gain, dtype=float)
    for name in populations.names:
        members = populations.area == name
        best = np.sqrt((field_of[:, members & varies] ** 2).sum(axis=1).max(initial=0.0))
        moments[members] *= 1 / best if best > 0 else 0.0
    courses, _ = course_moments(populations, time, Stages(areas={}))
    ratio = _variance(populations.amplitude, field_of * moments, courses).max()
    return np.asarray(moments / np.sqrt(ratio) if ratio > 0 else moments)


def true_ceiling(
    populations: Populations,
    rows: np.ndarray,
    field_of: np.ndarray,
    time: np.ndarray,
    stages: Stages,
    noise_variance: np.ndarray,
) -> np.ndarray:
    """Share of single-presentation variance that is signal, sensor x time, in closed form.

    The signal is the mean response to a stimulus; what jitter changes from trial to trial is
    noise, as are the brain and the sensors. Artefacts are not counted.

    Parameters
    ----------
    populations : Populations
    rows : ndarray of int
        Stimuli that are shown.
    field_of : ndarray, shape (n_sensors, n_populations)
        Field of each population, with its moment.
    time, stages
        As in `activity`.
    noise_variance : ndarray, shape (n_sensors,)
    """
    amplitude = populations.amplitude[rows].astype(float)
    mean, covariance = course_moments(populations, time, stages)
    signal = _variance(amplitude, field_of, mean)
    noise = np.repeat(noise_variance[:, None], len(time), axis=1)
    for name, jittered in covariance.items():
        members = populations.area == name
        squares = amplitude[:, members].T @ amplitude[:, members] / len(amplitude)
        pairs = np.einsum("kp,kr,pr->kpr", field_of[:, members], field_of[:, members], squares)
        noise += np.einsum("kpr,prt->kt", pairs, jittered)
    return np.asarray(signal / (signal + noise), dtype=np.float32)


def _variance(amplitude: np.ndarray, field_of: np.ndarray, courses: np.ndarray) -> np.ndarray:
    """Variance over stimuli of the mean response, sensor x time."""
    deviations = amplitude - amplitude.mean(axis=0)
    covariance = deviations.T.astype(float) @ deviations / max(1, len(amplitude) - 1)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))
    return np.asarray(sum((field_of @ (courses * part[:, None])) ** 2 for part in root.T))


def _shift(rng: np.random.Generator) -> np.ndarray:
    return np.asarray(SHIFT * rng.standard_normal(3))


def _facts(populations: Populations, moments: np.ndarray, stages: Stages) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "latency": {name: area.latency for name, area in stages.areas.items()},
        "follows": {name: area.follows for name, area in stages.areas.items()},
        "places": {},
        "moments": {},
    }
    for name in populations.names:
        members = populations.area == name
        places = np.asarray(CENTRE) + RADIUS * populations.places[members]
        facts["places"][name] = places.round(5).tolist()
        facts["moments"][name] = moments[members].tolist()
    return facts
