"""Identification: is the stimulus that was seen told from others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from engramma.contracts import Estimate
from engramma.data.splits import stimulus_folds
from engramma.decoding.regress import decode_features
from engramma.decoding.retrieval import Identification, identify
from engramma.study.context import N_FOLDS, Context
from engramma.study.encoding import encode_subject
from engramma.study.result import Figure, Section, Table
from engramma.study.summary import numbers, over_subjects, show

PREDICTED = "predicted responses"


def identification_section(context: Context) -> Section | None:
    """Rank all stimuli for each held-out one, from predicted responses and decoded features.

    Returns None for conditions: with nothing known of them but their names, a held-out one
    cannot be identified.
    """
    spaces = context.feature_spaces
    if not spaces or context.encodes_conditions:
        return None
    results: dict[str, dict[str, Identification]] = {PREDICTED: {}}
    for subject, recording in context.recordings.items():
        rng = context.rng(f"identification {subject}")
        encoded = encode_subject(context, subject)
        results[PREDICTED][subject] = identify(
            encoded.predicted,
            encoded.stimulus,
            encoded.truth - encoded.truth.mean(axis=0),
            rng=rng,
            names=encoded.stimulus.tolist(),
        )
        # Repeats are averaged; the same folds over stimuli as for encoding.
        rows = recording.mean_over("stimulus")
        folds = context.rng("splits")
        splits = list(stimulus_folds(rows, N_FOLDS, rng=folds, allow=("run",)))
        for name, features in spaces.items():
            if np.unique(features.values, axis=0).shape[0] < len(features.stimuli):
                continue  # stimuli that share all features cannot be told apart by them
            decoded = decode_features(rows, features, splits, rng=rng)
            results.setdefault(name, {})[subject] = decoded.identification
    top = {n: _group(context, r, lambda i: i.top[1]) for n, r in results.items()}
    two_way = {n: _group(context, r, lambda i: i.two_way) for n, r in results.items()}
    one = next(iter(results[PREDICTED].values()))
    size = len(one.gallery)
    # The source is fixed beforehand: the best of several would be above chance by choice.
    summary = (
        f"From {PREDICTED}, the stimulus is named first among {size} in a share of "
        f"{show(top[PREDICTED])} of cases (chance {1 / size:.3f}) and preferred to another in "
        f"{show(two_way[PREDICTED])} of pairs (chance 0.5)."
    )
    names = list(results)
    return Section(
        name="identification",
        title="Identification",
        summary=summary,
        numbers={
            "gallery": size,
            "chance": dict(one.chance),
            "from": {n: _numbers(context, results[n], top[n], two_way[n]) for n in names},
        },
        figures=[
            Figure(
                "bars",
                "Told from another stimulus",
                f"Share of pairs in which the stimulus that was seen is preferred. {summary}",
                {
                    "names": names,
                    "values": np.array([two_way[n].value for n in names]),
                    "low": np.array([two_way[n].low for n in names]),
                    "high": np.array([two_way[n].high for n in names]),
                    "ylabel": "two-way identification",
                    "chance": 0.5,
                    "points": [[i.two_way.value for i in results[n].values()] for n in names]
                    if len(context.recordings) > 1
                    else None,
                },
            ),
            Figure(
                "ranking",
                "How far down the list",
                f"Share of stimuli that are among the first k of {size} candidates.",
                {
                    "ranks": {
                        n: np.concatenate([i.ranks for i in results[n].values()]) for n in names
                    },
                    "n_candidates": size,
                },
            ),
        ],
        tables=[
            Table(
                f"Identification among {size} stimuli",
                ["from", "first (top 1)", "among first 5", "two-way", "median rank"],
                [
                    [
                        n,
                        show(top[n]),
                        show(_group(context, results[n], lambda i: i.top.get(5, i.top[1]))),
                        show(two_way[n]),
                        f"{np.median([i.median_rank.value for i in results[n].values()]):.1f}",
                    ]
                    for n in names
                ],
                f"Chance: top 1 {1 / size:.3f}, top 5 {min(5 / size, 1):.3f}, two-way 0.5, median "
                f"rank {(size + 1) / 2:.1f}.",
            )
        ],
        methods=[
            "Held-out stimuli were identified among all stimuli by the correlation of predicted "
            "and measured response patterns, and of decoded and actual feature vectors (ridge "
            "regression from responses to features, penalty chosen by inner cross-validation), "
            f"{N_FOLDS}-fold cross-validation over stimuli.",
        ],
        citations=["kay2008", "hoerl1970"],
        arrays={f"{s}-{n}-ranks": i.ranks for n, r in results.items() for s, i in r.items()},
    )


def _group(context: Context, results: Mapping[str, Identification], pick: Any) -> Estimate:
    estimates = [pick(i) for i in results.values()]
    if len(estimates) == 1:
        return estimates[0]
    return over_subjects([e.value for e in estimates], context.rng("identification group"))


def _numbers(
    context: Context, results: Mapping[str, Identification], top: Estimate, two_way: Estimate
) -> dict[str, Any]:
    return {
        "top_1": numbers(top),
        "two_way": numbers(two_way),
        "subjects": {
            s: {
                **{f"top_{k}": numbers(e) for k, e in i.top.items()},
                "two_way": numbers(i.two_way),
                "median_rank": numbers(i.median_rank),
            }
            for s, i in results.items()
        },
    }
