"""The part of a stream of tokens that is not yet in events: first tokens, and the open window."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass
class Stream:
    """Where a model is in a stream, and what it holds of it outside the store of events.

    Parameters
    ----------
    layers : int
    n_init : int
        First tokens, which never become part of an event.
    rng : Generator
    position : int
        Tokens read so far.
    opened : int
        Place of the first token of the window.
    keys, values, received : list of Tensor, one a layer
        Of the window: key head x token x feature (before rotation), and the attention that each
        token received, query head x token. Empty before the first block.
    init_keys, init_values : list of Tensor, one a layer
        Of the first tokens.
    tokens, sources : list
        Of the window: token ids, and names of the texts they are from.
    cuts : list of int
        Places of boundaries.
    surprise : ndarray
        Of all tokens read so far.
    next : Tensor, optional
        Log-probabilities of the next token.
    called : list of list of int
        In each layer, the events that the last block attended to.
    """

    layers: int
    n_init: int
    rng: np.random.Generator
    position: int = 0
    opened: int = 0
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    received: list[Tensor] = field(default_factory=list)
    init_keys: list[Tensor] = field(default_factory=list)
    init_values: list[Tensor] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    surprise: np.ndarray = field(default_factory=lambda: np.zeros(0))
    next: Tensor | None = None
    called: list[list[int]] = field(default_factory=list)

    @classmethod
    def start(cls, layers: int, n_init: int, seed: int) -> Stream:
        """Return the beginning of a stream."""
        stream = cls(layers, n_init, np.random.default_rng(seed), opened=n_init)
        stream.called = [[] for _ in range(layers)]
        return stream

    def copy(self) -> Stream:
        """Return a copy that goes its own way; tensors are shared, and never changed in place."""
        lists: dict[str, Any] = {
            name: list(value) for name, value in vars(self).items() if isinstance(value, list)
        }
        return replace(self, rng=copy.deepcopy(self.rng), **lists)

    @property
    def n_open(self) -> int:
        """Tokens in the window."""
        return self.keys[0].shape[1] if self.keys else 0

    def extend(self, layer: int, keys: Tensor, values: Tensor, heads: int) -> None:
        """Take the keys and values of a block into one layer; the first tokens go aside."""
        if len(self.keys) <= layer:
            for held, new in (
                (self.keys, keys),
                (self.values, values),
                (self.init_keys, keys),
                (self.init_values, values),
            ):
                held.append(new[:, :0])
            self.received.append(keys.new_zeros(heads, 0))
        aside = min(max(self.n_init - self.position, 0), keys.shape[1])
        for init, held, new in (
            (self.init_keys, self.keys, keys),
            (self.init_values, self.values, values),
        ):
            init[layer] = torch.cat([init[layer], new[:, :aside]], 1)
            held[layer] = torch.cat([held[layer], new[:, aside:]], 1)
        self.received[layer] = F.pad(self.received[layer], (0, keys.shape[1] - aside))

    def unstored(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values of first tokens and window in one layer, and their places."""
        keys = torch.cat([self.init_keys[layer], self.keys[layer]], 1)
        values = torch.cat([self.init_values[layer], self.values[layer]], 1)
        first = torch.arange(self.init_keys[layer].shape[1], device=keys.device)
        window = torch.arange(self.keys[layer].shape[1], device=keys.device)
        return keys, values, torch.cat([first, self.opened + window])

    def receive(self, layer: int, attention: Tensor) -> None:
        """Add attention (query head x token) to the last tokens of one layer."""
        received = self.received[layer]
        n = min(received.shape[1], attention.shape[1])
        added = attention[:, attention.shape[1] - n :].to(received.dtype)
        self.received[layer] = received + F.pad(added, (received.shape[1] - n, 0))

    def advance(self, tokens: list[int], source: str, following: Tensor) -> None:
        """Go on by a block that all layers have taken."""
        kept = tokens[max(self.n_init - self.position, 0) :]
        self.tokens = self.tokens + kept
        self.sources = self.sources + [source] * len(kept)
        self.position += len(tokens)
        self.next = following

    def drop(self, n: int) -> None:
        """Take the first ``n`` tokens out of the window."""
        for held in (self.keys, self.values, self.received):
            held[:] = [tensor[:, n:] for tensor in held]
        self.tokens, self.sources = self.tokens[n:], self.sources[n:]
        self.opened += n
        self.cuts = [cut for cut in self.cuts if cut > self.opened]

    # -- on disk ---------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all it holds, as tensors and as plain facts."""
        tensors = {
            f"{name}.{layer}": tensor
            for name in ("keys", "values", "received", "init_keys", "init_values")
            for layer, tensor in enumerate(getattr(self, name))
        }
        tensors["surprise"] = torch.from_numpy(self.surprise)
        if self.next is not None:
            tensors["next"] = self.next
        names = ("layers", "n_init", "position", "opened", "tokens", "sources", "cuts", "called")
        facts = {name: getattr(self, name) for name in names}
        return tensors, facts | {"rng": self.rng.bit_generator.state}

    @classmethod
    def take_up(cls, tensors: dict[str, Tensor], facts: dict[str, Any]) -> Stream:
        """Return the stream that `state` described."""
        facts = dict(facts)
        rng = np.random.default_rng()
        rng.bit_generator.state = facts.pop("rng")
        stream = cls(rng=rng, **facts)
        for name in ("keys", "values", "received", "init_keys", "init_values"):
            count = sum(key.startswith(name + ".") for key in tensors)
            setattr(stream, name, [tensors[f"{name}.{layer}"] for layer in range(count)])
        stream.surprise, stream.next = tensors["surprise"].numpy(), tensors.get("next")
        return stream
