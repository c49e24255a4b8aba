"""What classification needs beside responses: labels, splits, inner groups, permutations."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engramma.data.recording import Recording
from engramma.data.splits import GUARDED, Split, guard, leave_one_out, run_ids
from engramma.data.stimuli import _some
from engramma.errors import ConfigError, DataError, DataWarning, LeakageError

#: What is exchangeable when nothing can be decoded.
Exchange = Literal["auto", "presentation", "stimulus"]
#: Most groups that regularisation is chosen over within the training presentations.
INNER_GROUPS = 10


@dataclass(frozen=True, eq=False)
class Problem:
    """One classification problem: labels, folds and what may be exchanged.

    Parameters
    ----------
    codes : ndarray of int, shape (n_presentations,)
    classes : tuple of str
    splits : tuple of Split
    groups : tuple of ndarray
        Per split: groups of its training presentations, for choosing regularisation.
    notes : tuple of str
        Warnings for the reader: classes that a training or test set lacks.
    """

    codes: np.ndarray
    classes: tuple[str, ...]
    splits: tuple[Split, ...]
    groups: tuple[np.ndarray, ...]
    notes: tuple[str, ...]

    def onehot(self, codes: np.ndarray) -> np.ndarray:
        """Turn codes (permutations, n) into indicators (permutations, n, classes)."""
        return np.eye(len(self.classes))[codes]


def pose(
    recording: Recording,
    labels: np.ndarray | Sequence[str] | str | None,
    splits: Iterable[Split] | None,
    allow: Collection[str] | None,
) -> Problem:
    """Check labels and splits; see `engramma.decoding.classify.decode` for what they may be."""
    if labels is None or isinstance(labels, str):
        labels = recording.labels(labels)
    values = np.asarray(labels).astype(str)
    if values.shape != (recording.n_presentations,):
        raise DataError(
            f"labels have shape {values.shape} for {recording.n_presentations} presentations",
            mend="give one label per presentation, or the name of a stimulus column",
        )
    classes, codes = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        raise DataError(
            f"every presentation has the label {str(classes[0])!r}, so there is nothing to decode",
            mend="choose a column with at least two values",
        )
    bad = np.flatnonzero(~np.isfinite(recording.values).reshape(len(values), -1).all(axis=1))
    if len(bad):
        raise DataError(
            f"{len(bad)} presentations hold NaN or infinity",
            where=f"presentation {bad[0]}",
            mend="drop the presentations or the units they lie in",
        )
    chosen = tuple(leave_one_out(recording, allow=("stimulus",)) if splits is None else splits)
    if not chosen:
        raise ConfigError("there is no split to decode with", mend="give at least one")
    for split in chosen:
        check_split(recording, split, allow)
    groups = tuple(inner_groups(recording, split) for split in chosen)
    notes = tuple(_missing(recording, codes, classes, chosen))
    for note in notes:
        warnings.warn(note, DataWarning, stacklevel=3)
    return Problem(codes, tuple(map(str, classes)), chosen, groups, notes)


def check_split(recording: Recording, split: Split, allow: Collection[str] | None = None) -> None:
    """Refuse a split that leaks.

    With ``allow`` given, as `engramma.data.splits.guard`. Without, a split must keep apart at
    least one of stimulus, run and subject: the one that the decoder generalises over.

    Raises
    ------
    LeakageError
        If it does not, or a presentation stands on both sides.
    """
    if allow is not None:
        guard(recording, split, allow)
        return
    guard(recording, split, GUARDED)
    if not separated(recording, split):
        raise LeakageError(
            "neither stimulus nor run nor subject is kept apart between training and test",
            where=f"split {split.name!r}",
            mend="split by run or by stimulus, or state what may be shared with allow=(...)",
        )


def separated(recording: Recording, split: Split) -> list[str]:
    """Which of stimulus, run and subject the split keeps apart."""
    names = []
    for name in GUARDED:
        values = run_ids(recording) if name == "run" else recording.coord(name)
        if not len(np.intersect1d(values[split.train], values[split.test])):
            names.append(name)
    return names


def inner_groups(recording: Recording, split: Split) -> np.ndarray:
    """Group the training presentations by what the split keeps apart.

    Regularisation is then chosen for the same generalisation that is tested. There are at most
    `INNER_GROUPS` groups; several stimuli or runs share one where there are more.
    """
    apart = separated(recording, split)
    for name in [n for n in ("subject", "stimulus", "run") if n in apart]:
        values = run_ids(recording) if name == "run" else recording.coord(name)
        codes = np.unique(values[split.train], return_inverse=True)[1]
        if codes.max() > 0:
            return codes % INNER_GROUPS
    return np.arange(len(split.train)) % INNER_GROUPS


def _missing(
    recording: Recording, codes: np.ndarray, classes: np.ndarray, splits: Sequence[Split]
) -> Iterable[str]:
    """Say which classes training sets lack, and which runs lack them.

    That a random fold of stimuli lacks a class in its test set is no news, and is not said.
    """
    everything = np.arange(len(classes))
    runs = [s for s in splits if "run" in separated(recording, s)]
    for side, chosen in (("training", splits), ("test", runs)):
        absent = [
            np.setdiff1d(everything, codes[s.train if side == "training" else s.test])
            for s in chosen
        ]
        where = [s.name or "a split" for s, a in zip(chosen, absent, strict=True) if len(a)]
        if not where:
            continue
        names = _some(classes[np.unique(np.concatenate(absent))])
        note = f"class missing from {side}: {names}, in {_some(where)}"
        yield note + ("; it cannot be recognised there" if side == "training" else "")


def permuted(
    recording: Recording,
    problem: Problem,
    n_permutations: int,
    rng: np.random.Generator,
    exchange: Exchange = "auto",
) -> np.ndarray:
    """Permute labels among what is exchangeable when nothing can be decoded.

    ``"presentation"`` permutes within each run, so that each run keeps its classes.
    ``"stimulus"`` gives all repeats of a stimulus one new label, as is needed where the label is
    a property of stimuli and the splits hold out stimuli: repeats of one stimulus are alike
    whatever its category. ``"auto"`` takes the second where labels are constant within stimuli,
    stimuli repeat and every split holds stimuli out.

    Returns
    -------
    ndarray of int, shape (n_permutations, n_presentations)
    """
    stimulus = np.unique(recording.coord("stimulus"), return_inverse=True)[1]
    first = np.unique(stimulus, return_index=True)[1]
    constant = bool((problem.codes == problem.codes[first][stimulus]).all())
    if exchange == "auto":
        held_out = all("stimulus" in separated(recording, s) for s in problem.splits)
        by_stimulus = held_out and constant and len(first) < len(stimulus)
        exchange = "stimulus" if by_stimulus else "presentation"
    if exchange == "stimulus":
        if not constant:
            raise ConfigError(
                "labels differ between repeats of one stimulus, so stimuli cannot be exchanged",
                mend='use exchange="presentation"',
            )
        each = np.tile(problem.codes[first], (n_permutations, 1))
        return rng.permuted(each, axis=1)[:, stimulus]
    if exchange != "presentation":
        raise ConfigError(
            f"exchange {exchange!r} is not known", mend="use 'auto', 'presentation' or 'stimulus'"
        )
    runs = run_ids(recording)
    members = [np.flatnonzero(runs == run) for run in np.unique(runs)]
    if all(len(np.unique(problem.codes[rows])) < 2 for rows in members):
        raise DataError(
            "no label can be permuted within a run: each run holds one class",
            mend="use exchange='stimulus', or a design in which runs hold several classes",
        )
    result = np.tile(problem.codes, (n_permutations, 1))
    for rows in members:
        result[:, rows] = rng.permuted(result[:, rows], axis=1)
    return result


def p_value(observed: float, null: np.ndarray) -> float:
    """One-sided p value, ``(1 + #{null >= observed}) / (1 + n)``.

    Never zero (Phipson and Smyth, *Stat. Appl. Genet. Mol. Biol.* 9, 2010).
    """
    return float((1 + (null >= observed - 1e-12).sum()) / (1 + len(null)))
