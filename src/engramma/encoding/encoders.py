"""Encoders: fulfil the Encoder contract over features and recordings, and cross-validate them."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engramma.data.features import Features
from engramma.data.recording import Recording
from engramma.data.splits import Split, guard, run_ids
from engramma.encoding.banded import BandedRidgeCV
from engramma.encoding.folds import Score
from engramma.encoding.linear import Folds
from engramma.encoding.ridge import ALPHAS, RidgeCV
from engramma.encoding.scores import correlation, r2
from engramma.errors import ConfigError, DataError
from engramma.progress import track

#: One feature space, or several: as a mapping by name, or a sequence (named by their own names).
FeatureSpaces = Features | Mapping[str, Features] | Sequence[Features]


class _Targets:
    """Presentations x units x times as one row of targets a presentation, and back."""

    _shape: tuple[int, ...] | None = None

    def _flatten(self, recording: Recording) -> np.ndarray:
        values = recording.values
        bad = np.argwhere(~np.isfinite(values).all(axis=0))
        if len(bad):
            unit = recording.coord("unit")[bad[0][0]]
            raise DataError(
                "responses hold NaN or infinity",
                where=f"unit {unit!r} ({len(np.unique(bad[:, 0]))} units in all)",
                mend="drop these units with recording.select(units=...)",
            )
        self._shape = values.shape[1:]
        return values.reshape(len(values), -1)

    def _unflatten(self, predictions: np.ndarray) -> np.ndarray:
        if self._shape is None:
            raise ConfigError(
                f"{type(self).__name__} has not been fitted", mend="call fit before predict"
            )
        return predictions.reshape(len(predictions), *self._shape)


class RidgeEncoder(_Targets):
    """Predict every unit, at every time, from one feature space, by ridge.

    Parameters
    ----------
    alphas : sequence of float
    folds : int or {"run", "session"}
        Inner folds that choose alpha: a number of folds of whole stimuli (repeats of a stimulus
        stay together), or one fold a run or session.
    scoring : {"r2", "correlation", "mse"}
    standardize : bool
        z-score each feature over the training presentations.
    jobs : int, optional
        Threads.
    """

    def __init__(
        self,
        alphas: Sequence[float] = ALPHAS,
        folds: int | str = 5,
        scoring: Score = "r2",
        standardize: bool = True,
        jobs: int | None = None,
    ) -> None:
        self.alphas = alphas
        self.folds = folds
        self.scoring = scoring
        self.standardize = standardize
        self.jobs = jobs

    def fit(self, features: Features, recording: Recording) -> RidgeEncoder:
        """Learn from the presentations of ``recording``.

        Raises
        ------
        DataError
            If a stimulus has no features, or a response is not finite.
        ConfigError
            If inner folds cannot be made.
        """
        Y = self._flatten(recording)
        self.ridge_ = RidgeCV(
            alphas=self.alphas,
            cv=inner_folds(recording, self.folds),
            scoring=self.scoring,
            standardize=self.standardize,
            jobs=self.jobs,
        ).fit(features.rows(recording.coord("stimulus")), Y)
        return self

    def predict(self, features: Features) -> np.ndarray:
        """Predict responses, stimulus x unit (x time), a row for each row of ``features``."""
        self._unflatten(np.empty((0, 0)))
        return self._unflatten(self.ridge_.predict(features.values))


class BandedRidgeEncoder(_Targets):
    """Predict every unit from several feature spaces, each unit weighing them its own way.

    Parameters
    ----------
    alphas, folds, scoring, standardize, jobs
        As in `RidgeEncoder`.
    n_candidates : int
        Weightings of the spaces to try.
    seed : int
        Of the random search.
    """

    def __init__(
        self,
        alphas: Sequence[float] = ALPHAS,
        n_candidates: int = 30,
        folds: int | str = 5,
        scoring: Score = "r2",
        standardize: bool = True,
        jobs: int | None = None,
        seed: int = 0,
    ) -> None:
        self.alphas = alphas
        self.n_candidates = n_candidates
        self.folds = folds
        self.scoring = scoring
        self.standardize = standardize
        self.jobs = jobs
        self.seed = seed

    def fit(self, features: FeatureSpaces, recording: Recording) -> BandedRidgeEncoder:
        """Learn from the presentations of ``recording``; errors as in `RidgeEncoder.fit`."""
        Y = self._flatten(recording)
        stimulus = recording.coord("stimulus")
        self.ridge_ = BandedRidgeCV(
            alphas=self.alphas,
            n_candidates=self.n_candidates,
            cv=inner_folds(recording, self.folds),
            scoring=self.scoring,
            standardize=self.standardize,
            jobs=self.jobs,
            rng=np.random.default_rng(self.seed),
        ).fit({name: f.rows(stimulus) for name, f in as_spaces(features).items()}, Y)
        return self

    def predict(self, features: FeatureSpaces) -> np.ndarray:
        """Predict responses, stimulus x unit (x time)."""
        self._unflatten(np.empty((0, 0)))
        return self._unflatten(self.ridge_.predict(_aligned(as_spaces(features))))


class MeanEncoder(_Targets):
    """Predict the mean training response whatever the stimulus: the baseline of encoders."""

    def fit(self, features: FeatureSpaces, recording: Recording) -> MeanEncoder:
        """Learn the mean response of each unit (at each time)."""
        self.mean_ = self._flatten(recording).mean(axis=0, dtype=np.float64).astype(np.float32)
        return self

    def predict(self, features: FeatureSpaces) -> np.ndarray:
        """Predict responses, stimulus x unit (x time)."""
        self._unflatten(np.empty((0, 0)))
        n = len(next(iter(as_spaces(features).values())).stimuli)
        return self._unflatten(np.tile(self.mean_, (n, 1)))


def as_spaces(features: FeatureSpaces) -> dict[str, Features]:
    """Name feature spaces.

    Raises
    ------
    ConfigError
        If there is none, or two have one name.
    """
    if isinstance(features, Features):
        return {features.name: features}
    if isinstance(features, Mapping):
        spaces = dict(features)
    else:
        spaces = {f.name: f for f in features}
        if len(spaces) < len(features):
            raise ConfigError(
                "two feature spaces have one name", mend="rename one, or pass a mapping by name"
            )
    if not spaces:
        raise ConfigError("no feature space was given")
    return spaces


def select_stimuli(features: FeatureSpaces, stimuli: Iterable[str]) -> FeatureSpaces:
    """Return the features of the named stimuli only, in that order, in the form they came in."""
    stimuli = tuple(str(s) for s in stimuli)

    def some(f: Features) -> Features:
        return Features(f.rows(stimuli), stimuli, f.name, f.model, f.layer)

    if isinstance(features, Features):
        return some(features)
    if isinstance(features, Mapping):
        return {name: some(f) for name, f in features.items()}
    return [some(f) for f in features]


def inner_folds(recording: Recording, folds: int | str) -> Folds:
    """Folds within a training recording that never part the repeats of what they hold out.

    Parameters
    ----------
    folds : int or str
        A number of folds of whole stimuli, in order of first appearance (fewer where there are
        fewer stimuli); or "run" or a coordinate such as "session", one fold each.

    Raises
    ------
    ConfigError
        If there is only one stimulus, run or session.
    """
    if isinstance(folds, int):
        values, wanted, what = recording.coord("stimulus"), folds, "stimulus"
    else:
        values = run_ids(recording) if folds == "run" else recording.coord(folds)
        wanted, what = len(values), folds
    levels, first, codes = np.unique(values, return_index=True, return_inverse=True)
    wanted = min(wanted, len(levels))
    if wanted < 2:
        raise ConfigError(
            f"alpha cannot be chosen by cross-validation over one {what}",
            where=f"the training presentations hold {what} {levels[0]!r} only",
            mend="train on more, or choose other inner folds (folds='run' or a number)",
        )
    rank = np.empty(len(levels), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(levels))
    fold = (rank * wanted // len(levels))[codes]
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(wanted)]


@dataclass(frozen=True)
class CrossValidated:
    """Held-out predictions of a whole recording.

    Parameters
    ----------
    predictions : ndarray, shape (n_presentations, n_units[, n_times])
        Each by the encoder that was not trained on it.
    correlation, r2 : ndarray, shape (n_units[, n_times])
        Mean over splits of the score within each split's test presentations, so that nothing is
        gained or lost by responses that drift between splits.
    by_split : ndarray, shape (n_splits, n_units[, n_times])
        Correlation in each split (NaN where a split tests on fewer than two presentations).
    split : ndarray of int, shape (n_presentations,)
        Which split each presentation was tested in.
    names : tuple of str
        Names of the splits.
    """

    predictions: np.ndarray
    correlation: np.ndarray
    r2: np.ndarray
    by_split: np.ndarray
    split: np.ndarray
    names: tuple[str, ...]


def cross_validated_predictions(
    encoder: Any,
    features: FeatureSpaces,
    recording: Recording,
    splits: Iterable[Split],
    *,
    allow: Collection[str] = (),
) -> CrossValidated:
    """Predict every presentation by an encoder fitted without its split.

    Parameters
    ----------
    encoder : Encoder
        Left as it is: each split fits a copy.
    features : Features, or several
    recording : Recording
    splits : iterable of Split
        Their test presentations make up the whole recording, each once.
    allow : collection of {"stimulus", "run", "subject"}
        What may stand on both sides (see `engramma.data.splits.guard`).

    Raises
    ------
    LeakageError
        If a split shares what is not allowed.
    ConfigError
        If the splits leave a presentation out or test it twice, or each tests on one only.
    """
    splits = list(splits)
    tested = np.concatenate([s.test for s in splits]) if splits else np.empty(0, dtype=int)
    counts = np.bincount(tested, minlength=recording.n_presentations)
    if len(counts) > recording.n_presentations or (counts != 1).any():
        raise ConfigError(
            "the splits do not test every presentation exactly once",
            where=f"{int((counts == 0).sum())} never, {int((counts > 1).sum())} more than once",
            mend="use leave_one_out or stimulus_folds over the whole recording",
        )
    for split in splits:
        guard(recording, split, allow)
    truth = recording.values
    predictions = np.empty(truth.shape, dtype=np.float32)
    by_split = np.full((len(splits), *truth.shape[1:]), np.nan)
    explained = np.full_like(by_split, np.nan)
    number_of = np.empty(len(truth), dtype=np.int64)
    stimulus = recording.coord("stimulus")
    for number, split in enumerate(track(splits, "Cross-validation")):
        levels, rows = np.unique(stimulus[split.test], return_inverse=True)
        fitted = copy.deepcopy(encoder).fit(features, recording.select(presentations=split.train))
        predictions[split.test] = fitted.predict(select_stimuli(features, levels))[rows]
        number_of[split.test] = number
        if len(split.test) > 1:
            pair = truth[split.test], predictions[split.test]
            by_split[number], explained[number] = correlation(*pair), r2(*pair)
    if np.isnan(by_split).all():
        raise ConfigError(
            "every split tests on one presentation, which has no correlation",
            mend="use splits of at least two presentations",
        )
    return CrossValidated(
        predictions,
        np.nanmean(by_split, axis=0),
        np.nanmean(explained, axis=0),
        by_split,
        number_of,
        tuple(s.name for s in splits),
    )


def _aligned(spaces: Mapping[str, Features]) -> dict[str, np.ndarray]:
    """Rows of every space in the stimulus order of the first."""
    order = next(iter(spaces.values())).stimuli
    return {name: f.rows(order) for name, f in spaces.items()}
