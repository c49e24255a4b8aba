"""Splits into training and test, with a guard against leakage."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from engramma.data.recording import Recording
from engramma.data.stimuli import _some
from engramma.errors import ConfigError, DataError, LeakageError

#: Coordinates that may not stand in training and in test unless the user allows it.
GUARDED = ("stimulus", "run", "subject")


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of the presentations to train and to test on."""

    train: np.ndarray
    test: np.ndarray
    name: str = ""


def guard(recording: Recording, split: Split, allow: Collection[str] = ()) -> None:
    """Refuse a split in which a stimulus, run or subject stands on both sides.

    A coordinate with one value in the whole recording cannot leak and is not checked. A run is
    one run of one session of one subject.

    Parameters
    ----------
    recording : Recording
    split : Split
    allow : collection of {"stimulus", "run", "subject"}
        What may be shared, and so must be defended in the methods: ``"stimulus"`` where the
        question is generalisation over runs, ``"run"`` where it is generalisation over stimuli.

    Raises
    ------
    LeakageError
        If something not allowed is shared, or the same presentation stands on both sides.
    """
    both = np.intersect1d(split.train, split.test)
    if len(both):
        raise LeakageError(
            f"{len(both)} presentations stand in training and in test",
            where=f"split {split.name!r}, presentation {both[0]}",
        )
    for name in GUARDED:
        if name in allow:
            continue
        values = run_ids(recording) if name == "run" else recording.coord(name)
        if len(np.unique(values)) < 2:
            continue
        shared = np.intersect1d(values[split.train], values[split.test])
        if len(shared):
            raise LeakageError(
                f"{len(shared)} {name} value(s) stand in training and in test: {_some(shared)}",
                where=f"split {split.name!r}",
                mend=f"split by {name}, or allow it explicitly with allow=({name!r},)",
            )


def leave_one_out(
    recording: Recording, over: str = "run", allow: Collection[str] = ()
) -> Iterator[Split]:
    """Hold out each run (session, subject, ...) in turn.

    Raises
    ------
    DataError
        If there is only one.
    LeakageError
        See `guard`.
    """
    values = run_ids(recording) if over == "run" else recording.coord(over)
    levels = _natural(np.unique(values))
    if len(levels) < 2:
        raise DataError(
            f"the recording has one {over} only, so none can be left out",
            where=f"{over} {levels[0]!r}",
            mend=f"record more than one {over}, or split by stimulus",
        )
    for level in levels:
        split = Split(
            np.flatnonzero(values != level), np.flatnonzero(values == level), f"{over} {level}"
        )
        guard(recording, split, allow)
        yield split


def stimulus_folds(
    recording: Recording,
    n_folds: int = 5,
    *,
    rng: np.random.Generator,
    allow: Collection[str] = (),
) -> Iterator[Split]:
    """Split by stimulus into ``n_folds`` random folds; repeats of a stimulus stay together.

    Raises
    ------
    ConfigError
        If there are fewer stimuli than folds.
    LeakageError
        See `guard`: where a run spans stimuli of both sides, pass ``allow=("run",)``.
    """
    stimulus = recording.coord("stimulus")
    levels = np.unique(stimulus)
    if len(levels) < n_folds or n_folds < 2:
        raise ConfigError(
            f"{n_folds} folds cannot be made of {len(levels)} stimuli",
            mend="use between 2 folds and as many as there are stimuli",
        )
    fold_of = rng.permutation(np.arange(len(levels)) % n_folds)
    fold = fold_of[np.searchsorted(levels, stimulus)]
    for k in range(n_folds):
        split = Split(np.flatnonzero(fold != k), np.flatnonzero(fold == k), f"stimulus fold {k}")
        guard(recording, split, allow)
        yield split


def run_ids(recording: Recording) -> np.ndarray:
    """One id a run of one session of one subject, per presentation."""
    names = [n for n in ("subject", "session", "run") if len(np.unique(recording.coord(n))) > 1]
    if not names:
        return recording.coord("run")
    parts = [recording.coord(n) for n in names]
    return np.asarray(["/".join(map(str, p)) for p in zip(*parts, strict=True)])


def _natural(levels: np.ndarray) -> list[str]:
    """Sort run 2 before run 10."""

    def key(level: str) -> tuple[int, float, str]:
        return (0, float(level), level) if level.replace(".", "", 1).isdigit() else (1, 0.0, level)

    return sorted(map(str, levels), key=key)
