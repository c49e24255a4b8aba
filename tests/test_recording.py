"""Recording, cohort, storage and splits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from engramma.data.recording import Cohort, Recording
from engramma.data.splits import Split, guard, leave_one_out, stimulus_folds
from engramma.data.stimuli import StimulusSet
from engramma.data.store import open_recording, save_recording
from engramma.errors import DataError, LeakageError


def make(rng, n_stimuli=6, n_runs=3, n_units=5, subject="s1", **attrs):
    stimulus = np.tile([f"im{i}" for i in range(n_stimuli)], n_runs)
    run = np.repeat(np.arange(1, n_runs + 1), n_stimuli)
    return Recording.from_arrays(
        rng.standard_normal((n_stimuli * n_runs, n_units)),
        stimulus,
        run=run,
        subject=subject,
        **attrs,
    )


def test_defaults_are_filled_in(rng):
    recording = make(rng)
    assert recording.array.dtype == np.float32
    assert list(recording.coord("repetition")[[0, 6, 12]]) == [0, 1, 2]
    assert list(recording.coord("run")[[0, 6]]) == ["1", "2"]
    assert recording.stimuli.ids == [f"im{i}" for i in range(6)]


def test_mean_over_is_the_mean(rng):
    recording = make(rng)
    mean = recording.mean_over("stimulus")
    expected = recording.values[recording.coord("stimulus") == "im3"].mean(axis=0)
    np.testing.assert_allclose(mean.values[3], expected, rtol=1e-6)
    assert set(mean.coord("run")) == {"mixed"}


def test_unknown_stimulus_is_named(rng):
    stimuli = StimulusSet(pd.DataFrame(index=["im0", "im1"]))
    with pytest.raises(DataError, match="'im2'"):
        Recording(make(rng).array, stimuli)


def test_repeated_ids_and_wrong_dims_are_refused(rng):
    with pytest.raises(DataError, match="repeat"):
        StimulusSet(pd.DataFrame(index=["a", "a"]))
    with pytest.raises(DataError, match="dims"):
        Recording(make(rng).array.rename(unit="voxel"))


def test_cohort_refuses_a_recording_of_another_subject(rng):
    with pytest.raises(DataError, match="'s2'"):
        Cohort({"s1": make(rng, subject="s2")})


def test_round_trip_through_zarr(rng, tmp_path):
    recording = make(rng, affine=np.eye(4), history=["one step"])
    save_recording(recording, tmp_path / "r.zarr")
    again = open_recording(tmp_path / "r.zarr")
    assert again.fingerprint() == recording.fingerprint()
    assert again.attrs["affine"][0][0] == 1.0
    assert again.attrs["history"] == ["one step"]


def test_cohort_round_trip_and_unequal_units(rng, tmp_path):
    cohort = Cohort({"a": make(rng, subject="a"), "b": make(rng, n_units=7, subject="b")})
    save_recording(cohort, tmp_path / "c.zarr")
    again = open_recording(tmp_path / "c.zarr")
    assert [r.n_units for r in again.values()] == [5, 7]
    assert again.fingerprint() == cohort.fingerprint()


def test_media_in_memory_are_kept_and_joined(rng, tmp_path):
    def with_media(subject, ids):
        shapes = [(int(i[2:]) + 2, 4, 5, 3) for i in ids]  # clips of different lengths
        stimuli = StimulusSet(
            pd.DataFrame(index=ids),
            audio=[np.full(len(ids), int(i[2:]), np.float32) for i in ids],
            videos=[np.full(shape, shape[0], np.uint8) for shape in shapes],
        )
        array = Recording.from_arrays(
            rng.standard_normal((len(ids), 2)), ids, subject=subject
        ).array
        return Recording(array, stimuli)

    cohort = Cohort({"a": with_media("a", ["im0", "im1"]), "b": with_media("b", ["im1", "im2"])})
    save_recording(cohort, tmp_path / "c.zarr")
    again = open_recording(tmp_path / "c.zarr")
    assert again.fingerprint() == cohort.fingerprint()
    stimuli = again.stimuli
    assert stimuli.ids == ["im0", "im1", "im2"] and stimuli.has("video")
    assert [len(v) for v in stimuli.videos] == [2, 3, 4]
    assert [a[0] for a in stimuli.select(["im2", "im0"]).audio] == [2, 0]


def test_failed_write_leaves_the_old_recording(rng, tmp_path, monkeypatch):
    path = tmp_path / "r.zarr"
    recording = make(rng)
    save_recording(recording, path)
    monkeypatch.setattr("engramma.data.store._write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_recording(make(rng), path)
    assert open_recording(path).fingerprint() == recording.fingerprint()
    assert [p.name for p in tmp_path.iterdir()] == ["r.zarr"]


def test_a_folder_of_something_else_is_never_replaced(rng, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="something else"):
        save_recording(make(rng), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_leave_one_run_out_needs_the_stimulus_to_be_allowed(rng):
    recording = make(rng)
    with pytest.raises(LeakageError, match="stimulus"):
        list(leave_one_out(recording))
    splits = list(leave_one_out(recording, allow=("stimulus",)))
    assert [s.name for s in splits] == ["run 1", "run 2", "run 3"]
    assert sorted(np.concatenate([s.test for s in splits])) == list(range(18))


def test_stimulus_folds_keep_repeats_together(rng):
    recording = make(rng)
    for split in stimulus_folds(recording, 3, rng=rng, allow=("run",)):
        stimulus = recording.coord("stimulus")
        assert not set(stimulus[split.train]) & set(stimulus[split.test])
    with pytest.raises(LeakageError, match="run"):
        list(stimulus_folds(recording, 3, rng=rng))


def test_a_presentation_on_both_sides_is_refused_even_when_all_is_allowed(rng):
    split = Split(np.arange(5), np.arange(4, 8))
    with pytest.raises(LeakageError, match="presentation"):
        guard(make(rng), split, allow=("stimulus", "run", "subject"))


def test_one_run_cannot_be_left_out(rng):
    with pytest.raises(DataError, match="one run only"):
        list(leave_one_out(make(rng, n_runs=1)))
