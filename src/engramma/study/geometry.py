"""Representational geometry: which stimuli evoke alike responses, and which models say the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from engramma.data.rdms import RDMs
from engramma.data.recording import Cohort, Recording
from engramma.data.splits import run_ids
from engramma.geometry.inference import Factor, ModelEvaluation, evaluate_models
from engramma.geometry.mds import mds
from engramma.geometry.models import category_model, feature_model
from engramma.geometry.noise import NoiseMethod
from engramma.geometry.rdm import rdm_from_recording, to_square
from engramma.study.context import Context
from engramma.study.media import thumbnails
from engramma.study.result import Figure, Notice, Section, Table
from engramma.study.summary import join, numbers, plural, show, show_p

#: With no more conditions than this, each gets a model of its own.
MOST_APART = 12


def geometry_section(context: Context) -> Section:
    """Cross-validated RDM, and its comparison with models."""
    data: Recording | Cohort = (
        Cohort(context.recordings) if len(context.recordings) > 1 else context.first
    )
    folds = _folds(context)
    noise = noise_method(
        min(
            len(np.unique(run_ids(r))) if folds == "run" else int(r.repeats.min())
            for r in context.recordings.values()
        )
    )
    rdms = rdm_from_recording(data, "crossnobis", cv=folds, noise=noise)
    models = model_rdms(context, rdms)
    stack, over = _replicates(context, data, rdms, folds)
    rng = context.rng("geometry")
    evaluation = (
        evaluate_models(
            stack,
            models,
            method="rho-a",  # categories predict ties, feature models do not
            n_bootstrap=context.options.n_bootstrap,
            over=over,
            rng=rng,
            rows="subjects" if len(rdms) > 2 else "groups of runs",
        )
        if models
        else None
    )
    mean = rdms.dissimilarities.mean(axis=0)
    separate = float((mean > 0).mean())
    best = best_model(evaluation) if evaluation else None
    summary = f"Cross-validated distances are positive for {separate:.0%} of stimulus pairs" + (
        f"; {best}." if best else "."
    )
    labels = row_labels(context, rdms)
    figures = [rdm_figure(mean, labels, summary), _map(mean, labels, context, rdms)]
    numbers_: dict[str, Any] = {
        "method": "crossnobis",
        "folds": folds,
        "n_pairs": int(mean.size),
        "share_positive": separate,
        "mean_distance": float(mean.mean()),
    }
    tables = []
    if evaluation:
        figures.append(models_figure(evaluation, summary))
        tables.append(pairwise_table(evaluation))
        numbers_["models"] = evaluation_numbers(evaluation)
    return Section(
        name="geometry",
        title="Geometry",
        summary=summary,
        numbers=numbers_,
        figures=figures,
        tables=tables,
        methods=[
            "Representational dissimilarities were crossnobis distances (cross-validated "
            f"Mahalanobis distances, folds over {folds}s, "
            + (
                "diagonal noise covariance with shrinkage from the residuals of the training folds"
                if noise
                else "without noise normalisation, as training folds held no repeats"
            )
            + "), whose expectation is zero where two stimuli evoke the same response.",
            "Models were compared with the data by the rank correlation rho-a of "
            f"dissimilarities, with {context.options.n_bootstrap} bootstrap samples over "
            f"{join(over)}, entries between copies of one stimulus left out, and with the lower "
            "and upper noise ceiling. "
            "Comparisons between models are corrected for the false discovery rate.",
        ],
        citations=[
            "kriegeskorte2008rsa",
            "walther2016",
            "nili2014",
            "schutt2023",
            "ledoit2004",
            "benjamini1995",
        ],
        arrays={"rdm": rdms.dissimilarities, **{f"model-{k}": v for k, v in models.items()}},
        notices=_notices(context, folds),
    )


def _folds(context: Context) -> str:
    """Folds over runs where every run holds every stimulus, else over repetitions."""
    for recording in context.recordings.values():
        runs = run_ids(recording)
        stimulus = recording.coord("stimulus")
        all_stimuli = set(stimulus)
        levels = np.unique(runs)
        if len(levels) < 2 or any(set(stimulus[runs == r]) != all_stimuli for r in levels):
            return "repetition"
    return "run"


def noise_method(n_folds: int) -> NoiseMethod | None:
    """Estimate the noise from the training folds, where these hold repeats to estimate it from."""
    return "shrinkage-diagonal" if n_folds > 2 else None


def _replicates(
    context: Context, data: Recording | Cohort, rdms: RDMs, folds: str
) -> tuple[np.ndarray, tuple[Factor, ...]]:
    """RDMs to take the ceiling over: subjects, or with fewer than three, halves of the runs."""
    if len(rdms) >= 3:
        return rdms.dissimilarities, ("stimuli", "subjects")
    recording = context.first
    if folds == "run":
        runs = run_ids(recording)
        levels = np.unique(runs)
        if len(levels) >= 8:
            # Four groups of runs, each with its own cross-validated RDM.
            groups = np.array_split(np.random.default_rng(0).permutation(levels), 4)
            parts = [
                rdm_from_recording(
                    recording.select(np.isin(runs, g)),
                    "crossnobis",
                    cv="run",
                    noise=noise_method(min(map(len, groups))),
                ).dissimilarities[0]
                for g in groups
            ]
            return np.stack(parts), ("stimuli",)
    return rdms.dissimilarities, ("stimuli",)


def model_rdms(context: Context, rdms: RDMs) -> dict[str, np.ndarray]:
    """Category models from the stimulus table, and one model a feature space."""
    stimuli = rdms.stimuli
    models: dict[str, np.ndarray] = {}
    for column in stimuli.categorical():
        models[column] = category_model(stimuli.table[column].astype(str).to_numpy())
    if not models and 3 <= len(stimuli) <= MOST_APART:
        # Nothing groups the conditions: ask for each whether it stands apart from all others.
        for name in stimuli.ids:
            models[f"{name} apart"] = category_model(np.asarray(stimuli.ids) == name)
    if len(stimuli) > 3:
        for name, features in context.feature_spaces.items():
            if name not in ("category", "condition") and not name.startswith("category"):
                models[name] = feature_model(features, stimuli.ids)
    return {k: v for k, v in models.items() if np.ptp(v) > 0}


def best_model(evaluation: ModelEvaluation) -> str:
    """Say which model explains the geometry best, and whether it does at all."""
    name = evaluation.best
    estimate = evaluation.estimates[name]
    found = estimate.details["p_zero_fdr"] < 0.05
    text = (
        f"the model {name!r} explains them best"
        if found
        else f"no model explains them significantly, the best being {name!r}"
    )
    text += f" (rank correlation {show(estimate)}"
    if evaluation.ceiling is not None:
        text += ", noise ceiling {:.2f} to {:.2f}".format(*evaluation.ceiling)
    return text + f"; {show_p(estimate.details['p_zero_fdr'])}, corrected)"


def row_labels(context: Context, rdms: RDMs) -> list[str]:
    """Labels of the rows: category and id."""
    table = rdms.stimuli.table
    column = next((c for c in table.columns if str(c) == "category"), None)
    if column is None or list(table[column].astype(str)) == rdms.stimuli.ids:
        return rdms.stimuli.ids
    return [f"{c} ({i})" for c, i in zip(table[column].astype(str), rdms.stimuli.ids, strict=True)]


def rdm_figure(mean: np.ndarray, labels: list[str], summary: str) -> Figure:
    """Draw the mean RDM, rows sorted by label."""
    order = np.argsort(np.asarray(labels), kind="stable")
    return Figure(
        "rdm",
        "Representational dissimilarity",
        f"Each cell is the dissimilarity of two stimuli. {summary}",
        {"matrix": to_square(mean), "labels": labels, "order": order, "label": "dissimilarity"},
    )


def _map(mean: np.ndarray, labels: list[str], context: Context, rdms: RDMs) -> Figure:
    points = mds(mean, squared=True)
    table = rdms.stimuli.table
    column = next((c for c in table.columns if str(c) == "category"), None)
    categories = None if column is None else table[column].astype(str).tolist()
    return Figure(
        "mds",
        "The stimuli as the brain arranges them",
        "Multidimensional scaling of the mean dissimilarities: stimuli that evoke alike "
        "responses lie close together.",
        {
            "points": points,
            "labels": labels,
            "categories": categories,
            "images": thumbnails(rdms.stimuli),
        },
    )


def models_figure(evaluation: ModelEvaluation, summary: str) -> Figure:
    """Draw models as bars with intervals and the noise ceiling."""
    names = sorted(evaluation.estimates, key=lambda n: -evaluation.estimates[n].value)
    estimates = [evaluation.estimates[n] for n in names]
    return Figure(
        "bars",
        "Models of the geometry",
        f"Correlation of each model with the measured dissimilarities, with 95 % intervals. "
        f"{summary}",
        {
            "names": names,
            "values": np.array([e.value for e in estimates]),
            "low": np.array([e.low for e in estimates]),
            "high": np.array([e.high for e in estimates]),
            "ylabel": f"similarity ({evaluation.method})",
            "ceiling": evaluation.ceiling,
            "p": np.array([e.details["p_zero_fdr"] for e in estimates]),
        },
    )


def pairwise_table(evaluation: ModelEvaluation) -> Table:
    """Tabulate the differences between models."""
    rows = [
        [
            r.model_a,
            r.model_b,
            f"{r.difference:.3f} [{r.low:.3f}, {r.high:.3f}]",
            show_p(float(r.p_fdr)),  # type: ignore[arg-type]
        ]
        for r in evaluation.pairwise.itertuples()
    ]
    return Table(
        "Differences between models",
        ["model", "compared with", "difference", "p (corrected)"],
        rows,
        "Two-sided, false discovery rate over all pairs.",
    )


def evaluation_numbers(evaluation: ModelEvaluation) -> dict[str, Any]:
    """Every number of an evaluation."""
    return {
        "method": evaluation.method,
        "bootstrapped_over": list(evaluation.over),
        "ceiling": evaluation.ceiling,
        "estimates": {
            name: {**numbers(e), **{k: v for k, v in e.details.items()}}
            for name, e in evaluation.estimates.items()
        },
        "pairwise": evaluation.pairwise.to_dict("records"),
        "notes": list(evaluation.notes),
    }


def _notices(context: Context, folds: str) -> list[Notice]:
    notices = []
    if folds == "repetition":
        notices.append(
            Notice(
                "crossnobis over repetitions",
                "not every run holds every stimulus, so distances are cross-validated over "
                "repetitions; repeats that share a run share its noise, which can bias distances.",
            )
        )
    if len(context.recordings) in (1, 2):
        notices.append(
            Notice(
                "few subjects",
                f"{plural(len(context.recordings), 'subject')}: intervals of the geometry speak of "
                "these subjects and do not generalise to others.",
            )
        )
    return notices
