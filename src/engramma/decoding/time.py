"""When a condition can be read out: decoding over time, and temporal generalisation."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import rankdata

from engramma.data.recording import Recording
from engramma.data.splits import Split
from engramma.decoding.clusters import Span, permutation_spans
from engramma.decoding.labels import Exchange, Problem, permuted, pose
from engramma.decoding.linear import Space, classifier_named, scores
from engramma.errors import ConfigError, DataError
from engramma.progress import track

Metric = Literal["auto", "auc", "accuracy"]
#: Numbers (times x permutations x presentations x classes) held at once; bounds memory.
_NUMBERS_AT_ONCE = 2e7


@dataclass(frozen=True, eq=False)
class TimeDecoding:
    """Decoding performance over time.

    Parameters
    ----------
    time : ndarray, shape (n_times,)
        Seconds from stimulus onset.
    scores : ndarray, shape (n_times,) or (n_times, n_times)
        Mean over test sets; with generalisation, training time by test time.
    folds : ndarray, shape (n_splits, ...)
        Of each test set.
    metric : {"auc", "accuracy"}
        ``"accuracy"`` is the mean over classes of the share right (balanced).
    chance : float
    classes : tuple of str
    null : ndarray, shape (n_permutations, n_times), optional
        Scores under permuted labels.
    spans : tuple of Span
        Runs of times above chance, each with a p value corrected over time.
    classifier : str
    notes : tuple of str
    """

    time: np.ndarray
    scores: np.ndarray
    folds: np.ndarray
    metric: str
    chance: float
    classes: tuple[str, ...]
    classifier: str
    null: np.ndarray | None = None
    spans: tuple[Span, ...] = ()
    notes: tuple[str, ...] = ()


def decode_over_time(
    recording: Recording,
    labels: np.ndarray | Sequence[str] | str | None = None,
    splits: Iterable[Split] | None = None,
    *,
    classifier: str = "lda",
    metric: Metric = "auto",
    generalise: bool = False,
    rng: np.random.Generator,
    n_permutations: int = 0,
    exchange: Exchange = "auto",
    alpha: float = 0.05,
    allow: Collection[str] | None = None,
) -> TimeDecoding:
    """Train and test a classifier at each time, or at each pair of times.

    Parameters
    ----------
    recording : Recording
        With a time axis.
    labels, splits, classifier, exchange, allow
        As in `engramma.decoding.classify.decode`. Standardisation and shrinkage are fitted at
        each time to the training presentations.
    metric : {"auto", "auc", "accuracy"}
        ``"auto"`` is the area under the curve for two classes, else balanced accuracy.
    generalise : bool
        Also test each classifier at every other time (King and Dehaene, *Trends in Cognitive
        Sciences* 18, 2014).
    rng : numpy.random.Generator
    n_permutations : int
        Label permutations, of which the largest cluster masses correct over time; 0 for none.
        Not for generalisation.
    alpha : float
        Size of the test at each time that clusters are formed with.

    Raises
    ------
    DataError
        If the recording has no time axis; else as `decode`.
    ConfigError
        If an option or combination cannot be carried out.
    """
    classifier_named(classifier)
    if not recording.has_time:
        raise DataError(
            "the recording has no time axis",
            mend="use engramma.decoding.classify.decode for one pattern a presentation",
        )
    if metric not in ("auto", "auc", "accuracy"):
        raise ConfigError(f"metric {metric!r} is not known", mend="use 'auc' or 'accuracy'")
    if generalise and n_permutations:
        raise ConfigError(
            "permutations of temporal generalisation are not made: n_times squared scores each",
            mend="test the diagonal (generalise=False), or subjects (clusters.sign_flip_spans)",
        )
    problem = pose(recording, labels, splits, allow)
    chosen = metric if metric != "auto" else ("auc" if len(problem.classes) == 2 else "accuracy")
    if chosen == "auc" and len(problem.classes) != 2:
        raise ConfigError(
            f"the area under the curve is for two classes, not {len(problem.classes)}",
            mend="use metric='accuracy'",
        )
    data = np.moveaxis(recording.values, 2, 0)
    folds = _folds(data, problem, problem.codes[None], classifier, chosen, generalise)[..., 0]
    weight = _weights(problem)
    observed = np.tensordot(weight, np.nan_to_num(folds), axes=1)
    chance = 0.5 if chosen == "auc" else 1 / len(problem.classes)
    null: np.ndarray | None = None
    spans: tuple[Span, ...] = ()
    time = np.asarray(recording.array["time"].values, dtype=float)
    if n_permutations:
        codes = permuted(recording, problem, n_permutations, rng, exchange)
        parts = []
        each = len(data) * recording.n_presentations * len(problem.classes)
        step = max(1, int(_NUMBERS_AT_ONCE / each))
        for start in track(range(0, n_permutations, step), "permuting labels"):
            some = codes[start : start + step]
            out = _folds(data, problem, some, classifier, chosen, False)
            parts.append(np.tensordot(weight, np.nan_to_num(out), axes=1).T)
        null = np.concatenate(parts)
        spans = permutation_spans(observed, null, time, alpha=alpha)
    return TimeDecoding(
        time, observed, folds, chosen, chance, problem.classes, classifier, null, spans,
        problem.notes,
    )  # fmt: skip


def _weights(problem: Problem) -> np.ndarray:
    """Weight of each split: its number of test presentations."""
    size = np.asarray([len(s.test) for s in problem.splits], dtype=float)
    counts = np.asarray([len(np.unique(problem.codes[s.test])) for s in problem.splits])
    size = size * (counts > 1)
    if not size.any():
        raise DataError(
            "no test set holds two classes, so performance over time cannot be told",
            mend="use larger test sets",
        )
    return size / size.sum()


def _folds(
    data: np.ndarray,
    problem: Problem,
    codes: np.ndarray,
    classifier: str,
    metric: str,
    generalise: bool,
) -> np.ndarray:
    """Scores, shape (splits, times, permutations) or (splits, times, times, permutations)."""
    fit = classifier_named(classifier)
    out = []
    for split, groups in zip(problem.splits, problem.groups, strict=True):
        space = Space.of(data[:, split.train])
        weights, offsets = fit(space, problem.onehot(codes[:, split.train]), groups)
        test, truth = data[:, split.test], codes[:, split.test]
        if not generalise:
            values = scores(weights, offsets, space.project(test))
            out.append(_performance(values, truth, metric))
            continue
        rows = []
        for t in range(len(data)):  # one training time against all test times
            turned = space.at(t).project(test)
            values = np.einsum("snd,pdc->spnc", turned, weights[t]) + offsets[t][None, :, None]
            rows.append(_performance(values, truth, metric))
        out.append(np.stack(rows))
    return np.stack(out)


def _performance(values: np.ndarray, truth: np.ndarray, metric: str) -> np.ndarray:
    """Score, shape (times, permutations), of class scores (times, permutations, n, classes)."""
    if metric == "accuracy":
        right = values.argmax(axis=3) == truth
        shares = []
        for c in range(values.shape[3]):
            member = truth == c
            n = member.sum(axis=1)
            shares.append(np.where(n > 0, (right & member).sum(axis=2) / np.maximum(n, 1), np.nan))
        # Every permutation keeps the classes of a test set unless whole stimuli are exchanged.
        return np.nanmean(np.stack(shares), axis=0)
    with np.errstate(invalid="ignore"):
        margin = np.nan_to_num(values[..., 1] - values[..., 0])
    rank = rankdata(margin, axis=2)
    n = truth.sum(axis=1)
    m = truth.shape[1] - n
    area = ((rank * truth).sum(axis=2) - n * (n + 1) / 2) / np.maximum(n * m, 1)
    return np.where(n * m > 0, area, np.nan)
