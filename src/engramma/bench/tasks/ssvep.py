"""Naming the flickering target that a simulated subject looks at."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from engramma.contracts import Task
from engramma.data.recording import Recording
from engramma.registry import add_task
from engramma.worlds.ssvep import simulate_ssvep

N_TARGETS = 12
N_BLOCKS = 4


@dataclass(frozen=True, eq=False)
class Blocks:
    """Trials of all subjects in one recording, and which of them to train and test on.

    Parameters
    ----------
    recording : Recording
    splits : list of (train, test)
        One block of every subject left out in each.
    """

    recording: Recording
    splits: list[tuple[np.ndarray, np.ndarray]]


def prepare(seed: int) -> Blocks:
    """Simulate four subjects who look at each target once a block."""
    cohort = simulate_ssvep(seed, n_targets=N_TARGETS, n_blocks=N_BLOCKS)
    array = xr.concat([r.array for r in cohort.values()], dim="presentation", combine_attrs="drop")
    array.attrs = {"modality": "simulated", "sfreq": next(iter(cohort.values())).attrs["sfreq"]}
    recording = Recording(array, cohort.stimuli)
    run = recording.coord("run")
    # All subjects' blocks of one number are left out together, as the published protocol has it.
    splits = [(np.flatnonzero(run != r), np.flatnonzero(run == r)) for r in np.unique(run)]
    return Blocks(recording, splits)


def score(system: Any, data: Blocks) -> float:
    """Fraction correct over all left-out blocks, for any decoder that classifies."""
    correct = []
    for train, test in data.splits:
        decoder = copy.deepcopy(system).fit(data.recording.select(train), data.recording.stimuli)
        tested = data.recording.select(test)
        correct.append(np.asarray(decoder.classify(tested)) == tested.coord("stimulus"))
    return float(np.concatenate(correct).mean())


add_task(
    Task(
        name="ssvep",
        contract="Decoder",
        description=f"Which of {N_TARGETS} flickering targets is attended, from 0.4 s of EEG?",
        prepare=prepare,
        score=score,
        metric="accuracy (one block left out)",
        chance=1 / N_TARGETS,
    )
)
