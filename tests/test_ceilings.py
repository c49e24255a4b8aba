"""Noise ceilings recover the signal that simulated responses were made with."""

from __future__ import annotations

import numpy as np
import pytest

from engramma.data.ceilings import between_subject_ceiling, split_half_ceiling, variance_ceiling
from engramma.data.recording import Recording
from engramma.errors import DataError

N_STIMULI, N_UNITS = 200, 60


def simulate(rng, share, n_repeats=4, n_stimuli=N_STIMULI, drop=0):
    """Responses whose single-trial signal variance is ``share`` of the total."""
    signal = rng.standard_normal((n_stimuli, N_UNITS)) * np.sqrt(share)
    noise = rng.standard_normal((n_repeats, n_stimuli, N_UNITS)) * np.sqrt(1 - share)
    responses = (signal + noise).reshape(-1, N_UNITS)
    stimulus = np.tile([f"s{i}" for i in range(n_stimuli)], n_repeats)
    kept = slice(None, len(stimulus) - drop)
    return Recording.from_arrays(responses[kept], stimulus[kept]), signal


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("n_repeats", [2, 3, 4])
def test_both_ceilings_recover_the_analytic_one(rng, share, n_repeats):
    recording, _ = simulate(rng, share, n_repeats)
    analytic = share / (share + (1 - share) / n_repeats)
    for ceiling in (
        variance_ceiling(recording),
        split_half_ceiling(recording, rng=rng, n_splits=20),
    ):
        assert ceiling.reliability.mean() == pytest.approx(analytic, abs=0.03)


def test_a_perfect_model_reaches_the_ceiling(rng):
    recording, signal = simulate(rng, 0.2)
    mean = recording.mean_over("stimulus")
    order = [int(s[1:]) for s in mean.coord("stimulus")]
    truth = signal[order]
    reached = [np.corrcoef(truth[:, u], mean.values[:, u])[0, 1] for u in range(N_UNITS)]
    assert np.mean(reached) == pytest.approx(
        variance_ceiling(recording).correlation.mean(), abs=0.02
    )


def test_ceiling_for_single_trials_is_lower(rng):
    recording, _ = simulate(rng, 0.2)
    single = variance_ceiling(recording, n_averaged=1)
    assert single.reliability.mean() == pytest.approx(0.2, abs=0.02)
    halves = split_half_ceiling(recording, rng=rng, n_splits=20, n_averaged=1)
    assert halves.reliability.mean() == pytest.approx(0.2, abs=0.02)


def test_unequal_repeats(rng):
    recording, _ = simulate(rng, 0.5, n_repeats=3, drop=100)
    assert variance_ceiling(recording, n_averaged=1).reliability.mean() == pytest.approx(
        0.5, abs=0.03
    )


def test_ceiling_does_not_change_with_scale_and_offset(rng):
    recording, _ = simulate(rng, 0.3)
    other = recording.with_values(recording.values * 7 - 3)
    np.testing.assert_allclose(
        variance_ceiling(recording).reliability, variance_ceiling(other).reliability, atol=1e-4
    )


def test_flat_units_get_zero(rng):
    recording, _ = simulate(rng, 0.3)
    values = recording.values.copy()
    values[:, 0] = 5.0
    assert variance_ceiling(recording.with_values(values)).correlation[0] == 0.0


def test_no_repeats_is_said(rng):
    with pytest.raises(DataError, match="shown twice"):
        variance_ceiling(simulate(rng, 0.5, n_repeats=1)[0])


def test_between_subject_bounds_enclose_the_truth(rng):
    """With shared signal share q, the mean of infinitely many subjects correlates sqrt(q)."""
    share = 0.4
    signal = rng.standard_normal((2000, 5)) * np.sqrt(share)
    subjects = [signal + rng.standard_normal((2000, 5)) * np.sqrt(1 - share) for _ in range(8)]
    lower, upper = between_subject_ceiling(subjects)
    assert lower.mean() < np.sqrt(share) < upper.mean()
    with pytest.raises(DataError, match="same stimuli"):
        between_subject_ceiling([signal, signal[:10]])
