"""Programming tasks: our own JSON, and the JSON lines of HumanEval and MBPP.

HumanEval (Chen et al. 2021, arXiv:2107.03374) has ``task_id, prompt, entry_point,
canonical_solution, test`` a line, MBPP (Austin et al. 2021, arXiv:2108.07732) ``task_id, text,
code, test_list``; both as plain text or gzip. Their tests are Python and are kept as published. A
test runs in the process of the program it tests, which could fool it (an object that equals
everything); so where the assertions are all of the form ``f(literals) == literal``, they are read
as examples too, whose values are compared outside of that process. Both must pass.
"""

from __future__ import annotations

import ast
import gzip
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engramma.agents.code_plan import Signature, read_example
from engramma.agents.sandbox import Example
from engramma.errors import DataError


@dataclass(frozen=True)
class CodeTask:
    """A task in words, with tests.

    Parameters
    ----------
    id : str
    prompt : str
        What the programmer is told.
    signature : str
        Of the function that is asked for: ``name(parameter: type, ...) -> type``.
    acceptance : tuple of Example
        Hidden examples that decide.
    test : str
        Assertions as source, which use the function by its name.
    examples : tuple of Example
        Shown to the programmer.
    complexity : float
        As the task's author puts it.
    solution : str
        A reference, where there is one.
    """

    id: str
    prompt: str
    signature: str
    acceptance: tuple[Example, ...] = ()
    test: str = ""
    examples: tuple[Example, ...] = ()
    complexity: float = 1.0
    solution: str = ""

    def __post_init__(self) -> None:
        if not self.acceptance and not self.test:
            raise DataError(
                "the task has no tests", where=f"task {self.id}", mend="give acceptance examples"
            )
        for example in (*self.acceptance, *self.examples):
            if example.call != self.function:
                raise DataError(
                    f"an example calls {example.call!r}, and the task asks for {self.function!r}",
                    where=f"task {self.id}",
                )

    @property
    def function(self) -> str:
        """Name of the function that is asked for."""
        return Signature.of(self.signature).name


def read_tasks(path: str | Path) -> list[CodeTask]:
    """Read tasks from a file; which of the formats it is, is seen from its fields.

    Parameters
    ----------
    path : path
        JSON (one task or a list), or JSON lines; plain or ``.gz``.

    Raises
    ------
    DataError
        If the file or a record of it cannot be read, naming the record.
    """
    path = Path(path)
    return [
        _task(record, f"{path}, record {index}") for index, record in enumerate(_records(path), 1)
    ]


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"the tasks cannot be read ({error})", where=str(path)) from error
    try:
        whole = json.loads(text)
        yield from whole if isinstance(whole, list) else [whole]
        return
    except ValueError:
        pass
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DataError(
                    f"this is no JSON ({error})", where=f"{path}, line {number}"
                ) from error


def _task(record: Mapping[str, Any], where: str) -> CodeTask:
    try:
        if "canonical_solution" in record:
            return human_eval(record)
        if "test_list" in record:
            return mbpp(record)
        return CodeTask(
            str(record["id"]),
            str(record["prompt"]),
            str(record["signature"]) if "signature" in record else _guess_signature(record),
            tuple(map(read_example, record["acceptance"])),
            str(record.get("test", "")),
            tuple(map(read_example, record.get("examples", ()))),
            float(record.get("complexity", 1.0)),
            str(record.get("solution", "")),
        )
    except (KeyError, TypeError, IndexError, ValueError, SyntaxError) as error:
        raise DataError(
            f"the record is no task ({type(error).__name__}: {error})",
            where=where,
            mend="give id, prompt and acceptance, or the fields of HumanEval or MBPP",
        ) from error


def _guess_signature(record: Mapping[str, Any]) -> str:
    """Name and number of arguments of the first example; the types are left open."""
    first = read_example(record["acceptance"][0])
    parameters = ", ".join(f"x{i}: object" for i in range(1, len(first.args) + 1))
    return f"{first.call}({parameters}) -> object"


def human_eval(record: Mapping[str, Any]) -> CodeTask:
    """Task of one record of HumanEval; ``check(candidate)`` is its test."""
    entry = record["entry_point"]
    examples = _examples(record["test"], {"candidate": entry})
    # The reference stands behind the prompt, whose end is inside the function.
    solution = record["prompt"] + record["canonical_solution"]
    return CodeTask(
        str(record["task_id"]),
        record["prompt"],
        _signature(solution, entry),
        acceptance=examples or (),
        test=f"{_helpers(solution, entry)}{record['test']}\n\ncheck({entry})\n",
        solution=solution,
    )


def _helpers(source: str, entry: str) -> str:
    """Functions above the entry, which tests may call, with what is imported there."""
    above = list(itertools.takewhile(lambda n: not _defines(n, entry), ast.parse(source).body))
    if not any(isinstance(n, ast.FunctionDef) for n in above):
        return ""
    return "".join(f"{ast.unparse(n)}\n" for n in above) + "\n"


def _defines(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == name


def mbpp(record: Mapping[str, Any]) -> CodeTask:
    """Task of one record of MBPP; the first assertion names the function and is shown."""
    test = "\n".join(record["test_list"])
    defined = {n.name for n in ast.parse(record["code"]).body if isinstance(n, ast.FunctionDef)}
    used = [n.id for n in ast.walk(ast.parse(test)) if isinstance(n, ast.Name) and n.id in defined]
    if not used:
        raise ValueError(f"the tests call none of {sorted(defined)}")
    examples = _examples(test, {used[0]: used[0]})
    setup = record.get("test_setup_code", "")
    return CodeTask(
        str(record["task_id"]),
        f"{record.get('text') or record['prompt']}\nYour code should pass this test: "
        f"{record['test_list'][0]}",
        _signature(record["code"], used[0]),
        acceptance=examples or (),
        test=f"{setup}\n{test}\n",
        solution=record["code"],
    )


def _signature(source: str, name: str) -> str:
    """Signature of a function in a source; ``object`` where it is not typed."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            for argument in node.args.posonlyargs + node.args.args:
                argument.annotation = argument.annotation or ast.Name("object")
            result = ast.unparse(node.returns) if node.returns else "object"
            return f"{name}({ast.unparse(node.args)}) -> {result}"
    raise ValueError(f"the function {name} is not defined")


def _examples(test: str, names: Mapping[str, str]) -> tuple[Example, ...] | None:
    """Examples of a test that consists of ``assert f(literals) == literal`` only, else None."""
    statements = ast.parse(test).body
    found = []
    for node in statements:
        inner = node.body if isinstance(node, ast.FunctionDef) and node.name == "check" else [node]
        for statement in inner:
            if isinstance(statement, ast.Assign) or _is_text(statement):
                continue  # metadata and docstrings
            example = _example(statement, names)
            if example is None:
                return None
            found.append(example)
    return tuple(found) or None


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _example(node: ast.stmt, names: Mapping[str, str]) -> Example | None:
    match node:
        case ast.Assert(
            test=ast.Compare(
                left=ast.Call(func=ast.Name(id=name), args=args, keywords=[]),
                ops=[ast.Eq()],
                comparators=[expected],
            )
        ) if name in names:
            pass
        case _:
            return None
    try:
        values = [ast.literal_eval(arg) for arg in args]
        expect = ast.literal_eval(expected)
    except ValueError:
        return None
    if not (_plain(values) and _plain(expect)):
        return None
    return Example(names[name], tuple(values), expect)


def _plain(value: Any) -> bool:
    """Whether JSON gives a value back as it is; not so truths, which Python equals to 0 and 1."""
    try:
        text = json.dumps(value)
    except TypeError:
        return False
    return bool(json.loads(text) == value) and not re.search("true|false", text)
