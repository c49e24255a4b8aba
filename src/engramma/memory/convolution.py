"""A short causal convolution over tokens, which remembers the last ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from engramma.memory.layer import MemoryLayer, State

#: Numbers of a tensor that is gone through several times while it stays in a core's cache.
CACHED = 2**18


class ShortConvolution(MemoryLayer):
    """Depthwise causal convolution, then SiLU.

    Parameters
    ----------
    dim : int
        Channels.
    width : int
        Tokens that each output sees, itself included (4 in all papers that use it).
    activation : bool
        Whether SiLU follows.
    """

    def __init__(self, dim: int, width: int = 4, activation: bool = True) -> None:
        super().__init__(dim)
        self.width, self.activation = width, activation
        self.weight = nn.Parameter(torch.empty(dim, 1, width))
        self.bias = nn.Parameter(torch.zeros(dim))
        nn.init.uniform_(self.weight, -(width**-0.5), width**-0.5)

    def initial_state(self, batch: int) -> State:
        """Zeros stand before the first token."""
        return {"recent": self.weight.new_zeros(batch, self.width - 1, self.dim)}

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Convolve; the last tokens become the state."""
        x = torch.cat([state["recent"], x], 1)
        y = _Convolve.apply(x, self.weight[:, 0].T, self.bias)
        return self._activate(y), {"recent": x[:, x.shape[1] - self.width + 1 :]}

    def token(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One output from the last tokens and this one."""
        window = torch.cat([state["recent"], x.unsqueeze(1)], 1)
        y = (window * self.weight[:, 0].T).sum(1) + self.bias
        return self._activate(y), {"recent": window[:, 1:]}

    def _activate(self, y: Tensor) -> Tensor:
        return F.silu(y) if self.activation else y


class _Convolve(torch.autograd.Function):
    """Sum over j of x[:, t + j] weight[j], and bias.

    With channels last in memory, a few passes over the input are some four times faster on a
    processor than ``conv1d`` with a group a channel and its gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        length = x.shape[1] - len(weight) + 1
        y = torch.addcmul(bias, x[:, :length], weight[0])
        for j in range(1, len(weight)):
            y.addcmul_(x[:, j : j + length], weight[j])
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        dx, dweight = torch.zeros_like(x), torch.zeros_like(weight)
        length, dim = dy.shape[1:]
        # So many sequences at once that what they need stays in cache.
        for rows in torch.arange(len(dy)).split(max(1, CACHED // (length * dim))):
            some = slice(int(rows[0]), int(rows[-1]) + 1)
            sums = dy.new_ones(len(rows) * length)
            for j in range(len(weight)):
                seen = slice(j, j + length)
                dx[some, seen].addcmul_(dy[some], weight[j])
                dweight[j] += sums @ (dy[some] * x[some, seen]).flatten(0, 1)
        return dx, dweight, dy.sum((0, 1))
