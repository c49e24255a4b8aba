"""M/EEG: events, filtering, eye movements, rejection, and the real recordings."""

from __future__ import annotations

import mne
import numpy as np
import pandas as pd
import pytest

from engramma.data.epochs import (
    EpochSettings,
    Log,
    contiguous_blocks,
    make_epochs,
    peak_to_peak_limit,
)
from engramma.data.inspect import inspect
from engramma.data.read import read
from engramma.errors import ConfigError, DataError

SFREQ = 100.0
CHANNELS = ["Fz", "Cz", "Pz", "Oz", "C3", "C4"]


def raw_of(rng, seconds=90, names=(*CHANNELS, "VEOG"), noise=5e-6, brain=True):
    """Simulate noise with an evoked response every 1.5 s in Oz, and blinks."""
    times = np.arange(int(seconds * SFREQ)) / SFREQ
    data = noise * rng.standard_normal((len(names), len(times)))
    onsets = np.arange(2, seconds - 2, 1.5)
    if brain:
        for onset in onsets:
            data[3] += 20e-6 * np.exp(-0.5 * ((times - onset - 0.2) / 0.04) ** 2)
    raw = mne.io.RawArray(data, mne.create_info(list(names), SFREQ, "eeg"), verbose="error")
    kinds = np.resize(["face", "house", "face"], len(onsets))
    raw.set_annotations(mne.Annotations(onsets, 0, kinds))
    return raw, onsets, kinds


def events_of(onsets, kinds):
    return pd.DataFrame({"onset": onsets, "stimulus": kinds, "category": kinds})


def run(raw, onsets, kinds, **options):
    log = Log()
    options = {"reject": None, "reference": None, "l_freq": None, "h_freq": None} | options
    epochs = make_epochs(raw, events_of(onsets, kinds), EpochSettings(**options), log)
    return epochs, log


def test_epochs_are_the_samples_around_the_events(rng):
    raw, onsets, kinds = raw_of(rng)
    data = raw.get_data(picks=CHANNELS)
    epochs, log = run(raw, onsets, kinds, eog=None, baseline=None, tmin=-0.1, tmax=0.3)
    first = round(onsets[4] * SFREQ)
    np.testing.assert_array_equal(epochs.get_data()[4], data[:, first - 10 : first + 31])
    assert epochs.ch_names == CHANNELS  # VEOG is no response
    assert any("VEOG is eog" in h for h in log.history)
    assert list(epochs.metadata["stimulus"]) == list(kinds)


def test_baseline_and_average_reference_are_zero(rng):
    raw, onsets, kinds = raw_of(rng)
    epochs, _ = run(raw, onsets, kinds, eog=None, reference="average")
    data = epochs.get_data()
    np.testing.assert_allclose(data[:, :, epochs.times <= 0].mean(axis=2), 0, atol=1e-12)
    np.testing.assert_allclose(data.mean(axis=1), 0, atol=1e-12)


@pytest.mark.parametrize("how", ["regress", "ica"])
def test_eye_movements_are_removed_and_the_response_stays(rng, how):
    raw, onsets, kinds = raw_of(rng, seconds=120)
    blink = np.zeros(raw.n_times)
    for at in rng.uniform(1, 119, 50):
        blink += 150e-6 * np.exp(-0.5 * ((raw.times - at) / 0.08) ** 2)
    weights = np.array([0.6, 0.3, 0.1, 0.02, 0.2, 0.2, 1.0])
    clean = raw.get_data(picks=CHANNELS)
    raw._data += weights[:, None] * blink
    bad = np.sqrt(np.mean((weights[:6, None] * blink) ** 2))
    epochs, _ = run(raw, onsets, kinds, eog=how, baseline=None, tmin=0, tmax=0.5)
    samples = np.round(onsets * SFREQ).astype(int)
    expected = np.stack([clean[:, s : s + 51] for s in samples])
    # What is constant within an epoch is left to the baseline.
    error = (epochs.get_data() - expected)[:, :3]
    left = np.sqrt(np.mean((error - error.mean(axis=2, keepdims=True)) ** 2))
    assert left < 0.25 * bad
    average = epochs.get_data()[:, 3].mean(axis=0)
    assert np.ptp(average) == pytest.approx(20e-6, rel=0.2)


def test_high_pass_and_low_pass_remove_what_they_should(rng):
    raw, onsets, kinds = raw_of(rng, brain=False, noise=1e-9)
    slow, fast = np.sin(2 * np.pi * 0.02 * raw.times), np.sin(2 * np.pi * 45 * raw.times)
    raw._data += 50e-6 * (slow + fast) + 10e-6 * np.sin(2 * np.pi * 10 * raw.times)
    epochs, _ = run(raw, onsets[5:-5], kinds[5:-5], l_freq=0.5, h_freq=30, eog=None, baseline=None)
    assert np.abs(epochs.get_data()).max() == pytest.approx(10e-6, rel=0.1)


def test_artefacts_are_rejected_and_good_epochs_kept(rng):
    values = 10e-6 * rng.standard_normal((60, 4, 50))
    values[[3, 17, 40]] += 300e-6 * np.sin(np.linspace(0, 9, 50))
    limit = peak_to_peak_limit(values)
    kept = np.ptp(values, axis=2).max(axis=1) <= limit
    assert not kept[[3, 17, 40]].any() and kept.sum() >= 50


def test_fixed_limit_counts_and_refuses_to_reject_all(rng):
    raw, onsets, kinds = raw_of(rng)
    at = round(onsets[7] * SFREQ)
    raw._data[0, at : at + 5] += 500e-6
    epochs, log = run(raw, onsets, kinds, reject=150e-6, eog=None)
    assert len(epochs) == len(onsets) - 1
    assert any(f"1 of {len(onsets)} epochs were rejected" in h for h in log.history)
    with pytest.raises(DataError, match="exceed the rejection limit"):
        run(raw_of(rng)[0], onsets, kinds, reject=1e-9, eog=None)


def test_flat_channels_and_short_recordings_are_named(rng):
    raw, onsets, kinds = raw_of(rng, seconds=20)
    raw._data[1] = 0
    epochs, log = run(raw, onsets, kinds, l_freq=0.1, h_freq=60, eog=None)
    assert "Cz" not in epochs.ch_names
    assert {"flat-channels", "no-high-pass", "no-low-pass"} <= {n["name"] for n in log.notices}


def test_standard_positions_are_given_by_name(rng):
    raw, onsets, kinds = raw_of(rng)
    epochs, _ = run(raw, onsets, kinds, eog=None)
    position = {c["ch_name"]: c["loc"][:3] for c in epochs.info["chs"]}
    assert position["Oz"][1] < 0 < position["Fz"][1]  # y points to the nose
    assert position["C3"][0] < 0 < position["C4"][0]  # x points to the right ear


def test_events_outside_the_recording(rng):
    raw, onsets, kinds = raw_of(rng)
    late = np.where(np.arange(len(onsets)) == 2, 1e4, onsets)
    _, log = run(raw, late, kinds, eog=None)
    assert "events-past-end" in {n["name"] for n in log.notices}
    with pytest.raises(DataError, match="outside the recording"):
        run(raw_of(rng)[0], onsets * 1000, kinds, eog=None)


def test_impossible_settings():
    with pytest.raises(ConfigError, match="tmin"):
        EpochSettings(tmin=1.0)
    with pytest.raises(ConfigError, match="regress"):
        EpochSettings(eog="magic")
    with pytest.raises(ConfigError, match="volts"):
        EpochSettings(reject="some")


def test_blocks_are_contiguous_and_even():
    assert list(contiguous_blocks(7, 3)) == [1, 1, 1, 2, 2, 3, 3]


# -- files ---------------------------------------------------------------------------------


def test_bids_folder_with_runs_channels_and_events(tmp_path, rng):
    for subject in ("1", "2"):
        folder = tmp_path / f"sub-{subject}" / "eeg"
        folder.mkdir(parents=True)
        for number in (1, 2):
            raw, onsets, kinds = raw_of(rng, seconds=60, names=(*CHANNELS, "X1"))
            raw.set_annotations(None)
            name = f"sub-{subject}_task-look_run-{number}"
            raw.save(folder / f"{name}_eeg.fif", verbose="error")
            table = pd.DataFrame({"onset": onsets, "duration": 0, "trial_type": kinds})
            table.to_csv(folder / f"{name}_events.tsv", sep="\t", index=False)
    channels = pd.DataFrame({"name": [*CHANNELS, "X1"], "type": ["EEG"] * 6 + ["EOG"]})
    channels["status"] = ["good"] * 5 + ["bad", "good"]
    channels.to_csv(tmp_path / "task-look_channels.tsv", sep="\t", index=False)
    cohort = read(tmp_path, resample=50)
    assert list(cohort) == ["1", "2"]
    one = cohort["1"]
    assert list(one.coord("unit")) == CHANNELS[:5]  # C4 is bad, X1 is EOG
    assert sorted(set(one.coord("run"))) == ["1", "2"]
    assert one.stimuli.ids == ["face", "house"]
    assert one.attrs["sfreq"] == 50
    assert max(one.coord("repetition")) > 20
    facts = inspect(tmp_path)
    assert facts["subjects"] == ["1", "2"] and facts["usable"]


def test_epochs_file_is_taken_as_it_is(tmp_path, rng):
    raw, _, _ = raw_of(rng, names=CHANNELS)
    events, ids = mne.events_from_annotations(raw, verbose="error")
    epochs = mne.Epochs(raw, events, ids, baseline=None, preload=True, verbose="error")
    epochs.save(tmp_path / "a-epo.fif", verbose="error")
    recording = read(tmp_path / "a-epo.fif", events="face")
    np.testing.assert_allclose(recording.values, epochs["face"].get_data(), atol=1e-9)
    assert set(recording.coord("stimulus")) == {"face"}


@pytest.fixture(scope="module")
def attention(real_data):
    return read(real_data / "eeg-attention")


def test_eeg_attention(attention):
    assert attention.stimuli.ids == ["square/position-1", "square/position-2"]
    assert list(attention.stimuli.table["position"]) == ["1", "2"]
    assert set(attention.stimuli.table["category"]) == {"square"}
    assert attention.n_units == 30 and set(attention.coord("kind")) == {"eeg"}
    counts = {e["name"]: (e["count"], e["used"]) for e in attention.attrs["events"]}
    assert counts == {"square": (80, True), "rt": (74, False)}
    assert attention.n_presentations >= 60
    assert sorted(set(attention.coord("run"))) == list("12345")
    assert any("contiguous blocks" in h for h in attention.attrs["history"])
    assert np.isfinite([attention.coord(a) for a in "xyz"]).all()
    head = np.linalg.norm([attention.coord(a) for a in "xyz"], axis=0)
    assert head.min() > 0.05  # metres
    assert head.max() < 0.15


def test_eeg_attention_evokes_a_plain_response(attention):
    time = attention.array["time"].values
    average = attention.values.mean(axis=0)
    error = attention.values.std(axis=0) / np.sqrt(attention.n_presentations)
    z = np.abs(average / error)
    after = z[:, (time > 0.1) & (time < 0.5)].max(axis=1)
    before = z[:, time < -0.05].max(axis=1)
    assert after.max() > 8
    assert before.max() < 8


def test_eeg_attention_agrees_with_mne(real_data):
    options = {"eog": None, "reject": None, "l_freq": None, "h_freq": None, "reference": None}
    ours = read(real_data / "eeg-attention", **options)
    raw = mne.io.read_raw_eeglab(real_data / "eeg-attention" / "eeglab_data.set", verbose="error")
    events, ids = mne.events_from_annotations(raw, verbose="error")
    theirs = mne.Epochs(raw, events, ids["square"], -0.2, 0.8, preload=True, verbose="error")
    theirs.pick(list(ours.coord("unit")))
    np.testing.assert_allclose(ours.values, theirs.get_data(), atol=1e-9)


def test_events_can_be_chosen(real_data):
    recording = read(real_data / "eeg-attention", events="rt", tmax=0.3)
    assert recording.stimuli.ids == ["rt"]
    with pytest.raises(DataError, match="no event 'circle'"):
        read(real_data / "eeg-attention", events="circle")
    with pytest.raises(DataError, match="no field 'colour'"):
        read(real_data / "eeg-attention", stimulus_columns=["colour"])


def test_averaged_file(real_data):
    recording = read(real_data / "formats" / "test-ave.fif.gz")
    theirs = mne.read_evokeds(real_data / "formats" / "test-ave.fif.gz", verbose="error")
    assert set(recording.coord("kind")) == {"eeg", "mag", "grad"}
    at = list(recording.coord("stimulus")).index("Left visual")
    picked = theirs[2].copy().pick(list(recording.coord("unit")))
    np.testing.assert_allclose(recording.values[at], picked.data, rtol=1e-5, atol=1e-18)
    assert "averaged" in {w["name"] for w in recording.attrs["warnings"]}


@pytest.mark.parametrize("name", ["test.vhdr", "test.edf"])
def test_other_formats(real_data, name):
    recording = read(real_data / "formats" / name, tmin=-0.1, tmax=0.3)
    assert recording.has_time and recording.n_presentations >= 3
    assert np.isfinite(recording.values).all()


def test_recording_without_usable_events(real_data):
    facts = inspect(real_data / "formats" / "test.bdf")
    assert facts["format"] == "eeg"
    with pytest.raises(DataError):
        read(real_data / "formats" / "test.bdf")
