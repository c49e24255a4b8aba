r"""Contextual Memory Reweaving: layered latent state reconstruction (Dillon et al. 2025).

**A reconstruction.** The paper has a flow chart and tables of results, but no equation, no name
of a model, no hyperparameter and no data source. Its idea is kept here: hidden states that matter
are captured at several depths of a transformer, kept, and a reconstruction of them is folded back
into later tokens, without a store outside the model. Every formula and number is our choice.

**Method.** A decoder of n blocks reads a text in segments; h^l is what its l-th block puts out
(batch x token x d), captured at l in {n/3, 2n/3, n}, rounded up. Attention reaches ``window``
tokens back, so what is older can only come from the buffers.

====  ==============  =============================================================================
step  name            what is computed
====  ==============  =============================================================================
1     capture         r_t = z-scored surprisal of token t + mean attention that it received from
                      later tokens of its segment; when a segment is finished, the 12.5 % of its
                      tokens with the largest r are kept, as (h^l_t, t), in a buffer B^l of 128
2     reconstruction  :math:`z^l_t = softmax((h^l_t W^l_q)(B^l W^l_k)^T / \sqrt d - \lambda
                      \log(1 + age)) B^l W^l_v`
3     alignment       :math:`\hat z_t = \sum_l \omega_l W^l_a z^l_t`, with :math:`\omega =
                      softmax(w)`
4     reweaving       :math:`h^n_t \leftarrow h^n_t + \sigma(W_g [h^n_t; \hat z_t]) \odot W_o
                      \hat z_t`, before the final norm and the head
====  ==============  =============================================================================

Surprisal is z-scored and attention averaged within the segment (over blocks, heads and later
tokens); a text's first token, which nothing predicts, has z = 0. Age counts tokens;
:math:`\lambda` is learned, and positive. Hidden states enter queries, keys and values after
division by their root mean square, since their scale grows with depth. What is captured of the last
block is its own output, before anything was woven into it. W_o starts at zero, so that an untrained
system is its base model, to the last bit.

**Two forms.** A token sees the buffers of finished segments only. So all tokens of a segment, or of
any piece of it, attend to one buffer in one matrix product (`forward`), and token by token (`step`)
gives the same numbers.

**Training** (``scripts/train_memory_reweaving.py``): stage 1 trains the adapter, stage 2 all of it,
on texts longer than the window, with cross-entropy. Buffers are cut off the graph when they are
written, unless ``cut=False``. Where it is known which token holds an answer, `retrieval_loss`
trains directly what is read. The miniatures use both, for they have minutes where models have days.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engramma.errors import ConfigError
from engramma.memory.decoder import (
    blocks,
    cache_argument,
    causal_mask,
    from_cache,
    key_value_sizes,
    to_cache,
)
from engramma.memory.language_model import check_tokens, small_language_model
from engramma.memory.layer import State, check_state
from engramma.nn.seed import seeded
from engramma.registry import system
from engramma.systems.sequence.memory_reweaving_claims import CLAIMS

BIBTEX = """@misc{dillon2025contextual,
  title = {Contextual Memory Reweaving in Large Language Models Using Layered Latent State
    Reconstruction},
  author = {Dillon, Frederick and Halvorsen, Gregor and Tattershall, Simon and Rowntree, Magnus
    and Vanderpool, Gareth},
  year = {2025}, note = {arXiv:2502.02046}}"""

Rule = Literal["salience", "random", "least"]
_MARK = "_engramma_reweaving"


def attach(lm: Any, layers: Sequence[int] | None = None, **options: Any) -> MemoryReweaving:
    """Attach a new memory to a language model; parameters as in `MemoryReweaving`."""
    return MemoryReweaving(lm, layers, **options)


@system(
    "memory-reweaving",
    family="sequence",
    title="Contextual Memory Reweaving",
    contract="SequenceLayer",
    paper="Dillon et al. 2025, Contextual Memory Reweaving in Large Language Models Using Layered "
    "Latent State Reconstruction, arXiv:2502.02046 (reconstructed: the paper has no equations)",
    bibtex=BIBTEX,
    claims=CLAIMS,
)
class MemoryReweaving(nn.Module):
    """A language model whose later tokens are woven with captured states of earlier ones.

    The model is hooked when this is made and until `detach`; called by itself it answers as ever.

    Parameters
    ----------
    lm : PreTrainedModel, optional
        A decoder of transformers; by default a miniature Llama of three blocks with ``vocabulary``
        tokens. It becomes part of this module, and computes attention in the plain way (as
        ``attn_implementation="eager"`` does), since weights are needed.
    layers : sequence of int, optional
        Blocks to capture, counted from 1; by default those at one, two and three thirds.
    window : int, optional
        Tokens that attention reaches back, itself included. By default that of the model, 32 for
        the miniature; 0 for all of them, which makes the state grow.
    segment : int
        Tokens of a segment.
    keep : float
        Share of a segment that is captured.
    capacity : int
        Of each buffer.
    rule : {"salience", "random", "least"}
        What is captured; for comparison at random, by a fixed hash of place and token, or what is
        least salient.
    cut : bool
        Whether captured states are cut off the graph. Without, gradients reach the states through
        the buffers, which teaches the model much sooner to put into them what will be needed.
    vocabulary, dim : int
        Of the miniature.
    seed : int
        Of the new weights, and of the miniature's.
    """

    def __init__(
        self,
        lm: Any = None,
        layers: Sequence[int] | None = None,
        *,
        window: int | None = None,
        segment: int = 32,
        keep: float = 0.125,
        capacity: int = 128,
        rule: Rule = "salience",
        cut: bool = True,
        vocabulary: int = 64,
        dim: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if lm is None:
            lm = small_language_model(vocabulary, dim, layers=3, seed=seed)
            window = 32 if window is None else window
        _check_options(segment, keep, capacity, rule, window)
        self.lm = lm
        found = blocks(lm)
        self.layers = _choose_layers(layers, len(found))
        limit = getattr(lm.config, "sliding_window", None) if window is None else window
        self.window: int | None = limit or None
        self.segment, self.capacity, self.rule, self.cut = segment, capacity, rule, cut
        self.kept = max(1, round(keep * segment))
        table = lm.get_input_embeddings().weight
        self.dim: int = lm.config.hidden_size
        self.adapter = Adapter(self.dim, len(self.layers), seed).to(table.device, table.dtype)
        #: Buffers that the hooks read while this module runs the model; None else.
        self._woven: tuple[State, Tensor] | None = None
        self._captured: list[Tensor] = []
        self._handles: list[Any] = []
        self.attach()

    # -- hooks -----------------------------------------------------------------------------

    def attach(self) -> MemoryReweaving:
        """Put the hooks into the model.

        Raises
        ------
        ConfigError
            If it is hooked already, by this memory or another.
        """
        if getattr(self.lm, _MARK, False):
            raise ConfigError(
                "this language model has a memory attached already",
                where="MemoryReweaving",
                mend="detach() the other one first",
            )
        found = blocks(self.lm)
        setattr(self.lm, _MARK, True)
        self._attention = self.lm.config._attn_implementation
        self.lm.config._attn_implementation = "eager"
        for layer in self.layers:
            self._handles.append(found[layer - 1].register_forward_hook(self._capture_hook))
        self._handles.append(found[-1].register_forward_hook(self._weave_hook))
        return self

    def detach(self) -> Any:
        """Take the hooks away, and return the language model as it was."""
        for handle in self._handles:
            handle.remove()
        if self._handles:
            self._handles = []
            setattr(self.lm, _MARK, False)
            self.lm.config._attn_implementation = self._attention
        return self.lm

    @property
    def attached(self) -> bool:
        """Whether the model is hooked."""
        return bool(self._handles)

    def _capture_hook(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if self._woven is not None:
            self._captured.append(output[0] if isinstance(output, tuple) else output)

    def _weave_hook(self, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        if self._woven is None:
            return None
        state, at = self._woven
        last = output[0] if isinstance(output, tuple) else output
        woven = self.reweave(last, self._captured, state, at)
        return (woven, *output[1:]) if isinstance(output, tuple) else woven

    # -- state -----------------------------------------------------------------------------

    @property
    def growing(self) -> dict[str, int]:
        """State tensors that become longer: up to a segment or window, without one for ever."""
        names = {name: 1 for name in ("hidden", "tokens", "surprisal", "received", "seen")}
        for block in range(key_value_sizes(self.lm)[0]):
            names |= {f"keys.{block}": 2, f"values.{block}": 2}
        return names

    def initial_state(self, batch: int) -> State:
        """Empty buffers, nothing read.

        Returns
        -------
        State
            Buffers ``memory`` (batch x capacity x layers·d, oldest first), ``memory_at`` (place of
            each in the text) and ``memory_mask``; the open segment's ``hidden``, ``tokens``,
            ``surprisal``, attention ``received`` and from how many tokens (``seen``); the model's
            ``keys`` and ``values``, the ``logits`` of the last token, the ``place`` of the next.
        """
        n_blocks, heads, width = key_value_sizes(self.lm)
        table = self.lm.get_input_embeddings().weight
        zeros = table.new_zeros
        wide = len(self.layers) * self.dim
        state = {
            "memory": zeros(batch, self.capacity, wide),
            "memory_at": zeros(batch, self.capacity, dtype=torch.long),
            "memory_mask": zeros(batch, self.capacity, dtype=torch.bool),
            "hidden": zeros(batch, 0, wide),
            "tokens": zeros(batch, 0, dtype=torch.long),
            "logits": zeros(batch, self.lm.config.vocab_size),
            "place": zeros(batch, 1, dtype=torch.long),
        }
        state |= {name: zeros(batch, 0) for name in ("surprisal", "received", "seen")}
        for block in range(n_blocks):
            state[f"keys.{block}"] = zeros(batch, heads, 0, width)
            state[f"values.{block}"] = zeros(batch, heads, 0, width)
        return state

    # -- reading ---------------------------------------------------------------------------

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Read a piece of a text of any length.

        Parameters
        ----------
        tokens : Tensor of int, shape (batch, token)
        state : State, optional
            As an earlier call returned it.

        Returns
        -------
        logits : Tensor, shape (batch, token, vocabulary)
        state : State
        """
        check_tokens(self.lm, tokens, "MemoryReweaving")
        if not self.attached:
            raise ConfigError(
                "the memory has been detached from its language model",
                where="MemoryReweaving",
                mend="call attach() first",
            )
        if state is None:
            state = self.initial_state(len(tokens))
        else:
            check_state(state, self.initial_state(len(tokens)), self.growing, "MemoryReweaving")
        logits = []
        while tokens.shape[1]:
            room = self.segment - state["hidden"].shape[1]
            found, state = self._piece(tokens[:, :room], state)
            logits.append(found)
            tokens = tokens[:, room:]
        if not logits:
            return state["logits"][:, None][:, :0], state
        return torch.cat(logits, 1), state

    def step(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Read one token (batch): its logits, batch x vocabulary, and the state after it."""
        logits, state = self(tokens.unsqueeze(-1), state)
        return logits[:, 0], state

    def _piece(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens of one segment."""
        new = tokens.shape[1]
        n_blocks = key_value_sizes(self.lm)[0]
        past = state["keys.0"].shape[2]
        cache = to_cache([(state[f"keys.{b}"], state[f"values.{b}"]) for b in range(n_blocks)])
        at = state["place"] + torch.arange(new, device=tokens.device)
        mask = causal_mask(past, new, self.window, state["memory"])
        self._woven, self._captured = (state, at), []
        try:
            output = self.lm(
                input_ids=tokens,
                attention_mask=mask.expand(len(tokens), -1, -1, -1),
                position_ids=at,
                use_cache=True,
                output_attentions=True,
                **{cache_argument(self.lm): cache},
            )
            hidden = torch.cat(self._captured, -1)
        finally:
            self._woven, self._captured = None, []
        attention = torch.stack(output.attentions).mean((0, 2))
        opened = self._open(tokens, hidden, output.logits, attention, mask[0, 0] == 0, state)
        after = {n: state[n] for n in ("memory", "memory_at", "memory_mask")} | opened
        after |= {"logits": output.logits[:, -1].detach(), "place": state["place"] + new}
        for block, pair in enumerate(from_cache(cache)):
            first = max(0, past + new - (self.window - 1)) if self.window else 0
            for name, values in zip(("keys", "values"), pair, strict=True):
                after[f"{name}.{block}"] = values[:, :, first:]
        if after["hidden"].shape[1] == self.segment:
            after = self.capture(after)
        return output.logits, after

    def _open(
        self,
        tokens: Tensor,
        hidden: Tensor,
        logits: Tensor,
        attention: Tensor,
        visible: Tensor,
        state: State,
    ) -> State:
        """Add to the records of the open segment what one piece of it gave."""
        before = torch.cat([state["logits"].unsqueeze(1), logits[:, :-1].detach()], 1)
        surprisal = F.cross_entropy(before.mT, tokens, reduction="none")
        new = tokens.shape[1]
        n_open = state["hidden"].shape[1] + new
        # Rows are the new tokens, columns the segment so far; a token's look at itself counts not.
        later = torch.ones(new, n_open, dtype=torch.bool, device=tokens.device)
        later = later.tril(n_open - new - 1)
        # Tokens of the segment that the window has left behind have no column any more.
        gone = max(0, n_open - visible.shape[-1])
        looks = F.pad(attention.detach(), (gone, 0))[..., -n_open:] * later
        seen = (later & F.pad(visible, (gone, 0))[:, -n_open:]).sum(0)
        seen = seen.to(looks.dtype).expand(len(tokens), -1)
        grown = F.pad(state["received"], (0, new)) + looks.sum(1)
        return {
            "hidden": torch.cat([state["hidden"], hidden.detach() if self.cut else hidden], 1),
            "tokens": torch.cat([state["tokens"], tokens], 1),
            "surprisal": torch.cat([state["surprisal"], surprisal], 1),
            "received": grown,
            "seen": F.pad(state["seen"], (0, new)) + seen,
        }

    # -- the four steps ----------------------------------------------------------------------

    def capture(self, state: State) -> State:
        """Move the most salient tokens of the open segment into the buffers (step 1)."""
        chosen = self.salience(state).topk(self.kept, 1).indices.sort(1).values
        hidden = state["hidden"]
        start = state["place"] - hidden.shape[1]
        new = {
            "memory": hidden.gather(1, chosen.unsqueeze(-1).expand(-1, -1, hidden.shape[-1])),
            "memory_at": start + chosen,
            "memory_mask": torch.ones_like(chosen, dtype=torch.bool),
        }
        buffers = {n: torch.cat([state[n], new[n]], 1)[:, -self.capacity :] for n in new}
        emptied = ("hidden", "tokens", "surprisal", "received", "seen")
        return state | buffers | {n: state[n][:, :0] for n in emptied}

    def salience(self, state: State) -> Tensor:
        """Score each token of the open segment, batch x token: r."""
        n_open = state["tokens"].shape[1]
        at = state["place"] - torch.arange(n_open, 0, -1, device=state["place"].device)
        if self.rule == "random":
            # A hash of place and token: the same in both forms, and with no generator to keep.
            return torch.frac(torch.sin(at * 12.9898 + state["tokens"] * 78.233) * 43758.5453).abs()
        # A text's first token was predicted by nothing: it counts as neither surprising nor not.
        known = at > 0
        count = known.sum(1, keepdim=True)
        away = (state["surprisal"] * known).sum(1, keepdim=True) / count
        away = (state["surprisal"] - away) * known
        z = away / ((away.pow(2).sum(1, keepdim=True) / count).sqrt() + 1e-6)
        score = z + state["received"] / state["seen"].clamp(min=1)
        return -score if self.rule == "least" else score

    def reconstruct(self, hidden: Sequence[Tensor], state: State, at: Tensor) -> Tensor:
        """Ask the buffers (steps 2 and 3): what they say to tokens, batch x token x d.

        Parameters
        ----------
        hidden : sequence of Tensor, shape (batch, token, dim)
            Of the captured layers.
        state : State
        at : Tensor of int, shape (batch, token)
            Places of the tokens in the text.
        """
        age = (at.unsqueeze(-1) - state["memory_at"].unsqueeze(1)).clamp(min=0)
        memory = state["memory"].split(self.dim, -1)
        there = state["memory_mask"].unsqueeze(1)
        return self.adapter.reconstruct(hidden, memory, age, there)

    def reweave(self, last: Tensor, hidden: Sequence[Tensor], state: State, at: Tensor) -> Tensor:
        """Fold the reconstruction into the last block's output (step 4), unless all are empty."""
        if not bool(state["memory_mask"].any()):
            return last
        return self.adapter.reweave(last, self.reconstruct(hidden, state, at))

    def buffer_stats(self, state: State) -> dict[str, Any]:
        """Tell how full the buffers are, and what they hold.

        Returns
        -------
        dict
            ``captured`` (mean number a row), ``capacity``, ``oldest`` and ``newest`` (ages in
            tokens, None when empty), and ``omega``, the weight of each captured layer.
        """
        there = state["memory_mask"]
        age = (state["place"] - state["memory_at"])[there]
        weights = self.adapter.mixture.softmax(0).tolist()
        return {
            "captured": float(there.sum(1).float().mean()),
            "capacity": self.capacity,
            "oldest": int(age.max()) if len(age) else None,
            "newest": int(age.min()) if len(age) else None,
            "omega": dict(zip(self.layers, weights, strict=True)),
        }


class Adapter(nn.Module):
    """Weights that reconstruct and reweave; one set a captured layer.

    Parameters
    ----------
    dim : int
    layers : int
    seed : int
    """

    def __init__(self, dim: int, layers: int, seed: int = 0) -> None:
        super().__init__()
        self.dim = dim

        def matrices() -> nn.Parameter:
            return nn.Parameter(torch.randn(layers, dim, dim) * dim**-0.5)

        with seeded(seed):
            self.query, self.key, self.value, self.align = (matrices() for _ in range(4))
            self.mixture = nn.Parameter(torch.zeros(layers))
            self.age_penalty = nn.Parameter(torch.tensor(-2.0))
            self.gate = nn.Linear(2 * dim, dim)
            self.out = nn.Linear(dim, dim, bias=False)
        nn.init.zeros_(self.out.weight)
        #: Where a list stands, each read adds its weights (batch x token x capacity, mean of
        #: layers) to it: to look at, or to train them (`retrieval_loss`).
        self.read: list[Tensor] | None = None

    def reconstruct(
        self, hidden: Sequence[Tensor], memory: Sequence[Tensor], age: Tensor, there: Tensor
    ) -> Tensor:
        """Read each layer's buffer and put what they say together.

        Parameters
        ----------
        hidden : sequence of Tensor, shape (batch, token, dim)
        memory : sequence of Tensor, shape (batch, capacity, dim)
        age : Tensor, shape (batch, token, capacity)
        there : Tensor of bool, shape (batch, 1, capacity)

        Returns
        -------
        Tensor, shape (batch, token, dim)
        """
        old = F.softplus(self.age_penalty) * torch.log1p(age.to(hidden[0].dtype))
        weights = self.mixture.softmax(0)
        total, mean = torch.zeros_like(hidden[0]), torch.zeros_like(old)
        for layer, (h, b) in enumerate(zip(hidden, memory, strict=True)):
            b = F.rms_norm(b, (self.dim,))
            query = F.rms_norm(h, (self.dim,)) @ self.query[layer]
            scores = query @ (b @ self.key[layer]).mT / math.sqrt(self.dim) - old
            # A finite number, so that a row whose buffer is empty reads zeros and no NaN.
            scores = scores.masked_fill(~there, torch.finfo(scores.dtype).min)
            chosen = scores.softmax(-1) * there
            mean = mean + weights[layer] * chosen
            read = chosen @ (b @ self.value[layer])
            total = total + weights[layer] * (read @ self.align[layer])
        if self.read is not None:
            self.read.append(mean)
        return total

    def reweave(self, last: Tensor, woven: Tensor) -> Tensor:
        """Add the reconstruction through a gate."""
        gate = torch.sigmoid(self.gate(torch.cat([F.rms_norm(last, (self.dim,)), woven], -1)))
        return last + gate * self.out(woven)


def retrieval_loss(
    memory: MemoryReweaving, tokens: Tensor, distance: Tensor
) -> tuple[Tensor, Tensor]:
    """Read texts, and measure whether answers are read where they were captured.

    Parameters
    ----------
    memory : MemoryReweaving
    tokens : Tensor of int, shape (batch, token)
    distance : Tensor of int, shape (batch, token)
        Tokens since the answer was given; -1 where nothing is asked.

    Returns
    -------
    logits : Tensor, shape (batch, token, vocabulary)
    loss : Tensor
        Minus the logarithm of the weight (mean of layers) of the entry that holds the answer, over
        all questions whose answer was captured; 0 where none was.
    """
    losses, logits, state, done = [], [], None, 0
    for piece in tokens.split(memory.segment, 1):
        memory.adapter.read = []
        try:
            found, after = memory(piece, state)
            read = memory.adapter.read
        finally:
            memory.adapter.read = None
        back = distance[:, done : done + piece.shape[1]]
        if read and state is not None:
            source = done + torch.arange(piece.shape[1], device=tokens.device) - back
            hit = (state["memory_at"].unsqueeze(1) == source.unsqueeze(-1)) & (
                state["memory_mask"].unsqueeze(1) & (back > 0).unsqueeze(-1)
            )
            weight = (read[0] * hit).sum(-1)[hit.any(-1)]
            losses.append(-(weight + 1e-6).log())
        logits.append(found)
        state, done = after, done + piece.shape[1]
    every = torch.cat(losses) if losses else tokens.new_zeros(0, dtype=torch.float32)
    return torch.cat(logits, 1), every.mean() if len(every) else every.sum()


def _choose_layers(layers: Sequence[int] | None, n: int) -> tuple[int, ...]:
    if layers is None:
        return tuple(sorted({-(-n // 3), -(-2 * n // 3), n}))
    chosen = tuple(sorted(set(layers)))
    wrong = [layer for layer in chosen if not 1 <= layer <= n]
    if wrong or not chosen:
        raise ConfigError(
            f"there is no layer {', '.join(map(str, wrong)) or 'to capture'}",
            where=f"a model of {n} layers",
            mend=f"use {', '.join(map(str, range(1, n + 1)))}",
        )
    return chosen


def _check_options(segment: int, keep: float, capacity: int, rule: str, window: int | None) -> None:
    if segment < 2 or capacity < 1 or not 0 < keep <= 1:
        raise ConfigError(
            f"{keep:g} of each segment of {segment} tokens in a buffer of {capacity}",
            where="MemoryReweaving",
            mend="a segment has at least 2 tokens, a buffer room for 1, and 0 < keep <= 1",
        )
    if rule not in get_args(Rule):
        raise ConfigError(
            f"there is no rule {rule!r}", where="rule", mend=f"use {', '.join(get_args(Rule))}"
        )
    if window is not None and window < 0:
        raise ConfigError(f"a window of {window} tokens", where="window", mend="use 0 for all")
