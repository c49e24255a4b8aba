"""Plans of programs: modules with typed interfaces, dependencies and examples.

As JSON, which is how a planner writes one and how a programmer is told of a module::

    {"entry": "report",
     "modules": [{"name": "report", "kind": "temporal", "purpose": "...", "cost": 1.0,
                  "interface": ["show(xs: list[int]) -> str"], "depends": ["layout"],
                  "examples": [{"call": "show", "args": [[1, 2]], "expect": "1 2"}]}, ...]}

A plan that cannot be carried out is refused when it is made: the checks name what is wrong.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from engramma.agents.sandbox import Example
from engramma.agents.schedule import Job, topological_order
from engramma.agents.source_check import parse
from engramma.errors import DataError

#: Kinds of modules: data layout and state; text and sequences; control flow, input and output.
KINDS = ("parietal", "temporal", "motor")


class PlanError(DataError):
    """A model gave no plan that can be carried out."""


@dataclass(frozen=True)
class Signature:
    """A function that a module exports."""

    name: str
    parameters: tuple[str, ...]
    text: str

    @classmethod
    def of(cls, text: str) -> Signature:
        """Read ``name(parameter: type, ...) -> type``.

        Raises
        ------
        DataError
            If it is no such signature, or a type is missing.
        """
        try:
            tree = ast.parse(f"def {text.strip().removeprefix('def ').rstrip(': .')}: ...")
            function = tree.body[0]
        except SyntaxError:
            function = None
        if not isinstance(function, ast.FunctionDef):
            raise DataError(
                f"{text!r} is no signature", mend="write name(parameter: type, ...) -> type"
            )
        arguments = function.args.posonlyargs + function.args.args
        if function.returns is None or any(a.annotation is None for a in arguments):
            raise DataError(
                f"the interface {text!r} is not typed",
                mend="give a type to each parameter and to the result",
            )
        clean = f"{function.name}({ast.unparse(function.args)}) -> {ast.unparse(function.returns)}"
        return cls(function.name, tuple(a.arg for a in arguments), clean)


@dataclass(frozen=True)
class Module:
    """One file of a program.

    Parameters
    ----------
    name : str
        Under which other modules import it.
    kind : {"parietal", "temporal", "motor"}
    purpose : str
    interface : tuple of str
        Typed signatures of what it exports.
    depends : tuple of str
        Modules that it uses.
    examples : tuple of Example
        Unit examples of its own functions.
    cost : float
        Estimated cost of writing it.
    """

    name: str
    kind: str
    purpose: str
    interface: tuple[str, ...]
    depends: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    cost: float = 1.0

    def __post_init__(self) -> None:
        where = f"module {self.name!r}"
        if not self.name.isidentifier() or self.name in sys.stdlib_module_names:
            raise DataError(
                f"{self.name!r} cannot be the name of a module",
                mend="use a Python name that no module of the standard library has",
            )
        if self.kind not in KINDS:
            raise DataError(
                f"there is no kind {self.kind!r}", where=where, mend=f"use {', '.join(KINDS)}"
            )
        if not self.interface:
            raise DataError("it exports nothing", where=where, mend="name a function it exports")
        names = [s.name for s in self.signatures]
        for example in self.examples:
            if example.call not in names:
                raise DataError(
                    f"an example calls {example.call!r}, which the module does not export",
                    where=where,
                    mend=f"call one of {', '.join(names)}",
                )

    @cached_property
    def signatures(self) -> tuple[Signature, ...]:
        """The interface, read."""
        return tuple(map(Signature.of, self.interface))

    def to_json(self) -> dict[str, Any]:
        """Return a mapping in the plan's format."""
        return {
            "name": self.name,
            "kind": self.kind,
            "purpose": self.purpose,
            "interface": list(self.interface),
            "depends": list(self.depends),
            "examples": [vars(example) for example in self.examples],
            "cost": self.cost,
        }

    def check(self, source: str) -> str:
        """Check statically that a source defines what it must; what is missing, or empty."""
        tree = parse(source)
        if isinstance(tree, str):
            return tree
        functions = {n.name: n.args for n in tree.body if isinstance(n, ast.FunctionDef)}
        for signature in self.signatures:
            arguments = functions.get(signature.name)
            if arguments is None:
                return f"the function {signature.name} is not defined at the top level"
            positional = len(arguments.posonlyargs + arguments.args)
            wanted = len(signature.parameters)
            least = positional - len(arguments.defaults)
            required = any(default is None for default in arguments.kw_defaults)
            if required or wanted < least or (wanted > positional and not arguments.vararg):
                return f"{signature.name} does not take the {wanted} arguments of {signature.text}"
        return ""


@dataclass(frozen=True)
class Plan:
    """Modules of a program, and the one that the task's calls go to.

    Raises
    ------
    DataError
        If two modules share a name or export the same name, or the entry is unknown.
    ConfigError
        If a dependency is unknown, or the dependencies form a cycle, which is named.
    """

    modules: tuple[Module, ...]
    entry: str

    def __post_init__(self) -> None:
        names: set[str] = set()
        exported: dict[str, str] = {}
        for module in self.modules:
            if module.name in names:
                raise DataError(f"two modules are called {module.name!r}", mend="rename one")
            names.add(module.name)
            for signature in module.signatures:
                if signature.name in exported:
                    raise DataError(
                        f"{exported[signature.name]!r} and {module.name!r} both export "
                        f"{signature.name!r}",
                        mend="rename one of the two functions",
                    )
                exported[signature.name] = module.name
        if self.entry not in names:
            raise DataError(f"the entry {self.entry!r} is no module of the plan")
        _ = self.order

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Names in topological order."""
        return topological_order({m.name: m.depends for m in self.modules})

    @cached_property
    def by_name(self) -> Mapping[str, Module]:
        """Modules by name."""
        return {m.name: m for m in self.modules}

    def behind(self, name: str) -> tuple[str, ...]:
        """Return a module and all that it depends on, directly or not, in topological order."""
        needed, ahead = {name}, [name]
        while ahead:
            for other in self.by_name[ahead.pop()].depends:
                if other not in needed:
                    needed.add(other)
                    ahead.append(other)
        return tuple(other for other in self.order if other in needed)

    def jobs(self, names: Sequence[str] | None = None) -> tuple[Job, ...]:
        """Work of writing the named modules (all), as the scheduler takes it."""
        chosen = set(self.by_name if names is None else names)
        return tuple(
            Job(m.name, m.cost, tuple(d for d in m.depends if d in chosen))
            for m in self.modules
            if m.name in chosen
        )

    def to_json(self) -> dict[str, Any]:
        """Return a mapping in the plan's format."""
        return {"entry": self.entry, "modules": [m.to_json() for m in self.modules]}

    @classmethod
    def from_json(cls, value: Any) -> Plan:
        """Read the plan's format from text or a mapping.

        Raises
        ------
        DataError
            If it is not in the format; and what the class raises.
        """
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError as error:
                raise DataError(f"the plan is no JSON ({error})") from error
        try:
            modules = tuple(_module(m) for m in value["modules"])
            if not modules:
                raise DataError("the plan has no modules")
            return cls(modules, str(value.get("entry", modules[-1].name)))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(
                f"the plan is not in its format ({type(error).__name__}: {error})",
                mend='it is {"entry": ..., "modules": [{"name", "kind", "purpose", "interface", '
                '"depends", "examples": [{"call", "args", "expect"}]}, ...]}',
            ) from error


def _module(value: Mapping[str, Any]) -> Module:
    return Module(
        str(value["name"]),
        str(value["kind"]),
        str(value.get("purpose", "")),
        tuple(map(str, value["interface"])),
        tuple(map(str, value.get("depends", ()))),
        tuple(read_example(e) for e in value.get("examples", ())),
        float(value.get("cost", 1.0)),
    )


def read_example(value: Mapping[str, Any]) -> Example:
    """Read ``{"call", "args", "expect"}``."""
    return Example(str(value["call"]), tuple(value["args"]), value["expect"])


def fenced(text: str, language: str) -> str | None:
    """Text of the first fenced block in a language, or of the first block at all.

    Parameters
    ----------
    text : str
    language : str
        As after the fence: ``"python"``, ``"json"``.

    Returns
    -------
    str or None
        None without any fence that is closed.
    """
    blocks = re.findall(r"^```[ \t]*(\w*)[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    named = [body for name, body in blocks if name.lower() == language]
    return next(iter(named or [body for _, body in blocks]), None)
