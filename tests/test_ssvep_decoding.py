"""Filter banks, CCA, FBCCA, TRCA and transfer rates against references we did not write."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal
from sklearn.cross_decomposition import CCA

from engramma.decoding.information import bits_per_selection, information_transfer_rate
from engramma.decoding.ssvep import (
    TaskRelatedComponents,
    canonical_correlations,
    chebyshev_bank,
    filter_bank,
    filter_bank_cca,
    harmonic_bank,
    references,
)
from engramma.errors import ConfigError, DataError

# Number of subject-block pairs of the Benchmark data (35 x 6, nine channels, 0.4 s) in which so
# many of 40 targets were named rightly, from the table of accuracies released with the paper.
CORRECT_AT_400_MS = np.repeat(
    np.arange(7, 41),
    np.fromstring(
        "1 2 1 1 1 0 3 1 2 0 1 2 1 0 5 1 6 1 2 2 4 4 10 8 10 13 13 15 26 17 21 14 14 8",
        dtype=int,
        sep=" ",
    ),
)


def test_transfer_rate_reproduces_the_published_mean():
    accuracy = CORRECT_AT_400_MS / 40
    assert len(accuracy) == 210
    assert accuracy.mean() == pytest.approx(0.7989, abs=5e-5)
    assert information_transfer_rate(accuracy, 40, 0.9).mean() == pytest.approx(244.48, abs=0.01)
    # The rate of the mean accuracy is another, smaller number.
    assert information_transfer_rate(accuracy.mean(), 40, 0.9) < 240


def test_transfer_rate_at_its_ends():
    assert information_transfer_rate(1.0, 40, 1.5) == pytest.approx(np.log2(40) * 40)
    np.testing.assert_array_equal(bits_per_selection([0.0, 0.0249, 0.025], 40)[:2], 0.0)
    assert bits_per_selection(1 / 40, 40) == pytest.approx(0.0, abs=1e-12)
    assert bits_per_selection(0.75, 2) == pytest.approx(1 - 0.8112781244591328)


@pytest.mark.parametrize("accuracy", [80.0, -0.1, np.nan])
def test_transfer_rate_refuses_what_is_no_fraction(accuracy):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        information_transfer_rate(accuracy, 40, 0.9)


def test_bank_is_the_published_filter_without_phase_shift(rng):
    trials = rng.standard_normal((2, 3, 100)).astype(np.float32)
    banded = filter_bank(trials, chebyshev_bank(250))
    assert banded.shape == (2, 3, 3, 100) and banded.dtype == np.float32
    for k, low in enumerate((8, 16, 24)):
        b, a = signal.cheby1(1, 1, [low / 125, 90 / 125], btype="band")
        assert len(a) - 1 == 2  # total order
        expected = signal.filtfilt(b, a, trials, axis=-1, padlen=6)
        np.testing.assert_allclose(banded[:, k], expected, atol=1e-5)
        # Passes twice, so 1 dB of ripple becomes 2 dB at the edge.
        response = np.abs(signal.freqz(b, a, [low], fs=250)[1]) ** 2
        assert 20 * np.log10(response[0]) == pytest.approx(-2.0, abs=1e-6)
    time = np.arange(500) / 250
    wave = np.sin(2 * np.pi * 20 * time)[None, None]
    out = filter_bank(wave, chebyshev_bank(250))[0, 0, 0]
    lag = np.correlate(out[100:400], wave[0, 0, 100:400], "full").argmax() - 299
    assert lag == 0


def test_harmonic_bank_begins_where_the_reference_does():
    for k, (b, a) in enumerate(harmonic_bank(250)):
        low, stop = (6, 14, 22, 30, 38)[k], (4, 10, 16, 24, 32)[k]
        order, edges = signal.cheb1ord([low / 125, 90 / 125], [stop / 125, 100 / 125], 3, 40)
        reference = signal.cheby1(order, 0.5, edges, "bandpass")
        frequency = [stop, low + 0.1, 50, 89, 100]
        ours, theirs = (np.abs(signal.freqz(*f, frequency, fs=250)[1]) for f in ((b, a), reference))
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        assert (20 * np.log10(ours[1:4]) > -0.51).all()
        assert (20 * np.log10(ours[[0, 4]]) < -30).all()


def test_short_trials_and_slow_sampling_are_refused():
    with pytest.raises(ConfigError, match="too few"):
        filter_bank(np.zeros((1, 1, 6)), chebyshev_bank(250))
    with pytest.raises(ConfigError, match="do not fit"):
        chebyshev_bank(160)


def test_canonical_correlation_equals_sklearn(rng):
    targets = references(np.array([9.0, 10.4]), 100, 250, 2)
    trials = rng.standard_normal((3, 4, 100)) + 0.5 * targets[1, 0]
    ours = canonical_correlations(trials, targets)
    for n, trial in enumerate(trials):
        for m, target in enumerate(targets):
            x, y = CCA(n_components=1, max_iter=5000, tol=1e-12).fit_transform(trial.T, target.T)
            expected = np.corrcoef(x[:, 0], y[:, 0])[0, 1]
            assert ours[n, m] == pytest.approx(expected, abs=1e-6)


def test_a_flat_or_copied_channel_changes_nothing(rng):
    targets = references(np.array([9.0, 10.4]), 100, 250, 2)
    trials = rng.standard_normal((2, 3, 100))
    more = np.concatenate([trials, trials[:, :1], np.zeros((2, 1, 100))], axis=1)
    np.testing.assert_allclose(
        canonical_correlations(more, targets), canonical_correlations(trials, targets), atol=1e-9
    )


def test_filter_bank_cca_is_the_weighted_sum_of_squares(rng):
    targets = references(np.array([9.0, 10.4]), 100, 250, 2)
    banded = rng.standard_normal((2, 2, 3, 100))
    first, second = (canonical_correlations(banded[:, k], targets) for k in range(2))
    expected = 1.25 * first**2 + (2**-1.25 + 0.25) * second**2
    np.testing.assert_allclose(filter_bank_cca(banded, targets), expected)


def test_references_stop_below_nyquist():
    assert references(np.array([15.8]), 50, 250, 10).shape == (1, 14, 50)
    with pytest.raises(ConfigError, match="cannot be seen"):
        references(np.array([200.0]), 50, 250)


def test_trca_filter_is_the_leading_eigenvector(rng):
    """Against the definition, pair by pair.

    Also compared once with meegkit 0.2.0 (`TRCA(method="original")`) on `simulate_ssvep(1000,
    n_blocks=4, snr=0.05)`, first band, first block left out: cosines between its filters and ours
    are 0.998 or more (it centres the concatenated trials, not each), and with filters of unit
    norm all 48 choices are the same, ensemble or not. Ours have unit variance, as `eigh` gives
    them, with which the ensemble names 0.98 of the targets rightly and not 0.83. With several bands
    it differs, since there it filters each band's output again for the next.
    """
    from scipy.linalg import eigh

    trials = rng.standard_normal((4, 1, 3, 60)) + np.sin(np.arange(60) / 5)
    model = TaskRelatedComponents.fit(trials, np.zeros(4, int), 1)
    x = trials[:, 0] - trials[:, 0].mean(axis=-1, keepdims=True)
    pairs = sum(x[i] @ x[j].T for i in range(4) for j in range(4) if i != j)
    every = np.concatenate(list(x), axis=1)
    _, vectors = eigh(pairs, every @ every.T)
    expected = vectors[:, -1]
    ours = model.filters[0, 0]
    cosine = abs(ours @ expected) / np.linalg.norm(ours) / np.linalg.norm(expected)
    assert cosine == pytest.approx(1.0, abs=1e-8)
    # A trial equal to the template correlates perfectly with it.
    assert model.scores(model.templates[:, 0][None])[0, 0] == pytest.approx(1.25)


def test_trca_needs_two_trials_a_target(rng):
    with pytest.raises(DataError, match="two trials"):
        TaskRelatedComponents.fit(rng.standard_normal((3, 1, 3, 60)), np.array([0, 0, 1]), 2)
