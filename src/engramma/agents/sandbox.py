"""Run generated Python in a process of its own, with limits, and never in ours.

A program is a mapping of module names to sources. It is read first (`refusal`): a syntax tree that
imports what is not on the allow-list, or reaches for the interpreter's insides, is not started.
Then it runs in a fresh interpreter (``python -I -S``, no inherited environment, a fresh empty
working folder that is deleted) behind three walls of different kinds:

- *in Python*: an import function of its own and an audit hook, which a program cannot remove; they
  deny other imports, files outside the working folder, processes, threads, sockets and signals;
- *in the kernel*: limits on CPU time, memory, file size, open files and processes (none can be
  started), an own network namespace without interfaces and, for root, the rights of nobody;
- *here*: a wall clock, after which the whole process group is killed, and **the comparison with the
  expected values, which the process never sees**: it sends values as JSON, so that an object that
  claims to equal everything, or a patched ``json``, gains nothing.

Every line of an answer carries a random word that the program does not get to see; so neither does
printing or leaving early look like a result. One process runs all examples of a program.

It is made for programs of language models, which are careless rather than malicious. Against an
attacker who knows an exploit of the interpreter, add a container or a virtual machine. Network
namespaces and the limit on processes are those of Linux; the sum of many small files is bounded by
time only.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engramma.agents.source_check import ALLOWED, imports, parse, refusal
from engramma.errors import ConfigError

Status = Literal["passed", "failed", "timed out", "out of memory", "refused"]

_CHILD = Path(__file__).with_name("sandbox_child.py")


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    Parameters
    ----------
    seconds : float
        Wall clock, all examples together, with about 0.1 s for the interpreter's own start.
    cpu_seconds : int
    memory_mb : int
        Address space, of which the interpreter takes about 30.
    file_mb : int
        Size of each file it writes.
    output_kb : int
        What it prints, and each value it returns.
    source_kb : int
        Length of the program itself.
    """

    seconds: float = 5.0
    cpu_seconds: int = 4
    memory_mb: int = 512
    file_mb: int = 1
    output_kb: int = 64
    source_kb: int = 256

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ConfigError(f"a limit must be positive, and {name} is {value}")


@dataclass(frozen=True)
class Example:
    """A call and the value it must return, both made of what JSON can carry."""

    call: str
    args: tuple[Any, ...]
    expect: Any


@dataclass(frozen=True)
class Outcome:
    """What came of a program.

    Parameters
    ----------
    status : {"passed", "failed", "timed out", "out of memory", "refused"}
    message : str
        What went wrong first, for the one who has to mend it.
    module : str
        File of the program in which an exception arose, if any.
    passed, total : int
        Examples.
    values : tuple
        Returned values of the examples that ran to their end, in their order.
    printed : str
    seconds : float
        Wall clock.
    """

    status: Status
    message: str = ""
    module: str = ""
    passed: int = 0
    total: int = 0
    values: tuple[Any, ...] = ()
    printed: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether everything passed."""
        return self.status == "passed"


def same(a: Any, b: Any) -> bool:
    """Equality of two JSON values: floats to nine digits, and true is not 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, float) or isinstance(b, float):
        numbers = isinstance(a, int | float) and isinstance(b, int | float)
        return numbers and (math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (a != a and b != b))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b


def run(
    files: Mapping[str, str],
    entry: str,
    examples: Sequence[Example] = (),
    *,
    limits: Limits = Limits(),
    allowed: Iterable[str] = ALLOWED,
) -> Outcome:
    """Load a program in a process of its own and check its entry module against examples.

    Parameters
    ----------
    files : mapping of str to str
        Source of each module, by the name under which the others import it.
    entry : str
        The module that is loaded first, whose functions the examples call.
    examples : sequence of Example
        Without any, a program passes that can be loaded without an exception (so a file of
        assertions is a test); then the verdict is the process's own.
    limits : Limits
    allowed : iterable of str
        Modules that may be imported beside the program's own.

    Returns
    -------
    Outcome

    Raises
    ------
    ConfigError
        If there is no such entry module, a module's name is no name or one of Python's own, or the
        operating system is not of the Unix kind.
    """
    _check_names(files, entry)
    imported: set[str] = set()
    for name, source in files.items():
        tree = parse(source, limits.source_kb)
        if isinstance(tree, str):
            return Outcome("failed", f"{name}: {tree}", name, total=len(examples))
        why = refusal(tree, {*allowed, *files})
        if why:
            return Outcome("refused", f"{name}: {why}", name, total=len(examples))
        imported |= imports(tree)
    nonce, start = secrets.token_hex(16), time.perf_counter()
    request = {
        "files": dict(files),
        "entry": entry,
        "calls": [{"call": e.call, "args": e.args} for e in examples],
        "allowed": sorted(imported - files.keys()),
        "limits": {
            "cpu": limits.cpu_seconds,
            "memory": limits.memory_mb << 20,
            "file": max(limits.file_mb << 20, limits.output_kb << 12),
            "output": limits.output_kb << 10,
        },
        "nonce": nonce,
    }
    code, text = _start(json.dumps(request).encode(), limits.seconds)
    seconds = time.perf_counter() - start
    return _judge(code, _lines(text, nonce), examples, limits, seconds)


def _check_names(files: Mapping[str, str], entry: str) -> None:
    if os.name != "posix":
        raise ConfigError(
            "generated programs run on Linux and macOS only", mend="use a container or WSL"
        )
    if entry not in files:
        raise ConfigError(
            f"the program has no module {entry!r}", mend=f"name one of {', '.join(files)}"
        )
    for name in files:
        if not name.isidentifier() or name in sys.stdlib_module_names:
            raise ConfigError(
                f"{name!r} cannot be the name of a module of a program",
                mend="use a Python name that no module of the standard library has",
            )


def _start(request: bytes, seconds: float) -> tuple[int | None, bytes]:
    """Exit code (none if the clock ran out) and what was written to standard output.

    Requests and answers are files, not pipes: the kernel's limit on file size then also bounds what
    a flood of output can cost us.
    """
    with (
        tempfile.TemporaryDirectory(prefix="sandbox-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as question,
        tempfile.TemporaryFile() as answers,
    ):
        question.write(request)
        question.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_CHILD)],
            stdin=question,
            stdout=answers,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            start_new_session=True,
        )
        code: int | None = None
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        answers.seek(0)
        return code, answers.read()


def _lines(text: bytes, nonce: str) -> list[dict[str, Any]]:
    """Lines of the answer that are whole and carry the word."""
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(line)
            if isinstance(value, dict) and value.get("nonce") == nonce:
                found.append(value)
    return found


def _judge(
    code: int | None,
    lines: Sequence[Mapping[str, Any]],
    examples: Sequence[Example],
    limits: Limits,
    seconds: float,
) -> Outcome:
    loaded = any("loaded" in line for line in lines)
    answers = [line for line in lines if "value" in line or "error" in line]
    end = next((line for line in lines if "done" in line), None)
    expected = [json.loads(json.dumps(e.expect)) for e in examples]
    problems: list[tuple[Status, str, str]] = []
    passed = 0
    if end and end["denied"]:
        problems.append(("refused", end["denied"][0], ""))
    for index, line in enumerate(answers):
        call = _show(examples[index]) if loaded else "loading it"
        if "error" in line:
            status: Status = {"memory": "out of memory", "denied": "refused"}.get(
                line["error"], "failed"
            )  # type: ignore[assignment]
            place = f" (in {line['module']}, line {line['line']})" if line["module"] else ""
            problems.append((status, f"{call}: {line['text']}{place}", line["module"]))
        elif same(line["value"], expected[index]):
            passed += 1
        else:
            text = f"{call} returned {_short(line['value'])}, expected {_short(expected[index])}"
            problems.append(("failed", text, ""))
    if end is None:
        done = len(answers)
        where = f"in {_show(examples[done])}" if loaded and done < len(examples) else "in loading"
        problems.insert(0, (*_end(code, where, limits), ""))
    status, message, module = problems[0] if problems else ("passed", "", "")
    values = tuple(line["value"] for line in answers if "value" in line)
    printed = end["printed"] if end else ""
    return Outcome(status, message, module, passed, len(examples), values, printed, seconds)


def _end(code: int | None, where: str, limits: Limits) -> tuple[Status, str]:
    """Status and words for a process that did not answer to the end."""
    if code is None:
        return "timed out", f"no end after {limits.seconds:g} s, {where}"
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "timed out", f"more than {limits.cpu_seconds} s of CPU time, {where}"
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return "failed", f"the process ended early ({how}), {where}"


def _show(example: Example) -> str:
    return _short(f"{example.call}({', '.join(map(repr, example.args))})", str)


def _short(value: Any, form: Any = repr, most: int = 200) -> str:
    text = form(value)
    return text if len(text) <= most else text[: most - 3] + "..."
