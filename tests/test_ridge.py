"""Ridge with an alpha per unit, against refitting, closed forms, scikit-learn and himalaya."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.linear_model import RidgeCV as SklearnRidgeCV

from engramma.data.splits import Split
from engramma.encoding.linear import product, resolve_folds
from engramma.encoding.ridge import RidgeCV, RidgeSolver
from engramma.errors import ConfigError, DataError

ALPHAS = np.logspace(-1, 4, 6)


def make(rng, n=60, p=12, units=7, noise=5.0):
    X = rng.standard_normal((n, p)) * rng.uniform(0.5, 3, p) + rng.standard_normal(p)
    Y = X @ rng.standard_normal((p, units)) * 0.4 + noise * rng.standard_normal((n, units)) + 1
    return X, Y


def refit_scores(X, Y, folds, center, standardize, scoring):
    """Cross-validated scores by fitting every fold with every alpha, in float64."""
    out = np.zeros((len(ALPHAS), Y.shape[1]))
    for train, test in folds:
        mean = X[train].mean(axis=0) if center else 0.0
        scale = X[train].std(axis=0) if standardize else 1.0
        A, B, truth = (X[train] - mean) / scale, (X[test] - mean) / scale, Y[test]
        for i, alpha in enumerate(ALPHAS):
            model = Ridge(alpha=alpha, fit_intercept=center, solver="cholesky").fit(A, Y[train])
            guess = model.predict(B)
            if scoring == "r2":
                spread = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
                out[i] += 1 - ((truth - guess) ** 2).sum(axis=0) / spread
            elif scoring == "mse":
                out[i] -= ((truth - guess) ** 2).mean(axis=0)
            else:
                pairs = zip(truth.T, guess.T, strict=True)
                out[i] += [np.corrcoef(a, b)[0, 1] for a, b in pairs]
    return out / len(folds)


@pytest.mark.parametrize("shape", [(60, 12), (60, 90), (150, 6), (50, 47)])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("scoring", ["r2", "correlation", "mse"])
def test_scores_are_those_of_explicit_refitting(rng, shape, center, standardize, scoring):
    X, Y = make(rng, *shape)
    n = len(X)
    complete = resolve_folds(4, n)
    partial = [(np.arange(n // 2), np.arange(n // 2, n // 2 + 9)), (np.arange(9, n), np.arange(9))]
    for folds in (complete, partial):
        expected = refit_scores(X, Y, folds, center, standardize, scoring)
        level = max(1.0, np.abs(expected).max())
        for dtype, tolerance in (("float64", 1e-9), ("float32", 3e-5)):
            model = RidgeCV(
                ALPHAS, folds, scoring, center=center, standardize=standardize, dtype=dtype
            ).fit(X, Y)
            assert np.abs(model.cv_scores_ - expected).max() < tolerance * level
            np.testing.assert_allclose(
                model.best_scores_, expected.max(axis=0), atol=tolerance * level
            )


@pytest.mark.parametrize("p", [12, 90])
def test_weights_are_the_closed_form(rng, p):
    X, Y = make(rng, p=p)
    model = RidgeCV(ALPHAS, 4, dtype="float64").fit(X, Y)
    Xc, Yc = X - X.mean(axis=0), Y - Y.mean(axis=0)
    for unit, alpha in enumerate(model.alphas_):
        b = np.linalg.solve(Xc.T @ Xc + alpha * np.eye(p), Xc.T @ Yc[:, unit])
        np.testing.assert_allclose(model.coef_[:, unit], b, atol=1e-10)
    new = rng.standard_normal((5, p))
    np.testing.assert_allclose(model.predict(new), new @ model.coef_ + model.intercept_, atol=1e-9)
    single = RidgeCV(ALPHAS, 4).fit(X, Y)
    np.testing.assert_array_equal(single.alphas_, model.alphas_)
    np.testing.assert_allclose(single.predict(new), model.predict(new), atol=1e-4)


def test_standardised_weights_apply_to_the_features_as_given(rng):
    X, Y = make(rng)
    X[:, 3] *= 1000
    model = RidgeCV(ALPHAS, 4, standardize=True, dtype="float64").fit(X, Y)
    new = rng.standard_normal((5, X.shape[1]))
    np.testing.assert_allclose(model.predict(new), new @ model.coef_ + model.intercept_, atol=1e-9)


def test_leave_one_out_agrees_with_scikit_learn(rng):
    X, Y = make(rng, n=30, units=5)
    ours = RidgeCV(ALPHAS, cv=30, scoring="mse", dtype="float64").fit(X, Y)
    theirs = SklearnRidgeCV(ALPHAS, alpha_per_target=True).fit(X, Y)
    np.testing.assert_array_equal(ours.alphas_, theirs.alpha_)
    np.testing.assert_allclose(ours.best_scores_, theirs.best_score_, rtol=1e-8)
    np.testing.assert_allclose(ours.coef_.T, theirs.coef_, atol=1e-9)


@pytest.mark.parametrize("p", [20, 120])
def test_agrees_with_himalaya(rng, p):
    from himalaya.backend import set_backend
    from himalaya.kernel_ridge import KernelRidgeCV
    from himalaya.scoring import r2_score

    set_backend("numpy")
    X, Y = make(rng, n=80, p=p, units=40)
    theirs = KernelRidgeCV(
        alphas=ALPHAS,
        cv=5,
        fit_intercept=True,
        solver_params={"score_func": r2_score},
        warn=False,
    ).fit(X, Y)
    ours = RidgeCV(ALPHAS, dtype="float64").fit(X, Y)
    np.testing.assert_allclose(ours.alphas_, theirs.best_alphas_)
    np.testing.assert_allclose(ours.best_scores_, theirs.cv_scores_.ravel(), atol=1e-8)
    np.testing.assert_allclose(ours.predict(X[:9]), theirs.predict(X[:9]), atol=1e-8)


def test_splits_and_masks_are_folds_too(rng):
    X, Y = make(rng)
    folds = resolve_folds(4, 60)
    masks = [(~np.isin(np.arange(60), test), np.isin(np.arange(60), test)) for _, test in folds]
    a = RidgeCV(ALPHAS, 4).fit(X, Y).cv_scores_
    b = RidgeCV(ALPHAS, [Split(*f) for f in folds]).fit(X, Y).cv_scores_
    c = RidgeCV(ALPHAS, masks).fit(X, Y).cv_scores_
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, c)


# -- properties ------------------------------------------------------------------------------

few = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
shapes = st.tuples(st.integers(12, 40), st.integers(1, 50), st.integers(1, 6))


@few
@given(shape=shapes, seed=st.integers(0, 99), factor=st.floats(0.01, 100))
def test_scaling_features_is_scaling_alpha(shape, seed, factor):
    X, Y = make(np.random.default_rng(seed), *shape)
    a = RidgeCV(ALPHAS, 3, dtype="float64").fit(X, Y)
    b = RidgeCV(ALPHAS * factor**2, 3, dtype="float64").fit(X * factor, Y)
    np.testing.assert_allclose(a.cv_scores_, b.cv_scores_, atol=1e-7)
    np.testing.assert_allclose(a.alphas_ * factor**2, b.alphas_)


@few
@given(shape=shapes, seed=st.integers(0, 99), gain=st.floats(0.1, 10), shift=st.floats(-50, 50))
def test_scores_do_not_depend_on_units_of_measurement(shape, seed, gain, shift):
    X, Y = make(np.random.default_rng(seed), *shape)
    a = RidgeCV(ALPHAS, 3, dtype="float64").fit(X, Y)
    b = RidgeCV(ALPHAS, 3, dtype="float64").fit(X, gain * Y + shift)
    np.testing.assert_allclose(a.cv_scores_, b.cv_scores_, atol=1e-7)
    np.testing.assert_allclose(gain * a.predict(X) + shift, b.predict(X), atol=1e-6)


@few
@given(shape=shapes, seed=st.integers(0, 99), step=st.integers(1, 4))
def test_order_of_units_and_presentations_and_chunks_do_not_matter(shape, seed, step):
    rng = np.random.default_rng(seed)
    X, Y = make(rng, *shape)
    n, _, units = shape
    folds = resolve_folds(3, n)
    a = RidgeCV(ALPHAS, folds, dtype="float64").fit(X, Y)
    rows, columns = rng.permutation(n), rng.permutation(units)
    where = np.argsort(rows)
    moved = [(where[train], where[test]) for train, test in folds]
    b = RidgeCV(ALPHAS, moved, dtype="float64", units_per_chunk=step).fit(
        X[rows], Y[rows][:, columns]
    )
    np.testing.assert_allclose(a.cv_scores_[:, columns], b.cv_scores_, atol=1e-8)
    np.testing.assert_allclose(a.predict(X)[:, columns], b.predict(X), atol=1e-7)


def test_product_is_the_product(rng):
    import torch

    for n, k, m in [(1, 1, 1), (16, 16, 16), (33, 70, 41), (3, 200, 100)]:
        a = torch.from_numpy(rng.standard_normal((n, k)).astype(np.float32))
        b = torch.from_numpy(rng.standard_normal((m, k)).astype(np.float32))
        expected = a.double() @ b.double().T
        np.testing.assert_allclose(product(a, b).numpy(), expected.numpy(), atol=1e-4)
        np.testing.assert_allclose(product(a.T.contiguous().T, b).numpy(), expected, atol=1e-4)


# -- degenerate and bad input ----------------------------------------------------------------


def test_a_constant_unit_scores_zero_and_is_predicted_by_its_value(rng):
    X, Y = make(rng)
    Y[:, 2] = 1234.567
    for scoring in ("r2", "correlation"):
        model = RidgeCV(ALPHAS, 4, scoring).fit(X, Y)
        assert (model.cv_scores_[:, 2] == 0).all()
        assert model.alphas_[2] == ALPHAS.max()
        np.testing.assert_allclose(model.predict(X)[:, 2], 1234.567, rtol=1e-5)
        assert np.isfinite(model.cv_scores_).all()


def test_constant_and_duplicated_features_change_nothing_but_their_own_weights(rng):
    X, Y = make(rng)
    plain = RidgeCV(ALPHAS, 4, standardize=True, dtype="float64").fit(X, Y)
    constant = np.hstack([X, np.full((60, 2), 7.0)])
    same = RidgeCV(ALPHAS, 4, standardize=True, dtype="float64").fit(constant, Y)
    np.testing.assert_allclose(same.cv_scores_, plain.cv_scores_, atol=1e-10)
    np.testing.assert_array_equal(same.coef_[-2:], 0)
    # Two copies of every feature act as one of twice the power.
    twice = RidgeCV(ALPHAS * 2, 4, dtype="float64").fit(np.hstack([X, X]), Y)
    once = RidgeCV(ALPHAS, 4, dtype="float64").fit(X, Y)
    np.testing.assert_allclose(twice.cv_scores_, once.cv_scores_, atol=1e-10)
    np.testing.assert_allclose(twice.coef_[:12], twice.coef_[12:], atol=1e-10)


def test_features_that_are_all_constant_predict_the_mean(rng):
    _, Y = make(rng)
    model = RidgeCV(ALPHAS, 4).fit(np.ones((60, 3)), Y)
    np.testing.assert_allclose(model.predict(np.ones((1, 3)))[0], Y.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("p", [12, 90])
def test_almost_no_shrinkage_stays_exact(rng, p):
    X, Y = make(rng, p=p)
    tiny = np.array([1e-9, 1e-3])
    model = RidgeCV(tiny, 4, dtype="float64").fit(X, Y)
    scores = np.zeros(7)
    for train, test in resolve_folds(4, 60):
        mean = X[train].mean(axis=0), Y[train].mean(axis=0)
        b = np.linalg.pinv(X[train] - mean[0]) @ (Y[train] - mean[1])
        guess = (X[test] - mean[0]) @ b + mean[1]
        spread = ((Y[test] - Y[test].mean(axis=0)) ** 2).sum(axis=0)
        scores += (1 - ((Y[test] - guess) ** 2).sum(axis=0) / spread) / 4
    np.testing.assert_allclose(model.cv_scores_[0], scores, atol=1e-6)


def test_one_unit_may_be_a_vector(rng):
    X, Y = make(rng)
    model = RidgeCV(ALPHAS, 4).fit(X, Y[:, 0])
    assert model.predict(X).shape == (60,)
    assert model.coef_.shape == (12,)
    whole = RidgeCV(ALPHAS, 4).fit(X, Y)
    np.testing.assert_allclose(model.predict(X), whole.predict(X)[:, 0], atol=1e-4)


def test_a_fold_of_one_row_is_left_out_of_the_mean_of_r2(rng):
    X, Y = make(rng)
    folds = [*resolve_folds(4, 60), (np.arange(1, 60), np.array([0]))]
    a = RidgeCV(ALPHAS, folds, dtype="float64").fit(X, Y)
    b = RidgeCV(ALPHAS, 4, dtype="float64").fit(X, Y)
    np.testing.assert_allclose(a.cv_scores_, b.cv_scores_, atol=1e-10)
    with pytest.raises(ConfigError, match="one presentation"):
        RidgeCV(ALPHAS, cv=60).fit(X, Y)


def test_nan_is_named(rng):
    X, Y = make(rng)
    Y[5, 4] = np.nan
    with pytest.raises(DataError, match="unit 4, presentation 5"):
        RidgeCV(ALPHAS, 4, units_per_chunk=3).fit(X, Y)
    X[2, 3] = np.inf
    with pytest.raises(DataError, match="column 3"):
        RidgeCV(ALPHAS, 4).fit(X, Y)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"alphas": [0.0, 1.0]}, ConfigError, "positive"),
        ({"alphas": []}, ConfigError, "positive"),
        ({"cv": 1}, ConfigError, "1 folds"),
        ({"cv": []}, ConfigError, "no folds"),
        ({"cv": [([0, 1, 2], [2, 3])]}, ConfigError, "trains on"),
        ({"cv": [([0, 1, 2], [99])]}, ConfigError, "beyond"),
        ({"cv": [([0, 1, 2], [])]}, ConfigError, "no test"),
        ({"scoring": "accuracy"}, ConfigError, "accuracy"),
        ({"dtype": "int8"}, ConfigError, "int8"),
    ],
)
def test_impossible_options_are_named(rng, change, error, match):
    with pytest.raises(error, match=match):
        RidgeCV(**{"alphas": ALPHAS, "cv": 4, **change}).fit(*make(rng))


def test_shapes_that_do_not_match_are_named(rng):
    X, Y = make(rng)
    with pytest.raises(DataError, match="60 rows"):
        RidgeCV(ALPHAS, 4).fit(X, Y[:-1])
    with pytest.raises(DataError, match="shape"):
        RidgeCV(ALPHAS, 4).fit(X, Y[:, :0])
    with pytest.raises(DataError, match="11 features"):
        RidgeCV(ALPHAS, 4).fit(X, Y).predict(X[:, :11])


def test_maps_made_again_for_each_chunk_give_the_same(rng, monkeypatch):
    X, Y = make(rng)
    expected = RidgeCV(ALPHAS, 4).fit(X, Y)
    monkeypatch.setattr("engramma.encoding.ridge._KEEP", 0)
    again = RidgeCV(ALPHAS, 4).fit(X, Y)
    np.testing.assert_allclose(again.cv_scores_, expected.cv_scores_, atol=1e-6)
    assert not RidgeSolver(X, alphas=ALPHAS)._kept


def test_inputs_are_left_alone(rng):
    X, Y = (a.astype(np.float32) for a in make(rng, units=1))
    Y = np.asfortranarray(Y)
    before = X.copy(), Y.copy()
    RidgeCV(ALPHAS, 4, standardize=True).fit(X, Y).predict(X)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(Y, before[1])


def test_training_rows_given_twice_count_twice(rng):
    X, Y = make(rng)
    train, test = np.repeat(np.arange(25), 2), np.arange(30, 40)
    model = RidgeCV([10.0], [(train, test)], dtype="float64").fit(X, Y)
    guess = Ridge(alpha=10.0).fit(X[train], Y[train]).predict(X[test])
    spread = ((Y[test] - Y[test].mean(axis=0)) ** 2).sum(axis=0)
    expected = 1 - ((Y[test] - guess) ** 2).sum(axis=0) / spread
    np.testing.assert_allclose(model.cv_scores_[0], expected, atol=1e-9)
