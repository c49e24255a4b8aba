"""Tell what kind of object a virtual subject sees, in scenes that were not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engramma.bench.material import relabelled
from engramma.bench.score_decoder import balanced_accuracy, classify_splits
from engramma.contracts import Task
from engramma.data.recording import Recording
from engramma.data.splits import Split, stimulus_folds
from engramma.registry import add_task
from engramma.worlds.objects import SUPERORDINATES

N_STIMULI, N_REPEATS, N_UNITS, N_FOLDS = 180, 2, 300, 5
#: Mean share of signal in single presentations: low, so that no decoder is right throughout.
CEILING = 0.08


@dataclass(frozen=True, eq=False)
class Classes:
    """Mean responses to scenes, classes in the place of stimuli, and folds over scenes."""

    recording: Recording
    splits: list[Split]


def prepare(seed: int) -> Classes:
    """Show 180 scenes twice to one virtual subject with little signal."""
    from engramma.worlds.scenes_cohort import scenes

    cohort = scenes(
        seed,
        n_subjects=1,
        n_stimuli=N_STIMULI,
        n_repeats=N_REPEATS,
        n_units=N_UNITS,
        ceiling=CEILING,
        spread=CEILING / 3,
    )
    return held_out_classes(next(iter(cohort.values())), seed)


def held_out_classes(recording: Recording, seed: int) -> Classes:
    """Average repeats, and hold scenes out in five folds; what is asked is the superordinate."""
    means = recording.mean_over("stimulus")
    rng = np.random.default_rng(seed)
    splits = list(stimulus_folds(means, N_FOLDS, rng=rng, allow=("run",)))
    return Classes(relabelled(means, "superordinate"), splits)


def score(system: Any, data: Classes) -> float:
    """Mean over classes of the share of held-out scenes told right."""
    predicted = classify_splits(system, data.recording, data.splits)
    return balanced_accuracy(data.recording.coord("stimulus"), predicted)


add_task(
    Task(
        name="scene-decoding",
        contract="Decoder",
        description="Which superordinate class does the object in a new scene belong to?",
        prepare=prepare,
        score=score,
        metric="balanced accuracy (scenes held out, five folds)",
        chance=1 / len(SUPERORDINATES),
    )
)
