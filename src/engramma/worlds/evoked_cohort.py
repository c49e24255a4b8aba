"""EEG or MEG of several virtual subjects who view shared and own scenes in several sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from engramma.data.recording import Cohort
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError, DataError
from engramma.registry import world
from engramma.worlds.scenes import make_scenes
from engramma.worlds.viewers import view, viewing_of

#: Montages where none is named.
MONTAGES = {"eeg": "cap63", "meg": "ctf151"}


@world("evoked-cohort")
def evoked_cohort(
    seed: int = 0,
    *,
    modality: str = "eeg",
    n_subjects: int = 3,
    n_shared: int = 100,
    n_own: int = 0,
    n_test: int = 20,
    train_repeats: int = 4,
    test_repeats: int = 20,
    n_sessions: int = 1,
    size: int = 64,
    stimuli: StimulusSet | None = None,
    drives: Mapping[str, np.ndarray] | None = None,
    **options: Any,
) -> Cohort:
    """Record several virtual subjects, with train and test stimuli as in THINGS-EEG2 and -MEG.

    Parameters
    ----------
    seed : int
    modality : {"eeg", "meg"}
        Chooses the montage, 63 electrodes or 151 axial gradiometers, where none is named.
    n_subjects : int
    n_shared, n_own, n_test : int
        Train stimuli that all subjects see, train stimuli of each subject alone, and test
        stimuli, which all see.
    train_repeats, test_repeats : int
        Presentations of each. A run shows all train stimuli once, and its part of the tests.
    n_sessions : int
        The runs are shared out between them; the head sits a little differently in each.
    size : int
        Pixels a side.
    stimuli : StimulusSet, optional
        Shown instead, with a column ``split`` of ``train`` (to all), ``test``, or the name of
        the subject who alone sees it (``sub-01``, ...).
    drives : mapping of str to ndarray, shape (n_stimuli, n_features), optional
        By area, what it follows instead, for all stimuli: shared, test, and own ones.
    **options
        Further fields of `engramma.worlds.viewers.Viewing`, `engramma.worlds.area_courses.Stages`
        and `engramma.worlds.artefacts.Disturbances`.

    Returns
    -------
    Cohort
        Presentations carry ``split`` (``train`` or ``test``). More subjects leave the others as
        they were, as long as the stimuli are the same.

    Raises
    ------
    ConfigError, DataError
        If an option is unknown or out of range, or the given stimuli do not fit.
    """
    if modality not in MONTAGES:
        raise ConfigError(f"there is no modality {modality!r}", mend="use eeg or meg")
    counts = (n_subjects, n_shared + n_own, train_repeats, test_repeats, n_sessions)
    if min(counts) < 1 or min(n_own, n_shared, n_test) < 0 or n_sessions > train_repeats:
        raise ConfigError(
            "a cohort cannot be made with these numbers",
            mend="use at least one subject, train stimulus, repeat and session, and no more "
            "sessions than train_repeats",
        )
    viewing = viewing_of("evoked-cohort", {"montage": MONTAGES[modality], **options})
    streams = np.random.SeedSequence(seed).spawn(n_subjects + 2)
    names = [f"sub-{i:02d}" for i in range(1, n_subjects + 1)]
    if stimuli is None:
        splits = ["train"] * n_shared + ["test"] * n_test
        splits += [name for name in names for _ in range(n_own)]
        scenes = make_scenes(len(splits), rng=np.random.default_rng(streams[0]), size=size)
        table = scenes.stimuli.table.assign(split=splits)
        stimuli = replace(scenes.stimuli, table=table)
    elif "split" not in stimuli.table:
        raise DataError(
            "the stimulus table has no column 'split'",
            mend="say train, test or the name of a subject for each stimulus",
        )
    split = stimuli.table["split"].to_numpy(str)
    members = {}
    for name, stream in zip(names, streams[2:], strict=True):
        of_order, of_subject = (np.random.default_rng(s) for s in stream.spawn(2))
        train = np.flatnonzero((split == "train") | (split == name))
        shown, run = _runs(
            train, np.flatnonzero(split == "test"), train_repeats, test_repeats, of_order
        )
        recording = view(
            stimuli,
            shown,
            viewing,
            rng=of_subject,
            shared=np.random.default_rng(streams[1]),
            subject=name,
            run=run,
            session=1 + (run - 1) * n_sessions // train_repeats,
            drives=drives,
        )
        part = np.where(split[shown] == "test", "test", "train")
        array = recording.array.assign_coords(split=("presentation", part))
        members[name] = replace(recording, array=array)
    facts = {
        "world": "evoked-cohort",
        "seed": seed,
        "modality": members[names[0]].attrs["modality"],
    }
    return Cohort(members, attrs=facts)


def _runs(
    train: np.ndarray,
    test: np.ndarray,
    train_repeats: int,
    test_repeats: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of stimuli in the order they are shown, and the run of each."""
    tests = np.array_split(np.tile(test, test_repeats), train_repeats)
    runs = [rng.permutation(np.concatenate([train, some])) for some in tests]
    return np.concatenate(runs), np.repeat(np.arange(1, train_repeats + 1), [len(r) for r in runs])
