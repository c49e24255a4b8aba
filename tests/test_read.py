"""Reading: what goes in comes out, whatever the format."""

from __future__ import annotations

import json

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
import scipy.io
import zarr
from PIL import Image
from scipy.stats import spearmanr

import engramma
from engramma import registry
from engramma.data.inspect import convert, inspect
from engramma.data.quality import check_recording, drop_bad_units
from engramma.data.read import read
from engramma.data.recording import Cohort, Recording
from engramma.errors import ConfigError, DataError

TR = 2.0


def write_run(folder, name, rng, events, shape=(4, 4, 3), n=40, tr=TR, unit="sec", data=None):
    """Write one run: image and events."""
    folder.mkdir(parents=True, exist_ok=True)
    if data is None:
        data = 100 + rng.standard_normal((*shape, n))
    image = nibabel.Nifti1Image(data.astype(np.float32), np.diag([3.0, 3.0, 3.0, 1.0]))
    image.header.set_zooms((3, 3, 3, tr))
    image.header.set_xyzt_units("mm", unit)
    nibabel.save(image, folder / f"{name}_bold.nii.gz")
    if events is not None:
        events.to_csv(folder / f"{name.split('_space')[0]}_events.tsv", sep="\t", index=False)


def block_events(names=("face", "house", "face", "house")):
    onset = 4 + 18.0 * np.arange(len(names))
    return pd.DataFrame({"onset": onset, "duration": 10.0, "trial_type": list(names)})


@pytest.fixture
def bids(tmp_path, rng):
    """Write a dataset of two subjects with two runs each."""
    root = tmp_path / "bids"
    for subject in ("01", "02"):
        for run in (1, 2):
            name = f"sub-{subject}_task-look_run-{run}"
            write_run(root / f"sub-{subject}" / "func", name, rng, block_events())
    (root / "task-look_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.9"}))
    mask = np.ones((4, 4, 3), dtype=np.uint8)
    mask[0] = 0
    nibabel.save(nibabel.Nifti1Image(mask, np.diag([3.0, 3.0, 3.0, 1.0])), root / "mask.nii.gz")
    return root


def layout(rng, n_stimuli=6, n_runs=3, n_units=8, time=None):
    shape = (n_stimuli * n_runs, n_units) + ((time,) if time else ())
    return {
        "responses": rng.standard_normal(shape).astype(np.float32),
        "stimulus": np.tile([f"im{i}" for i in range(n_stimuli)], n_runs),
        "run": np.repeat(np.arange(1, n_runs + 1), n_stimuli),
        "roi": np.resize(["V1", "IT"], n_units),
    }


def stimulus_table(folder, n=6):
    (folder / "images").mkdir()
    for i in range(n):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / "images" / f"{i}.png")
    table = pd.DataFrame(
        {
            "stimulus": [f"im{i}" for i in range(n)],
            "image": [f"{i}.png" for i in range(n)],
            "category": np.resize(["face", "house"], n),
        }
    )
    table.to_csv(folder / "stimuli.tsv", sep="\t", index=False)


# -- BIDS and NIfTI ------------------------------------------------------------------------


def test_several_subjects_make_a_cohort(bids):
    cohort = read(bids)
    assert isinstance(cohort, Cohort) and list(cohort) == ["01", "02"]
    one = cohort["01"]
    assert one.array.shape == (8, 36)
    assert list(np.unique(one.coord("run"))) == ["1", "2"]
    assert one.attrs["tr"] == TR and one.attrs["volume_shape"] == [4, 4, 3]
    at = int(np.flatnonzero(one.coord("unit") == "v2-1-1")[0])
    assert [one.coord(a)[at] for a in "xyz"] == [6, 3, 3]
    assert {"bids", "nilearn"} <= set(one.attrs["citations"])
    assert sum(e["count"] for e in one.attrs["events"]) == 8


def test_one_subject_and_the_number_of_jobs_change_nothing(bids):
    alone, cohort = read(bids, subjects="sub-02", jobs=2), read(bids)
    assert isinstance(alone, Recording)
    assert alone.fingerprint() == cohort["02"].fingerprint()


def test_nearest_sidecar_prevails(bids):
    near = bids / "sub-01" / "func" / "sub-01_task-look_bold.json"
    near.write_text(json.dumps({"RepetitionTime": 1.9}))
    cohort = read(bids)
    assert [r.attrs["tr"] for r in cohort.values()] == [1.9, TR]
    assert "tr-mismatch" in {w["name"] for w in cohort["01"].attrs["warnings"]}


def test_fmriprep_folder_with_masks_confounds_and_raw_events(bids, rng):
    prep = bids / "derivatives" / "fmriprep"
    confound = rng.standard_normal(40)
    for run in (1, 2):
        name = f"sub-01_task-look_run-{run}"
        data = 100 + rng.standard_normal((4, 4, 3, 40)) + 30 * confound
        space = f"{name}_space-T1w_desc-preproc"
        write_run(prep / "sub-01" / "func", space, rng, None, data=data)
        mask = np.zeros((4, 4, 3), dtype=np.uint8)
        mask[run:] = 1
        nibabel.save(
            nibabel.Nifti1Image(mask, np.diag([3.0, 3.0, 3.0, 1.0])),
            prep / "sub-01" / "func" / f"{name}_space-T1w_desc-brain_mask.nii.gz",
        )
        columns = {f"{k}_{a}": rng.standard_normal(40) for k in ("trans", "rot") for a in "xyz"}
        columns["trans_x"] = confound
        pd.DataFrame(columns).to_csv(
            prep / "sub-01" / "func" / f"{name}_desc-confounds_timeseries.tsv",
            sep="\t",
            index=False,
        )
    (prep / "dataset_description.json").write_text("{}")
    plain, regressed = read(prep, zscore=False), read(prep, zscore=False, confounds="motion")
    assert plain.n_units == 2 * 4 * 3  # the masks' intersection
    assert np.abs(regressed.values).mean() < 0.2 * np.abs(plain.values).mean()
    assert any("6 confound" in h for h in regressed.attrs["history"])
    assert read(bids, subjects=["01"]).n_units == 36  # derivatives are a dataset of their own


def test_single_trials_take_stimulus_files_for_stimuli(tmp_path, rng):
    root = tmp_path / "b"
    (root / "stimuli").mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (4, 4)).save(root / "stimuli" / f"{i}.png")
    events = block_events().assign(duration=1.0, stim_file=[f"{i}.png" for i in range(4)])
    write_run(root / "sub-1" / "func", "sub-1_task-x", rng, events)
    recording = read(root, estimate="lss")
    assert recording.stimuli.ids == ["0.png", "1.png", "2.png", "3.png"]
    assert recording.stimuli.path("image", "2.png").is_file()
    assert list(recording.labels("category")) == ["face", "house", "face", "house"]


def test_nifti_with_events_beside_it_equals_the_bids_reading(bids):
    func = bids / "sub-01" / "func"
    recording = read(func / "sub-01_task-look_run-1_bold.nii.gz", mask=bids / "mask.nii.gz")
    of_bids = read(bids, subjects="01").select(np.arange(4))
    np.testing.assert_array_equal(recording.values, of_bids.values)


def test_milliseconds_are_converted_with_a_warning(tmp_path, rng):
    write_run(tmp_path, "a", rng, block_events(), tr=2000.0)
    recording = read(tmp_path / "a_bold.nii.gz")
    assert recording.attrs["tr"] == 2.0
    assert "tr-in-milliseconds" in {w["name"] for w in recording.attrs["warnings"]}
    write_run(tmp_path, "b", rng, block_events(), tr=2000.0, unit="msec")
    assert "tr-in-milliseconds" not in {
        w["name"] for w in read(tmp_path / "b_bold.nii.gz").attrs["warnings"]
    }


# -- arrays --------------------------------------------------------------------------------


def test_all_array_formats_give_the_same_recording(tmp_path, rng):
    arrays = layout(rng)
    stimulus_table(tmp_path)
    np.savez(tmp_path / "a.npz", **arrays)
    scipy.io.savemat(tmp_path / "b.mat", {**arrays, "stimulus": arrays["stimulus"].astype(object)})
    names = [f"u{i:05d}" for i in range(8)]
    wide = pd.DataFrame(arrays["responses"].astype(float), columns=names)
    wide.insert(0, "stimulus", arrays["stimulus"])
    wide.insert(1, "run", arrays["run"])
    wide.to_csv(tmp_path / "c.csv", index=False)
    long = wide.melt(["stimulus", "run"], var_name="unit", value_name="response")
    long.to_csv(tmp_path / "d.tsv", sep="\t", index=False)
    group = zarr.open_group(str(tmp_path / "e.zarr"), mode="w")
    for name, values in arrays.items():
        group.create_array(name, data=values)
    expected = read(tmp_path / "a.npz")
    assert expected.stimuli.has("image") and list(expected.coord("roi")[:2]) == ["V1", "IT"]
    for name in ("b.mat", "c.csv", "d.tsv"):
        found = read(tmp_path / name)
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-6)
        for coord in ("stimulus", "run", "repetition", "unit"):
            assert list(found.coord(coord)) == list(expected.coord(coord)), (name, coord)
        assert found.stimuli.ids == expected.stimuli.ids
    lazy = read(tmp_path / "e.zarr", stimuli=tmp_path / "stimuli.tsv")
    assert lazy.array.chunks is not None
    assert lazy.fingerprint() == expected.fingerprint()


def test_matlab_73_axes_come_in_the_right_order(tmp_path, rng):
    responses = rng.standard_normal((6, 4, 5))
    with h5py.File(tmp_path / "v73.mat", "w", userblock_size=512) as h5:
        h5["responses"] = responses.T  # MATLAB stores columns first
        h5["responses"].attrs["MATLAB_class"] = np.bytes_("double")
        h5["stimulus"] = np.arange(6.0)[None, :]
        h5["stimulus"].attrs["MATLAB_class"] = np.bytes_("double")
        h5["time"] = np.arange(5.0)[:, None]
        h5["time"].attrs["MATLAB_class"] = np.bytes_("double")
    header = b"MATLAB 7.3 MAT-file".ljust(124) + (0x0200).to_bytes(2, "little") + b"IM"
    with (tmp_path / "v73.mat").open("r+b") as file:
        file.write(header)
    recording = read(tmp_path / "v73.mat")
    np.testing.assert_allclose(recording.values, responses.astype(np.float32))
    assert list(recording.coord("stimulus")) == list("012345")


def test_other_names_and_time_from_the_sampling_rate(tmp_path, rng):
    arrays = layout(rng, time=5)
    renamed = {"betas": arrays["responses"], "image_id": arrays["stimulus"], "sfreq": 100.0}
    np.savez(tmp_path / "a.npz", **renamed)
    recording = read(tmp_path / "a.npz", responses="betas", stimulus="image_id", modality="meg")
    np.testing.assert_allclose(recording.array["time"], [0, 0.01, 0.02, 0.03, 0.04])
    assert recording.attrs["modality"] == "meg" and recording.attrs["sfreq"] == 100


def test_files_of_a_folder_are_subjects(tmp_path, rng):
    for subject, units in (("01", 8), ("02", 5)):
        np.savez(tmp_path / f"sub-{subject}.npz", **layout(rng, n_units=units))
    cohort = read(tmp_path)
    assert {s: r.n_units for s, r in cohort.items()} == {"01": 8, "02": 5}


def test_subjects_within_a_file_are_taken_apart(tmp_path, rng):
    np.savez(tmp_path / "a.npz", **layout(rng), subject=np.repeat(["x", "y"], 9))
    assert {s: r.n_presentations for s, r in read(tmp_path / "a.npz").items()} == {"x": 9, "y": 9}


# -- dissimilarities -----------------------------------------------------------------------


def test_objects92(real_data):
    rdms = read(real_data / "objects92")
    assert len(rdms) == 8 and list(rdms.references) == ["monkey_it"]
    assert rdms.subject[:3] == ("1", "1", "2") and rdms.session[:3] == ("1", "2", "1")
    human = np.load(real_data / "objects92" / "rdms.npz")["human_it"]
    assert spearmanr(human, rdms.references["monkey_it"]).statistic == pytest.approx(
        0.44, abs=0.005
    )
    averaged = rdms.by_subject().dissimilarities.mean(axis=0)
    assert spearmanr(averaged, human).statistic > 0.99
    assert rdms.stimuli.path("image", "01").is_file()


def test_rsatoolbox_file(tmp_path, rng):
    rsatoolbox = pytest.importorskip("rsatoolbox")
    theirs = rsatoolbox.rdm.RDMs(
        rng.random((2, 6)),
        rdm_descriptors={"subject": ["a", "b"]},
        pattern_descriptors={"conds": ["w", "x", "y", "z"]},
    )
    theirs.save(str(tmp_path / "rdms.h5"), file_type="hdf5")
    ours = read(tmp_path)
    np.testing.assert_array_equal(ours.dissimilarities, theirs.dissimilarities)
    assert ours.subject == ("a", "b") and ours.stimuli.ids == list("wxyz")


# -- inspect, convert, worlds, plug-ins ----------------------------------------------------


def test_inspect_says_what_is_there(bids, monkeypatch):
    monkeypatch.setattr("engramma.data.readers.nifti.load_array", lambda *_: 1 / 0)
    facts = inspect(bids)
    assert facts["format"] == "bids" and facts["kind"] == "cohort" and facts["usable"]
    assert facts["subjects"] == ["01", "02"] and facts["tr"] == TR
    assert facts["runs"][0]["shape"] == [4, 4, 3, 40]
    assert {e["name"]: e["count"] for e in facts["events"]} == {"face": 8, "house": 8}
    json.dumps(facts)


def test_inspect_reports_what_makes_data_unusable(bids):
    (bids / "sub-01" / "func" / "sub-01_task-look_run-1_events.tsv").unlink()
    facts = inspect(bids)
    assert not facts["usable"] and "event table" in facts["problem"]


def test_convert_round_trip(bids, tmp_path):
    written = convert(bids, tmp_path / "out.zarr", estimate="lss")
    again = read(tmp_path / "out.zarr")
    assert again.fingerprint() == written.fingerprint()
    assert again["01"].attrs["history"] == written["01"].attrs["history"]
    assert inspect(tmp_path / "out.zarr")["format"] == "zarr"


def test_public_name_options_and_formats(bids, tmp_path):
    assert engramma.read is read
    with pytest.raises(ConfigError, match=r"'estimat'.*estimate.*high_pass"):
        read(bids, estimat="lss")
    with pytest.raises(ConfigError, match="no reader called 'bid'"):
        read(bids, format="bid")
    for options in ({"tr": "two"}, {"detrend": 3}, {"jobs": 1.5}, {"mask": ["a", "b"]}):
        with pytest.raises(ConfigError, match="is no value that the bids reader takes"):
            read(bids, **options)
    assert read(bids, exclude="house,rest", subjects=["01"]).stimuli.ids == ["face"]
    (tmp_path / "x.docx").write_text("x")
    with pytest.raises(DataError, match=r"nwb: .*rdms: "):
        read(tmp_path / "x.docx")


def test_a_world_is_read_by_its_name(monkeypatch, rng):
    def tiny(seed=0, n_units=3):
        values = np.random.default_rng(seed).standard_normal((4, n_units))
        return Recording.from_arrays(values, list("abcd"))

    monkeypatch.setitem(registry.worlds._items, "tiny", tiny)
    assert read("tiny", n_units=5).n_units == 5
    with pytest.raises(ConfigError, match="n_unit"):
        read("tiny", n_unit=5)
    with pytest.raises(DataError, match="did you mean the world tiny"):
        read("tinny")


# -- quality -------------------------------------------------------------------------------


def names(notices):
    return {n["name"] for n in notices}


def test_bad_units_are_dropped_and_named(rng):
    values = rng.standard_normal((12, 6))
    values[:, 2] = 4.0
    values[3, 4] = np.nan
    recording = Recording.from_arrays(values, np.tile(list("abc"), 4), run=np.repeat(range(4), 3))
    kept, notices = drop_bad_units(recording)
    assert list(kept.coord("unit")) == ["u00000", "u00001", "u00003", "u00005"]
    assert names(notices) == {"flat-units", "nan-units"}
    again, nothing = drop_bad_units(kept)
    assert again is kept and nothing == []


def test_a_balanced_design_has_no_warning(rng):
    stimulus, run = np.tile(list("abcd"), 5), np.repeat(range(5), 4)
    recording = Recording.from_arrays(rng.standard_normal((20, 30)), stimulus, run=run)
    assert check_recording(recording) == []


def test_design_problems_are_named(rng):
    stimulus = np.array(list("aaaabbbbaaaa"))
    recording = Recording.from_arrays(
        rng.standard_normal((12, 30)), stimulus, run=np.repeat(range(3), 4)
    )
    assert {"unbalanced-classes", "classes-missing-from-run"} <= names(check_recording(recording))
    alone = Recording.from_arrays(rng.standard_normal((4, 30)), list("abcd"))
    assert {"one-run", "few-repeats"} <= names(check_recording(alone))


def test_copied_and_outlying_presentations_are_named(rng):
    values = rng.standard_normal((20, 50))
    values[13] = values[2] * 1.5
    values[7] *= 40
    stimulus = np.tile(list("abcd"), 5)
    recording = Recording.from_arrays(values, stimulus, run=np.repeat([0, 1], 10))
    found = {n["name"]: n["text"] for n in check_recording(recording)}
    assert "2 and 13" in found["near-duplicate-presentations"]
    assert "'7'" in found["outlier-presentations"]
