"""What data offer to the evaluation of a system: subjects, conditions, labels, features, folds."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from engramma.bench.claims import mean_interval
from engramma.contracts import Estimate, RunResult
from engramma.data.features import Features
from engramma.data.recording import Cohort, Recording
from engramma.data.splits import Split, leave_one_out, run_ids, stimulus_folds
from engramma.data.stimuli import MEDIA_COLUMNS, StimulusSet
from engramma.errors import ConfigError, DataError
from engramma.features.extraction import available_models, extract

#: Folds over stimuli, and so the fewest stimuli that a class must have to be told from new ones.
N_FOLDS = 5
#: Fewest stimuli in a test set: with less, a correlation within it says nothing.
FEWEST_TESTED = 4
#: Repeated stimuli up to this number are conditions: classes themselves, not samples of a class.
MOST_CONDITIONS = 40
#: Columns that say what a stimulus is, rather than where or how it is shown.
CLASSES = ("category", "superordinate")
#: Layers of networks that have many: an early, a middle and a late stage.
LAYERS = {"efficientnet-lite0": ("stage2", "stage5", "head")}
#: A language model takes minutes where all other features together take seconds.
COSTLY = ("smollm2",)
#: Wider feature spaces are projected at random, which keeps distances between stimuli.
MOST_FEATURES = 2000


def recordings_of(data: Any) -> dict[str, Recording]:
    """One recording a subject.

    Raises
    ------
    DataError
        If the data hold no responses.
    """
    if isinstance(data, Cohort):
        return dict(data)
    if not isinstance(data, Recording):
        raise DataError(
            f"{type(data).__name__} hold no responses that a system could be fitted to",
            mend="give a recording or a cohort; dissimilarities are for `engramma study`",
        )
    subject = data.coord("subject")
    names = np.unique(subject)
    if len(names) == 1:
        return {str(names[0]): data}
    return {str(name): data.select(presentations=subject == name) for name in names}


def per_subject(
    data: Any, seed: int, score: Callable[[Recording, np.random.Generator], RunResult]
) -> RunResult:
    """Score each subject alone, and give the mean over subjects before the single values.

    Every subject has random numbers of their own: leaving one out does not change the others.
    """
    results = {
        subject: score(recording, np.random.default_rng([seed, zlib.crc32(subject.encode())]))
        for subject, recording in recordings_of(data).items()
    }
    if len(results) == 1:
        return next(iter(results.values()))
    metrics: dict[str, Estimate] = {}
    for name in dict.fromkeys(n for r in results.values() for n in r.metrics):
        held = {s: r.metrics[name] for s, r in results.items() if name in r.metrics}
        metrics[name] = mean_interval([e.value for e in held.values()])
        metrics |= {f"{name} ({subject})": estimate for subject, estimate in held.items()}
    arrays = {f"{s}-{name}": a for s, r in results.items() for name, a in r.arrays.items()}
    notes = dict.fromkeys(note for r in results.values() for note in r.notes)
    over = (
        f"Each of {len(results)} subjects was scored alone; intervals of means are over subjects."
    )
    return RunResult(metrics, arrays, (*notes, over))


def holds_conditions(recording: Recording) -> bool:
    """Whether stimuli are few and come back in other runs, so that they are conditions."""
    repeats = recording.repeats
    return (
        2 <= len(repeats) <= MOST_CONDITIONS
        and bool((repeats >= 2).all())
        and len(np.unique(run_ids(recording))) >= 2
    )


def run_splits(recording: Recording) -> tuple[list[Split], str]:
    """Leave each run out; with a sentence that says what training and test share."""
    splits = list(leave_one_out(recording, "run", allow=("stimulus",)))
    return splits, (
        f"Each of {len(splits)} runs was held out in turn; training and test share the conditions, "
        "which are what is predicted or told, and no run."
    )


def stimulus_splits(
    recording: Recording, rng: np.random.Generator
) -> tuple[Recording, list[Split], str]:
    """Average repeats, and hold out each stimulus once; with a sentence about the split."""
    rows = recording.mean_over("stimulus")
    folds = min(N_FOLDS, rows.n_presentations // FEWEST_TESTED)
    if folds < 2:
        raise DataError(
            f"{rows.n_presentations} stimuli are too few to hold some out",
            mend=f"record at least {2 * FEWEST_TESTED} stimuli, or two conditions in two runs",
        )
    splits = list(stimulus_folds(rows, folds, rng=rng, allow=("run",)))
    return (
        rows,
        splits,
        (
            f"Repeats were averaged and stimuli held out in {folds} folds; training and test share "
            "runs (a stimulus' repeats lie in several) and no stimulus."
        ),
    )


def class_column(recording: Recording) -> str:
    """Column of the stimulus table with classes to tell from stimuli never met.

    `CLASSES` go first, then names that contain "category", then the alphabet.

    Raises
    ------
    DataError
        If no column gives each of its classes at least `N_FOLDS` stimuli.
    """
    shown = recording.stimuli.select(np.unique(recording.coord("stimulus")))
    fit = [
        c
        for c in shown.categorical()
        if shown.table[c].notna().all() and shown.table[c].value_counts().min() >= N_FOLDS
    ]
    if not fit:
        raise DataError(
            "there is nothing to classify: stimuli are no repeated conditions, and no column of "
            f"the stimulus table gives each of its classes {N_FOLDS} stimuli",
            where=f"columns are {', '.join(map(str, shown.table.columns)) or 'none'}",
            mend="add a column such as category, or record each condition in several runs",
        )
    known = {name: i for i, name in enumerate(CLASSES)}
    return min(fit, key=lambda c: (known.get(c, len(known)), "category" not in c, c))


def relabelled(recording: Recording, column: str) -> Recording:
    """Return the recording with classes in the place of stimuli.

    So a decoder of stimuli tells classes. The stimuli are kept as coordinate ``exemplar``.
    """
    labels = recording.labels(column)
    array = recording.array.assign_coords(
        stimulus=("presentation", labels),
        exemplar=("presentation", recording.coord("stimulus")),
    ).drop_vars("repetition", errors="ignore")
    classes = np.unique(labels)
    table = pd.DataFrame({column: classes}, index=pd.Index(classes, dtype=object))
    return Recording(array, StimulusSet(table))


def feature_spaces(stimuli: StimulusSet) -> dict[str, Features]:
    """Features of every stimulus from the models that fit, are installed, and are quick.

    Raises
    ------
    DataError
        If nothing is known of the stimuli but their names.
    """
    spaces: dict[str, Features] = {}
    for model in available_models(stimuli):
        if model.usable and model.default and model.name not in (*COSTLY, "category"):
            layers = LAYERS.get(model.name)
            spaces |= extract(stimuli, model.name, layers, dimensions=MOST_FEATURES)
    columns = [c for c in stimuli.categorical() if stimuli.table[c].notna().all()]
    for column in columns if not spaces else [c for c in columns if c == "category"]:
        spaces |= extract(stimuli, f"category:{column}")
    if not spaces:
        raise DataError(
            "nothing is known of the stimuli but their names, so no new one can be predicted",
            where=f"columns are {', '.join(map(str, stimuli.table.columns)) or 'none'}",
            mend=f"add one of {', '.join(MEDIA_COLUMNS)} or a category to the stimulus table",
        )
    return spaces


def condition_spaces(stimuli: StimulusSet) -> dict[str, Features]:
    """One feature a condition, and one a level of each column that sorts the conditions."""
    eye = np.eye(len(stimuli), dtype=np.float32)
    spaces = {"condition": Features(eye, tuple(stimuli.ids), "condition")}
    for column in stimuli.categorical():
        if stimuli.table[column].notna().all():
            spaces |= extract(stimuli, f"category:{column}")
    return spaces


def joined(spaces: Mapping[str, Features]) -> Features:
    """All spaces side by side, as one."""
    first = next(iter(spaces.values()))
    if len(spaces) == 1:
        return first
    values = np.concatenate([f.rows(first.stimuli) for f in spaces.values()], axis=1)
    return Features(values, first.stimuli, " + ".join(spaces))


def for_encoder(encoder: Any, spaces: Mapping[str, Features]) -> Any:
    """Features in the form an encoder takes.

    The contract gives it one `Features`. An encoder that weighs several spaces says so by the
    attribute ``several_spaces = True`` and is given a mapping by name.
    """
    return dict(spaces) if getattr(encoder, "several_spaces", False) else joined(spaces)


def make(factory: Callable[..., Any], seed: int) -> Any:
    """Make a system; a constructor that takes ``seed`` is given it."""
    import inspect

    try:
        takes_seed = "seed" in inspect.signature(factory).parameters
    except ValueError:  # a class implemented in C shows no signature
        takes_seed = False
    return factory(seed=seed) if takes_seed else factory()


def require_methods(system: Any, contract: str, *names: str) -> None:
    """Refuse a system that lacks what its contract promises.

    Raises
    ------
    ConfigError
    """
    missing = [name for name in names if not callable(getattr(system, name, None))]
    if missing:
        raise ConfigError(
            f"{type(system).__name__} has no method {missing[0]!r}",
            where=f"contract {contract}",
            mend="write it, or give the system a run= of its own",
        )
