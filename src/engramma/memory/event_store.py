"""A store of events: the keys and values that attention left of them, found by likeness and time.

An event is a run of tokens. In every layer of a model it holds their keys (before positions are put
in) and values, and one vector to find it by: the mean key of its *representative* tokens, those
that received the most attention, all heads beside each other (`event_key`).

A query gets events in two ways (`EventStore.retrieve`). Those whose vectors have the largest inner
product with it fill a first part of a budget of tokens. Their neighbours in time, n + 1 and n - 1
for each event n, enter a queue that fills the rest of the budget and outlasts the query: the newest
are kept. What is retrieved is handed out in temporal order.

Source: Fountas et al. 2025 (arXiv:2407.09450).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engramma.errors import ConfigError, DataError
from engramma.memory.vector_index import ExactIndex, IndexKind, vector_index


@dataclass(frozen=True)
class Event:
    """What an event is, but for its keys and values.

    Parameters
    ----------
    start : int
        Place of its first token in the stream.
    tokens : tuple of int
    source : str
        Name of the text that it is from.
    """

    start: int
    tokens: tuple[int, ...]
    source: str = ""

    @property
    def stop(self) -> int:
        """Place after its last token."""
        return self.start + len(self.tokens)


def event_key(keys: Tensor, received: Tensor, representatives: int = 4) -> Tensor:
    """Return the vector to find an event by.

    Parameters
    ----------
    keys : Tensor, shape (key head, token, feature)
    received : Tensor, shape (query head, token)
        Attention that each token received, in sum. Query heads share key heads in groups.
    representatives : int
        How many of the most attended tokens are averaged, in each query head; all where there are
        fewer.

    Returns
    -------
    Tensor, shape (query head * feature,)
    """
    heads, n_tokens = received.shape
    keys = keys.repeat_interleave(heads // len(keys), 0)
    chosen = received.topk(min(representatives, n_tokens), -1).indices
    picked = keys.gather(1, chosen.unsqueeze(-1).expand(-1, -1, keys.shape[-1]))
    return picked.mean(1).flatten()


class EventStore:
    """Events of a stream, in temporal order, for all layers of a model.

    Parameters
    ----------
    layers : int
    budget : int
        Tokens that one retrieval hands out at most.
    contiguity : float
        Share of the budget that belongs to neighbours in time; 0 for none.
    representatives : int
        Tokens that make an event's key.
    index : {"exact", "graph"}
        How event keys are searched; see `engramma.memory.vector_index`.

    Attributes
    ----------
    events : list of Event
    queues : list of list of int
        Of each layer: neighbours of what was retrieved, newest first.
    """

    def __init__(
        self,
        layers: int,
        *,
        budget: int = 2048,
        contiguity: float = 0.3,
        representatives: int = 4,
        index: IndexKind = "exact",
    ) -> None:
        if layers < 1 or budget < 1 or representatives < 1 or not 0 <= contiguity < 1:
            raise ConfigError(
                f"no store has {layers} layers, a budget of {budget} tokens, {representatives} "
                f"representative tokens and {contiguity:g} of the budget for neighbours",
                where="EventStore",
                mend="give positive numbers, and a share of at least 0 and below 1",
            )
        vector_index(index, 1)  # is it known, and installed?
        self.layers, self.budget, self.contiguity = layers, budget, contiguity
        self.representatives, self.index = representatives, index
        self.clear()

    def clear(self) -> None:
        """Remove all events."""
        self.events: list[Event] = []
        self._sizes: Counter[int] = Counter()  # how many events there are of each size
        self.queues: list[list[int]] = [[] for _ in range(self.layers)]
        self._keys: list[list[Tensor]] = [[] for _ in range(self.layers)]
        self._values: list[list[Tensor]] = [[] for _ in range(self.layers)]
        self._found_by: list[ExactIndex | None] = [None] * self.layers

    def __len__(self) -> int:
        return len(self.events)

    @property
    def n_tokens(self) -> int:
        """Tokens in all events together."""
        return sum(size * count for size, count in self._sizes.items())

    def event_keys(self, layer: int) -> np.ndarray:
        """Vectors that events are found by, event x feature."""
        index = self._found_by[layer]
        return np.zeros((0, 0), dtype=np.float32) if index is None else index.vectors

    # -- writing ---------------------------------------------------------------------------

    def add(
        self,
        event: Event,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        received: Sequence[Tensor],
    ) -> int:
        """Append an event and return its number.

        Parameters
        ----------
        event : Event
            Later than all others.
        keys, values : sequence of Tensor, one a layer, shape (key head, token, feature)
        received : sequence of Tensor, one a layer, shape (query head, token)
            Attention that each token received; makes the event's key.
        """
        vectors = [
            event_key(k, r, self.representatives) for k, r in zip(keys, received, strict=True)
        ]
        return self.add_vectors(event, keys, values, vectors)

    def add_vectors(
        self,
        event: Event,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        vectors: Sequence[Tensor],
    ) -> int:
        """Append an event whose key in each layer (shape (feature,)) is known."""
        given = {len(keys), len(values), len(vectors)}
        lengths = {len(event.tokens), *(t.shape[1] for t in (*keys, *values))}
        if given != {self.layers} or len(lengths) != 1 or 0 in lengths:
            raise DataError(
                f"an event of {len(event.tokens)} tokens comes with keys and values of "
                f"{sorted(lengths)} tokens in {sorted(given)} layers",
                where="EventStore.add",
                mend=f"give at least one token, and keys and values of each in {self.layers} "
                "layers",
            )
        if self.events and event.start < self.events[-1].stop:
            raise DataError(
                f"an event from token {event.start} comes after one up to {self.events[-1].stop}",
                where="EventStore.add",
                mend="add events in the order in which they happened",
            )
        for layer in range(self.layers):
            vector = vectors[layer].detach().float().cpu().numpy()[None]
            index = self._found_by[layer]
            if index is None:
                index = self._found_by[layer] = vector_index(self.index, vector.shape[1])
            index.add(vector)
            self._keys[layer].append(keys[layer].detach())
            self._values[layer].append(values[layer].detach())
        self.events.append(event)
        self._sizes[len(event.tokens)] += 1
        return len(self.events) - 1

    def forget(self, which: Iterable[int]) -> None:
        """Remove events by number; those after them move up.

        Raises
        ------
        DataError
            If there is no such event.
        """
        gone = {int(n) for n in which}
        unknown = sorted(n for n in gone if not 0 <= n < len(self))
        if unknown:
            raise DataError(
                f"there is no event {unknown[0]}; the store holds {len(self)}",
                where="EventStore.forget",
                mend="number events from 0, in the order of time",
            )
        kept = [n for n in range(len(self)) if n not in gone]
        new = {old: number for number, old in enumerate(kept)}
        self.events = [self.events[n] for n in kept]
        self._sizes = Counter(len(event.tokens) for event in self.events)
        self.queues = [[new[n] for n in queue if n in new] for queue in self.queues]
        for layer in range(self.layers):
            vectors = self.event_keys(layer)[kept]
            self._keys[layer] = [self._keys[layer][n] for n in kept]
            self._values[layer] = [self._values[layer][n] for n in kept]
            index = vector_index(self.index, vectors.shape[1]) if kept else None
            if index is not None:
                index.add(vectors)
            self._found_by[layer] = index

    # -- reading ---------------------------------------------------------------------------

    def retrieve(
        self, layer: int, query: Tensor | np.ndarray | None, rng: np.random.Generator | None = None
    ) -> list[int]:
        """Numbers of the events that a query calls up, in temporal order.

        Parameters
        ----------
        layer : int
        query : array, shape (query head * feature,)
        rng : Generator, optional
            Draws events instead of comparing them with the query: a control.

        Returns
        -------
        list of int
            All events, where the budget is enough for them.
        """
        if self.n_tokens <= self.budget:
            return list(range(len(self)))
        share = self.budget - int(self.contiguity * self.budget)
        drawn = None if rng is None else rng.permutation(len(self))
        similar = self._fill(self.ranked(layer, query, share) if drawn is None else drawn, share)
        if not self.contiguity:
            return sorted(similar)
        fresh = [m for n in similar for m in self._neighbours(n)]
        waiting = [n for n in dict.fromkeys([*fresh, *self.queues[layer]]) if n not in similar]
        self.queues[layer] = self._fill(waiting, self.budget - share)
        return sorted([*similar, *self.queues[layer]])

    def ranked(self, layer: int, query: Tensor | np.ndarray | None, n_tokens: int) -> np.ndarray:
        """Numbers of enough events to fill ``n_tokens``, those most like the query first."""
        index = self._found_by[layer]
        if index is None or query is None:
            return np.zeros(0, dtype=int)
        if isinstance(query, Tensor):
            query = query.detach().float().cpu().numpy()
        return index.search(query, min(len(self), n_tokens // min(self._sizes) + 1))[0]

    def gather(self, layer: int, which: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Keys and values of events, key head x token x feature, one event after the other."""
        return (
            torch.cat([self._keys[layer][n] for n in which], 1),
            torch.cat([self._values[layer][n] for n in which], 1),
        )

    def _fill(self, order: Iterable[int], budget: int) -> list[int]:
        """Take events in order until the next one does not fit."""
        taken = []
        for n in order:
            budget -= len(self.events[int(n)].tokens)
            if budget < 0:
                break
            taken.append(int(n))
        return taken

    def _neighbours(self, n: int) -> list[int]:
        """Events right after and right before, where they were not forgotten."""
        near = []
        if n + 1 < len(self) and self.events[n + 1].start == self.events[n].stop:
            near.append(n + 1)
        if n and self.events[n - 1].stop == self.events[n].start:
            near.append(n - 1)
        return near

    # -- on disk ---------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all it holds, as tensors and as plain facts."""
        tensors = {
            f"{name}.{layer}": torch.cat(parts[layer], 1)
            for name, parts in (("keys", self._keys), ("values", self._values))
            for layer in range(self.layers)
            if self.events
        }
        for layer in range(self.layers):
            tensors[f"event_keys.{layer}"] = torch.from_numpy(self.event_keys(layer).copy())
        facts = {
            "layers": self.layers,
            "events": [[e.start, list(e.tokens), e.source] for e in self.events],
            "queues": self.queues,
        }
        return tensors, facts

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Take up what `state` returned, in place of what there is.

        Raises
        ------
        DataError
            If it is from a model with other layers.
        """
        if facts["layers"] != self.layers:
            raise DataError(
                f"the events are of {facts['layers']} layers, and the model has {self.layers}",
                where="EventStore",
                mend="load them for the model that made them",
            )
        self.clear()
        for start, tokens, source in facts["events"]:
            self.events.append(Event(start, tuple(tokens), source))
        lengths = [len(event.tokens) for event in self.events]
        self._sizes = Counter(lengths)
        for layer in range(self.layers if self.events else 0):
            self._keys[layer] = list(tensors[f"keys.{layer}"].split(lengths, 1))
            self._values[layer] = list(tensors[f"values.{layer}"].split(lengths, 1))
            vectors = tensors[f"event_keys.{layer}"].numpy()
            index = self._found_by[layer] = vector_index(self.index, vectors.shape[1])
            index.add(vectors)
        self.queues = [[int(n) for n in queue] for queue in facts["queues"]]

    def save(self, path: str | Path) -> None:
        """Write all events into one safetensors file."""
        tensors, facts = self.state()
        write_tensors(path, tensors, facts)

    def load(self, path: str | Path) -> None:
        """Read what `save` wrote, in place of what there is."""
        self.restore(*read_tensors(path, "events"))


def write_tensors(path: str | Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors and facts as one safetensors file, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    work = path.with_name(path.name + ".part")
    tidy = {k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()}
    try:
        save_file(tidy, work, metadata={"facts": json.dumps(facts)})
        work.replace(path)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"the memory cannot be written ({error})",
            where=str(path),
            mend="choose a folder that exists and that you may write to",
        ) from error


def read_tensors(path: str | Path, what: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises
    ------
    DataError
        If the file is something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(
            f"these are no saved {what} ({error})",
            where=str(path),
            mend="point to a file that save wrote",
        ) from error
    return tensors, facts
