"""deep-ssvep, its baselines and the simulated cohort."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engramma.bench.tasks import ssvep as task
from engramma.contracts import Decoder
from engramma.data.recording import Cohort, Recording
from engramma.data.stimuli import StimulusSet
from engramma.decoding.information import information_transfer_rate
from engramma.decoding.ssvep_blocks import leave_one_block_out, without_block
from engramma.decoding.ssvep_trials import Window, cut
from engramma.errors import ConfigError, DataError, LeakageError
from engramma.registry import systems
from engramma.systems.electro.deep_ssvep import DeepSSVEP, network
from engramma.systems.electro.deep_ssvep_claims import permuted
from engramma.systems.electro.ssvep_baselines import (
    EnsembleTRCA,
    FilterBankCanonicalCorrelation,
    SSVEPCanonicalCorrelation,
)
from engramma.worlds.ssvep import simulate_ssvep

TINY = {"filters": 4, "epochs": (3, 2)}


@pytest.fixture(scope="module")
def cohort():
    """Two subjects, four targets, four blocks, strong responses."""
    return simulate_ssvep(11, n_subjects=2, n_targets=4, n_blocks=4, snr=0.6)


@pytest.fixture(scope="module")
def halves(cohort):
    return without_block(cohort, "1/1")


# -- the network ---------------------------------------------------------------------------


def test_published_network_has_the_parameters_counted_by_hand():
    net = network(64, 100, 40)
    by_hand = {
        "combine_bands": 3,
        "channels": 64 * 120 + 120,
        "halve": 120 * 120 * 2 + 120,
        "impulse_response": 120 * 120 * 10 + 120,
        "targets": 120 * 50 * 40 + 40,
    }
    counted = {n: sum(p.numel() for p in getattr(net, n).parameters()) for n in by_hand}
    assert counted == by_hand
    assert sum(p.numel() for p in net.parameters()) == sum(by_hand.values()) == 420_883


def test_shapes_through_the_published_network():
    net = network(9, 100, 40)
    x = torch.zeros(2, 3, 9, 100)
    shapes = {}
    for name, layer in net.named_children():
        x = layer(x)
        shapes[name] = tuple(x.shape[1:])
    assert shapes["combine_bands"] == (1, 9, 100)
    assert shapes["channels"] == (120, 1, 100)
    assert shapes["halve"] == shapes["impulse_response"] == (120, 1, 50)
    assert shapes["targets"] == (40,)


def test_initial_weights():
    net = network(9, 100, 40)
    assert (net.combine_bands.weight == 1).all() and net.combine_bands.bias is None
    for name in ("channels", "halve", "impulse_response", "targets"):
        layer = getattr(net, name)
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.15)
        assert (layer.bias == 0).all()
    rates = [m.p for m in net.modules() if isinstance(m, torch.nn.Dropout)]
    assert rates == [0.1, 0.1, 0.95]


def test_published_configurations():
    bench, beta = DeepSSVEP.published(), DeepSSVEP.published("beta", channels=None, length=0.2)
    assert (bench.filters, bench.learning_rate, bench.weight_decay) == (120, 1e-4, 1e-3)
    assert (bench.epochs, bench.dropout, bench.last_dropout) == ((1000, 1000), (0.1, 0.6), 0.95)
    assert (beta.epochs, beta.dropout) == ((800, 1000), (0.1, 0.7))
    assert (bench.window.latency, beta.window.latency) == (0.14, 0.13)
    assert (bench.window.n_samples, beta.window.n_samples) == (100, 50)
    assert len(bench.window.channels) == 9 and beta.window.channels is None


def test_gradient_step_is_adam_with_l2_on_weights_only(halves):
    """One step of stage 1, against Adam written out."""
    train, _ = halves
    net = DeepSSVEP(filters=2, epochs=(0, 0), dropout=(0.0, 0.0), last_dropout=0.0, seed=3)
    net.fit_global(train)
    before = {n: p.detach().clone() for n, p in net.global_.named_parameters()}
    trials = cut(train, net.window)
    x, y = net._banded(trials), torch.from_numpy(net._target_index(trials))
    torch.nn.functional.cross_entropy(net.global_(x), y).backward()
    step = DeepSSVEP(filters=2, epochs=(1, 0), dropout=(0.0, 0.0), last_dropout=0.0, seed=3)
    step.fit_global(train)
    for name, parameter in net.global_.named_parameters():
        g = parameter.grad + (1e-3 * before[name] if name.endswith("weight") else 0)
        expected = before[name] - 1e-3 * g / (g.abs() + 1e-8)  # the first step of Adam
        now = dict(step.global_.named_parameters())[name]
        clear = g.abs() > 1e-4  # elsewhere the sign hangs on rounding
        torch.testing.assert_close(now[clear], expected[clear], atol=2e-6, rtol=0)


# -- training and decoding -----------------------------------------------------------------


def test_learns_and_stage_two_makes_a_network_a_subject(halves):
    train, test = halves
    net = DeepSSVEP(filters=12, epochs=(60, 30)).fit(train, train.stimuli)
    assert isinstance(net, Decoder) and list(net.subjects_) == ["S1", "S2"]
    correct = [net.classify(r) == r.coord("stimulus") for r in test.values()]
    assert np.mean(correct) >= 0.75
    probability = net.predict(test["S1"])
    np.testing.assert_allclose(probability.sum(axis=1), 1.0, rtol=1e-5)
    accuracy = [np.mean(c) for c in correct]
    assert net.itr(test) == pytest.approx(information_transfer_rate(accuracy, 4, 0.9).mean())


def test_permuted_labels_give_chance():
    train, test = without_block(simulate_ssvep(12, n_blocks=4, snr=0.6), "1/1")
    net = DeepSSVEP(filters=8, epochs=(40, 10)).fit(permuted(train, 0))
    hits = sum((net.classify(r) == r.coord("stimulus")).sum() for r in test.values())
    assert hits <= 10  # of 48 at 1/12: a mean of 4 and a standard deviation of 1.9


def test_same_seed_same_network_and_another_seed_another(halves):
    train, test = halves
    state = torch.get_rng_state()
    first, again = (DeepSSVEP(**TINY, seed=1).fit(train).predict(test) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, DeepSSVEP(**TINY, seed=2).fit(train).predict(test))
    assert torch.equal(state, torch.get_rng_state())


def test_interrupted_training_goes_on_where_it_stopped(halves, tmp_path, monkeypatch):
    train, test = halves
    whole = DeepSSVEP(**TINY).fit(train).predict(test)
    from engramma.nn import train as loop

    save, count = loop._save, []

    def save_then_stop(*state):
        save(*state)
        count.append(1)
        if len(count) == 4:  # in the first subject's stage 2
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_save", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        DeepSSVEP(**TINY, checkpoint=tmp_path).fit(train)
    monkeypatch.setattr(loop, "_save", save)
    resumed = DeepSSVEP(**TINY, checkpoint=tmp_path).fit(train)
    np.testing.assert_array_equal(resumed.predict(test), whole)
    # Another seed or other data must not take up these files.
    files = set(tmp_path.iterdir())
    DeepSSVEP(**TINY, seed=5, checkpoint=tmp_path).fit(train)
    assert len(set(tmp_path.iterdir())) == 2 * len(files) == 6


def test_save_and_load(halves, tmp_path):
    train, test = halves
    net = DeepSSVEP(Window(length=0.3), **TINY).fit(train)
    net.save(tmp_path / "net.safetensors")
    again = DeepSSVEP.load(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(again.predict(test), net.predict(test))
    assert again.settings() == net.settings() and again.window == net.window
    with pytest.raises(LeakageError):
        again.classify(train)
    (tmp_path / "bad").write_bytes(b"12345678nothing")
    with pytest.raises(DataError, match="no saved"):
        DeepSSVEP.load(tmp_path / "bad")
    with pytest.raises(DataError, match="cannot be written"):
        net.save(tmp_path / "absent" / "net.safetensors")


def test_unknown_subject_gets_the_network_of_all(halves):
    train, test = halves
    net = DeepSSVEP(**TINY).fit(Cohort({"S1": train["S1"]}))
    global_only = DeepSSVEP(filters=4, epochs=(3, 0)).fit(Cohort({"S1": train["S1"]}))
    np.testing.assert_array_equal(net.predict(test["S2"]), global_only.predict(test["S2"]))


# -- leakage -------------------------------------------------------------------------------


def test_a_block_that_either_stage_saw_cannot_be_tested(cohort, halves):
    train, test = halves
    with pytest.raises(LeakageError, match="'1/1'"):  # stage 1 saw it, stage 2 did not
        DeepSSVEP(**TINY).fit_global(cohort).fit_subject(train).classify(test)
    with pytest.raises(LeakageError, match="'1/1'"):  # stage 2 saw it, stage 1 did not
        DeepSSVEP(**TINY).fit_global(train).fit_subject(cohort).classify(test["S1"])
    with pytest.raises(LeakageError, match="trained on"):
        EnsembleTRCA().fit(cohort).classify(test["S1"])
    clean = DeepSSVEP(**TINY).fit_global(train).fit_subject(train)
    assert len(clean.classify(test["S1"])) == 4


def test_leave_one_block_out_tests_every_block_once(cohort):
    scores = leave_one_block_out(FilterBankCanonicalCorrelation(), cohort)
    assert scores.accuracy.shape == (2, 4) and scores.n_targets == 4
    assert scores.blocks == ("1/1", "1/2", "1/3", "1/4")
    assert np.isfinite(scores.accuracy).all() and scores.itr().shape == (2, 4)
    with pytest.raises(DataError, match="no block is left"):
        one = Cohort({s: r.select(r.coord("run") == "1") for s, r in cohort.items()})
        leave_one_block_out(FilterBankCanonicalCorrelation(), one)


# -- every decoder -------------------------------------------------------------------------

DECODERS = {
    "deep-ssvep": lambda w: DeepSSVEP(w, **TINY),
    "ssvep-cca": SSVEPCanonicalCorrelation,
    "ssvep-fbcca": FilterBankCanonicalCorrelation,
    "ssvep-trca": EnsembleTRCA,
}


def test_all_enter_the_leaderboard_and_run(cohort):
    cards = systems.all()
    for slug in DECODERS:
        assert cards[slug].tasks == ("ssvep",) and cards[slug].contract == ("Decoder",)
        assert cards[slug].baseline == (slug != "deep-ssvep")
    result = cards["ssvep-trca"].run(cohort, seed=0)
    accuracy = result.metrics["accuracy"]
    assert accuracy.low <= accuracy.value <= accuracy.high
    assert accuracy.value > 0.8


def test_task_scores_any_decoder_that_classifies():
    data = task.prepare(0)

    class Oracle:
        def fit(self, recording, stimuli):
            self.targets = len(stimuli)
            return self

        def classify(self, recording):
            return recording.coord("stimulus")

    assert task.score(Oracle(), data) == 1.0
    assert task.score(SSVEPCanonicalCorrelation(), data) > 2 / 12


@pytest.mark.parametrize("make", DECODERS.values(), ids=DECODERS.keys())
def test_bad_recordings_are_refused(cohort, make):
    good = cohort["S1"]
    holes = good.values.copy()
    holes[2, 3, 60] = np.nan
    flat_in_time = Recording(good.array.isel(time=50))
    with pytest.raises(DataError, match="NaN"):
        make(Window()).fit(good.with_values(holes))
    with pytest.raises(DataError, match="beyond the trial"):
        make(Window(length=1.2)).fit(good)
    with pytest.raises(DataError, match="250 Hz, the decoder works at 200 Hz"):
        make(Window(sfreq=200)).fit(good)
    with pytest.raises(DataError, match="'Fz'"):
        make(Window(channels=("Fz",))).fit(good)
    with pytest.raises(DataError, match="time axis"):
        make(Window()).fit(flat_in_time)
    with pytest.raises(DataError, match="microvolts"):
        make(Window()).fit(good.with_values(good.values * 1e-6))
    with pytest.raises(ConfigError, match="not been fitted"):
        make(Window()).classify(good)


def test_volts_and_another_rate_are_handled_on_request(cohort):
    train, test = without_block(cohort, "1/1")
    plain = FilterBankCanonicalCorrelation().fit(train)
    volts = FilterBankCanonicalCorrelation(Window(scale=1e6)).fit(
        Cohort({s: r.with_values(r.values * 1e-6) for s, r in train.items()})
    )
    in_volts = test["S1"].with_values(test["S1"].values * 1e-6)
    np.testing.assert_allclose(volts.scores(in_volts), plain.scores(test["S1"]), rtol=1e-3)
    fast = simulate_ssvep(11, n_subjects=2, n_targets=4, n_blocks=4, snr=0.6, sfreq=500)
    net = EnsembleTRCA(Window(resample=True))
    assert leave_one_block_out(net, fast).accuracy.mean() > 0.8


def test_stimuli_need_frequencies(cohort):
    recording = cohort["S1"]
    table = recording.stimuli.table.drop(columns="frequency")
    with pytest.raises(DataError, match="no column 'frequency'"):
        SSVEPCanonicalCorrelation().fit(recording, StimulusSet(table))
    assert EnsembleTRCA().fit(recording, StimulusSet(table)).targets_ is not None


def test_other_channels_and_targets_are_refused(halves):
    train, test = halves
    net = DeepSSVEP(**TINY).fit_global(train)
    with pytest.raises(DataError, match="trained on 9 channels"):
        net.classify(test["S1"].select(units=np.arange(8)))
    other = simulate_ssvep(0, n_subjects=1, n_targets=2, first_frequency=20.0)
    with pytest.raises(DataError, match="not among those"):
        net.fit_subject(other)
    with pytest.raises(ConfigError, match="fit_global"):
        DeepSSVEP().fit_subject(train)


# -- the simulated cohort ------------------------------------------------------------------


def test_simulation_returns_its_truth():
    world = simulate_ssvep(3, n_blocks=40, n_targets=3, latency_spread=0.0)
    truth = world.attrs["truth"]
    recording = world["S2"]
    shown = recording.coord("stimulus") == recording.stimuli.ids[1]
    mean = recording.values[shown].mean(axis=0)
    clean = truth["clean"][1, 1]
    residual = (mean - clean) * np.sqrt(shown.sum())
    assert residual.std() == pytest.approx(10.0, rel=0.15)  # the noise, and nothing else
    # Signal to noise as asked for, where the response is on.
    assert clean[:, 40:].std() / 10 == pytest.approx(0.2, rel=0.1)
    # The clean response is the formula of the docstring.
    time = recording.coord("time")
    f, phase = recording.stimuli.table.iloc[1][["frequency", "phase"]]
    h = np.arange(1, 4)[:, None]
    waves = np.sin(2 * np.pi * h * f * (time - 0.14) + h * phase) / h
    shape = truth["topography"][1].T @ (waves * (time >= 0.14))
    assert np.corrcoef(shape.ravel(), clean.ravel())[0, 1] == pytest.approx(1.0, abs=1e-6)


def test_simulated_noise_falls_as_one_over_f():
    noise = simulate_ssvep(5, n_subjects=1, snr=0.0, seconds=4.0)["S1"].values
    power = (np.abs(np.fft.rfft(noise, axis=-1)) ** 2).mean(axis=(0, 1))
    frequency = np.fft.rfftfreq(noise.shape[-1], 1 / 250)
    use = (frequency > 2) & (frequency < 100)
    slope = np.polyfit(np.log(frequency[use]), np.log(power[use]), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.05)


def test_jitter_moves_trials_and_only_then():
    still = simulate_ssvep(1, n_subjects=2).attrs["truth"]
    moved = simulate_ssvep(1, n_subjects=2, jitter=0.01).attrs["truth"]
    assert np.ptp(still["delays"][0]) == 0
    assert moved["delays"][0].std() == pytest.approx(0.01, rel=0.3)
    assert simulate_ssvep(1).fingerprint() == simulate_ssvep(1).fingerprint()
    with pytest.raises(ConfigError, match="harmonic"):
        simulate_ssvep(first_frequency=60.0)
