"""Verdicts: known effects get the verdict they deserve, and a control can overturn one."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from engramma.bench import claims
from engramma.bench.seed_workers import SeedWorkers, seed_workers
from engramma.contracts import Claim, Control, Estimate, SystemCard
from engramma.errors import ConfigError, MissingPackageError, NotTestableError


def make_claim(effect=1.0, control=0.0, noise=0.1, margin=0.5, expect="effect lost", **kwargs):
    def prepare(seed):
        return np.random.default_rng(seed).normal(0, noise, 3)

    return Claim(
        name="c",
        sentence="the system beats the baseline",
        source="test",
        metric="score",
        prepare=prepare,
        system=lambda x: effect + x[0],
        baseline=lambda x: x[1],
        baseline_name="baseline",
        margin=margin,
        control=Control("none", lambda x: control + x[2], expect=expect, tolerance=0.2),
        **kwargs,
    )


CARD = SystemCard("s", "test", "Test", ("Comparison",), object)


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ({}, "holds"),
        ({"effect": 0.0}, "fails"),
        ({"effect": 0.5}, "undecided"),
        ({"control": 1.0}, "fails"),  # the effect survives its control
        ({"control": 0.5}, "undecided"),
        ({"expect": "chance"}, "holds"),
        ({"expect": "chance", "control": 1.0}, "fails"),
        ({"effect": -1.0, "margin": 0.0, "direction": "below", "control": 1.0}, "holds"),
        ({"effect": 0.0, "direction": "within", "control": 1.0}, "holds"),
        ({"effect": 1.0, "direction": "within", "control": 1.0}, "fails"),
        ({"effect": float("nan")}, "undecided"),
    ],
)
def test_verdicts(options, answer):
    assert claims.verify_claim(CARD, make_claim(**options)).answer == answer


def test_absent_presupposition_is_not_testable():
    claim = make_claim(presupposes=lambda x: (False, "accuracy is at chance"))
    verdict = claims.verify_claim(CARD, claim)
    assert verdict.answer == "not testable"
    assert "accuracy is at chance" in verdict.reason

    def refuse(task):
        raise NotTestableError("no such behaviour")

    assert claims.verify_claim(CARD, make_claim(presupposes=refuse)).answer == "not testable"


def test_interval_covers_the_mean_as_often_as_it_says(rng):
    """With three seeds the percentile bootstrap covers about 75 %; ours must reach 95 %."""
    covered = []
    for _ in range(400):
        interval = claims.mean_interval(rng.standard_normal(3).tolist(), n_bootstrap=500)
        covered.append(interval.low <= 0 <= interval.high)
    assert np.mean(covered) > 0.92


def test_no_false_pass_without_an_effect(rng):
    """Effect exactly at the margin: at most 2.5 % of claims may hold."""
    held = 0
    for seed in range(300):
        values = np.random.default_rng(seed).normal(0.5, 1.0, 5)
        effect = claims.mean_interval(values.tolist(), n_bootstrap=500)
        held += claims.judge(make_claim(), effect, Estimate(0.0, -0.1, 0.1))[0] == "holds"
    assert held <= 15


def test_record_round_trip_and_change(tmp_path):
    path = tmp_path / "claims.json"
    verdict = claims.verify_claim(CARD, make_claim())
    claims.write_record(path, [verdict])
    record = claims.read_record(path)
    assert record["s/c"]["answer"] == "holds"
    assert json.loads(path.read_text())["s/c"]["per_seed"]["system"]
    assert claims.changed([verdict], record) == []
    worse = claims.verify_claim(CARD, make_claim(effect=0.0))
    assert claims.changed([worse], record) == ["s/c was holds and now fails"]


def test_a_claim_needs_three_seeds():
    with pytest.raises(ValueError, match="three seeds"):
        make_claim(seeds=2)


def test_a_claim_whose_package_is_missing_is_not_testable_and_stops_nothing():
    def prepare(seed):
        raise MissingPackageError("the package transformers is not installed", mend="install it")

    verdict = claims.verify_claim(CARD, replace(make_claim(), prepare=prepare))
    assert verdict.answer == "not testable" and "install it" in verdict.reason
    with pytest.raises(ConfigError):  # other mistakes are no verdicts
        claims.verify_claim(CARD, replace(make_claim(), prepare=lambda seed: refuse()))


def refuse():
    raise ConfigError("an option is wrong")


def test_the_first_claim_of_a_system_counts_as_its_longest():
    """Claims share what their system trains, whichever of them happens to be drawn first."""
    some = [
        (SimpleNamespace(slug=slug), SimpleNamespace(name=name))
        for slug, names in (("trains", "abc"), ("quick", "de"))
        for name in names
    ]
    record = {f"{card.slug}/{claim.name}": {"seconds": 0.0} for card, claim in some}
    record["trains/a"]["seconds"] = 100.0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        few = claims.sample_claims(some, record, 50.0, rng)
        assert {card.slug for card, _ in few} == {"quick"} and len(few) == 2
        assert len(claims.sample_claims(some, record, 200.0, rng)) == 5


def test_processes_that_share_the_seeds_measure_the_same():
    [(card, claim)] = claims.select_claims(["miras/is-linear-attention"])
    here = claims.verify_claim(card, claim)
    with seed_workers(2, 2) as workers:
        there = claims.verify_claim(card, claim, workers=workers)
        assert here.answer == there.answer == "holds"
        np.testing.assert_allclose(there.per_seed["system"], here.per_seed["system"], atol=1e-5)
        assert len(there.per_seed["control"]) == claim.seeds
        with pytest.raises(ConfigError, match="no claim"):
            claims.verify_claim(card, replace(claim, name="another"), workers=workers)
    with seed_workers(1, 2) as none:
        assert none is None
    with pytest.raises(ConfigError, match="cannot work"):
        SeedWorkers(0, 1)
