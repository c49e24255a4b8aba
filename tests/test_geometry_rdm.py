"""RDMs against rsatoolbox, scipy, closed forms and known biases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from sklearn.covariance import ledoit_wolf

from engramma.data.recording import Cohort, Recording
from engramma.data.stimuli import StimulusSet
from engramma.data.store import open_recording, save_recording
from engramma.errors import ConfigError, DataError
from engramma.geometry.noise import Noise, estimate_noise
from engramma.geometry.rdm import rdm, rdm_from_recording, rdm_movie, to_pairs, to_square

PLAIN = ("sqeuclidean", "euclidean", "correlation", "cosine", "poisson")


def repeats(rng, n_stimuli=7, n_runs=4, n_units=30, signal=1.0, **kwargs):
    """Stimuli shown once a run, in a new order each run, with correlated noise."""
    patterns = signal * rng.standard_normal((n_stimuli, n_units))
    mixing = np.eye(n_units) + 0.2 * rng.standard_normal((n_units, n_units))
    order = np.concatenate([rng.permutation(n_stimuli) for _ in range(n_runs)])
    noise = rng.standard_normal((len(order), n_units)) @ mixing
    return Recording.from_arrays(
        patterns[order] + noise,
        [f"im{i}" for i in order],
        run=np.repeat(np.arange(1, n_runs + 1), n_stimuli),
        **kwargs,
    )


def reference(recording, method, **kwargs):
    """The same RDM by rsatoolbox."""
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm

    data = Dataset(
        recording.values.astype(float),
        obs_descriptors={k: list(recording.coord(k)) for k in ("stimulus", "run")},
    )
    rdms = calc_rdm(data, method=method, descriptor="stimulus", **kwargs)
    return rdms.dissimilarities[0]


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "correlation", "cosine"])
def test_plain_distances_equal_scipy(rng, metric):
    patterns = rng.standard_normal((9, 5000)) + 3
    expected = pdist(patterns, metric)
    expected = {
        "sqeuclidean": expected / 5000,
        "euclidean": expected / np.sqrt(5000),
    }.get(metric, expected)
    np.testing.assert_allclose(rdm(patterns, metric), expected, rtol=1e-10)
    np.testing.assert_allclose(rdm(patterns.astype(np.float32), metric), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("sqeuclidean", "euclidean"), ("correlation", "correlation"), ("crossnobis", "crossnobis")],
)
def test_recording_equals_rsatoolbox(rng, ours, theirs):
    recording = repeats(rng)
    kwargs = {"cv_descriptor": "run"} if ours == "crossnobis" else {}
    found = rdm_from_recording(recording, ours)
    np.testing.assert_allclose(
        found.dissimilarities[0], reference(recording, theirs, **kwargs), atol=1e-5
    )
    assert found.stimuli.ids == [f"im{i}" for i in range(7)]


@pytest.mark.parametrize("shape", [(40, 6), (20, 60)], ids=["few units", "many units"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("ledoit-wolf", "shrinkage_eye"),
        ("shrinkage-diagonal", "shrinkage_diag"),
        ("diagonal", "diag"),
    ],
)
def test_noise_and_mahalanobis_equal_rsatoolbox(rng, shape, ours, theirs):
    from rsatoolbox.data.noise import prec_from_residuals

    n, n_units = shape
    recording = repeats(rng, n_units=n_units)
    residuals = rng.standard_normal(shape) @ rng.uniform(-0.2, 1, (n_units, n_units))
    residuals -= residuals.mean(axis=0)
    noise = estimate_noise(residuals, dof=n - 3, method=ours)
    precision = prec_from_residuals(residuals, dof=n - 3, method=theirs)
    for method in ("mahalanobis", "crossnobis"):
        kwargs = {"cv_descriptor": "run"} if method == "crossnobis" else {}
        expected = reference(recording, method, noise=precision, **kwargs)
        for given_noise in (noise, Noise.from_precision(precision)):
            found = rdm_from_recording(recording, method, noise=given_noise).dissimilarities[0]
            np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_ledoit_wolf_weight_equals_sklearn(rng):
    residuals = rng.standard_normal((25, 70)) * rng.uniform(0.5, 2, 70)
    weight = ledoit_wolf(residuals, assume_centered=True)[1]
    assert estimate_noise(residuals).shrinkage == pytest.approx(weight, rel=1e-10)


def test_full_covariance_equals_scipy_mahalanobis(rng):
    patterns, residuals = rng.standard_normal((6, 8)), rng.standard_normal((50, 8))
    noise = estimate_noise(residuals, dof=50, method="full")
    inverse = np.linalg.inv(residuals.T @ residuals / 50)
    expected = pdist(patterns, "mahalanobis", VI=inverse) ** 2 / 8
    np.testing.assert_allclose(rdm(patterns, "mahalanobis", noise=noise), expected, rtol=1e-9)


def test_poisson_equals_rsatoolbox(rng):
    counts = rng.poisson(4, (24, 11))
    recording = Recording.from_arrays(counts, [f"im{i:02d}" for i in range(24)])
    found = rdm_from_recording(recording, "poisson").dissimilarities[0]
    np.testing.assert_allclose(found, reference(recording, "poisson"), atol=1e-5)


def test_crossnobis_of_fold_pairs_is_their_mean(rng):
    folds = rng.standard_normal((5, 6, 40))
    differences = folds[:, :, None] - folds[:, None]
    pairs = [(f, g) for f in range(5) for g in range(5) if f != g]
    expected = np.mean([(differences[f] * differences[g]).mean(-1) for f, g in pairs], axis=0)
    np.testing.assert_allclose(rdm(folds, "crossnobis"), to_pairs(expected), rtol=1e-9)


@pytest.mark.parametrize("noise", [None, "diagonal", "ledoit-wolf", "shrinkage-diagonal"])
def test_crossnobis_of_pure_noise_has_mean_zero(noise):
    """Few residuals and many units: where noise that knew the test fold would bias it."""
    rng = np.random.default_rng(5)
    means = [
        rdm_from_recording(
            repeats(rng, n_stimuli=5, n_runs=4, n_units=40, signal=0), noise=noise
        ).dissimilarities.mean()
        for _ in range(100)
    ]
    standard_error = np.std(means) / np.sqrt(len(means))
    assert abs(np.mean(means)) < 3 * standard_error


def test_crossnobis_finds_the_true_mahalanobis_distance():
    rng = np.random.default_rng(2)
    n_units, n = 20, 4
    patterns, mixing = rng.standard_normal((n, n_units)), rng.standard_normal((n_units, n_units))
    noise = Noise.from_covariance(mixing.T @ mixing + np.eye(n_units))
    spread = np.linalg.cholesky(mixing.T @ mixing + np.eye(n_units)).T
    estimates = [
        rdm(patterns + rng.standard_normal((3, n, n_units)) @ spread, "crossnobis", noise=noise)
        for _ in range(800)
    ]
    truth = rdm(patterns, "mahalanobis", noise=noise)
    error = np.std(estimates, axis=0) / np.sqrt(len(estimates))
    assert (np.abs(np.mean(estimates, axis=0) - truth) < 4 * error).all()
    plain = rdm(patterns + rng.standard_normal((n, n_units)) @ spread, "mahalanobis", noise=noise)
    assert plain.mean() > truth.mean() + 1  # not cross-validated: biased by twice the variance


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(PLAIN), st.integers(3, 8))
def test_order_of_stimuli_and_units_does_not_matter(seed, method, n):
    rng = np.random.default_rng(seed)
    patterns = rng.uniform(0.1, 5, (n, 13))
    order = rng.permutation(n)
    base = to_square(rdm(patterns, method))
    np.testing.assert_allclose(
        to_square(rdm(patterns[order], method)), base[np.ix_(order, order)], atol=1e-9
    )
    np.testing.assert_allclose(
        to_square(rdm(patterns[:, rng.permutation(13)], method)), base, atol=1e-9
    )


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 100), st.floats(-50, 50))
def test_scaling_and_offset(scale, offset):
    patterns = np.random.default_rng(1).standard_normal((5, 30))
    moved = scale * patterns + offset
    np.testing.assert_allclose(rdm(moved), rdm(patterns), atol=1e-8)
    np.testing.assert_allclose(
        rdm(moved, "sqeuclidean"), scale**2 * rdm(patterns, "sqeuclidean"), rtol=1e-8
    )


def test_large_offsets_cost_no_digits(rng):
    """Raw BOLD: a baseline of thousands, differences of a few."""
    patterns = rng.standard_normal((6, 4000)).astype(np.float32)
    baseline = rng.uniform(5000, 20000, 4000).astype(np.float32)
    shifted = (patterns + baseline).astype(np.float32)
    exact = pdist(shifted.astype(np.float64), "sqeuclidean") / 4000
    np.testing.assert_allclose(rdm(shifted, "sqeuclidean"), exact, rtol=1e-4)


def test_leading_axes_are_batched(rng):
    patterns = rng.standard_normal((2, 3, 5, 20))
    batch = rdm(patterns)
    assert batch.shape == (2, 3, 10)
    np.testing.assert_allclose(batch[1, 2], rdm(patterns[1, 2]), rtol=1e-12)
    folds = rng.standard_normal((2, 4, 5, 20))
    np.testing.assert_allclose(rdm(folds, "crossnobis")[1], rdm(folds[1], "crossnobis"))


def test_movie_is_an_rdm_per_time_point(rng):
    values = rng.standard_normal((12, 8, 5))
    run = np.repeat(["1", "2", "3"], 4)
    recording = Recording.from_arrays(values, list("abcd") * 3, run=run, time=np.arange(5) / 10)
    movie = rdm_movie(recording, "crossnobis")[0]
    assert movie.dissimilarities.shape == (5, 6)
    assert movie.attrs["time"] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    frame = Recording.from_arrays(values[:, :, 3], list("abcd") * 3, run=run)
    np.testing.assert_allclose(
        movie.dissimilarities[3], rdm_from_recording(frame).dissimilarities[0], atol=1e-6
    )
    with pytest.raises(ConfigError, match="time axis"):
        rdm_from_recording(recording)


@pytest.mark.parametrize("method", ["sqeuclidean", "correlation", "crossnobis"])
def test_from_disk_equals_from_memory(rng, tmp_path, method):
    recording = repeats(rng, n_units=5000)
    save_recording(recording, tmp_path / "recording")
    lazy = open_recording(tmp_path / "recording")
    assert lazy.array.chunks is not None
    np.testing.assert_allclose(
        rdm_from_recording(lazy, method).dissimilarities,
        rdm_from_recording(recording, method).dissimilarities,
        atol=1e-5,
    )


def test_conditions_subjects_and_sessions(rng):
    stimuli = StimulusSet(
        pd.DataFrame({"category": list("xyzxyz")}, index=[f"im{i}" for i in range(6)])
    )
    cohort = Cohort(
        {
            s: repeats(rng, n_stimuli=6, n_units=u, subject=s, stimuli=stimuli)
            for s, u in (("a", 20), ("b", 30))
        }
    )
    by_category = rdm_from_recording(cohort, condition="category")
    assert by_category.subject == ("a", "b")
    assert by_category.stimuli.ids == ["x", "y", "z"]
    per_run = rdm_from_recording(cohort["a"], "correlation", per="run")
    assert len(per_run) == 4
    first = cohort["a"].select(cohort["a"].coord("run") == "1")
    np.testing.assert_allclose(
        per_run.dissimilarities[0], rdm_from_recording(first, "correlation").dissimilarities[0]
    )


def test_unequal_repeats_are_dealt_out(rng):
    stimulus = np.array(list("abcabcab"))
    recording = Recording.from_arrays(rng.standard_normal((8, 6)), stimulus)
    found = rdm_from_recording(recording, cv="repetition").dissimilarities[0]
    v = recording.values.astype(float)
    folds = np.stack(
        [
            [v[[0, 6]].mean(0), v[[1, 7]].mean(0), v[2]],
            v[3:6],
        ]
    )
    np.testing.assert_allclose(found, rdm(folds, "crossnobis"), atol=1e-6)


@pytest.mark.parametrize("noise", ["diagonal", "shrinkage-diagonal"])
def test_houses_stand_apart_in_ventral_temporal_cortex(real_data, rng, noise):
    """Haxby et al. 2001; and with conditions shuffled within runs nothing stands apart."""
    from engramma.data.readers.bids import read_bids

    recording = read_bids(real_data / "haxby-slice")
    found = rdm_from_recording(recording, noise=noise)
    square, names = to_square(found.dissimilarities[0]), found.stimuli.ids
    assert names[square.mean(axis=0).argmax()] == "house"
    assert (found.dissimilarities > 0).all()
    stimulus, run = recording.coord("stimulus").copy(), recording.coord("run")
    for level in np.unique(run):
        here = np.flatnonzero(run == level)
        stimulus[here] = rng.permutation(stimulus[here])
    shuffled = Recording(recording.array.assign_coords(stimulus=("presentation", stimulus)))
    null = rdm_from_recording(shuffled, noise=noise).dissimilarities
    assert abs(null.mean()) < 0.1 * found.dissimilarities.mean()


# -- bad input -----------------------------------------------------------------------------


def test_a_flat_pattern_is_named(rng):
    patterns = rng.standard_normal((4, 50)).astype(np.float32)
    patterns[2] = 1234.567
    with pytest.raises(DataError, match=r"zero variance.*'face'"):
        rdm(patterns, stimuli=["house", "cat", "face", "shoe"])
    patterns[2] = 0
    with pytest.raises(DataError, match="stimulus 2"):
        rdm(patterns, "cosine")


@pytest.mark.parametrize("method", [*PLAIN, "crossnobis"])
def test_nan_is_named(rng, method):
    patterns = rng.uniform(1, 2, (3, 4, 50))
    patterns[..., 1, 7] = np.nan
    with pytest.raises(DataError, match=r"NaN.*'cat'"):
        rdm(patterns, method, stimuli=["house", "cat", "face", "shoe"])


def test_gaps_single_runs_and_few_stimuli_are_errors(rng):
    recording = repeats(rng)
    keep = ~((recording.coord("stimulus") == "im3") & (recording.coord("run") == "2"))
    with pytest.raises(DataError, match=r"'im3' was not presented in run '2'"):
        rdm_from_recording(recording.select(keep))
    with pytest.raises(DataError, match="one run"):
        rdm_from_recording(recording.select(recording.coord("run") == "1"))
    with pytest.raises(DataError, match="at least 3"):
        rdm_from_recording(recording.select(np.isin(recording.coord("stimulus"), ["im1", "im2"])))
    two = recording.select(np.isin(recording.coord("run"), ["1", "2"]))
    with pytest.raises(DataError, match="three or more folds"):
        rdm_from_recording(two, noise="ledoit-wolf")
    with pytest.raises(ConfigError, match="noise"):
        rdm_from_recording(recording, "mahalanobis")
    with pytest.raises(ConfigError, match="noise"):
        rdm_from_recording(recording, "correlation", noise="diagonal")
    with pytest.raises(DataError, match="negative"):
        rdm_from_recording(recording, "poisson")


def test_singular_and_flat_noise_are_errors(rng):
    residuals = rng.standard_normal((5, 9))
    with pytest.raises(DataError, match="positive definite"):
        estimate_noise(residuals, method="full")
    residuals[:, 4] = 0
    with pytest.raises(DataError, match="unit 4"):
        estimate_noise(residuals, method="diagonal")
