"""Evoked EEG or MEG of one virtual subject, with areas, latencies and fields that are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from engramma.data.recording import Recording
from engramma.errors import ConfigError
from engramma.registry import world
from engramma.worlds.area_courses import SOURCES as SOURCES
from engramma.worlds.scenes import make_scenes
from engramma.worlds.viewers import view, viewing_of


@world("evoked")
def evoked(
    seed: int = 0,
    *,
    n_stimuli: int = 64,
    n_repeats: int = 6,
    montage: str = "cap32",
    sfreq: float = 100.0,
    start: float = -0.2,
    stop: float = 0.8,
    snr: float = 0.8,
    blinks: float = 0.1,
    signal: bool = True,
    size: int = 64,
    subject: str = "sub-01",
    drives: Mapping[str, np.ndarray] | None = None,
    **options: Any,
) -> Recording:
    """Record evoked responses of one virtual subject to rendered scenes.

    Parameters
    ----------
    seed : int
    n_stimuli : int
    n_repeats : int
        Presentations of each stimulus, one a run.
    montage : str
        A cap or a helmet; see `engramma.worlds.sensors.make_sensors`.
    sfreq : float
        Samples a second.
    start, stop : float
        Seconds from stimulus onset.
    snr : float
        Standard deviation over stimuli of what the areas add, at its peak over sensors and
        times, against that of the noise.
    blinks : float
        Share of presentations with a blink.
    signal : bool
        False leaves out everything that depends on the stimulus: the control.
    size : int
        Pixels a side of the scenes.
    subject : str
    drives : mapping of str to ndarray, shape (n_stimuli, n_features), optional
        By area, what it follows instead of the scenes.
    **options
        Further fields of `engramma.worlds.area_courses.Stages` (``jitter``, ``nonlinearity``,
        ``feedback``, ...) and of `engramma.worlds.artefacts.Disturbances`.

    Returns
    -------
    Recording
        presentation x unit x time; see `engramma.worlds.viewers.view`. Nothing depends on the
        stimulus before the first latency.

    Raises
    ------
    ConfigError
        If an option is unknown or a number out of range.
    """
    if n_stimuli < 2 or n_repeats < 1:
        raise ConfigError(
            f"{n_stimuli} stimuli shown {n_repeats} times make no evoked recording",
            mend="use n_stimuli >= 2 and n_repeats >= 1",
        )
    given = {"montage": montage, "sfreq": sfreq, "start": start, "stop": stop, "snr": snr}
    viewing = viewing_of("evoked", {**given, "blinks": blinks, "signal": signal, **options})
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(4)]
    of_scenes, of_subject, of_tuning, of_order = streams
    stimuli = make_scenes(n_stimuli, rng=of_scenes, size=size).stimuli
    return view(
        stimuli,
        np.concatenate([of_order.permutation(n_stimuli) for _ in range(n_repeats)]),
        viewing,
        rng=of_subject,
        shared=of_tuning,
        subject=subject,
        run=np.repeat(np.arange(1, n_repeats + 1), n_stimuli),
        drives=drives,
    )
