"""Send each token to a few of several memories, and bring the answers back in order."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engramma.errors import ConfigError, DataWarning


@dataclass(frozen=True)
class Routing:
    """Which memories each token is sent to.

    Parameters
    ----------
    chosen : Tensor of long, shape (batch, token, k)
        Memories, the likeliest first.
    weights : Tensor, shape (batch, token, k)
        How much of each answer is taken. They sum to 1, but are 0 for what is not routed.
    routed : Tensor of bool, shape (batch, token, k)
        False for padding, and for tokens that a full memory dropped.
    probabilities : Tensor, shape (batch, token, memory)
        Softmax of the router before the choice.
    dropped : Tensor of long, shape (batch,)
        How many choices were given up because a memory was full.
    """

    chosen: Tensor
    weights: Tensor
    routed: Tensor
    probabilities: Tensor
    dropped: Tensor

    @property
    def n_memories(self) -> int:
        """Number of memories."""
        return self.probabilities.shape[-1]

    def mask(self) -> Tensor:
        """Tokens of each memory, batch x token x memory."""
        empty = torch.zeros_like(self.probabilities, dtype=torch.bool)
        return empty.scatter(-1, self.chosen, self.routed)

    def counts(self) -> Tensor:
        """Count the tokens of each memory, batch x memory."""
        return self.mask().sum(1)


def check_top_k(k: int, n_memories: int) -> None:
    """Refuse to send a token to more memories than there are.

    Raises
    ------
    ConfigError
    """
    if n_memories < 1 or not 1 <= k <= n_memories:
        raise ConfigError(
            f"a token cannot be sent to {k} of {n_memories} memories",
            where="top_k",
            mend="choose 1 <= top_k <= memories",
        )


def top_k_routing(
    logits: Tensor, k: int, real: Tensor | None = None, capacity: float | None = None
) -> Routing:
    """Choose the k likeliest memories of each token and renormalise their probabilities.

    Parameters
    ----------
    logits : Tensor, shape (batch, token, memory)
    k : int
    real : Tensor of bool, shape (batch, token), optional
        False for padding, which is sent nowhere.
    capacity : float, optional
        A memory takes at most ``ceil(capacity * tokens * k / memories)`` tokens of the sequence;
        the later ones are dropped, so that no token depends on later ones, and a warning says how
        many. By default memories take all.

    Returns
    -------
    Routing
    """
    n_memories = logits.shape[-1]
    check_top_k(k, n_memories)
    probabilities = logits.softmax(-1)
    likely, chosen = probabilities.topk(k, dim=-1)
    weights = likely / likely.sum(-1, keepdim=True)
    routed = torch.ones_like(chosen, dtype=torch.bool)
    if real is not None:
        routed = routed & real.unsqueeze(-1)
    wanted = Routing(chosen, weights, routed, probabilities, routed.new_zeros(len(logits)).long())
    if capacity is not None:
        limit = math.ceil(capacity * logits.shape[1] * k / n_memories)
        rank = (wanted.mask().cumsum(1) - 1).gather(-1, chosen)
        kept = routed & (rank < limit)
        wanted = Routing(chosen, weights, kept, probabilities, (routed & ~kept).flatten(1).sum(1))
        _report(wanted.dropped, routed, limit)
    if real is None and capacity is None:
        return wanted
    weights = weights * wanted.routed
    return Routing(chosen, weights, wanted.routed, probabilities, wanted.dropped)


def _report(dropped: Tensor, routed: Tensor, limit: int) -> None:
    lost = int(dropped.sum())
    if lost:
        warnings.warn(
            f"memories hold {limit} tokens of a sequence here: {lost} of {int(routed.sum())} "
            "routed tokens were dropped; raise capacity, or balance the router",
            DataWarning,
            stacklevel=2,
        )


def balance_loss(routing: Routing) -> Tensor:
    """Penalty for uneven use, M² mean_m(f_m P_m), smallest (k) where all are used alike.

    f is the share of tokens sent to each memory, which knows no gradient, and P its mean weight,
    which does (Fedus et al. 2022, arXiv:2101.03961).
    """
    n_memories = routing.n_memories
    real = routing.routed.any(-1).sum().clamp(min=1)
    share = routing.counts().sum(0) / real
    full = torch.zeros_like(routing.probabilities).scatter(-1, routing.chosen, routing.weights)
    weight = full.sum((0, 1)) / real
    return n_memories**2 * (share.to(weight.dtype) * weight).mean()


def router_entropy(routing: Routing) -> Tensor:
    """Entropy (nats) of how the real tokens are shared out; log M where memories are used alike."""
    share = routing.counts().sum(0).to(routing.probabilities.dtype)
    share = share / share.sum().clamp(min=1)
    return -torch.special.xlogy(share, share).sum()


@dataclass(frozen=True)
class Placement:
    """Where each routed token stands in the subsequence of its memory.

    Parameters
    ----------
    token : Tensor of long, shape (memory x batch x length, 1)
        Token (of batch x token) in each place, in order; batch x token where a place is empty.
    place : Tensor of long, shape (batch x token, k)
        Places of each token; memory x batch x length where it is not routed.
    choice : Tensor of long, shape (memory x batch x length, 1)
        Which entry of the flattened ``place`` each place belongs to.
    filled : Tensor of bool, shape (memory, batch, length)
    """

    token: Tensor
    place: Tensor
    choice: Tensor
    filled: Tensor

    @classmethod
    def of(cls, routing: Routing) -> Placement:
        """Line up the tokens of each memory, as long as the fullest one needs."""
        mask = routing.mask()
        batch, length, n_memories = mask.shape
        counts = mask.sum(1)
        room = max(1, int(counts.max()))
        rank = (mask.cumsum(1) - 1).gather(-1, routing.chosen)
        row = torch.arange(batch, device=mask.device)[:, None, None]
        n_places, k = n_memories * batch * room, routing.chosen.shape[-1]
        place = (routing.chosen * batch + row) * room + rank
        place = place.masked_fill(~routing.routed, n_places).flatten()
        choice = torch.full((n_places + 1,), len(place), device=mask.device)
        choice[place] = torch.arange(len(place), device=mask.device)
        choice = choice[:-1, None]
        filled = torch.arange(room, device=mask.device) < counts.mT.unsqueeze(-1)
        token = torch.where(choice < len(place), choice // k, batch * length)
        return cls(token, place.unflatten(0, (-1, k)), choice, filled)

    def gather(self, x: Tensor) -> Tensor:
        """Batch x token x channel to memory x batch x length x channel; empty places are 0."""
        rows = _Take.apply(x.flatten(0, 1), self.token, self.place)
        return rows.unflatten(0, self.filled.shape)

    def scatter(self, y: Tensor, weights: Tensor) -> Tensor:
        """Bring memory x batch x length x channel back, weighted, to batch x token x channel.

        ``weights`` (batch x token x k) are those of the `Routing`.
        """
        rows = _Take.apply(y.flatten(0, 2), self.place.reshape(-1, 1), self.choice)
        rows = rows.unflatten(0, weights.shape)
        return (weights.unsqueeze(-2) @ rows).squeeze(-2)


class _Take(torch.autograd.Function):
    """Rows of x by index, zeros where there is none.

    What picks can be picked back: the gradient of a row is the sum of those of its copies, whose
    places are known, so nothing has to be scattered.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(index, back)
        return _rows(x, index)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        index, back = ctx.saved_tensors
        return _Take.apply(dy, back, index), None, None


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Sum over j of x[index[:, j]], where len(x) stands for a row of zeros."""
    padded = torch.cat([x, x.new_zeros(1, x.shape[1])])
    y = padded.index_select(0, index[:, 0])
    for column in index.T[1:]:
        y += padded.index_select(0, column)
    return y
