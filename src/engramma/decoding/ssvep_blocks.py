"""What all steady-state decoders share: block-wise training, the leakage guard, and evaluation."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engramma.contracts import Estimate, RunResult
from engramma.data.recording import Cohort, Recording
from engramma.data.splits import Split, _natural, guard
from engramma.data.stimuli import StimulusSet
from engramma.decoding.information import information_transfer_rate
from engramma.decoding.ssvep_trials import Trials, Window, block_ids, cut, members
from engramma.errors import ConfigError, DataError, LeakageError
from engramma.progress import track

#: Seconds to shift the gaze between selections, as every published transfer rate counts them.
GAZE_SHIFT = 0.5


class TargetDecoder(ABC):
    """Base of decoders that name the flickering target a subject looks at.

    A subclass learns in ``_learn(trials)`` and scores in ``_score(trials)``; cutting, checks,
    the guard against tested blocks that were trained on, and transfer rates are here.

    Parameters
    ----------
    window : Window
        Which samples and channels are decoded.
    """

    def __init__(self, window: Window | None = None) -> None:
        self.window = window or Window()
        self.targets_: np.ndarray | None = None
        self.channels_: tuple[str, ...] = ()
        self.seen_: set[tuple[str, str]] = set()

    def fit(self, recording: Recording | Cohort, stimuli: StimulusSet | None = None) -> Any:
        """Learn from all trials of one subject or several.

        Parameters
        ----------
        recording : Recording or Cohort
            presentation x unit x time; ``run`` names the block.
        stimuli : StimulusSet, optional
            Columns ``frequency`` (Hz) and ``phase`` (radians); that of the recording by default.
        """
        self.seen_ = set()
        self._learn(self._training_trials(recording, stimuli))
        return self

    def scores(self, recording: Recording | Cohort) -> np.ndarray:
        """Score of each target, trial x target, in the order of ``targets_``.

        Raises
        ------
        LeakageError
            If a block was trained on.
        """
        return self._score(self._test_trials(recording))

    def classify(self, recording: Recording | Cohort) -> np.ndarray:
        """Stimulus id of the target of each presentation.

        Raises
        ------
        LeakageError
            If a block was trained on.
        """
        scores = self.scores(recording)
        assert self.targets_ is not None
        return self.targets_[scores.argmax(axis=1)]

    def itr(self, recording: Recording | Cohort, gaze_shift: float = GAZE_SHIFT) -> float:
        """Information transfer rate in bits per minute, averaged over subjects and blocks."""
        chosen = self.classify(recording)
        assert self.targets_ is not None
        parts = members(recording)
        truth = np.concatenate([r.coord("stimulus") for r in parts])
        subject = np.concatenate([r.coord("subject") for r in parts])
        block = np.concatenate([block_ids(r) for r in parts])
        _, group = np.unique(np.char.add(np.char.add(subject, "\t"), block), return_inverse=True)
        accuracy = np.bincount(group, chosen == truth) / np.bincount(group)
        seconds = self.window.length + gaze_shift
        return float(information_transfer_rate(accuracy, len(self.targets_), seconds).mean())

    @abstractmethod
    def _learn(self, trials: Trials) -> None:
        """Learn from training trials."""

    @abstractmethod
    def _score(self, trials: Trials) -> np.ndarray:
        """Score every target for each trial, trial x target."""

    def _training_trials(
        self, recording: Recording | Cohort, stimuli: StimulusSet | None
    ) -> Trials:
        trials = cut(recording, self.window)
        self.stimuli_ = recording.stimuli if stimuli is None else stimuli
        self.stimuli_.select(np.unique(trials.stimulus))  # raises where an id is unknown
        present = set(trials.stimulus)
        self.targets_ = np.asarray([i for i in self.stimuli_.ids if i in present])
        if len(self.targets_) < 2:
            raise DataError(
                "there is one target only, so nothing to tell apart",
                where=f"target {self.targets_[0]!r}",
                mend="train on trials of two targets or more",
            )
        self.channels_ = trials.channels
        self.seen_ |= set(zip(trials.subject, trials.block, strict=True))
        return trials

    def _test_trials(self, recording: Recording | Cohort) -> Trials:
        if self.targets_ is None:
            raise ConfigError("the decoder has not been fitted", mend="call fit first")
        trials = cut(recording, self.window)
        self._check_channels(trials)
        tested = set(zip(trials.subject, trials.block, strict=True))
        leaked = sorted(tested & self.seen_)
        if leaked:
            subject, block = leaked[0]
            raise LeakageError(
                f"{len(leaked)} of the tested blocks were trained on",
                where=f"subject {subject!r}, session/run {block!r}",
                mend="leave the block out of every stage of training, and give each block of a "
                "recording its own run",
            )
        return trials

    def _check_channels(self, trials: Trials) -> None:
        if trials.channels != self.channels_:
            raise DataError(
                f"the decoder was trained on {len(self.channels_)} channels "
                f"({', '.join(self.channels_[:4])}, ...), the recording has "
                f"{len(trials.channels)} ({', '.join(trials.channels[:4])}, ...)",
                mend="name the same channels in the same order: Window(channels=...)",
            )

    def _target_index(self, trials: Trials) -> np.ndarray:
        assert self.targets_ is not None
        position = {target: k for k, target in enumerate(self.targets_)}
        strangers = [s for s in trials.stimulus if s not in position]
        if strangers:
            raise DataError(
                f"target {strangers[0]!r} is not among those the decoder knows",
                where=f"it knows {len(position)} targets",
                mend="train every stage on the same targets",
            )
        return np.asarray([position[s] for s in trials.stimulus])


# -- leave one block out -------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class BlockScores:
    """Result of leaving each block out.

    Parameters
    ----------
    accuracy : ndarray, shape (n_subjects, n_blocks)
        Fraction correct; NaN where a subject lacks a block.
    subjects, blocks : tuple of str
    n_targets : int
    seconds : float
        Signal decoded.
    """

    accuracy: np.ndarray
    subjects: tuple[str, ...]
    blocks: tuple[str, ...]
    n_targets: int
    seconds: float

    def itr(self, gaze_shift: float = GAZE_SHIFT) -> np.ndarray:
        """Bits per minute of each subject and block (NaN where there is no such block)."""
        known = np.isfinite(self.accuracy)
        rate = np.full(self.accuracy.shape, np.nan)
        rate[known] = information_transfer_rate(
            self.accuracy[known], self.n_targets, self.seconds + gaze_shift
        )
        return rate


def without_block(data: Recording | Cohort, block: str) -> tuple[Any, Any]:
    """Split into all other blocks and one block, subject by subject.

    Raises
    ------
    DataError
        If nothing would be left to train or test on.
    """
    train, test = {}, {}
    for name, recording in _named(data).items():
        held_out = block_ids(recording) == block
        split = Split(np.flatnonzero(~held_out), np.flatnonzero(held_out), f"block {block}")
        guard(recording, split, allow=("stimulus", "subject", "run"))
        if len(split.train):
            train[name] = recording.select(split.train)
        if len(split.test):
            test[name] = recording.select(split.test)
    if not train or not test:
        raise DataError(
            f"no block is left to {'test' if train else 'train'} on without block {block!r}",
            mend="record two blocks or more, and give each its own run",
        )
    if isinstance(data, Cohort):
        return Cohort(train, attrs=data.attrs), Cohort(test, attrs=data.attrs)
    return train["all"], test["all"]


def leave_one_block_out(
    decoder: TargetDecoder, data: Recording | Cohort, blocks: int | None = None
) -> BlockScores:
    """Train on all blocks but one, of all subjects, and test on that one.

    Parameters
    ----------
    decoder : TargetDecoder
        Copied for each block, and so left as it is.
    data : Recording or Cohort
    blocks : int, optional
        Leave out only the first so many.
    """
    parts = members(data)
    names = _natural(np.unique(np.concatenate([block_ids(r) for r in parts])))
    subjects = _natural(np.unique(np.concatenate([r.coord("subject") for r in parts])))
    accuracy = np.full((len(subjects), len(names[:blocks])), np.nan)
    n_targets = 0
    for column, block in enumerate(track(names[:blocks], "leaving one block out")):
        train, test = without_block(data, block)
        fitted = copy.deepcopy(decoder).fit(train, data.stimuli)
        n_targets = max(n_targets, len(fitted.targets_))
        for recording in members(test):
            correct = fitted.classify(recording) == recording.coord("stimulus")
            for subject in np.unique(recording.coord("subject")):
                of_subject = recording.coord("subject") == subject
                accuracy[subjects.index(subject), column] = correct[of_subject].mean()
    return BlockScores(
        accuracy, tuple(subjects), tuple(names[:blocks]), n_targets, decoder.window.length
    )


def block_run(make: Callable[[int], TargetDecoder]) -> Callable[..., RunResult]:
    """Make the ``run(data, seed)`` of a steady-state decoder: leave one block out, two metrics.

    Parameters
    ----------
    make : callable
        ``make(seed) -> TargetDecoder``.
    """

    def run(data: Recording | Cohort, seed: int = 0) -> RunResult:
        scores = leave_one_block_out(make(seed), data)
        rng = np.random.default_rng(seed)
        note = (
            f"Each of {len(scores.blocks)} blocks was left out once for all "
            f"{len(scores.subjects)} subjects; {scores.n_targets} targets (chance "
            f"{1 / scores.n_targets:.3f}), {scores.seconds:g} s of signal, {GAZE_SHIFT:g} s of "
            "gaze shift. Intervals are bootstrapped over subjects (over blocks where there is one)."
        )
        return RunResult(
            metrics={
                "accuracy": _over_subjects(scores.accuracy, rng),
                "information transfer rate (bits/min)": _over_subjects(scores.itr(), rng),
            },
            arrays={"accuracy": scores.accuracy, "itr": scores.itr()},
            notes=(note,),
        )

    return run


def _over_subjects(values: np.ndarray, rng: np.random.Generator) -> Estimate:
    per_subject = np.nanmean(values, axis=1) if len(values) > 1 else values[0]
    draws = rng.integers(0, len(per_subject), (5000, len(per_subject)))
    low, high = np.nanpercentile(np.nanmean(per_subject[draws], axis=1), [2.5, 97.5])
    return Estimate(float(np.nanmean(values)), float(low), float(high))


def _named(data: Recording | Cohort) -> dict[str, Recording]:
    return dict(data) if isinstance(data, Cohort) else {"all": data}
