"""What all sequence layers share: states, their checks, and the two forms of one recurrence.

A layer maps a sequence (batch x token x dim) and a state to outputs of the same shape and the next
state. It does so in two forms that give the same numbers: ``forward`` works on a whole piece of the
sequence at once, ``step`` on one token. A state is a flat mapping of names to tensors whose first
dimension is the batch, so that it can be saved, detached, sliced and compared without knowing the
layer it belongs to.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from engramma.errors import ConfigError, DataError

#: Names to tensors, batch first.
State = dict[str, Tensor]


class MemoryLayer(nn.Module):
    """Base of the layers that fulfil `engramma.contracts.SequenceLayer`.

    A subclass implements `initial_state`, `sequence` (a piece of any length at once) and `token`
    (one token); this class checks what comes in, and offers them as `forward` and `step`.

    Parameters
    ----------
    dim : int
        Width of inputs and outputs.

    Attributes
    ----------
    growing : mapping of str to int
        State tensors that become longer as tokens come in, and the dimension that grows; all
        others keep their shape, however long the stream.
    """

    growing: ClassVar[Mapping[str, int]] = {}

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Keep the arguments, so that `fresh` can make more of the same."""
        layer = super().__new__(cls)
        object.__setattr__(layer, "_arguments", (args, options))
        return layer

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ConfigError(f"a layer needs a width of at least 1, not {dim}", where="dim")
        self.dim = dim

    # -- what a layer implements -----------------------------------------------------------

    def initial_state(self, batch: int) -> State:
        """Return the state before the first token, in the precision of the parameters."""
        raise NotImplementedError

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map a piece of the sequence (batch x token x dim) to outputs and the state after it."""
        raise NotImplementedError

    def token(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map one token (batch x dim) to its output and the state after it."""
        raise NotImplementedError

    def fresh(self, **changes: Any) -> Self:
        """Make another layer of the same configuration, with initial weights of its own.

        Parameters
        ----------
        **changes
            Constructor arguments to replace, such as ``dim``.
        """
        args, options = self.__dict__["_arguments"]
        given = inspect.signature(type(self)).bind(*args, **options)
        named = given.arguments.pop("options", {})
        return type(self)(**{**given.arguments, **named, **changes})

    # -- what it is used by ----------------------------------------------------------------

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map a piece of a sequence and a state to outputs and the next state.

        Parameters
        ----------
        x : Tensor, shape (batch, token, dim)
            Of any length, none included.
        state : State, optional
            As an earlier call returned it; by default that of a sequence's start.

        Returns
        -------
        y : Tensor, shape (batch, token, dim)
        state : State

        Raises
        ------
        DataError
            If ``x`` or ``state`` has another shape than the layer takes; both are named.
        """
        self._check_input(x, 3, "batch x token x dim")
        state = self._state(state, len(x))
        if x.shape[1] == 0:
            return x, state
        return self.sequence(x, state)

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map one token (batch x dim) and a state to its output and the next state."""
        self._check_input(x, 2, "batch x dim")
        return self.token(x, self._state(state, len(x)))

    def run(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """As `forward`, token by token: slow, and what `forward` is held against."""
        self._check_input(x, 3, "batch x token x dim")
        state = self._state(state, len(x))
        outputs = []
        for token in x.unbind(1):
            y, state = self.token(token, state)
            outputs.append(y)
        return (torch.stack(outputs, 1) if outputs else x), state

    def _check_input(self, x: Tensor, n_dims: int, layout: str) -> None:
        if x.ndim != n_dims or x.shape[-1] != self.dim:
            raise DataError(
                f"the input has shape {tuple(x.shape)}, where {layout} with dim = {self.dim} is "
                "needed",
                where=type(self).__name__,
                mend="give a batch of sequences to forward and a batch of tokens to step",
            )

    def _state(self, state: State | None, batch: int) -> State:
        expected = self.initial_state(batch)
        if state is None:
            return expected
        check_state(state, expected, self.growing, type(self).__name__)
        return state


def check_state(
    state: State, expected: State, growing: Mapping[str, int], where: str = "state"
) -> None:
    """Refuse a state that does not fit, naming both shapes.

    Raises
    ------
    DataError
        If a tensor is missing, unknown, or of another shape than ``expected`` (but along the
        dimension that ``growing`` names).
    """
    if state.keys() != expected.keys():
        missing = sorted(expected.keys() - state.keys())
        unknown = sorted(state.keys() - expected.keys())
        raise DataError(
            "the state is not one of this layer: "
            + "; ".join(
                [f"{', '.join(missing)} missing"] * bool(missing)
                + [f"{', '.join(unknown)} unknown"] * bool(unknown)
            ),
            where=where,
            mend="pass the state that this very layer returned",
        )
    for name, tensor in state.items():
        has, needs = list(tensor.shape), list(expected[name].shape)
        if name in growing and len(has) == len(needs):
            has[growing[name]] = needs[growing[name]] = -1
        if has != needs:
            raise DataError(
                f"the state {name!r} has shape {tuple(tensor.shape)}, and "
                f"{tuple(expected[name].shape)} is needed",
                where=where,
                mend="states belong to one layer and one batch size; start from None, or slice "
                "the batch of both",
            )


def state_size(state: State) -> int:
    """How many numbers a state holds for each sequence of the batch."""
    return sum(t.numel() // max(t.shape[0], 1) for t in state.values() if t.is_floating_point())


def detach(state: State) -> State:
    """Cut a state off the graph that made it, so that a stream's memory stays flat."""
    return {name: tensor.detach() for name, tensor in state.items()}


def join(**parts: State) -> State:
    """Put the states of several parts into one flat state: ``join(a=..., b=...)``."""
    return {f"{part}.{name}": t for part, state in parts.items() for name, t in state.items()}


def part(state: State, name: str) -> State:
    """Take the state of one part out of a state made by `join`."""
    prefix = name + "."
    return {k[len(prefix) :]: t for k, t in state.items() if k.startswith(prefix)}


def save_state(path: str | Path, state: State, **about: Any) -> None:
    """Write a state as safetensors, whole or not at all; ``about`` is kept as text beside it."""
    from safetensors.torch import save_file

    path = Path(path)
    work = path.with_name(path.name + ".part")
    tensors = {k: t.detach().cpu().contiguous().clone() for k, t in state.items()}
    save_file(tensors, work, metadata={k: str(v) for k, v in about.items()})
    work.replace(path)


def load_state(path: str | Path) -> State:
    """Read a state that `save_state` wrote.

    Raises
    ------
    DataError
        If there is none, or the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        # Cloned, as tensors inside a file are not aligned, which changes the last bit of products.
        return {name: tensor.clone() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"the state cannot be read ({error})", where=str(path), mend="start from None"
        ) from error
