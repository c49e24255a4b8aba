"""Layers around one matrix memory a head: linear attention, DeltaNet, gated DeltaNet.

They are the strong baselines of every recurrent memory: same projections, convolutions and output,
with one of two write rules and with or without decay.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engramma.errors import ConfigError
from engramma.memory import delta
from engramma.memory.attention import check_heads, merge_heads, split_heads
from engramma.memory.convolution import ShortConvolution
from engramma.memory.layer import MemoryLayer, State, join, part


class MatrixMemory(MemoryLayer):
    r"""Write a value at a key, read it with a query.

    q, k, v are linear in the input, pass a short convolution and SiLU; q and k are brought to
    length 1. Per head and token, :math:`\beta = \sigma(W_b x)` is how much is written, and with
    ``gated``, :math:`\log\gamma = -e^{a}\,\mathrm{softplus}(W_a x + d)` how much is kept. The
    output is normalised per head, gated by :math:`\mathrm{SiLU}(W_g x)` and projected.

    Parameters
    ----------
    dim : int
    heads : int
    key_dim, value_dim : int, optional
        Width of a head's keys and values; ``dim // heads`` by default. The state is
        heads x key_dim x value_dim numbers.
    rule : {"delta", "add"}
        Replace what the key holds, or add to it.
    gated : bool
        Whether old content decays.
    convolution : int
        Tokens of the short convolution.
    chunk : int
        Tokens worked on at once; changes the time only.
    """

    def __init__(
        self,
        dim: int = 64,
        heads: int = 4,
        *,
        key_dim: int | None = None,
        value_dim: int | None = None,
        rule: Literal["delta", "add"] = "delta",
        gated: bool = True,
        convolution: int = 4,
        chunk: int = delta.CHUNK,
    ) -> None:
        super().__init__(dim)
        if rule not in ("delta", "add"):
            raise ConfigError(f"there is no rule {rule!r}", mend="use 'delta' or 'add'")
        self.heads, self.rule, self.gated, self.chunk = heads, rule, gated, chunk
        self.key_dim = key_dim or check_heads(dim, heads)
        self.value_dim = value_dim or check_heads(dim, heads)
        widths = [heads * self.key_dim, heads * self.key_dim, heads * self.value_dim]
        self.widths = widths
        self.project = nn.Linear(dim, sum(widths), bias=False)
        self.convolution = ShortConvolution(sum(widths), convolution)
        self.rate = nn.Linear(dim, heads, bias=False)
        if gated:
            self.decay = nn.Linear(dim, heads)
            self.log_speed = nn.Parameter(torch.zeros(heads))
            # Half-lives from some seven hundred tokens to seven, as in Mamba-2.
            start = torch.logspace(-3, -1, heads, dtype=torch.float32)
            with torch.no_grad():
                self.decay.bias.copy_(start.expm1().log())
        self.gate = nn.Linear(dim, widths[2], bias=False)
        self.norm = nn.RMSNorm(self.value_dim)
        self.output = nn.Linear(widths[2], dim, bias=False)

    def initial_state(self, batch: int) -> State:
        """Empty memory."""
        memory = self.gate.weight.new_zeros(batch, self.heads, self.key_dim, self.value_dim)
        return {"memory": memory, **join(recent=self.convolution.initial_state(batch))}

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All tokens of a piece, in chunks."""
        mixed, recent = self.convolution(self.project(x), part(state, "recent"))
        q, k, v = (split_heads(t, self.heads) for t in mixed.split(self.widths, -1))
        rule = delta.delta_rule if self.rule == "delta" else delta.linear_attention
        rate, log_decay = (t.transpose(1, 2) for t in self._gates(x))
        y, memory = rule(*self._unit(q, k), v, rate, log_decay, state["memory"], chunk=self.chunk)
        y = merge_heads(self.norm(y)) * F.silu(self.gate(x))
        return self.output(y), {"memory": memory, **join(recent=recent)}

    def token(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One token."""
        mixed, recent = self.convolution.step(self.project(x), part(state, "recent"))
        q, k, v = (t.unflatten(-1, (self.heads, -1)) for t in mixed.split(self.widths, -1))
        rule = delta.delta_rule_step if self.rule == "delta" else delta.linear_attention_step
        y, memory = rule(*self._unit(q, k), v, *self._gates(x), state["memory"])
        y = self.norm(y).flatten(1) * F.silu(self.gate(x))
        return self.output(y), {"memory": memory, **join(recent=recent)}

    def _unit(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return F.normalize(q, dim=-1), F.normalize(k, dim=-1)

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rate of writing and logarithm of what is kept, per head."""
        rate = torch.sigmoid(self.rate(x))
        if not self.gated:
            return rate, torch.zeros_like(rate)
        return rate, -self.log_speed.exp() * F.softplus(self.decay(x))


class LinearAttention(MatrixMemory):
    """Memory that adds without limit (Katharopoulos et al. 2020, arXiv:2006.16236)."""

    def __init__(self, dim: int = 64, heads: int = 4, **options: int | None) -> None:
        super().__init__(dim, heads, rule="add", gated=False, **options)  # type: ignore[arg-type]


class DeltaNet(MatrixMemory):
    """Memory that replaces (Schlag et al. 2021; Yang et al. 2024, arXiv:2406.06484)."""

    def __init__(self, dim: int = 64, heads: int = 4, **options: int | None) -> None:
        super().__init__(dim, heads, rule="delta", gated=False, **options)  # type: ignore[arg-type]


class GatedDeltaNet(MatrixMemory):
    """Memory that replaces and decays (Yang et al. 2025, arXiv:2412.06464)."""

    def __init__(self, dim: int = 64, heads: int = 4, **options: int | None) -> None:
        super().__init__(dim, heads, rule="delta", gated=True, **options)  # type: ignore[arg-type]
