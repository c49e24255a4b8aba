"""The report: every kind of figure, escaping, atomic writing, references."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from engramma.errors import ConfigError, DataError
from engramma.report.anatomy import flatten
from engramma.report.figures import FIGURES, draw
from engramma.report.html import render, write_report
from engramma.report.methods import methods_paragraph
from engramma.report.plot import number, safe_json, thumbnail
from engramma.study.references import BIBTEX, bibtex
from engramma.study.result import Figure, Notice, Section, Study, Table

NASTY = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
OBJECTS = ["bottle", "cat", "chair", "face", "house", "scissors", "scrambledpix", "shoe"]


def example_study(seed: int = 0) -> Study:
    """A study that uses every kind of figure, with hostile strings in every place for text."""
    rng = np.random.default_rng(seed)
    n = len(OBJECTS)
    normal = rng.standard_normal

    counts = np.round(np.eye(n) * 60 + rng.integers(0, 12, (n, n))).astype(int)
    ceiling = Section(
        "ceiling",
        "How reliable are the responses?",
        f"Half of the voxels are reliable (median 0.31, 95 % CI 0.28 to 0.35). {NASTY}",
        numbers={"median": 0.31, "voxels": {"V1": 120, "bad": float("nan")}, "name": NASTY},
        figures=[
            Figure(
                "histogram",
                "Noise ceiling of voxels",
                f"Most lie above zero. {NASTY}",
                {
                    "values": {
                        "ventral temporal": normal(300) * 0.2 + 0.4,
                        NASTY: normal(90) * 0.1,
                    },
                    "xlabel": "noise ceiling (r)",
                    "reference": (0.2, "reliable"),
                },
            ),
            Figure(
                "brain",
                "Where the ceiling is high",
                "It is highest in the left.",
                single_slice(rng),
            ),
            Figure("brain", "Whole brain", "A volume with depth.", whole_brain(rng)),
        ],
        tables=[
            Table(
                "By region",
                ["region", "n", "median", "interval", NASTY],
                [
                    ["ventral temporal", 530, 0.3123, "0.28 to 0.35", True],
                    [NASTY, 12_345, 1e-7, [1, 2.5], None],
                ],
                caption="Medians.",
            )
        ],
        methods=["the noise ceiling was estimated by split half with Spearman-Brown correction"],
        citations=["spearman1910", "brown1910", "nilearn"],
    )
    layers = [f"efficientnet.block{i}" for i in range(12)]
    score = np.linspace(0.1, 0.3, 12)
    encoding = Section(
        "encoding",
        "Which features predict them?",
        "The late layers predict best (r = 0.30). They explain 70 % of what can be explained.",
        numbers={"r": score},
        figures=[
            Figure(
                "bars",
                "Prediction by layer",
                "Late layers win.",
                {
                    "names": layers,
                    "values": score,
                    "low": score - 0.03,
                    "high": score + 0.03,
                    "ylabel": "prediction (r)",
                    "chance": 0.0,
                    "ceiling": (0.35, 0.42),
                    "p": np.geomspace(1e-4, 0.2, 12),
                },
            ),
            Figure(
                "grouped_bars",
                "By region",
                "Regions differ.",
                {
                    "names": ["V1", "V4", "IT"],
                    "ylabel": "prediction (r)",
                    "ceiling": (0.35, 0.4),
                    "groups": {
                        g: (v, v - 0.04, v + 0.04)
                        for g, v in {
                            "Gabor": np.array([0.3, 0.2, 0.1]),
                            "EfficientNet": np.array([0.2, 0.3, 0.36]),
                            NASTY: np.array([0.1, 0.1, -0.05]),
                        }.items()
                    },
                },
            ),
            Figure(
                "partition",
                "Variance partition",
                "Both count.",
                {
                    "names": ["Gabor", "EfficientNet", "words"],
                    "groups": ["V1", "IT"],
                    "unique": [[0.12, 0.02, 0.01], [0.02, 0.15, -0.01]],
                    "shared": [0.05, 0.08],
                    "product": [[0.14, 0.05, 0.01], [0.05, 0.2, 0.0]],
                },
            ),
            Figure(
                "scatter",
                "Prediction against ceiling",
                "Below the ceiling.",
                {
                    "x": (c := rng.random(300)),
                    "y": c * rng.random(300),
                    "color": np.where(c > 0.5, "reliable", NASTY),
                    "xlabel": "ceiling",
                    "ylabel": "prediction",
                    "diagonal": True,
                },
            ),
            Figure(
                "scatter",
                "Depth",
                "A colour scale.",
                {
                    "x": normal(50),
                    "y": normal(50),
                    "color": rng.random(50),
                    "xlabel": "depth",
                    "ylabel": "r",
                    "labels": [NASTY] * 50,
                },
            ),
            Figure(
                "heatmap",
                "Feature space by region",
                "Diagonal.",
                {
                    "matrix": normal((3, 5)),
                    "xlabels": ["V1", "V2", "V4", "PPA", "FFA"],
                    "ylabels": ["Gabor", "EfficientNet-Lite0 layer 12", NASTY],
                    "label": "weight",
                },
            ),
            Figure(
                "ranking",
                "Identification",
                "Half are first.",
                {
                    "ranks": {
                        "predicted": rng.integers(1, 30, 90),
                        "decoded": rng.integers(1, 92, 90),
                    },
                    "n_candidates": 92,
                },
            ),
        ],
        methods=["Banded ridge regression was fitted by cross-validation over runs."],
        citations=["dupre2022", "efficientnet", "spearman1910"],
    )
    times = np.linspace(-0.2, 0.8, 60)
    bump = np.exp(-((times - 0.2) ** 2) / 0.01)
    channels = [f"E{i}" for i in range(32)]
    azimuth, polar = rng.uniform(0, 2 * np.pi, 32), rng.uniform(0, 1.7, 32)
    xyz = 0.09 * np.stack(
        [np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)]
    )
    decoding = Section(
        "decoding",
        "What can be read out?",
        "Eight classes are decoded at 0.82 (chance 0.125, p = 0.001).",
        numbers={"accuracy": 0.82},
        figures=[
            Figure(
                "confusion",
                "Confusions",
                "Houses are never faces.",
                {"matrix": counts, "labels": OBJECTS},
            ),
            Figure(
                "bars",
                "Accuracy by subject",
                "All above chance.",
                {
                    "names": ["all", "shuffled"],
                    "values": [0.82, 0.13],
                    "low": [0.78, 0.1],
                    "high": [0.86, 0.16],
                    "ylabel": "accuracy",
                    "chance": 0.125,
                    "p": [1e-3, 0.4],
                    "points": rng.normal([[0.82], [0.13]], 0.04, (2, 9)),
                },
            ),
            Figure(
                "lines",
                "Accuracy over time",
                "From 130 ms.",
                {
                    "x": times,
                    "series": {"position": 0.5 + 0.3 * bump, "category": 0.5 + 0.1 * bump},
                    "low": {"position": 0.45 + 0.3 * bump},
                    "high": {"position": 0.55 + 0.3 * bump},
                    "ylabel": "AUC",
                    "chance": 0.5,
                    "spans": {"position": [(0.1, 0.35, 0.001)], "category": [(0.15, 0.25, 0.02)]},
                },
            ),
            Figure(
                "time_matrix",
                "Temporal generalisation",
                "On the diagonal.",
                {
                    "matrix": 0.5 + 0.3 * np.outer(bump, bump),
                    "times": times,
                    "chance": 0.5,
                    "significant": np.outer(bump, bump) > 0.3,
                    "label": "AUC",
                },
            ),
            Figure(
                "sensors",
                "Where",
                "At the back.",
                {
                    "values": normal(32),
                    "x": xyz[0],
                    "y": xyz[1],
                    "z": xyz[2],
                    "names": channels,
                    "label": "alpha power ($\\mu V^2$)",
                },
            ),
            Figure(
                "topomaps",
                "Evoked",
                "Moves forward.",
                {
                    "values": normal((8, 32)),
                    "times": times[::8],
                    "x": xyz[0],
                    "y": xyz[1],
                    "z": xyz[2],
                    "names": channels,
                    "label": "amplitude (µV)",
                },
            ),
        ],
    )
    pattern = normal((92, 20)) + np.repeat(normal((4, 20)), 23, axis=0)
    square = ((pattern[:, None] - pattern[None]) ** 2).mean(-1)
    stimuli = [f"stimulus {i:02d}" for i in range(92)]
    images = rng.integers(0, 255, (92, 32, 32, 3), dtype=np.uint8)
    geometry = Section(
        "geometry",
        "How is it organised?",
        "Animate and inanimate objects lie apart.",
        numbers={"tau": 0.2},
        figures=[
            Figure(
                "rdm",
                "Crossnobis distances",
                "Faces apart.",
                {"matrix": square[:8, :8] - 2.0, "labels": OBJECTS, "order": np.arange(8)[::-1]},
            ),
            Figure(
                "rdms",
                "Man and monkey",
                "Alike.",
                {
                    "matrices": {
                        "human": square,
                        "monkey": square + normal(square.shape) * 0.1,
                        NASTY: square,
                    },
                    "labels": stimuli,
                },
            ),
            Figure(
                "mds",
                "Map of stimuli",
                "Animals left.",
                {
                    "points": pattern[:, :2],
                    "labels": stimuli,
                    "images": list(images),
                    "categories": np.repeat(["animal", "face", "fruit", NASTY], 23),
                },
            ),
            Figure(
                "mds",
                "Map of classes",
                "Faces alone.",
                {"points": pattern[:8, :2], "labels": OBJECTS},
            ),
            Figure(
                "image_grid",
                "The stimuli",
                "Twelve of them.",
                {
                    "images": list(images[:11]) + [thumbnail(images[0])],
                    "titles": [*stimuli[:11], NASTY],
                },
            ),
        ],
        citations=["kriegeskorte2008rsa", "walther2016"],
    )
    return Study(
        title=f"haxby-slice: one subject, eight objects {NASTY}",
        data={
            "modality": "fmri",
            "presentations": 864,
            "units": 530,
            "subjects": ["1"],
            "source": "a/very/long/path/" * 12,
            NASTY: NASTY,
            "history": ["linear trends were removed within run", f"{NASTY} was done"],
        },
        sections=[ceiling, encoding, decoding, geometry],
        notices=[Notice("too few repeats", "Stimuli repeat twice only."), Notice(NASTY, NASTY)],
        parameters={"seed": 7, "fingerprint": "0123456789abcdef", "folds": 5, "estimate": "blocks"},
        versions={"engramma": "0.1.0", "numpy": np.__version__},
        seconds=83.2,
    )


def single_slice(rng: np.random.Generator) -> dict:
    """Voxels of a 40 x 20 x 1 volume, as in haxby-slice."""
    i, j = np.nonzero(np.add.outer((np.arange(40) - 20) ** 2 / 4, np.arange(20) ** 2) < 200)
    return {
        "values": rng.random(len(i)),
        "i": i,
        "j": j,
        "k": np.zeros_like(i),
        "affine": np.diag([-3.1, 3.75, 3.75, 1.0]),
        "volume_shape": (40, 20, 1),
        "title": NASTY,
        "label": "noise ceiling (r)",
        "background": rng.random((40, 20, 1)) * 100,
    }


def whole_brain(rng: np.random.Generator) -> dict:
    grid = np.stack(np.meshgrid(*[np.arange(s) for s in (24, 28, 20)], indexing="ij"))
    inside = (((grid.T - [12, 14, 10]) / [11, 13, 9]) ** 2).sum(-1).T < 1
    i, j, k = np.nonzero(inside)
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    affine[:3, 3] = [-72, -100, -50]
    return {
        "values": rng.standard_normal(len(i)) + (i - 12) / 6,
        "i": i,
        "j": j,
        "k": k,
        "affine": affine,
        "volume_shape": (24, 28, 20),
        "title": "t",
        "label": "t value",
        "threshold": 0.5,
    }


@pytest.fixture(scope="module")
def page() -> str:
    return render(example_study())
