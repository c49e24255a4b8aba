"""Softmax attention as a sequence layer: over all tokens, or over a window of the last ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engramma.errors import ConfigError
from engramma.memory.convolution import ShortConvolution
from engramma.memory.layer import MemoryLayer, State, join, part


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Batch x token x dim to batch x head x token x dim of a head."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Batch x head x token x dim of a head to batch x token x dim."""
    return x.transpose(1, 2).flatten(2)


def check_heads(dim: int, heads: int) -> int:
    """Return the width of a head.

    Raises
    ------
    ConfigError
        If ``dim`` is not a multiple of ``heads``.
    """
    if heads < 1 or dim % heads:
        raise ConfigError(
            f"a width of {dim} cannot be shared by {heads} heads",
            where="heads",
            mend="use a number of heads that divides the width",
        )
    return dim // heads


def rotate(x: Tensor, position: Tensor, base: float = 10_000.0) -> Tensor:
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864).

    Parameters
    ----------
    x : Tensor, shape (..., token, dim)
        Queries or keys; ``dim`` is even.
    position : Tensor, shape (token,)
    base : float
        Longest wavelength, divided by 2 pi.

    Returns
    -------
    Tensor, shape of x
        Inner products of two of them depend on the difference of their positions only.
    """
    half = x.shape[-1] // 2
    index = torch.arange(half, device=x.device, dtype=torch.float64)
    angle = position.to(torch.float64).unsqueeze(-1) * base ** (-index / half)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class _Attention(MemoryLayer):
    """Projections of both kinds of attention."""

    def __init__(self, dim: int, heads: int, rotary: bool, convolution: int) -> None:
        super().__init__(dim)
        self.head_dim = check_heads(dim, heads)
        self.heads, self.rotary = heads, rotary
        if rotary and self.head_dim % 2:
            raise ConfigError(
                f"rotary positions need heads of even width, not {self.head_dim}",
                where="heads",
                mend="use fewer heads, or rotary=False",
            )
        self.project = nn.Linear(dim, 3 * dim, bias=False)
        self.convolution = (
            ShortConvolution(3 * dim, convolution, activation=False) if convolution else None
        )
        self.output = nn.Linear(dim, dim, bias=False)

    def _recent(self, batch: int) -> State:
        """State of the convolution, if there is one."""
        if self.convolution is None:
            return {}
        return join(recent=self.convolution.initial_state(batch))

    def _heads(self, x: Tensor, state: State) -> tuple[list[Tensor], State]:
        """Return queries, keys and values, and the state of the convolution."""
        mixed, recent = self.project(x), {}
        if self.convolution is not None:
            mixed, after = self.convolution(mixed, part(state, "recent"))
            recent = join(recent=after)
        return [split_heads(t, self.heads) for t in mixed.chunk(3, -1)], recent

    def _place(self, x: Tensor, position: Tensor) -> Tensor:
        return rotate(x, position) if self.rotary else x

    def token(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One query against the keys in the state and its own."""
        y, state = self.sequence(x.unsqueeze(1), state)
        return y.squeeze(1), state


class SoftmaxAttention(_Attention):
    """Causal attention to all tokens so far (Vaswani et al. 2017); its state grows.

    Parameters
    ----------
    dim : int
    heads : int
    rotary : bool
        Whether positions are rotary; without, it knows no order but causality.
    convolution : int
        Tokens of a short convolution of queries, keys and values; 0 for none. Recurrent layers
        have one, which is half of what recall takes: a key finds its value beside it.
    """

    growing: ClassVar[Mapping[str, int]] = {"keys": 2, "values": 2}

    def __init__(
        self, dim: int = 64, heads: int = 4, rotary: bool = True, convolution: int = 0
    ) -> None:
        super().__init__(dim, heads, rotary, convolution)

    def initial_state(self, batch: int) -> State:
        """No keys and values yet."""
        empty = self.project.weight.new_zeros(batch, self.heads, 0, self.head_dim)
        return {"keys": empty, "values": empty, **self._recent(batch)}

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Attend to the keys of the state and to the earlier ones of this piece."""
        (q, k, v), recent = self._heads(x, state)
        k, v = torch.cat([state["keys"], k], 2), torch.cat([state["values"], v], 2)
        position = torch.arange(k.shape[2], device=x.device)
        now = position[k.shape[2] - x.shape[1] :]
        visible = position <= now.unsqueeze(-1)
        y = F.scaled_dot_product_attention(
            self._place(q, now), self._place(k, position), v, attn_mask=visible
        )
        return self.output(merge_heads(y)), {"keys": k, "values": v, **recent}


class WindowAttention(_Attention):
    r"""Causal attention to the last ``window`` tokens, the current one included.

    Positions are relative, so the stream may be endless; the cost is linear in its length.

    Parameters
    ----------
    dim : int
    heads : int
    window : int
    persistent : int
        Learned tokens that every token sees beside its window, without position (Titans).
    rotary : bool
    convolution : int
        Tokens of a short convolution of queries, keys and values; 0 for none.
    """

    def __init__(
        self,
        dim: int = 64,
        heads: int = 4,
        window: int = 16,
        persistent: int = 0,
        rotary: bool = True,
        convolution: int = 0,
    ) -> None:
        super().__init__(dim, heads, rotary, convolution)
        if window < 1:
            raise ConfigError(f"a window needs at least one token, not {window}", where="window")
        self.window = window
        self.persistent = nn.Parameter(torch.randn(persistent, dim) * dim**-0.5)

    def initial_state(self, batch: int) -> State:
        """Empty places for the keys and values before this token, and how many are filled."""
        empty = self.project.weight.new_zeros(batch, self.heads, self.window - 1, self.head_dim)
        seen = torch.zeros(batch, dtype=torch.long, device=empty.device)
        return {"keys": empty, "values": empty, "seen": seen, **self._recent(batch)}

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Cut the piece into blocks of a window; each looks back into the one before."""
        length, before = x.shape[1], self.window - 1
        (q, k, v), recent = self._heads(x, state)
        k, v = torch.cat([state["keys"], k], 2), torch.cat([state["values"], v], 2)
        filled = (state["seen"] + length).clamp(max=before)
        after = {"keys": k[:, :, length:], "values": v[:, :, length:], "seen": filled, **recent}
        block = min(self.window, length)
        y = self._blocks(q, k, v, before - state["seen"], block)
        return self.output(merge_heads(y)), after

    def _blocks(self, q: Tensor, k: Tensor, v: Tensor, empty: Tensor, block: int) -> Tensor:
        """Attention within blocks: batch x head x block x token x dim of a head."""
        length = q.shape[2]
        before, missing = self.window - 1, -length % block
        reach = before + block
        q = F.pad(q, (0, 0, 0, missing)).unflatten(2, (-1, block))
        k, v = (F.pad(t, (0, 0, 0, missing)).unfold(2, reach, block).mT for t in (k, v))
        place = torch.arange(reach, device=q.device)
        now = place[before:]
        scores = self._place(q, now) @ self._place(k, place).mT
        distance = now.unsqueeze(-1) - place
        visible = (distance >= 0) & (distance < self.window)
        if bool((empty > 0).any()):
            first = torch.arange(q.shape[2], device=q.device).unsqueeze(-1) * block
            index = first + place  # of each key in the whole piece, the state's places first
            there = index >= empty[:, None, None]
            visible = visible & there[:, None, :, None, :]
        scores = scores.masked_fill(~visible, float("-inf"))
        if len(self.persistent):
            own_k, own_v = self._persistent()
            scores = torch.cat([q @ own_k.mT, scores], -1)
            v = torch.cat([own_v.expand(*v.shape[:3], -1, -1), v], -2)
        y = (scores * self.head_dim**-0.5).softmax(-1) @ v
        return y.flatten(2, 3)[:, :, :length]

    def _persistent(self) -> tuple[Tensor, Tensor]:
        mixed = self.project(self.persistent.unsqueeze(0))
        _, k, v = (split_heads(t, self.heads) for t in mixed.chunk(3, -1))
        return k.unsqueeze(2), v.unsqueeze(2)
