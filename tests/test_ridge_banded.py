"""Banded ridge and its variance partition, against himalaya at the same candidates."""

from __future__ import annotations

import numpy as np
import pytest

from engramma.encoding.banded import BandedRidgeCV, simplex_candidates
from engramma.encoding.partition import product_measure, variance_partition
from engramma.encoding.ridge import RidgeCV
from engramma.encoding.scores import r2
from engramma.errors import ConfigError, DataError

ALPHAS = np.logspace(-1, 4, 7)
N = 80


def make(rng, widths=(8, 5, 12), units=25):
    spaces = {f"space {i}": rng.standard_normal((N + 30, p)) for i, p in enumerate(widths)}
    Y = 3 * rng.standard_normal((N + 30, units))
    for X in spaces.values():
        Y += X @ rng.standard_normal((X.shape[1], units)) * rng.uniform(0, 1, units)
    return spaces, Y


def part(spaces, rows):
    return {k: v[rows] for k, v in spaces.items()}


TRAIN, TEST = slice(0, N), slice(N, None)


@pytest.mark.parametrize("widths", [(8, 5, 12), (60, 90, 30)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_makes_the_choices_of_himalaya(rng, widths, dtype):
    from himalaya.backend import set_backend
    from himalaya.ridge import solve_group_ridge_random_search
    from himalaya.scoring import r2_score

    set_backend("numpy")
    spaces, Y = make(rng, widths)
    gammas = simplex_candidates(3, 12, rng=rng)
    ours = BandedRidgeCV(ALPHAS, candidates=gammas, cv=4, dtype=dtype).fit(
        part(spaces, TRAIN), Y[TRAIN]
    )
    deltas, weights, scores, intercept = solve_group_ridge_random_search(
        [X[TRAIN] for X in spaces.values()],
        Y[TRAIN],
        n_iter=gammas,
        alphas=ALPHAS,
        score_func=r2_score,
        cv=4,
        fit_intercept=True,
        return_weights=True,
        progress_bar=False,
        warn=False,
    )
    tolerance = 1e-8 if dtype == "float64" else 1e-4
    np.testing.assert_allclose(ours.cv_scores_, scores, atol=tolerance)
    np.testing.assert_allclose(ours.gammas_ / ours.alphas_, np.exp(deltas), rtol=1e-6)
    expected = np.hstack([X[TEST] for X in spaces.values()]) @ weights + intercept
    np.testing.assert_allclose(ours.predict(part(spaces, TEST)), expected, atol=tolerance * 10)


def test_makes_the_choices_of_multiple_kernel_ridge(rng):
    from himalaya.backend import set_backend
    from himalaya.kernel_ridge import solve_multiple_kernel_ridge_random_search
    from himalaya.scoring import l2_neg_loss

    set_backend("numpy")
    spaces, Y = make(rng, (60, 90, 30))
    gammas = simplex_candidates(3, 12, rng=rng)
    X = [v[TRAIN] for v in spaces.values()]
    ours = BandedRidgeCV(
        ALPHAS, candidates=gammas, cv=4, scoring="mse", center=False, dtype="float64"
    ).fit(part(spaces, TRAIN), Y[TRAIN])
    deltas, _, scores = solve_multiple_kernel_ridge_random_search(
        np.stack([x @ x.T for x in X]),
        Y[TRAIN],
        n_iter=gammas,
        alphas=ALPHAS,
        score_func=l2_neg_loss,
        cv=4,
        progress_bar=False,
    )
    np.testing.assert_allclose(ours.cv_scores_, scores, rtol=1e-8)
    np.testing.assert_allclose(ours.gammas_ / ours.alphas_, np.exp(deltas), rtol=1e-6)


@pytest.mark.parametrize("widths", [(8, 5, 12), (60, 90, 30)])
def test_equal_weights_are_an_ordinary_ridge(rng, widths):
    spaces, Y = make(rng, widths)
    X = np.hstack(list(spaces.values()))
    for standardize in (True, False):
        plain = RidgeCV(ALPHAS * 3, 4, standardize=standardize, dtype="float64")
        plain.fit(X[TRAIN], Y[TRAIN])
        banded = BandedRidgeCV(
            ALPHAS,
            candidates=np.full((1, 3), 1 / 3),
            cv=4,
            standardize=standardize,
            dtype="float64",
            units_per_chunk=7,
        ).fit(part(spaces, TRAIN), Y[TRAIN])
        np.testing.assert_allclose(banded.best_scores_, plain.best_scores_, atol=1e-10)
        expected = plain.predict(X[TEST])
        np.testing.assert_allclose(banded.predict(part(spaces, TEST)), expected, atol=1e-9)


def test_a_space_of_weight_zero_is_not_there(rng):
    spaces, Y = make(rng)
    both = BandedRidgeCV(ALPHAS, candidates=[[1.0, 0.0, 0.0]], cv=4, dtype="float64")
    both.fit(part(spaces, TRAIN), Y[TRAIN])
    alone = RidgeCV(ALPHAS, 4, dtype="float64").fit(spaces["space 0"][TRAIN], Y[TRAIN])
    parts = both.predict_by_space(part(spaces, TEST))
    np.testing.assert_array_equal(parts["space 1"], 0)
    expected = alone.predict(spaces["space 0"][TEST])
    np.testing.assert_allclose(both.predict(part(spaces, TEST)), expected, atol=1e-9)


def test_product_measure_is_that_of_himalaya_and_sums_to_r2(rng):
    from himalaya.backend import set_backend
    from himalaya.scoring import r2_score_split

    set_backend("numpy")
    parts = rng.standard_normal((3, 40, 9))
    truth = parts.sum(axis=0) + rng.standard_normal((40, 9))
    truth -= truth.mean(axis=0)
    shares, offset = product_measure(truth, parts)
    np.testing.assert_allclose(shares, r2_score_split(truth, parts), atol=1e-12)
    np.testing.assert_allclose(offset, 0, atol=1e-12)
    mean = rng.standard_normal(9)
    shares, offset = product_measure(truth + 0.5, parts, mean)
    expected = r2(truth + 0.5, parts.sum(axis=0) + mean)
    np.testing.assert_allclose(shares.sum(axis=0) + offset, expected, atol=1e-12)
    assert (offset <= 0).all()


def test_partition_sums_to_the_joint_and_finds_who_explains(rng):
    n, units = 200, 30
    spaces = {"a": rng.standard_normal((n, 6)), "b": rng.standard_normal((n, 9))}
    Y = rng.standard_normal((n, units))
    Y[:, :10] += spaces["a"] @ rng.standard_normal((6, 10))
    Y[:, 10:20] += spaces["b"] @ rng.standard_normal((9, 10))
    train, test = slice(0, 140), slice(140, None)
    model = BandedRidgeCV(ALPHAS, n_candidates=8, cv=4, rng=rng)
    split = variance_partition(model, part(spaces, train), Y[train], part(spaces, test), Y[test])
    np.testing.assert_allclose(split.product.sum(axis=0) + split.offset, split.joint, atol=1e-12)
    np.testing.assert_allclose(
        split.joint, r2(Y[test], model.predict(part(spaces, test))), atol=1e-5
    )
    assert (split.product[0, :10] > 0.5).all() and (np.abs(split.product[1, :10]) < 0.1).all()
    assert (split.unique[1, 10:20] > 0.5).all() and (np.abs(split.unique[0, 10:20]) < 0.15).all()
    assert np.abs(split.joint[20:]).max() < 0.3


def test_a_space_given_twice_has_no_unique_variance(rng):
    X = rng.standard_normal((N + 30, 6))
    Y = X @ rng.standard_normal((6, 5)) + rng.standard_normal((N + 30, 5))
    spaces = {"once": X, "again": X.copy()}
    model = BandedRidgeCV(ALPHAS, n_candidates=5, cv=4, rng=rng)
    split = variance_partition(model, part(spaces, TRAIN), Y[TRAIN], part(spaces, TEST), Y[TEST])
    assert (split.joint > 0.5).all()
    assert np.abs(split.unique).max() < 0.01


def test_candidates_lie_on_the_simplex(rng):
    drawn = simplex_candidates(4, 50, rng=rng)
    np.testing.assert_allclose(drawn.sum(axis=1), 1)
    np.testing.assert_allclose(drawn[0], 0.25)
    # Odd draws are spread out, even ones favour one space.
    assert drawn[2::2].max(axis=1).mean() > drawn[1::2].max(axis=1).mean() + 0.2


def test_bad_input_is_named(rng):
    spaces, Y = make(rng)
    with pytest.raises(ConfigError, match="random state"):
        BandedRidgeCV().fit(spaces, Y)
    with pytest.raises(ConfigError, match="3 feature spaces"):
        BandedRidgeCV(candidates=np.ones((2, 2))).fit(spaces, Y)
    with pytest.raises(ConfigError, match="non-negative"):
        BandedRidgeCV(candidates=[[-1, 1, 1]]).fit(spaces, Y)
    with pytest.raises(ConfigError, match="at least one"):
        BandedRidgeCV(rng=rng).fit({}, Y)
    with pytest.raises(DataError, match="numbers of rows"):
        BandedRidgeCV(rng=rng).fit({**spaces, "x": np.ones((3, 2))}, Y)
    model = BandedRidgeCV(ALPHAS, candidates=np.ones((1, 3)), cv=4).fit(spaces, Y)
    with pytest.raises(DataError, match="'space 2'"):
        model.predict({k: spaces[k] for k in ("space 0", "space 1")})
    with pytest.raises(DataError, match="other widths"):
        model.predict({**spaces, "space 0": spaces["space 0"][:, :3]})
    with pytest.raises(ConfigError, match="at least two"):
        one = {"space 0": spaces["space 0"]}
        variance_partition(BandedRidgeCV(rng=rng), one, Y, one, Y)
