"""Response estimation, against one model fit a trial, closed forms and real data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import make_first_level_design_matrix, run_glm
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import LeaveOneGroupOut, cross_val_score

from engramma.data.quality import jumps
from engramma.data.read import read
from engramma.data.responses import (
    ResponseSettings,
    block_patterns,
    clean_series,
    estimate_responses,
    glm_patterns,
    lss_patterns,
    merge_blocks,
    suggest_high_pass,
)
from engramma.errors import ConfigError, DataError

TR = 2.0


def events_of(rng, n=12, spacing=9.0, names="abc", duration=2.0):
    onset = 6 + spacing * np.arange(n) + rng.uniform(0, 2, n)
    stimulus = rng.permutation(np.resize(list(names), n))
    return pd.DataFrame(
        {"onset": onset, "duration": duration, "stimulus": stimulus, "category": stimulus}
    )


def settings(**changes):
    return ResponseSettings(**{"high_pass": 1 / 100, "estimate": "lss", "zscore": False, **changes})


def test_lss_equals_one_fitted_model_a_trial(rng):
    events = events_of(rng)
    series = rng.standard_normal((70, 9)).astype(np.float32) + 100
    confounds = rng.standard_normal((70, 2))
    patterns, usable = lss_patterns(series, events, TR, settings(), confounds)
    assert usable.all()
    trend = np.linspace(-1, 1, 70)[:, None]
    for trial in range(len(events)):
        kind = np.where(np.arange(len(events)) == trial, "this", "others")
        design = make_first_level_design_matrix(
            np.arange(70) * TR,
            events.assign(trial_type=kind)[["onset", "duration", "trial_type"]],
            high_pass=1 / 100,
            add_regs=np.hstack([confounds, trend]),
        )
        beta = np.linalg.lstsq(design.to_numpy(), series - series.mean(0), rcond=None)[0]
        np.testing.assert_allclose(
            patterns[trial], beta[list(design.columns).index("this")], atol=2e-4
        )


def test_lss_recovers_the_amplitude_of_each_trial(rng):
    events = events_of(rng, n=10, spacing=12)
    amplitude = rng.uniform(1, 3, (10, 4))
    series = np.zeros((75, 4))
    for trial in range(10):
        one = events.iloc[[trial]].assign(trial_type="x")[["onset", "duration", "trial_type"]]
        regressor = make_first_level_design_matrix(np.arange(75) * TR, one, drift_model=None)["x"]
        series += regressor.to_numpy()[:, None] * amplitude[trial]
    patterns, _ = lss_patterns(series, events, TR, settings())
    assert np.corrcoef(patterns.ravel(), amplitude.ravel())[0, 1] > 0.97


def test_a_single_trial_is_estimated_too(rng):
    events = events_of(rng, n=1)
    series = rng.standard_normal((40, 3))
    patterns, usable = lss_patterns(series, events, TR, settings())
    assert usable.all() and np.isfinite(patterns).all()


def test_glm_equals_least_squares_and_t_equals_nilearn(rng):
    events = events_of(rng, n=15)
    series = rng.standard_normal((80, 5)).astype(np.float32)
    options = {"estimate": "glm", "detrend": False, "noise_model": "ols"}
    patterns, shown = glm_patterns(series, events, TR, settings(**options))
    assert list(shown["stimulus"]) == ["a", "b", "c"]
    design = make_first_level_design_matrix(
        np.arange(80) * TR,
        events.assign(trial_type=events["stimulus"])[["onset", "duration", "trial_type"]],
        high_pass=1 / 100,
    )
    centred = series - series.mean(0)
    beta = np.linalg.lstsq(design.to_numpy(), centred, rcond=None)[0]
    np.testing.assert_allclose(patterns, beta[:3], atol=1e-5)
    t, _ = glm_patterns(series, events, TR, settings(**options, statistic="t"))
    _, results = run_glm(centred, design.to_numpy(), noise_model="ols")
    expected = next(iter(results.values())).Tcontrast(np.eye(design.shape[1])[1]).t
    np.testing.assert_allclose(t[1], np.ravel(expected), rtol=1e-3)


def test_rank_deficient_design_is_refused(rng):
    events = pd.DataFrame(
        {"onset": [10.0, 10.0], "duration": 2.0, "stimulus": ["a", "b"], "category": ["a", "b"]}
    )
    with pytest.raises(DataError, match="full rank"):
        glm_patterns(rng.standard_normal((40, 3)), events, TR, settings(estimate="glm"))


def test_block_pattern_is_the_mean_of_the_shifted_volumes():
    series = np.arange(30, dtype=np.float32)[:, None] * [[1, 10]]
    events = pd.DataFrame({"onset": [4.0, 20.0, 59.5], "duration": [8.0, 0.5, 1.0]})
    patterns, usable = block_patterns(series, events, TR, delay=4.0)
    np.testing.assert_allclose(patterns[0], [np.mean([4, 5, 6, 7]), 10 * 5.5])
    np.testing.assert_allclose(patterns[1], [12, 120])
    assert list(usable) == [True, True, False]


def test_cleaning_removes_trend_drift_and_scale(rng):
    time = np.arange(150) * TR
    signal = rng.standard_normal((150, 3))
    drift = 5 * np.cos(np.pi * (np.arange(150) + 0.5) / 150)[:, None] + 0.1 * time[:, None]
    options = settings(estimate="blocks", zscore=True)
    with_drift = clean_series(1000 + 7 * (signal + drift), TR, options)
    np.testing.assert_allclose(with_drift, clean_series(signal, TR, options), atol=1e-3)
    np.testing.assert_allclose(with_drift.std(axis=0, ddof=1), 1, rtol=1e-4)


def test_neighbouring_events_of_one_kind_become_a_block():
    events = pd.DataFrame(
        {"onset": [0.0, 2.0, 4.0, 6.0, 30.0], "duration": 0.5, "stimulus": list("aabbb")}
    )
    merged, changed = merge_blocks(events, gap=2.0)
    assert changed
    assert list(merged["stimulus"]) == ["a", "b", "b"]
    assert list(merged["duration"]) == [2.5, 2.5, 0.5]


def test_high_pass_rule_follows_the_cycle_of_a_block_design():
    def blocks(names, gap):
        onset = gap * np.arange(len(names)) + 10.0
        table = {"onset": onset, "duration": 20.0, "stimulus": names, "category": names}
        return pd.DataFrame(table)

    assert suggest_high_pass([blocks(list("abababab"), 30)], [130], TR)[0] == 1 / 128
    assert suggest_high_pass([blocks(list("abcdefgh"), 30)], [130], TR)[0] is None
    cut_off, why = suggest_high_pass([blocks(list("abcdefabcdef"), 30)], [200], TR)
    assert cut_off == pytest.approx(1 / 180) and "180 s" in why
    short = blocks(list("abcdefgh"), 30).assign(duration=1.0)
    assert suggest_high_pass([short], [130], TR)[0] == 1 / 128


def test_jumps_are_found_where_they_are(rng):
    series = 100 + rng.standard_normal((100, 50))
    series[40:] += 8
    assert list(jumps(series)) == [40]


def test_impossible_settings_name_the_possible_ones():
    with pytest.raises(ConfigError, match="'blocks', 'lss', 'glm'"):
        ResponseSettings(estimate="lsa")
    with pytest.raises(ConfigError, match="estimate='lss'"):
        ResponseSettings(estimate="lss", hrf="glover + derivative")
    with pytest.raises(ConfigError, match="Hz"):
        ResponseSettings(high_pass=128)


def test_methods_sentences_name_what_was_done():
    lss = " ".join(ResponseSettings(estimate="lss", high_pass=1 / 128).history())
    assert "Mumford" in lss and "glover" in lss and "nilearn" in lss
    assert "z-scored" not in " ".join(ResponseSettings(zscore=False, high_pass=None).history())


def test_estimates_carry_their_events(rng):
    events = events_of(rng, n=6, duration=8.0, spacing=20)
    chosen = settings(estimate="blocks")
    _, shown, notices = estimate_responses(rng.standard_normal((80, 4)), events, TR, chosen)
    assert list(shown["stimulus"]) == list(events["stimulus"]) and not notices


def accuracy(recording, labels):
    classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    return cross_val_score(
        classifier, recording.values, labels, groups=recording.coord("run"), cv=LeaveOneGroupOut()
    ).mean()


def test_haxby_blocks_are_decoded_as_published(real_data, rng):
    recording = read(real_data / "haxby-slice")
    assert recording.array.shape == (96, 530)
    labels = recording.labels("category")
    assert accuracy(recording, labels) >= 0.78
    shuffled = []
    for _ in range(3):
        order = np.concatenate([rng.permutation(8) + 8 * run for run in range(12)])
        shuffled.append(accuracy(recording, labels[order]))
    assert np.mean(shuffled) < 0.22


@pytest.mark.parametrize("estimate", ["lss", "glm"])
def test_haxby_models_decode_too(real_data, estimate):
    recording = read(real_data / "haxby-slice", estimate=estimate)
    assert recording.n_presentations == 96
    assert accuracy(recording, recording.labels("category")) >= 0.7
