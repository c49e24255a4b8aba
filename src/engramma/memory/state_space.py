"""A selective state-space layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engramma.memory import delta
from engramma.memory.attention import check_heads, merge_heads, split_heads
from engramma.memory.convolution import ShortConvolution
from engramma.memory.layer import MemoryLayer, State, join, part


class StateSpace(MemoryLayer):
    r"""Selective state space with a scalar decay a head (Mamba-2: Dao & Gu 2024, arXiv:2405.21060).

    With step width :math:`\Delta_t = \mathrm{softplus}(W_\Delta x_t + d)`, per head:

    .. math:: S_t = e^{-\Delta_t e^a} S_{t-1} + \Delta_t B_t x_t^T, \quad
              y_t = S_t^T C_t + D \odot x_t

    B and C (``state`` numbers) are shared by the heads; x, B and C pass a short convolution. The
    output is gated by SiLU, normalised and projected. It is gated linear attention with
    k = B, q = C, :math:`\beta = \Delta`.

    Parameters
    ----------
    dim : int
    heads : int
    state : int, optional
        Numbers per channel; ``dim // heads`` by default, so that the state is as large as that of
        the matrix memories.
    """

    def __init__(self, dim: int = 64, heads: int = 4, state: int | None = None) -> None:
        super().__init__(dim)
        self.heads, self.head_dim = heads, check_heads(dim, heads)
        self.state = state or self.head_dim
        self.widths = [dim, self.state, self.state]
        self.project = nn.Linear(dim, sum(self.widths), bias=False)
        self.convolution = ShortConvolution(sum(self.widths), 4)
        self.width = nn.Linear(dim, heads)
        self.log_speed = nn.Parameter(torch.linspace(1, 16, heads).log())
        self.skip = nn.Parameter(torch.ones(dim))
        self.gate = nn.Linear(dim, dim, bias=False)
        self.norm = nn.RMSNorm(dim)
        self.output = nn.Linear(dim, dim, bias=False)
        with torch.no_grad():  # step widths from 0.001 to 0.1
            self.width.bias.copy_(torch.logspace(-3, -1, heads).expm1().log())

    def initial_state(self, batch: int) -> State:
        """Zeros."""
        memory = self.skip.new_zeros(batch, self.heads, self.state, self.head_dim)
        return {"memory": memory, **join(recent=self.convolution.initial_state(batch))}

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All tokens of a piece, in chunks."""
        mixed, recent = self.convolution(self.project(x), part(state, "recent"))
        v, k, q = mixed.split(self.widths, -1)
        k, q = (t.unsqueeze(1).expand(-1, self.heads, -1, -1) for t in (k, q))
        width, log_decay = (t.transpose(1, 2) for t in self._gates(x))
        y, memory = delta.linear_attention(
            q, k, split_heads(v, self.heads), width, log_decay, state["memory"]
        )
        y = merge_heads(y) + self.skip * v
        return self._finish(y, x), {"memory": memory, **join(recent=recent)}

    def token(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One token."""
        mixed, recent = self.convolution.step(self.project(x), part(state, "recent"))
        v, k, q = mixed.split(self.widths, -1)
        k, q = (t.unsqueeze(1).expand(-1, self.heads, -1) for t in (k, q))
        y, memory = delta.linear_attention_step(
            q, k, v.unflatten(-1, (self.heads, -1)), *self._gates(x), state["memory"]
        )
        return self._finish(y.flatten(1) + self.skip * v, x), {
            "memory": memory,
            **join(recent=recent),
        }

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        width = F.softplus(self.width(x))
        return width, -width * self.log_speed.exp()

    def _finish(self, y: Tensor, x: Tensor) -> Tensor:
        return self.output(self.norm(y * F.silu(self.gate(x))))
