"""Alignment measures and maps, against scipy, statsmodels, scikit-learn and their invariances."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import procrustes
from scipy.spatial.distance import pdist
from scipy.stats import ortho_group, special_ortho_group

from engramma.contracts import Comparison
from engramma.errors import ConfigError, DataError
from engramma.geometry.alignment import (
    canonical_correlations,
    cca_similarity,
    cka,
    kernel_cka,
    linear_cka,
    linear_predictivity,
    procrustes_distance,
    svcca,
)
from engramma.geometry.comparisons import CKAComparison, RSAComparison
from engramma.geometry.mds import align_maps, mds, stress


def pair(rng, n=40, shared=3, p=6, q=9):
    """Two representations with some dimensions in common."""
    latent = rng.standard_normal((n, shared))
    x = latent @ rng.standard_normal((shared, p)) + rng.standard_normal((n, p))
    y = latent @ rng.standard_normal((shared, q)) + rng.standard_normal((n, q))
    return x, y


def test_biased_cka_is_its_definition(rng):
    x, y = (v - v.mean(axis=0) for v in pair(rng))
    norm = np.linalg.norm
    expected = norm(x.T @ y) ** 2 / (norm(x.T @ x) * norm(y.T @ y))
    assert linear_cka(x, y, debiased=False) == pytest.approx(expected)


def test_debiased_cka_is_the_mean_over_tuples_of_different_stimuli(rng):
    n = 6
    k, l = ((v @ v.T) for v in rng.standard_normal((2, n, 3)))  # noqa: E741

    def independence(k, l):  # noqa: E741
        tuples = np.array(list(permutations(range(n), 4)))
        i, j, q, r = tuples.T
        return np.mean(k[i, j] * l[i, j] + k[i, j] * l[q, r] - 2 * k[i, j] * l[i, q])

    expected = independence(k, l) / np.sqrt(independence(k, k) * independence(l, l))
    assert cka(k, l) == pytest.approx(expected, abs=1e-12)


def test_cka_of_unrelated_wide_data():
    """More units than stimuli: the biased estimate nears 1, the unbiased one stays at 0."""
    rng = np.random.default_rng(0)
    draws = [rng.standard_normal((2, 20, 400)) for _ in range(60)]
    assert np.mean([linear_cka(x, y, debiased=False) for x, y in draws]) > 0.9
    unbiased = [linear_cka(x, y) for x, y in draws]
    assert abs(np.mean(unbiased)) < 3 * np.std(unbiased) / np.sqrt(60)


def test_gaussian_cka_equals_sklearn_kernel(rng):
    from sklearn.metrics.pairwise import rbf_kernel

    x, y = pair(rng)
    kernels = [
        rbf_kernel(v, gamma=1 / (2 * 0.25 * np.median(pdist(v, "sqeuclidean")))) for v in (x, y)
    ]
    assert kernel_cka(x, y) == pytest.approx(cka(*kernels), rel=1e-9)


def test_procrustes_equals_scipy(rng):
    x, y = pair(rng, p=5, q=5)
    disparity = procrustes(x, y)[2]
    expected = np.sqrt(2 - 2 * np.sqrt(1 - disparity))
    assert procrustes_distance(x, y) == pytest.approx(expected)


@pytest.mark.parametrize("p", [6, 300])
def test_procrustes_is_a_metric(rng, p):
    a, b, c = rng.standard_normal((3, 15, p))
    ab, bc, ac = (procrustes_distance(*v) for v in ((a, b), (b, c), (a, c)))
    assert ac <= ab + bc
    assert procrustes_distance(b, a) == pytest.approx(ab)
    rotated = 3 * a @ special_ortho_group.rvs(p, random_state=1) + 2
    assert procrustes_distance(a, rotated) == pytest.approx(0, abs=1e-5)


def test_cca_equals_statsmodels(rng):
    from statsmodels.multivariate.cancorr import CanCorr

    x, y = pair(rng)
    np.testing.assert_allclose(canonical_correlations(x, y), CanCorr(y, x).cancorr, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_invariances(seed):
    rng = np.random.default_rng(seed)
    x, y = pair(rng)
    order = rng.permutation(len(x))
    turned = 2.5 * x @ ortho_group.rvs(6, random_state=seed) + rng.standard_normal(6)
    mixed = x @ (rng.standard_normal((6, 6)) + 3 * np.eye(6)) + 1
    for measure in (linear_cka, kernel_cka, procrustes_distance, cca_similarity, svcca):
        value = measure(x, y)
        assert measure(y, x) == pytest.approx(value, abs=1e-9)
        assert measure(x[order], y[order]) == pytest.approx(value, abs=1e-9)
        assert measure(turned, y) == pytest.approx(value, abs=1e-7)
    assert cca_similarity(mixed, y) == pytest.approx(cca_similarity(x, y), abs=1e-7)
    assert abs(linear_cka(mixed, y) - linear_cka(x, y)) > 1e-4
    assert linear_cka(x, x) == pytest.approx(1) and svcca(x, x) == pytest.approx(1)


def test_svcca_keeps_the_leading_components(rng):
    x, y = pair(rng, n=60)
    centred = x - x.mean(axis=0)
    left, power, _ = np.linalg.svd(centred, full_matrices=False)
    kept = (left * power)[:, :2]
    assert svcca(x, y, n_components=2) == pytest.approx(
        cca_similarity(kept, _leading(y, 2)), abs=1e-9
    )
    enough = int(np.searchsorted(np.cumsum(power**2) / (power**2).sum(), 0.8)) + 1
    found = svcca(x, x @ np.diag(np.ones(6)), variance=0.8)
    assert enough < 6 and found == pytest.approx(1)


def _leading(values, k):
    centred = values - values.mean(axis=0)
    left, power, _ = np.linalg.svd(centred, full_matrices=False)
    return (left * power)[:, :k]


def test_linear_predictivity(rng):
    x = rng.standard_normal((120, 8))
    y = np.column_stack(
        [
            x @ rng.standard_normal((8, 3)) + 0.1 * rng.standard_normal((120, 3)),
            rng.standard_normal((120, 20)),
        ]
    )
    score = linear_predictivity(x, y, rng=rng)
    assert (score[:3] > 0.98).all()
    assert abs(score[3:].mean()) < 0.15
    back = linear_predictivity(y, x[:, :1], rng=rng)
    assert back.shape == (1,)


# -- contract ------------------------------------------------------------------------------


@pytest.mark.parametrize("system", [RSAComparison(n_bootstrap=200), CKAComparison(n_halves=200)])
def test_comparisons_give_intervals(rng, system):
    assert isinstance(system, Comparison)
    x, y = pair(rng, n=60)
    related = system.compare(x, y)
    assert related.low < related.value < related.high
    assert related.low > 0
    unrelated = system.compare(*rng.standard_normal((2, 60, 40)))
    assert unrelated.low < 0.05 and unrelated.high < related.low + 0.2
    assert system.compare(x, y) == related


def test_cka_spread_is_that_of_new_stimuli():
    rng = np.random.default_rng(1)
    mixing = rng.standard_normal((2, 3, 8))
    values, spread = [], []
    for _ in range(80):
        latent = rng.standard_normal((40, 3))
        x, y = (latent @ m + 2 * rng.standard_normal((40, 8)) for m in mixing)
        estimate = CKAComparison(n_halves=60).compare(x, y)
        values.append(estimate.value)
        spread.append(estimate.details["se"])
    assert 0.75 < np.mean(spread) / np.std(values, ddof=1) < 1.5


# -- maps ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["classical", "smacof"])
def test_mds_recovers_a_plane(rng, method):
    truth = rng.standard_normal((20, 2)) * [3, 1]
    positions = mds(pdist(truth), method=method)
    assert procrustes(truth, positions)[2] < 1e-9
    assert stress(pdist(truth), positions) < 1e-5
    squared = mds(pdist(truth) ** 2, method=method, squared=True)
    np.testing.assert_allclose(squared, positions, atol=1e-6)


def test_smacof_has_less_stress_than_classical(rng):
    rdm = pdist(rng.standard_normal((25, 10)), "correlation") - 0.05
    found, start = mds(rdm), mds(rdm, method="classical")
    assert stress(rdm, found) < stress(rdm, start)
    np.testing.assert_array_equal(found, mds(rdm))


def test_align_maps(rng):
    reference = rng.standard_normal((12, 2))
    moved = 0.3 * reference @ np.array([[0.0, 1], [1, 0]]) + [5, -2]
    np.testing.assert_allclose(align_maps(reference, moved), reference, atol=1e-9)
    rigid = align_maps(reference, moved, scale=False)
    np.testing.assert_allclose(pdist(rigid), pdist(moved), atol=1e-9)
    with pytest.raises(DataError, match="shapes"):
        align_maps(reference, moved[:, :1])


def test_bad_input(rng):
    x, y = pair(rng)
    with pytest.raises(DataError, match="40 and 39 stimuli"):
        linear_cka(x, y[:-1])
    with pytest.raises(DataError, match="3 stimuli are too few"):
        linear_cka(x[:3], y[:3])
    broken = y.copy()
    broken[7, 2] = np.inf
    with pytest.raises(DataError, match=r"second.*stimulus 7"):
        procrustes_distance(x, broken)
    with pytest.raises(DataError, match="same for every stimulus"):
        linear_cka(np.ones((9, 3)), rng.standard_normal((9, 3)))
    with pytest.raises(DataError, match="same for every stimulus"):
        procrustes_distance(np.ones((9, 3)), rng.standard_normal((9, 3)))
    with pytest.raises(DataError, match="canonical"):
        cca_similarity(rng.standard_normal((10, 30)), rng.standard_normal((10, 30)))
    with pytest.raises(ConfigError, match="repeats"):
        RSAComparison("crossnobis")
    with pytest.raises(ConfigError, match="dimensions"):
        mds(pdist(x), 40)
