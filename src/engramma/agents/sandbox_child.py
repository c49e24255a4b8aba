"""The inside of the sandbox: run by path in a process of its own, and never imported.

It reads a request from standard input, confines itself, loads the program, calls what is asked and
writes one JSON line an answer to standard output. Nothing here decides whether an answer is right:
the expected values are not known in this process. `engramma.agents.sandbox` is its other side.
"""

import builtins
import contextlib
import ctypes
import importlib
import io
import os
import resource
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from json import dumps, load, loads  # bound here: a program may patch the module
from typing import Any

NOBODY = 65534
NEW_USER, NEW_NETWORK, NO_NEW_PRIVILEGES = 0x10000000, 0x40000000, 38
#: Most levels of a value; the other side reads it with less stack to spare.
DEEPEST = 100
#: Builtins that a program does not get.
WITHHELD = ("breakpoint", "compile", "eval", "exec", "help", "input")
#: Audit events (or their beginnings) that end in an error. A hook cannot be removed by a program.
DENIED = (
    "_thread.", "code.__new__", "cpython.", "ctypes.", "fcntl.", "function.__new__", "gc.", "glob.",
    "marshal.", "mmap.", "os.", "pathlib.", "pickle.", "pty.", "resource.", "shutil.", "signal.",
    "socket.", "sqlite3.", "subprocess.", "sys._", "sys.addaudithook", "sys.set", "syslog.",
    "tempfile.",
)  # fmt: skip


class Denied(PermissionError):
    """The program tried what it may not do."""


class Output(io.StringIO):
    """What the program prints, up to a number of characters."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.written = most, 0

    def write(self, text: str, /) -> int:
        """Keep the text, or raise once there is too much of it."""
        self.written += len(text)
        if self.written > self.most:
            raise OSError(f"more than {self.most} characters of output")
        return super().write(text)


class Program:
    """Source files by module name, loaded when something imports them."""

    def __init__(self, files: Mapping[str, str], allowed: Sequence[str]) -> None:
        self.files, self.allowed = files, frozenset(allowed)
        self.denied: list[str] = []
        self.loaded: dict[str, types.ModuleType] = {}
        kept = {k: v for k, v in vars(builtins).items() if k not in WITHHELD}
        self.builtins = kept | {"__import__": self.import_module}

    def load(self, name: str) -> types.ModuleType:
        """Run a file as a module, once."""
        if name not in self.loaded:
            module = types.ModuleType(name)
            module.__dict__["__builtins__"] = self.builtins
            self.loaded[name] = sys.modules[name] = module
            exec(compile(self.files[name], f"<{name}>", "exec"), module.__dict__)
        return self.loaded[name]

    def import_module(
        self,
        name: str,
        globals_: Mapping[str, Any] | None = None,
        locals_: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> types.ModuleType:
        """Stand where the builtin ``__import__`` stands for the program."""
        if level == 0 and name in self.files:
            return self.load(name)
        if level or name.partition(".")[0] not in self.allowed:
            self.deny(f"import of {name or 'a relative module'} is not allowed")
        return __import__(name, globals_, locals_, fromlist or ())

    def deny(self, what: str) -> None:
        """Note what was tried, so that a program which swallows the error is found out too."""
        self.denied.append(what)
        raise Denied(what)

    def guard(self, folder: str) -> Callable[[str, tuple[Any, ...]], None]:
        """Return an audit hook that denies files elsewhere, processes, sockets, and imports."""
        known = {name.partition(".")[0] for name in sys.modules} | self.allowed | {*self.files}
        realpath, join, fspath, separator = os.path.realpath, os.path.join, os.fspath, os.sep

        def hook(event: str, args: tuple[Any, ...]) -> None:
            if event == "open":
                path = args[0]
                inside = not isinstance(path, int) and realpath(
                    join(folder, os.fsdecode(fspath(path)))
                ).startswith(folder + separator)
                if not inside:
                    self.deny(f"opening {path!r}, outside the working folder, is not allowed")
            elif event == "import":
                if args[0].partition(".")[0] not in known:
                    self.deny(f"import of {args[0]} is not allowed")
            elif event.startswith(DENIED):
                self.deny(f"{event} is not allowed")

        return hook


def confine(limits: Mapping[str, int]) -> None:
    """Set the kernel's limits, leave the network, and become nobody where we were root.

    Leaving the network and becoming nobody need rights that some containers do not give; there the
    audit hook stands alone.
    """
    root = os.geteuid() == 0
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.unshare(NEW_NETWORK if root else NEW_NETWORK | NEW_USER)
        libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    for name, soft, hard in (
        (resource.RLIMIT_CPU, limits["cpu"], limits["cpu"] + 1),
        (resource.RLIMIT_AS, limits["memory"], limits["memory"]),
        (resource.RLIMIT_FSIZE, limits["file"], limits["file"]),
        (resource.RLIMIT_NOFILE, 16, 16),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_NPROC, 0, 0),
    ):
        most = resource.getrlimit(name)[1]
        if most != resource.RLIM_INFINITY:  # ours may be lower already, and cannot be raised
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(name, (soft, hard))
    if root:
        with contextlib.suppress(OSError):
            os.chown(".", NOBODY, NOBODY)
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)


def describe(error: BaseException, files: Mapping[str, str]) -> dict[str, Any]:
    """Kind and text of an error, and the innermost file of the program that it came from."""
    found = {"module": "", "line": 0}
    step = error.__traceback__
    while step is not None:
        name = step.tb_frame.f_code.co_filename.strip("<>")
        if name in files:
            found = {"module": name, "line": step.tb_lineno}
        step = step.tb_next
    kind = (
        "memory"
        if isinstance(error, MemoryError)
        else "denied"
        if isinstance(error, Denied)
        else "raised"
    )
    try:
        text = str(error)[:500]
    except BaseException:  # the program's own exception may raise when it is shown
        text = "an exception that cannot be shown"
    return {"error": kind, "text": f"{type(error).__name__}: {text}", **found}


def answer(program: Program, entry: str, call: Mapping[str, Any], most: int) -> dict[str, Any]:
    """Call one function of the entry module; its value, or what went wrong."""
    try:
        text = dumps(getattr(program.load(entry), call["call"])(*call["args"]))
        value = loads(text)
        if len(text) > most or depth(value) > DEEPEST:
            raise ValueError(f"a value of more than {most} characters or {DEEPEST} levels")
    except BaseException as error:  # SystemExit and KeyboardInterrupt as well
        return describe(error, program.files)
    return {"value": value}


def depth(value: Any) -> int:
    """Levels of lists and dictionaries."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def main() -> None:
    """Answer the request on standard input."""
    request = load(sys.stdin.buffer)
    os.close(0)  # the request could be read again
    write, nonce, leave = os.write, request["nonce"], os._exit

    def say(line: dict[str, Any]) -> None:
        write(1, (dumps({"nonce": nonce, **line}) + "\n").encode())

    for name in request["allowed"]:  # their files cannot be opened later
        importlib.import_module(name)
        if name == "datetime":
            importlib.import_module("_strptime")
    most = request["limits"]["output"]
    program = Program(request["files"], request["allowed"])
    sys.stdin, output = io.StringIO(), Output(most)
    sys.stdout = sys.stderr = output
    folder = os.path.realpath(".")
    confine(request["limits"])
    sys.addaudithook(program.guard(folder))
    try:
        program.load(request["entry"])
        say({"loaded": True})
    except BaseException as error:
        say(describe(error, program.files))
    else:
        for call in request["calls"]:
            say(answer(program, request["entry"], call, most))
    say({"done": True, "denied": program.denied[:1], "printed": output.getvalue()})
    leave(0)


if __name__ == "__main__":
    main()
