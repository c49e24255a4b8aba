"""Classify the condition of each presentation from its response pattern."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from engramma.contracts import Estimate
from engramma.data.recording import Recording
from engramma.data.splits import Split
from engramma.decoding.labels import Exchange, Problem, p_value, permuted, pose
from engramma.decoding.linear import Space, classifier_named, scores
from engramma.errors import ConfigError
from engramma.progress import track

#: Permutations that are fitted at once; bounds memory.
_AT_ONCE = 100


@dataclass(frozen=True, eq=False)
class DecodingResult:
    """What a classifier reads out of presentations it was not trained on.

    Parameters
    ----------
    classes : tuple of str
    accuracy, balanced_accuracy : Estimate
        Share right, and its mean over classes, with a bootstrap interval.
    chance : float
        Accuracy of always naming the most frequent class.
    chance_balanced : float
        One over the number of classes.
    confusion : ndarray of int, shape (n_classes, n_classes)
        Presentations of the class in the row that were taken for the class in the column.
    per_class : mapping of str to mapping of str to float
        ``recall``, ``precision``, ``f1``, ``auc`` (against all other classes) and ``n``.
    presentation, actual, predicted : ndarray, shape (n_tested,)
        Index of each tested presentation, its label and the label it was given.
    scores : ndarray, shape (n_tested, n_classes)
    folds : mapping of str to float
        Accuracy in each test set.
    p_value : float, optional
        Of the accuracy, from permuted labels; with ``null``, their accuracies.
    classifier : str
    notes : tuple of str
        Warnings for the reader.
    """

    classes: tuple[str, ...]
    accuracy: Estimate
    balanced_accuracy: Estimate
    chance: float
    chance_balanced: float
    confusion: np.ndarray
    per_class: Mapping[str, Mapping[str, float]]
    presentation: np.ndarray
    actual: np.ndarray
    predicted: np.ndarray
    scores: np.ndarray
    folds: Mapping[str, float]
    classifier: str
    p_value: float | None = None
    null: np.ndarray | None = None
    notes: tuple[str, ...] = ()


def decode(
    recording: Recording,
    labels: np.ndarray | Sequence[str] | str | None = None,
    splits: Iterable[Split] | None = None,
    *,
    classifier: str = "lda",
    select: int | None = None,
    scale: bool = True,
    rng: np.random.Generator,
    n_permutations: int = 0,
    exchange: Exchange = "auto",
    n_bootstrap: int = 2000,
    allow: Collection[str] | None = None,
) -> DecodingResult:
    """Train on one part of the presentations, classify the other, for each split.

    Standardisation, selection of units and regularisation are fitted to the training part.

    Parameters
    ----------
    recording : Recording
        A time axis is taken as further units.
    labels : array of str, or name of a stimulus column, optional
        Default: the stimulus id.
    splits : iterable of Split, optional
        Default: leave one run out.
    classifier : {"lda", "ridge", "centroid", "logistic", "svm"}
        Linear discriminants with Ledoit-Wolf shrinkage; ridge on class indicators, penalty by
        exact inner cross-validation; nearest class mean; multinomial logistic regression and
        linear support vector machine, penalty by inner cross-validation. The first three permute
        fast; the last two are fitted anew for every permutation.
    select : int, optional
        Keep this many units, those with the largest F of the classes in the training part.
    scale : bool
        Divide units by their standard deviation in the training part.
    rng : numpy.random.Generator
    n_permutations : int
        Label permutations for the p value; 0 for none.
    exchange : {"auto", "presentation", "stimulus"}
        What is permuted; see `engramma.decoding.labels.permuted`.
    n_bootstrap : int
    allow : collection of str, optional
        What training and test may share; see `engramma.decoding.labels.check_split`.

    Raises
    ------
    DataError
        If there is one class only, a value is not finite, or no run can be left out.
    LeakageError
        If a split leaks.
    """
    classifier_named(classifier)
    problem = pose(recording, labels, splits, allow)
    outputs = _classify(recording, problem, problem.codes[None], classifier, select, scale)
    rows = np.concatenate([s.test for s in problem.splits])
    fold = np.repeat(np.arange(len(problem.splits)), [len(s.test) for s in problem.splits])
    values = np.concatenate([o[0] for o in outputs])
    guess, truth = values.argmax(axis=1), problem.codes[rows]
    right = guess == truth
    accuracy = _share(right, np.ones(len(right)))
    p, null = None, None
    if n_permutations:
        codes = permuted(recording, problem, n_permutations, rng, exchange)
        null = _null(recording, problem, codes, classifier, select, scale)
        p = p_value(accuracy, null)
    low, high = _intervals(right, truth, fold, rng, n_bootstrap)
    table = _per_class(problem.classes, values, guess, truth)
    present = np.unique(truth)
    recall = [table[problem.classes[c]]["recall"] for c in present]
    names = [s.name or f"fold {i + 1}" for i, s in enumerate(problem.splits)]
    size = len(problem.classes)
    return DecodingResult(
        classes=problem.classes,
        accuracy=Estimate(accuracy, low[0], high[0]),
        balanced_accuracy=Estimate(float(np.mean(recall)), low[1], high[1]),
        chance=float(np.bincount(truth).max() / len(truth)),
        chance_balanced=1 / size,
        confusion=np.bincount(truth * size + guess, minlength=size**2).reshape(size, size),
        per_class=table,
        presentation=rows,
        actual=np.asarray(problem.classes)[truth],
        predicted=np.asarray(problem.classes)[guess],
        scores=values,
        folds={n: float(right[fold == i].mean()) for i, n in enumerate(names)},
        classifier=classifier,
        p_value=p,
        null=null,
        notes=problem.notes,
    )


def permutation_p_value(
    recording: Recording,
    labels: np.ndarray | Sequence[str] | str | None = None,
    splits: Iterable[Split] | None = None,
    *,
    rng: np.random.Generator,
    classifier: str = "lda",
    n_permutations: int = 1000,
    select: int | None = None,
    scale: bool = True,
    exchange: Exchange = "auto",
    allow: Collection[str] | None = None,
) -> tuple[float, np.ndarray]:
    """Return the p value of the accuracy, and the accuracies under permuted labels.

    Parameters are those of `decode`, and so is the classifier that is permuted.
    """
    if n_permutations < 1:
        raise ConfigError("a permutation test needs at least one permutation")
    problem = pose(recording, labels, splits, allow)
    codes = permuted(recording, problem, n_permutations, rng, exchange)
    both = np.concatenate([problem.codes[None], codes])
    accuracies = _null(recording, problem, both, classifier, select, scale)
    return p_value(float(accuracies[0]), accuracies[1:]), accuracies[1:]


def select_units(responses: np.ndarray, onehot: np.ndarray, how_many: int) -> np.ndarray:
    """Return the indices of the units whose class means differ most (largest one-way F)."""
    x = responses - responses.mean(axis=0)
    count = onehot.sum(axis=0)
    sums = onehot.T @ x
    between = (sums**2 / np.maximum(count, 1)[:, None]).sum(axis=0)
    within = np.maximum((x**2).sum(axis=0) - between, 1e-12 * (between.max() + 1e-300))
    return np.sort(np.argsort(-between / within, kind="stable")[:how_many])


def _classify(
    recording: Recording,
    problem: Problem,
    codes: np.ndarray,
    classifier: str,
    select: int | None,
    scale: bool,
) -> list[np.ndarray]:
    """Scores, shape (permutations, n_test, classes), of each split."""
    fit = classifier_named(classifier)
    responses = recording.values.reshape(recording.n_presentations, -1)
    outputs = []
    for split, groups in zip(problem.splits, problem.groups, strict=True):
        train, test = responses[split.train], responses[split.test]
        onehot = problem.onehot(codes[:, split.train])
        if select is None:
            space = Space.of(train[None], scale=scale)
            outputs.append(scores(*fit(space, onehot, groups), space.project(test[None]))[0])
            continue
        chosen = []
        for one in onehot:  # the selection depends on the labels, and so does the space
            units = select_units(train.astype(np.float64), one, select)
            space = Space.of(train[None][:, :, units], scale=scale)
            plane = fit(space, one[None], groups)
            chosen.append(scores(*plane, space.project(test[None][:, :, units]))[0, 0])
        outputs.append(np.stack(chosen))
    return outputs


def _null(
    recording: Recording,
    problem: Problem,
    codes: np.ndarray,
    classifier: str,
    select: int | None,
    scale: bool,
) -> np.ndarray:
    """Accuracy under each row of ``codes``."""
    rows = np.concatenate([s.test for s in problem.splits])
    starts = range(0, len(codes), _AT_ONCE)
    parts = []
    for start in track(starts, "permuting labels"):
        some = codes[start : start + _AT_ONCE]
        outputs = _classify(recording, problem, some, classifier, select, scale)
        guess = np.concatenate([o.argmax(axis=2) for o in outputs], axis=1)
        parts.append((guess == some[:, rows]).mean(axis=1))
    return np.concatenate(parts)


def _share(right: np.ndarray, weight: np.ndarray) -> float:
    return float((right * weight).sum() / weight.sum())


def _intervals(
    right: np.ndarray,
    truth: np.ndarray,
    fold: np.ndarray,
    rng: np.random.Generator,
    n_bootstrap: int,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Lower and upper ends for accuracy and balanced accuracy.

    Test sets are drawn with replacement, since what is in one shares a classifier and a run;
    presentations where there are fewer than six test sets to draw from.
    """
    clusters = fold if fold.max() >= 5 else np.arange(len(right))
    n = clusters.max() + 1
    draws = rng.multinomial(n, np.full(n, 1 / n), size=n_bootstrap)
    cells = np.zeros((n, truth.max() + 1, 2))
    np.add.at(cells, (clusters, truth, right.astype(int)), 1)
    counts = np.tensordot(draws, cells, axes=1)
    per_class = counts.sum(axis=2)
    accuracy = counts[:, :, 1].sum(axis=1) / per_class.sum(axis=1)
    with np.errstate(invalid="ignore"):
        balanced = np.nanmean(counts[:, :, 1] / per_class, axis=1)
    both = np.stack([accuracy, balanced])
    low, high = np.quantile(both, [0.025, 0.975], axis=1)
    return (float(low[0]), float(low[1])), (float(high[0]), float(high[1]))


def _per_class(
    classes: tuple[str, ...], values: np.ndarray, guess: np.ndarray, truth: np.ndarray
) -> dict[str, dict[str, float]]:
    table = {}
    for c, name in enumerate(classes):
        hits = float(((guess == c) & (truth == c)).sum())
        n, named = int((truth == c).sum()), int((guess == c).sum())
        recall = hits / n if n else float("nan")
        precision = hits / named if named else float("nan")
        f1 = 2 * hits / (n + named) if n + named else float("nan")
        others = np.delete(values, c, axis=1).max(axis=1)
        margin = np.where(np.isfinite(values[:, c]), values[:, c] - others, -np.inf)
        score = auc(margin, truth == c)
        table[name] = {
            "recall": recall, "precision": precision, "f1": f1, "auc": score, "n": float(n)
        }  # fmt: skip
    return table


def auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the receiver operating characteristic; NaN where one side is empty."""
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return float("nan")
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * m))
