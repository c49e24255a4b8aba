"""Connectivity cohorts: directions, demographics, sampling noise and positive definiteness."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.model_selection import cross_val_predict

from engramma.errors import ConfigError
from engramma.registry import worlds
from engramma.worlds.connectivity import connectivity


@pytest.fixture(scope="module")
def cohort():
    return connectivity(1, n_subjects=600)


def _design(cohort):
    people = cohort.demographics
    age = (people["age"].to_numpy() - 45) / 15
    sex = np.where(people["sex"] == "F", 0.5, -0.5)
    sites = (people["site"].to_numpy()[:, None] == np.unique(people["site"])[None]).astype(float)
    return np.column_stack([age, sex, cohort.truth.scores, sites])


def test_regression_on_everything_known_returns_every_direction(cohort):
    fit = LinearRegression(fit_intercept=False).fit(_design(cohort), cohort.values)
    truth = np.stack([cohort.truth.age, cohort.truth.sex, *cohort.truth.traits])
    for found, planted in zip(fit.coef_.T, truth, strict=False):
        error = np.sqrt(((found - planted) ** 2).mean())
        assert error < 0.1 * 0.05 and np.corrcoef(found, planted)[0, 1] > 0.95
    sites = fit.coef_.T[-3:] - cohort.truth.base
    np.testing.assert_allclose(sites.sum(axis=0), 0, atol=0.03)
    assert np.corrcoef(sites.ravel(), cohort.truth.sites.ravel())[0, 1] > 0.95
    residual = cohort.values - fit.predict(_design(cohort))
    assert residual.std() == pytest.approx(0.05, rel=0.02)


def test_effects_have_the_size_that_was_asked(cohort):
    size = lambda v: np.sqrt((v**2).mean())  # noqa: E731
    assert size(cohort.truth.age) == pytest.approx(0.025)
    assert size(cohort.truth.sex) == pytest.approx(0.04)
    assert size(cohort.truth.traits[1]) == pytest.approx(0.02)
    assert not cohort.truth.age_squared.any()
    matrices = cohort.matrices(cohort.truth.clean)
    assert np.linalg.eigvalsh(matrices)[:, 0].min() > 0
    np.testing.assert_array_equal(matrices, matrices.transpose(0, 2, 1))
    np.testing.assert_allclose(matrices[5][np.triu_indices(30, 1)], cohort.truth.clean[5])


def _predicted(x, y):
    return np.corrcoef(cross_val_predict(RidgeCV(np.logspace(-2, 3, 6)), x, y, cv=5), y)[0, 1]


def test_phenotypes_follow_age_or_trait_and_nothing_else(cohort):
    people, scores = cohort.demographics, cohort.truth.scores
    age = people["age"].to_numpy()
    r = np.corrcoef(np.column_stack([age, scores[:, 0], people[["phenotype_a", "phenotype_b"]]]).T)
    assert r[0, 2] ** 2 == pytest.approx(0.7, abs=0.06)
    assert r[1, 3] ** 2 == pytest.approx(0.7, abs=0.06)
    assert np.abs(r[[0, 1, 0], [3, 2, 1]]).max() < 0.12
    assert np.abs(np.corrcoef(age, people["sex"] == "F")[0, 1]) < 0.12
    # Connectivity foretells both; without age, phenotype A is gone, phenotype B stays.
    rest = cohort.values - LinearRegression().fit(age[:, None], cohort.values).predict(age[:, None])
    assert _predicted(cohort.values, people["phenotype_a"]) > 0.6
    assert abs(_predicted(rest, people["phenotype_a"])) < 0.15
    before = _predicted(cohort.values, people["phenotype_b"])
    assert before > 0.6 and _predicted(rest, people["phenotype_b"]) > 0.9 * before


def test_linear_residuals_keep_a_curved_confound():
    curved = connectivity(2, n_subjects=600, curvature=0.012)
    age = curved.demographics["age"].to_numpy()
    line = LinearRegression().fit(age[:, None], curved.values).predict(age[:, None])
    rest = curved.values - line
    assert _predicted(rest, ((age - age.mean()) / 15) ** 2) > 0.6


def test_without_effects_nothing_is_foretold():
    null = connectivity(
        3, n_subjects=300, age_effect=0, sex_effect=0, site_effect=0, trait_effect=0
    )
    for column in ("age", "phenotype_b"):
        assert abs(_predicted(null.values, null.demographics[column])) < 0.2
    assert np.ptp(null.truth.clean, axis=0).max() == 0


def test_time_series_have_the_correlations_and_sampling_error_of_their_kind():
    sampled = connectivity(4, n_subjects=60, n_times=150)
    assert sampled.series is not None and sampled.series.shape == (60, 150, 30)
    again = np.stack([np.corrcoef(s.T) for s in sampled.series])
    np.testing.assert_allclose(sampled.matrices(), again, atol=1e-5)
    # Fisher: the standard error of atanh(r) is 1 / sqrt(n - 3).
    z = np.arctanh(sampled.values) - np.arctanh(sampled.truth.clean)
    assert z.std() == pytest.approx(1 / np.sqrt(147), rel=0.03)
    assert abs(z.mean()) < 0.005


def test_the_world_is_registered_and_follows_the_seed(cohort):
    a, b, c = (worlds.get("connectivity")(s, n_subjects=20) for s in (1, 1, 2))
    np.testing.assert_array_equal(a.values, b.values)
    assert a.demographics.equals(b.demographics)
    assert not np.array_equal(a.values, c.values)
    assert cohort.values.shape == (600, 435) and cohort.values.dtype == np.float32


def test_errors_say_what_to_mend():
    with pytest.raises(ConfigError, match=r"positive definite.*lower the effects"):
        connectivity(age_effect=0.3)
    with pytest.raises(ConfigError, match="two regions a network"):
        connectivity(n_regions=5)
    with pytest.raises(ConfigError, match="n_times >= 4"):
        connectivity(n_times=2)
    with pytest.raises(ConfigError, match="lower noise"):
        connectivity(noise=0.8)
