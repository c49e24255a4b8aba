"""Decoding: what can be read out of single response patterns."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from engramma.contracts import Estimate
from engramma.decoding.classify import DecodingResult, decode
from engramma.errors import DataError
from engramma.study.context import Context
from engramma.study.result import Figure, Notice, Section, Table
from engramma.study.summary import join, numbers, over_subjects, plural, show, show_p

CLASSIFIER = "lda"
#: Columns of the stimulus table that are decoded beside the main one.
MOST_COLUMNS = 4


def decoding_section(context: Context) -> Section:
    """Decode the condition, and every categorical column of the stimulus table.

    Raises
    ------
    DataError
        If nothing sorts the presentations into classes.
    """
    columns = context.label_columns[: MOST_COLUMNS + 1]
    if not columns:
        raise DataError(
            "there is nothing to decode",
            where="no condition was repeated and no column of the stimulus table has classes",
            mend="add a column such as 'category' to the stimulus table",
        )
    results = {column: _decode(context, column) for column in columns}
    main = columns[0]
    group = {column: _group(context, column, r) for column, r in results.items()}
    chance = _chance(results[main])
    accuracy, p = group[main]
    n_classes = len(next(iter(results[main].values())).classes)
    above = "above" if accuracy.value > chance else "below"
    verdict = (
        f"{_what(main, n_classes)} decoded from single patterns with an accuracy of "
        f"{show(accuracy)}, {above} the chance level of {chance:.3g} ({show_p(p)})."
        if p < 0.05
        else f"{_what(main, n_classes)} not decodable here: accuracy {show(accuracy)}, chance "
        f"{chance:.3g} ({show_p(p)})."
    )
    return Section(
        name="decoding",
        title="Decoding",
        summary=verdict,
        numbers={
            "main": main,
            "classifier": CLASSIFIER,
            "labels": {
                column: {
                    "accuracy": numbers(group[column][0]),
                    "p_value": group[column][1],
                    "chance": _chance(r),
                    "subjects": {s: _numbers(one) for s, one in r.items()},
                }
                for column, r in results.items()
            },
        },
        figures=_figures(context, results, group, main, verdict),
        tables=[_per_class(results[main])],
        methods=[
            f"{'The condition' if main == 'stimulus' else join(columns)} was decoded with linear "
            "discriminant analysis (covariance shrunk after Ledoit and Wolf, units standardised "
            f"in the training part), {context.split_sentence(context.first, main)}. The accuracy "
            f"was tested against {context.options.n_permutations} permutations of the labels "
            "among exchangeable presentations"
            + (
                ", p values combined over subjects with Fisher's method."
                if _several(context)
                else "."
            ),
        ],
        citations=["scikit-learn", "ledoit2004", "ojala2010", "phipson2010"],
        arrays={
            name: value
            for column, r in results.items()
            for s, one in r.items()
            for name, value in (
                (f"{s}-{column}-confusion", one.confusion),
                (f"{s}-{column}-predicted", one.predicted.astype(str)),
                (f"{s}-{column}-actual", one.actual.astype(str)),
            )
        },
        notices=_notices(results, main, context),
    )


def _decode(context: Context, column: str) -> dict[str, DecodingResult]:
    results = {}
    for subject, recording in context.recordings.items():
        splits = context.splits(recording, column)
        results[subject] = decode(
            recording,
            None if column == "stimulus" else column,
            splits,
            classifier=CLASSIFIER,
            rng=context.rng(f"decoding {column} {subject}"),
            n_permutations=context.options.n_permutations,
        )
    return results


def _group(
    context: Context, column: str, results: dict[str, DecodingResult]
) -> tuple[Estimate, float]:
    """Accuracy over subjects, and a p value over subjects."""
    if len(results) == 1:
        one = next(iter(results.values()))
        return one.accuracy, float(one.p_value or 1.0)
    rng = context.rng(f"decoding group {column}")
    estimate = over_subjects([r.accuracy.value for r in results.values()], rng)
    p = stats.combine_pvalues([float(r.p_value or 1.0) for r in results.values()]).pvalue
    return estimate, float(p)


def _several(context: Context) -> bool:
    return len(context.recordings) > 1


def _chance(results: dict[str, DecodingResult]) -> float:
    return float(np.mean([r.chance for r in results.values()]))


def _what(column: str, n_classes: int) -> str:
    if column == "stimulus":
        return f"The {n_classes} conditions are"
    return f"{column.capitalize()} ({n_classes} classes) is"


def _numbers(result: DecodingResult) -> dict[str, Any]:
    return {
        "accuracy": numbers(result.accuracy),
        "balanced_accuracy": numbers(result.balanced_accuracy),
        "chance": result.chance,
        "p_value": result.p_value,
        "n_tested": len(result.actual),
        "folds": dict(result.folds),
        "per_class": {k: dict(v) for k, v in result.per_class.items()},
        "null_mean": None if result.null is None else float(np.mean(result.null)),
    }


def _figures(
    context: Context,
    results: dict[str, dict[str, DecodingResult]],
    group: dict[str, tuple[Estimate, float]],
    main: str,
    verdict: str,
) -> list[Figure]:
    chosen = results[main]
    classes = _common_classes(chosen)
    confusion = np.zeros((len(classes), len(classes)), dtype=int)
    for result in chosen.values():
        at = [classes.index(c) for c in result.classes]
        confusion[np.ix_(at, at)] += result.confusion
    figures = [
        Figure(
            "confusion",
            "What is taken for what",
            f"Rows are what was presented, columns what was decoded. {verdict}",
            {"matrix": confusion, "labels": classes},
        )
    ]
    if len(results) > 1:
        names = list(results)
        estimates = [group[c][0] for c in names]
        figures.append(
            Figure(
                "bars",
                "What can be decoded",
                "Accuracy relative to chance (accuracy divided by chance) for each column of the "
                "stimulus table; the dashed line is chance.",
                {
                    "names": names,
                    "values": np.array([group[c][0].value / _chance(results[c]) for c in names]),
                    "low": np.array(
                        [e.low / _chance(results[c]) for c, e in zip(names, estimates, strict=True)]
                    ),
                    "high": np.array(
                        [
                            e.high / _chance(results[c])
                            for c, e in zip(names, estimates, strict=True)
                        ]
                    ),
                    "ylabel": "accuracy / chance",
                    "chance": 1.0,
                    "p": np.array([group[c][1] for c in names]),
                    "points": [
                        [r.accuracy.value / r.chance for r in results[c].values()] for c in names
                    ]
                    if _several(context)
                    else None,
                },
            )
        )
    null = np.concatenate([r.null for r in chosen.values() if r.null is not None])
    observed = float(np.mean([r.accuracy.value for r in chosen.values()]))
    figures.append(
        Figure(
            "histogram",
            "Accuracy under permuted labels",
            f"With permuted labels the accuracy is {np.mean(null):.3f} on average; the line marks "
            f"what was observed ({observed:.3f}).",
            {
                "values": {"permuted labels": null},
                "xlabel": "accuracy",
                "reference": (observed, "observed"),
                "counted": "permutations",
            },
        )
    )
    return figures


def _common_classes(results: dict[str, DecodingResult]) -> list[str]:
    return sorted({str(c) for r in results.values() for c in r.classes})


def _per_class(results: dict[str, DecodingResult]) -> Table:
    rows = []
    for name in _common_classes(results):
        scores = [r.per_class[name] for r in results.values() if name in r.per_class]
        rows.append(
            [name]
            + [_mean([s[k] for s in scores]) for k in ("recall", "precision", "auc")]
            + [int(sum(s["n"] for s in scores))]
        )
    return Table(
        "Scores by class",
        ["class", "recall", "precision", "AUC", "presentations tested"],
        rows,
        "AUC: the class against all others." + (" Mean over subjects." if len(results) > 1 else ""),
    )


def _mean(values: list[float]) -> str:
    """Write the mean of what is defined: a class never predicted has no precision."""
    known = [v for v in values if np.isfinite(v)]
    return f"{np.mean(known):.2f}" if known else "none"


def _notices(
    results: dict[str, dict[str, DecodingResult]], main: str, context: Context
) -> list[Notice]:
    notices = []
    for column, by_subject in results.items():
        for subject, result in by_subject.items():
            where = f"{column}, subject {subject}: " if _several(context) else f"{column}: "
            notices += [Notice("decoding", where + note) for note in result.notes]
    splits = context.splits(context.first, main)
    runs_shared = context.n_runs > 1 and not splits[0].name.startswith("run")
    if runs_shared:
        notices.append(
            Notice(
                "leakage risk: shared runs",
                f"stimuli are held out, so {plural(context.n_runs, 'run')} span training and test. "
                "Noise that runs share cannot name a stimulus, but it makes scores depend on the "
                "design's order.",
            )
        )
    return notices
