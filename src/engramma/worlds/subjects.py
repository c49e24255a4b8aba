"""Recordings of virtual subjects: what their brains make of stimuli, and noise.

Each unit has a noise-free response to each stimulus (`engramma.worlds.tuning`), and noise set so
that a known share of the variance of its single presentations is signal: its ceiling.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pandas as pd

from engramma.data.recording import Recording
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError
from engramma.worlds.brains import Brain, draw_brain
from engramma.worlds.fluctuations import NoiseOptions, fluctuations
from engramma.worlds.haemodynamics import time_courses
from engramma.worlds.nuisances import confounded
from engramma.worlds.schedules import Schedule, make_schedule
from engramma.worlds.subject_options import SubjectOptions
from engramma.worlds.tuning import SharedCode, shared_code

__all__ = ["SubjectOptions", "make_subject"]

#: What all stimuli evoke in a time course, in standard deviations of what tells them apart.
COMMON = 1.5
#: Name of what is shown between stimuli.
BLANK = "blank"


def make_subject(
    stimuli: StimulusSet,
    name: str,
    options: SubjectOptions,
    rng: np.random.Generator,
    *,
    n_shared: int | None = None,
    code: SharedCode | None = None,
    target: np.ndarray | None = None,
) -> Recording:
    """Show ``stimuli`` to a new virtual subject.

    Parameters
    ----------
    stimuli : StimulusSet
        With images in memory and the columns of `engramma.worlds.scenes.Scenes`.
    name : str
    options : SubjectOptions
    rng : numpy.random.Generator
        Anatomy, tuning, order of presentation and noise follow it. What anatomy and tuning are
        does not depend on options of noise and schedule.
    n_shared : int, optional
        The first so many stimuli are shown ``n_repeats`` times, the others ``own_repeats`` times;
        by default all are shared.
    code : SharedCode, optional
        Of the stimuli, where it is known already.
    target : ndarray, shape (n_stimuli, n_dimensions), optional
        What is to be decoded; see ``invisible`` of `SubjectOptions`.

    Returns
    -------
    Recording
        presentation x unit. Presentations carry ``task`` (perception or imagery), ``split``
        (train or test: held-out runs) and ``nuisance`` where there is a confound. Units carry
        ``roi``, ``network``, ``hemisphere``, ``x, y, z`` (mm), ``vertex`` or ``i, j, k``,
        ``true_ceiling`` (share of single-presentation variance that is signal), ``gain``,
        ``preferred`` (superordinate class, else empty), ``concepts`` (planted ones, joined by
        ``+``), and of units with receptive fields ``orientation``, ``hue``, ``frequency``,
        ``rf_x``, ``rf_y``, ``rf_size`` and ``rf_reach`` (`engramma.worlds.retinotopy`), else NaN.
        With ``time="hrf"`` presentations are volumes, ``stimulus`` is what is on the screen, and
        ``attrs["events"]`` lists the events of each run.

    Raises
    ------
    DataError
        If the stimuli have no images or lack a column.
    ConfigError
        If options do not fit the stimuli.
    """
    brain_rng, unit_rng, order_rng, noise_rng, nuisance_rng = rng.spawn(5)
    if code is None:
        code = shared_code(stimuli, options.brain, normalisation=options.normalisation)
    brain = draw_brain(name, options, rng=brain_rng)
    clean, hidden = brain.noise_free(code, target)
    gain = np.exp(options.gain * unit_rng.standard_normal(clean.shape[1]))
    ceiling = _ceilings(np.any(clean, axis=0), brain.of_units("strength"), options, unit_rng)
    repeats = np.full(len(stimuli), options.own_repeats)
    repeats[:n_shared] = options.n_repeats
    schedule = make_schedule(
        repeats,
        n_sessions=options.sessions,
        runs_per_session=options.runs_per_session,
        n_imagined=options.n_imagined,
        rng=order_rng,
    )
    held_out = schedule.run > schedule.run[-1] - round(options.held_out_runs * schedule.run[-1])
    nuisance = _nuisance(stimuli, schedule, held_out, options, nuisance_rng)
    # Sizes of responses differ between sessions; what that adds is taken from the noise.
    wobble = np.minimum(options.gain_drift, np.sqrt((1 - ceiling) / np.maximum(2 * ceiling, 1e-9)))
    if options.sessions == 1:
        wobble = np.zeros_like(wobble)
    size = 1 + wobble * noise_rng.standard_normal((options.sessions, len(ceiling)))
    size = size[schedule.session - 1] * np.sqrt(ceiling)
    size[schedule.imagined] *= np.sqrt(options.imagery)
    signal = (size * clean[schedule.stimulus]).astype(np.float32)
    shares = (ceiling, ceiling * wobble**2)
    if options.time == "hrf":
        values, coords, facts = _volumes(brain, schedule, signal, shares, stimuli.ids, noise_rng)
        stimuli = _with_blank(stimuli)
    else:
        values, coords = _trials(brain, schedule, signal, shares, nuisance, noise_rng)
        coords["stimulus"] = np.asarray(stimuli.ids, dtype=object)[schedule.stimulus]
        facts = {}
    coords["split"] = np.where(np.isin(coords["run"], schedule.run[held_out]), "test", "train")
    if brain.sites.affine is not None:
        facts |= {"affine": brain.sites.affine, "volume_shape": list(brain.sites.shape or ())}
    return Recording.from_arrays(
        (values * gain).astype(np.float32),
        coords.pop("stimulus"),
        subject=name,
        session=coords.pop("session"),
        run=coords.pop("run"),
        unit_coords={**brain.unit_coords(), "true_ceiling": ceiling, "gain": gain},
        presentation_coords=coords,
        stimuli=stimuli,
        modality="simulated",
        source="virtual subject",
        position_unit="mm",
        truth=_truth(brain, ceiling, hidden),
        **facts,
    )


def _trials(
    brain: Brain,
    schedule: Schedule,
    signal: np.ndarray,
    shares: tuple[np.ndarray, np.ndarray],
    nuisance: np.ndarray | None,
    rng: np.random.Generator,
) -> tuple[np.ndarray, dict[str, Any]]:
    """One response a presentation; ``shares`` are those of signal and of its changes in size."""
    noise = fluctuations(schedule.run, schedule.session, brain.position, brain.options, rng=rng)
    coords = {"run": schedule.run, "session": schedule.session, "task": _tasks(schedule)}
    if nuisance is not None:
        share = brain.options.confound
        sign = rng.choice([-1.0, 1.0], noise.shape[1])
        noise = np.sqrt(1 - share) * noise + np.sqrt(share) * np.outer(nuisance, sign)
        coords["nuisance"] = nuisance
    return signal + np.sqrt(1 - sum(shares)) * noise, coords


def _volumes(
    brain: Brain,
    schedule: Schedule,
    signal: np.ndarray,
    shares: tuple[np.ndarray, np.ndarray],
    ids: list[str],
    rng: np.random.Generator,
) -> tuple[np.ndarray, dict[str, Any], dict[str, Any]]:
    """Continuous runs, one row a volume, and the events of each run."""
    amplitude = signal + COMMON * np.sqrt(shares[0])
    courses = time_courses(schedule, amplitude, shares, brain.position, brain.options, rng=rng)
    names, tasks = np.asarray([*ids, BLANK], dtype=object), np.asarray([*_tasks(schedule), "rest"])
    trial = courses.trial
    coords = {
        "stimulus": names[np.where(trial < 0, len(ids), schedule.stimulus[trial])],
        "run": courses.run,
        "session": courses.session,
        "task": tasks[trial],  # -1, the last, is rest
        "seconds": courses.seconds,
    }
    events = [
        {
            "run": str(run),
            "onset": table["onset"].tolist(),
            "duration": table["duration"].tolist(),
            "stimulus": names[schedule.stimulus[schedule.run == run]].tolist(),
            "task": tasks[:-1][schedule.run == run].tolist(),
        }
        for run, table in courses.events.items()
    ]
    return courses.values, coords, {"tr": brain.options.tr, "events": events}


def _tasks(schedule: Schedule) -> np.ndarray:
    return np.where(schedule.imagined, "imagery", "perception")


def _ceilings(
    informative: np.ndarray, strength: np.ndarray, options: SubjectOptions, rng: np.random.Generator
) -> np.ndarray:
    """Share of signal of each unit: Beta distributed, ``options.ceiling`` on average."""
    mean = np.where(informative, options.ceiling * strength, 0.0)
    if not mean.any():
        return np.zeros(len(mean))
    mean = np.minimum(mean * options.ceiling / mean[informative].mean(), 0.99)
    variance = np.minimum((options.spread * strength) ** 2, 0.25 * mean * (1 - mean))
    certain = (mean == 0) | (variance < 1e-12)
    size = mean * (1 - mean) / np.where(certain, 1.0, variance) - 1
    size = np.where(certain, 1.0, size)
    drawn = rng.beta(np.where(certain, 1, mean * size), np.where(certain, 1, (1 - mean) * size))
    return np.where(certain, mean, drawn)


def _nuisance(
    stimuli: StimulusSet,
    schedule: Schedule,
    held_out: np.ndarray,
    options: SubjectOptions,
    rng: np.random.Generator,
) -> np.ndarray | None:
    if not options.confound:
        return None
    if not held_out.any() or held_out.all():
        raise ConfigError(
            "a planted confound needs runs for training and held-out ones",
            where=f"{schedule.run[-1]} runs, of which {options.held_out_runs:.0%} are held out",
            mend="use more runs, or another held_out_runs",
        )
    labels = stimuli.table["superordinate"].to_numpy().astype(str)[schedule.stimulus]
    return confounded(labels, ~held_out, options.confound_correlation, rng=rng)


def _with_blank(stimuli: StimulusSet) -> StimulusSet:
    """Add what is shown between stimuli: a grey screen, about which the table says nothing."""
    assert stimuli.images is not None
    table = stimuli.table.reindex([*stimuli.ids, BLANK])
    for column in table.columns:
        if not pd.api.types.is_numeric_dtype(table[column]):
            table[column] = table[column].fillna("")
    grey = np.full((1, *stimuli.images.shape[1:]), 128, dtype=np.uint8)
    return replace(stimuli, table=table, images=np.concatenate([stimuli.images, grey]))


def _truth(brain: Brain, ceiling: np.ndarray, hidden: float) -> dict[str, Any]:
    o, name = brain.options, brain.of_units("name")
    areas = {
        a.name: {"kind": a.kind, "network": a.network, "units": int((name == a.name).sum())}
        for a in o.brain
    }
    return {
        "ceiling": float(ceiling.mean()),
        "areas": areas,
        "informative": [a for a in areas if ceiling[name == a].any()],
        "signal": o.signal,
        "invisible": hidden,
        "noise": {f.name: getattr(o, f.name) for f in fields(NoiseOptions)},
    }
