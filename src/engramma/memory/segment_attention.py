"""Attention within segments, each of whose tokens brings a second one as context."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engramma.errors import ConfigError
from engramma.memory.attention import check_heads, merge_heads, rotate, split_heads
from engramma.memory.layer import State


class SegmentAttention(nn.Module):
    r"""Causal attention of a segment s to [P; h; s], where h is as long as s.

    Token i of the segment sees the persistent tokens P, which are learned, and
    :math:`h_j, s_j` for :math:`j \le i`. ``h_j`` stands at the position of ``s_j``.

    Parameters
    ----------
    dim : int
    heads : int
    segment : int
        Tokens a segment.
    persistent : int
        Number of persistent tokens.
    """

    def __init__(self, dim: int, heads: int, segment: int, persistent: int) -> None:
        super().__init__()
        self.head_dim = check_heads(dim, heads)
        if self.head_dim % 2:
            raise ConfigError(
                f"rotary positions need heads of even width, not {self.head_dim}", where="heads"
            )
        self.heads, self.segment = heads, segment
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)
        self.persistent = nn.Parameter(torch.randn(persistent, dim) * dim**-0.5)

    def initial_state(self, batch: int) -> State:
        """Empty places for keys and values of h and s, and how many are filled."""
        shape = (batch, self.heads, 2, self.segment, self.head_dim)
        empty = self.query.weight.new_zeros(shape)
        filled = torch.zeros(batch, dtype=torch.long, device=empty.device)
        return {"keys": empty, "values": empty, "filled": filled}

    def pieces(self, length: int, state: State) -> list[int]:
        """Cut so many tokens where segments end: the lengths of the pieces."""
        filled = int(state["filled"][0]) if len(state["filled"]) else 0
        lengths, left = [], self.segment - filled
        while length:
            lengths.append(min(left, length))
            length, left = length - lengths[-1], self.segment
        return lengths

    def forward(self, s: Tensor, h: Tensor, state: State) -> tuple[Tensor, State]:
        """Attend from a piece of one segment (batch x token x dim) to it and to what was before."""
        length = s.shape[1]
        start = self.segment - self.pieces(self.segment, state)[0]
        place = torch.arange(start, start + length, device=s.device)
        both = self.key_value(torch.stack([h, s], 1)).unflatten(-1, (2, self.heads, -1))
        k, v = both.permute(3, 0, 4, 1, 2, 5)  # batch x head x (h, s) x token x dim of a head
        k = torch.cat([state["keys"][..., :start, :], rotate(k, place)], 3)
        v = torch.cat([state["values"][..., :start, :], v], 3)
        q = split_heads(self.query(s), self.heads)
        visible = torch.arange(start + length, device=s.device) <= place.unsqueeze(-1)
        scores = (rotate(q, place).unsqueeze(2) @ k.mT).masked_fill(~visible, float("-inf"))
        own_k, own_v = self._persistent()
        scores = torch.cat([q @ own_k.mT, scores.transpose(2, 3).flatten(3)], -1)
        values = torch.cat([own_v.expand(len(s), -1, -1, -1), v.flatten(2, 3)], 2)
        y = (scores * self.head_dim**-0.5).softmax(-1) @ values
        return self.output(merge_heads(y)), self._after(k, v, state)

    def _persistent(self) -> tuple[Tensor, Tensor]:
        k, v = self.key_value(self.persistent.unsqueeze(0)).chunk(2, -1)
        return split_heads(k, self.heads), split_heads(v, self.heads)

    def _after(self, k: Tensor, v: Tensor, state: State) -> State:
        """Keep what the open segment holds; nothing of a full one."""
        n = k.shape[3]
        if n == self.segment:
            return {name: torch.zeros_like(t) for name, t in state.items()}
        rest = k.new_zeros(*k.shape[:3], self.segment - n, self.head_dim)
        filled = torch.full_like(state["filled"], n)
        return {
            "keys": torch.cat([k, rest], 3),
            "values": torch.cat([v, rest], 3),
            "filled": filled,
        }
