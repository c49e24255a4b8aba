"""Encoding: which features of the stimuli predict which units, on data held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from statsmodels.stats.multitest import fdrcorrection

from engramma.contracts import Estimate
from engramma.data.ceilings import Ceiling, variance_ceiling
from engramma.data.recording import Recording
from engramma.data.splits import Split, run_ids, stimulus_folds
from engramma.encoding.banded import BandedRidgeCV
from engramma.encoding.partition import variance_partition
from engramma.encoding.ridge import RidgeCV
from engramma.encoding.scores import correlation_within
from engramma.errors import DataError
from engramma.features.extraction import available_models
from engramma.study.context import N_FOLDS, Context, rois, unit_positions
from engramma.study.executor import map_units
from engramma.study.result import Figure, Notice, Section, Table
from engramma.study.summary import (
    by_roi,
    join,
    numbers,
    over_subjects,
    percentiles,
    plural,
    show,
)

ALPHAS = tuple(float(a) for a in np.logspace(-2, 5, 15))
#: Weightings of feature spaces that the banded ridge tries.
N_CANDIDATES = 16


@dataclass(frozen=True, eq=False)
class Encoded:
    """Held-out predictions of one subject.

    Parameters
    ----------
    truth : ndarray, shape (n_rows, n_units)
        Measured responses: means over repeats, or single patterns of conditions.
    predicted : ndarray, shape (n_rows, n_units)
        Of the model with all spaces, less the training mean.
    scores : mapping of str to ndarray, shape (n_units,)
        Correlation of each space alone, and of ``"all"``.
    partition : mapping of str to ndarray
        ``joint`` (n_units,), ``product`` and ``unique`` (n_spaces, n_units), explained variance.
    stimulus : ndarray of str, shape (n_rows,)
        What each row is.
    folds : tuple of ndarray of int
        Rows of each test set, within which predictions may be exchanged.
    ceiling : Ceiling or None
    """

    truth: np.ndarray
    predicted: np.ndarray
    scores: Mapping[str, np.ndarray]
    partition: Mapping[str, np.ndarray]
    stimulus: np.ndarray
    folds: tuple[np.ndarray, ...]
    ceiling: Ceiling | None


@lru_cache(maxsize=64)
def encode_subject(context: Context, subject: str) -> Encoded:
    """Fit every feature space alone and all together, and predict what was held out."""
    recording = context.recordings[subject]
    conditions = context.encodes_conditions
    rows = recording if conditions else recording.mean_over("stimulus")
    splits, inner = encoding_splits(context, rows, conditions)
    stimulus = rows.coord("stimulus").astype(str)
    spaces = {n: f.rows(stimulus) for n, f in context.feature_spaces.items()}
    weightings = BandedRidgeCV(n_candidates=N_CANDIDATES, rng=context.rng("weightings")).weightings(
        len(spaces)
    )
    parts = map_units(
        fit_units,
        rows.values,
        context.options.executor,
        spaces=spaces,
        splits=splits,
        inner=inner,
        weightings=weightings,
    )
    try:
        ceiling = variance_ceiling(recording, n_averaged=1 if conditions else None)
    except DataError:
        ceiling = None
    return Encoded(
        truth=rows.values,
        predicted=parts.pop("predicted"),
        scores={n.removeprefix("r "): v for n, v in parts.items() if n.startswith("r ")},
        partition={n: v for n, v in parts.items() if not n.startswith("r ")},
        stimulus=stimulus,
        folds=tuple(split.test for split in splits),
        ceiling=ceiling,
    )


def encoding_splits(
    context: Context, rows: Recording, conditions: bool
) -> tuple[list[Split], list[Any]]:
    """Outer folds, and the inner folds of each that choose the regularisation.

    Both keep apart what the study generalises over: runs for conditions, stimuli else.
    """
    if conditions:
        splits = context.splits(rows, "stimulus")
        inner: list[Any] = []
        for split in splits:
            runs = run_ids(rows)[split.train]
            groups = np.unique(runs, return_inverse=True)[1] % N_FOLDS
            inner.append(
                [
                    (np.flatnonzero(groups != g), np.flatnonzero(groups == g))
                    for g in np.unique(groups)
                ]
                if groups.max() > 0
                else N_FOLDS
            )
        return splits, inner
    splits = list(stimulus_folds(rows, N_FOLDS, rng=context.rng("splits"), allow=("run",)))
    return splits, [N_FOLDS] * len(splits)


def fit_units(
    values: np.ndarray,
    *,
    spaces: Mapping[str, np.ndarray],
    splits: list[Split],
    inner: list[Any],
    weightings: np.ndarray,
) -> dict[str, np.ndarray]:
    """Cross-validated predictions, correlations and variance partition of some units."""
    n_units = values.shape[1]
    several = len(spaces) > 1
    predicted = {n: np.zeros_like(values) for n in ("all", *spaces)}
    joint = np.zeros(n_units)
    product, unique = np.zeros((len(spaces), n_units)), np.zeros((len(spaces), n_units))
    for split, folds in zip(splits, inner, strict=True):
        train, test = split.train, split.test
        share = len(test) / len(values)
        mean = values[train].mean(axis=0)
        spaces_train = {n: x[train] for n, x in spaces.items()}
        spaces_test = {n: x[test] for n, x in spaces.items()}
        scaled_train, scaled_test = _standardised(spaces_train, spaces_test)
        for name in spaces:
            model = RidgeCV(alphas=ALPHAS, cv=folds).fit(scaled_train[name], values[train])
            predicted[name][test] = model.predict(scaled_test[name]) - mean
        if not several:
            continue
        banded = BandedRidgeCV(alphas=ALPHAS, candidates=weightings, cv=folds)
        parts = variance_partition(banded, scaled_train, values[train], scaled_test, values[test])
        predicted["all"][test] = banded.predict(scaled_test) - mean
        joint += share * parts.joint
        product += share * parts.product
        unique += share * (parts.unique if parts.unique is not None else 0)
    if not several:
        predicted["all"] = next(v for n, v in predicted.items() if n != "all")
    folds = [split.test for split in splits]
    out = {f"r {n}": correlation_within(values, p, folds) for n, p in predicted.items()}
    out["predicted"] = predicted["all"]
    if several:
        out |= {"joint": joint, "product": product, "unique": unique}
    return out


def _standardised(
    train: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Standardise features by their training values, and give every space the same size.

    A space of 2000 features would otherwise outweigh one of 20 at the same penalty.
    """
    out: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = ({}, {})
    for name, x in train.items():
        mean, scale = x.mean(axis=0), x.std(axis=0)
        varies = scale > 1e-6 * max(float(np.abs(x).max()), 1e-12)
        size = np.sqrt(max(int(varies.sum()), 1))
        for part, values in zip(out, (x, test[name]), strict=True):
            part[name] = ((values - mean)[:, varies] / scale[varies] / size).astype(np.float32)
            if not varies.any():
                part[name] = np.zeros((len(values), 1), dtype=np.float32)
    return out


def permutation_p(encoded: Encoded, rng: np.random.Generator, n_permutations: int) -> np.ndarray:
    """P value of each unit's correlation: predictions are exchanged between stimuli."""
    truth, predicted = (_unit_norm(x, encoded.folds) for x in (encoded.truth, encoded.predicted))
    observed = (truth * predicted).sum(axis=0)
    above = np.ones(truth.shape[1])
    order = np.arange(len(truth))
    for _ in range(n_permutations):
        for fold in encoded.folds:
            order[fold] = rng.permutation(fold)
        above += (truth * predicted[order]).sum(axis=0) >= observed
    return above / (n_permutations + 1)


def over_rows(encoded: Encoded, rng: np.random.Generator, n_bootstrap: int = 2000) -> Estimate:
    """Mean correlation over units, with an interval over stimuli (or patterns) drawn anew.

    A correlation within test sets is a sum over rows, and so is its mean over units: rows are
    drawn within their test set, the scale of responses is kept.
    """
    truth, predicted = (_unit_norm(x, encoded.folds) for x in (encoded.truth, encoded.predicted))
    part = (truth * predicted).mean(axis=1)
    draws = np.zeros(n_bootstrap)
    for fold in encoded.folds:
        draws += part[fold][rng.integers(0, len(fold), (n_bootstrap, len(fold)))].sum(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(float(part.sum()), float(low), float(high))


def _unit_norm(x: np.ndarray, folds: Sequence[np.ndarray]) -> np.ndarray:
    """Standardise within each test set, so that sums of products are correlations within it."""
    out = np.zeros_like(x)
    for fold in folds:
        part = x[fold] - x[fold].mean(axis=0)
        norm = np.linalg.norm(part, axis=0)
        share = np.sqrt(len(fold) / len(x))
        out[fold] = share * part / np.where(norm > 1e-12, norm, np.inf)
    return out


# -- the section ---------------------------------------------------------------------------


def encoding_section(context: Context) -> Section:
    """Compare feature spaces by what they predict.

    Raises
    ------
    DataError
        If there are no features.
    """
    if not context.feature_spaces:
        raise DataError(
            "the stimuli have no features",
            where="no image, caption, audio or category column, and too many stimuli to be "
            "conditions",
            mend="add a stimulus table with image or caption columns, or name a model with "
            "--features",
        )
    spaces = list(context.feature_spaces)
    names = [*spaces, "all"] if len(spaces) > 1 else spaces
    encoded = {s: encode_subject(context, s) for s in context.recordings}
    rng = context.rng("encoding")
    p_values = {
        s: permutation_p(e, rng, min(context.options.n_permutations, 1000))
        for s, e in encoded.items()
    }
    predicted_share = {s: float(fdrcorrection(p)[0].mean()) for s, p in p_values.items()}
    mean_r = {
        n: over_subjects([float(e.scores[n].mean()) for e in encoded.values()], rng) for n in names
    }
    if len(encoded) == 1:
        mean_r[names[-1]] = over_rows(next(iter(encoded.values())), rng)
    best = max(spaces, key=lambda n: mean_r[n].value)
    share = over_subjects(list(predicted_share.values()), rng)
    whole = names[-1]
    normalised = [_normalised(e, whole) for e in encoded.values()]
    of_ceiling = over_subjects([n for n in normalised if np.isfinite(n)] or [np.nan], rng)
    summary = (
        f"{share.value:.0%} of units are predicted significantly on held-out data (mean "
        f"correlation {show(mean_r[whole])}"
        + (
            f", {of_ceiling.value:.0%} of the noise ceiling"
            if np.isfinite(of_ceiling.value)
            else ""
        )
        + ")"
        + (f"; alone, {best!r} predicts best ({show(mean_r[best])})." if len(spaces) > 1 else ".")
    )
    figures = [_scores_figure(names, encoded, mean_r, summary)]
    tables = [_roi_table(context, encoded, names)] if rois(context.first) is not None else []
    if len(spaces) > 1:
        figures.append(_partition_figure(context, encoded, spaces))
    figures += _brain(context, encoded, whole)
    return Section(
        name="encoding",
        title="Encoding",
        summary=summary,
        numbers={
            "spaces": {
                n: {
                    "features": f.n_features,
                    "model": f.model,
                    "layer": f.layer,
                    "mean_correlation": numbers(mean_r[n]),
                }
                for n, f in context.feature_spaces.items()
            },
            "all": {"mean_correlation": numbers(mean_r[whole])},
            "share_predicted": numbers(share),
            "share_of_ceiling": numbers(of_ceiling),
            "subjects": {
                s: {
                    "share_predicted": predicted_share[s],
                    "correlation": {n: percentiles(e.scores[n]) for n in names},
                    "share_of_ceiling": _normalised(e, whole),
                }
                for s, e in encoded.items()
            },
            "rois": _roi_numbers(context, encoded, names),
        },
        figures=figures,
        tables=tables,
        methods=_methods(context, spaces),
        citations=["naselaris2011", "dupre2022", "hoerl1970", "benjamini1995", "phipson2010"],
        arrays={
            f"{s}-{n}": v
            for s, e in encoded.items()
            for n, v in (*e.scores.items(), *e.partition.items(), ("p", p_values[s]))
        },
        notices=_notices(context, encoded),
    )


def _normalised(encoded: Encoded, name: str) -> float:
    """Mean score over the mean ceiling, of all units.

    Keeping the units with a good ceiling would choose those whose noise happens to repeat.
    """
    ceiling = 0.0 if encoded.ceiling is None else float(encoded.ceiling.correlation.mean())
    return float(encoded.scores[name].mean()) / ceiling if ceiling > 0 else float("nan")


def _scores_figure(
    names: list[str], encoded: Mapping[str, Encoded], mean_r: Mapping[str, Any], summary: str
) -> Figure:
    several = len(encoded) > 1
    first = next(iter(encoded.values()))
    if len(names) == 1 and not several:
        return Figure(
            "histogram",
            "How well units are predicted",
            f"Each count is a unit. {summary}",
            {"values": {names[0]: first.scores[names[0]]}, "xlabel": "correlation, held out"},
        )
    return Figure(
        "bars",
        "Which features predict the responses",
        "Correlation of prediction and held-out response, mean over all units"
        + (", dots are subjects" if several else "")
        + f". {summary}",
        {
            "names": names,
            "values": np.array([mean_r[n].value for n in names]),
            "low": np.array([mean_r[n].low for n in names]),
            "high": np.array([mean_r[n].high for n in names]),
            "ylabel": "correlation, held out",
            "chance": 0.0,
            "points": [[float(e.scores[n].mean()) for e in encoded.values()] for n in names]
            if several
            else None,
        },
    )


def _roi_values(
    context: Context, encoded: Mapping[str, Encoded], pick: Any
) -> dict[str, list[float]]:
    """Mean of a per-unit value in each region, one value a subject."""
    values: dict[str, list[float]] = {}
    for subject, e in encoded.items():
        for roi, v in by_roi(pick(e), rois(context.recordings[subject])).items():
            values.setdefault(roi, []).append(float(np.mean(v)))
    return values


def _roi_numbers(
    context: Context, encoded: Mapping[str, Encoded], names: list[str]
) -> dict[str, Any]:
    return {n: _roi_values(context, encoded, lambda e, n=n: e.scores[n]) for n in names}


def _roi_table(context: Context, encoded: Mapping[str, Encoded], names: list[str]) -> Table:
    by_space = _roi_numbers(context, encoded, names)
    regions = list(next(iter(by_space.values())))
    rows = []
    for roi in regions:
        values = {n: float(np.mean(by_space[n][roi])) for n in names}
        alone = [n for n in names if n != "all"]
        best = max(alone, key=lambda n: values[n])
        rows.append([roi, *(f"{values[n]:.2f}" for n in names), best])
    return Table(
        "Mean correlation by region",
        ["region", *names, "best alone"],
        rows,
        "Held-out data, all units of the region, mean over subjects.",
    )


def _partition_figure(
    context: Context, encoded: Mapping[str, Encoded], spaces: list[str]
) -> Figure:
    regions = list(by_roi(np.zeros(context.first.n_units), rois(context.first)))
    unique = np.array(
        [
            [
                np.mean(_roi_values(context, encoded, lambda e, i=i: e.partition["unique"][i])[r])
                for i in range(len(spaces))
            ]
            for r in regions
        ]
    )
    joint = _roi_values(context, encoded, lambda e: e.partition["joint"])
    total = np.array([np.mean(joint[r]) for r in regions])
    best = spaces[int(unique.mean(axis=0).argmax())]
    return Figure(
        "partition",
        "What each feature space explains that the others do not",
        f"Explained variance of held-out responses, partitioned in a banded ridge of all spaces; "
        f"{best!r} explains most that no other space does "
        f"({unique.mean(axis=0).max():.3f} of the variance on average).",
        {
            "names": spaces,
            "unique": unique,
            "shared": np.clip(total - unique.sum(axis=1), 0, None),
            "groups": regions,
        },
    )


def _brain(context: Context, encoded: Mapping[str, Encoded], name: str) -> list[Figure]:
    subject = next(iter(encoded))
    places = unit_positions(context.first)
    if places is None:
        return []
    scores = encoded[subject].scores[name]
    return [
        Figure(
            "brain",
            f"Where responses are predicted (subject {subject})",
            f"Correlation of prediction and held-out response; "
            f"{plural(int((scores > 0.3).sum()), 'voxel')} of {len(scores)} exceed 0.3.",
            {"values": scores, **places, "title": "encoding", "label": "correlation"},
        )
    ]


def _methods(context: Context, spaces: list[str]) -> list[str]:
    listed = join(
        [
            f"{n} ({f.model + ', ' if f.model and f.model != n else ''}"
            f"{plural(f.n_features, 'feature')})"
            for n, f in context.feature_spaces.items()
        ]
    )
    conditions = context.encodes_conditions
    unit = "single response patterns" if conditions else "mean responses over repeats"
    split = (
        context.split_sentence(context.first, "stimulus")
        if conditions
        else f"{N_FOLDS}-fold cross-validation over stimuli"
    )
    sentences = [
        f"Encoding models predicted {unit} from {listed} by ridge regression, features "
        "standardised in the training part and the penalty chosen for each unit by inner "
        f"cross-validation, {split}. The score is the correlation of prediction and response "
        "within each test set, averaged, and tested by exchanging predictions within test sets "
        f"({min(context.options.n_permutations, 1000)} permutations, false discovery rate 5 %).",
    ]
    if len(spaces) > 1:
        sentences.append(
            f"All spaces were combined in a banded ridge ({N_CANDIDATES} weightings by random "
            "search, chosen for each unit), and the explained variance partitioned: unique "
            "variance is the loss when a space is left out."
        )
    return sentences


def _notices(context: Context, encoded: Mapping[str, Encoded]) -> list[Notice]:
    notices = []
    if any(e.ceiling is None for e in encoded.values()):
        notices.append(
            Notice("no noise ceiling", "stimuli were not repeated, so scores are not normalised.")
        )
    if context.options.features is None and not context.encodes_conditions:
        notices += [
            Notice("feature model not installed", f"{m.name}: {m.reason}")
            for m in available_models(context.stimuli)
            if m.fits and m.default and not m.installed
        ]
    n = min(len(e.truth) for e in encoded.values())
    if n < 50 and not context.encodes_conditions:
        notices.append(
            Notice(
                "few stimuli",
                f"encoding models were fitted to {n} stimuli: scores are low "
                "because models are, not only because features are.",
            )
        )
    return notices
