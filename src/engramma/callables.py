"""Rooms that can be called: ``engramma.study(data)`` although ``engramma.study`` is a package.

Python binds a package to its parent when it is first imported, and so hides a function of the same
name. Making the package itself callable lets both names live.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A package that passes calls on to one of its functions."""

    _target: tuple[str, str]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        module, function = self._target
        return getattr(importlib.import_module(module), function)(*args, **kwargs)


def make_callable(package: str, module: str, function: str) -> None:
    """Make ``package(...)`` mean ``module.function(...)``."""
    found = sys.modules[package]
    found.__class__ = CallableModule
    found._target = (module, function)  # type: ignore[attr-defined]
