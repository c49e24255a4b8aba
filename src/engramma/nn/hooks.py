"""Read what the submodules of a network put out, without changing the network."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from engramma.errors import ConfigError


def list_modules(module: nn.Module) -> list[str]:
    """Names of all submodules, in the order in which they were defined."""
    return [name for name, _ in module.named_modules() if name]


def match_names(patterns: str | Iterable[str], names: Sequence[str], kind: str) -> list[str]:
    """Expand shell patterns (``"stage*"``) over ``names``; order follows the patterns.

    Parameters
    ----------
    patterns : str or iterable of str
        Exact names or patterns with ``*``, ``?`` and ``[...]``.
    names : sequence of str
        What there is.
    kind : str
        What the names are, for the error message.

    Raises
    ------
    ConfigError
        If a pattern matches nothing; names close to it are suggested.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    chosen: dict[str, None] = {}
    for pattern in patterns:
        found = [pattern] if pattern in names else [n for n in names if fnmatchcase(n, pattern)]
        if not found:
            close = difflib.get_close_matches(pattern, names, n=3)
            some = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            raise ConfigError(
                f"there is no layer {pattern!r}",
                where=kind,
                mend=f"did you mean {' or '.join(close)}?" if close else f"there are {some}",
            )
        chosen.update(dict.fromkeys(found))
    return list(chosen)


@contextmanager
def capture(
    module: nn.Module, names: Iterable[str], *, detach: bool = True
) -> Iterator[dict[str, torch.Tensor]]:
    """Collect the outputs of named submodules while the ``with`` block runs the network.

    Yields a dictionary that each forward pass fills: name to tensor, without gradients unless
    ``detach`` is false. Where a submodule puts out a tuple or a mapping, the first tensor in it is
    kept; where it is called more than once in a pass, the last call counts. The hooks are gone
    after the block, whatever happens in it.

    Raises
    ------
    ConfigError
        If there is no submodule of that name.
    """
    modules = dict(module.named_modules())
    wanted = match_names(names, [n for n in modules if n], type(module).__name__)
    outputs: dict[str, torch.Tensor] = {}
    handles = []

    def keeper(name: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = _first_tensor(output, name)
            outputs[name] = tensor.detach() if detach else tensor

        return keep

    try:
        for name in wanted:
            handles.append(modules[name].register_forward_hook(keeper(name)))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _first_tensor(output: Any, name: str) -> torch.Tensor:
    """Find the tensor in what a module returned."""
    if isinstance(output, torch.Tensor):
        return output
    values = output.values() if isinstance(output, Mapping) else output
    if isinstance(values, Iterable):
        for value in values:
            if isinstance(value, torch.Tensor):
                return value
    raise ConfigError(
        f"layer {name!r} puts out no tensor but {type(output).__name__}",
        mend="name a submodule of it",
    )
