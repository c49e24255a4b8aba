"""`engramma probe`: examinations are kept, resumed, and drawn as a page."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from engramma.bench import probes
from engramma.cli import app
from engramma.contracts import Estimate, SystemCard
from engramma.errors import ConfigError, NotTestableError
from engramma.memory.language_model import small_language_model
from engramma.probing.findings import Examination, Finding, Panel, Table
from engramma.probing.model import LanguageModel
from engramma.report.probe import PAGE, as_study, write_probe

pytest.importorskip("transformers")


class Counts:
    """Finds something, and counts how often it was asked."""

    asked = 0

    def examine(self, model, *, seed=0, quick=False):
        type(self).asked += 1
        effect, control = Estimate(-0.5, -0.6, -0.4), Estimate(-0.1, -0.2, 0.0)
        curve = (np.arange(3.0), np.array([0.1, np.nan, 0.3]))
        with_interval = (np.array([0.0, 2.0]), np.ones(2), np.zeros(2), 2 * np.ones(2))
        return Examination(
            findings=[
                Finding("copying", "It copies.", Estimate(0.4, 0.3, 0.5), "share", 0.1, effect,
                        control, "heads set to zero"),
                Finding("order", "It knows no order.", Estimate(0.5)),
            ],
            panels=[
                Panel("matrix", "Heads", np.eye(2, 4), "head", "layer", unit="score"),
                Panel("matrix", "Relations", np.eye(2), rows=["capital", "plural"], columns="ab"),
                Panel("curves", "Depth", {"a": curve, "b": with_interval}, "layer", "accuracy"),
                Panel("bars", "Tasks", {"one": effect, "two": control}, y="points"),
            ],
            tables=[Table("Words", ["neuron", "words"], [["0/1", "<b>dog</b>"]])],
            notes=["Ten prompts."],
        )  # fmt: skip


class Absent:
    def examine(self, model, *, seed=0, quick=False):
        raise NotTestableError("it never learnt to copy")


@pytest.fixture
def model(monkeypatch):
    Counts.asked = 0
    cards = {
        slug: SystemCard(slug, "probing", f"About {slug}", ("Probe",), factory, "A. Author 2020")
        for slug, factory in (("counts", Counts), ("absent", Absent))
    }
    monkeypatch.setattr(probes, "examiners", lambda: cards)
    return LanguageModel(small_language_model(40, dim=32, layers=2, heads=4), name="tiny")


def test_what_is_finished_is_not_asked_again(model, tmp_path):
    first = probes.probe(model, out=tmp_path)
    again = probes.probe(model, out=tmp_path)
    assert Counts.asked == 1
    for a, b in zip(first.results, again.results, strict=True):
        assert json.dumps(probes.as_json(a)) == json.dumps(probes.as_json(b))
    kept = again.results[0].examination
    assert kept.findings[0].caused == Estimate(-0.5, -0.6, -0.4)
    assert np.isnan(kept.panels[2].values["a"][1][1])
    probes.probe(model, out=tmp_path, seed=1)
    probes.probe(model, out=tmp_path, fresh=True)
    assert Counts.asked == 3
    # Another model of the same sizes is another model; a damaged file is examined again.
    other = LanguageModel(small_language_model(40, dim=32, layers=2, heads=4, seed=1), name="tiny")
    probes.probe(other, out=tmp_path)
    assert Counts.asked == 4
    for path in (tmp_path / "examinations").rglob("counts.json"):
        path.write_text("{")
    probes.probe(model, out=tmp_path)
    assert Counts.asked == 5


def test_the_page_says_what_was_found_and_what_was_not(model, tmp_path):
    probed = probes.probe(model, out=tmp_path)
    page = write_probe(probed, tmp_path).read_text()
    assert "What tiny remembers" in page and "it never learnt to copy" in page
    assert "capital" in page and "plural" in page
    assert "0.4 [0.3, 0.5]" in page and "-0.5 [-0.6, -0.4]" in page
    assert "&lt;b&gt;dog" in page and "<b>dog" not in page
    study = as_study(probed)
    assert (
        "of 1 with a causal check, 1 have an effect that is clearly apart"
        in study.sections[0].summary
    )
    written = json.loads((tmp_path / "probe.json").read_text())
    assert written["systems"]["counts"]["findings"][0]["value"]["low"] == 0.3
    assert written["systems"]["absent"]["absent"] is True
    assert written["model"]["layers"] == 2


def test_the_command(model, tmp_path, monkeypatch):
    monkeypatch.setattr(LanguageModel, "load", classmethod(lambda cls, source: model))
    out = tmp_path / "out"
    run = CliRunner().invoke(app, ["probe", "tiny", "--for", "counts", "--out", str(out)])
    assert run.exit_code == 0, run.output
    assert "copying" in run.output and str(PAGE) in run.output.replace("\n", "")
    listed = CliRunner().invoke(app, ["probe"])
    assert "About absent" in listed.output


def test_what_cannot_be_asked_is_refused(model, monkeypatch):
    with pytest.raises(ConfigError, match="no system called 'nothing'"):
        probes.probe(model, ["nothing"])
    with pytest.raises(ConfigError, match="cannot examine"):
        probes.probe(model, ["trsa"])
