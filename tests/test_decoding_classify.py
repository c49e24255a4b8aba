"""Classification: against scikit-learn, closed forms, shuffled labels and a real recording."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, roc_auc_score
from sklearn.model_selection import LeaveOneGroupOut
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler

from engramma.data.recording import Recording
from engramma.data.splits import Split, leave_one_out, stimulus_folds
from engramma.decoding import linear
from engramma.decoding.classify import auc, decode, permutation_p_value, select_units
from engramma.errors import ConfigError, DataError, DataWarning, LeakageError


def make(rng, n_units=40, n_runs=6, n_classes=4, per_run=3, signal=0.6):
    labels = np.tile(np.repeat([f"c{i}" for i in range(n_classes)], per_run), n_runs)
    means = signal * rng.standard_normal((n_classes, n_units))
    codes = np.unique(labels, return_inverse=True)[1]
    x = means[codes] + rng.standard_normal((len(codes), n_units)) * rng.uniform(0.5, 3, n_units)
    run = np.repeat(np.arange(n_runs), n_classes * per_run)
    return Recording.from_arrays(x + 5, labels, run=run)


def by_hand(recording, fit_predict):
    """Leave one run out with scikit-learn, standardised in the training part."""
    x, y, run = recording.values, recording.coord("stimulus"), recording.coord("run")
    guess = np.empty_like(y)
    for train, test in LeaveOneGroupOut().split(x, y, run):
        scaler = StandardScaler().fit(x[train])
        guess[test] = fit_predict(scaler.transform(x[train]), y[train], scaler.transform(x[test]))
    return guess


def in_order(result):
    guess = np.empty(len(result.predicted), dtype=object)
    guess[result.presentation] = result.predicted
    return guess


@pytest.mark.parametrize("n_units", [20, 150])
def test_lda_is_that_of_scikit_learn_with_the_same_shrinkage(rng, n_units):
    recording = make(rng, n_units)

    def fit_predict(x, y, new):
        means = np.stack([x[y == c].mean(0) for c in np.unique(y)])
        within = x - means[np.unique(y, return_inverse=True)[1]]
        shrinkage = ledoit_wolf(within, assume_centered=True)[1]
        lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
        return lda.fit(x, y).predict(new)

    result = decode(recording, rng=rng)
    assert (in_order(result) == by_hand(recording, fit_predict)).all()


@pytest.mark.parametrize("n_units", [20, 150])
def test_ridge_chooses_the_penalty_of_explicit_refitting(rng, n_units):
    recording = make(rng, n_units, signal=0.3)
    x, y = recording.values, recording.coord("stimulus")
    groups = np.unique(recording.coord("run"), return_inverse=True)[1]
    space = linear.Space.of(x[None])
    codes = np.unique(y, return_inverse=True)[1]
    onehot = np.eye(4)[codes]
    weights, _ = linear.ridge(space, onehot[None], groups)
    z = (x - x.mean(0)) / x.std(0)
    unit = (z**2).sum() / len(z)

    def solve(a, b, penalty):  # with an unpenalised intercept
        ac, bc = a - a.mean(0), b - b.mean(0)
        w = np.linalg.solve(ac.T @ ac + penalty * np.eye(a.shape[1]), ac.T @ bc)
        return w, b.mean(0) - a.mean(0) @ w

    errors = []
    for p in linear.RIDGE_PENALTIES:
        error = 0.0
        for g in np.unique(groups):
            w, b = solve(z[groups != g], onehot[groups != g], p * unit)
            error += ((onehot[groups == g] - z[groups == g] @ w - b) ** 2).sum()
        errors.append(error)
    best = linear.RIDGE_PENALTIES[int(np.argmin(errors))]
    expected, _ = solve(z, onehot, best * unit)
    axes = space.basis[0] if n_units <= len(x) else z.T @ space.basis[0]
    np.testing.assert_allclose(axes.T @ axes, np.diag(space.power[0] > 0), atol=1e-5)
    np.testing.assert_allclose(axes @ weights[0, 0], expected, rtol=1e-4, atol=1e-6)
    reference = RidgeClassifier(alpha=best * unit).fit(z, y).decision_function(z)
    mine = linear.scores(weights, np.zeros((1, 1, 4)), space.project(x[None]))[0, 0]
    np.testing.assert_allclose(2 * (mine - mine.mean(0)), reference - reference.mean(0), atol=1e-4)


def test_centroid_is_that_of_scikit_learn(rng):
    recording = make(rng, 60)
    result = decode(recording, classifier="centroid", rng=rng)
    expected = by_hand(recording, lambda x, y, new: NearestCentroid().fit(x, y).predict(new))
    assert (in_order(result) == expected).all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logistic_and_svm_run_in_the_rotated_space(rng, n_classes):
    recording = make(rng, 90, n_runs=3, n_classes=n_classes)
    x, y = recording.values.astype(float), recording.coord("stimulus")
    space = linear.Space.of(x[None])
    codes = np.unique(y, return_inverse=True)[1]
    groups = np.unique(recording.coord("run"), return_inverse=True)[1]
    onehot = np.eye(n_classes)[codes][None]
    plane = linear.logistic(space, onehot, groups)
    z = StandardScaler().fit_transform(x)
    guesses = [
        LogisticRegression(C=c, max_iter=1000).fit(z, y).decision_function(z)
        for c in linear.INVERSE_PENALTIES
    ]
    mine = linear.scores(*plane, space.project(x[None]))[0, 0]
    mine = mine - mine.mean(axis=1, keepdims=True)
    mine = 2 * mine[:, 1] if n_classes == 2 else mine
    assert min(np.abs(mine - g).max() for g in guesses) < 2e-2
    assert decode(recording, classifier="svm", rng=rng).accuracy.value > 1 / n_classes


def test_numbers_are_those_of_scikit_learn(rng):
    recording = make(rng, 30, signal=0.25)
    result = decode(recording, rng=rng)
    assert result.accuracy.value == np.mean(result.predicted == result.actual)
    expected = balanced_accuracy_score(result.actual, result.predicted)
    assert result.balanced_accuracy.value == pytest.approx(expected)
    np.testing.assert_array_equal(
        result.confusion, confusion_matrix(result.actual, result.predicted)
    )
    assert result.accuracy.low < result.accuracy.value < result.accuracy.high
    assert result.chance == result.chance_balanced == 0.25
    assert list(result.folds) == [f"run {i}" for i in range(6)]
    score = np.round(rng.standard_normal(50), 1)
    truth = rng.random(50) < 0.4
    assert auc(score, truth) == pytest.approx(roc_auc_score(truth, score))


def test_selection_is_by_f_and_inside_training(rng):
    x, y = rng.standard_normal((60, 30)), np.repeat([0, 1, 2], 20)
    expected = np.sort(np.argsort(-f_classif(x, y)[0])[:7])
    np.testing.assert_array_equal(select_units(x, np.eye(3)[y], 7), expected)
    # Selecting on all presentations finds "signal" in noise; selecting inside does not.
    accuracy = []
    for seed in range(8):
        noise = make(np.random.default_rng(seed), 2000, n_runs=4, n_classes=2, signal=0.0)
        accuracy.append(decode(noise, select=10, rng=rng).accuracy.value)
    assert abs(np.mean(accuracy) - 0.5) < 0.13


def test_shuffled_labels_are_at_chance(rng):
    recording = make(rng, 100)
    assert decode(recording, rng=rng).accuracy.value > 0.8
    shuffled = [
        decode(recording, rng.permuted(recording.coord("stimulus")), rng=rng).accuracy.value
        for _ in range(10)
    ]
    assert abs(np.mean(shuffled) - 0.25) < 0.06


@pytest.mark.parametrize("classifier", ["lda", "ridge", "centroid"])
def test_permuted_classifier_is_the_reported_one(rng, classifier):
    recording = make(rng, 50, n_runs=4)
    options = {"classifier": classifier, "n_permutations": 30}
    _, null = permutation_p_value(recording, rng=np.random.default_rng(7), **options)
    again = np.random.default_rng(7)
    run = recording.coord("run")
    codes = np.tile(np.unique(recording.coord("stimulus"), return_inverse=True)[1], (30, 1))
    for r in np.unique(run):
        codes[:, run == r] = again.permuted(codes[:, run == r], axis=1)
    splits = list(leave_one_out(recording, allow=("stimulus",)))
    for i in (0, 11, 29):
        labels = np.asarray([f"c{c}" for c in codes[i]])
        direct = decode(recording, labels, splits, classifier=classifier, rng=rng)
        assert direct.accuracy.value == pytest.approx(null[i])


def test_p_values_are_uniform_when_there_is_nothing():
    ps = []
    for seed in range(120):
        generator = np.random.default_rng(seed)
        recording = make(generator, 15, n_runs=4, n_classes=2, per_run=4, signal=0.0)
        ps.append(permutation_p_value(recording, rng=generator, n_permutations=99)[0])
    assert kstest(ps, "uniform").pvalue > 0.01
    assert np.mean(np.asarray(ps) <= 0.05) < 0.11


def test_stimuli_are_exchanged_where_their_labels_are_decoded():
    """Repeats of one stimulus are alike: exchanging presentations would be wrong there."""
    rejected = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        own = rng.standard_normal((12, 10))  # each stimulus has a pattern, categories have none
        x = np.tile(own, (4, 1)) + 0.3 * rng.standard_normal((48, 10))
        ids = np.tile([f"s{i:02d}" for i in range(12)], 4)
        recording = Recording.from_arrays(x, ids, run=np.repeat(range(4), 12))
        labels = np.tile(np.repeat(["a", "b"], 6), 4)
        splits = list(stimulus_folds(recording, 4, rng=rng, allow=("run",)))
        p, _ = permutation_p_value(recording, labels, splits, rng=rng, n_permutations=60)
        rejected.append(p <= 0.1)
    assert np.mean(rejected) < 0.2


def test_a_leaking_split_is_refused(rng):
    recording = make(rng)
    n = recording.n_presentations
    everything = Split(np.arange(n), np.arange(5), "all")
    with pytest.raises(LeakageError, match="presentations"):
        decode(recording, splits=[everything], rng=rng)
    odd = Split(np.arange(0, n, 2), np.arange(1, n, 2), "odd")
    with pytest.raises(LeakageError, match="kept apart"):
        decode(recording, splits=[odd], rng=rng)
    with pytest.raises(LeakageError, match="stimulus"):
        decode(recording, splits=leave_one_out(recording, allow=("stimulus",)), allow=(), rng=rng)
    assert decode(recording, splits=[odd], allow=("stimulus", "run"), rng=rng).accuracy.value > 0


def test_missing_classes_are_named_and_never_predicted_from_nothing(rng):
    recording = make(rng, n_runs=3)
    only_once = (recording.coord("stimulus") != "c0") | (recording.coord("run") == "2")
    with pytest.warns(DataWarning, match=r"class missing from training: 'c0', in 'run 2'"):
        result = decode(recording.select(only_once), rng=rng)
    assert any("class missing from test" in note for note in result.notes)
    in_run_2 = recording.select(only_once).coord("run")[result.presentation] == "2"
    assert (result.predicted[in_run_2] != "c0").all()
    assert np.isfinite(result.balanced_accuracy.value)


def test_bad_input_is_named(rng):
    recording = make(rng)
    with pytest.raises(ConfigError, match="'forest'"):
        decode(recording, classifier="forest", rng=rng)
    with pytest.raises(DataError, match="nothing to decode"):
        decode(recording, ["a"] * recording.n_presentations, rng=rng)
    with pytest.raises(DataError, match="one run only"):
        decode(make(rng, n_runs=1), rng=rng)
    values = recording.values.copy()
    values[3, 2] = np.nan
    with pytest.raises(DataError, match="NaN"):
        decode(recording.with_values(values), rng=rng)


def test_constant_units_do_no_harm(rng):
    recording = make(rng)
    values = recording.values.copy()
    values[:, :5] = 3.0
    for classifier in ("lda", "ridge", "centroid"):
        with_constant = decode(recording.with_values(values), classifier=classifier, rng=rng)
        without = decode(recording.select(units=np.arange(5, 40)), classifier=classifier, rng=rng)
        assert abs(with_constant.accuracy.value - without.accuracy.value) < 0.05


def haxby(folder):
    """One mean pattern per block: detrended and z-scored within run, shifted by two volumes."""
    import nibabel
    from scipy.signal import detrend

    mask = np.asarray(nibabel.load(folder / "mask.nii.gz").dataobj) > 0
    patterns, labels, runs = [], [], []
    for path in sorted((folder / "sub-01" / "func").glob("*_bold.nii.gz")):
        series = detrend(np.asarray(nibabel.load(path).dataobj, dtype=float)[mask].T, axis=0)
        series /= np.maximum(series.std(axis=0), 1e-9)
        time = 2.5 * np.arange(len(series))
        events = pd.read_csv(str(path).replace("_bold.nii.gz", "_events.tsv"), sep="\t")
        for event in events.itertuples():
            inside = (time >= event.onset + 5) & (time < event.onset + event.duration + 5)
            patterns.append(series[inside].mean(axis=0))
            labels.append(event.trial_type)
            runs.append(path.name.split("run-")[1][:2])
    return Recording.from_arrays(np.asarray(patterns), labels, run=runs)


def test_haxby_conditions_are_decoded_as_published(real_data):
    recording = haxby(real_data / "haxby-slice")
    result = decode(recording, rng=np.random.default_rng(0), n_permutations=1000)
    assert result.accuracy.value >= 0.78
    assert result.p_value == pytest.approx(1 / 1001)
    assert abs(result.null.mean() - 0.125) < 0.02
    assert len(result.folds) == 12


def test_runs_of_one_class_cannot_be_permuted_within(rng):
    x = rng.standard_normal((24, 5))
    recording = Recording.from_arrays(x, np.repeat(["a", "b"] * 3, 4), run=np.repeat(range(6), 4))
    with pytest.raises(DataError, match="each run holds one class"):
        permutation_p_value(recording, rng=rng, n_permutations=10)
