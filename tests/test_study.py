"""`engramma study`, as its users meet it: numbers against known truth, files, and resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pandas as pd
import pytest
import soundfile
import zarr
from PIL import Image

import engramma
from engramma.data.recording import Recording
from engramma.data.stimuli import StimulusSet
from engramma.study.storage import as_json

QUICK = {"n_permutations": 100, "n_bootstrap": 100}
SCENES = {"n_subjects": 2, "n_stimuli": 80, "n_units": 60, "ceiling": 0.5}
CATEGORY_AREAS = ("face", "body", "animal", "place", "tool", "word")
SUPERORDINATE = "category:superordinate"


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def load(folder):
    """Read ``study.json`` as a strict parser would."""
    return json.loads((folder / "study.json").read_text(), parse_constant=refuse)


def numbers(document):
    """All that two runs of one study must share."""
    return {k: document[k] for k in ("title", "data", "sections", "warnings", "parameters")}


def snapshot(folder):
    """Every file below a folder, by its bytes."""
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def mean_of(by_subject):
    return float(np.mean(by_subject))


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """A study of virtual subjects who view scenes: the result and its folder."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "notes.txt").write_text("mine")
    (folder / "figures").mkdir()
    (folder / "figures" / "own.svg").write_text("<svg/>")
    result = engramma.study(
        "scenes",
        out=folder,
        reader_options=SCENES,
        features=["gabor", SUPERORDINATE],
        decode="superordinate",
        n_permutations=200,
        n_bootstrap=100,
    )
    return result, folder


@pytest.fixture(scope="session")
def truth():
    """The cohort that the study of scenes studied."""
    return engramma.read("scenes", seed=0, **SCENES)


@pytest.fixture(scope="session")
def silence():
    """The same kind of cohort, whose units are pure noise."""
    return engramma.study(
        "scenes",
        reader_options={**SCENES, "n_stimuli": 60, "n_subjects": 3, "signal": False},
        features=["gabor", "pixels"],
        decode="superordinate",
        **QUICK,
    )


def make_conditions(n_runs):
    """Six conditions in each run; twenty units tell them apart, ten do not."""
    rng = np.random.default_rng(3)
    index = np.concatenate([rng.permutation(6) for _ in range(n_runs)])
    pattern = np.concatenate([rng.standard_normal((6, 20)), np.zeros((6, 10))], axis=1)
    names = [f"c{i}" for i in range(6)]
    return Recording.from_arrays(
        (pattern[index] + rng.standard_normal((len(index), 30))).astype(np.float32),
        [names[i] for i in index],
        run=np.repeat(np.arange(1, n_runs + 1), 6),
        stimuli=StimulusSet(pd.DataFrame({"alive": ["yes", "no"] * 3}, index=names)),
    )


@pytest.fixture(scope="session")
def conditions():
    """Six conditions in each of six runs."""
    return make_conditions(6)


# -- truth ---------------------------------------------------------------------------------


def test_ceilings_are_those_the_world_was_made_with(scenes, truth):
    result, _ = scenes
    arrays = result["ceiling"].arrays
    for subject, recording in truth.items():
        share = recording.coord("true_ceiling").astype(float)
        single, mean = arrays[f"{subject}-single"], arrays[f"{subject}-correlation"]
        informative = share > 0
        # A share of variance is a squared correlation; three repeats divide the noise by three.
        assert abs(np.mean(single[informative] - np.sqrt(share[informative]))) < 0.05
        averaged = np.sqrt(3 * share / (1 + 2 * share))
        assert abs(np.mean(mean[informative] - averaged[informative])) < 0.05
        assert np.corrcoef(single, np.sqrt(share))[0, 1] > 0.8
        assert arrays[f"{subject}-reliable"][informative].mean() > 0.95
        assert arrays[f"{subject}-reliable"][~informative].mean() < 0.35


def test_two_ceiling_estimates_agree(scenes):
    for numbers_ in scenes[0]["ceiling"].numbers["subjects"].values():
        assert numbers_["n_averaged"] == 3
        variance, halves = numbers_["mean_of_repeats"]["median"], numbers_["split_half"]["median"]
        assert abs(variance - halves) < 0.05


def test_each_region_is_best_explained_by_what_it_was_made_to_follow(scenes):
    rois = scenes[0]["encoding"].numbers["rois"]
    for area in ("early", "middle"):
        gabor, category = mean_of(rois["gabor"][area]), mean_of(rois[SUPERORDINATE][area])
        assert gabor > 0.25 and gabor > category + 0.2
    for area in CATEGORY_AREAS:
        gabor, category = mean_of(rois["gabor"][area]), mean_of(rois[SUPERORDINATE][area])
        # Scenes have up to four objects, of which the label names one.
        assert category > 0.4 and category > gabor + 0.3
    assert abs(mean_of(rois["all"]["noise"])) < 0.25


def test_unique_variance_lies_where_the_feature_space_does(scenes, truth):
    result, _ = scenes
    spaces = list(result["encoding"].numbers["spaces"])
    for subject, recording in truth.items():
        roi = recording.coord("roi")
        unique = result["encoding"].arrays[f"{subject}-unique"]
        assert unique.shape == (2, recording.n_units)
        gabor, category = unique[spaces.index("gabor")], unique[spaces.index(SUPERORDINATE)]
        assert gabor[roi == "early"].mean() > category[roi == "early"].mean()
        selective = np.isin(roi, CATEGORY_AREAS)
        assert category[selective].mean() > gabor[selective].mean() + 0.2


def test_informative_units_are_predicted_and_noise_is_not(scenes, truth):
    result, _ = scenes
    assert result["encoding"].numbers["share_predicted"]["value"] > 0.6
    for subject, recording in truth.items():
        p = result["encoding"].arrays[f"{subject}-p"]
        noise = recording.coord("roi") == "noise"
        assert np.median(p[~noise]) < 0.01 < np.median(p[noise])


def test_category_is_decoded_and_stimuli_identified(scenes):
    result, _ = scenes
    main = result["decoding"].numbers["labels"]["superordinate"]
    assert main["accuracy"]["value"] > 0.5 > main["chance"]
    assert main["p_value"] < 0.01
    for subject in main["subjects"].values():
        assert abs(subject["null_mean"] - subject["chance"]) < 0.03
        assert subject["n_tested"] == 240
    identification = result["identification"].numbers
    predicted = identification["from"]["predicted responses"]
    assert identification["gallery"] == 80
    assert predicted["two_way"]["value"] > 0.85
    assert predicted["top_1"]["value"] > 5 / 80
    assert identification["from"]["gabor"]["two_way"]["value"] > 0.6


def test_geometry_follows_category(scenes):
    geometry = scenes[0]["geometry"].numbers
    assert geometry["share_positive"] > 0.95
    estimates = geometry["models"]["estimates"]
    assert estimates["superordinate"]["low"] > 0
    lower, upper = geometry["models"]["ceiling"]
    assert lower < upper


def test_nothing_is_found_in_noise(silence):
    assert silence["ceiling"].numbers["share_reliable"]["value"] <= 0.08
    assert silence["encoding"].numbers["share_predicted"]["value"] <= 0.08
    assert abs(silence["encoding"].numbers["all"]["mean_correlation"]["value"]) < 0.1
    main = silence["decoding"].numbers["labels"]["superordinate"]
    assert main["p_value"] > 0.05
    assert abs(main["accuracy"]["value"] - main["chance"]) < 0.06
    assert "not decodable" in silence["decoding"].summary
    for source in silence["identification"].numbers["from"].values():
        assert abs(source["two_way"]["value"] - 0.5) < 0.08
        assert source["top_1"]["value"] < 0.07
    assert abs(silence["geometry"].numbers["share_positive"] - 0.5) < 0.1
    for estimate in silence["geometry"].numbers["models"]["estimates"].values():
        assert estimate["p_zero_fdr"] > 0.05


def test_conditions_are_told_apart_by_the_units_made_for_it(conditions):
    result = engramma.study(conditions, **QUICK)
    reliable = result["ceiling"].arrays["1-reliable"]
    assert reliable[:20].mean() >= 0.7 and reliable[20:].mean() < 0.2
    main = result["decoding"].numbers["main"]
    entry = result["decoding"].numbers["labels"][main]
    assert entry["chance"] == pytest.approx(1 / 6)
    assert entry["accuracy"]["value"] > 0.7 and entry["p_value"] <= 0.01
    one = entry["subjects"]["1"]
    assert one["accuracy"]["low"] <= one["accuracy"]["value"] <= one["accuracy"]["high"]
    confusion = result["decoding"].arrays[f"1-{main}-confusion"]
    assert confusion.sum(axis=1).tolist() == [6] * 6
    assert np.trace(confusion) / 36 == pytest.approx(one["accuracy"]["value"])


@pytest.mark.parametrize("n_runs", [2, 3, 5, 8, 9, 12])
def test_geometry_whatever_the_number_of_runs(n_runs):
    result = engramma.study(make_conditions(n_runs), **QUICK)
    assert [s.name for s in result.sections] == ["ceiling", "encoding", "decoding", "geometry"]
    geometry = result["geometry"].numbers
    assert geometry["folds"] == "run" and geometry["n_pairs"] == 15
    assert geometry["share_positive"] > 0.9


def test_columns_of_the_table_name_the_conditions_but_media_do_not():
    recording = make_conditions(4)
    names = recording.stimuli.ids
    for columns, main in (
        ({"alive": list("ababab")}, "stimulus"),
        ({"name": [n.upper() for n in names], "alive": list("ababab")}, "name"),
        ({"caption": names, "caption_2": [f"a {n}" for n in names]}, "stimulus"),
    ):
        table = StimulusSet(pd.DataFrame(columns, index=names))
        result = engramma.study(Recording(recording.array, table), features=["category"], **QUICK)
        assert result["decoding"].numbers["main"] == main


# -- evoked responses ----------------------------------------------------------------------


@pytest.fixture(scope="session")
def evoked():
    return engramma.study(
        "evoked",
        reader_options={"n_stimuli": 60, "n_repeats": 4, "sfreq": 40.0, "snr": 2.0, "blinks": 0.0},
        features=[SUPERORDINATE],
        decode="superordinate",
        **QUICK,
    )


def test_responses_over_time_start_when_the_sources_do(evoked):
    numbers_ = evoked["evoked"].numbers["subjects"]["sub-01"]
    significant = [c for c in numbers_["clusters"] if c["p"] < 0.05]
    assert significant and min(c["start"] for c in significant) >= 0.05
    assert 0.05 < numbers_["peak_time"] < 0.6
    decoding = evoked["decoding"].numbers
    assert decoding["decodable"] and decoding["chance"] == pytest.approx(1 / 8)
    # What follows category starts 120 ms after onset; the first source of all after 50 ms.
    assert decoding["peak_time"] >= 0.12
    found = [s for s in decoding["spans"] if s["p_value"] < 0.05]
    assert min(s["start"] for s in found) >= 0.05
    assert decoding["peak"] > 0.25
    scores = np.asarray(evoked["decoding"].arrays["sub-01-scores"])
    before = evoked["decoding"].arrays["time"] < 0
    assert abs(scores[before].mean() - decoding["chance"]) < 0.05
    assert evoked["encoding"].numbers["peak_time"] >= 0.12
    assert any(s["p_value"] < 0.05 for s in evoked["encoding"].numbers["spans"])
    generalisation = evoked["generalisation"].numbers
    assert generalisation["diagonal_mean"] > generalisation["off_diagonal_mean"]


SILENT = {"n_stimuli": 64, "n_repeats": 3, "sfreq": 25.0, "signal": False}


def test_no_time_is_decodable_without_signal():
    """Of three recordings at most one may be a false positive at the level of 0.05."""
    found = []
    for seed in range(3):
        result = engramma.study(
            "evoked",
            reader_options={**SILENT, "seed": seed},
            features=[SUPERORDINATE],
            decode="superordinate",
            **QUICK,
        )
        decodable = result["decoding"].numbers["decodable"]
        assert ("not decodable" in result["decoding"].summary) is not decodable
        spans = result["encoding"].numbers["spans"]
        found.append(decodable or any(s["p_value"] <= 0.05 for s in spans))
    assert sum(found) <= 1
    # The response that all stimuli share is still there.
    clusters = result["evoked"].numbers["subjects"]["sub-01"]["clusters"]
    assert min(c["p"] for c in clusters) < 0.05


def test_noise_is_called_decodable_no_more_often_than_the_test_allows():
    from engramma.study.context import Options
    from engramma.study.study import context_of
    from engramma.study.timecourse import decoding_section

    found = []
    for seed in range(10):
        recording = engramma.read("evoked", seed=seed, **SILENT)
        options = Options(seed=seed, decode="superordinate", n_permutations=100)
        section = decoding_section(context_of(recording, options))
        found.append(section.numbers["decodable"])
    assert sum(found) <= 2  # of ten tests at 5 %, three or more are found once in 87 times


# -- files ---------------------------------------------------------------------------------


def test_study_json_is_strict_and_holds_every_number(scenes):
    result, folder = scenes
    document = load(folder)
    assert document == json.loads(json.dumps(as_json(result), allow_nan=False))
    assert set(document["sections"]) == {s.name for s in result.sections}
    assert document["parameters"]["seed"] == 0
    assert document["versions"]["engramma"]
    assert {w["name"] for w in document["warnings"]} == {n.name for n in result.notices}


def test_arrays_open_with_zarr_and_have_one_value_a_unit(scenes, truth):
    result, folder = scenes
    root = zarr.open_group(folder / "arrays.zarr", mode="r")
    for subject, recording in truth.items():
        for section, name in (
            ("ceiling", "correlation"),
            ("encoding", "all"),
            ("encoding", "gabor"),
            ("encoding", "p"),
        ):
            stored = root[section][f"{subject}-{name}"][:]
            assert stored.shape == (recording.n_units,)
            np.testing.assert_array_equal(stored, result[section].arrays[f"{subject}-{name}"])
    predicted = root["decoding"]["sub-01-superordinate-predicted"]
    levels = np.asarray(predicted.attrs["levels"])
    expected = result["decoding"].arrays["sub-01-superordinate-predicted"]
    np.testing.assert_array_equal(levels[predicted[:]], expected)


def test_only_the_files_of_the_study_are_written(scenes):
    _, folder = scenes
    assert {p.name for p in folder.iterdir()} == {
        "report.html",
        "study.json",
        "arrays.zarr",
        "notes.txt",
        "figures",
    }
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "figures" / "own.svg").read_text() == "<svg/>"
    page = (folder / "report.html").read_text()
    assert "Noise ceiling" in page and "<script src=" not in page


def test_report_alone(conditions, tmp_path):
    result = engramma.study(conditions, **QUICK)
    assert not list(tmp_path.iterdir())
    assert result.report(tmp_path / "deep" / "page.html").stat().st_size > 10_000
    assert [p.name for p in tmp_path.rglob("*")] == ["deep", "page.html"]


def test_one_seed_gives_one_answer_and_another_only_other_intervals(conditions, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        engramma.study(conditions, out=tmp_path / name, seed=seed, **QUICK)
    a, b, c = (load(tmp_path / name) for name in "abc")
    assert numbers(a) == numbers(b)
    for key in snapshot(tmp_path / "a" / "arrays.zarr"):
        first, second = (tmp_path / n / "arrays.zarr" / key for n in "ab")
        assert first.read_bytes() == second.read_bytes()

    def section(document, name):
        return document["sections"][name]["numbers"]

    for document in (a, c):
        document["main"] = section(document, "decoding")["labels"][
            section(document, "decoding")["main"]
        ]
    assert a["main"]["accuracy"]["value"] == c["main"]["accuracy"]["value"]
    assert a["main"]["subjects"]["1"]["null_mean"] != c["main"]["subjects"]["1"]["null_mean"]
    assert section(a, "ceiling")["median"] == section(c, "ceiling")["median"]
    assert section(a, "geometry")["mean_distance"] == section(c, "geometry")["mean_distance"]
    models = [section(d, "geometry")["models"]["estimates"]["alive"] for d in (a, c)]
    assert models[0]["value"] == models[1]["value"]
    assert models[0]["low"] != models[1]["low"]


def test_the_fingerprint_follows_what_the_stimuli_are(conditions, tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    names = conditions.stimuli.ids

    def fingerprint(colour, image="a.png", order=slice(None)):
        Image.new("RGB", (8, 8), colour).save(tmp_path / image)
        table = pd.DataFrame({"image": [image] * 6, "n": range(6)}, index=names).iloc[order]
        return Recording(conditions.array, StimulusSet(table, root=tmp_path)).fingerprint()

    red = fingerprint("red")
    assert (
        red
        == fingerprint("red", image="renamed.png")
        == fingerprint("red", order=[*range(6)][::-1])
    )
    assert red != fingerprint("blue")
    assert red != conditions.fingerprint()


# -- interrupted and killed ----------------------------------------------------------------


def interrupt(*_):
    raise KeyboardInterrupt


def never(*_):
    raise AssertionError("a finished section was computed again")


def test_an_interrupted_study_resumes_to_the_same_numbers(conditions, tmp_path, monkeypatch):
    engramma.study(conditions, out=tmp_path / "whole", **QUICK)
    folder = tmp_path / "parts"
    with monkeypatch.context() as patched:
        patched.setattr("engramma.study.geometry.geometry_section", interrupt)
        with pytest.raises(KeyboardInterrupt):
            engramma.study(conditions, out=folder, **QUICK)
    assert not (folder / "report.html").exists()
    with monkeypatch.context() as patched:
        for name in ("ceiling", "encoding", "decoding"):
            patched.setattr(f"engramma.study.{name}.{name}_section", never)
        engramma.study(conditions, out=folder, **QUICK)
    assert numbers(load(folder)) == numbers(load(tmp_path / "whole"))
    ours, theirs = (snapshot(f / "arrays.zarr") for f in (folder, tmp_path / "whole"))
    assert ours == theirs
    assert {p.name for p in folder.iterdir()} == {"report.html", "study.json", "arrays.zarr"}


def test_other_options_or_data_do_not_resume(conditions, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("engramma.study.geometry.geometry_section", interrupt)
        with pytest.raises(KeyboardInterrupt):
            engramma.study(conditions, out=tmp_path, **QUICK)
    changed = Recording(conditions.array + 1e-3, conditions.stimuli)
    table = conditions.stimuli.table.assign(alive=["no", "yes"] * 3)
    relabelled = Recording(conditions.array, StimulusSet(table))
    for data, options in (
        (conditions, {"seed": 5}),
        (changed, {}),
        (relabelled, {}),
        (conditions, {"fresh": True}),
    ):
        made = []

        def ceiling(context, made=made):
            made.append(context)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr("engramma.study.ceiling.ceiling_section", ceiling)
            with pytest.raises(KeyboardInterrupt):
                engramma.study(data, out=tmp_path, **QUICK, **options)
        assert len(made) == 1


def test_a_study_killed_while_it_is_saved_leaves_no_litter(conditions, tmp_path):
    data, out = tmp_path / "own.npz", tmp_path / "out"
    np.savez(data, responses=conditions.values, stimulus=conditions.coord("stimulus").astype(str))
    code = f"""
        import os, signal
        import engramma
        import engramma.report.html as html
        html.write_report = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        engramma.study({str(data)!r}, out={str(out)!r}, n_permutations=100, n_bootstrap=100)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -signal.SIGKILL and not (out / "report.html").exists()
    engramma.study(data, out=out, **QUICK)
    assert {p.name for p in out.iterdir()} == {"report.html", "study.json", "arrays.zarr"}


def test_an_earlier_report_stays_until_the_new_one_is_complete(conditions, tmp_path, monkeypatch):
    engramma.study(conditions, out=tmp_path, **QUICK)
    before = snapshot(tmp_path)
    for stopped in ("study.geometry.geometry_section", "report.html.write_report"):
        with monkeypatch.context() as patched:
            patched.setattr(f"engramma.{stopped}", interrupt)
            with pytest.raises(KeyboardInterrupt):
                engramma.study(conditions, out=tmp_path, seed=9, **QUICK)
        after = snapshot(tmp_path)
        assert {k: after.get(k) for k in before} == before
        assert all(k.startswith(".checkpoint-") for k in set(after) - set(before))
    engramma.study(conditions, out=tmp_path, seed=9, **QUICK)
    assert load(tmp_path)["parameters"]["seed"] == 9
    assert {p.name for p in tmp_path.iterdir()} == {"report.html", "study.json", "arrays.zarr"}


def test_a_killed_study_leaves_the_earlier_report_and_resumes(conditions, tmp_path):
    data, out, whole = tmp_path / "own.npz", tmp_path / "out", tmp_path / "whole"
    np.savez(
        data,
        responses=conditions.values,
        stimulus=conditions.coord("stimulus").astype(str),
        run=conditions.coord("run").astype(str),
    )
    engramma.study(data, out=out, seed=4, **QUICK)
    before = snapshot(out)
    # The killed process is stopped in its last section, however fast the machine is.
    code = f"""
        import sys, time
        import engramma.study.geometry as geometry
        geometry.geometry_section = lambda context: time.sleep(120)
        import engramma
        engramma.study({str(data)!r}, out={str(out)!r}, n_permutations=100, n_bootstrap=100)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    until = time.monotonic() + 60
    while not list(out.glob(".checkpoint-*/decoding/section.json")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    after = snapshot(out)
    assert {k: after.get(k) for k in before} == before
    with pytest.MonkeyPatch.context() as patched:
        for name in ("ceiling", "encoding", "decoding"):
            patched.setattr(f"engramma.study.{name}.{name}_section", never)
        engramma.study(data, out=out, **QUICK)
    engramma.study(data, out=whole, **QUICK)
    assert numbers(load(out)) == numbers(load(whole))
    assert {p.name for p in out.iterdir()} == {"report.html", "study.json", "arrays.zarr"}


# -- real recordings -----------------------------------------------------------------------


@pytest.fixture(scope="session")
def haxby(real_data):
    return engramma.study(real_data / "haxby-slice", n_permutations=300, n_bootstrap=200)


def test_haxby_conditions_are_decoded(haxby):
    decoding = haxby["decoding"].numbers
    main = decoding["labels"][decoding["main"]]
    one = next(iter(main["subjects"].values()))
    assert main["accuracy"]["value"] >= 0.78
    assert main["chance"] == pytest.approx(0.125) and one["n_tested"] == 96
    assert main["p_value"] < 0.01
    assert one["null_mean"] == pytest.approx(0.125, abs=0.02)
    assert set(one["per_class"]) == {
        "bottle", "cat", "chair", "face", "house", "scissors", "scrambledpix", "shoe"
    }  # fmt: skip
    assert one["per_class"]["house"]["recall"] > 0.8


def test_haxby_falls_to_chance_when_labels_are_shuffled(real_data):
    recording = engramma.read(real_data / "haxby-slice")
    rng = np.random.default_rng(1)
    labels, runs = recording.coord("stimulus").copy(), recording.coord("run")
    for run in np.unique(runs):
        members = np.flatnonzero(runs == run)
        labels[members] = labels[rng.permutation(members)]
    array = recording.array.assign_coords(stimulus=("presentation", labels))
    shuffled = engramma.study(Recording(array, recording.stimuli), **QUICK)
    decoding = shuffled["decoding"].numbers
    main = decoding["labels"][decoding["main"]]
    assert main["accuracy"]["value"] < 0.25 and main["p_value"] > 0.05
    assert shuffled["encoding"].numbers["share_predicted"]["value"] < 0.05
    assert "not decodable" in shuffled["decoding"].summary


def test_haxby_ceiling_and_methods(haxby):
    ceiling = next(iter(haxby["ceiling"].numbers["subjects"].values()))
    assert ceiling["n_averaged"] == 12 and 0.15 < ceiling["share_reliable"] < 0.5
    assert haxby.data["kind"] == "functional MRI" and haxby.data["runs"] == "12"
    assert haxby.data["repetition time"] == "2.5 s"
    assert haxby["encoding"].numbers["share_predicted"]["value"] > 0.1
    kinds = {f.kind for s in haxby.sections for f in s.figures}
    assert "brain" in kinds and "confusion" in kinds


def test_objects92_prefers_deep_features_to_pixels(real_data):
    result = engramma.study(
        real_data / "objects92", features=["pixels", "gabor", "efficientnet-lite0"], **QUICK
    )
    models = result["models"].numbers
    estimates = models["estimates"]
    assert estimates["monkey_it"]["value"] > 0.2 and estimates["monkey_it"]["low"] > 0
    late = [v["value"] for k, v in estimates.items() if k.startswith("efficientnet-lite0/stage")]
    assert max(late[2:]) > estimates["pixels/rgb"]["value"] + 0.05
    lower, upper = models["ceiling"]
    assert 0 < lower < upper < 1
    assert set(models["bootstrapped_over"]) == {"stimuli", "subjects"}
    assert {len(v) for v in models["similarity_by_subject"].values()} == {4}
    assert {"model_a", "model_b", "p_fdr"} <= set(models["pairwise"][0])


def test_eeg_attention_is_said_not_to_be_decodable(real_data):
    result = engramma.study(real_data / "eeg-attention", **QUICK)
    assert result["decoding"].numbers["decodable"] is False
    assert "position is not decodable" in result["decoding"].summary
    subject = next(iter(result["evoked"].numbers["subjects"].values()))
    assert min(c["p"] for c in subject["clusters"]) < 0.05
    assert 0.1 < subject["peak_time"] < 0.7
    assert 0.4 < result["generalisation"].numbers["diagonal_mean"] < 0.65


# -- recordings of one's own ---------------------------------------------------------------

N_OWN = 48


def own(folder, table, drive, seed=0):
    """Write an npz recording whose units follow ``drive`` (stimulus x dimension)."""
    rng = np.random.default_rng(seed)
    index = np.concatenate([rng.permutation(N_OWN) for _ in range(3)])
    drive = (drive - drive.mean(axis=0)) / drive.std(axis=0)
    signal_ = drive @ rng.standard_normal((drive.shape[1], 15))
    signal_ /= signal_.std(axis=0)
    np.savez(
        folder / "mine.npz",
        responses=(signal_[index] + rng.standard_normal((len(index), 15))).astype(np.float32),
        stimulus=np.char.add("s", index.astype(str)),
        run=np.repeat(np.arange(3), N_OWN),
    )
    table = pd.DataFrame({"stimulus": [f"s{i}" for i in range(N_OWN)], **table})
    table.to_csv(folder / "stimuli.csv", index=False)
    return folder / "mine.npz"


def test_own_images_and_captions(tmp_path):
    rng = np.random.default_rng(0)
    colour = rng.uniform(30, 220, (N_OWN, 3))
    category = np.array(["animal", "vehicle"])[np.arange(N_OWN) % 2]
    things = {"animal": ["dog", "cat", "horse", "bird"], "vehicle": ["car", "train", "bus", "ship"]}
    for i in range(N_OWN):
        picture = np.clip(colour[i] + rng.normal(0, 10, (24, 24, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / f"s{i}.png")
    data = own(
        tmp_path,
        {
            "image": [f"s{i}.png" for i in range(N_OWN)],
            "caption": [f"a {things[c][i // 2 % 4]} number {i}" for i, c in enumerate(category)],
            "category": category,
        },
        colour,
    )
    available = {m.name: m.usable for m in _models(data)}
    assert available["pixels"] and available["efficientnet-lite0"] and not available["log-mel"]
    features = ["pixels", *(["minilm"] if available["minilm"] else [])]
    result = engramma.study(data, features=features, **QUICK)
    spaces = {k: v["mean_correlation"] for k, v in result["encoding"].numbers["spaces"].items()}
    assert {k.split("/")[0] for k in spaces} == set(features)
    assert spaces["pixels/rgb"]["value"] > 0.6  # the units follow the colour of the images
    assert result["encoding"].numbers["share_predicted"]["value"] > 0.8
    assert result["identification"].numbers["from"]["pixels/rgb"]["two_way"]["value"] > 0.85
    if "minilm" in features:
        assert spaces["minilm/embedding"]["value"] < 0.3
    assert result["decoding"].numbers["main"] == "category"


def _models(data):
    from engramma.features.extraction import available_models

    return available_models(engramma.read(data).stimuli)


def test_own_sounds_get_log_mel_features(tmp_path):
    rng = np.random.default_rng(0)
    pitch, loudness = rng.uniform(200, 3000, N_OWN), rng.uniform(0.05, 0.9, N_OWN)
    moment = np.arange(4000) / 8000
    for i in range(N_OWN):
        samples = loudness[i] * np.sin(2 * np.pi * pitch[i] * moment)
        soundfile.write(tmp_path / f"s{i}.wav", samples.astype(np.float32), 8000)
    table = {"audio": [f"s{i}.wav" for i in range(N_OWN)]}
    data = own(tmp_path, table, np.stack([np.log(pitch), np.log(loudness)], axis=1))
    result = engramma.study(data, **QUICK)
    assert [v["model"] for v in result["encoding"].numbers["spaces"].values()] == ["log-mel"]
    assert result["encoding"].numbers["share_predicted"]["value"] > 0.6
    assert result["identification"].numbers["from"]["log-mel"]["two_way"]["value"] > 0.65
    notices = {n.name: n.text for n in result.notices}
    assert "nothing to decode" in notices["no decoding analysis"]


def test_own_categories_alone(tmp_path):
    category = np.arange(N_OWN) % 4
    names = np.array(["cat", "dog", "car", "tree"])[category]
    data = own(tmp_path, {"category": names}, np.eye(4)[category] + 0.0)
    result = engramma.study(data, **QUICK)
    assert list(result["encoding"].numbers["spaces"]) == ["category"]
    assert result["encoding"].numbers["share_predicted"]["value"] > 0.8
    main = result["decoding"].numbers["labels"]["category"]
    assert main["accuracy"]["value"] > 0.8 and main["chance"] == pytest.approx(0.25)
    assert "folds" in main["subjects"]["1"]
    assert result["geometry"].numbers["models"]["estimates"]["category"]["low"] > 0


def test_data_may_be_a_path_a_recording_or_a_cohort(conditions, tmp_path):
    from engramma.data.recording import Cohort
    from engramma.data.store import save_recording

    save_recording(conditions, tmp_path / "own.zarr")
    read = engramma.study(tmp_path / "own.zarr", **QUICK)
    given = engramma.study(conditions, **QUICK)
    assert as_json(read)["sections"] == as_json(given)["sections"]
    twins = {}
    for name in ("a", "b"):
        subject = ("presentation", np.full(conditions.n_presentations, name))
        twins[name] = Recording(conditions.array.assign_coords(subject=subject), conditions.stimuli)
    cohort = engramma.study(Cohort(twins), **QUICK)
    assert cohort.data["subjects"] == 2
    assert set(cohort["decoding"].numbers["labels"]["alive"]["subjects"]) == {"a", "b"}
