"""Benchmark and BETA files, generated in the layouts that the data sets have."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from engramma.data.read import read
from engramma.data.readers.ssvep import CHANNELS, read_ssvep, recognises
from engramma.data.recording import Cohort
from engramma.errors import ConfigError, DataError

N_TARGETS, N_BLOCKS, N_SAMPLES = 5, 3, 200
FREQUENCIES = np.array([8.0, 9.0, 8.2, 9.2, 8.4])
PHASES = np.array([0.0, 0.5, 0.5, 1.0, 1.0]) * np.pi


def trials(seed):
    """channel x sample x target x block."""
    shape = (64, N_SAMPLES, N_TARGETS, N_BLOCKS)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def benchmark(tmp_path):
    for subject in (2, 10):
        savemat(tmp_path / f"S{subject}.mat", {"data": trials(subject)})
    savemat(tmp_path / "Freq_Phase.mat", {"freqs": FREQUENCIES, "phases": PHASES})
    return tmp_path


@pytest.fixture
def beta(tmp_path):
    information = {"freqs": FREQUENCIES, "phases": PHASES, "srate": 250.0}
    content = {"EEG": trials(1).swapaxes(2, 3), "suppl_info": information}
    savemat(tmp_path / "S1.mat", {"data": content})
    return tmp_path


def test_benchmark_folder_is_a_cohort(benchmark):
    cohort = read(benchmark, format="ssvep")
    assert isinstance(cohort, Cohort) and list(cohort) == ["S2", "S10"]
    recording = cohort["S10"]
    assert recording.values.shape == (N_TARGETS * N_BLOCKS, 64, N_SAMPLES)
    # Presentation 7 is block 2, target 3.
    np.testing.assert_array_equal(recording.values[7], trials(10)[:, :, 2, 1])
    assert recording.coord("stimulus")[7] == "8.2Hz" and recording.coord("run")[7] == "2"
    row = recording.stimuli.table.loc["8.2Hz"]
    assert (row["frequency"], row["phase"]) == (8.2, 0.5 * np.pi)
    assert recording.coord("time")[125] == pytest.approx(0.0)
    # One-based 48, 54-58 and 61-63 are the nine channels of the paper.
    chosen = [CHANNELS[k - 1] for k in (48, 54, 55, 56, 57, 58, 61, 62, 63)]
    assert chosen == ["Pz", "PO5", "PO3", "POz", "PO4", "PO6", "O1", "Oz", "O2"]


def test_beta_axes_are_told_apart_by_size(beta):
    recording = read(beta / "S1.mat", format="ssvep")
    np.testing.assert_array_equal(recording.values[7], trials(1)[:, :, 2, 1])
    assert recording.coord("stimulus")[7] == "8.2Hz" and recording.coord("run")[7] == "2"
    assert "block x target" in recording.attrs["history"][0]


def test_swapped_benchmark_axes_are_detected(benchmark):
    savemat(benchmark / "S2.mat", {"data": trials(2).swapaxes(2, 3)})
    recording = read_ssvep(benchmark / "S2.mat")
    np.testing.assert_array_equal(recording.values[7], trials(2)[:, :, 2, 1])


def test_version_7_3_files_read_the_same(benchmark):
    with h5py.File(benchmark / "S2.mat", "w", userblock_size=512) as file:
        file["data"] = trials(2).T  # MATLAB stores axes reversed
        file["data"].attrs["MATLAB_class"] = np.bytes_("single")
    with (benchmark / "S2.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + b"\x00\x02IM")
    assert recognises(benchmark / "S2.mat")
    recording = read_ssvep(benchmark / "S2.mat")
    np.testing.assert_array_equal(recording.values[7], trials(2)[:, :, 2, 1])


def test_recognised_by_content_and_not_by_name(benchmark, beta, tmp_path):
    (benchmark / "S2.mat").rename(benchmark / "someone.mat")
    assert recognises(benchmark / "someone.mat")
    assert recognises(beta) and recognises(beta / "S1.mat")
    savemat(tmp_path / "other.mat", {"responses": np.zeros((4, 3)), "stimulus": np.arange(4)})
    assert not recognises(tmp_path / "other.mat")
    (tmp_path / "S3.mat").write_bytes(b"not a MATLAB file at all")
    assert not recognises(tmp_path / "S3.mat")


def test_a_part_can_be_read(benchmark):
    cohort = read_ssvep(benchmark, subjects=["S10"], channels=["Oz", "O1"], seconds=0.2)
    assert list(cohort) == ["S10"]
    np.testing.assert_array_equal(cohort["S10"].values[0], trials(10)[[61, 60]][:, :175, 0, 0])


def test_bad_input_is_named(benchmark):
    with pytest.raises(ConfigError, match="'S3'"):
        read_ssvep(benchmark, subjects=["S3"])
    with pytest.raises(ConfigError, match="'Nz'"):
        read_ssvep(benchmark, channels=["Nz"])
    with pytest.raises(ConfigError, match="keeps nothing"):
        read_ssvep(benchmark, seconds=-2)
    savemat(benchmark / "S2.mat", {"data": trials(2)[:, :, :4]})
    with pytest.raises(DataError, match="no axis counts the 5 targets"):
        read_ssvep(benchmark / "S2.mat")
    savemat(benchmark / "S2.mat", {"data": trials(2)[:9]})
    with pytest.raises(DataError, match="9 channels"):
        read_ssvep(benchmark / "S2.mat")
    savemat(benchmark / "S2.mat", {"data": trials(2)[:, :, :3]})
    savemat(benchmark / "Freq_Phase.mat", {"freqs": FREQUENCIES[:3], "phases": PHASES[:3]})
    with pytest.raises(DataError, match="cannot be told apart"):
        read_ssvep(benchmark / "S2.mat")
    savemat(benchmark / "S2.mat", {"data": {"EMG": trials(2)}})
    with pytest.raises(DataError, match="no trials"):
        read_ssvep(benchmark / "S2.mat")
    savemat(benchmark / "S2.mat", {"data": trials(2)})
    (benchmark / "Freq_Phase.mat").unlink()
    with pytest.raises(DataError, match="frequencies and phases"):
        read_ssvep(benchmark / "S2.mat")
    (benchmark / "S2.mat").write_bytes((benchmark / "S10.mat").read_bytes()[:5000])
    with pytest.raises(DataError, match=r"S2\.mat"):
        read_ssvep(benchmark / "S2.mat")
