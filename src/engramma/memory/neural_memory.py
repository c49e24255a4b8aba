r"""A memory that is the weights of a small network, trained while it reads (Behrouz et al. 2025).

Each head keeps a network M of L layers, :math:`z^l = a^{l-1} W^l` and
:math:`a^l = \mathrm{SiLU}(z^l)`, without SiLU after the last. A token writes its value v at its key
k by one step of gradient descent on :math:`\|M(k) - v\|^2` with momentum :math:`\eta`, weight decay
:math:`\alpha` and step :math:`\theta`, all of its own:

.. math:: S_t = \eta_t S_{t-1} - \theta_t u_t, \quad W_t = (1 - \alpha_t) W_{t-1} + S_t, \quad
          y_t = M_{W_t}(q_t).

Within a chunk the gradients u are taken at the weights :math:`\bar W` of its start. Each is of rank
one, :math:`u_i^l = (a_i^{l-1})^T \delta_i^l`, with :math:`\delta` from backpropagation. Unrolled,
with :math:`L^\beta_{ti} = \prod_{j=i+1}^t (1 - \alpha_j)`, :math:`L^\eta` likewise,
:math:`\beta_t = \prod_{j \le t} (1 - \alpha_j)`, :math:`h_t = \prod_{j \le t} \eta_j`,
:math:`G = L^\beta L^\eta` and :math:`c = L^\beta h`,

.. math:: W_t^l = \beta_t W_0^l + c_t S_0^l - \sum_{i \le t} G_{ti} \theta_i u_i^l, \quad
          S_t^l = h_t S_0^l - \sum_{i \le t} L^\eta_{ti} \theta_i u_i^l,

so that every token reads through its own weights without these ever being formed: layer by layer,

.. math:: z_t^l = \beta_t a_t W_0^l + c_t a_t S_0^l
          - \sum_{i \le t} G_{ti} \theta_i \langle a_t, a_i^{l-1} \rangle \delta_i^l

is masked linear attention from the activations of the queries to those of the keys. This is exact
for networks of any depth. W and S may be those of any token, also within an open chunk, as long as
the gradients are taken at :math:`\bar W`; so a sequence can be cut anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engramma.errors import ConfigError, DataError
from engramma.memory.layer import State
from engramma.memory.scan import decay_matrix

#: Derivative of the inner objective by the prediction: ``slope(prediction, v)``.
Slope = Callable[[Tensor, Tensor], Tensor]


def squared_error_slope(prediction: Tensor, v: Tensor) -> Tensor:
    """Differentiate the squared distance of the prediction to v."""
    return 2 * (prediction - v)


class Gates(NamedTuple):
    """How each token writes; all of shape (batch, head, token).

    Attributes
    ----------
    log_keep : Tensor
        Logarithm of the kept share of the weights, log(1 - alpha).
    log_momentum : Tensor or None
        Logarithm of eta; None for a memory without momentum.
    step : Tensor
        Step length theta.
    """

    log_keep: Tensor
    log_momentum: Tensor | None
    step: Tensor


def network(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """Apply the network of these weights (..., in, out), SiLU between, to x (..., token, in)."""
    for index, weight in enumerate(weights):
        x = (F.silu(x) if index else x) @ weight
    return x


def token_gradients(
    weights: Sequence[Tensor], k: Tensor, v: Tensor, slope: Slope = squared_error_slope
) -> tuple[list[Tensor], list[Tensor]]:
    """Gradient of each token's inner loss by each weight matrix, as factors of its rank-one form.

    Parameters
    ----------
    weights : sequence of Tensor, shape (..., in, out)
    k : Tensor, shape (..., token, in)
    v : Tensor, shape (..., token, out)
    slope : callable
        Derivative of the loss by the prediction.

    Returns
    -------
    inputs, deltas : list of Tensor, shapes (..., token, in) and (..., token, out)
        For each layer; the gradient of token i is the outer product of ``inputs[i]`` and
        ``deltas[i]``.
    """
    inputs, slopes = [k], []
    z = k @ weights[0]
    for weight in weights[1:]:
        share = torch.sigmoid(z)
        a = z * share
        slopes.append(share + a * (1 - share))  # of SiLU
        inputs.append(a)
        z = a @ weight
    deltas = [slope(z, v)]
    for weight, derivative in zip(reversed(weights[1:]), reversed(slopes), strict=True):
        deltas.append((deltas[-1] @ weight.mT) * derivative)
    return inputs, deltas[::-1]


def squared_norm(inputs: Sequence[Tensor], deltas: Sequence[Tensor]) -> Tensor:
    """Squared norm of each token's gradient over all layers, from its factors: (..., token)."""
    squares = [a.square().sum(-1) * d.square().sum(-1) for a, d in zip(inputs, deltas, strict=True)]
    return torch.stack(squares).sum(0)


class Mixing(NamedTuple):
    """How gradients and the state before a block make up the weights in it.

    ``n`` blocks of ``token`` tokens; names are those of the module's equations.

    Attributes
    ----------
    beta, c, h : Tensor, shape (rows, n, token, 1)
        ``c`` and ``h`` are None without momentum.
    weight : Tensor or None, shape (rows, n, token, token)
        G times theta; None where only the end of a block matters.
    weight_end, momentum_end : Tensor, shape (rows, n, token, 1)
        Rows of G times theta and of L_eta times theta at the last token of each block.
    """

    beta: Tensor
    c: Tensor | None
    h: Tensor | None
    weight: Tensor | None
    weight_end: Tensor
    momentum_end: Tensor | None


def mix(gates: Gates, block: int, inside: bool = True) -> Mixing:
    """Unroll the two recurrences in blocks.

    Parameters
    ----------
    gates : Gates, shape (rows, token)
    block : int
        Tokens a block; the last may be shorter.
    inside : bool
        Whether weights within the block are needed, and not only those at its end.
    """
    length = gates.step.shape[-1]
    log_keep, log_momentum, step = (
        None if t is None else F.pad(t, (0, -length % block)).unflatten(-1, (-1, block))
        for t in gates
    )
    assert log_keep is not None and step is not None
    n = log_keep.shape[1]
    last = torch.full((n,), block - 1)
    last[-1] = length - (n - 1) * block - 1
    each = torch.arange(n)
    beta = log_keep.cumsum(-1).exp().unsqueeze(-1)
    keep = decay_matrix(log_keep)
    if log_momentum is None:
        weight_end = (keep[:, each, last] * step).unsqueeze(-1)
        inner = keep * step.unsqueeze(-2) if inside else None
        return Mixing(beta, None, None, inner, weight_end, None)
    h = log_momentum.cumsum(-1).exp().unsqueeze(-1)
    stay = decay_matrix(log_momentum)
    momentum_end = (stay[:, each, last] * step).unsqueeze(-1)
    if not inside:
        row = keep[:, each, last].unsqueeze(-2)
        weight_end = (row @ stay).mT * step.unsqueeze(-1)
        return Mixing(beta, keep @ h, h, None, weight_end, momentum_end)
    inner = (keep @ stay) * step.unsqueeze(-2)
    return Mixing(beta, keep @ h, h, inner, inner[:, each, last].unsqueeze(-1), momentum_end)


class NeuralMemory(nn.Module):
    """Weights of one network a head, written by gradient descent and read by a forward pass.

    Its state holds the weights now, their momentum, the weights at the start of the open chunk
    (at which gradients are taken), and how many tokens the open chunk has.

    Parameters
    ----------
    heads : int
    dim : int
        Width of a head's keys, values and queries.
    depth : int
        Layers of the network; 1 is a matrix.
    expansion : float
        Width of its hidden layers, as a multiple of ``dim``.
    chunk : int
        Tokens whose gradients are taken at the same weights. 1 is online gradient descent.
    readout : {"token", "lagged"}
        Whether a token reads through its own weights or those at the start of its chunk.
    momentum : bool
        Without, S_t is only the last gradient step, and no momentum is kept.
    block : int
        Tokens worked on at once, at most; changes the time only. The largest number that divides
        the chunk is taken.
    slope : callable
        Derivative of the inner objective by the prediction; of the squared distance by default.
    largest_gradient : float, optional
        Longer gradients of a token are brought to this norm. Steps too large then spoil the memory,
        but do not grow without bound.
    """

    def __init__(
        self,
        heads: int,
        dim: int,
        *,
        depth: int = 2,
        expansion: float = 2.0,
        chunk: int = 16,
        readout: Literal["token", "lagged"] = "token",
        momentum: bool = True,
        block: int = 64,
        slope: Slope = squared_error_slope,
        largest_gradient: float | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"depth": depth, "chunk": chunk, "block": block, "heads": heads}.items():
            if value < 1:
                raise ConfigError(f"{name} is at least 1, not {value}", where=name)
        if readout not in ("token", "lagged"):
            raise ConfigError(f"there is no readout {readout!r}", mend="use 'token' or 'lagged'")
        if largest_gradient is not None and not largest_gradient > 0:
            raise ConfigError(f"gradients cannot be as short as {largest_gradient}")
        self.heads, self.dim, self.depth, self.chunk = heads, dim, depth, chunk
        self.readout, self.momentum, self.slope = readout, momentum, slope
        self.largest_gradient = largest_gradient
        # Blocks fill a chunk, so that all are as long.
        self.block = max(n for n in range(1, min(block, chunk) + 1) if chunk % n == 0)
        widths = [dim, *[round(expansion * dim)] * (depth - 1), dim]
        self.weights = nn.ParameterList(
            torch.randn(heads, n_in, n_out) * n_in**-0.5 for n_in, n_out in pairwise(widths)
        )

    def initial_state(self, batch: int) -> State:
        """Return the learned initial weights, without momentum."""
        state: State = {}
        for index, weight in enumerate(self.weights):
            own = weight.expand(batch, *weight.shape)
            state |= {f"weight.{index}": own, f"base.{index}": own}
            if self.momentum:
                state[f"momentum.{index}"] = torch.zeros_like(own)
        state["seen"] = torch.zeros(batch, dtype=torch.long, device=self.weights[0].device)
        return state

    def read(self, q: Tensor, state: State, *, lagged: bool = False) -> Tensor:
        """Read without writing.

        Parameters
        ----------
        q : Tensor, shape (batch, head, token, dim)
        state : State
        lagged : bool
            Through the weights at the start of the open chunk, and not those of now.
        """
        return network(self._take(state, "base" if lagged else "weight"), q)

    def write(self, k: Tensor, v: Tensor, gates: Gates, state: State) -> tuple[State, Tensor]:
        """Write without reading: the next state and the surprise, as `forward` returns them."""
        _, state, surprise = self(None, k, v, gates, state)
        return state, surprise

    def forward(
        self, q: Tensor | None, k: Tensor, v: Tensor, gates: Gates, state: State
    ) -> tuple[Tensor, State, Tensor]:
        """Write and read a piece of a sequence, of any length.

        Parameters
        ----------
        q, k, v : Tensor, shape (batch, head, token, dim)
            Without ``q`` nothing is read.
        gates : Gates, shape (batch, head, token)
        state : State

        Returns
        -------
        y : Tensor, shape (batch, head, token, dim)
            Empty if nothing is read.
        state : State
        surprise : Tensor, shape (batch, head, token)
            Norm of each token's gradient, detached.
        """
        if (gates.log_momentum is not None) != self.momentum:
            raise ConfigError(
                "the gates do not fit", where="momentum", mend="give eta if momentum is used"
            )
        rows = k.shape[:2]
        seen = self._seen(state)
        flat = [None if t is None else t.flatten(0, 1) for t in (q, k, v, *gates)]
        now = {name: [t.flatten(0, 1) for t in self._take(state, name)] for name in self._names}
        outputs: list[Tensor] = []
        surprise: list[Tensor] = []
        length, left = k.shape[2], (self.chunk - seen) % self.chunk
        for start, stop in ((0, min(left, length)), (left, length)):
            if start < stop:
                part = [None if t is None else t[:, start:stop] for t in flat]
                self._chunks(part, now, seen if start == 0 else 0, outputs, surprise)
        y = torch.cat(outputs, 1) if outputs else k[:, :, :0].flatten(0, 1)
        state = {
            f"{name}.{index}": t.unflatten(0, rows)
            for name, tensors in now.items()
            for index, t in enumerate(tensors)
        } | {"seen": (state["seen"] + length) % self.chunk}
        return y.unflatten(0, rows), state, torch.cat(surprise, 1).unflatten(0, rows)

    def _chunks(
        self,
        part: list[Tensor | None],
        now: dict[str, list[Tensor]],
        seen: int,
        outputs: list[Tensor],
        surprise: list[Tensor],
    ) -> None:
        """Go through chunks, the first of which may be open; ``now`` is changed in place."""
        q, k, v = part[:3]
        gates = Gates(*part[3:])  # type: ignore[arg-type]
        assert k is not None and v is not None
        inside = q is not None and self.readout == "token"
        mixing = iter(_blocks(mix(gates, self.block, inside), k.shape[1]))
        # Split once, and not sliced again and again: the gradient of a slice is as long as the
        # whole.
        queries = [None] * k.shape[1] if q is None else q.split(self.chunk, 1)
        for q_, k_, v_ in zip(
            queries, k.split(self.chunk, 1), v.split(self.chunk, 1), strict=False
        ):
            base = now["base"]
            inputs, deltas = token_gradients(base, k_, v_, self.slope)
            deltas = self._shorten(inputs, deltas, surprise)
            if q_ is not None and not inside:
                outputs.append(network(base, q_))
            asked = [None] * k_.shape[1] if q_ is None else q_.split(self.block, 1)
            a_blocks, d_blocks = (
                zip(*(t.split(self.block, 1) for t in ts), strict=True) for ts in (inputs, deltas)
            )
            for own, a, d in zip(asked, a_blocks, d_blocks, strict=False):
                at = next(mixing)
                if inside and own is not None:
                    outputs.append(_read(own, now, a, d, at))
                _write(now, a, d, at)
            if seen + k_.shape[1] == self.chunk:
                now["base"] = list(now["weight"])
                seen = 0

    def _shorten(
        self, inputs: list[Tensor], deltas: list[Tensor], surprise: list[Tensor]
    ) -> list[Tensor]:
        """Note the norm of each gradient, and bring those that are too long to the largest."""
        if self.largest_gradient is None:
            with torch.no_grad():
                surprise.append(squared_norm(inputs, deltas).sqrt())
            return deltas
        square = squared_norm(inputs, deltas)
        surprise.append(square.detach().sqrt())
        scale = self.largest_gradient * square.clamp(min=self.largest_gradient**2).rsqrt()
        return [scale.unsqueeze(-1) * d for d in deltas]

    @property
    def _names(self) -> tuple[str, ...]:
        return ("weight", "base", "momentum") if self.momentum else ("weight", "base")

    def _take(self, state: State, name: str) -> list[Tensor]:
        return [state[f"{name}.{index}"] for index in range(self.depth)]

    def _seen(self, state: State) -> int:
        seen = state["seen"]
        if not len(seen):
            return 0
        if bool((seen != seen[0]).any()):
            raise DataError(
                f"sequences of one batch are {seen.tolist()} tokens into their chunks",
                where="seen",
                mend="put states in one batch that have seen equally many tokens",
            )
        return int(seen[0])


def _blocks(mixing: Mixing, length: int) -> list[Mixing]:
    """Give each block its own mixing, the last cut to what is left of ``length`` tokens."""
    n, block = mixing.beta.shape[1:3]
    parts = [[None] * n if t is None else t.unbind(1) for t in mixing]
    blocks = [Mixing(*t) for t in zip(*parts, strict=True)]
    rest = length - (n - 1) * block
    if rest < block:
        last = Mixing(*(None if t is None else t[:, :rest] for t in blocks[-1]))  # type: ignore[arg-type]
        inner = None if last.weight is None else last.weight[..., :rest]
        blocks[-1] = last._replace(weight=inner)
    return blocks


def _read(
    q: Tensor,
    now: dict[str, list[Tensor]],
    inputs: Sequence[Tensor],
    deltas: Sequence[Tensor],
    at: Mixing,
) -> Tensor:
    """Pass queries (rows x token x in) through the network, each token through its own weights."""
    assert at.weight is not None
    a = q
    for index, (key, delta) in enumerate(zip(inputs, deltas, strict=True)):
        z = (at.beta * a) @ now["weight"][index]
        if at.c is not None:
            z = torch.baddbmm(z, at.c * a, now["momentum"][index])
        z = torch.baddbmm(z, (a @ key.mT) * at.weight, delta, alpha=-1)
        a = z if index == len(inputs) - 1 else F.silu(z)
    return a


def _write(
    now: dict[str, list[Tensor]], inputs: Sequence[Tensor], deltas: Sequence[Tensor], at: Mixing
) -> None:
    """Weights and momentum after the block."""
    for index, (a, delta) in enumerate(zip(inputs, deltas, strict=True)):
        weight = at.beta[:, -1:] * now["weight"][index]
        if at.c is not None and at.h is not None and at.momentum_end is not None:
            momentum = now["momentum"][index]
            weight = torch.addcmul(weight, at.c[:, -1:], momentum)
            now["momentum"][index] = torch.baddbmm(
                at.h[:, -1:] * momentum, (at.momentum_end * a).mT, delta, alpha=-1
            )
        now["weight"][index] = torch.baddbmm(weight, (at.weight_end * a).mT, delta, alpha=-1)
