"""The command line, in this process and as a user runs it; a fourth system by one file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from engramma import cli

#: One file of somebody's own package: a system, with a claim that is quick to check.
PLUGIN = '''
import sys
import time

import numpy as np

from engramma.contracts import Claim, Control, Estimate
from engramma.registry import system


def wait(seed):
    """Wait to be interrupted, as a long computation would."""
    print("started", file=sys.stderr, flush=True)
    time.sleep(60)


def claim(name, prepare):
    return Claim(
        name=name,
        sentence="cosines of patterns with a common part are larger than those of noise",
        source="section 1",
        metric="cosine",
        prepare=prepare,
        system=lambda rng: TinyCosine().compare(1 + rng.normal(size=(9, 4)), np.ones((9, 4))).value,
        baseline=lambda rng: rng.normal(scale=0.01),
        baseline_name="noise",
        margin=0.2,
        control=Control("patterns without a common part", lambda rng: rng.normal(scale=0.01)),
        seeds=3,
    )


@system(
    "tiny-cosine",
    family="tiny",
    title="Cosine of all patterns",
    contract="Comparison",
    paper="A Author (2026). Tiny.",
    claims=[claim("common", np.random.default_rng), claim("slow", wait)],
    tasks=("layer-identification",),
)
class TinyCosine:
    """Cosine of two stimulus x unit arrays."""

    def compare(self, a, b):
        n = min(a.shape[1], b.shape[1])
        x, y = a[:, :n].ravel(), b[:, :n].ravel()
        return Estimate(float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)))
'''


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    """Install a package of one file, as pip would: a module and the metadata beside it."""
    place = tmp_path_factory.mktemp("site")
    (place / "tiny_cosine.py").write_text(PLUGIN)
    info = place / "tiny_cosine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-cosine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[engramma.systems]\ntiny = tiny_cosine\n")
    return place


@pytest.fixture
def engramma(monkeypatch, capsys):
    """Run a command in this process: ``code, out, err = engramma("systems")``."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["engramma", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "300")
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return left.value.code or 0, out, err

    return run


@pytest.fixture
def recording(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    index = np.tile(np.arange(5), 4)
    values = rng.standard_normal((5, 8))[index] + 0.7 * rng.standard_normal((20, 8))
    path = tmp_path / "small.npz"
    np.savez(
        path,
        responses=values.astype(np.float32),
        stimulus=np.char.add("c", index.astype(str)),
        run=np.repeat(np.arange(4), 5),
    )
    return path


def start(plugin, *arguments, **options):
    """Start ``python -m engramma.cli`` where the plug-in is installed."""
    path = os.pathsep.join([str(plugin), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return subprocess.Popen(
        [sys.executable, "-m", "engramma.cli", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "300"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
        # A test run in the background is started with interrupts ignored, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


# -- help and lists ------------------------------------------------------------------------


def test_help_imports_no_heavy_package():
    code = textwrap.dedent(
        """
        import sys
        from typer.testing import CliRunner
        from engramma import cli

        result = CliRunner().invoke(cli.app, ["--help"])
        assert result.exit_code == 0, result.output
        heavy = {"torch", "scipy", "pandas", "xarray", "sklearn", "mne", "nilearn", "matplotlib"}
        print(",".join(sorted(heavy & set(sys.modules))))
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    "command",
    ["", "study", "run", "verify", "bench", "systems", "show", "data", "data inspect",
     "data convert"],
)  # fmt: skip
def test_every_command_explains_itself(command):
    result = CliRunner().invoke(cli.app, [*command.split(), "--help"])
    assert result.exit_code == 0 and "Usage" in result.output


def test_systems_are_listed_for_people_and_for_programs(engramma):
    code, out, _ = engramma("systems")
    assert code == 0 and "trsa" in out and "ridge-encoder" in out and "(baseline)" in out
    code, out, _ = engramma("systems", "--json")
    listed = {entry["slug"]: entry for entry in json.loads(out)}
    assert listed["trsa"]["contract"] == ["Comparison"] and not listed["trsa"]["baseline"]
    assert listed["centroid-decoder"]["baseline"]
    _, out, _ = engramma("systems", "--json", "--family", "electro")
    assert {entry["family"] for entry in json.loads(out)} == {"electro"}


@pytest.mark.parametrize(
    ("kind", "name"), [("--tasks", "scene-encoding"), ("--worlds", "scenes"), ("--readers", "npz")]
)
def test_what_else_is_registered_is_listed(engramma, kind, name):
    code, out, _ = engramma("systems", kind, "--json")
    listing = json.loads(out)
    assert code == 0 and listing[name] and not listing[name].startswith("Reader(")


def test_a_system_is_shown_with_method_claims_and_reference(engramma):
    code, out, _ = engramma("show", "trsa")
    assert code == 0 and "The Topology and Geometry of Neural Representations" in out
    assert "control:" in out and "trsa/" in out
    _, out, _ = engramma("show", "trsa", "--json")
    shown = json.loads(out)
    assert shown["slug"] == "trsa" and shown["bibtex"].startswith("@")
    assert all(c["control"] and c["baseline"] for c in shown["claims"])
    _, out, _ = engramma("show", "ridge-encoder")
    assert "scene-encoding" in out and "None" not in out


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["show", "trsaa"], "trsa"),
        (["verify", "tsra"], "trsa"),
        (["verify", "trsa/no-such-claim"], "its claims are"),
        (["verify", "--family", "geomtry"], "geometry"),
        (["systems", "--family", "geomtry"], "geometry"),
        (["bench", "scene-encodin"], "scene-encoding"),
        (["bench", "layer-identification", "--only", "rsa-rnk"], "rsa-rank"),
        (["run", "ridge-encodr", "--data", "scenes"], "ridge-encoder"),
        (["run", "rsa-rank", "--data", "scnes"], "scenes"),
        (["run", "rsa-rank", "--data", "evoked", "-o", "n_stimul=3"], "n_stimuli"),
        (["verify", "trsa", "--family", "geometry"], "one of the two"),
        (["run", "rsa-rank", "--data", "scenes", "-o", "n_stimuli"], "NAME=VALUE"),
        (["run", "rsa-rank"], "--data"),
        (["run", "--again", "nowhere"], "engramma run"),
        (["run", "rsa-rank", "--again", "nowhere"], "alone"),
        (["data", "inspect", "no-such-file.npz"], "check the"),
        (["data", "convert", "no-such-file.npz", "out.zarr"], "check the"),
    ],
)
def test_mistakes_get_one_sentence_with_a_way_out(engramma, arguments, suggestion, tmp_path):
    code, out, err = engramma(*arguments)
    assert code == 2 and out == ""
    assert err.startswith("Error: ") and suggestion in err
    assert len(err.strip().splitlines()) == 1


# -- runs ----------------------------------------------------------------------------------


def test_a_run_is_printed_saved_and_repeated(engramma, recording, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = engramma("run", "centroid-decoder", "--data", "small.npz")
    assert code == 0 and "balanced accuracy" in out and "was held out" in out
    folder = tmp_path / "runs" / "centroid-decoder-small.npz"
    assert sorted(p.name for p in folder.iterdir()) == ["arrays.npz", "run.json"]
    code, out, _ = engramma("run", "--again", folder)
    assert code == 0 and "every metric is the same" in out
    code, out, _ = engramma("run", "--again", folder, "--json")
    assert json.loads(out)["reproduced"] is True


def test_a_run_that_comes_out_otherwise_exits_with_1(engramma, recording, tmp_path):
    folder = tmp_path / "run"
    code, out, _ = engramma(
        "run", "linear-decoder", "--data", recording, "--out", folder, "--json", "--seed", 2
    )
    assert code == 0 and json.loads(out)["seed"] == 2
    saved = json.loads((folder / "run.json").read_text())
    saved["metrics"]["accuracy"]["value"] = 0.125
    (folder / "run.json").write_text(json.dumps(saved))
    code, out, err = engramma("run", "--again", folder)
    assert code == 1 and "Not reproduced" in out and "accuracy was 0.125" in err


def test_a_contract_without_generic_evaluation_names_the_task(engramma, recording):
    from engramma import registry

    registry.systems.all()
    before = dict(registry.systems._items)
    try:
        registry.system("a-memory", family="test", title="M", contract="Memory")(object)
        code, _, err = engramma("run", "a-memory", "--data", recording)
    finally:
        registry.systems._items = before
    assert code == 2 and "Memory" in err and "engramma bench" in err


# -- leaderboards --------------------------------------------------------------------------


def test_tasks_are_listed_with_their_contestants(engramma):
    code, out, _ = engramma("bench")
    assert code == 0
    line = next(row for row in out.splitlines() if row.startswith("scene-encoding"))
    assert "Encoder" in line and "banded-ridge-encoder" in line


def test_a_leaderboard_ranks_those_asked_for(engramma):
    chosen = ("--only", "rsa-rank", "--only", "cka", "--seeds", 1)
    code, out, _ = engramma("bench", "layer-identification", *chosen, "--json")
    board = json.loads(out)
    assert code == 0 and board["chance"] == 0.25 and board["ceiling"]["value"] == 1
    scores = [e["score"]["value"] for e in board["entries"]]
    assert {e["system"] for e in board["entries"]} == {"rsa-rank", "cka"}
    assert scores == sorted(scores, reverse=True) and min(scores) > 0.25


# -- data ----------------------------------------------------------------------------------


def test_a_recording_is_inspected_and_converted_unchanged(engramma, recording, tmp_path):
    import engramma as library

    code, out, _ = engramma("data", "inspect", recording, "--json")
    facts = json.loads(out)
    assert code == 0 and facts["usable"] and facts["format"] == "npz"
    assert facts["shape"] == {"presentation": 20, "unit": 8} and facts["stimuli"] == 5
    code, out, _ = engramma("data", "inspect", recording)
    assert code == 0 and "npz" in out
    code, out, _ = engramma("data", "convert", recording, tmp_path / "small.zarr")
    assert code == 0 and "written to" in out
    before, after = library.read(recording), library.read(tmp_path / "small.zarr")
    assert np.array_equal(before.values, after.values)
    for name in ("stimulus", "run", "unit"):
        assert np.array_equal(before.coord(name), after.coord(name))
    code, out, _ = engramma("data", "inspect", tmp_path / "small.zarr", "--json")
    assert json.loads(out)["shape"] == facts["shape"]
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("mine")
    code, _, err = engramma("data", "convert", recording, thesis)
    assert code == 2 and "something else" in err and (thesis / "chapter.txt").exists()


# -- a system of somebody's own ------------------------------------------------------------


def test_one_file_adds_a_system_to_every_command(plugin, recording, tmp_path):
    """Listed, shown, run, ranked and verified, none of which knew of it."""
    code = textwrap.dedent(
        f"""
        import json, sys
        from engramma import cli

        def engramma(*arguments):
            print("$", *arguments)
            sys.argv = ["engramma", *arguments]
            try:
                cli.main()
            except SystemExit as left:
                print("exit", left.code or 0)

        engramma("show", "tiny-cosine")
        engramma("run", "tiny-cosine", "--data", "scenes", "-o", "n_stimuli=12", "-o",
                 "n_units=20", "-o", "size=16", "--out", "{tmp_path / "run"}")
        engramma("bench", "layer-identification", "--only", "tiny-cosine", "--seeds", "1")
        engramma("verify", "tiny-cosine/common", "--record", "{tmp_path / "claims.json"}")
        engramma("verify", "tiny-cosine/common", "--check", "{tmp_path / "claims.json"}")
        record = json.load(open("{tmp_path / "claims.json"}"))
        record["tiny-cosine/common"]["answer"] = "fails"
        json.dump(record, open("{tmp_path / "other.json"}", "w"))
        engramma("verify", "tiny-cosine/common", "--check", "{tmp_path / "other.json"}")
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(plugin), "COLUMNS": "300"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    shown, run, board, verified, unchanged, changed = done.stdout.split("$ ")[1:]
    assert "A Author (2026)" in shown and "tiny-cosine/common" in shown
    assert "likeness" in run and (tmp_path / "run" / "run.json").exists()
    assert "tiny-cosine" in board and "chance 0.25" in board
    assert "holds" in verified and "1 holds" in verified
    assert [s.strip()[-1] for s in (shown, run, board, verified, unchanged)] == ["0"] * 5
    assert changed.strip().endswith("exit 1")
    assert "changed: tiny-cosine/common was fails and now holds" in done.stderr
    record = json.loads((tmp_path / "claims.json").read_text())["tiny-cosine/common"]
    assert record["answer"] == "holds" and len(record["per_seed"]["system"]) == 3
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")
def test_an_interrupt_is_said_in_words_and_keeps_the_verdicts_so_far(plugin, tmp_path):
    record = tmp_path / "claims.json"
    process = start(plugin, "verify", "tiny-cosine", "--record", record)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.strip() == "started":
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Interrupted." in err and "Traceback" not in err
    assert "tiny-cosine/common" in out
    assert list(json.loads(record.read_text())) == ["tiny-cosine/common"]
