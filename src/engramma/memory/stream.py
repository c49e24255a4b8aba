"""Feed a long stream to a layer piece by piece, for hours, with flat memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engramma.errors import DataError
from engramma.memory.layer import State, detach, load_state, save_state


class NonFiniteError(DataError):
    """An output or a state is no longer a number.

    Attributes
    ----------
    token : int
        Index, from the start of the stream, of the first token whose output is not finite, or
        after which the state is not.
    state : State
        The last good state: before the piece that holds this token.
    """

    def __init__(self, token: int, what: str, state: State) -> None:
        self.token, self.state = token, state
        super().__init__(
            f"{what} is not finite",
            where=f"token {token} of the stream",
            mend="check the input there, or lower the inner learning rate; the error's .state "
            "is the last good one, from before the piece that holds this token",
        )


def stream(
    layer: Any,
    pieces: Iterable[Tensor],
    state: State | None = None,
    *,
    checkpoint: str | Path | None = None,
    every: int = 100,
) -> Iterator[tuple[Tensor, State]]:
    """Yield the outputs of each piece of a stream and the state after it.

    Nothing is kept but the state, and no graph: memory does not grow with the stream, unless the
    layer's own state does.

    Parameters
    ----------
    layer : SequenceLayer
        In the mode and precision it should run in.
    pieces : iterable of Tensor, shape (batch, token, dim)
        Of any lengths.
    state : State, optional
        To start from; by default that of the checkpoint if there is one, else of a fresh start.
    checkpoint : path, optional
        Where the state is written every ``every`` pieces and at the end. A stream that finds one
        skips the pieces it has seen, so ``pieces`` must come in the same order again.
    every : int

    Yields
    ------
    y : Tensor, shape (batch, token, dim)
    state : State

    Raises
    ------
    NonFiniteError
        If an output or the state is not finite: with the token's index and the last good state.
    """
    path = None if checkpoint is None else Path(checkpoint)
    token = done = 0
    if path is not None and path.exists() and state is None:
        state, token, done = _resume(path)
    written, seen = done, -1
    for seen, piece in enumerate(pieces):
        if seen < done:
            continue
        with torch.no_grad():
            y, after = layer(piece, state)
            if not _finite(y, after):
                raise _locate(layer, piece, state, token)
        state = detach(after)
        token += piece.shape[1]
        if path is not None and (seen + 1 - written) >= every:
            save_state(path, state, token=token, pieces=seen + 1)
            written = seen + 1
        yield y, state
    if path is not None and state is not None and seen + 1 > written:
        save_state(path, state, token=token, pieces=seen + 1)


def _resume(path: Path) -> tuple[State, int, int]:
    from safetensors import safe_open

    state = load_state(path)
    with safe_open(path, framework="pt") as file:
        about = file.metadata() or {}
    try:
        return state, int(about["token"]), int(about["pieces"])
    except (KeyError, ValueError) as error:
        raise DataError(
            "this is a state, but no checkpoint of a stream",
            where=str(path),
            mend="pass it as state=load_state(path), or name another checkpoint",
        ) from error


def _finite(y: Tensor, state: State) -> bool:
    tensors = [y, *(t for t in state.values() if t.is_floating_point())]
    return all(bool(torch.isfinite(t).all()) for t in tensors)


def _locate(layer: Any, piece: Tensor, state: State | None, offset: int) -> NonFiniteError:
    """Go through the piece again, token by token, for the first one that breaks it."""
    good = layer.initial_state(len(piece)) if state is None else state
    now = good
    for index in range(piece.shape[1]):
        with torch.no_grad():
            y, now = layer.step(piece[:, index], now)
        if not torch.isfinite(piece[:, index]).all():
            return NonFiniteError(offset + index, "the input", good)
        if not torch.isfinite(y).all():
            return NonFiniteError(offset + index, "the output", good)
        if not _finite(y, now):
            return NonFiniteError(offset + index, "the state", good)
    # The two forms may round differently: then only the piece is known.
    return NonFiniteError(offset + piece.shape[1] - 1, "the state", good)
