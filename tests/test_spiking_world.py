"""Spiking populations: couplings, rates and intervals against closed forms and a reference GLM."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.signal import lfilter

from engramma.data.store import open_recording, save_recording
from engramma.errors import ConfigError
from engramma.registry import worlds
from engramma.worlds.spiking import make_population, spiking
from engramma.worlds.spiking_neurons import (
    Connections,
    lif_rate,
    simulate_glm,
    simulate_lif,
)


@pytest.fixture(scope="module")
def population():
    return make_population(seed=3, n_repeats=12)


def _arriving(spikes: np.ndarray, delay: float) -> np.ndarray:
    """Current that a connection of weight 1 brings: spikes decay over 5 ms, and are delayed."""
    lag = round(delay / 0.001)
    trace = lfilter([1.0], [1.0, -np.exp(-0.001 / 0.005)], spikes)
    return np.concatenate([np.zeros(lag), trace[:-lag]])


def _fit(population, neuron: int) -> tuple[np.ndarray, np.ndarray]:
    """Bernoulli GLM of one neuron on the spikes that reach it: estimates and standard errors."""
    sources = np.flatnonzero(population.connections.weights[neuron])
    columns = [
        _arriving(population.spikes[j], population.connections.delays[neuron, j]) for j in sources
    ]
    x = np.stack([np.ones(population.spikes.shape[1]), population.drive[neuron], *columns], axis=1)
    free = population.expected[neuron] > 0  # not refractory
    fit = sm.GLM(population.spikes[neuron][free], x[free], family=sm.families.Binomial()).fit()
    return fit.params, fit.bse


def test_a_reference_glm_recovers_the_planted_couplings(population):
    weights = population.connections.weights
    assert (weights[:, population.hubs] != 0).sum(axis=0).tolist() == [6, 6, 6]
    assert not weights[population.hubs].any()
    off = []
    for neuron in np.flatnonzero(weights.any(axis=1)):
        estimate, error = _fit(population, neuron)
        truth = [0, 1, *weights[neuron][weights[neuron] != 0]]  # drive enters with slope 1
        off.append((estimate - truth) / error)
    z = np.concatenate(off)
    assert np.sqrt((z**2).mean()) < 1.5 and np.abs(z).max() < 4


def test_couplings_are_directed_and_delayed(population):
    """Spikes of a target cluster after those of its hub, by the planted delay, and not before."""
    to, source = np.nonzero(population.connections.weights)
    spikes = population.spikes.astype(float)
    spikes -= spikes.mean(axis=1, keepdims=True)
    lags = np.arange(-80, 81)
    follows, found = [], []
    for i, j in zip(to, source, strict=True):
        r = np.asarray([np.roll(spikes[j], lag) @ spikes[i] for lag in lags])
        follows.append(r[lags > 0].max() > r[lags < 0].max())
        found.append(lags[r.argmax()] / 1000)
    planted = population.connections.delays[to, source]
    assert np.mean(follows) > 0.85
    assert np.median(np.abs(found - planted)) < 0.004  # the synapse decays over 5 ms


def test_rates_and_refractory_periods_are_as_declared(population):
    counted = population.spikes.sum(axis=1)
    expected = population.expected.astype(np.float64)
    spread = np.sqrt((expected * (1 - expected)).sum(axis=1))
    assert np.abs((counted - expected.sum(axis=1)) / spread).max() < 4
    for times in population.spike_times():
        assert np.diff(times).min() > 0.003
    rates = population.recording.values.mean(axis=(0, 2))
    np.testing.assert_allclose(rates, counted / (population.spikes.shape[1] * 0.001), rtol=1e-4)
    others = population.recording.coord("kind") != "target"
    assert 5 < rates[others].mean() < 9 < rates[~others].mean()


def test_silent_hubs_and_absent_couplings_change_targets_only(population):
    silent = make_population(seed=3, n_repeats=12, silence_hubs=True)
    apart = make_population(seed=3, n_repeats=12, coupling=0.0)
    kind = population.recording.coord("kind")
    assert not silent.spikes[kind == "hub"].any()
    for control in (silent, apart):
        same = (control.spikes == population.spikes).all(axis=1)
        assert same[kind == "other"].all() and not same[kind == "target"].any()
    assert not apart.connections.weights.any()


def test_integrate_and_fire_rates_equal_their_closed_forms():
    none = Connections(np.zeros((100, 100)), np.full((100, 100), np.nan))
    currents = np.asarray([0.9, 1.05, 1.3, 2.0, 4.0])
    drive = np.repeat(np.repeat(currents, 20)[:, None], 20_000, axis=1)  # 20 neurons, 1 s
    rng = np.random.default_rng(0)
    spikes, _ = simulate_lif(drive, none, dt=5e-5, rng=rng, noise=0.0)
    closed = [lif_rate(i) for i in currents]
    np.testing.assert_allclose(spikes[::20].sum(axis=1), closed, atol=1.5)
    intervals = np.diff(np.flatnonzero(spikes[-1])) * 5e-5
    np.testing.assert_allclose(intervals, 0.003 + 0.02 * np.log(4 / 3), atol=1e-4)
    # With noise: Siegert's formula. Steps miss excursions above threshold within them.
    noisy, _ = simulate_lif(drive, none, dt=5e-5, rng=rng, noise=0.2)
    siegert = np.asarray([lif_rate(i, noise=0.2) for i in currents])
    ratio = noisy.reshape(5, -1).sum(axis=1) / 20.0 / siegert
    assert siegert[0] > 10 and (ratio > 0.88).all() and (ratio < 1.03).all()
    assert lif_rate(1.3, noise=1e-3) == pytest.approx(lif_rate(1.3), rel=1e-3)


def test_poisson_counts_have_the_mean_and_variance_of_their_kind():
    none = Connections(np.zeros((2, 2)), np.full((2, 2), np.nan))
    drive = np.full((2, 20_000), np.log(0.3))
    counts, _ = simulate_glm(
        drive, none, dt=0.001, rng=np.random.default_rng(1), refractory=0.0, counts=True
    )
    assert counts.mean() == pytest.approx(0.3, abs=0.01)
    assert counts.var() == pytest.approx(0.3, abs=0.02) and counts.max() > 1


def test_spike_triggered_averages_are_the_receptive_fields():
    """White input would give them exactly; 1/f movies need whitening, which least squares does."""
    seen = make_population(
        seed=1, stimulus="natural", n_stimuli=120, n_repeats=1, n_neurons=6, n_hubs=0,
        n_targets=0, rate=40.0,
    )  # fmt: skip
    order = [seen.recording.stimuli.ids.index(s) for s in seen.recording.coord("stimulus")]
    frames = seen.movies[order].reshape(-1, 16 * 16)
    counts = seen.spikes.reshape(6, len(frames), -1).sum(axis=2)
    gram = frames.T @ frames + 300 * np.eye(256)
    estimate = np.linalg.solve(gram, frames.T @ (counts - counts.mean(axis=1, keepdims=True)).T)
    r = [np.corrcoef(estimate[:, i], seen.filters[i].ravel())[0, 1] for i in range(6)]
    assert min(r) > 0.6
    blind = make_population(seed=1, n_repeats=2, signal=False, coupling=0.0)
    assert np.ptp(blind.drive) == 0


def test_behaviour_follows_its_group(population):
    step = 100

    def smooth(rows):
        rate = np.cumsum(population.spikes[rows].mean(axis=0).astype(float))
        return rate[200::step] - rate[:-200:step]

    rest = np.setdiff1d(np.arange(30), population.group)
    behaviour = population.behaviour[200::step]
    n = len(behaviour)
    own = np.corrcoef(smooth(population.group)[:n], behaviour)[0, 1]
    assert own > 0.8 and own > np.corrcoef(smooth(rest)[:n], behaviour)[0, 1] + 0.2


def test_the_world_is_registered_seeded_and_can_be_stored(tmp_path):
    options = {"n_repeats": 2, "model": "lif"}
    a, b = worlds.get("spiking")(seed=4, **options), spiking(seed=4, **options)
    assert a.fingerprint() == b.fingerprint() != spiking(seed=5, **options).fingerprint()
    assert a.array.dims == ("presentation", "unit", "time") and a.values.mean() > 1
    save_recording(a, tmp_path / "spikes")
    back = open_recording(tmp_path / "spikes")
    assert back.fingerprint() == a.fingerprint()
    np.testing.assert_allclose(back.attrs["truth"]["weights"], a.attrs["truth"]["weights"])


def test_errors_say_what_to_mend():
    with pytest.raises(ConfigError, match="no option 'colour'"):
        spiking(colour="red")
    with pytest.raises(ConfigError, match="bernoulli, poisson or lif"):
        spiking(model="hodgkin-huxley")
    with pytest.raises(ConfigError, match="among 5 neurons"):
        spiking(n_neurons=5)
    with pytest.raises(ConfigError, match=r"no multiple of 0\.03"):
        spiking(bin_width=0.03)
    with pytest.raises(ConfigError, match="shorter than a time step"):
        spiking(delays=(0.0, 0.0))
