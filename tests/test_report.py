"""The report: every kind of figure, escaping, atomic writing, references."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from engramma.errors import ConfigError, DataError
from engramma.report.figures import FIGURES, draw
from engramma.report.html import render, write_report
from engramma.report.methods import methods_paragraph
from engramma.report.plot import number, safe_json, thumbnail
from engramma.report.scalp import flatten
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
                    "images": [*images[:11], thumbnail(images[0])],
                    "titles": [*stimuli[:11], NASTY],
                },
            ),
            Figure(
                "picture",
                "A sheet",
                "One picture.",
                {"image": rng.integers(256, size=(24, 32, 3)).astype(np.uint8), "alt": NASTY},
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
        },
        history=["linear trends were removed within run", f"{NASTY} was done"],
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


class Outline(HTMLParser):
    """Elements of a page, as a parser (and so a browser) sees them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def specs(fragment: str) -> list[dict]:
    found = re.findall(r'<script type="application/json">(.*?)</script>', fragment, re.S)
    return [json.loads(s) for s in found]


def test_example_uses_every_kind():
    used = {f.kind for s in example_study().sections for f in s.figures}
    assert used == set(FIGURES)


def test_every_specification_is_valid_plotly(page):
    """plotly.py's own validators are the reference; the page's JSON must satisfy them."""
    import plotly.graph_objects as go

    found = specs(page)
    assert len(found) == 20
    for spec in found:
        go.Figure(spec)


def test_page_is_one_file_without_addresses(page):
    outline = Outline(page)
    for tag, attrs in outline.tags:
        for name in ("src", "href", "action", "data"):
            address = attrs.get(name)
            if address is not None:
                assert address.startswith(("data:", "#")), (tag, address[:80])
    assert "@import" not in page and not re.search(r"url\(", page.split("</style>")[0])
    assert len(page.encode()) < 8e6


def test_nothing_from_the_data_becomes_an_element(page):
    outline = Outline(page)
    scripts = [a for a in outline.all("script") if a.get("type") != "application/json"]
    assert len(scripts) == 2  # plotly and report.js
    assert not any("onerror" in attrs for _, attrs in outline.tags)
    assert not any(attrs.get("src") == "x" for attrs in outline.all("img"))
    assert safe_json({"a": NASTY}).count("<") == 0
    assert json.loads(safe_json({"a": NASTY + "\u2028"}))["a"] == NASTY + "\u2028"


def test_policy_admits_exactly_the_two_scripts(page):
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    assert "default-src 'none'" in policy
    bodies = re.findall(r"<script>(.*?)</script>", page, re.S)
    hashes = [base64.b64encode(hashlib.sha256(b.encode()).digest()).decode() for b in bodies]
    assert re.findall(r"sha256-([^']+)'", policy) == hashes


def test_headings_pictures_and_captions_are_accessible(page):
    outline = Outline(page)
    assert len(outline.all("h1")) == 1
    assert all(attrs.get("alt") for attrs in outline.all("img"))
    assert all(a["aria-label"] for a in outline.all("div") if a.get("class") == "plot")
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in outline.all("a") if a["href"].startswith("#")} <= set(ids)
    assert page.count("<figcaption>") == sum(len(s.figures) for s in example_study().sections)


def test_numbers_can_be_downloaded(page):
    address = next(a["href"] for a in Outline(page).all("a") if "download" in a)
    numbers = json.loads(base64.b64decode(address.split(",", 1)[1]))
    assert numbers["ceiling"] == {
        "median": 0.31, "voxels": {"V1": 120, "bad": None}, "name": NASTY}  # fmt: skip
    assert numbers["encoding"]["r"][-1] == pytest.approx(0.3)


def test_methods_paragraph_holds_history_parameters_and_versions():
    words = methods_paragraph(example_study())
    for part in ("Linear trends", "split half", "folds = 5", "seed 7", "0123456789abcdef",
                 f"numpy {np.__version__}"):  # fmt: skip
        assert part in words
    assert "Spearman-Brown correction. Banded ridge" in words


def test_same_study_gives_the_same_report():
    section = example_study().sections[1]
    study = Study("t", {}, [section])
    assert render(study) == render(study)


def test_write_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "report.html"
    study = Study("first", {}, [])
    assert study.report(path) == path
    before = path.read_bytes()
    monkeypatch.setattr(
        "pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full"))
    )
    with pytest.raises(DataError, match="full"):
        write_report(Study("second", {}, []), path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_unwritable_folder_is_a_data_error(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="cannot be written"):
        write_report(Study("t", {}, []), tmp_path / "file" / "report.html")


def test_wrong_figures_are_named():
    with pytest.raises(ConfigError, match="pie"):
        draw(Figure("pie", "t", "c", {}))
    with pytest.raises(DataError, match="labels"):
        draw(Figure("confusion", "t", "c", {"matrix": np.eye(3), "labels": ["a", "b"]}))
    with pytest.raises(DataError, match="bars"):
        draw(Figure("bars", "t", "c", {"names": ["a"], "valeus": [1]}))
    with pytest.raises(DataError, match="decode"):
        thumbnail("data:image/svg+xml;base64,PHN2Zz4=")


def test_histogram_counts_are_numpys(rng):
    values = np.append(rng.standard_normal(200), np.nan)
    trace = specs(FIGURES["histogram"]({"a": values}, "r", bins=10))[0]["data"][0]
    counts, edges = np.histogram(values[:-1], 10)
    assert trace["y"][:-1] == counts.tolist()
    np.testing.assert_allclose(trace["x"], edges, rtol=1e-4)
    assert "1 not finite" in trace["name"]


def test_confusion_rows_are_shares_and_empty_rows_are_blank():
    matrix = [[3, 1, 0], [0, 0, 0], [1, 1, 2]]
    z = specs(FIGURES["confusion"](matrix, list("abc")))[0]["data"][0]["z"]
    assert z == [[75.0, 25.0, 0.0], [None] * 3, [25.0, 25.0, 50.0]]


def test_rdm_order_permutes_rows_and_labels_alike():
    matrix = np.abs(np.subtract.outer([0, 1, 5], [0, 1, 5]))
    spec = specs(FIGURES["rdm"](matrix, ["a", "b", "c"], order=[2, 0, 1]))[0]
    assert spec["data"][0]["z"][0] == [None, 5.0, 4.0]
    assert spec["layout"]["yaxis"]["ticktext"] == ["c", "a", "b"]


def test_rdms_are_percentile_ranks():
    matrix = np.zeros((3, 3))
    matrix[np.tril_indices(3, -1)] = [10, 30, 20]
    z = specs(FIGURES["rdms"]({"one": matrix + matrix.T}, list("abc")))[0]["data"][0]["z"]
    assert z == [[None, 0.0, 100.0], [0.0, None, 50.0], [100.0, 50.0, None]]


def test_ranking_chance_is_the_diagonal_and_ends_at_all(rng):
    spec = specs(FIGURES["ranking"](rng.integers(1, 11, 50), 10))[0]
    curve, chance = spec["data"]
    assert curve["y"][-1] == 100.0
    assert chance["y"] == [10.0 * k for k in chance["x"]]


def test_bars_interval_arms_reach_low_and_high():
    trace = specs(FIGURES["bars"](["a", "b"], [1.0, 2.0], [0.5, np.nan], [1.2, np.nan]))[0]
    arms = trace["data"][0]["error_y"]
    assert arms["arrayminus"] == [0.5, None] and arms["array"] == [0.2, None]


def test_flatten_agrees_with_mne():
    """MNE flattens by the same projection, about a centre it is told."""
    import mne
    from mne.channels.layout import _auto_topomap_coords

    montage = mne.channels.make_standard_montage("biosemi32")
    info = mne.create_info(montage.ch_names, 100.0, "eeg", verbose=False)
    info.set_montage(montage)
    xyz = np.array([c["loc"][:3] for c in info["chs"]])
    ours = flatten(*xyz.T)
    design = np.column_stack([2 * xyz, np.ones(len(xyz))])
    centre = np.linalg.lstsq(design, (xyz**2).sum(1), rcond=None)[0]
    radius = np.sqrt(centre[3] + centre[:3] @ centre[:3])
    theirs = _auto_topomap_coords(
        info, range(32), ignore_overlap=True, to_sphere=True, sphere=np.append(centre[:3], radius)
    )
    theirs = theirs - centre[:2]
    corr = np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]
    assert corr > 0.9999


def test_sensors_in_a_line_fall_back_to_points():
    n = 6
    drawn = FIGURES["sensors"](np.arange(n), np.arange(n), np.zeros(n), list("abcdef"), "r")
    assert specs(drawn)[0]["data"][0]["type"] == "scatter"


def test_thumbnail_keeps_colour_and_shape():
    from PIL import Image

    red = np.zeros((40, 80, 3), dtype=np.uint8)
    red[..., 0] = 255
    uri = thumbnail(red, 32)
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as small:
        assert small.size == (32, 16)
        assert np.abs(np.asarray(small)[8, 16].astype(int) - [255, 0, 0]).max() < 8


def test_slices_hold_the_values_at_their_millimetres(rng):
    """A voxel map with a flipped first axis (radiological) is shown left on the left."""
    data = single_slice(rng)
    spec = specs(FIGURES["brain"](**data))[0]["data"][0]
    x, y, z = np.array(spec["x"]), np.array(spec["y"]), np.array(spec["z"], dtype=float)
    assert (np.diff(x) > 0).all()
    at = 57
    column = np.argmin(np.abs(x - -3.1 * data["i"][at]))
    row = np.argmin(np.abs(y - 3.75 * data["j"][at]))
    assert z[row, column] == pytest.approx(data["values"][at], rel=1e-2)
    assert np.isfinite(z).sum() == len(data["values"])


def test_numbers_are_written_for_readers():
    assert [number(v) for v in (0.0, 0.12345, 1e-7, 12345, np.nan, True, -1.5)] == [
        "0", "0.123", "1.00e−7", "12\u202f345", "–", "yes", "−1.500"]  # fmt: skip


def test_references_are_entries_with_dois():
    for key, entry in BIBTEX.items():
        assert re.match(rf"@(article|misc|inproceedings|software)\{{{key},\n", entry)
        assert entry.count("{") == entry.count("}")
        assert "author = " in entry and "title = " in entry
        doi = re.search(r"doi = \{(.*)\}", entry)
        assert doi is None or re.fullmatch(r"10\.\d{4,5}/\S+", doi[1]), key
    without = {key for key, entry in BIBTEX.items() if "doi = " not in entry}
    assert without == {"scikit-learn", "ojala2010", "plotly", "engramma"}
    assert bibtex(["numpy", "numpy"]).count("@article") == 1
    with pytest.raises(KeyError, match="nobody1999"):
        bibtex(["nobody1999"])
