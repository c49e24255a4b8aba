r"""Human-like Episodic Memory for Infinite Context LLMs (Fountas et al. 2025), EM-LLM.

**What it does.** A frozen language model reads a text of any length. The text is cut into events
where it surprises the model; the keys and values of events that have left a local window are
stored; and each block of new tokens attends to the window and to the events that it calls up.
Nothing is trained.

**Input.** Tokens of one stream, in blocks of at most B. The model is any causal one of transformers
with rotary positions.

**Segmentation** (`engramma.memory.segmentation`). The surprise of token t is
:math:`s_t = -\log p(x_t | x_{<t})`. It begins an event if
:math:`s_t > \mu + \gamma\sigma` of the n_local tokens before its block. Refinement then moves each
boundary :math:`\beta` to the cut in :math:`(\alpha, \beta]`, after the boundary :math:`\alpha`
before it, where the graph :math:`A_{ij} = \sum K_i^T K_j` (over heads and the upper layers; keys
before rotation) has the largest modularity or the least conductance. Events below the smallest
size are merged with the next, those above the largest are cut.

**Storage** (`engramma.memory.event_store`). An event leaves the window when all of it is n_local
tokens back. Its key in a layer is the mean of its 4 tokens that received the most attention while
in the window, in each head; all heads are concatenated.

**Reading**, in each layer and for each block:

====  =============================  ==================================  ======================
part  what                           how many tokens                     distance to the query
====  =============================  ==================================  ======================
1     first tokens of the stream     n_init                              n_local
2     events most like the query     0.7 n_mem, until full               n_local
3     their neighbours in time       0.3 n_mem, a queue, newest kept     n_local
4     tokens not yet in an event     what is older than n_local          n_local
5     local window                   n_local                             their own
====  =============================  ==================================  ======================

The query is the mean over the block of queries turned to n_local, all heads concatenated; events
are compared by inner product and taken in temporal order. All parts share one softmax. Parts 1 and
4 also hold tokens within n_local of some queries, which see them at their own distance in part 5.

**Variants.** ``refine`` and ``contiguity`` give the paper's EM-LLM S, SM, S+C and SM+C;
``splitter="fixed"`` or ``"random"`` and ``retrieval="none"`` (window with first tokens, as
StreamingLLM) or ``"random"`` are what it is compared with.

**Deviations from the published code**, each where that departs from the paper: an event begins at
the surprising token, not at the one before; initial tokens and events lie at distance n_local, not
n_local - 1; the threshold is of n_local tokens before the block, not of those minus a block; and a
retrieval never exceeds its budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from engramma.errors import ConfigError, DataError
from engramma.memory.attention_tap import AttentionTap
from engramma.memory.event_store import Event, EventStore, read_tensors, write_tensors
from engramma.memory.event_window import Stream
from engramma.memory.questioning import Questioned, Text
from engramma.memory.segmentation import (
    Measure,
    Volume,
    limit_sizes,
    refine,
    similarity,
    surprise_cuts,
)
from engramma.memory.vector_index import IndexKind
from engramma.registry import system
from engramma.systems.sequence.em_llm_claims import CLAIMS

BIBTEX = """@inproceedings{fountas2025human,
  title = {Human-like Episodic Memory for Infinite Context {LLMs}},
  author = {Fountas, Zafeirios and Benfeghoul, Martin and Oomerjee, Adnan and
            Christopoulou, Fenia and Lampouras, Gerasimos and Bou-Ammar, Haitham and Wang, Jun},
  booktitle = {International Conference on Learning Representations},
  year = {2025}, eprint = {2407.09450}, archivePrefix = {arXiv}}"""


@dataclass(frozen=True)
class Recall:
    """What a cue calls up.

    Parameters
    ----------
    numbers : tuple of int
        Events, those that most layers call up first.
    share : tuple of float
        Share of layers that call each of them up.
    events : tuple of Event
    texts : tuple of str
        Of each event; empty where the model has no tokenizer.
    by_layer : tuple of tuple of int
        Numbers of the events of each layer, in temporal order.
    """

    numbers: tuple[int, ...]
    share: tuple[float, ...]
    events: tuple[Event, ...]
    texts: tuple[str, ...]
    by_layer: tuple[tuple[int, ...], ...]


@system(
    "em-llm",
    family="sequence",
    title="Event memory of a frozen language model",
    contract="Memory",
    paper="Fountas et al. 2025, ICLR (arXiv:2407.09450)",
    bibtex=BIBTEX,
    claims=CLAIMS,
)
class EMLLM(Questioned):
    """Frozen language model that segments what it reads into events and calls them up.

    It is a memory of one stream (written, read, saved), and no layer that maps vectors to vectors:
    what goes in is text, and the layers are those of the language model.

    Parameters
    ----------
    model : PreTrainedModel, str or path
        A causal language model with rotary positions, or what `load_language_model` takes
        (``"smollm2"``, a folder ...). By default a miniature of themed events that comes along.
    tokenizer : optional
        Needed where texts are given as strings; found by itself where ``model`` is a name.
    n_init, n_local, n_mem : int
        Tokens: kept from the start, seen at their own distance, called up.
    block : int
        Tokens that are processed at once and share a retrieval.
    smallest, largest : int
        Sizes of events.
    gamma : float
        Standard deviations of surprise above its mean that make a boundary.
    window : int, optional
        Tokens before the block that mean and deviation are taken of; ``n_local`` by default.
    splitter : {"surprise", "fixed", "random"}
        ``"fixed"`` cuts events of the largest size, ``"random"`` at 1 of 16 tokens.
    refine : {"modularity", "conductance"}, optional
        What boundaries are refined by; None leaves them.
    volume : {"degrees", "inner"}
        Of conductance; see `engramma.memory.segmentation`.
    refine_from : int, optional
        First layer whose keys make the graph; by default 5/8 of all come before it (20 of 32).
    retrieval : {"similarity", "random", "none"}
    contiguity : float
        Share of ``n_mem`` for neighbours in time; 0 for none.
    representatives : int
        Tokens that make an event's key.
    index : {"exact", "graph"}
        How events are searched.
    seed : int
        For what is random.
    """

    def __init__(
        self,
        model: Any = None,
        tokenizer: Any = None,
        *,
        n_init: int = 4,
        n_local: int = 64,
        n_mem: int = 32,
        block: int = 32,
        smallest: int = 4,
        largest: int = 16,
        gamma: float = 1.0,
        window: int | None = None,
        splitter: Literal["surprise", "fixed", "random"] = "surprise",
        refine: Measure | None = "modularity",
        volume: Volume = "degrees",
        refine_from: int | None = None,
        retrieval: Literal["similarity", "random", "none"] = "similarity",
        contiguity: float = 0.3,
        representatives: int = 4,
        index: IndexKind = "exact",
        seed: int = 0,
    ) -> None:
        if splitter not in ("surprise", "fixed", "random"):
            raise ConfigError(f"nothing is split by {splitter!r}", where="splitter")
        if retrieval not in ("similarity", "random", "none"):
            raise ConfigError(f"nothing is retrieved by {retrieval!r}", where="retrieval")
        if n_init < 0 or not 1 <= block <= n_local:
            raise ConfigError(
                f"no window of {n_local} tokens takes blocks of {block} and {n_init} first tokens",
                where="EMLLM",
                mend="give a block of at least 1 token that fits the window",
            )
        room = n_mem - int(contiguity * n_mem)
        if not 1 <= smallest <= largest <= room:
            raise ConfigError(
                f"events of {smallest} to {largest} tokens do not fit the {room} tokens that are "
                "called up by similarity",
                where="EMLLM",
                mend="choose smallest <= largest <= (1 - contiguity) n_mem",
            )
        self._model, self._tokenizer = model, tokenizer
        self.n_init, self.n_local, self.n_mem, self.block = n_init, n_local, n_mem, block
        self.smallest, self.largest, self.gamma = smallest, largest, gamma
        self.window = n_local if window is None else window
        self.splitter, self.measure, self.volume = splitter, refine, volume
        self.refine_from, self.retrieval, self.contiguity = refine_from, retrieval, contiguity
        self.representatives, self.index, self.seed = representatives, index, seed
        self._keeping = True

    @classmethod
    def published(cls, model: Any, tokenizer: Any = None, **options: Any) -> EMLLM:
        """Return the published configuration (that for Mistral 7B) around a model."""
        settings: dict[str, Any] = {
            "n_init": 128,
            "n_local": 4096,
            "n_mem": 2048,
            "block": 512,
            "smallest": 8,
            "largest": 128,
        }
        return cls(model, tokenizer, **{**settings, **options})

    def settings(self) -> dict[str, Any]:
        """All options but model and tokenizer."""
        names = "n_init n_local n_mem block smallest largest gamma window splitter volume"
        names += " refine_from retrieval contiguity representatives index seed"
        return {name: getattr(self, name) for name in names.split()} | {"refine": self.measure}

    def like(self, **options: Any) -> EMLLM:
        """Return an empty memory around the same model, with the same options but those named."""
        other = EMLLM(self.model, self.tokenizer, **{**self.settings(), **options})
        if other.n_local == self.n_local:
            other.__dict__["tap"] = self.tap
        return other

    # -- parts, made at first use ----------------------------------------------------------

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from engramma.memory.language_model import load_language_model

        if self._model is None or isinstance(self._model, str | Path):
            model, tokenizer = load_language_model(self._model or "em_llm")
            return model, self._tokenizer or tokenizer
        return self._model, self._tokenizer

    @property
    def model(self) -> Any:
        """The language model."""
        return self._loaded[0]

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer, or None."""
        return self._loaded[1]

    @cached_property
    def tap(self) -> AttentionTap:
        """Access to the model's attention."""
        return AttentionTap(self.model, self.n_local)

    @cached_property
    def store(self) -> EventStore:
        """Events that have left the window."""
        return EventStore(
            self.tap.layers,
            budget=self.n_mem,
            contiguity=self.contiguity,
            representatives=self.representatives,
            index=self.index,
        )

    @cached_property
    def stream(self) -> Stream:
        """What is not yet in events."""
        return Stream.start(self.tap.layers, self.n_init, self.seed)

    # -- segmentation ----------------------------------------------------------------------

    def segment(self, surprise: np.ndarray, keys: np.ndarray | None = None) -> np.ndarray:
        """Cut a stream of which surprise and keys are known.

        Parameters
        ----------
        surprise : ndarray, shape (token,)
        keys : ndarray, shape (token, feature), optional
            For refinement, which is left out without them.

        Returns
        -------
        ndarray of int
            First token of each event.
        """
        n_tokens = len(surprise)
        cuts = surprise_cuts(surprise, block=self.block, window=self.window, gamma=self.gamma)
        if keys is not None and self.measure is not None:
            if len(keys) != n_tokens:
                raise DataError(
                    f"there are keys of {len(keys)} tokens and surprise of {n_tokens}",
                    where="segment",
                    mend="give both for the same tokens",
                )
            cuts = self._refined(cuts, similarity(keys), 0)
        return limit_sizes(cuts, n_tokens, self.smallest, self.largest)

    def boundaries(self, text: Text) -> np.ndarray:
        """First token of each event that the model makes of a text, read by itself."""
        fresh = self.like(n_init=0)
        fresh.write("text", text)
        fresh.consolidate()
        return np.array([event.start for event in fresh.store.events], dtype=int)

    def _refined(self, cuts: np.ndarray, graph: np.ndarray, first: int) -> np.ndarray:
        assert self.measure is not None
        return refine(
            cuts,
            graph,
            measure=self.measure,
            volume=self.volume,
            smallest=self.smallest,
            first=first,
        )

    def _cut(self, surprise: np.ndarray) -> None:
        """Find the boundaries in the block that was just read, and refine them."""
        stream = self.stream
        start, opened = stream.position - len(surprise), stream.opened
        if self.splitter == "fixed":
            return
        if self.splitter == "random":
            cuts = start + np.flatnonzero(stream.rng.random(len(surprise)) < 1 / 16)
        else:
            before = stream.surprise[-self.window :]
            cuts = start + surprise_cuts(
                surprise,
                block=max(len(surprise), 1),
                window=self.window,
                gamma=self.gamma,
                before=before,
            )
        cuts = cuts[cuts > opened]
        if self.measure is not None and len(cuts):
            layers = self.tap.layers
            lowest = self.refine_from
            lowest = layers * 5 // 8 if lowest is None else min(lowest, layers - 1)
            last = max([opened, *stream.cuts[-1:]])
            # As much before the last cut as refinement may look at.
            begin = max(opened, last - (int(cuts[0]) - last))
            keys = torch.cat([k[:, begin - opened :] for k in stream.keys[lowest:]])
            flat = keys.transpose(0, 1).flatten(1).float().cpu().numpy()
            cuts = begin + self._refined(cuts - begin, similarity(flat), last - begin)
        stream.cuts += [int(c) for c in cuts if c > max([opened, *stream.cuts[-1:]])]

    def _close(self, everything: bool = False) -> None:
        """Put events that have left the window into the store."""
        stream = self.stream
        n_open = stream.n_open
        old = n_open if everything else n_open - self.n_local
        if old < (1 if everything else self.smallest):
            return
        cuts = np.array(stream.cuts, dtype=int) - stream.opened
        starts = limit_sizes(cuts, n_open, self.smallest, self.largest)
        ends = [*starts[1:], *([n_open] if everything else [])]
        begin = 0
        for end in (int(e) for e in ends if e <= old):
            piece = slice(begin, end)
            event = Event(stream.opened + begin, tuple(stream.tokens[piece]), stream.sources[begin])
            self.store.add(
                event,
                [k[:, piece].clone() for k in stream.keys],
                [v[:, piece].clone() for v in stream.values],
                [r[:, piece] for r in stream.received],
            )
            begin = end
        stream.drop(begin)

    # -- attention -------------------------------------------------------------------------

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: int, scaling: float) -> Tensor:
        """Attention of one layer for one block, which goes into the window.

        Parameters
        ----------
        q : Tensor, shape (query head, token, feature)
        k, v : Tensor, shape (key head, token, feature)
            None of them rotated.
        layer : int
            Layers are called in turn, once a block.
        scaling : float
            Factor of the inner products.

        Returns
        -------
        Tensor, shape (query head, token, feature)
        """
        stream, tap, n_local = self.stream, self.tap, self.n_local
        here = stream.position + torch.arange(q.shape[1], device=q.device)
        stream.extend(layer, k, v, len(q))
        keys, values, places = stream.unstored(layer)
        far_q = tap.rotate(q, here.new_tensor(n_local))
        called = self._call(layer, far_q.mean(1).flatten())

        first = int((places <= here[0] - n_local).sum())
        near, origin = places[first:], places[first]
        distance = here[:, None] - near
        near_scores = _products(
            tap.rotate(q, here - origin), tap.rotate(keys[:, first:], near - origin), scaling
        ).masked_fill((distance < 0) | (distance >= n_local), -torch.inf)

        left = int((places <= here[-1] - n_local).sum())
        far_keys, far_values = keys[:, :left], values[:, :left]
        if called:
            stored_keys, stored_values = self.store.gather(layer, called)
            far_keys = torch.cat([stored_keys, far_keys], 1)
            far_values = torch.cat([stored_values, far_values], 1)
        inside = here[:, None] - places[:left] < n_local
        hidden = torch.cat([inside.new_zeros(len(here), far_keys.shape[1] - left), inside], 1)
        far_scores = _products(far_q, far_keys, scaling).masked_fill(hidden, -torch.inf)

        scores = torch.cat([far_scores, near_scores], -1)
        precise = torch.promote_types(scores.dtype, torch.float32)
        weights = scores.softmax(-1, dtype=precise).to(v.dtype)
        stream.receive(layer, weights[..., -len(near) :].sum(1))
        both = torch.cat([far_values, values[:, first:]], 1)
        return weights @ both.repeat_interleave(len(q) // len(both), 0)

    def _call(self, layer: int, query: Tensor) -> list[int]:
        """Events that the block attends to in one layer."""
        rng = self.stream.rng if self.retrieval == "random" else None
        called = [] if self.retrieval == "none" else self.store.retrieve(layer, query, rng)
        self.stream.called[layer] = called
        return called

    # -- reading a stream ------------------------------------------------------------------

    @property
    def following(self) -> Tensor | None:
        """Log-probabilities of the next token."""
        return self.stream.next

    def _read_block(self, tokens: Tensor, source: str = "") -> None:
        """Let the model read at most a block."""
        self.keep(tokens, self.tap.logits(tokens, self.attend), source)

    def keep(self, tokens: Tensor, logits: Tensor, source: str = "") -> None:
        """Take up a block that all layers have attended: cut it, and store what is complete.

        Parameters
        ----------
        tokens : Tensor of int64, shape (token,)
        logits : Tensor, shape (token, vocabulary)
            What the model says after each of them.
        source : str
            Name of the text.
        """
        stream = self.stream
        log_p = logits.float().log_softmax(-1)
        surprise = np.full(len(tokens), np.nan)
        if stream.next is not None:
            surprise[0] = -float(stream.next[tokens[0]])
        surprise[1:] = -log_p[:-1].gather(1, tokens[1:, None])[:, 0].double().cpu().numpy()
        stream.advance(tokens.tolist(), source, log_p[-1])
        if self._keeping:
            self._cut(surprise)
            stream.surprise = np.append(stream.surprise, surprise)
            self._close()

    def _read(self, tokens: Tensor, source: str = "", last_alone: bool = False) -> None:
        """Read any number of tokens; the last one of a prompt has a retrieval of its own."""
        body = tokens[:-1] if last_alone else tokens
        for piece in [*body.split(self.block), *([tokens[-1:]] if last_alone else [])]:
            if len(piece):
                self._read_block(piece, source)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Leave the memory as it was; what is read stays in the window, and is not cut."""
        before = self._keeping, self.stream, [list(queue) for queue in self.store.queues]
        self._keeping, self.__dict__["stream"] = False, self.stream.copy()
        try:
            yield
        finally:
            self._keeping, self.__dict__["stream"], self.store.queues = before

    # -- a memory --------------------------------------------------------------------------

    def write(self, key: str, value: Text) -> None:
        """Read a text and keep it.

        Parameters
        ----------
        key : str
            Its name, by which it can be forgotten.
        value : str or sequence of int
        """
        self._read(self.tokens_of(value), key)

    def read(self, cue: Text) -> Recall:
        """Say which events the (last block of a) cue calls up; nothing is kept of the cue."""
        with self._aside():
            self._read(self.tokens_of(cue))
            by_layer = [list(called) for called in self.stream.called]
            events = self.store.events[:]
        counts = np.bincount(np.concatenate([np.array(c, int) for c in by_layer]))
        numbers = sorted(np.flatnonzero(counts).tolist(), key=lambda n: (-counts[n], n))
        called = tuple(events[n] for n in numbers)
        return Recall(
            tuple(numbers),
            tuple(float(counts[n]) / len(by_layer) for n in numbers),
            called,
            tuple(self.tokenizer.decode(list(e.tokens)) for e in called) if self.tokenizer else (),
            tuple(tuple(c) for c in by_layer),
        )

    def consolidate(self) -> None:
        """Make events of all that is in the window, which is then empty: an episode ends."""
        self._close(everything=True)

    def forget(self, which: str | Sequence[int]) -> None:
        """Remove a text by name (events and what is in the window), or events by number.

        Raises
        ------
        DataError
            If there is no such text or event.
        """
        if not isinstance(which, str):
            self.store.forget(which)
            return
        events = [n for n, event in enumerate(self.store.events) if event.source == which]
        if which in self.stream.sources:
            self.consolidate()
            events = [n for n, event in enumerate(self.store.events) if event.source == which]
        if not events:
            raise DataError(
                f"nothing is remembered of {which!r}",
                where="forget",
                mend="name a text as it was written, or number events",
            )
        self.store.forget(events)

    def save(self, path: str | Path) -> None:
        """Write events, window and settings into one safetensors file; the model is not in it."""
        tensors, facts = self.store.state()
        window, about = self.stream.state()
        tensors |= {f"stream.{name}": tensor for name, tensor in window.items()}
        write_tensors(path, tensors, {"store": facts, "stream": about, "settings": self.settings()})

    def load(self, path: str | Path) -> None:
        """Read what `save` wrote for the same model, in place of what there is."""
        tensors, facts = read_tensors(path, "memory of em-llm")
        if "store" not in facts or "stream" not in facts:
            raise DataError(
                "this is no saved memory of em-llm", where=str(path), mend="point to such a file"
            )
        self.store.restore(tensors, facts["store"])
        window = {
            name.removeprefix("stream."): t
            for name, t in tensors.items()
            if name.startswith("stream.")
        }
        self.__dict__["stream"] = Stream.take_up(window, facts["stream"])

    def surprise(self) -> np.ndarray:
        """Surprise of every token read so far; NaN for the first."""
        return self.stream.surprise.copy()


def _products(q: Tensor, k: Tensor, scaling: float) -> Tensor:
    """Scaled inner products, query head x token x key; heads share keys in groups."""
    return q @ k.repeat_interleave(len(q) // len(k), 0).mT * scaling
