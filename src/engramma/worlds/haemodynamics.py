"""Haemodynamic time courses: continuous fMRI runs, and single trials estimated from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.linalg import toeplitz
from scipy.stats import gamma

from engramma.data.recording import Recording
from engramma.data.responses import ResponseSettings, estimate_responses, lss_patterns
from engramma.errors import ConfigError, DataError
from engramma.worlds.fluctuations import fluctuations
from engramma.worlds.schedules import Schedule

if TYPE_CHECKING:
    from engramma.worlds.subject_options import SubjectOptions

#: Estimates that the noise of time courses is set for: least squares separate.
SINGLE_TRIALS = ResponseSettings(estimate="lss", high_pass=1 / 128, zscore=False)
#: Seconds before the first and after the last event, and between points of the regressors.
LEAD_IN, LEAD_OUT, STEP = 6.0, 14.0, 0.1


@dataclass(frozen=True)
class ScanOptions:
    """How stimuli are shown in a scanner.

    Parameters
    ----------
    tr : float
        Seconds from one volume to the next.
    duration : float
        Seconds a stimulus is shown.
    interval : float
        Seconds from onset to onset, on average.
    jitter : float
        Most that an interval is longer or shorter.
    """

    tr: float = 1.6
    duration: float = 3.0
    interval: float = 6.0
    jitter: float = 1.5

    def __post_init__(self) -> None:
        if min(self.tr, self.duration) <= 0 or not 0 <= self.jitter <= self.interval - 0.5:
            raise ConfigError(
                f"stimuli cannot be shown for {self.duration:g} s every {self.interval:g} s, "
                f"give or take {self.jitter:g} s, with a TR of {self.tr:g} s",
                mend="use tr > 0, duration > 0 and 0 <= jitter <= interval - 0.5",
            )


def double_gamma(time: np.ndarray) -> np.ndarray:
    """Haemodynamic response to a short event, with its peak at about 5 s and an undershoot.

    The difference of gamma densities of shapes 6 and 16, the second weighed by 1/6 (Friston et
    al., *NeuroImage* 7, 1998; the values of SPM), scaled to a sum of 1 over ``time``.
    """
    response = gamma.pdf(time, 6) - gamma.pdf(time, 16) / 6
    return np.asarray(response / response.sum())


def run_events(n: int, options: ScanOptions, *, rng: np.random.Generator) -> pd.DataFrame:
    """Onsets and durations (s) of ``n`` events of a run."""
    gaps = options.interval + options.jitter * rng.uniform(-1, 1, n)
    onset = LEAD_IN + np.r_[0, np.cumsum(gaps[:-1])]
    return pd.DataFrame({"onset": onset.round(3), "duration": options.duration})


def n_volumes(events: pd.DataFrame, options: ScanOptions) -> int:
    """Volumes of a run that holds the responses to all events."""
    return int(np.ceil((events["onset"].iloc[-1] + options.duration + LEAD_OUT) / options.tr))


def regressors(events: pd.DataFrame, n: int, options: ScanOptions) -> np.ndarray:
    """Response to each event at each volume, n x event: boxcars convolved with `double_gamma`."""
    fine = np.arange(0, n * options.tr, STEP)
    start = events["onset"].to_numpy()[:, None]
    boxes = (fine >= start) & (fine < start + options.duration)
    response = double_gamma(np.arange(0, 32, STEP))
    length = len(fine) + len(response)
    smooth = np.fft.irfft(np.fft.rfft(boxes, length) * np.fft.rfft(response, length), length)
    at = np.minimum(np.round(np.arange(n) * options.tr / STEP).astype(int), len(fine) - 1)
    return np.asarray(smooth[:, at].T)


@dataclass(frozen=True)
class Estimability:
    """What single-trial estimates hold of the true responses, averaged over events.

    Parameters
    ----------
    gain : float
        Of an event's own response; below 1 if neighbours take some of it.
    leakage : float
        Variance that the responses to other events add, if these are independent and have unit
        variance.
    noise : float
        Variance of estimates for noise of unit variance.
    """

    gain: float
    leakage: float
    noise: float

    def noise_variance(self, ceiling: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Variance of the noise of time courses that gives estimates their ceiling.

        Parameters
        ----------
        ceiling : ndarray
            Share of signal wanted in single-trial estimates, of responses with this variance.
        other : ndarray
            Share that other noise takes already.
        """
        wanted = self.gain**2 * (1 - ceiling - other) - self.leakage * ceiling
        return np.maximum(wanted, 0) / self.noise


def estimability(
    events: list[pd.DataFrame], options: ScanOptions, temporal: float, share: float
) -> Estimability:
    """Work out how well single trials of these runs can be estimated.

    Estimates are linear in time courses, so applying the estimator to the unit matrix gives its
    weights, and these the gain and the variance for noise of any temporal covariance.

    Parameters
    ----------
    events : list of DataFrame
        Of each run.
    options : ScanOptions
    temporal : float
        AR(1) coefficient of the noise from volume to volume.
    share : float
        Of the noise variance that is not drift, which the estimator takes out.
    """
    totals = np.zeros(3)
    for one in events:
        n = n_volumes(one, options)
        weights, _ = lss_patterns(np.eye(n), one, options.tr, SINGLE_TRIALS)
        mixing = weights @ regressors(one, n, options)
        covariance = share * toeplitz(temporal ** np.arange(n))
        own = np.diag(mixing)
        noise = np.einsum("ij,jk,ik->i", weights, covariance, weights, optimize=True)
        totals += own.mean(), ((mixing**2).sum(axis=1) - own**2).mean(), noise.mean()
    gain, leakage, noise = totals / len(events)
    return Estimability(float(gain), float(leakage), float(noise))


@dataclass(frozen=True, eq=False)
class TimeCourses:
    """Continuous runs.

    Parameters
    ----------
    values : ndarray, shape (n_volumes, n_units)
        All runs, one after the other.
    run, session : ndarray of int, shape (n_volumes,)
    seconds : ndarray, shape (n_volumes,)
        From the start of the run.
    trial : ndarray of int, shape (n_volumes,)
        Row of the schedule that is on the screen; -1 for none.
    events : dict of int to DataFrame
        ``onset`` and ``duration`` of the trials of each run.
    """

    values: np.ndarray
    run: np.ndarray
    session: np.ndarray
    seconds: np.ndarray
    trial: np.ndarray
    events: dict[int, pd.DataFrame]


def time_courses(
    schedule: Schedule,
    amplitude: np.ndarray,
    shares: tuple[np.ndarray, np.ndarray],
    position: np.ndarray,
    options: SubjectOptions,
    *,
    rng: np.random.Generator,
) -> TimeCourses:
    """Turn responses to trials into time courses with noise.

    Parameters
    ----------
    schedule : Schedule
    amplitude : ndarray, shape (n_trials, n_units)
        Response to each trial.
    shares : (ndarray, ndarray), each of shape (n_units,)
        Share of signal that single-trial estimates are to have, and that of changes in its size.
    position : ndarray, shape (n_units, 3)
        Millimetres.
    options : SubjectOptions
    rng : numpy.random.Generator
    """
    o, runs = options, np.unique(schedule.run)
    events = {int(r): run_events(int((schedule.run == r).sum()), o, rng=rng) for r in runs}
    lengths = [n_volumes(table, o) for table in events.values()]
    run = np.repeat(runs, lengths)
    session = np.repeat([schedule.session[schedule.run == r][0] for r in runs], lengths)
    values = fluctuations(run, session, position, o, rng=rng)
    steady = 1 - o.drift - (o.session_drift if len(np.unique(session)) > 1 else 0)
    quality = estimability(list(events.values()), o, o.temporal, steady)
    values *= np.sqrt(quality.noise_variance(*shares)).astype(np.float32)
    trial = np.full(len(run), -1)
    for r, table in events.items():
        volumes, trials = np.flatnonzero(run == r), np.flatnonzero(schedule.run == r)
        values[volumes] += regressors(table, len(volumes), o) @ amplitude[trials]
        time, onset = (np.arange(len(volumes)) * o.tr)[:, None], table["onset"].to_numpy()
        on, event = np.nonzero((time >= onset) & (time < onset + o.duration))
        trial[volumes[on]] = trials[event]
    seconds = np.concatenate([np.arange(n) * o.tr for n in lengths])
    return TimeCourses(values, run, session, seconds, trial, events)


def single_trials(recording: Recording, settings: ResponseSettings = SINGLE_TRIALS) -> Recording:
    """Estimate one response a trial from the runs of a recording of volumes.

    Parameters
    ----------
    recording : Recording
        As the world ``cohort`` makes it with ``time="hrf"``: one presentation a volume, with the
        events of each run in ``attrs["events"]``.
    settings : ResponseSettings
        How; see `engramma.data.responses.estimate_responses`.

    Returns
    -------
    Recording
        One presentation a trial (or block, or condition), with the units of ``recording``.

    Raises
    ------
    DataError
        If the recording is not one of volumes with events.
    """
    if "events" not in recording.attrs or "tr" not in recording.attrs:
        raise DataError(
            "the recording has no events and no TR, so it holds no time courses",
            mend="make it with time='hrf'; one of single trials needs no estimation",
        )
    run, session = recording.coord("run"), recording.coord("session")
    patterns, tables = [], []
    for listed in recording.attrs["events"]:
        volumes = run == listed["run"]
        events = pd.DataFrame({k: listed[k] for k in ("onset", "duration", "stimulus", "task")})
        events["category"] = events["stimulus"]
        found, shown, _ = estimate_responses(
            recording.values[volumes],
            events,
            recording.attrs["tr"],
            settings,
            where=f"run {listed['run']}",
        )
        patterns.append(found)
        tables.append(shown.assign(run=listed["run"], session=session[volumes][0]))
    table = pd.concat(tables)
    coords = {
        str(name): coord.values
        for name, coord in recording.array.coords.items()
        if coord.dims == ("unit",) and name != "unit"
    }
    attrs = {k: v for k, v in recording.attrs.items() if k not in ("events", "tr")}
    attrs["history"] = [*attrs.get("history", []), *settings.history()]
    made = Recording.from_arrays(
        np.concatenate(patterns),
        table["stimulus"].to_numpy(),
        subject=recording.coord("subject")[0],
        session=table["session"].to_numpy(),
        run=table["run"].to_numpy(),
        unit=recording.array["unit"].values,
        unit_coords=coords,
        presentation_coords={"task": table["task"].to_numpy()},
        stimuli=recording.stimuli,
    )
    array = made.array.copy(deep=False)
    array.attrs = attrs
    return replace(made, array=array)
