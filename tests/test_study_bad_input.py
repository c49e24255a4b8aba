"""`engramma study` on bad input: one clear error and exit code 2, or a named warning.

An earlier study in the same folder stays as it is, byte by byte, and nothing is left beside it.
"""

from __future__ import annotations

import errno
import json
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import engramma
from engramma import cli
from engramma.data.recording import Cohort, Recording
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError, DataError

TR = 2.0
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
CONDITIONS = ("face", "house", "shoe")
EVENTS = pd.DataFrame(
    {"onset": np.arange(9) * 24.0 + 4, "duration": 12.0, "trial_type": CONDITIONS * 3}
)
VOLUMES = 118
EARLIER = {"report.html": "<html>earlier</html>", "study.json": "{}", "arrays.zarr/c": "values"}


def snapshot(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@pytest.fixture
def out(tmp_path) -> Path:
    """A folder that holds an earlier study."""
    folder = tmp_path / "earlier"
    for name, text in EARLIER.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def study(monkeypatch, capsys, out):
    """Run ``engramma study`` as the installed command does: ``code, out, err = study(...)``."""

    def run(*arguments, to=out):
        given = ["engramma", "study", *map(str, arguments), "--permutations", "100"]
        monkeypatch.setattr(sys, "argv", given + (["--out", str(to)] if to else []))
        monkeypatch.setenv("COLUMNS", "300")
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as left:
            code = left.code or 0
        printed, complaint = capsys.readouterr()
        assert "Traceback" not in printed + complaint
        return code, printed, complaint

    return run


@pytest.fixture
def refused(study, out):
    """Run a study that cannot be done; return what it says."""

    def run(*arguments):
        before = snapshot(out)
        code, printed, complaint = study(*arguments)
        errors = [line for line in complaint.splitlines() if line.startswith("Error: ")]
        assert code == 2 and len(errors) == 1, (code, printed, complaint)
        assert snapshot(out) == before
        assert {p.name for p in out.iterdir()} == {"report.html", "study.json", "arrays.zarr"}
        return errors[0]

    return run


@pytest.fixture
def warned(study, out):
    """Run a study that can be done; return its warnings by name."""

    def run(*arguments):
        code, printed, complaint = study(*arguments)
        assert code == 0, complaint
        document = json.loads((out / "study.json").read_text())
        page = (out / "report.html").read_text()
        assert document["sections"] and page != EARLIER["report.html"]
        warnings = {}
        for entry in document["warnings"]:
            warnings[entry["name"]] = warnings.get(entry["name"], "") + entry["text"]
            assert entry["name"] in printed
        return warnings

    return run


# -- fMRI ----------------------------------------------------------------------------------


def volumes(rng, events=EVENTS, shape=(5, 4, 3)):
    """A run in which a third of the voxels follows each condition."""
    data = 100 + rng.standard_normal((*shape, VOLUMES))
    flat = data.reshape(-1, VOLUMES)
    for i, name in enumerate(CONDITIONS):
        for onset in events.loc[events["trial_type"] == name, "onset"]:
            start = int(onset / TR) + 2
            flat[i::3, start : start + 6] += 3
    return data


def write_run(folder, rng, run=1, *, events=EVENTS, data=None, tr=TR, subject="01"):
    folder.mkdir(parents=True, exist_ok=True)
    data = volumes(rng, events) if data is None else data
    image = nibabel.Nifti1Image(data.astype(np.float32), AFFINE)
    image.header.set_zooms((3, 3, 3, tr))
    image.header.set_xyzt_units("mm", "sec")
    path = folder / f"sub-{subject}_task-view_run-{run}_bold.nii.gz"
    nibabel.save(image, path)
    events.to_csv(Path(str(path).replace("_bold.nii.gz", "_events.tsv")), sep="\t", index=False)
    mask = np.ones(data.shape[:3], dtype=np.uint8)
    nibabel.save(nibabel.Nifti1Image(mask, AFFINE), folder / "mask.nii.gz")
    return path


@pytest.fixture
def bids(tmp_path, rng):
    folder = tmp_path / "bids"
    for run in (1, 2, 3):
        write_run(folder, rng, run)
    return folder


def test_truncated_nifti(bids, refused):
    path = bids / "sub-01_task-view_run-2_bold.nii.gz"
    path.write_bytes(path.read_bytes()[:20_000])
    assert "run-2_bold" in (said := refused(bids)) and "cut short" in said


def test_missing_and_wrong_tr(bids, rng, refused, warned):
    write_run(bids, rng, 3, tr=0)
    assert "TR" in (said := refused(bids)) and "tr=" in said
    assert "seconds" in refused(bids, "--tr", "2000")
    assert warned(bids, "--tr", "2") is not None


def test_tr_of_sidecar_and_header_differ(bids, warned):
    (bids / "task-view_bold.json").write_text('{"RepetitionTime": 1.9}')
    assert "1.9 s and the header 2 s" in warned(bids)["tr-mismatch"]


def test_events_past_the_end(bids, rng, warned, refused):
    late = EVENTS.assign(onset=[*EVENTS["onset"][:-1], VOLUMES * TR + 30])
    write_run(bids, rng, 2, events=late)
    assert "1 of 27" in (text := warned(bids)["events-past-end"]) or "1 of 9" in text
    write_run(bids, rng, 2, events=EVENTS.assign(onset=EVENTS["onset"] * 1000 + 1e5))
    assert "after the end of the run" in refused(bids)


def test_mask_of_another_shape(bids, refused):
    other = bids.parent / "other.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((5, 4, 2), np.uint8), AFFINE), other)
    said = refused(bids, "--mask", other)
    assert "(5, 4, 2)" in said and "(5, 4, 3)" in said
    assert "absent" in refused(bids, "--mask", bids / "absent.nii.gz")


def test_flat_and_nan_voxels(bids, rng, warned, refused):
    data = volumes(rng)
    data[0] = 100
    data[1, 0, 0, 7] = np.nan
    write_run(bids, rng, 2, data=data)
    named = warned(bids)
    assert "of 60" in named.get("nan-units", "") + named.get("flat-units", "")
    for run in (1, 2, 3):
        write_run(bids, rng, run, data=np.full((5, 4, 3, VOLUMES), 7.0))
    assert "no unit is usable" in refused(bids)


def test_event_table_with_unknown_and_missing_columns(bids, rng, warned, refused):
    write_run(bids, rng, 1, events=EVENTS.assign(mood=1.0))
    assert "mood" in warned(bids)["unknown-event-columns"]
    assert "'kind'" in refused(bids, "--option", "condition_column=kind")
    for column in ("onset", "duration", "trial_type"):
        write_run(bids, rng, 1, data=volumes(rng), events=EVENTS.drop(columns=column))
        said = refused(bids)
        assert f"no column '{column}'" in said and "run-1_events.tsv" in said


def test_one_run_only(tmp_path, rng, warned):
    write_run(tmp_path / "one", rng)
    named = warned(tmp_path / "one")
    assert "no run can be left out" in named["one-run"]
    assert "one run only" in named["no decoding analysis"]


def test_classes_missing_from_a_run(bids, rng, warned):
    write_run(bids, rng, 3, events=EVENTS[EVENTS["trial_type"] != "shoe"])
    assert "3 lacks shoe" in warned(bids)["classes-missing-from-run"]


def test_unknown_estimate_and_reader_option(bids, refused):
    said = refused(bids, "--estimate", "betas")
    assert "betas" in said and "lss" in said
    assert "did you mean high_pass" in refused(bids, "--option", "high_pas=0.1")
    assert "NAME=VALUE" in refused(bids, "--option", "high_pass")


# -- arrays, tables and images -------------------------------------------------------------

N_STIMULI = 12


def write_arrays(folder, rng, name="mine.npz", **changes):
    folder.mkdir(exist_ok=True)
    index = np.concatenate([rng.permutation(N_STIMULI) for _ in range(4)])
    pattern = rng.standard_normal((N_STIMULI, 15))
    arrays = {
        "responses": (pattern[index] + rng.standard_normal((len(index), 15))).astype(np.float32),
        "stimulus": np.char.add("s", index.astype(str)),
        "run": np.repeat(np.arange(4), N_STIMULI),
    }
    np.savez(folder / name, **{**arrays, **changes})
    return folder / name


def write_stimuli(folder, **columns):
    table = pd.DataFrame({"stimulus": [f"s{i}" for i in range(N_STIMULI)], **columns})
    table.to_csv(folder / "stimuli.csv", index=False)


@pytest.fixture
def arrays(tmp_path, rng):
    """A recording of twelve stimuli in two categories."""
    path = write_arrays(tmp_path / "own", rng)
    write_stimuli(path.parent, category=["cat", "car"] * (N_STIMULI // 2))
    return path


def test_the_good_recording_is_studied(arrays, warned):
    """What the tests below damage is fine without the damage."""
    assert not [name for name in warned(arrays) if name.startswith("no ")]


def test_two_subjects_with_one_id(tmp_path, rng, refused):
    for name in ("sub-01_a.npz", "sub-01_b.npz"):
        write_arrays(tmp_path / "two", rng, name)
    said = refused(tmp_path / "two")
    assert "two files hold the subject '01'" in said and "sub-01_b.npz" in said


def test_stimulus_ids_that_do_not_match(arrays, refused):
    table = pd.DataFrame({"stimulus": [f"image{i}" for i in range(N_STIMULI)]})
    table.to_csv(arrays.parent / "stimuli.csv", index=False)
    said = refused(arrays)
    assert "'s0'" in said and "'image0'" in said


def test_image_that_does_not_decode(arrays, refused, warned):
    folder = arrays.parent
    for i in range(N_STIMULI):
        Image.new("RGB", (16, 16), (20 * i, 0, 90)).save(folder / f"s{i}.png")
    whole = (folder / "s7.png").read_bytes()
    (folder / "s7.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    write_stimuli(folder, image=[f"s{i}.png" for i in range(N_STIMULI)])
    # Ceiling and decoding need no image: they are given, and the rest is named.
    named = warned(arrays, "--features", "pixels")
    assert "s7.png" in named["no encoding analysis"]
    (folder / "s7.png").write_bytes(whole[: len(whole) // 2])
    assert "s7.png" in warned(arrays, "--features", "pixels")["no encoding analysis"]
    (folder / "s7.png").unlink()
    assert "1 of 12 image files are not there" in refused(arrays)


def test_flat_and_nan_units(arrays, rng, warned, refused):
    responses = np.load(arrays)["responses"]
    responses[:, 3] = 1
    responses[5, 4] = np.inf
    write_arrays(arrays.parent, rng, responses=responses)
    named = warned(arrays)
    assert "1 of 15" in named["flat-units"] and "1 of 15" in named["nan-units"]
    write_arrays(arrays.parent, rng, responses=np.full_like(responses, np.nan))
    assert "no unit is usable" in refused(arrays)


def test_categories_that_some_stimuli_lack(arrays, warned):
    write_stimuli(
        arrays.parent,
        category=["cat", "car", ""] * (N_STIMULI // 3),
        colour=["red", "red", "blue"] * (N_STIMULI // 3),
    )
    assert "'category' (4 of 12 empty)" in warned(arrays)["missing-labels"]
    said = warned(arrays, "--decode", "category")
    assert "4 stimuli that were shown have no 'category'" in said["no decoding analysis"]


def test_two_runs_leave_one_pattern_a_condition_to_train_on(tmp_path, rng, warned):
    index = np.tile(np.arange(6), 2)
    path = write_arrays(
        tmp_path / "own",
        rng,
        responses=rng.standard_normal((6, 20))[index] + rng.standard_normal((12, 20)),
        stimulus=index,
        run=np.repeat([1, 2], 6),
    )
    assert "few-repeats" in warned(path)


def test_truncated_arrays(arrays, refused):
    arrays.write_bytes(arrays.read_bytes()[:700])
    assert "npz" in refused(arrays)


def test_nothing_repeated_and_nothing_known_of_the_stimuli(tmp_path, rng, refused):
    path = write_arrays(
        tmp_path / "own",
        rng,
        stimulus=np.array([f"s{i}" for i in range(4 * N_STIMULI)]),
        run=np.zeros(4 * N_STIMULI),
    )
    assert "nothing can be said about this recording" in refused(path)


def test_two_presentations_are_too_few(tmp_path, rng, refused):
    path = write_arrays(
        tmp_path / "own",
        rng,
        responses=rng.standard_normal((2, 15)),
        stimulus=["a", "b"],
        run=[1, 2],
    )
    assert "nothing can be said" in refused(path)


# -- options -------------------------------------------------------------------------------


def test_unknown_world_suggests_one(refused):
    assert "scenes" in (said := refused("sceens")) and "did you mean" in said
    assert "no such file" in refused("no/such/folder")


def test_unknown_world_option(refused):
    assert "'n_stimulus'" in refused("scenes", "--option", "n_stimulus=10")


def test_options_of_another_type_or_out_of_range(arrays, study, refused):
    assert "'n_subjects'" in (said := refused("scenes", "-o", "n_subjects=abc")) or "abc" in said
    assert "n_stimuli" in refused("scenes", "-o", "n_stimuli=2.5")
    assert "cnn" in refused("seed-zoo", "-o", "architecture=transformer")
    assert refused("scenes", "-o", "n_stimuli=-5")
    for wrong in (("--seed", "-1"), ("--seed", "x"), ("--tr", "x"), ("--jobs", "-1")):
        code, _, said = study(arrays, *wrong)
        assert code == 2 and wrong[0] in said


def test_unknown_decode_column(arrays, refused):
    said = refused(arrays, "--decode", "catgory")
    assert "'catgory'" in said and "category" in said and "--decode" in said


def test_unknown_feature_model(arrays, refused):
    said = refused(arrays, "--features", "resnet9000")
    assert "'resnet9000'" in said and "pixels" in said


def test_feature_model_that_needs_what_the_stimuli_lack(arrays, warned):
    assert "image" in warned(arrays, "--features", "pixels")["no encoding analysis"]


def test_unreachable_scheduler(arrays, refused, monkeypatch):
    import distributed

    client = distributed.Client

    def impatient(address, **options):
        return client(address, **{**options, "timeout": 1})

    monkeypatch.setattr(distributed, "Client", impatient)
    said = refused(arrays, "--executor", "tcp://127.0.0.1:1")
    assert "scheduler cannot be reached" in said and "tcp://127.0.0.1:1" in said


# -- where the study is written ------------------------------------------------------------


def test_unwritable_output_folder(arrays, study, tmp_path, monkeypatch):
    def forbid(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "place")

    with monkeypatch.context() as patched:
        patched.setattr("engramma.study.storage.tempfile.mkdtemp", forbid)
        code, _, said = study(arrays, to=tmp_path / "locked")
    assert code == 2 and "Error: cannot write here (Permission denied)" in said
    assert "--out" in said


def test_output_is_or_lies_below_a_file(arrays, study, tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        code, _, said = study(arrays, to=place)
        assert code == 2 and said.startswith("Error: cannot write here")
    assert (tmp_path / "file").read_text() == "mine"


def test_disk_that_fills_up_while_writing(arrays, out, study, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "report.html")

    before = snapshot(out)
    with monkeypatch.context() as patched:
        patched.setattr("engramma.report.html.write_report", full)
        code, _, said = study(arrays)
    assert code == 2 and "No space left on device" in said and "free disk space" in said
    after = snapshot(out)
    assert {k: after[k] for k in before} == before
    # What was computed is kept: the same command goes on from there.
    assert study(arrays)[0] == 0
    assert {p.name for p in out.iterdir()} == {"report.html", "study.json", "arrays.zarr"}


def test_disk_that_fills_up_while_keeping_a_section(arrays, out, study, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "section.json")

    before = snapshot(out)
    with monkeypatch.context() as patched:
        patched.setattr("engramma.study.storage.np.savez_compressed", full)
        code, _, said = study(arrays)
    assert code == 2 and "No space left on device" in said
    after = snapshot(out)
    assert {k: after[k] for k in before} == before


def test_damaged_checkpoint_is_made_anew(arrays, out, study, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("engramma.study.geometry.geometry_section", interrupt)
        code, _, said = study(arrays)
    assert code == 130 and "Interrupted" in said and "resumes" in said
    (kept,) = out.glob(".checkpoint-*")
    damaged = kept / "encoding" / "arrays.npz"
    damaged.write_bytes(damaged.read_bytes()[:100])
    (kept / "decoding" / "section.json").write_text("{")
    assert study(arrays)[0] == 0
    assert "encoding" in json.loads((out / "study.json").read_text())["sections"]


# -- from Python ---------------------------------------------------------------------------


def test_the_same_errors_from_python(arrays, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        engramma.study(tmp_path / "absent")
    with pytest.raises(ConfigError, match="'colour'"):
        engramma.study(arrays, decode="colour", n_permutations=100)
    for wrong in ({"n_permutations": 0}, {"n_bootstrap": 0}, {"seed": -1}):
        with pytest.raises(ConfigError):
            engramma.study(arrays, **wrong)
    for wrong in (None, np.zeros((3, 4))):
        with pytest.raises((DataError, ConfigError)):
            engramma.study(wrong)


def test_one_model_may_be_named_without_a_list(arrays):
    result = engramma.study(arrays, features="category", n_permutations=100, n_bootstrap=100)
    assert list(result["encoding"].numbers["spaces"]) == ["category"]


def test_a_bad_unit_of_one_subject_names_the_subject(rng):
    stimuli = StimulusSet(pd.DataFrame(index=[f"c{i}" for i in range(4)]))
    index = np.tile(np.arange(4), 4)
    members = {}
    for name in ("anna", "bo"):
        values = rng.standard_normal((4, 12))[index] + rng.standard_normal((16, 12))
        values[3, 2] = np.nan if name == "bo" else 0.0
        members[name] = Recording.from_arrays(
            values.astype(np.float32),
            [f"c{i}" for i in index],
            subject=name,
            run=np.repeat(np.arange(4), 4),
            stimuli=stimuli,
        )
    result = engramma.study(Cohort(members), n_permutations=100, n_bootstrap=100)
    (text,) = [n.text for n in result.notices if n.name == "nan-units"]
    assert text.startswith("subject bo:") and "1 of 12" in text


def test_truncated_real_run(real_data, tmp_path, refused):
    shutil.copytree(real_data / "haxby-slice", tmp_path / "real")
    path = tmp_path / "real/sub-01/func/sub-01_task-objectviewing_run-07_bold.nii.gz"
    path.write_bytes(path.read_bytes()[:30_000])
    assert "run-07_bold" in refused(tmp_path / "real")
