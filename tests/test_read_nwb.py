"""NWB: spikes and series around presentations."""

from __future__ import annotations

import builtins
from datetime import UTC, datetime

import numpy as np
import pytest

from engramma.data.inspect import inspect
from engramma.data.read import read
from engramma.errors import ConfigError, DataError

pynwb = pytest.importorskip("pynwb")


def write(path, rng, subject="m1", units=True, series=True, trials=True):
    """Write a session of 12 trials; returns spike times, the series and the onsets."""
    file = pynwb.NWBFile("test", subject, datetime(2024, 1, 1, tzinfo=UTC), session_id="s1")
    file.subject = pynwb.file.Subject(subject_id=subject, species="Mus musculus")
    device = file.create_device("probe")
    group = file.create_electrode_group("shank", "one", "VISp", device)
    for i in range(3):
        file.add_electrode(
            x=float(i), y=0.0, z=0.0, location=["VISp", "VISl", "VISp"][i], group=group
        )
    onsets = 1.0 + 0.8 * np.arange(12)
    spikes = [np.sort(rng.uniform(0, 12, n)) for n in (200, 350)]
    lfp = rng.standard_normal((12000, 3)).astype(np.float32)
    if trials:
        file.add_trial_column("image", "what was shown")
        file.add_trial_column("contrast", "of the image")
        for i, onset in enumerate(onsets):
            file.add_trial(
                start_time=onset, stop_time=onset + 0.5, image=f"im{i % 4}", contrast=float(i % 4)
            )
    if units:
        for unit, times in enumerate(spikes):
            file.add_unit(spike_times=times, electrodes=[unit])
    if series:
        region = file.create_electrode_table_region([0, 1, 2], "all")
        file.add_acquisition(
            pynwb.ecephys.ElectricalSeries("lfp", lfp, region, rate=1000.0, conversion=1e-6)
        )
        file.add_acquisition(
            pynwb.TimeSeries("running", lfp[:, 0], unit="m/s", timestamps=np.arange(12000) / 1000)
        )
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(file)
    return spikes, lfp, onsets


def test_spikes_are_counted_around_each_presentation(tmp_path, rng):
    spikes, _, onsets = write(tmp_path / "a.nwb", rng)
    recording = read(tmp_path / "a.nwb", bin=0.1)
    assert recording.array.shape == (12, 2, 5)
    for trial, unit in ((0, 0), (7, 1), (11, 0)):
        expected = np.histogram(spikes[unit] - onsets[trial], np.arange(6) / 10)[0] / 0.1
        np.testing.assert_allclose(recording.values[trial, unit], expected, rtol=1e-5)
    np.testing.assert_allclose(recording.array["time"], [0.05, 0.15, 0.25, 0.35, 0.45])
    assert recording.stimuli.ids == ["im0", "im1", "im2", "im3"]
    assert list(recording.stimuli.table["contrast"]) == [0, 1, 2, 3]
    assert list(recording.coord("roi")) == ["VISp", "VISl"]
    assert recording.attrs["modality"] == "spikes"
    assert set(recording.coord("subject")) == {"m1"}
    assert read(tmp_path / "a.nwb", average=True).array.dims == ("presentation", "unit")


def test_series_are_cut_around_each_presentation(tmp_path, rng):
    _, lfp, onsets = write(tmp_path / "a.nwb", rng)
    recording = read(tmp_path / "a.nwb", data="lfp", tmin=-0.1, tmax=0.2)
    first = round(onsets[5] * 1000)
    expected = lfp[first - 100 : first + 200].T * 1e-6
    np.testing.assert_allclose(recording.values[5], expected, rtol=1e-5)
    assert recording.attrs["modality"] == "ieeg" and recording.attrs["sfreq"] == pytest.approx(1000)
    assert list(recording.coord("x")) == [0, 1, 2]
    running = read(tmp_path / "a.nwb", data="running", tmin=0, tmax=0.2)
    np.testing.assert_allclose(running.values[5, 0], lfp[first : first + 200, 0], rtol=1e-5)


def test_presentations_past_the_end_of_a_series_are_named(tmp_path, rng):
    write(tmp_path / "a.nwb", rng)
    recording = read(tmp_path / "a.nwb", data="lfp", tmax=2.5)
    assert recording.n_presentations == 11
    assert "events-past-end" in {w["name"] for w in recording.attrs["warnings"]}


def test_several_files_are_a_cohort_and_subjects_do_not_repeat(tmp_path, rng):
    write(tmp_path / "a.nwb", rng, "m1")
    write(tmp_path / "b.nwb", rng, "m2")
    assert list(read(tmp_path)) == ["m1", "m2"]
    write(tmp_path / "c.nwb", rng, "m2")
    with pytest.raises(DataError, match="two files hold the subject 'm2'"):
        read(tmp_path)


def test_what_is_missing_is_named(tmp_path, rng):
    write(tmp_path / "a.nwb", rng, trials=False)
    with pytest.raises(DataError, match="no interval table"):
        read(tmp_path / "a.nwb")
    write(tmp_path / "b.nwb", rng)
    with pytest.raises(DataError, match=r"no data 'lpf'.*units, lfp"):
        read(tmp_path / "b.nwb", data="lpf")
    with pytest.raises(DataError, match=r"no column 'photo'.*image"):
        read(tmp_path / "b.nwb", stimulus_column="photo")
    write(tmp_path / "c.nwb", rng, units=False, series=False)
    with pytest.raises(DataError, match="no units or series"):
        read(tmp_path / "c.nwb")


def test_inspect_lists_units_series_and_events(tmp_path, rng):
    write(tmp_path / "a.nwb", rng)
    facts = inspect(tmp_path / "a.nwb")
    assert facts["runs"][0]["units"] == 2
    assert facts["runs"][0]["series"] == {"lfp": [12000, 3], "running": [12000]}
    assert facts["events"][0] == {"name": "im0", "count": 3}


def test_without_pynwb_the_extra_is_named(tmp_path, rng, monkeypatch):
    write(tmp_path / "a.nwb", rng)
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "pynwb":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r"engramma\[nwb\]"):
        read(tmp_path / "a.nwb")
