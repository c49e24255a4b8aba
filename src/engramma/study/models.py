"""Which models explain measured dissimilarities: a study of RDMs without responses."""

from __future__ import annotations

import zlib

import numpy as np

from engramma.data.rdms import RDMs
from engramma.errors import DataError
from engramma.features.extraction import available_models, extract
from engramma.geometry.inference import ModelEvaluation, evaluate_rdms
from engramma.geometry.mds import mds
from engramma.geometry.models import category_model, feature_model
from engramma.geometry.rdm import to_square
from engramma.study.context import Options
from engramma.study.geometry import evaluation_numbers, models_figure, pairwise_table
from engramma.study.media import thumbnails
from engramma.study.result import Figure, Notice, Section
from engramma.study.summary import join, plural, show, show_p


def models_section(rdms: RDMs, options: Options) -> Section:
    """Compare every feature model, layer by layer, and every reference with the data.

    Raises
    ------
    DataError
        If there is nothing to compare with.
    """
    features, deep = feature_rdms(rdms, options)
    categories = {
        f"category: {c}": category_model(rdms.stimuli.table[c].astype(str).to_numpy())
        for c in rdms.stimuli.categorical()
    }
    models = {**features, **categories, **rdms.references}
    if not models:
        raise DataError(
            "there is no model to compare the dissimilarities with",
            mend="add images or a category column to stimuli.tsv, or reference RDMs",
        )
    rng = np.random.default_rng([options.seed, zlib.crc32(b"models")])
    evaluation = evaluate_rdms(
        rdms, models, method="spearman", n_bootstrap=options.n_bootstrap, rng=rng
    )
    summary = _summary(evaluation, features, rdms)
    mean = rdms.by_subject().dissimilarities.mean(axis=0)
    return Section(
        name="models",
        title="Models of the geometry",
        summary=summary,
        numbers=evaluation_numbers(evaluation)
        | {
            "similarity_by_subject": {
                name: row.tolist()
                for name, row in zip(evaluation.estimates, evaluation.similarities, strict=True)
            }
        },
        figures=_figures(rdms, evaluation, features, deep, mean, summary),
        tables=[pairwise_table(evaluation)],
        methods=[
            "Model dissimilarities (1 - Pearson correlation of feature vectors; for categories, "
            "0 within and 1 between) were compared with the measured ones by Spearman "
            "correlation, for each subject, sessions averaged. Intervals and tests rest on "
            f"{options.n_bootstrap} bootstrap samples over {join(evaluation.over)}, entries "
            "between copies of one stimulus left out, with the two-factor correction where both "
            "are sampled; comparisons between models are corrected for the false discovery rate. "
            "The noise ceiling is the similarity of each subject to the mean of the others "
            "(lower bound) and of all (upper bound).",
            *evaluation.notes,
        ],
        citations=[
            "kriegeskorte2008rsa",
            "nili2014",
            "schutt2023",
            "benjamini1995",
            "efficientnet",
        ],
        arrays={"measured": rdms.dissimilarities, **{f"model-{k}": v for k, v in models.items()}},
        notices=_notices(rdms),
    )


def feature_rdms(rdms: RDMs, options: Options) -> tuple[dict[str, np.ndarray], list[str]]:
    """RDM of each layer of each feature model; and the names of the layers of deep networks."""
    chosen = options.features
    if chosen is None:
        chosen = tuple(
            m.name
            for m in available_models(rdms.stimuli)
            if m.usable and m.default and m.name != "category"
        )
    models: dict[str, np.ndarray] = {}
    deep: list[str] = []
    for model in chosen:
        spaces = extract(rdms.stimuli, model)
        for name, features in spaces.items():
            models[name] = feature_model(features, rdms.stimuli.ids)
            if len(spaces) > 1:
                deep.append(name)
    return models, deep


def _summary(evaluation: ModelEvaluation, features: dict[str, np.ndarray], rdms: RDMs) -> str:
    text = ""
    if features:
        best = max(features, key=lambda n: evaluation.estimates[n].value)
        estimate = evaluation.estimates[best]
        p = estimate.details["p_zero_fdr"]
        sure = "" if p < 0.05 else ", which is not significant over so few subjects and stimuli"
        text = (
            f"Of {plural(len(features), 'feature space')}, {best!r} explains the measured geometry "
            f"best (Spearman {show(estimate)}; {show_p(p)}, corrected{sure})"
        )
        if evaluation.ceiling is not None:
            lower, upper = evaluation.ceiling
            reach = "reaches" if estimate.value >= lower else "stays below"
            text += f" and {reach} the noise ceiling ({lower:.2f} to {upper:.2f})"
        text += "."
    for name in rdms.references:
        text += f" The reference {name!r} correlates {show(evaluation.estimates[name])}."
    return text.strip() or f"The best model is {evaluation.best!r}."


def _figures(
    rdms: RDMs,
    evaluation: ModelEvaluation,
    features: dict[str, np.ndarray],
    deep: list[str],
    mean: np.ndarray,
    summary: str,
) -> list[Figure]:
    figures = [models_figure(evaluation, summary)]
    if len(deep) > 2:
        estimates = [evaluation.estimates[n] for n in deep]
        model = deep[0].split("/")[0]
        figures.append(
            Figure(
                "lines",
                f"Layer by layer through {model}",
                f"The curve rises from {show(estimates[0])} in the first layer to its maximum of "
                f"{max(e.value for e in estimates):.2f} in layer "
                f"{deep[int(np.argmax([e.value for e in estimates]))].split('/')[-1]!r}.",
                {
                    "x": np.arange(1, len(deep) + 1),
                    "series": {model: np.array([e.value for e in estimates])},
                    "low": {model: np.array([e.low for e in estimates])},
                    "high": {model: np.array([e.high for e in estimates])},
                    "xlabel": "layer: " + ", ".join(n.split("/")[-1] for n in deep),
                    "ylabel": "Spearman correlation",
                    "chance": 0.0,
                    "onset": None,
                },
            )
        )
    best = max(features or evaluation.estimates, key=lambda n: evaluation.estimates[n].value)
    shown = {"measured": to_square(mean)}
    if best in features:
        shown[best] = to_square(features[best])
    shown.update({name: to_square(r) for name, r in rdms.references.items()})
    table = rdms.stimuli.table
    labels = rdms.stimuli.ids
    categories = None
    if "category" in table:
        categories = table["category"].astype(str).tolist()
        labels = [f"{c} ({i})" for c, i in zip(categories, labels, strict=True)]
    order = np.argsort(np.asarray(categories or labels), kind="stable")
    figures.append(
        Figure(
            "rdms",
            "Measured and modelled dissimilarities",
            "Each matrix as percentile ranks; stimuli sorted by category. Blocks that stand in "
            "the measured matrix and in a model are what the model explains.",
            {"matrices": shown, "labels": labels, "order": order},
        )
    )
    figures.append(
        Figure(
            "mds",
            "The stimuli as the brain arranges them",
            "Multidimensional scaling of the mean measured dissimilarities: stimuli that evoke "
            "alike responses lie close together.",
            {
                "points": mds(mean),
                "labels": labels,
                "categories": categories,
                "images": thumbnails(rdms.stimuli),
            },
        )
    )
    return figures


def _notices(rdms: RDMs) -> list[Notice]:
    n = len(set(rdms.subject))
    if n >= 10:
        return []
    return [
        Notice(
            "few subjects",
            f"{plural(n, 'subject')}: the noise ceiling and intervals over subjects are coarse.",
        )
    ]
