"""Decoding over time: latencies, silence before onset, calibration of spans."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from engramma.data.recording import Recording
from engramma.data.splits import leave_one_out
from engramma.decoding.classify import decode
from engramma.decoding.clusters import permutation_spans, sign_flip_spans
from engramma.decoding.time import decode_over_time
from engramma.errors import ConfigError, DataError
from engramma.worlds.evoked import SOURCES, evoked


def make(rng, n_times=30, onset=15, signal=0.8, n_runs=4, n_units=8):
    labels = np.tile(["a", "b"], 8 * n_runs)
    x = rng.standard_normal((len(labels), n_units, n_times))
    x[labels == "b", :, onset:] += signal * np.sign(rng.standard_normal(n_units))[:, None]
    return Recording.from_arrays(
        x, labels, run=np.repeat(range(n_runs), 16), time=(np.arange(n_times) - 10) / 100
    )


def test_each_time_is_decoded_as_if_alone(rng):
    recording = make(rng)
    splits = list(leave_one_out(recording, allow=("stimulus",)))
    over_time = decode_over_time(recording, splits=splits, metric="accuracy", rng=rng)
    areas = decode_over_time(recording, splits=splits, rng=rng)
    for t in (3, 20):
        alone = Recording.from_arrays(
            recording.values[:, :, t], recording.coord("stimulus"), run=recording.coord("run")
        )
        result = decode(alone, rng=rng)
        assert over_time.scores[t] == pytest.approx(result.balanced_accuracy.value)
        fold = np.searchsorted(np.cumsum([16] * 4), np.arange(64), side="right")
        margin = result.scores[:, 1] - result.scores[:, 0]
        expected = [
            roc_auc_score(result.actual[fold == f] == "b", margin[fold == f]) for f in range(4)
        ]
        assert areas.scores[t] == pytest.approx(np.mean(expected))


def test_generalisation_has_the_sliding_scores_on_its_diagonal(rng):
    recording = make(rng)
    matrix = decode_over_time(recording, generalise=True, rng=rng).scores
    sliding = decode_over_time(recording, rng=rng).scores
    np.testing.assert_allclose(np.diag(matrix), sliding)
    assert matrix[15:, 15:].mean() > 0.8  # one stable pattern generalises
    assert abs(matrix[:15, 15:].mean() - 0.5) < 0.06 and abs(matrix[15:, :15].mean() - 0.5) < 0.06


def test_evoked_is_decoded_after_its_latency_and_not_before():
    recording = evoked(1, n_stimuli=32, n_repeats=8, snr=1.2, sfreq=50)
    rng = np.random.default_rng(0)
    result = decode_over_time(recording, "superordinate", rng=rng, n_permutations=100)
    time, first = result.time, min(s.latency for s in SOURCES.values())
    assert abs(result.scores[time <= first].mean() - result.chance) < 0.03
    late = (time > 0.14) & (time < 0.3)
    assert result.scores[late].mean() > 1.5 * result.chance
    found = [s for s in result.spans if s.p_value < 0.05]
    assert found and min(s.start for s in found) > first
    null = evoked(1, n_stimuli=32, n_repeats=8, signal=False, sfreq=50)
    flat = decode_over_time(null, "superordinate", rng=rng)
    assert abs(flat.scores[time > 0].mean() - flat.chance) < 0.02


def test_spans_find_the_signal(rng):
    recording = make(rng)
    result = decode_over_time(recording, rng=rng, n_permutations=200)
    found = [s for s in result.spans if s.p_value < 0.05]
    assert len(found) == 1
    assert abs(found[0].start - 0.05) < 0.021 and found[0].stop == pytest.approx(0.19)


def test_spans_are_calibrated_when_there_is_nothing():
    """Family-wise: any significant span at all in about 5 % of null data sets."""
    rng = np.random.default_rng(0)
    smooth = np.exp(-0.5 * (np.arange(-6, 7) / 2) ** 2)
    false = [0, 0]
    for _ in range(200):
        noise = np.apply_along_axis(np.convolve, 1, rng.standard_normal((121, 40)), smooth, "same")
        spans = permutation_spans(noise[0], noise[1:], np.arange(40))
        false[0] += any(s.p_value <= 0.05 for s in spans)
        group = sign_flip_spans(noise[1:13], np.arange(40), chance=0, rng=rng, n_permutations=120)
        false[1] += any(s.p_value <= 0.05 for s in group)
    assert all(2 <= f <= 20 for f in false), false


def test_group_spans_find_the_signal_and_count_all_sign_patterns(rng):
    scores = 0.5 + 0.1 * rng.standard_normal((8, 30))
    scores[:, 10:20] += 0.2
    time = np.arange(30) / 10
    (span,) = (s for s in sign_flip_spans(scores, time, chance=0.5, rng=rng) if s.p_value < 0.05)
    assert span.start == pytest.approx(1.0, abs=0.11) and span.stop == pytest.approx(1.9, abs=0.11)
    assert span.p_value == pytest.approx(1 / 2**8)


def test_group_clusters_are_those_of_mne(rng):
    from mne.stats import permutation_cluster_1samp_test
    from scipy.stats import t

    scores = 0.5 + 0.1 * rng.standard_normal((10, 40)) + 0.15 * (np.arange(40) > 25)
    mine = sign_flip_spans(scores, np.arange(40), chance=0.5, rng=rng, n_permutations=1023)
    _, clusters, p_values, _ = permutation_cluster_1samp_test(
        scores - 0.5, threshold=t.ppf(0.95, 9), tail=1, n_permutations=1024, seed=0, verbose=False
    )
    theirs = [(float(c[0][0]), float(c[0][-1])) for c in clusters]
    assert [(s.start, s.stop) for s in mine] == theirs
    assert all(abs(s.p_value - p) < 0.05 for s, p in zip(mine, p_values, strict=True))


def test_what_cannot_be_done_is_said(rng):
    recording = make(rng)
    flat = Recording.from_arrays(recording.values[:, :, 0], recording.coord("stimulus"))
    with pytest.raises(DataError, match="time axis"):
        decode_over_time(flat, rng=rng)
    with pytest.raises(ConfigError, match="generalisation"):
        decode_over_time(recording, generalise=True, n_permutations=50, rng=rng)
    with pytest.raises(ConfigError, match="too few"):
        decode_over_time(recording, n_permutations=5, rng=rng)
    with pytest.raises(DataError, match="two subjects"):
        sign_flip_spans(np.zeros((1, 5)), np.arange(5), chance=0.5, rng=rng)
