"""Bad input: each gives one clear error or a named warning."""

from __future__ import annotations

import gzip
import json
import shutil

import nibabel
import numpy as np
import pandas as pd
import pytest
import scipy.io
from PIL import Image

from engramma.data.inspect import convert, inspect
from engramma.data.read import read
from engramma.data.splits import leave_one_out
from engramma.errors import ConfigError, DataError

TR = 2.0
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
EVENTS = pd.DataFrame(
    {
        "onset": [4.0, 22.0, 40.0, 58.0],
        "duration": 10.0,
        "trial_type": ["face", "house", "face", "house"],
    }
)


def write(folder, rng, events=EVENTS, data=None, tr=TR, name="sub-01_run-1", ending=".nii.gz"):
    """Write one run of a BIDS folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if data is None:
        data = 100 + rng.standard_normal((5, 4, 3, 40))
    image = nibabel.Nifti1Image(data.astype(np.float32), AFFINE)
    image.header.set_zooms((3, 3, 3, tr))
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, folder / f"{name}_bold{ending}")
    events.to_csv(folder / f"{name}_events.tsv", sep="\t", index=False)
    mask = np.ones(data.shape[:3], dtype=np.uint8)
    nibabel.save(nibabel.Nifti1Image(mask, AFFINE), folder / "mask.nii.gz")
    return folder / f"{name}_bold{ending}"


def warnings_of(recording):
    return {w["name"]: w["text"] for w in recording.attrs["warnings"]}


def archive(path, rng, **changes):
    arrays = {
        "responses": rng.standard_normal((12, 5)),
        "stimulus": np.tile(list("abcd"), 3),
        "run": np.repeat([1, 2, 3], 4),
    }
    np.savez(path, **{**arrays, **changes})
    return path


# -- files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_truncated_nifti(tmp_path, rng, ending):
    path = write(tmp_path, rng, ending=ending)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"NIfTI.*bold.*cut short"):
        read(tmp_path)


def test_truncated_real_nifti(real_data, tmp_path):
    shutil.copytree(real_data / "haxby-slice", tmp_path / "b")
    path = tmp_path / "b/sub-01/func/sub-01_task-objectviewing_run-07_bold.nii.gz"
    path.write_bytes(path.read_bytes()[:30000])
    with pytest.raises(DataError, match="run-07_bold"):
        read(tmp_path / "b")


def test_file_that_is_no_nifti(tmp_path, rng):
    path = write(tmp_path, rng)
    path.write_bytes(gzip.compress(b"hello" * 100))
    with pytest.raises(DataError, match="NIfTI"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.npz", "a.mat", "a.csv", "a.set", "a.nwb", "a.fif"])
def test_empty_file(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(DataError, match="0 bytes"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.npz", "a.mat", "a.set", "a.nwb", "a.fif", "a.edf", "a.vhdr"])
def test_damaged_file(tmp_path, name):
    if name.endswith("nwb"):
        pytest.importorskip("pynwb")
    (tmp_path / name).write_bytes(b"\x93nonsense" * 300)
    with pytest.raises(DataError):
        read(tmp_path / name)


def test_nothing_empty_and_unknown(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "absent")
    with pytest.raises(DataError, match="folder is empty"):
        read(tmp_path)
    (tmp_path / "x.docx").write_text("x")
    with pytest.raises(DataError, match="bids:"):
        inspect(tmp_path)


def test_permission(tmp_path, rng, monkeypatch):
    path = archive(tmp_path / "a.npz", rng)
    monkeypatch.setattr("engramma.data.read.os.access", lambda *_: False)
    with pytest.raises(DataError, match="may not read"):
        read(path)


def test_unwritable_output(tmp_path, rng):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot write"):
        convert(archive(tmp_path / "a.npz", rng), tmp_path / "file" / "out.zarr")


def test_eeglab_without_its_samples(real_data, tmp_path):
    shutil.copy(real_data / "eeg-attention" / "eeglab_data.set", tmp_path)
    with pytest.raises(DataError, match=r"eeglab_data\.fdt"):
        read(tmp_path / "eeglab_data.set")
    (tmp_path / "eeglab_data.fdt").write_bytes(b"\0" * 1000)
    with pytest.raises(DataError):
        read(tmp_path / "eeglab_data.set")


def test_brainvision_without_its_samples(real_data, tmp_path):
    shutil.copy(real_data / "formats" / "test.vhdr", tmp_path)
    with pytest.raises(DataError, match="names the file"):
        read(tmp_path / "test.vhdr")


# -- fMRI ----------------------------------------------------------------------------------


def test_missing_absurd_and_given_tr(tmp_path, rng):
    path = write(tmp_path, rng, tr=0)
    with pytest.raises(DataError, match=r"TR.*missing.*tr="):
        read(path)
    assert read(path, tr=2.0).attrs["tr"] == 2.0
    with pytest.raises(DataError, match="no scanner"):
        read(write(tmp_path, rng, tr=55.0))
    with pytest.raises(ConfigError, match="seconds"):
        read(path, tr=2000)


def test_sidecar_with_another_tr_is_a_warning(tmp_path, rng):
    write(tmp_path, rng)
    (tmp_path / "bold.json").write_text(json.dumps({"RepetitionTime": 1.9}))
    assert "1.9 s and the header 2 s" in warnings_of(read(tmp_path))["tr-mismatch"]
    for broken, message in (('{"RepetitionTime": "two"}', "no number"), ("[1]", "no JSON object")):
        (tmp_path / "bold.json").write_text(broken)
        with pytest.raises(DataError, match=message):
            read(tmp_path)
    (tmp_path / "bold.json").write_text("{broken")
    with pytest.raises(DataError, match="JSON"):
        read(tmp_path)


def test_events_past_the_end(tmp_path, rng):
    late = EVENTS.assign(onset=EVENTS["onset"] + [0, 0, 0, 30])
    assert "1 of 4" in warnings_of(read(write(tmp_path, rng, late)))["events-past-end"]
    with pytest.raises(DataError, match="after the end of the run"):
        read(write(tmp_path, rng, EVENTS.assign(onset=EVENTS["onset"] * 1000)))
    longer = EVENTS.assign(duration=[10.0, 10.0, 10.0, 100.0])
    assert "events-cut-short" in warnings_of(read(write(tmp_path, rng, longer)))


def test_mask_of_another_shape_and_empty_mask(tmp_path, rng):
    path = write(tmp_path, rng)
    other = tmp_path / "other.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((5, 4, 2), np.uint8), AFFINE), other)
    with pytest.raises(DataError, match=r"\(5, 4, 2\).*\(5, 4, 3\)"):
        read(path, mask=other)
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 4, 3), np.uint8), AFFINE), other)
    with pytest.raises(DataError, match="mask is empty"):
        read(path, mask=other)
    nibabel.save(nibabel.Nifti1Image(np.ones((5, 4, 3), np.uint8), 2 * AFFINE), other)
    assert "mask-affine" in warnings_of(read(path, mask=other))


def test_flat_and_nan_voxels_are_dropped_and_named(tmp_path, rng):
    data = 100 + rng.standard_normal((5, 4, 3, 40))
    data[0] = 0
    data[1, 0, 0, 7] = np.nan
    recording = read(write(tmp_path, rng, data=data))
    assert recording.n_units == 60 - 12 - 1
    assert "13 of 60" in warnings_of(recording)["nan-units"]
    assert np.isfinite(recording.values).all()
    with pytest.raises(DataError, match="no unit is usable"):
        read(write(tmp_path, rng, data=np.ones((5, 4, 3, 40))))


def test_event_columns(tmp_path, rng):
    extra = EVENTS.assign(mood=1.0)
    recording = read(write(tmp_path, rng, extra))
    assert "mood" in warnings_of(recording)["unknown-event-columns"]
    for column in ("onset", "duration", "trial_type"):
        with pytest.raises(DataError, match=f"no column '{column}'"):
            read(write(tmp_path, rng, EVENTS.drop(columns=column)))
    with pytest.raises(DataError, match=r"no column 'kind'.*trial_type"):
        read(write(tmp_path, rng), condition_column="kind")
    with pytest.raises(DataError, match="row 3"):
        read(write(tmp_path, rng, EVENTS.astype({"onset": object}).assign(onset=[4, "x", 40, 58])))
    with pytest.raises(DataError, match="no event with a stimulus"):
        read(write(tmp_path, rng, EVENTS.assign(trial_type="rest")))


def test_no_events_one_volume_and_differing_runs(tmp_path, rng):
    path = write(tmp_path / "a", rng)
    (tmp_path / "a" / "sub-01_run-1_events.tsv").unlink()
    with pytest.raises(DataError, match="no event table"):
        read(path)
    with pytest.raises(DataError, match="four dimensions"):
        read(write(tmp_path / "b", rng, data=rng.standard_normal((5, 4, 3, 1))))
    write(tmp_path / "c", rng)
    write(tmp_path / "c", rng, name="sub-01_run-2", data=rng.standard_normal((5, 4, 4, 40)))
    with pytest.raises(DataError, match="differ in shape"):
        read(tmp_path / "c")


def test_unknown_subject_task_and_several_tasks(tmp_path, rng):
    write(tmp_path, rng, name="sub-01_task-a_run-1")
    write(tmp_path, rng, name="sub-01_task-b_run-1")
    with pytest.raises(DataError, match="no sub-07"):
        read(tmp_path, subjects="07")
    with pytest.raises(DataError, match="2 tasks"):
        read(tmp_path)
    assert read(tmp_path, task="b").n_presentations == 4
    with pytest.raises(DataError, match="no task-c"):
        read(tmp_path, task="c")


def test_one_run_and_a_missing_class_are_named(tmp_path, rng):
    alone = read(write(tmp_path / "a", rng))
    assert "one-run" in warnings_of(alone)
    with pytest.raises(DataError, match="one run only"):
        list(leave_one_out(alone))
    write(tmp_path / "b", rng)
    write(tmp_path / "b", rng, EVENTS.assign(trial_type="face"), name="sub-01_run-2")
    assert "2 lacks house" in warnings_of(read(tmp_path / "b"))["classes-missing-from-run"]


# -- arrays and tables ---------------------------------------------------------------------


def test_npz_with_python_objects_is_never_unpickled(tmp_path, rng):
    path = archive(tmp_path / "a.npz", rng, stimulus=np.array(list("abcd") * 3, dtype=object))
    with pytest.raises(DataError, match="'stimulus' holds Python objects"):
        read(path)


def test_truncated_npz_and_mat(tmp_path, rng):
    path = archive(tmp_path / "a.npz", rng)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match="npz"):
        read(path)
    scipy.io.savemat(tmp_path / "b.mat", {"responses": rng.standard_normal((12, 50))})
    whole = (tmp_path / "b.mat").read_bytes()
    (tmp_path / "b.mat").write_bytes(whole[:2000])
    with pytest.raises(DataError, match="MATLAB"):
        read(tmp_path / "b.mat")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"responses": np.ones((5, 12))}, "transpose"),
        ({"responses": np.ones(12)}, r"shape \(12,\)"),
        ({"responses": np.array(["x"] * 12)[:, None]}, "type"),
        ({"run": [1, 2]}, "'run' has 2 values for 12"),
        ({"roi": ["V1"] * 4}, "'roi' has 4 values for 5 units"),
        ({"responses": np.ones((12, 5, 3))}, "neither 'time' nor 'sfreq'"),
        ({"unit": list("aabcd")}, "unit names repeat"),
    ],
)
def test_wrong_shapes(tmp_path, rng, changes, message):
    with pytest.raises(DataError, match=message):
        read(archive(tmp_path / "a.npz", rng, **changes))


def test_missing_arrays_are_named(tmp_path, rng):
    np.savez(tmp_path / "a.npz", betas=rng.standard_normal((4, 5)))
    with pytest.raises(DataError, match=r"no array 'responses'.*betas.*responses="):
        read(tmp_path / "a.npz")


def test_one_subject_in_two_files(tmp_path, rng):
    archive(tmp_path / "sub-01_a.npz", rng)
    archive(tmp_path / "sub-01_b.npz", rng)
    with pytest.raises(DataError, match=r"two files hold the subject '01'.*sub-01_a.*sub-01_b"):
        read(tmp_path)


def test_stimulus_table_that_does_not_fit(tmp_path, rng):
    path = archive(tmp_path / "a.npz", rng)
    table = tmp_path / "stimuli.tsv"
    pd.DataFrame({"id": list("abc")}).to_csv(table, sep="\t", index=False)
    with pytest.raises(DataError, match=r"1 stimulus ids.*'d'"):
        read(path)
    pd.DataFrame({"id": list("abcc")}).to_csv(table, sep="\t", index=False)
    with pytest.raises(DataError, match="ids repeat: 'c'"):
        read(path)
    pd.DataFrame({"weight": [1, 2]}).to_csv(table, sep="\t", index=False)
    with pytest.raises(DataError, match="names no stimulus"):
        read(path)


def test_missing_and_empty_images(tmp_path, rng):
    path = archive(tmp_path / "a.npz", rng)
    for name in "abc":
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    pd.DataFrame({"id": list("abcd"), "image": [f"{n}.png" for n in "abcd"]}).to_csv(
        tmp_path / "stimuli.tsv", sep="\t", index=False
    )
    with pytest.raises(DataError, match=r"1 of 4 image files are not there: 'd.png'"):
        read(path)
    (tmp_path / "d.png").touch()
    with pytest.raises(DataError, match="empty"):
        read(path)


def test_tables_with_text_and_with_gaps(tmp_path):
    (tmp_path / "a.csv").write_text("stimulus,u1,u2\na,1,x\nb,2,y\n")
    with pytest.raises(DataError, match="'u2' holds text"):
        read(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("stimulus,unit,response\na,u1,1\na,u2,2\nb,u1,3\n")
    with pytest.raises(DataError, match="3 rows do not fill 2 x 2"):
        read(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text("stimulus,unit,response\na,u1,1\na,u1,2\n")
    with pytest.raises(DataError, match="repeat a presentation"):
        read(tmp_path / "c.csv")


def test_rdms_that_do_not_fit(tmp_path, rng):
    pd.DataFrame({"stimulus": list("abcd")}).to_csv(tmp_path / "stimuli.tsv", sep="\t", index=False)
    square = rng.random((3, 4, 4))
    np.savez(tmp_path / "rdms.npz", x_by_subject=square)
    with pytest.raises(DataError, match="not symmetric"):
        read(tmp_path)
    np.savez(tmp_path / "rdms.npz", x_by_subject=rng.random((3, 10)))
    with pytest.raises(DataError, match="4 stimuli make"):
        read(tmp_path)
    np.savez(tmp_path / "rdms.npz", human=rng.random(6))
    with pytest.raises(DataError, match="no array holds the RDMs"):
        read(tmp_path)
    np.savez(tmp_path / "rdms.npz", rdms=rng.random((3, 6)))
    (tmp_path / "stimuli.tsv").unlink()
    with pytest.raises(DataError, match="no stimulus table"):
        read(tmp_path)
