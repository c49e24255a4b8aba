"""The sandbox against programs that hang, flood, steal, escape and cheat."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from engramma.agents import sandbox
from engramma.agents.sandbox import Example, Limits, run, same
from engramma.agents.source_check import ALLOWED
from engramma.errors import ConfigError

SHORT = Limits(seconds=20.0, cpu_seconds=1, memory_mb=256)


def attempt(source, *, limits=SHORT, allowed=ALLOWED, expect=None):
    return run({"program": source}, "program", [Example("f", (), expect)], limits=limits,
               allowed=allowed)  # fmt: skip


@pytest.fixture
def unread(monkeypatch):
    """Leave out the reading of the syntax tree, so that the process has to defend itself."""
    monkeypatch.setattr(sandbox, "refusal", lambda tree, allowed: "")


def test_examples_of_a_program_of_several_files():
    files = {
        "shapes": "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n",
        "use": "import math\nfrom shapes import P\n"
        "def f(a, b=1):\n    print('called')\n    return (P(a).x + b, math.sqrt(4), {1: None})\n"
        "def g(n):\n    return 10 // n\n",
    }
    calls = [Example("f", (1, 2), (3, 2, {"1": None})), Example("g", (2,), 5)]
    outcome = run(files, "use", calls)
    assert outcome.ok and outcome.passed == outcome.total == 2
    assert outcome.values == ([3, 2.0, {"1": None}], 5)
    assert outcome.printed == "called\n"
    outcome = run(files, "use", [*calls, Example("g", (0,), 1), Example("g", (3,), 4)])
    assert (outcome.status, outcome.passed, outcome.total) == ("failed", 2, 4)
    assert outcome.message == "g(0): ZeroDivisionError: integer division or modulo by zero " \
        "(in use, line 7)"  # fmt: skip
    assert outcome.module == "use"


def test_what_a_failing_program_is_told():
    assert "returned 2, expected 3" in attempt("def f(): return 2", expect=3).message
    assert "line 1" in attempt("def f(: return 2").message
    assert "AttributeError" in attempt("def g(): return 2").message
    assert "not JSON serializable" in attempt("def f(): return {1, 2}").message
    outcome = run({"program": "import broken\ndef f(): pass", "broken": "1/0"}, "program")
    assert (outcome.status, outcome.module) == ("failed", "broken")
    assert attempt("-" * 100_000 + "1").status == "failed"
    assert "longer than" in attempt("#" * 300_000).message


def test_infinite_loops_end_by_cpu_time_or_the_clock():
    start = time.perf_counter()
    outcome = attempt("def f():\n    while True: pass")
    assert outcome.status == "timed out" and "in f()" in outcome.message
    source = "def f(n):\n    while n: pass\n    return n\n"
    calls = [Example("f", (0,), 0), Example("f", (1,), 0), Example("f", (0,), 0)]
    outcome = run({"p": source}, "p", calls, limits=Limits(seconds=2, cpu_seconds=9))
    assert outcome.status == "timed out" and "2 s, in f(1)" in outcome.message
    assert outcome.passed == 1
    outcome = attempt("while True: pass", limits=Limits(seconds=0.8))
    assert outcome.status == "timed out" and "in loading" in outcome.message
    assert time.perf_counter() - start < 25


def test_memory_hog():
    outcome = attempt("def f():\n    x = [0]\n    while True: x += x", limits=Limits(seconds=20))
    assert outcome.status == "out of memory" and "in program, line 3" in outcome.message
    assert attempt("def f():\n    return len(bytes(2**30))").status == "out of memory"


def test_output_floods_are_cut():
    outcome = attempt("def f():\n    while True: print('x' * 1000)")
    assert outcome.status == "failed" and "65536 characters of output" in outcome.message
    assert len(outcome.printed) <= 65536
    assert "a value of more than" in attempt("def f(): return 'x' * 10**6").message
    nested = "def f():\n    x = []\n    for _ in range(300): x = [x]\n    return x"
    assert "100 levels" in attempt(nested).message


def test_a_flood_of_the_real_output_is_stopped_by_the_kernel(unread):
    flood = "import os\ndef f():\n    while True: os.write(1, b'x' * 10**5)"
    outcome = attempt(flood, allowed={"os"}, limits=Limits(seconds=20, file_mb=1))
    assert outcome.status == "failed" and "ended early" in outcome.message


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("import os", "import of os"),
        ("import socket", "import of socket"),
        ("from os import path", "import of os"),
        ("from . import x", "import of"),
        ("from operator import *", r"\*"),
        ("from random import _os", "_os"),
        ("import random\nrandom._os.system('true')", "_os"),
        ("import enum\nenum.sys.modules", "modules|sys"),
        ("__import__('os')", "__import__"),
        ("eval('1')", "eval"),
        ("getattr(1, 'real')", "getattr"),
        ("().__class__.__base__.__subclasses__()", "__subclasses__"),
        ("def f(): pass\nf.__globals__", "__globals__"),
        ("match print:\n    case object(__self__=b): pass", "__self__"),
        ("try:\n    1/0\nexcept Exception as e: e.__traceback__.tb_frame", "tb_frame"),
    ],
)
def test_programs_that_are_not_started(source, word, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    outcome = attempt(source)
    assert outcome.status == "refused"
    assert re.search(word, outcome.message)


@pytest.mark.parametrize(
    "source",
    [
        "import os\ndef f(): return os.system('true')",
        "import random\ndef f(): return random._os.fork()",
        "import random\ndef f(): random._os.kill(random._os.getppid(), 9)",
        "import socket\ndef f(): socket.socket()",
        "import _posixsubprocess\ndef f(): pass",
        "import ctypes\ndef f(): pass",
        "def f():\n    try:\n        import os\n    except ImportError:\n        return None",
        "def f(): return open('/etc/passwd').read()",
        "def f(): return open('/proc/self/environ').read()",
        "def f(): open('../escaped.txt', 'w')",
        "def f(): open(1, 'w').write('x')",
        "import enum\ndef f(): enum.sys.addaudithook(print)",
        "import enum\ndef f(): return enum.sys._getframe(1).f_locals['expected']",
    ],
)
def test_what_the_process_itself_denies(source, unread, monkeypatch):
    # nothing but `random`, `enum` and the program's own modules is loaded for it
    monkeypatch.setattr(sandbox, "imports", lambda tree: {"random", "enum"})
    outcome = attempt(source)
    assert outcome.status == "refused", outcome


def test_the_kernel_starts_no_process_or_thread_and_has_no_network(unread, monkeypatch, tmp_path):
    child = Path(sandbox._CHILD).read_text()
    bare = child.replace("    sys.addaudithook(program.guard(folder))\n", "")
    assert bare != child
    # the same child without its audit hook: what is left are the limits of the kernel
    path = tmp_path / "child.py"
    path.write_text(bare)
    monkeypatch.setattr(sandbox, "_CHILD", path)
    fork = "import os\ndef f():\n    while True: os.fork()"
    assert "BlockingIOError" in attempt(fork, allowed={"os"}).message
    thread = "import threading\ndef f(): threading.Thread(target=print).start()"
    assert "can't start new thread" in attempt(thread, allowed={"threading"}).message
    big = "def f():\n    open('big', 'wb').write(bytes(2 << 20))"
    assert "File too large" in attempt(big).message
    who = "import os\ndef f(): return [os.getuid(), os.geteuid()]"
    assert 0 not in attempt(who, allowed={"os"}).values[0]
    network = "import socket\ndef f(): return [n for _, n in socket.if_nameindex()]"
    outcome = attempt(network, allowed={"socket"}, expect=["lo"])
    assert outcome.ok or subprocess.run(["unshare", "-rn", "true"]).returncode != 0


def test_the_environment_is_empty(monkeypatch, unread):
    monkeypatch.setenv("SECRET_KEY", "secret")
    outcome = attempt("import os\ndef f(): return dict(os.environ)", allowed={"os"})
    assert len(outcome.values) == 1
    assert "SECRET_KEY" not in outcome.values[0]


def test_the_working_folder_is_fresh_and_deleted(monkeypatch):
    made = []
    plain = sandbox.tempfile.TemporaryDirectory

    def noted(*args, **options):
        made.append(plain(*args, **options))
        return made[-1]

    monkeypatch.setattr(sandbox.tempfile, "TemporaryDirectory", noted)
    source = (
        "def f():\n    try:\n        open('a.txt').read()\n    except FileNotFoundError:\n"
        "        open('a.txt', 'w').write('here')\n    return open('a.txt').read()"
    )
    for _ in range(2):
        assert attempt(source, expect="here").ok
    assert len(made) == 2 and not any(Path(folder.name).exists() for folder in made)


def test_leaving_early_is_not_passing(unread):
    assert attempt("def f(): raise SystemExit(0)").message.startswith("f(): SystemExit")
    assert not run({"p": "raise SystemExit(0)"}, "p").ok
    outcome = attempt("import os\ndef f(): os._exit(0)", allowed={"os"})
    assert outcome.status == "failed" and "ended early (exit code 0), in f()" in outcome.message
    outcome = attempt("import sys\ndef f(): sys.exit()", allowed={"sys"})
    assert outcome.status == "failed"


def test_cheating_gains_nothing(unread):
    equal = "class A(int):\n    def __eq__(self, o): return True\ndef f(): return A(1)"
    assert not attempt(equal, expect=2).ok
    patched = "import json\njson.dumps = lambda v: '2'\njson.loads = lambda v: 3\ndef f(): return 1"
    outcome = attempt(patched, expect=3)
    assert not outcome.ok
    forged = (
        "import os, json\n"
        "for line in ({'loaded': True}, {'value': 3}, {'done': True, 'denied': [], 'printed': ''}):"
        "\n    os.write(1, (json.dumps(line) + '\\n').encode())\n"
        "os._exit(0)\ndef f(): return 1"
    )
    assert not attempt(forged, expect=3, allowed={"os", "json"}).ok
    assert not run({"p": forged}, "p", allowed={"os", "json"}).ok


def test_our_own_process_is_untouched():
    before = dict(os.environ), Path.cwd()
    assert attempt("import builtins\nbuiltins.touched = 1").status == "refused"
    assert (dict(os.environ), Path.cwd()) == before


def test_same_values():
    assert same([1, {"a": 0.1 + 0.2}], [1.0, {"a": 0.3}])
    assert same(float("nan"), float("nan"))
    for a, b in ((True, 1), (0, False), ("1", 1), ([1], [1, 2]), ({"a": 1}, {"b": 1}), (1, 2)):
        assert not same(a, b)
    assert same(json.loads("[1, null]"), [1, None])


def test_refusals():
    with pytest.raises(ConfigError, match="no module 'b'"):
        run({"a": ""}, "b")
    for name in ("json", "a b", "../a"):
        with pytest.raises(ConfigError, match="cannot be the name"):
            run({name: ""}, name)
    with pytest.raises(ConfigError, match="seconds is 0"):
        Limits(seconds=0)
