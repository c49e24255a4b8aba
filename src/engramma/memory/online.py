r"""A memory that learns while it reads: any network, objective and retention, in chunks.

Each head keeps a small network M. A token writes its value v at its key k by one step on the
objective's gradient :math:`g_t` (`engramma.memory.objectives`), with a step length
:math:`\eta_t`, a kept share :math:`\alpha_t` and, with momentum, a share :math:`\mu_t`:

.. math:: m_t = \mu_t m_{t-1} - \eta_t g_t, \qquad S_t = \alpha_t S_{t-1} + m_t, \qquad
          W_t = \mathrm{map}(S_t), \qquad y_t = M_{W_t}(q_t),

where the map from coordinates S to weights W is that of the retention
(`engramma.memory.retention`); without momentum :math:`\mu = 0`.

**Chunks.** Within a chunk of b tokens all gradients are taken at the weights of its start,
:math:`\bar W`, so that they can be had at once, as factors (`engramma.memory.fast_networks`), and
the two recurrences unroll into sums over earlier tokens (`engramma.memory.neural_memory.mix`). What
the map does with nonlinear retentions:

- ``exact = "last"`` (`NormPower`, `ElasticNet`): S runs through the chunk; tokens inside it read
  :math:`S_t` times the factor from S to W at the chunk's start, the last token reads
  :math:`\mathrm{map}(S_b)`, and the next chunk's gradients are taken there.
- ``exact = "first"`` (`Entropy`, `Bregman`): the first token is a full step from the weights
  before it to :math:`W_1`, at which the gradients of all others are taken; from there
  :math:`W_t = \alpha_t W_{t-1} + m_t`. The next full step starts from the coordinates of
  :math:`W_b`, brought back to where they exist.

With b = 1 every step is exact and nothing is stale. The state holds what an open chunk needs, so a
sequence can be cut anywhere.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from engramma.errors import ConfigError, DataError
from engramma.memory import neural_memory
from engramma.memory.fast_networks import FastNetwork, network
from engramma.memory.layer import State
from engramma.memory.objectives import Objective, objective
from engramma.memory.retention import Retention, retention, soft_threshold


class Writing(NamedTuple):
    """How each token writes: (batch, head, token, 1), or a number for each output of each map.

    Attributes
    ----------
    step : Tensor
        Step length eta.
    log_keep : Tensor, optional
        Logarithm of the kept share alpha, for retentions that are ``gated``.
    log_momentum : Tensor, optional
        Logarithm of mu, with momentum.
    threshold : Tensor, optional
        delta, for objectives that are ``thresholded``: one number, or one for each channel.
    """

    step: Tensor
    log_keep: Tensor | None = None
    log_momentum: Tensor | None = None
    threshold: Tensor | None = None


class Piece(NamedTuple):
    """Tokens of one chunk: from and up to, and whether they begin and end it."""

    start: int
    stop: int
    first: bool
    last: bool


class Unrolled(NamedTuple):
    """How gradients and the state before a piece make up the state in it, for one map.

    Names are those of the module's equations; ``out`` is 1 if all outputs share their gates.

    Attributes
    ----------
    keep, carry, stay : Tensor, shape (rows, token, out)
        Of S before the piece in S, of m in S, and of m in m. The last two only with momentum.
    inner : Tensor, shape (rows, out, token, token)
        Of earlier tokens' gradients in S.
    end, momentum_end : Tensor, shape (rows, token, out)
        Of all gradients in S and m after the last token.
    """

    keep: Tensor
    carry: Tensor | None
    stay: Tensor | None
    inner: Tensor
    end: Tensor
    momentum_end: Tensor | None


class OnlineMemory(nn.Module):
    """One network a head, written and read token by token.

    Parameters
    ----------
    heads : int
    dim : int
        Width of a head's keys, values and queries.
    memory : {"matrix", "vector", "mlp"}
    bias : str or Objective
    retained : str or Retention
    momentum : bool
    chunk : int
        Tokens whose gradients are taken at the same weights.
    """

    def __init__(
        self,
        heads: int,
        dim: int,
        memory: str = "matrix",
        bias: str | Objective = "l2",
        retained: str | Retention = "l2",
        *,
        momentum: bool = False,
        chunk: int = 16,
    ) -> None:
        super().__init__()
        if chunk < 1:
            raise ConfigError(f"a chunk has at least 1 token, not {chunk}", where="chunk")
        self.heads, self.dim, self.momentum, self.chunk = heads, dim, momentum, chunk
        self.objective, self.retention = objective(bias), retention(retained)
        self.network: FastNetwork = network(memory, dim, self.retention.paired)
        #: Outputs of each map of the network.
        self.widths = [m.n_out for m in self.network.maps]
        # Weights of a single map start empty, those of a deep network are learned.
        start = [nn.Parameter(self.retention.start(w)) for w in self.network.initial(heads)]
        self.start = nn.ParameterList(start if self.network.deep else [])

    def initial_state(self, batch: int, like: Tensor | None = None) -> State:
        """State before the first token, in the precision and on the device of ``like``."""
        state: State = {}
        like = next(self.parameters(), torch.zeros(())) if like is None else like
        start = self.start if self.network.deep else self.network.initial(self.heads)
        for layer, first in enumerate(start):
            s = first.to(like).expand(batch, *first.shape)
            state[f"start.{layer}"] = s
            # The linear recurrence runs in weights where the full step comes first.
            runs = self.retention.weights(s) if self.retention.exact == "first" else s
            state[f"now.{layer}"] = runs
            if self.momentum:
                state[f"momentum.{layer}"] = torch.zeros_like(s)
        if self._shrinks:
            width = sum(self.widths)
            state["shrink"] = like.new_zeros(batch, self.heads, 1, width)
        state["seen"] = torch.zeros(batch, dtype=torch.long, device=like.device)
        return state

    def recurrent(self) -> OnlineMemory:
        """Return the same memory, parameters shared, with one token a chunk."""
        other = copy.copy(self)
        other.chunk = 1
        return other

    def weights(self, state: State) -> list[Tensor]:
        """Weights that are read after the last token, (batch, head, in, out), for each map."""
        now = _Now(state, len(self.widths), self.momentum)
        if self.retention.exact != "last":
            return now.run
        if _common(state["seen"]) == 0:
            return [self.retention.weights(s) for s in now.run]
        scales = [self.retention.scale(s) for s in now.start]
        return [s if f is None else s * f for s, f in zip(now.run, scales, strict=True)]

    def read(self, q: Tensor, state: State) -> Tensor:
        """Read without writing; q and the result are (batch, head, token, dim)."""
        weights = [w.flatten(0, 1) for w in self.weights(state)]
        maps = self.network.maps
        y = self.network.read(lambda i, a: maps[i].apply(weights[i], a), q.flatten(0, 1))
        return y.unflatten(0, q.shape[:2])

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, writing: Writing, state: State
    ) -> tuple[Tensor, State]:
        """Write and read a piece of a sequence, of any length.

        Parameters
        ----------
        q, k, v : Tensor, shape (batch, head, token, dim)
        writing : Writing
        state : State

        Returns
        -------
        y : Tensor, shape (batch, head, token, dim)
        state : State

        Raises
        ------
        ConfigError
            If ``writing`` holds what this memory does not use, or lacks what it does.
        """
        self._check(writing)
        rows, length = q.shape[:2], q.shape[2]
        seen = _common(state["seen"])
        q, k, v = (t.flatten(0, 1) for t in (q, k, v))
        writing = Writing(*(None if t is None else t.flatten(0, 1) for t in writing))  # type: ignore[arg-type]
        step, log_keep, shrink = self.retention.gates(writing.step, writing.log_keep)
        writing = writing._replace(step=step, log_keep=log_keep)
        now = _Now(
            {n: t.flatten(0, 1) for n, t in state.items() if n != "seen"},
            len(self.widths),
            self.momentum,
        )
        outputs = []
        for piece in self._pieces(seen, length):
            part = slice(piece.start, piece.stop)
            own = Writing(*(None if t is None else t[:, part] for t in writing))  # type: ignore[arg-type]
            gamma = None if shrink is None else shrink[:, part]
            run = self._full_step if self._leads(piece) else self._unrolled
            outputs.append(run(q[:, part], k[:, part], v[:, part], own, gamma, now, piece))
        after = {name: t.unflatten(0, rows) for name, t in now.state().items()}
        after["seen"] = (state["seen"] + length) % self.chunk
        return torch.cat(outputs, 1).unflatten(0, rows), after

    # -- pieces of chunks --------------------------------------------------------------------

    def _pieces(self, seen: int, length: int) -> Iterator[Piece]:
        """Cut a sequence at chunks, and behind the token of a full step that leads one."""
        start = 0
        while start < length:
            leads = self.retention.exact == "first" and seen == 0
            stop = min(start + (1 if leads else self.chunk - seen), length)
            after = seen + stop - start
            yield Piece(start, stop, seen == 0, after == self.chunk)
            start, seen = stop, after % self.chunk

    def _leads(self, piece: Piece) -> bool:
        return piece.first and self.retention.exact == "first"

    def _unrolled(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        writing: Writing,
        shrink: Tensor | None,
        now: _Now,
        piece: Piece,
    ) -> Tensor:
        """Tokens whose gradients are taken at the start of their chunk, all at once."""
        if piece.first:
            now.start = list(now.run)
        frozen = [self.retention.weights(s) for s in now.start]
        keys, deltas = self._gradients(frozen, k, v, writing)
        at = self._unroll(writing)
        before, momenta = list(now.run), list(now.momentum)
        for layer in range(len(keys)):
            self._write(now, layer, keys[layer], deltas[layer], at[layer])
        closing = self._close(now, writing, shrink, piece)
        scales = [self.retention.scale(s) for s in now.start]
        maps = self.network.maps

        def apply(layer: int, a: Tensor) -> Tensor:
            u = at[layer]
            z = u.keep * maps[layer].apply(before[layer], a)
            if u.carry is not None:
                z = z + u.carry * maps[layer].apply(momenta[layer], a)
            z = z - maps[layer].recall(u.inner, a, keys[layer], deltas[layer])
            scale = scales[layer]
            z = z if scale is None else z * scale
            if closing is None:
                return z
            return torch.cat([z[:, :-1], maps[layer].apply(closing[layer], a[:, -1:])], 1)

        return self.network.read(apply, q)

    def _full_step(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        writing: Writing,
        shrink: Tensor | None,
        now: _Now,
        piece: Piece,
    ) -> Tensor:
        """One token by the retention's own step."""
        if self.chunk > 1:
            now.start = [self.retention.coordinates(w) for w in now.run]
        keys, deltas = self._gradients(
            [self.retention.weights(s) for s in now.start], k, v, writing
        )
        at = self._unroll(writing)
        for layer, s in enumerate(now.start):
            now.run[layer] = s
            self._write(now, layer, keys[layer], deltas[layer], at[layer])
            now.start[layer] = self.retention.settle(now.run[layer])
            now.run[layer] = self.retention.weights(now.start[layer])
        return self.network.read(lambda i, a: self.network.maps[i].apply(now.run[i], a), q)

    def _gradients(
        self, weights: Sequence[Tensor], k: Tensor, v: Tensor, writing: Writing
    ) -> tuple[list[Tensor], list[Tensor]]:
        return self.network.gradients(
            weights, k, lambda y: self.objective.slope(y, v, writing.threshold)
        )

    def _write(self, now: _Now, layer: int, key: Tensor, delta: Tensor, u: Unrolled) -> None:
        """Coordinates and momentum of one map after the piece."""
        outer = self.network.maps[layer].outer
        after = u.keep[:, -1:] * now.run[layer] - outer(key, u.end * delta)
        if u.carry is not None:
            assert u.stay is not None and u.momentum_end is not None
            after = after + u.carry[:, -1:] * now.momentum[layer]
            now.momentum[layer] = u.stay[:, -1:] * now.momentum[layer] - outer(
                key, u.momentum_end * delta
            )
        now.run[layer] = after

    def _close(
        self, now: _Now, writing: Writing, shrink: Tensor | None, piece: Piece
    ) -> list[Tensor] | None:
        """Weights that the last token of a chunk reads, if the retention is exact there."""
        if shrink is not None:
            assert writing.log_keep is not None and now.shrink is not None
            left = writing.log_keep.flip(1).cumsum(1).flip(1)
            later = left - writing.log_keep
            own = (later.exp() * shrink).sum(1, keepdim=True)
            now.shrink = left[:, :1].exp() * now.shrink + own
        if not piece.last or self.retention.exact != "last":
            return None
        if shrink is None:
            return [self.retention.weights(s) for s in now.run]
        assert now.shrink is not None
        thresholds = now.shrink.split(self.widths, -1)
        now.run = [soft_threshold(s, t) for s, t in zip(now.run, thresholds, strict=True)]
        now.shrink = torch.zeros_like(now.shrink)
        return now.run

    def _unroll(self, writing: Writing) -> list[Unrolled]:
        """Unroll the recurrences of S and m over a piece, for each map."""
        rows, length, width = writing.step.shape
        as_rows = (
            None if t is None else t.mT.flatten(0, 1)
            for t in (writing.log_keep, writing.log_momentum, writing.step)
        )
        gates = neural_memory.Gates(*as_rows)  # type: ignore[arg-type]
        mixing = neural_memory.mix(gates, length)

        def tokens(t: Tensor | None) -> Tensor | None:
            return None if t is None else t.reshape(rows, width, length).mT

        assert mixing.weight is not None
        flat = (
            *(tokens(t) for t in (mixing.beta, mixing.c, mixing.h)),
            mixing.weight.reshape(rows, width, length, length),
            *(tokens(t) for t in (mixing.weight_end, mixing.momentum_end)),
        )
        if width == 1:
            return [Unrolled(*flat)] * len(self.widths)  # type: ignore[arg-type]
        parts = [
            [None] * len(self.widths)
            if t is None
            else t.split(self.widths, 1 if t.ndim == 4 else 2)
            for t in flat
        ]
        return [Unrolled(*of_map) for of_map in zip(*parts, strict=True)]

    @property
    def _shrinks(self) -> bool:
        return self.retention.gates(torch.ones(1), None)[2] is not None

    def _check(self, writing: Writing) -> None:
        """Refuse gates that do not belong to this memory."""
        needs = {
            "log_keep": (self.retention.gated, "the retention"),
            "log_momentum": (self.momentum, "the optimiser"),
            "threshold": (self.objective.thresholded, "the objective"),
        }
        for name, (needed, of) in needs.items():
            if (getattr(writing, name) is not None) != needed:
                raise ConfigError(
                    f"{of} {'needs' if needed else 'has no use for'} {name}",
                    where=f"{type(self.objective).__name__}, {type(self.retention).__name__}",
                    mend=f"{'give' if needed else 'leave out'} {name}",
                )


class _Now:
    """State of a memory while it goes through a sequence: lists over the maps of its network."""

    def __init__(self, state: State, layers: int, momentum: bool) -> None:
        self.start = [state[f"start.{i}"] for i in range(layers)]
        self.run = [state[f"now.{i}"] for i in range(layers)]
        self.momentum = [state[f"momentum.{i}"] for i in range(layers)] if momentum else []
        self.shrink = state.get("shrink")

    def state(self) -> State:
        """Flat names to tensors."""
        lists = {"start": self.start, "now": self.run, "momentum": self.momentum}
        state = {f"{name}.{i}": t for name, ts in lists.items() for i, t in enumerate(ts)}
        return state if self.shrink is None else state | {"shrink": self.shrink}


def _common(seen: Tensor) -> int:
    """How many tokens the open chunk has, the same for all sequences of a batch."""
    if len(seen) and bool((seen != seen[0]).any()):
        raise DataError(
            f"sequences of one batch are {seen.tolist()} tokens into their chunks",
            where="seen",
            mend="put states in one batch that have seen equally many tokens",
        )
    return int(seen[0]) if len(seen) else 0
