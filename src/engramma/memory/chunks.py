r"""A memory of whole chunks of the past, read in two steps: which chunks, then what in them.

Hierarchical chunk attention (Lampinen et al. 2021, arXiv:2105.14039, section 3; shapes and
constants as in the authors' ``htm_attention.py``). B sequences, M chunks of C tokens, width D.

Write
    The last C inputs wait in an accumulator. When C of them are there, they become the contents
    :math:`V_m` (C x D) of a new chunk, with the key :math:`\bar v_m`, their mean. Both are cut off
    the gradient.

Read
    :math:`z = \mathrm{LayerNorm}(x)`; logits
    :math:`\ell_m = (W_q z)^\top (W_k \bar v_m) / \sqrt D`, and :math:`-10^6` for chunks that ended
    later or belong to another episode. Of the k best, :math:`w = \mathrm{softmax}(\ell)`, and the
    result is :math:`\sum_m w_m\, \mathrm{MHA}(z,\, V_m + P,\, V_m + P)`, with P sinusoids that
    count back from the end of the chunk. Nothing stored, nothing read: the result is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from engramma.errors import ConfigError
from engramma.memory.attention import check_heads
from engramma.memory.layer import MemoryLayer, State

MASKED = -1e6
#: Standard deviation of N(0, 1) cut at two standard deviations.
CUT_NORMAL = 0.87962566103423978


def positions(length: int, dim: int, longest: float = 1e4) -> Tensor:
    """Sinusoids of the distance to the end of a chunk.

    Parameters
    ----------
    length, dim : int
    longest : float
        Wavelengths run from 2 pi to 2 pi times this.

    Returns
    -------
    Tensor of float64, shape (length, dim)
        Sines, then cosines. The last row is that of distance 0.
    """
    distance = torch.arange(length - 1, -1, -1, dtype=torch.float64)
    rate = longest ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angle = distance[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], -1)[:, :dim]


def scaled_linear(n_in: int, n_out: int, bias: bool, scale: float = 2.0) -> nn.Linear:
    """Linear map whose weights start with variance ``scale`` / n_in, cut at two deviations."""
    layer = nn.Linear(n_in, n_out, bias=bias)
    std = (scale / n_in) ** 0.5 / CUT_NORMAL
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class ChunkAttention(nn.Module):
    """The read of the module's docstring, without the store.

    Parameters
    ----------
    dim : int
    chunk : int
        Tokens in a chunk.
    top_k : int
        Chunks that are read in detail; all, where there are fewer.
    heads : int
        Of the attention within a chunk.
    positional : bool
        Whether P is added to the contents.
    """

    position: Tensor

    def __init__(
        self, dim: int, chunk: int, top_k: int = 4, heads: int = 4, positional: bool = True
    ) -> None:
        super().__init__()
        self.heads, self.top_k, self.head_dim = heads, top_k, check_heads(dim, heads)
        if chunk < 1:
            raise ConfigError(f"a chunk needs at least one token, not {chunk}", where="chunk")
        if top_k < 1:
            raise ConfigError(f"at least one chunk must be read, not {top_k}", where="top_k")
        place = positions(chunk, dim) if positional else torch.zeros(chunk, dim).double()
        self.register_buffer("position", place, persistent=False)
        self.norm = nn.LayerNorm(dim)
        self.query, self.key = (scaled_linear(dim, dim, bias=False) for _ in range(2))
        # The authors' attention within a chunk keeps the biases that haiku gives it.
        self.inner_query, self.inner_key, self.inner_value, self.output = (
            scaled_linear(dim, dim, bias=True) for _ in range(4)
        )

    def forward(
        self,
        x: Tensor,
        keys: Tensor,
        contents: Tensor,
        visible: Tensor,
        how: Literal["dense", "sparse"] | None = None,
    ) -> Tensor:
        """Read the memory.

        Parameters
        ----------
        x : Tensor, shape (batch, query, dim)
        keys : Tensor, shape (batch, chunk, dim)
        contents : Tensor, shape (batch, chunk, token, dim)
        visible : Tensor of bool, shape (batch, query, chunk)
            Which chunks each query may read.
        how : {"dense", "sparse"}, optional
            Look into all chunks and weight those not chosen by zero, or gather the chosen ones.
            The numbers are the same; many queries are faster together, many chunks apart.

        Returns
        -------
        Tensor, shape (batch, query, dim)
        """
        if keys.shape[1] == 0:
            return torch.zeros_like(x)
        z = self.norm(x)
        weights, chosen = self.choose(z, keys, visible)
        if how is None:
            how = "dense" if x.shape[1] > 1 and keys.shape[1] <= 16 * self.top_k else "sparse"
        read = self._read_all if how == "dense" else self._read_chosen
        mixed = read(self._heads(self.inner_query(z)), contents, weights, chosen)
        return self.output(mixed) * visible.any(-1, keepdim=True)

    def choose(self, z: Tensor, keys: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and indices of the chunks that are read in detail, batch x query x k."""
        logits = self.coarse_scores(z, keys).masked_fill(~visible, MASKED)
        best, chosen = logits.topk(min(self.top_k, keys.shape[1]), dim=-1)
        return best.softmax(-1), chosen

    def coarse_scores(self, z: Tensor, keys: Tensor) -> Tensor:
        """How well each chunk suits each query, batch x query x chunk."""
        return self.query(z) @ self.key(keys).mT * z.shape[-1] ** -0.5

    def _read_all(self, q: Tensor, contents: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        full = weights.new_zeros(*weights.shape[:2], contents.shape[1]).scatter(2, chosen, weights)
        k, v = self._keys_and_values(contents)
        scores = torch.einsum("bqhd,bmchd->bhqmc", q, k) * self.head_dim**-0.5
        mixed = scores.softmax(-1) * full[:, None, :, :, None]
        return torch.einsum("bhqmc,bmchd->bqhd", mixed, v).flatten(2)

    def _read_chosen(self, q: Tensor, contents: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        each = torch.arange(len(contents), device=contents.device)[:, None, None]
        k, v = self._keys_and_values(contents[each, chosen])
        inside = self.fine_scores(q, k).softmax(-1) * weights[:, :, None, :, None]
        return torch.einsum("bqhmc,bqmchd->bqhd", inside, v).flatten(2)

    def fine_scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Scores of all tokens of the chosen chunks, batch x query x head x chosen x token."""
        return torch.einsum("bqhd,bqmchd->bqhmc", q, k) * self.head_dim**-0.5

    def _keys_and_values(self, contents: Tensor) -> tuple[Tensor, Tensor]:
        placed = contents + self.position.to(contents.dtype)
        return self._heads(self.inner_key(placed)), self._heads(self.inner_value(placed))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.head_dim))


class ChunkMemory(MemoryLayer):
    """Accumulate, store, and read chunks of the layer's own input; the input is added.

    A token reads what was stored before it, and is then written.

    Parameters
    ----------
    dim, chunk, top_k, heads, positional
        As in `ChunkAttention`.
    capacity : int, optional
        Chunks kept; the oldest is overwritten, and the state keeps its size. By default all are
        kept, and the state grows.
    """

    def __init__(
        self,
        dim: int = 64,
        *,
        chunk: int = 16,
        top_k: int = 4,
        heads: int = 4,
        positional: bool = True,
        capacity: int | None = None,
    ) -> None:
        super().__init__(dim)
        if capacity is not None and capacity < 1:
            raise ConfigError(f"room for {capacity} chunks is none", where="capacity")
        self.chunk, self.capacity = chunk, capacity
        self.attention = ChunkAttention(dim, chunk, top_k, heads, positional)

    @property
    def growing(self) -> Mapping[str, int]:  # type: ignore[override]
        """The store grows along its chunks, unless it has a capacity."""
        return {} if self.capacity else {"keys": 1, "contents": 1, "episodes": 1}

    def initial_state(self, batch: int) -> State:
        """Nothing stored, nothing accumulated, the first episode.

        ``episodes`` says of each stored chunk which episode it is of (-1: empty), ``count`` how
        many chunks were ever stored, ``filled`` how many inputs of the accumulator belong to the
        next one.
        """
        like = self.attention.query.weight
        places = self.capacity or 0

        def whole(*shape: int) -> Tensor:
            return torch.zeros(batch, *shape, dtype=torch.long, device=like.device)

        return {
            "keys": like.new_zeros(batch, places, self.dim),
            "contents": like.new_zeros(batch, places, self.chunk, self.dim),
            "episodes": whole(places) - 1,
            "accumulator": like.new_zeros(batch, self.chunk, self.dim),
            "filled": whole(),
            "count": whole(),
            "episode": whole(),
        }

    def reset(self, state: State, rows: Tensor) -> State:
        """Begin a new episode in these rows (batch, bool): what they stored is masked for good."""
        kept = torch.where(rows[:, None, None], 0.0, state["accumulator"])
        return {
            **state,
            "accumulator": kept.to(state["accumulator"].dtype),
            "filled": torch.where(rows, 0, state["filled"]),
            "episode": state["episode"] + rows.long(),
        }

    # -- the actor's form: one token ---------------------------------------------------------

    def token(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Read, then write."""
        return x + self.read(x, state), self.write(x, state)

    def read(self, x: Tensor, state: State) -> Tensor:
        """Read what the stored chunks have for these inputs, batch x dim."""
        visible = state["episodes"] == state["episode"][:, None]
        queries = x.unsqueeze(1)
        update = self.attention(queries, state["keys"], state["contents"], visible.unsqueeze(1))
        return update.squeeze(1)

    def write(self, x: Tensor, state: State) -> State:
        """Put one input (batch x dim) into the accumulator, and store it when it is full."""
        recent = torch.cat([state["accumulator"][:, 1:], x.detach().unsqueeze(1)], 1)
        filled = state["filled"] + 1
        full = filled == self.chunk
        state = {**state, "accumulator": recent, "filled": torch.where(full, 0, filled)}
        return self._store(state, recent.unsqueeze(1), full.unsqueeze(1))

    # -- the learner's form: many tokens -----------------------------------------------------

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Build all chunks at once; a mask says which of them had ended before each token."""
        length = x.shape[1]
        recent = torch.cat([state["accumulator"], x.detach()], 1)
        contents, there = self._cut(recent, state["filled"], length)
        filled = state["filled"][:, None] + torch.arange(length, device=x.device)
        done = state["count"][:, None] + filled // self.chunk  # chunks ended before each token

        index = torch.arange(contents.shape[1], device=x.device)
        number = torch.cat([self._numbers(state), state["count"][:, None] + index], 1)
        fresh = torch.where(there, state["episode"][:, None], -1)
        same = torch.cat([state["episodes"], fresh], 1) == state["episode"][:, None]
        visible = same[:, None] & (number[:, None] < done[..., None])
        if self.capacity:
            visible &= number[:, None] >= done[..., None] - self.capacity

        everything = torch.cat([state["contents"], contents], 1)
        keys = torch.cat([state["keys"], contents.mean(2)], 1)
        y = x + self.attention(x, keys, everything, visible)
        after = (state["filled"] + length) % self.chunk
        state = {**state, "accumulator": recent[:, -self.chunk :], "filled": after}
        return y, self._store(state, contents, there)

    def _cut(self, recent: Tensor, filled: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Chunks that are completed in a piece, and which of them each row has.

        Rows may be at different places of a chunk, as their episodes began at different times.
        """
        n_new = (filled + length) // self.chunk
        index = torch.arange(int(n_new.max()), device=recent.device)
        start = self.chunk - filled[:, None] + index * self.chunk
        inside = start[..., None] + torch.arange(self.chunk, device=recent.device)
        each = torch.arange(len(recent), device=recent.device)[:, None, None]
        contents = recent[each, inside.clamp(max=recent.shape[1] - 1)]
        return contents, index < n_new[:, None]

    def _numbers(self, state: State) -> Tensor:
        """Ordinal number of the chunk in each place, batch x place."""
        place = torch.arange(state["keys"].shape[1], device=state["keys"].device)
        if self.capacity is None:
            return place.expand(len(state["count"]), -1)
        last = state["count"][:, None] - 1
        return last - (last - place) % self.capacity

    def _store(self, state: State, contents: Tensor, there: Tensor) -> State:
        """Store the chunks that are there; the others of the batch x chunk are ignored."""
        n_new = there.sum(1)
        count = state["count"] + n_new
        if not bool(there.any()):
            return state
        index = torch.arange(there.shape[1], device=there.device)
        number = state["count"][:, None] + index
        if self.capacity:
            there = there & (index >= n_new[:, None] - self.capacity)
            number = number % self.capacity
        state = {**state, **self._room(state, int(count.max()))}
        row, new = there.nonzero(as_tuple=True)
        place = (row, number[row, new])
        chunks = contents[row, new]
        return {
            **state,
            "keys": state["keys"].index_put(place, chunks.mean(1)),
            "contents": state["contents"].index_put(place, chunks),
            "episodes": state["episodes"].index_put(place, state["episode"][row]),
            "count": count,
        }

    def _room(self, state: State, needed: int) -> State:
        """Make room for so many chunks, if the store may grow."""
        missing = needed - state["keys"].shape[1]
        if self.capacity or missing <= 0:
            return {}
        batch = len(state["keys"])
        more = {
            "keys": state["keys"].new_zeros(batch, missing, self.dim),
            "contents": state["contents"].new_zeros(batch, missing, self.chunk, self.dim),
            "episodes": state["episodes"].new_full((batch, missing), -1),
        }
        return {name: torch.cat([state[name], empty], 1) for name, empty in more.items()}
