"""Similarities of RDMs, whole and in bootstrap samples, against rsatoolbox and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import squareform
from scipy.stats import kendalltau

from engramma.errors import ConfigError, DataError
from engramma.geometry.compare import SIMILARITIES, compare
from engramma.geometry.pairs import n_stimuli_of, pair_indices, to_pairs, to_square

THEIRS = dict(
    zip(
        SIMILARITIES,
        ("corr", "spearman", "tau-a", "rho-a", "cosine", "cosine_cov", "corr_cov"),
        strict=True,
    )
)


def some_rdms(rng, n=14):
    """Four RDMs: two related, one of few levels, one binary."""
    n_pairs = n * (n - 1) // 2
    label = rng.permutation(np.arange(n) % 3)
    rdms = rng.random((4, n_pairs))
    rdms[1] = rdms[0] + 0.5 * rng.random(n_pairs)
    rdms[2] = np.round(4 * rdms[2])
    rdms[3] = to_pairs((label[:, None] != label).astype(float))
    return rdms


@pytest.mark.parametrize("method", SIMILARITIES)
def test_equal_to_rsatoolbox(rng, method):
    from rsatoolbox.rdm import RDMs
    from rsatoolbox.rdm import compare as theirs

    a, b = some_rdms(rng)[:3], some_rdms(rng)
    expected = theirs(RDMs(a), RDMs(b), THEIRS[method])
    np.testing.assert_allclose(compare(a, b, method), expected, atol=1e-12)


@pytest.mark.parametrize("method", SIMILARITIES)
def test_bootstrap_samples_equal_rsatoolbox(rng, method):
    """Counts give what rsatoolbox computes on rebuilt RDMs with NaN between copies."""
    from rsatoolbox.rdm import RDMs
    from rsatoolbox.rdm import compare as theirs

    a, b = some_rdms(rng), some_rdms(rng)
    draws = rng.integers(0, 14, (3, 14))
    counts = np.stack([np.bincount(d, minlength=14) for d in draws])
    found = compare(a, b, method, counts=counts)
    for sample, draw in zip(found, draws, strict=True):
        left = RDMs(a).subsample_pattern("index", draw)
        right = RDMs(b).subsample_pattern("index", draw)
        np.testing.assert_allclose(sample, theirs(left, right, THEIRS[method]), atol=1e-12)


@pytest.mark.parametrize("method", ["whitened-cosine", "whitened-pearson"])
def test_whitening_with_a_covariance_equals_the_dense_formula(rng, method):
    n = 9
    a, b = rng.random((2, 36)), rng.random((3, 36))
    first, second = pair_indices(n)
    contrast = np.zeros((36, n))
    contrast[np.arange(36), first], contrast[np.arange(36), second] = 1, -1
    full = np.cov(rng.standard_normal((n, 40)))
    for covariance in (np.eye(n), np.diag(rng.uniform(0.5, 2, n)), full):
        v = np.linalg.inv((contrast @ covariance @ contrast.T) ** 2)
        x, y = a, b
        if method == "whitened-pearson":
            x, y = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
        norm = np.sqrt(np.outer(np.diag(x @ v @ x.T), np.diag(y @ v @ y.T)))
        expected = x @ v @ y.T / norm
        np.testing.assert_allclose(compare(a, b, method, covariance=covariance), expected)
        diagonal = np.diag(covariance)
        if np.allclose(covariance, np.diag(diagonal)):
            found = compare(a, b, method, covariance=diagonal)
            np.testing.assert_allclose(found, expected, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(3, 12).flatmap(
        lambda n: st.tuples(
            *[st.lists(st.integers(0, 4), min_size=n * (n - 1) // 2, max_size=n * (n - 1) // 2)] * 2
        )
    )
)
def test_kendall_counts_pairs(vectors):
    x, y = (np.asarray(v, dtype=float) for v in vectors)
    signs = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)
    expected = signs.sum() / (len(x) * (len(x) - 1))
    assert compare(x, y, "kendall")[0, 0] == pytest.approx(expected, abs=1e-12)


def test_kendall_of_many_untied_values_equals_scipy(rng):
    x, y = rng.standard_normal((2, 300 * 299 // 2))
    y += 0.3 * x
    assert compare(x, y, "kendall")[0, 0] == pytest.approx(kendalltau(x, y)[0], abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(SIMILARITIES))
def test_symmetry_stimulus_order_and_scale(seed, method):
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 28))
    order = rng.permutation(8)
    value = compare(a, b, method)[0, 0]
    assert -1 - 1e-12 <= value <= 1 + 1e-12
    assert compare(b, a, method)[0, 0] == pytest.approx(value, abs=1e-12)
    moved = [to_pairs(to_square(v)[np.ix_(order, order)]) for v in (a, 3 * b)]
    assert compare(*moved, method)[0, 0] == pytest.approx(value, abs=1e-10)
    assert compare(a, a, method)[0, 0] == pytest.approx(1)


def test_human_and_monkey_it_are_alike(real_data):
    """Kriegeskorte et al. 2008: the two share their geometry; Spearman 0.44."""
    with np.load(real_data / "objects92" / "rdms.npz", allow_pickle=False) as archive:
        human, monkey = archive["human_it"], archive["monkey_it"]
    assert compare(human, monkey)[0, 0] == pytest.approx(0.44, abs=0.005)


def test_pairs_are_in_the_order_of_squareform(rng):
    vector = rng.random(21)
    np.testing.assert_array_equal(to_square(vector), squareform(vector))
    np.testing.assert_array_equal(to_pairs(to_square(vector)), vector)
    assert n_stimuli_of(4186) == 92


def test_bad_input(rng):
    a = rng.random((2, 10))
    with pytest.raises(DataError, match="not the upper triangle"):
        compare(a[:, :8], a[:, :8])
    with pytest.raises(DataError, match="2 stimuli only"):
        compare([[1.0]], [[2.0]])
    with pytest.raises(DataError, match="10 and 6 pairs"):
        compare(a, rng.random(6))
    with pytest.raises(DataError, match=r"does not vary.*RDM 1 of the second"):
        compare(a, np.stack([a[0], np.ones(10)]))
    with pytest.raises(ConfigError, match="whitened-cosine"):
        compare(a, a, "euclid")
    broken = a.copy()
    broken[1, 4] = np.nan
    with pytest.raises(DataError, match=r"NaN.*RDM 1, stimuli 1 and 2"):
        compare(a, broken)
