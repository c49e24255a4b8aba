r"""HMT: Hierarchical Memory Transformer for Long Context Language Processing (He et al. 2024).

**What it does.** A decoder language model reads a text in segments of L tokens, and keeps three
memories of what it has read: *sensory*, the last k tokens; *short-term*, one embedding of each
segment; *long-term*, the last N of these, searched by a summary of the segment at hand. The model
itself is not changed: memories go in and come out as input embeddings and hidden states.

**Method.** Segment n is H (batch B x L tokens, embedded in width d).

====  ===========  ==================================================================  ============
step  name         what is computed                                                    shape
====  ===========  ==================================================================  ============
1     summary      S = hidden state of the trailing T in ``[T; H[:jL]; T]``            B x d
2     recall       Q = S W_q, K = Mem W_k;                                             B x N
                   weights = softmax(Q K^T / sqrt(d_h))
                   P = weights Mem (no projection of values)                           B x d
3     process      ``[P; last k tokens of the segment before; H; P]``:                 B x L x d
                   logits are those of H's positions
4     write        Mem_n = hidden state of the trailing P; the oldest of N is dropped  B x d
====  ===========  ==================================================================  ============

T (1 x d), the first segment's P (1 x d), W_q and W_k (d x d_h) are learned; hidden states are the
last ones, after the final norm. The modes ``"rmt"`` (Bulatov et al. 2022: no recall, P = Mem of the
segment before, in as many ``slots`` as wanted) and ``"backbone_only"`` (no P at all) leave parts
out.

**Loss.** Cross-entropy over the labelled tokens, and 0.05 times the cross-entropy of the recall
weights where it is known which segment holds the answer. Gradients reach back ``bptt`` segments:
the state is cut off the graph at each multiple of it, counted from the end. (The authors' code
means to, but rebinds a local name, so there nothing is cut; and it takes the cross-entropy of
weights that have been through a softmax already.)

**Training** is in two stages (`stage`): first the recurrence alone on short texts, then with recall
on long ones. AdamW; the rate is multiplied by a factor each 100 steps.

**Who sees what.** P of a segment depends on its own first half, by way of the weights. So the
prediction of a token inside that half may be coloured by that very token: a leak, narrow (it passes
through a choice among N old embeddings), but in the authors' perplexities too. Three ways out:
score only targets from jL on, which see nothing of what they predict (`unseen`); ask with the last
jL tokens of the segment *before* (``query="previous"``), which is causal throughout; or measure
the difference. `HMT.layer` demands the second.

A text shorter than one segment needs no memory and goes through the plain model.

Sizes of the paper and its code are in `HMT.published`; the defaults are a small configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engramma.errors import ConfigError, DataError
from engramma.memory.decoder import cache_argument, join_inputs, present
from engramma.memory.language_model import check_tokens, embed, small_language_model
from engramma.memory.layer import MemoryLayer, State, check_state, detach
from engramma.memory.stages import Stage
from engramma.nn.seed import seeded
from engramma.registry import system
from engramma.systems.sequence.hmt_claims import CLAIMS
from engramma.worlds.streams import IGNORED

BIBTEX = """@inproceedings{he2025hmt,
  title = {{HMT}: Hierarchical Memory Transformer for Efficient Long Context Language Processing},
  author = {He, Zifan and Cao, Yingqi and Qin, Zongyue and Prakriya, Neha and Sun, Yizhou and
    Cong, Jason},
  booktitle = {Proceedings of NAACL}, year = {2025}, note = {arXiv:2405.06067}}"""

Mode = Literal["hmt", "rmt", "backbone_only"]
Query = Literal["half", "previous"]


@dataclass(frozen=True)
class Reading:
    """What reading a text gives.

    Parameters
    ----------
    logits : Tensor, shape (batch, token, vocabulary)
    state : State
        To go on from.
    weights : tuple of Tensor or None
        For each segment the recall weights, batch x N, oldest memory first; None where there was
        nothing to recall.
    loss : Tensor, optional
        Scalar, where labels were given.
    """

    logits: Tensor
    state: State
    weights: tuple[Tensor | None, ...]
    loss: Tensor | None = None


class HMT(nn.Module):
    """A language model with a hierarchical memory.

    Parameters
    ----------
    lm : PreTrainedModel, optional
        Any decoder of transformers that takes ``inputs_embeds``; by default a miniature Llama with
        ``vocabulary`` tokens. It becomes part of this module.
    mode : {"hmt", "rmt", "backbone_only"}
    segment : int
        Tokens of a segment, L.
    sensory : int
        Tokens kept from the segment before, k; at most L.
    cache : int
        Memories that can be recalled, N.
    summary : float
        Share of a segment that its summary reads, j.
    recall_dim : int, optional
        Width of queries and keys, d_h; that of the model by default.
    query : {"half", "previous"}
        Whether recall asks with the first part of this segment (the paper; not causal inside it) or
        with the last part of the one before.
    slots : int
        Embeddings a memory has; more than one for ``mode="rmt"`` only.
    retrieval_weight : float
        Of the recall's own loss.
    vocabulary : int
        Of the miniature.
    seed : int
        Of the new weights, and of the miniature's.
    """

    #: Sizes and settings of the paper's code; ``pg19`` are those of its example for Llama 2 7B.
    published: dict[str, dict[str, Any]] = {  # noqa: RUF012
        "code": {
            "segment": 256,
            "sensory": 0,
            "cache": 100,
            "recall_dim": 4096,
            "bptt": 2,
            "learning_rate": 1e-5,
        },
        "pg19": {
            "segment": 256,
            "sensory": 32,
            "cache": 100,
            "recall_dim": 4096,
            "bptt": 6,
            "learning_rate": 1e-4,
            "decay": 0.6,
            "steps": 600,
        },
    }

    def __init__(
        self,
        lm: Any = None,
        *,
        mode: Mode = "hmt",
        segment: int = 16,
        sensory: int = 4,
        cache: int = 16,
        summary: float = 0.5,
        recall_dim: int | None = None,
        query: Query = "half",
        slots: int = 1,
        retrieval_weight: float = 0.05,
        vocabulary: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_options(mode, segment, sensory, cache, summary, query, slots)
        self.lm = small_language_model(vocabulary, seed=seed) if lm is None else lm
        table = self.lm.get_input_embeddings().weight
        self.dim: int = table.shape[1]
        self.mode, self.query = mode, query
        self.segment, self.sensory, self.slots = segment, sensory, slots
        self.cache = cache if mode == "hmt" else 1
        self.asked = max(1, round(segment * summary))
        self.retrieval_weight = retrieval_weight
        like = {"device": table.device, "dtype": table.dtype}
        if mode != "backbone_only":
            with seeded(seed), torch.no_grad():
                scale = 1.0 if table.is_meta else float(table.std())
                self.initial = nn.Parameter(scale * torch.randn(slots, self.dim, **like))
                if mode == "hmt":
                    width = recall_dim or self.dim
                    self.asking = nn.Parameter(scale * torch.randn(1, self.dim, **like))
                    self.to_query = nn.Linear(self.dim, width, bias=False, **like)
                    self.to_key = nn.Linear(self.dim, width, bias=False, **like)

    # -- state -----------------------------------------------------------------------------

    def initial_state(self, batch: int) -> State:
        """Nothing read: memories and sensory tokens are zeros that masks leave out.

        Returns
        -------
        State
            ``memory`` (batch x N x slots·d, oldest first), ``memory_mask`` (batch x N), ``tail``
            (batch x k x d) and ``tail_mask`` (batch x k); with ``query="previous"`` also the
            ``query`` of the next segment (batch x d).
        """
        weight = self.lm.get_input_embeddings().weight
        zeros = weight.new_zeros
        state = {
            "tail": zeros(batch, self.sensory, self.dim),
            "tail_mask": zeros(batch, self.sensory, dtype=torch.bool),
        }
        if self.mode != "backbone_only":
            state["memory"] = zeros(batch, self.cache, self.slots * self.dim)
            state["memory_mask"] = zeros(batch, self.cache, dtype=torch.bool)
        if self.mode == "hmt" and self.query == "previous":
            state["query"] = zeros(batch, self.dim)
        return state

    # -- reading tokens --------------------------------------------------------------------

    def forward(
        self,
        tokens: Tensor,
        state: State | None = None,
        *,
        labels: Tensor | None = None,
        positives: Tensor | None = None,
        attention_mask: Tensor | None = None,
        bptt: int | None = None,
    ) -> Reading:
        """Read a text segment by segment; the last segment may be short.

        Parameters
        ----------
        tokens : Tensor of int, shape (batch, token)
        state : State, optional
            As an earlier call returned it. A text may be cut wherever a segment ends.
        labels : Tensor of int, shape (batch, token), optional
            What each position should predict; -100 where it is not scored.
        positives : Tensor of int, shape (batch, segment), optional
            How many segments back the answer to each segment's question lies, 0 where unknown.
        attention_mask : Tensor, shape (batch, token), optional
            0 for padding, at either side; each row needs a token in each segment.
        bptt : int, optional
            Segments that gradients reach back; all by default.

        Returns
        -------
        Reading
        """
        check_tokens(self.lm, tokens, "HMT")
        mask = _padding(tokens, attention_mask)
        alone = state is None and tokens.shape[1] < self.segment
        state = self._state(state, len(tokens))
        pieces = tokens.split(self.segment, 1)
        logits: list[Tensor] = []
        weights: list[Tensor | None] = []
        for number, piece in enumerate(pieces):
            if bptt and number and (len(pieces) - number) % bptt == 0:
                state = detach(state)
            start = number * self.segment
            there = mask[:, start : start + self.segment]
            reading = self.step_segment(piece, state, attention_mask=there)
            state = reading.state
            logits.append(reading.logits)
            weights += reading.weights
        found = torch.cat(logits, 1)
        if alone:
            found = self._run((embed(self.lm, tokens), mask))[0]
        loss = None
        if labels is not None:
            loss = F.cross_entropy(found.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
            if positives is not None:
                loss = loss + self.retrieval_weight * retrieval_loss(weights, positives)
        return Reading(found, state, tuple(weights), loss)

    def step_segment(
        self, tokens: Tensor, state: State | None = None, *, attention_mask: Tensor | None = None
    ) -> Reading:
        """Read one segment, batch x at most L tokens, and write its memory."""
        check_tokens(self.lm, tokens, "HMT")
        if not 1 <= tokens.shape[1] <= self.segment:
            raise DataError(
                f"a segment has 1 to {self.segment} tokens, not {tokens.shape[1]}",
                where="HMT.step_segment",
                mend="call forward, which cuts texts into segments",
            )
        state = self._state(state, len(tokens))
        mask = _padding(tokens, attention_mask)
        if not bool(mask.any(1).all()):
            raise DataError(
                "a row has nothing but padding in a segment",
                where="HMT",
                mend="read texts of like length together, or one at a time",
            )
        embedded = embed(self.lm, tokens)
        logits, _, weights, state = self.read(embedded, mask, state)
        return Reading(logits, state, (weights,))

    @torch.no_grad()
    def recall_weights(self, tokens: Tensor, state: State | None = None) -> Tensor:
        """How much each segment of a text recalls each earlier one.

        Parameters
        ----------
        tokens : Tensor of int, shape (batch, token)
        state : State, optional

        Returns
        -------
        Tensor, shape (batch, segment, N)
            Column N - b is the segment b before; rows are 0 where there was nothing to recall.
        """
        if self.mode != "hmt":
            raise ConfigError(
                f"mode {self.mode!r} recalls nothing", where="HMT", mend='build it with mode="hmt"'
            )
        reading = self(tokens, state)
        weights, none = reading.weights, reading.logits.new_zeros(len(tokens), self.cache)
        return torch.stack([none if w is None else w for w in weights], 1)

    # -- one segment of embeddings -----------------------------------------------------------

    def read(
        self, embedded: Tensor, mask: Tensor, state: State
    ) -> tuple[Tensor, Tensor, Tensor | None, State]:
        """Recall, process and write, for one segment of input embeddings.

        Parameters
        ----------
        embedded : Tensor, shape (batch, token, dim)
        mask : Tensor of bool, shape (batch, token)
            False for padding.
        state : State

        Returns
        -------
        logits : Tensor, shape (batch, token, vocabulary)
        hidden : Tensor, shape (batch, token, dim)
        weights : Tensor of shape (batch, N), or None
        state : State
        """
        prefix, weights = self.recall(embedded, mask, state)
        parts = self._before(prefix, state)
        start = sum(p.shape[1] for p, _ in parts)
        stop = start + embedded.shape[1]
        trailing = [] if prefix is None else [present(prefix)]
        logits, hidden = self._run(*parts, (embedded, mask), *trailing)
        after = self._remember(embedded, mask, hidden[:, stop:], state)
        return logits[:, start:stop], hidden[:, start:stop], weights, after

    def recall(
        self, embedded: Tensor, mask: Tensor, state: State
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return P (batch x slots x d) and the weights it was recalled with (batch x N)."""
        if self.mode == "backbone_only":
            return None, None
        memory, there = state["memory"], state["memory_mask"]
        initial = self.initial.expand(len(memory), -1, -1)
        if self.mode == "rmt":
            last = memory[:, -1].unflatten(1, (self.slots, self.dim))
            return torch.where(there[:, -1, None, None], last, initial), None
        if not bool(there.any()):
            return initial, None
        asked = state["query"] if self.query == "previous" else self.summarise(embedded, mask)
        weights = self.recall_scores(asked, memory, there).softmax(-1)
        # A row that has nothing to recall yet is one that starts later than others: all are alike.
        return (weights.unsqueeze(1) @ memory), weights

    def recall_scores(self, summary: Tensor, memory: Tensor, there: Tensor) -> Tensor:
        """Scores of memories (batch x N) for a summary (batch x d); -inf where there is none."""
        query, key = self.to_query(summary), self.to_key(memory)
        scores = (key @ query.unsqueeze(-1)).squeeze(-1) / query.shape[-1] ** 0.5
        return scores.masked_fill(~there, float("-inf"))

    def summarise(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Summary of the first jL tokens given, batch x d."""
        asking = present(self.asking.expand(len(embedded), -1, -1))
        part = (embedded[:, : self.asked], mask[:, : self.asked])
        hidden: Tensor = self.lm.base_model(**join_inputs(asking, part, asking)).last_hidden_state
        return hidden[:, -1]

    def _before(self, prefix: Tensor | None, state: State) -> list[tuple[Tensor, Tensor]]:
        """Return what stands in front of a segment: P, and the tail of the segment before."""
        parts = [] if prefix is None else [present(prefix)]
        if bool(state["tail_mask"].any()):
            parts.append((state["tail"], state["tail_mask"]))
        return parts

    def _run(self, *parts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits and last hidden states of the model over embeddings one after another."""
        hidden: list[Tensor] = []
        hook = self.lm.base_model.register_forward_hook(
            lambda _module, _inputs, output: hidden.append(output.last_hidden_state)
        )
        try:
            logits: Tensor = self.lm(**join_inputs(*parts)).logits
        finally:
            hook.remove()
        return logits, hidden[0]

    def _remember(self, embedded: Tensor, mask: Tensor, written: Tensor, state: State) -> State:
        """State after a segment, whose memory embeddings are ``written``."""
        tail = torch.cat([state["tail"], embedded], 1)
        there = torch.cat([state["tail_mask"], mask], 1)
        first = tail.shape[1] - self.sensory
        after = {"tail": tail[:, first:], "tail_mask": there[:, first:]}
        if self.mode != "backbone_only":
            new = written.flatten(1).unsqueeze(1)
            after["memory"] = torch.cat([state["memory"][:, 1:], new], 1)
            one = torch.ones_like(state["memory_mask"][:, :1])
            after["memory_mask"] = torch.cat([state["memory_mask"][:, 1:], one], 1)
        if "query" in state:
            after["query"] = self.summarise(embedded[:, -self.asked :], mask[:, -self.asked :])
        return after

    def _state(self, state: State | None, batch: int) -> State:
        expected = self.initial_state(batch)
        if state is None:
            return expected
        check_state(state, expected, {}, "HMT")
        return state

    # -- generation ------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        tokens: Tensor,
        max_new_tokens: int,
        state: State | None = None,
        *,
        temperature: float = 0.0,
        stop: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Continue a text, segment by segment.

        An open segment asks its memory with those of its first tokens that are there, once when it
        is opened and once more when its first half is full. A full one is read as `forward` reads.

        Parameters
        ----------
        tokens : Tensor of int, shape (batch, token)
            The text so far; what does not fill a segment stays open.
        max_new_tokens : int
        state : State, optional
            Of what was read before ``tokens``.
        temperature : float
            0 for the likeliest token.
        stop : int, optional
            Ends the text once all rows have said it.
        generator : torch.Generator, optional
            For ``temperature`` above 0.

        Returns
        -------
        Tensor of int, shape (batch, at most max_new_tokens)
        """
        check_tokens(self.lm, tokens, "HMT.generate")
        if not tokens.shape[1]:
            raise DataError(
                "there is no text to continue", where="HMT.generate", mend="give at least one token"
            )
        # The start of a text goes through the plain model until it is a segment long.
        plain = state is None and tokens.shape[1] < self.segment
        full = tokens.shape[1] // self.segment * self.segment
        state = self._state(state, len(tokens))
        if full:
            reading = self(tokens[:, :full], state)
            state, logits = reading.state, reading.logits[:, -1]
        opened, cache, said = tokens[:, full:], None, []
        for _ in range(max_new_tokens):
            if opened.shape[1]:
                if opened.shape[1] == self.asked:
                    cache = None
                logits, cache = self._next(opened, state, cache, plain)
            new = _choose(logits, temperature, generator)
            said.append(new)
            opened = torch.cat([opened, new], 1)
            if opened.shape[1] == self.segment:
                reading = self.step_segment(opened, state)
                state, logits = reading.state, reading.logits[:, -1]
                opened, cache, plain = opened[:, :0], None, False
            if stop is not None and bool((torch.cat(said, 1) == stop).any(1).all()):
                break
        return torch.cat(said, 1) if said else tokens[:, :0]

    def _next(self, opened: Tensor, state: State, cache: Any, plain: bool) -> tuple[Tensor, Any]:
        """Logits after an open segment, and keys and values to go on from."""
        embedded = embed(self.lm, opened)
        name = cache_argument(self.lm)
        if cache is not None:
            inputs = {"inputs_embeds": embedded[:, -1:], name: cache}
        else:
            parts = [] if plain else self._before(self.recall(*present(embedded), state)[0], state)
            # The tail has no gaps here: masks are left out, so that the cache needs none either.
            whole = [e[:, -int(m[0].sum()) :] for e, m in [*parts, present(embedded)]]
            inputs = {"inputs_embeds": torch.cat(whole, 1)}
        output = self.lm(**inputs, use_cache=True)
        return output.logits[:, -1], getattr(output, name)

    # -- as a layer ------------------------------------------------------------------------

    def layer(self) -> HMTLayer:
        """Return this memory as a layer of embeddings; it shares all weights."""
        return HMTLayer.around(self)


@system(
    "hmt",
    family="sequence",
    title="Hierarchical Memory Transformer",
    contract="SequenceLayer",
    paper="He et al. 2024, HMT: Hierarchical Memory Transformer for Long Context Language "
    "Processing, NAACL 2025, arXiv:2405.06067",
    bibtex=BIBTEX,
    claims=CLAIMS,
    tasks=["recall", "needle"],
)
class HMTLayer(MemoryLayer):
    """HMT over embeddings: (batch x token x dim) in, last hidden states of the same shape out.

    Tokens may come in pieces of any length; segments are counted from the start of the stream.
    Recall asks with the segment before (``query="previous"``), without which a token would have to
    wait for half a segment.

    Parameters
    ----------
    dim : int
        Width of the miniature model that is wrapped.
    layers, heads : int
        Its blocks and attention heads.
    seed : int, optional
        Of all weights; drawn from torch's generator by default, as those of other layers are.
    **options
        Of `HMT`; the memory of another language model comes from `HMT.layer`.
    """

    growing = {"opened": 1}  # noqa: RUF012 -- up to a segment

    def __init__(
        self,
        dim: int = 64,
        *,
        layers: int = 2,
        heads: int = 4,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(dim)
        if seed is None:
            seed = int(torch.randint(2**31, ()))
        lm = small_language_model(1, dim, layers, heads, seed=seed)
        self.hmt = HMT(lm, **({"query": "previous"} | options), seed=seed)
        _check_causal(self.hmt)

    @classmethod
    def around(cls, hmt: HMT) -> HMTLayer:
        """Make the layer of an `HMT`."""
        _check_causal(hmt)
        layer = cls.__new__(cls)
        MemoryLayer.__init__(layer, hmt.dim)
        layer.hmt = hmt
        return layer

    def initial_state(self, batch: int) -> State:
        """Memories as in `HMT`, and the open segment's embeddings."""
        state = self.hmt.initial_state(batch)
        return state | {"opened": state["tail"].new_zeros(batch, 0, self.dim)}

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Fill the open segment, and read it anew each time something is added."""
        outputs = []
        while x.shape[1]:
            opened = state["opened"]
            room = self.hmt.segment - opened.shape[1]
            embedded = torch.cat([opened, x[:, :room]], 1)
            memories = {k: v for k, v in state.items() if k != "opened"}
            _, hidden, _, after = self.hmt.read(*present(embedded), memories)
            outputs.append(hidden[:, opened.shape[1] :])
            if embedded.shape[1] == self.hmt.segment:
                state = after | {"opened": embedded[:, :0]}
            else:
                state = memories | {"opened": embedded}
            x = x[:, room:]
        return torch.cat(outputs, 1), state

    def token(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """As `sequence`, with one token."""
        y, state = self.sequence(x.unsqueeze(1), state)
        return y[:, 0], state


# -- loss, scores, training ----------------------------------------------------------------


def retrieval_loss(weights: Sequence[Tensor | None], positives: Tensor) -> Tensor:
    """Cross-entropy of recall weights against the segments that hold the answers.

    Parameters
    ----------
    weights : sequence of Tensor of shape (batch, N), or None
        One a segment.
    positives : Tensor of int, shape (batch, segment)
        How many segments back; 0 where unknown. Those beyond N have been forgotten, and count not.
    """
    if positives.shape[1] != len(weights):
        raise DataError(
            f"positives name {positives.shape[1]} segments, and {len(weights)} were read",
            where="HMT",
            mend="give one number a segment, 0 where the answer's place is unknown",
        )
    losses = []
    for one, back in zip(weights, positives.unbind(1), strict=True):
        if one is None:
            continue
        known = (back > 0) & (back <= one.shape[1])
        chosen = one[known].gather(1, one.shape[1] - back[known, None])
        # Memories that were never written have weight 0 and an infinite loss: they are left out.
        losses.append(-chosen[chosen > 0].log())
    every = torch.cat(losses) if losses else positives.new_zeros(0, dtype=torch.float32)
    return every.mean() if len(every) else every.sum()


def unseen(hmt: HMT, length: int) -> Tensor:
    """Say which positions predict a token that their segment's recall has not looked at.

    Parameters
    ----------
    hmt : HMT
    length : int
        Of a text that starts with a segment.

    Returns
    -------
    Tensor of bool, shape (length,)
        True at position t where the prediction of token t + 1 is causal: everywhere with
        ``query="previous"``; else where t is at or behind the last token that the summary reads,
        and in the first segment, which recalls nothing.
    """
    place = torch.arange(length)
    if hmt.mode != "hmt" or hmt.query == "previous":
        return torch.ones(length, dtype=torch.bool)
    return (place < hmt.segment) | (place % hmt.segment >= hmt.asked - 1)


@torch.no_grad()
def perplexity(
    hmt: HMT, tokens: Tensor, *, suffix: int | None = None, strict: bool = True
) -> float:
    """Exponential of the mean cross-entropy of next tokens.

    Parameters
    ----------
    hmt : HMT
    tokens : Tensor of int, shape (batch, token)
    suffix : int, optional
        Score only the last so many tokens.
    strict : bool
        Leave out tokens that could colour their own prediction (`unseen`).
    """
    logits = hmt(tokens).logits[:, :-1]
    scored = (
        unseen(hmt, tokens.shape[1])[:-1]
        if strict
        else torch.ones(tokens.shape[1] - 1, dtype=torch.bool)
    )
    if suffix is not None:
        scored = scored & (torch.arange(len(scored)) >= len(scored) - suffix)
    if not bool(scored.any()):
        raise DataError(
            "no token is left to score",
            where="perplexity",
            mend="give a longer text or suffix, or strict=False",
        )
    loss = F.cross_entropy(logits[:, scored].flatten(0, 1), tokens[:, 1:][:, scored].flatten())
    return float(loss.exp())


@dataclass(frozen=True)
class Batch:
    """Texts to train on.

    Parameters
    ----------
    tokens, labels : ndarray of int64, shape (text, token)
        Labels are -100 where nothing is scored.
    positives : ndarray of int64, shape (text, segment), optional
        How many segments back the answer lies; 0 where unknown.
    """

    tokens: np.ndarray
    labels: np.ndarray
    positives: np.ndarray | None = None


def stage(
    make: Callable[[np.random.Generator], Batch],
    steps: int,
    *,
    mode: Mode = "hmt",
    bptt: int | None = None,
    learning_rate: float = 3e-3,
    decay: float = 1.0,
) -> Stage:
    """Stage of training for `engramma.memory.stages.fit_stages`.

    The paper trains in two: ``mode="rmt"`` on short texts, so that memories are written and read,
    then ``mode="hmt"`` on long ones.

    Parameters
    ----------
    make : callable
        ``make(rng) -> Batch``.
    steps : int
    mode : {"hmt", "rmt"}
        ``"rmt"`` leaves the recall of an HMT out; the other modes have none.
    bptt : int, optional
        Segments that gradients reach back.
    learning_rate, decay : float
        Rate of AdamW, and its factor each 100 steps.
    """

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, HMT)
        wanted = model.mode
        model.mode = mode if wanted == "hmt" else wanted
        try:
            value = model(
                torch.as_tensor(batch.tokens),
                labels=torch.as_tensor(batch.labels),
                positives=None if batch.positives is None else torch.as_tensor(batch.positives),
                bptt=bptt,
            ).loss
        finally:
            model.mode = wanted
        assert isinstance(value, Tensor)
        return value

    return Stage(make, loss, steps, learning_rate, decay, name=f"HMT ({mode})")


# -- small parts ---------------------------------------------------------------------------


def _padding(tokens: Tensor, attention_mask: Tensor | None) -> Tensor:
    if attention_mask is None:
        return torch.ones_like(tokens, dtype=torch.bool)
    if attention_mask.shape != tokens.shape:
        raise DataError(
            f"the attention mask has shape {tuple(attention_mask.shape)}, and the tokens "
            f"{tuple(tokens.shape)}",
            where="HMT",
            mend="give 1 for each token and 0 for padding",
        )
    return attention_mask.bool()


def _choose(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if temperature <= 0:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)


def _check_causal(hmt: HMT) -> None:
    if hmt.mode == "hmt" and hmt.query != "previous":
        raise ConfigError(
            "recall by a segment's own first half is not causal inside it, so it has no step form",
            where="HMT.layer",
            mend='build it with query="previous"',
        )


def _check_options(
    mode: str, segment: int, sensory: int, cache: int, summary: float, query: str, slots: int
) -> None:
    def refuse(what: str, where: str, mend: str) -> ConfigError:
        return ConfigError(what, where=f"HMT, {where}", mend=mend)

    if mode not in get_args(Mode):
        raise refuse(f"there is no mode {mode!r}", "mode", f"use {', '.join(get_args(Mode))}")
    if query not in get_args(Query):
        raise refuse(f"there is no query {query!r}", "query", f"use {', '.join(get_args(Query))}")
    if segment < 1 or cache < 1 or slots < 1:
        raise refuse(
            f"segments of {segment}, a cache of {cache} and {slots} slots",
            "segment, cache, slots",
            "all are at least 1",
        )
    if not 0 <= sensory <= segment:
        raise refuse(
            f"{sensory} tokens cannot be kept of a segment of {segment}",
            "sensory",
            "keep at most a segment, or take longer segments",
        )
    if not 0 < summary <= 1:
        raise refuse(f"a summary of {summary:g} of a segment", "summary", "use 0 < share <= 1")
    if slots > 1 and mode != "rmt":
        raise refuse("only mode 'rmt' has several slots", "slots", 'use slots=1 or mode="rmt"')
