"""Noise ceiling, bootstrap, tests and model RDMs, against rsatoolbox, statsmodels and real data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist
from statsmodels.stats.multitest import multipletests

from engramma.data.features import Features
from engramma.data.rdms import RDMs
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError, DataError
from engramma.geometry.bootstrap import BOTH, bootstrap
from engramma.geometry.ceiling import noise_ceiling, prepare_ceiling
from engramma.geometry.compare import SIMILARITIES, compare
from engramma.geometry.corrections import false_discovery, holm
from engramma.geometry.inference import evaluate_models, evaluate_rdms
from engramma.geometry.models import (
    WeightedModel,
    category_model,
    category_models,
    feature_model,
)
from engramma.geometry.pairs import to_pairs, to_square
from engramma.geometry.permutation import permutation_test

THEIRS = {"pearson": "corr", "kendall": "tau-a", "whitened-cosine": "cosine_cov"}
THEIRS |= {"whitened-pearson": "corr_cov"}


def cohort(rng, n=12, n_subjects=5, noise=0.5):
    """A true RDM, and what noisy subjects show of it."""
    truth = pdist(rng.standard_normal((n, 6)), "sqeuclidean")
    spread = noise * truth.std()
    return truth, truth + spread * rng.standard_normal((n_subjects, len(truth)))


@pytest.fixture(scope="module")
def objects92(real_data):
    with np.load(real_data / "objects92" / "rdms.npz", allow_pickle=False) as archive:
        human = archive["human_it_by_subject_session"]
        monkey = archive["monkey_it"].astype(float)
    table = pd.read_csv(real_data / "objects92" / "stimuli.tsv", sep="\t").set_index("image")
    stimuli = StimulusSet(table)
    rdms = RDMs.from_square(
        human.reshape(8, 92, 92),
        stimuli,
        subject=tuple(np.repeat(list("abcd"), 2)),
        session=("1", "2") * 4,
    )
    return rdms, monkey


@pytest.mark.filterwarnings("ignore:Noise ceiling for tau")
@pytest.mark.parametrize("method", SIMILARITIES)
def test_ceiling_equals_rsatoolbox(rng, method):
    from rsatoolbox.inference import boot_noise_ceiling
    from rsatoolbox.rdm import RDMs as TheirRDMs

    _, data = cohort(rng)
    expected = boot_noise_ceiling(TheirRDMs(data), THEIRS.get(method, method))
    lower, upper = noise_ceiling(data, method)
    np.testing.assert_allclose((lower, upper), expected, atol=1e-12)
    assert lower < upper < 1


@pytest.mark.parametrize("method", ["spearman", "cosine", "whitened-pearson"])
def test_ceiling_of_a_sample_of_subjects_leaves_all_copies_out(rng, method):
    _, data = cohort(rng, n_subjects=4)
    times = np.array([[2, 0, 1, 1.0]])
    found = prepare_ceiling(data, method)(np.ones(12), times)[0]
    from rsatoolbox.inference import boot_noise_ceiling
    from rsatoolbox.rdm import RDMs as TheirRDMs

    copies = TheirRDMs(data[[0, 0, 2, 3]], rdm_descriptors={"who": [0, 0, 2, 3]})
    lower, _ = boot_noise_ceiling(copies, THEIRS.get(method, method), rdm_descriptor="who")
    # They weight the left-out subjects equally; here each counts as often as it was drawn.
    each = [
        compare(_pool(np.delete(data[[0, 0, 2, 3]], drop, 0), method), data[[i]], method)[0, 0]
        for i, drop in ((0, [0, 1]), (2, [2]), (3, [3]))
    ]
    assert np.mean(each) == pytest.approx(lower, abs=1e-9)
    assert found[0] == pytest.approx((2 * each[0] + each[1] + each[2]) / 4, abs=1e-9)
    assert found[1] > found[0]
    assert np.isnan(prepare_ceiling(data, method)(np.ones(12), np.array([[4, 0, 0, 0.0]]))).all()


def _pool(rdms, method):
    from rsatoolbox.rdm import RDMs as TheirRDMs
    from rsatoolbox.util.inference_util import pool_rdm

    return pool_rdm(TheirRDMs(rdms), THEIRS.get(method, method)).get_vectors()


@pytest.mark.parametrize("corrected", [True, False])
def test_variances_and_tests_equal_rsatoolbox(rng, corrected, monkeypatch):
    """The formulas of Schütt et al. 2023, on one set of bootstrap samples."""
    from rsatoolbox.util.inference_util import extract_variances, t_test_0, t_tests

    truth, data = cohort(rng, n_subjects=6)
    models = {
        "good": truth + 0.1 * rng.standard_normal(len(truth)),
        "fair": truth + 3 * rng.standard_normal(len(truth)),
        "poor": rng.random(len(truth)),
    }
    seed = np.random.default_rng(3)
    found = evaluate_models(data, models, "pearson", 300, rng=seed, corrected=corrected)
    samples = bootstrap(
        data,
        np.stack(list(models.values())),
        "pearson",
        300,
        BOTH,
        rng=np.random.default_rng(3),
    )
    order = [BOTH, ("subjects",), ("stimuli",)]
    covariance = np.stack([np.cov(samples[f].T) for f in order])
    covariance = covariance if corrected else covariance[0]
    variances, differences, to_ceiling = extract_variances(covariance, n_rdm=6, n_pattern=12)
    se = np.array([e.details["se"] for e in found.estimates.values()])
    np.testing.assert_allclose(se**2, variances, rtol=1e-9)
    mean = found.similarities.mean(axis=1)[None]
    p_zero = [e.details["p_zero"] for e in found.estimates.values()]
    np.testing.assert_allclose(p_zero, t_test_0(mean, variances, 5), atol=1e-12)
    p = t_tests(mean, differences, 5)
    np.testing.assert_allclose(found.pairwise["p"], p[np.triu_indices(3, 1)], atol=1e-12)
    from scipy.stats import t

    expected = 2 * t.sf(np.abs(mean[0] - found.ceiling[0]) / np.sqrt(to_ceiling[:, 0]), 5)
    p_ceiling = [e.details["p_ceiling"] for e in found.estimates.values()]
    np.testing.assert_allclose(p_ceiling, expected, rtol=1e-9)
    assert found.best == "good" and list(found.table()["model"]) == ["good", "fair", "poor"]


def test_corrected_bootstrap_estimates_the_true_spread():
    """New stimuli and subjects: the corrected variance is right, that of both alone too large."""
    rng = np.random.default_rng(0)
    values, corrected, both = [], [], []
    for _ in range(40):
        patterns = rng.standard_normal((20, 30))
        data = np.stack(
            [
                pdist(patterns + 1.5 * rng.standard_normal(patterns.shape), "sqeuclidean")
                for _ in range(8)
            ]
        )
        model = {"truth": pdist(patterns, "sqeuclidean")}
        for kept, yes in ((corrected, True), (both, False)):
            result = evaluate_models(data, model, "pearson", 60, rng=rng, corrected=yes)
            kept.append(result.estimates["truth"].details["se"] ** 2)
        values.append(result.estimates["truth"].value)
    truth = np.var(values, ddof=1)
    assert 0.6 < np.mean(corrected) / truth < 1.8
    assert np.mean(both) > 1.2 * np.mean(corrected)


def test_copies_of_a_stimulus_are_dropped(rng):
    """Kept, their zeros would be the smallest dissimilarities of model and data alike."""
    data, model = rng.random((2, 190)) + 5
    draws = [rng.integers(0, 20, 20) for _ in range(200)]
    kept = []
    for draw in draws:
        square = [to_pairs(to_square(v)[np.ix_(draw, draw)]) for v in (model, data)]
        kept.append(compare(*square)[0, 0])
    counts = np.stack([np.bincount(d, minlength=20) for d in draws])
    dropped = compare(model, data, counts=counts)[:, 0, 0]
    assert np.mean(kept) > 0.1
    assert abs(np.mean(dropped) - compare(model, data)[0, 0]) < 0.03


def test_percentiles_and_seed(rng):
    truth, data = cohort(rng)
    first, again = (
        evaluate_models(data, {"m": truth}, n_bootstrap=50, rng=np.random.default_rng(7))
        for _ in range(2)
    )
    assert first.estimates == again.estimates
    assert first.samples.shape == (50, 1)
    low, high = np.percentile(first.samples[:, 0], [2.5, 97.5])
    assert first.estimates["m"].details["percentiles"] == pytest.approx((low, high))
    assert first.estimates["m"].low < first.estimates["m"].value < first.estimates["m"].high


@pytest.mark.parametrize("over", [("stimuli",), ("subjects",)])
def test_one_factor(rng, over):
    truth, data = cohort(rng)
    result = evaluate_models(data, {"m": truth}, n_bootstrap=200, over=over, rng=rng)
    assert result.over == over
    n = {"stimuli": 12, "subjects": 5}[over[0]]
    se = np.std(result.samples[:, 0], ddof=1) * np.sqrt(n / (n - 1))
    assert result.estimates["m"].details["se"] == pytest.approx(se)


def test_single_rdm_and_sessions_say_what_they_lack(rng):
    truth, data = cohort(rng)
    one = evaluate_models(data[0], {"m": truth}, n_bootstrap=20, rng=rng)
    assert one.ceiling is None and one.over == ("stimuli",)
    assert "no noise ceiling" in one.notes[0]
    assert "p_ceiling" not in one.estimates["m"].details
    stimuli = StimulusSet(pd.DataFrame(index=[str(i) for i in range(12)]))
    sessions = RDMs(data, stimuli, ("s1",) * 5, tuple("12345"))
    result = evaluate_rdms(sessions, {"m": truth}, n_bootstrap=20, rng=rng)
    assert result.ceiling == pytest.approx(noise_ceiling(data))
    assert "5 sessions of one subject" in result.notes[0]
    with pytest.raises(DataError, match="at least two RDMs"):
        noise_ceiling(data[:1])


def test_corrections_equal_statsmodels(rng):
    p = rng.random(30) ** 3
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])
    np.testing.assert_allclose(false_discovery(p), multipletests(p, method="fdr_bh")[1])
    assert holm(np.array([])).size == 0


@pytest.mark.parametrize("method", ["spearman", "rho-a", "cosine", "whitened-cosine", "kendall"])
def test_permutation_test_sees_signal_and_nothing_else(rng, method):
    truth, data = cohort(rng, n=9)
    models = {"truth": truth, "other": rng.random(len(truth))}
    result = permutation_test(data, models, method, 99, rng=rng)
    assert result["truth"]["p"] == 0.01 and result["truth"]["p_max"] == 0.01
    assert result["other"]["p_max"] >= result["other"]["p"] > 0.01
    value = compare(models["other"], data, method).mean()
    assert result["other"]["value"] == pytest.approx(value)


def test_permutation_p_values_are_uniform_under_no_effect():
    rng = np.random.default_rng(4)
    p = [
        permutation_test(rng.random((2, 45)), {"m": rng.random(45)}, n_permutations=39, rng=rng)[
            "m"
        ]["p"]
        for _ in range(300)
    ]
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.05)


# -- models --------------------------------------------------------------------------------


def test_category_models(rng):
    np.testing.assert_array_equal(category_model(["a", "b", "a"]), [1, 0, 1])
    table = pd.DataFrame({"kind": list("xxyy"), "size": [1, 2, 2, 3], "same": "z"})
    models = category_models(StimulusSet(table))
    assert set(models) == {"kind", "size"}
    np.testing.assert_array_equal(models["kind"], [0, 1, 1, 1, 1, 0])
    for bad in (["a", "a", "a"], ["a", "b", "c"], ["a", None, "a"]):
        with pytest.raises(DataError):
            category_model(bad)


def test_feature_model_follows_the_stimuli(rng):
    features = Features(rng.standard_normal((4, 20)), tuple("abcd"), "gabor")
    found = feature_model(features, ["d", "a", "c"])
    expected = pdist(features.values[[3, 0, 2]], "correlation")
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_weights_are_recovered_and_never_negative(rng):
    parts = {k: pdist(rng.standard_normal((14, 5)), "sqeuclidean") for k in "abc"}
    data = 2 * parts["a"] + 0.5 * parts["b"] - parts["c"] + 3
    weights = WeightedModel({k: parts[k] for k in "ab"}).fit(data + parts["c"])
    assert weights == pytest.approx({"a": 2, "b": 0.5})
    assert WeightedModel(parts).fit(data)["c"] == 0


def test_cross_validated_weights_do_not_see_their_stimuli(rng):
    """With noise alone, weights that saw the stimuli predict them and others do not."""
    fitted, honest = [], []
    for _ in range(25):
        parts = {str(k): rng.random(105) for k in range(25)}
        data = rng.random(105)
        model = WeightedModel(parts)
        in_sample = sum(w * parts[k] for k, w in model.fit(data).items())
        fitted.append(compare(in_sample, data, "pearson")[0, 0])
        honest.append(compare(model.cross_validated(data, 5, rng=rng), data, "pearson")[0, 0])
    assert np.mean(fitted) > 0.3
    assert np.mean(honest) < 0.05


def test_cross_validated_prediction_of_a_block_ignores_its_data(rng):
    parts = {k: rng.random(66) for k in "ab"}
    data = 2 * parts["a"] + parts["b"] + 0.1 * rng.random(66)
    base = WeightedModel(parts).cross_validated(data, 4, rng=np.random.default_rng(0))
    changed = data.copy()
    changed[0] += 100  # stimuli 0 and 1
    moved = WeightedModel(parts).cross_validated(changed, 4, rng=np.random.default_rng(0))
    assert moved[0] == base[0]
    assert not np.allclose(moved, base)
    with pytest.raises(ConfigError, match="between 3 and 6"):
        WeightedModel(parts).cross_validated(data, 2, rng=rng)


# -- real data -----------------------------------------------------------------------------


def test_human_it(objects92, rng):
    rdms, monkey = objects92
    models = {"monkey IT": monkey, **category_models(rdms.stimuli)}
    result = evaluate_rdms(rdms, models, n_bootstrap=60, rng=rng)
    lower, upper = result.ceiling
    assert 0.3 < lower < upper < 0.8
    assert result.estimates["monkey IT"].value == pytest.approx(0.2963, abs=1e-3)
    assert result.estimates["monkey IT"].details["p_zero_holm"] < 0.05
    assert lower == pytest.approx(_lower_by_hand(rdms.by_subject().dissimilarities))
    assert any("4 subjects" in n for n in result.notes)


def _lower_by_hand(data):
    from scipy.stats import rankdata, spearmanr

    ranks = rankdata(data, axis=1)
    return np.mean(
        [spearmanr(np.delete(ranks, s, 0).mean(0), data[s])[0] for s in range(len(data))]
    )


def test_bad_input(rng):
    truth, data = cohort(rng)
    with pytest.raises(DataError, match="'m' has shape"):
        evaluate_models(data, {"m": truth[:5]}, rng=rng)
    with pytest.raises(DataError, match="one dissimilarity for all"):
        evaluate_models(data, {"flat": np.ones(66)}, rng=rng)
    with pytest.raises(DataError, match=r"model 'm' hold NaN"):
        evaluate_models(data, {"m": np.full(66, np.nan)}, rng=rng)
    with pytest.raises(ConfigError, match="no model"):
        evaluate_models(data, {}, rng=rng)
    with pytest.raises(ConfigError, match="cannot bootstrap over runs"):
        evaluate_models(data, {"m": truth}, over=("runs",), rng=rng)
    with pytest.raises(ConfigError, match="one RDM"):
        evaluate_models(data[0], {"m": truth}, over=("subjects",), rng=rng)
