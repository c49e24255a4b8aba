"""Noise ceiling: how well any model could predict these responses."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import fdrcorrection

from engramma.data.ceilings import repeats_array, split_half_ceiling, variance_ceiling
from engramma.data.recording import Recording
from engramma.study.context import Context, rois, unit_positions
from engramma.study.result import Figure, Notice, Section, Table
from engramma.study.summary import by_roi, numbers, over_subjects, percentiles, plural, show


def ceiling_section(context: Context) -> Section:
    """Estimate the ceiling of every unit from repeats.

    Two estimates that share no step stand beside each other: variance components (used in the
    rest of the study) and split halves with Spearman-Brown.
    """
    rng = context.rng("ceiling")
    per_subject: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    rows: list[list[Any]] = []
    pooled: dict[str, list[np.ndarray]] = {}
    for subject, recording in context.recordings.items():
        ceiling = variance_ceiling(recording)
        single = variance_ceiling(recording, n_averaged=1)
        halves = split_half_ceiling(recording, rng=rng, n_splits=30)
        reliable = reliable_units(recording)
        arrays[f"{subject}-correlation"] = ceiling.correlation
        arrays[f"{subject}-single"] = single.correlation
        arrays[f"{subject}-reliable"] = reliable
        per_subject[subject] = {
            "mean_of_repeats": percentiles(ceiling.correlation),
            "single_presentation": percentiles(single.correlation),
            "split_half": percentiles(halves.correlation),
            "n_averaged": ceiling.n_averaged,
            "share_reliable": float(reliable.mean()),
            "n_reliable": int(reliable.sum()),
        }
        for name, values in by_roi(ceiling.correlation, rois(recording)).items():
            pooled.setdefault(name, []).append(values)
        rows.append(
            [
                subject,
                recording.n_units,
                f"{np.median(single.correlation):.2f}",
                f"{np.median(ceiling.correlation):.2f}",
                f"{np.median(halves.correlation):.2f}",
                f"{int(reliable.sum())} ({reliable.mean():.0%})",
            ]
        )
    medians = [v["mean_of_repeats"]["median"] for v in per_subject.values()]
    shares = [v["share_reliable"] for v in per_subject.values()]
    middle, share = over_subjects(medians, rng), over_subjects(shares, rng)
    repeats = next(iter(per_subject.values()))["n_averaged"]
    summary = (
        f"The median unit could be predicted at a correlation of {show(middle)} (mean of "
        f"{repeats:.3g} repeats); {share.value:.0%} of units respond reliably to the stimuli."
    )
    figures = [
        Figure(
            "histogram",
            "Noise ceiling",
            f"Each count is a unit; the value is the highest correlation that a perfect model "
            f"could reach with its mean response. {summary}",
            {
                "values": {name: np.concatenate(v) for name, v in pooled.items()},
                "xlabel": "noise ceiling (correlation)",
            },
        )
    ]
    figures += _map(context, arrays)
    return Section(
        name="ceiling",
        title="Noise ceiling",
        summary=summary,
        numbers={
            "median": numbers(middle),
            "share_reliable": numbers(share),
            "subjects": per_subject,
            "rois": {name: percentiles(np.concatenate(v)) for name, v in pooled.items()},
        },
        figures=figures,
        tables=[
            Table(
                "Noise ceiling by subject (median over units)",
                [
                    "subject",
                    "units",
                    "single presentation",
                    "mean of repeats",
                    "split half",
                    "reliable units",
                ],
                rows,
                "Reliable: one-way analysis of variance over stimuli, false discovery rate 5 %.",
            )
        ],
        methods=[
            "The noise ceiling of each unit was estimated from repeats by variance components "
            "(noise variance from the variance over repeats of a stimulus, signal variance from "
            "the variance of stimulus means less the noise left in them), and checked against "
            "split-half reliability (30 random splits, corrected with the Spearman-Brown "
            "formula). Units were called reliable by a one-way analysis of variance over "
            "stimuli at a false discovery rate of 5 %.",
        ],
        citations=["allen2022", "spearman1910", "benjamini1995"],
        arrays=arrays,
        notices=_few_repeats(context),
    )


def reliable_units(recording: Recording, q: float = 0.05) -> np.ndarray:
    """Units whose mean response differs between stimuli (one-way ANOVA, FDR-corrected)."""
    stacked, present = repeats_array(recording)
    count = present.sum(axis=1)
    values = stacked.astype(np.float64)
    means = np.nanmean(values, axis=1)
    grand = (means * _over(count, means)).sum(axis=0) / count.sum()
    between = (_over(count, means) * (means - grand) ** 2).sum(axis=0) / (len(count) - 1)
    within_df = int((count - 1).sum())
    within = np.nansum((values - means[:, None]) ** 2, axis=(0, 1)) / within_df
    f = np.divide(between, within, out=np.zeros_like(between), where=within > 0)
    p = stats.f.sf(f, len(count) - 1, within_df)
    return np.asarray(fdrcorrection(p.ravel(), alpha=q)[0]).reshape(p.shape)


def _over(count: np.ndarray, like: np.ndarray) -> np.ndarray:
    return count.reshape(-1, *(1,) * (like.ndim - 1))


def _map(context: Context, arrays: dict[str, np.ndarray]) -> list[Figure]:
    subject, recording = next(iter(context.recordings.items()))
    places = unit_positions(recording)
    if places is None:
        return []
    values = arrays[f"{subject}-correlation"]
    return [
        Figure(
            "brain",
            f"Where responses are reliable (subject {subject})",
            f"Noise ceiling of each voxel; {plural(int((values > 0.5).sum()), 'voxel')} of "
            f"{len(values)} exceed a correlation of 0.5.",
            {
                "values": values,
                **places,
                "title": "noise ceiling",
                "label": "correlation",
            },
        )
    ]


def _few_repeats(context: Context) -> list[Notice]:
    repeats = context.first.repeats
    if repeats.min() >= 3:
        return []
    once = int((repeats == 1).sum())
    text = f"stimuli were shown {int(repeats.min())} to {int(repeats.max())} times"
    text += f"; {once} were shown once and do not enter the ceiling" if once else ""
    return [Notice("few repeats", text + ". Ceilings from fewer than three repeats are imprecise.")]
