"""A small language of lists of integers, and an exhaustive search for programs in it.

A program is an expression over its arguments: each of its steps applies one operation to arguments
or to results of earlier steps. Its *size* is the number of steps. `search` goes through all
programs by size until one gives the values that are wanted; of programs that give the same values
on the examples it keeps the first (observational equivalence, Albarghouthi et al. 2013), so that it
is a strong searcher for its budget. Programs are evaluated by the functions here, never by running
source; `to_source` writes the one that was found as Python.

Without the pruning a chain of n steps is one of about b**n programs, b being the number of
operations on one list (`space`): what makes the search for m functions of n steps cheap one by one
(m b**n) and out of reach at once (b**(m n)).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Type = Literal["list", "int"]
#: Values further from zero, or longer lists, are not followed up.
LARGEST, LONGEST = 10**6, 64


@dataclass(frozen=True)
class Operation:
    """One step.

    Parameters
    ----------
    name : str
    kind : str
        Kind of module that it is typical of, as in `engramma.agents.code_plan.KINDS`.
    takes : tuple of {"list", "int"}
    gives : {"list", "int"}
    function : callable
        For the interpreter. It may raise ``ValueError`` or ``IndexError``.
    source : str
        The same in Python, with ``{0}`` and ``{1}`` for its arguments.
    """

    name: str
    kind: str
    takes: tuple[Type, ...]
    gives: Type
    function: Callable[..., Any]
    source: str


def _unary(kind: str, name: str, function: Callable[..., Any], source: str) -> Operation:
    return Operation(name, kind, ("list",), "list", function, source)


def _reduction(name: str, function: Callable[..., Any], source: str) -> Operation:
    return Operation(name, "temporal", ("list",), "int", function, source)


def _running_maximum(x: Sequence[int]) -> list[int]:
    return list(itertools.accumulate(x, max))


OPERATIONS: tuple[Operation, ...] = (
    _unary("parietal", "sort", sorted, "sorted({0})"),
    _unary("parietal", "reverse", lambda x: x[::-1], "{0}[::-1]"),
    _unary("parietal", "drop the first", lambda x: x[1:], "{0}[1:]"),
    _unary("parietal", "drop the last", lambda x: x[:-1], "{0}[:-1]"),
    _unary("parietal", "rotate", lambda x: x[1:] + x[:1], "{0}[1:] + {0}[:1]"),
    _unary(
        "parietal", "drop repeats", lambda x: list(dict.fromkeys(x)), "list(dict.fromkeys({0}))"
    ),
    _unary(
        "temporal",
        "running sum",
        lambda x: list(itertools.accumulate(x)),
        "[sum({0}[: i + 1]) for i in range(len({0}))]",
    ),
    _unary(
        "temporal",
        "running maximum",
        _running_maximum,
        "[max({0}[: i + 1]) for i in range(len({0}))]",
    ),
    _unary(
        "temporal",
        "differences",
        lambda x: [b - a for a, b in itertools.pairwise(x)],
        "[b - a for a, b in zip({0}, {0}[1:])]",
    ),
    _unary(
        "temporal",
        "sums of neighbours",
        lambda x: [a + b for a, b in itertools.pairwise(x)],
        "[a + b for a, b in zip({0}, {0}[1:])]",
    ),
    _unary("motor", "increment", lambda x: [v + 1 for v in x], "[v + 1 for v in {0}]"),
    _unary("motor", "double", lambda x: [v * 2 for v in x], "[v * 2 for v in {0}]"),
    _unary("motor", "negate", lambda x: [-v for v in x], "[-v for v in {0}]"),
    _unary("motor", "square", lambda x: [v * v for v in x], "[v * v for v in {0}]"),
    _unary("motor", "halve", lambda x: [v // 2 for v in x], "[v // 2 for v in {0}]"),
    _unary(
        "motor", "keep positive", lambda x: [v for v in x if v > 0], "[v for v in {0} if v > 0]"
    ),
    _unary(
        "motor",
        "keep even",
        lambda x: [v for v in x if v % 2 == 0],
        "[v for v in {0} if v % 2 == 0]",
    ),
    _unary(
        "motor", "keep odd", lambda x: [v for v in x if v % 2], "[v for v in {0} if v % 2 == 1]"
    ),
    _reduction("total", sum, "sum({0})"),
    _reduction("largest", max, "max({0})"),
    _reduction("smallest", min, "min({0})"),
    _reduction("length", len, "len({0})"),
    Operation(
        "add to each",
        "motor",
        ("list", "int"),
        "list",
        lambda x, n: [v + n for v in x],
        "[v + {1} for v in {0}]",
    ),
    Operation(
        "add pairwise",
        "temporal",
        ("list", "list"),
        "list",
        lambda x, y: [a + b for a, b in zip(x, y, strict=False)],
        "[a + b for a, b in zip({0}, {1})]",
    ),
    Operation("append", "parietal", ("list", "list"), "list", lambda x, y: x + y, "{0} + {1}"),
)
#: From one list to one list.
CHAINABLE = tuple(op for op in OPERATIONS if op.takes == ("list",) and op.gives == "list")


@dataclass(frozen=True)
class Step:
    """An operation on arguments (by position) or on other steps."""

    operation: Operation
    inputs: tuple[Step | int, ...]


#: One value an example.
Values = tuple[Any, ...]
#: What a search keeps of a program.
Entry = tuple[Type, Step | int, Values]


def apply(operation: Operation, inputs: Sequence[Values]) -> Values | None:
    """Values of an operation on each example; None where one is undefined or too large."""
    results = []
    for arguments in zip(*inputs, strict=True):
        try:
            value = operation.function(*arguments)
        except (ValueError, IndexError):
            return None
        if isinstance(value, list):
            if len(value) > LONGEST or any(abs(v) > LARGEST for v in value):
                return None
        elif abs(value) > LARGEST:
            return None
        results.append(value)
    return tuple(results)


def evaluate(program: Step | int, arguments: Sequence[Values]) -> Values | None:
    """Values of a program for each example; ``arguments`` has one row an argument."""
    if isinstance(program, int):
        return arguments[program]
    inputs = [evaluate(part, arguments) for part in program.inputs]
    found = [v for v in inputs if v is not None]
    return apply(program.operation, found) if len(found) == len(inputs) else None


@dataclass(frozen=True)
class Found:
    """What a search ended with: a program or none, and how many candidates were evaluated."""

    program: Step | int | None
    candidates: int


def search(
    arguments: Sequence[Values],
    wanted: Values,
    budget: int,
    operations: Sequence[Operation] = OPERATIONS,
) -> Found:
    """Go through all programs by size until one gives the wanted values.

    Parameters
    ----------
    arguments : sequence of tuple
        One row an argument, one value (int or list of int) an example.
    wanted : tuple
        One value an example.
    budget : int
        Most candidates that are evaluated.
    operations : sequence of Operation

    Returns
    -------
    Found
    """
    bank: list[list[Entry]] = [[]]
    seen: set[str] = set()
    for position, values in enumerate(arguments):
        bank[0].append((_type(values), position, values))
        seen.add(repr(values))
        if values == wanted:
            return Found(position, 0)
    tried = 0
    for size in itertools.count(1):
        bank.append([])
        before = tried
        for operation, parts in _candidates(bank, size, operations):
            if tried == budget:
                return Found(None, tried)
            tried += 1
            result = apply(operation, [values for _, _, values in parts])
            key = repr(result)
            if result is None or key in seen:
                continue
            seen.add(key)
            program = Step(operation, tuple(program for _, program, _ in parts))
            if result == wanted:
                return Found(program, tried)
            bank[size].append((operation.gives, program, result))
        if tried == before:
            break
    return Found(None, tried)


def _candidates(
    bank: Sequence[Sequence[Entry]],
    size: int,
    operations: Sequence[Operation],
) -> Iterator[tuple[Operation, tuple[Entry, ...]]]:
    for operation in operations:
        pools: list[tuple[Sequence[Entry], ...]]
        if len(operation.takes) == 1:
            pools = [(bank[size - 1],)]
        else:
            pools = [(bank[i], bank[size - 1 - i]) for i in range(size)]
        for pool in pools:
            for parts in itertools.product(*pool):
                if tuple(part[0] for part in parts) == operation.takes:
                    yield operation, parts


def _type(values: Values) -> Type:
    return "list" if isinstance(values[0], list) else "int"


def space(size: int, operations: Sequence[Operation] = OPERATIONS, lists: int = 1) -> int:
    """Programs up to a size over a number of list arguments, without pruning.

    An upper bound of the candidates that `search` evaluates up to that size.
    """
    counts: list[dict[Type, int]] = [{"list": lists, "int": 0}]
    for n in range(1, size + 1):
        count: dict[Type, int] = {"list": 0, "int": 0}
        for operation in operations:
            if len(operation.takes) == 1:
                count[operation.gives] += counts[n - 1][operation.takes[0]]
            else:
                a, b = operation.takes
                count[operation.gives] += sum(counts[i][a] * counts[n - 1 - i][b] for i in range(n))
        counts.append(count)
    return sum(sum(count.values()) for count in counts[1:])


def to_source(program: Step | int, arguments: Sequence[str]) -> list[str]:
    """Lines of Python, one a step, the last of which returns the value."""
    lines: list[str] = []

    def name(part: Step | int) -> str:
        if isinstance(part, int):
            return arguments[part]
        text = part.operation.source.format(*map(name, part.inputs))
        lines.append(f"step_{len(lines) + 1} = {text}")
        return f"step_{len(lines)}"

    result = name(program)
    return [*lines, f"return {result}"]
