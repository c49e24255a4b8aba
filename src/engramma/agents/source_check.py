"""Reading generated Python without running it: what it imports, and whether it may be started.

The check is made for careless programs. It refuses imports that are not on a list, and the names
and attributes by which Python code reaches the interpreter's insides; `engramma.agents.sandbox`
enforces the same in the process where the program runs, by other means.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

#: Modules that a program may import: those that only compute.
ALLOWED = frozenset((
    "abc", "array", "bisect", "cmath", "collections", "copy", "dataclasses", "datetime",
    "decimal", "enum", "fractions", "functools", "hashlib", "heapq", "itertools", "json", "math",
    "numbers", "operator", "random", "re", "statistics", "string", "textwrap", "typing",
))  # fmt: skip
#: Names that reach past the syntax tree.
FORBIDDEN_NAMES = frozenset((
    "__builtins__", "__import__", "__loader__", "__spec__", "breakpoint", "compile", "delattr",
    "eval", "exec", "getattr", "globals", "help", "input", "locals", "setattr", "vars",
))  # fmt: skip
#: Attributes that lead out of a module or into a frame.
FORBIDDEN_ATTRIBUTES = frozenset((
    "ag_code", "ag_frame", "attrgetter", "builtins", "cr_code", "cr_frame", "f_back",
    "f_builtins", "f_code", "f_globals", "f_locals", "getframe", "gi_code", "gi_frame",
    "importlib", "io", "methodcaller", "modules", "os", "sys", "tb_frame", "tb_next",
))  # fmt: skip
ALLOWED_DUNDERS = frozenset((
    "__add__", "__call__", "__contains__", "__dict__", "__doc__", "__eq__", "__enter__",
    "__exit__", "__getitem__", "__hash__", "__init__", "__iter__", "__len__", "__lt__",
    "__name__", "__new__", "__next__", "__post_init__", "__repr__", "__str__",
))  # fmt: skip


def parse(source: str, most_kb: int = 256) -> ast.Module | str:
    """Syntax tree of a source, or a sentence on why it has none."""
    if len(source) > most_kb * 1024:
        return f"the source is longer than {most_kb} kB"
    try:
        return ast.parse(source)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"the source cannot be parsed: {error or type(error).__name__}"


def imports(tree: ast.AST) -> set[str]:
    """First parts of the names of all modules that are imported."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def refusal(tree: ast.AST, allowed: Iterable[str]) -> str:
    """Why a syntax tree is not started: the import or name it may not use; empty if it may run."""
    foreign = sorted(imports(tree) - {*allowed})
    if foreign:
        return f"import of {foreign[0] or 'a relative module'} is not allowed"
    for node in ast.walk(tree):
        where = f"line {getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ImportFrom) and node.level:
            return f"{where}: relative imports are not allowed"
        for name in _reached(node):
            if name == "*" or _leads_out(name):
                return f"{where}: {name} is not allowed"
    return ""


def _reached(node: ast.AST) -> list[str]:
    """Names and attributes that a node reads."""
    if isinstance(node, ast.Name):
        return [node.id] if node.id in FORBIDDEN_NAMES else []
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.MatchClass):
        return list(node.kwd_attrs)
    if isinstance(node, ast.ImportFrom):
        return [alias.name for alias in node.names]
    return []


def _leads_out(name: str) -> bool:
    dunder = name.startswith("__") and name.endswith("__") and name not in ALLOWED_DUNDERS
    return dunder or name in FORBIDDEN_NAMES or name.strip("_") in FORBIDDEN_ATTRIBUTES
