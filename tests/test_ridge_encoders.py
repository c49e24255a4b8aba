"""Encoders over recordings, their cross-validation, and per-unit scores."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from engramma.contracts import Encoder
from engramma.data.features import Features
from engramma.data.recording import Recording
from engramma.data.splits import Split, leave_one_out, stimulus_folds
from engramma.encoding.encoders import (
    BandedRidgeEncoder,
    MeanEncoder,
    RidgeEncoder,
    cross_validated_predictions,
    inner_folds,
)
from engramma.encoding.scores import (
    bootstrap_interval,
    ceiling_normalised,
    correlation,
    r2,
    two_versus_two,
)
from engramma.errors import ConfigError, DataError, LeakageError

ALPHAS = (1.0, 10.0, 100.0)


def world(rng, n_stimuli=30, n_runs=3, n_units=6, n_times=None, noise=0.5):
    """A linear world: two feature spaces, of which the first drives the units."""
    ids = tuple(f"im{i:02d}" for i in range(n_stimuli))
    a = Features(rng.standard_normal((n_stimuli, 5)), ids, "a")
    order = rng.permutation(n_stimuli)
    b = Features(rng.standard_normal((n_stimuli, 4)), tuple(ids[i] for i in order), "b")
    stimulus = np.tile(ids, n_runs)
    shape = (n_units,) if n_times is None else (n_units, n_times)
    weights = rng.standard_normal((5, *shape))
    signal = np.tensordot(a.rows(stimulus), weights, axes=1)
    recording = Recording.from_arrays(
        signal + noise * rng.standard_normal(signal.shape),
        stimulus,
        run=np.repeat(np.arange(n_runs), n_stimuli),
        time=None if n_times is None else np.arange(n_times) / 10,
    )
    return a, b, recording, signal


@pytest.mark.parametrize("encoder", [RidgeEncoder(), BandedRidgeEncoder(), MeanEncoder()])
def test_encoders_fulfil_the_contract(encoder):
    assert isinstance(encoder, Encoder)
    with pytest.raises(ConfigError, match="not been fitted"):
        encoder.predict(Features(np.ones((2, 3)), ("a", "b"), "f"))


def test_ridge_encoder_is_ridge_on_z_scored_features(rng):
    a, _, recording, _ = world(rng)
    encoder = RidgeEncoder(alphas=[10.0]).fit(a, recording)
    X = a.rows(recording.coord("stimulus")).astype(np.float64)
    scale = X.std(axis=0)
    reference = Ridge(alpha=10.0).fit(X / scale, recording.values)
    np.testing.assert_allclose(encoder.predict(a), reference.predict(a.values / scale), atol=1e-4)


def test_time_is_kept(rng):
    a, b, recording, signal = world(rng, n_times=4)
    for encoder, given in (
        (RidgeEncoder(ALPHAS), a),
        (BandedRidgeEncoder(ALPHAS, n_candidates=4), [a, b]),
        (MeanEncoder(), a),
    ):
        out = encoder.fit(given, recording).predict(given)
        assert out.shape == (30, 6, 4)
    out = RidgeEncoder(ALPHAS).fit(a, recording).predict(a)
    assert np.corrcoef(out.ravel(), signal[:30].ravel())[0, 1] > 0.98


def test_cross_validation_predicts_the_signal_and_never_sees_it(rng):
    a, b, recording, signal = world(rng)
    splits = list(stimulus_folds(recording, 5, rng=rng, allow=("run",)))
    for encoder, given in (
        (RidgeEncoder(ALPHAS), a),
        (BandedRidgeEncoder(ALPHAS, n_candidates=6), {"a": a, "b": b}),
    ):
        result = cross_validated_predictions(encoder, given, recording, splits, allow=("run",))
        assert np.corrcoef(result.predictions.ravel(), signal.ravel())[0, 1] > 0.95
        assert result.correlation.shape == result.r2.shape == (6,)
        assert result.by_split.shape == (5, 6)
        for number, split in enumerate(splits):
            assert (result.split[split.test] == number).all()
        assert not hasattr(encoder, "ridge_")
    # By hand, one split: fit without it, and score within it.
    split = splits[2]
    by_hand = RidgeEncoder(ALPHAS).fit(a, recording.select(presentations=split.train))
    rows = [a.stimuli.index(s) for s in recording.coord("stimulus")[split.test]]
    expected = by_hand.predict(a)[rows]
    result = cross_validated_predictions(RidgeEncoder(ALPHAS), a, recording, splits, allow=("run",))
    np.testing.assert_allclose(result.predictions[split.test], expected, atol=1e-5)
    truth = recording.values[split.test]
    np.testing.assert_allclose(
        result.by_split[2],
        [pearsonr(truth[:, u], expected[:, u])[0] for u in range(6)],
        atol=1e-5,
    )


def test_features_that_say_nothing_predict_nothing(rng):
    _, b, recording, _ = world(rng)
    splits = list(stimulus_folds(recording, 5, rng=rng, allow=("run",)))
    nothing = cross_validated_predictions(RidgeEncoder(), b, recording, splits, allow=("run",))
    mean = cross_validated_predictions(MeanEncoder(), b, recording, splits, allow=("run",))
    assert nothing.r2.mean() < 0.05
    np.testing.assert_array_equal(mean.correlation, 0)
    assert (mean.r2 <= 0).all()


def test_leakage_is_refused(rng):
    a, _, recording, _ = world(rng)
    by_run = list(leave_one_out(recording, allow=("stimulus",)))
    with pytest.raises(LeakageError, match="stimulus"):
        cross_validated_predictions(RidgeEncoder(), a, recording, by_run)
    half = [Split(np.arange(45, 90), np.arange(45))]
    with pytest.raises(ConfigError, match="45 never"):
        cross_validated_predictions(RidgeEncoder(), a, recording, half)


def test_inner_folds_keep_repeats_together(rng):
    _, _, recording, _ = world(rng)
    stimulus, run = recording.coord("stimulus"), recording.coord("run")
    folds = list(inner_folds(recording, 4))
    assert len(folds) == 4
    for train, test in folds:
        assert not set(stimulus[train]) & set(stimulus[test])
        assert len(train) + len(test) == 90
    for train, test in inner_folds(recording, "run"):
        assert not set(run[train]) & set(run[test])
    few = recording.select(presentations=np.isin(stimulus, ["im00", "im01"]))
    assert len(list(inner_folds(few, 5))) == 2
    with pytest.raises(ConfigError, match="one run"):
        inner_folds(recording.select(presentations=run == "0"), "run")


def test_a_unit_with_nan_is_named(rng):
    a, _, recording, _ = world(rng)
    values = recording.values.copy()
    values[3, 2] = np.nan
    with pytest.raises(DataError, match="u00002"):
        RidgeEncoder().fit(a, recording.with_values(values))


def test_two_spaces_of_one_name_are_refused(rng):
    a, _, recording, _ = world(rng)
    with pytest.raises(ConfigError, match="one name"):
        BandedRidgeEncoder().fit([a, a], recording)


# -- scores ----------------------------------------------------------------------------------


def test_scores_are_those_of_scipy_and_scikit_learn(rng):
    truth = rng.standard_normal((40, 5, 3)).astype(np.float32)
    guess = (truth + rng.standard_normal(truth.shape)).astype(np.float32)
    flat = truth.reshape(40, -1), guess.reshape(40, -1)
    pairs = list(zip(flat[0].T, flat[1].T, strict=True))
    expected = np.reshape([pearsonr(a, b)[0] for a, b in pairs], (5, 3))
    np.testing.assert_allclose(correlation(truth, guess), expected, atol=1e-6)
    expected = r2_score(*flat, multioutput="raw_values").reshape(5, 3)
    np.testing.assert_allclose(r2(truth, guess), expected, atol=1e-6)


def test_what_does_not_vary_scores_zero(rng):
    truth = rng.standard_normal((20, 2)).astype(np.float32)
    truth[:, 0] = 1000.1
    np.testing.assert_array_equal(correlation(truth, truth)[0], 0)
    np.testing.assert_array_equal(r2(truth, truth), [0, 1])
    np.testing.assert_array_equal(correlation(truth, np.full_like(truth, 3.3)), 0)
    with pytest.raises(DataError, match="two presentations"):
        r2(truth[:1], truth[:1])
    with pytest.raises(DataError, match="predictions"):
        r2(truth, truth[:, :1])


def test_ceiling_is_floored_and_units_are_counted():
    result = ceiling_normalised([0.4, 0.01, 0.2, 0.3], [0.8, 0.001, np.nan, 0.5], floor=0.1)
    np.testing.assert_allclose(result.values, [0.5, 0.1, 2.0, 0.6])
    assert result.n_kept == 2
    assert result.mean == pytest.approx(0.55)
    with pytest.raises(ConfigError, match="positive"):
        ceiling_normalised([1], [1], floor=0)


def test_two_versus_two(rng):
    truth = rng.standard_normal((12, 50))
    assert two_versus_two(truth, truth) == 1.0
    assert two_versus_two(truth, np.ones_like(truth)) == 0.5
    noise = rng.standard_normal((60, 50))
    assert abs(two_versus_two(rng.standard_normal((60, 50)), noise) - 0.5) < 0.1
    # By the definition, pair by pair.
    guess = truth + 3 * rng.standard_normal(truth.shape)
    d = 1 - np.corrcoef(truth, guess)[:12, 12:]
    groups = np.repeat(np.arange(6), 2)
    right = [
        d[i, i] + d[j, j] < d[i, j] + d[j, i]
        for i in range(12)
        for j in range(i)
        if groups[i] != groups[j]
    ]
    assert two_versus_two(truth, guess, groups) == pytest.approx(np.mean(right))
    with pytest.raises(DataError, match="different stimuli"):
        two_versus_two(truth, guess, np.zeros(12))


def test_bootstrap_draws_repeats_together(rng):
    groups = np.repeat(np.arange(25), 4)
    values = rng.standard_normal(25)[groups]  # repeats say nothing new

    def mean(index):
        counts = np.bincount(groups[index], minlength=25)
        assert (counts % 4 == 0).all()
        return values[index].mean()

    together = bootstrap_interval(mean, groups, rng=rng, n_resamples=2000)
    apart = bootstrap_interval(lambda i: values[i].mean(), 100, rng=rng, n_resamples=2000)
    half_width = 1.96 * values.std() / 5
    assert (together.high - together.low) / 2 == pytest.approx(half_width, rel=0.15)
    assert (apart.high - apart.low) < 0.6 * (together.high - together.low)
    assert together.value == pytest.approx(values.mean())
    with pytest.raises(DataError, match="1 group"):
        bootstrap_interval(mean, np.zeros(5), rng=rng)
