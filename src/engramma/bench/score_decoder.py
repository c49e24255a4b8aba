"""Score a decoder on a recording it was not written for."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from engramma.bench.material import (
    class_column,
    feature_spaces,
    holds_conditions,
    joined,
    relabelled,
    run_splits,
    stimulus_splits,
)
from engramma.contracts import Estimate, RunResult
from engramma.data.features import Features
from engramma.data.recording import Recording
from engramma.data.splits import Split
from engramma.decoding.retrieval import Identification, rank, similarity
from engramma.encoding.scores import bootstrap_interval
from engramma.errors import ConfigError, DataError

#: With fewer test sets than this, intervals are over presentations.
FEWEST_SETS = 6


def score_decoder(decoder: Any, recording: Recording, rng: np.random.Generator) -> RunResult:
    """Classify held-out presentations; identify held-out stimuli where the decoder can.

    Conditions (few stimuli, repeated over runs) are told in held-out runs. Otherwise classes of
    a column are told of held-out stimuli. A decoder with ``targets`` (the `Features` of every
    stimulus; None until it is given some or makes its own in ``fit``) and ``retrieve`` or
    ``features`` also finds held-out stimuli among all.

    Parameters
    ----------
    decoder : Decoder
        Unfitted; each fold fits a copy.
    recording : Recording
        Of one subject; a time axis is left to the decoder.
    rng : numpy.random.Generator

    Returns
    -------
    RunResult
        ``accuracy``, ``balanced accuracy`` and their chance levels; ``identification (top 1)``,
        ``identification (two-way)``; arrays ``actual``, ``predicted``, ``split``, ``confusion``.
    """
    conditions = holds_conditions(recording)
    if conditions:
        splits, about = run_splits(recording)
        told, rows = recording, recording
        what = "conditions"
    else:
        rows, splits, about = stimulus_splits(recording, rng)
        told = None
        what = ""
    results: list[RunResult] = []
    if callable(getattr(decoder, "classify", None)):
        if told is None:
            column = class_column(recording)
            told, what = relabelled(rows, column), f"classes of {column!r}"
        results.append(_classification(decoder, told, splits, rng, f"What is told: {what}."))
    if not conditions and _identifies(decoder):
        results.append(_identification(decoder, rows, splits, rng))
    if not results:
        raise ConfigError(
            f"{type(decoder).__name__} offers nothing that can be scored on these data",
            where="contract Decoder",
            mend="offer classify, or targets with retrieve or features (which are scored on "
            "held-out stimuli)",
        )
    return RunResult(
        {n: e for r in results for n, e in r.metrics.items()},
        {n: a for r in results for n, a in r.arrays.items()},
        (about, *(note for r in results for note in r.notes)),
    )


def classify_splits(decoder: Any, recording: Recording, splits: Sequence[Split]) -> np.ndarray:
    """Name the stimulus of every tested presentation by a copy fitted without its split.

    Returns
    -------
    ndarray of str, shape (n_presentations,)
        Empty where a presentation was never tested.
    """
    named = np.full(recording.n_presentations, "", dtype=object)
    for split in splits:
        fitted = copy.deepcopy(decoder).fit(recording.select(split.train), recording.stimuli)
        answer = np.asarray(fitted.classify(recording.select(split.test)))
        if answer.shape != (len(split.test),):
            raise ConfigError(
                f"classify gave shape {answer.shape} for {len(split.test)} presentations",
                where=f"{type(decoder).__name__}.classify",
                mend="return one stimulus id a presentation",
            )
        named[split.test] = answer.astype(str)
    return named.astype(str)


def balanced_accuracy(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over classes of the share told right: chance is one over their number."""
    return float(np.mean([(predicted[actual == c] == c).mean() for c in np.unique(actual)]))


def _classification(
    decoder: Any,
    recording: Recording,
    splits: Sequence[Split],
    rng: np.random.Generator,
    note: str,
) -> RunResult:
    actual = recording.coord("stimulus").astype(str)
    predicted = classify_splits(decoder, recording, splits)
    fold = np.empty(len(actual), dtype=np.int64)
    for k, split in enumerate(splits):
        fold[split.test] = k
    by_set = len(splits) >= FEWEST_SETS
    groups = fold if by_set else np.arange(len(actual))
    classes, codes = np.unique(actual, return_inverse=True)
    column = {c: i for i, c in enumerate(classes)}
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    known = np.asarray([column.get(p, -1) for p in predicted])
    np.add.at(confusion, (codes[known >= 0], known[known >= 0]), 1)

    def accuracy(rows: np.ndarray) -> float:
        return float((predicted[rows] == actual[rows]).mean())

    def balanced(rows: np.ndarray) -> float:
        return balanced_accuracy(actual[rows], predicted[rows])

    return RunResult(
        {
            "accuracy": bootstrap_interval(accuracy, groups, rng=rng),
            "chance": Estimate(float(np.bincount(codes).max() / len(codes))),
            "balanced accuracy": bootstrap_interval(balanced, groups, rng=rng),
            "balanced chance": Estimate(1 / len(classes)),
        },
        {
            "actual": actual,
            "predicted": predicted,
            "split": fold,
            "classes": classes,
            "confusion": confusion,
        },
        (
            note,
            "Chance is the share of the most frequent class, balanced chance one over the number "
            f"of classes; intervals resample {'test sets' if by_set else 'presentations'}.",
        ),
    )


def _identifies(decoder: Any) -> bool:
    offered = any(callable(getattr(decoder, name, None)) for name in ("retrieve", "features"))
    return offered and hasattr(decoder, "targets")


def _identification(
    decoder: Any, rows: Recording, splits: Sequence[Split], rng: np.random.Generator
) -> RunResult:
    """Find each held-out stimulus among all stimuli."""
    stimuli = rows.stimuli.select(rows.coord("stimulus"))
    if decoder.targets is None:
        try:
            targets = joined(feature_spaces(stimuli))
        except DataError as error:
            return RunResult({}, {}, (f"Stimuli were not identified: {error}",))
        if len(np.unique(targets.values, axis=0)) < len(stimuli):
            return RunResult(
                {}, {}, ("Stimuli were not identified: some share all their features.",)
            )
        decoder = copy.deepcopy(decoder)
        decoder.targets = targets
    similarities, names = [], []
    for split in splits:
        fitted = copy.deepcopy(decoder).fit(rows.select(split.train), stimuli)
        gallery = fitted.targets
        if gallery is None:
            return RunResult({}, {}, ("Stimuli were not identified: fit made no targets.",))
        order = Features(gallery.rows(stimuli.ids), tuple(stimuli.ids), gallery.name)
        trained = rows.coord("stimulus")[split.train]
        similarities.append(_similarities(fitted, rows.select(split.test), order, trained))
        names.append(rows.coord("stimulus")[split.test])
    found: Identification = rank(
        np.concatenate(similarities), np.concatenate(names), rng=rng, names=stimuli.ids
    )
    metrics = {f"identification (top {k})": e for k, e in found.top.items() if k in (1, 5)}
    metrics["identification (two-way)"] = found.two_way
    return RunResult(
        metrics,
        {"ranks": found.ranks, "queries": np.concatenate(names)},
        (
            f"Each held-out stimulus was sought among {len(stimuli)}, from decoded features "
            f"({order.name}); chance is {1 / len(stimuli):.3g} for the first and 0.5 two-way.",
        ),
    )


def _similarities(
    fitted: Any, tested: Recording, gallery: Features, trained: np.ndarray
) -> np.ndarray:
    """How near each tested presentation is to each gallery entry, in the decoder's own terms."""
    if callable(getattr(fitted, "retrieve", None)):
        order = np.asarray(fitted.retrieve(tested, gallery, top=len(gallery.stimuli)))
        place = {name: i for i, name in enumerate(gallery.stimuli)}
        values = np.full((len(order), len(place)), -float(len(place)))
        for query, entries in enumerate(order):
            for position, name in enumerate(entries):
                values[query, place[str(name)]] = -float(position)
        return values
    # Decoded features carry their own units: large ones would decide alone.
    known = gallery.rows(trained).astype(np.float64)
    mean, spread = known.mean(axis=0), known.std(axis=0)
    spread = np.where(spread > 1e-12, spread, 1.0)
    decoded = (np.asarray(fitted.features(tested)) - mean) / spread
    return similarity(decoded, (gallery.values - mean) / spread)
