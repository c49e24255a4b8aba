r"""Synaptic Resonance: what fits its context leaves a trace (Applegarth et al. 2025).

**A reconstruction.** Of the paper only the abstract and a third-party outline could be read: a
weight matrix that changes at run time beside self-attention, and a module that judges relevance.
The equations below are chosen to do that, and no published figure is compared with them.

**What it does.** Beside attention to a short window, each head keeps a matrix S of associations
between keys and values. A token that fits the recent context (*relevant*) is written strongly, and
while it is read little is forgotten; an irrelevant one leaves little trace and lets S decay.

**Input** :math:`x \in R^{B \times T \times d}`, **output** of the same shape; H heads of width
:math:`d_h = d / H`.

====  ==============================================================  ==========================
step  equation                                                        shape
====  ==============================================================  ==========================
1     q, k, v linear in x; q and k of length 1                        B x T x H x d_h
2     :math:`r_t = \sigma(a \cos(k_t, c_{t-1}) + b)`, from the past    B x T x H
      only; a, b learned per head
3     :math:`c_t = \rho c_{t-1} + (1 - \rho) k_t`, the context;        B x H x d_h
      a cosine with 0 is 0
4     :math:`\lambda_t = 1 - (1 - \lambda)(1 - r_t)`,                  B x H x d_h x d_h
      :math:`S_t = \lambda_t S_{t-1} + \eta r_t k_t v_t^T`  (*hebb*),
      or with :math:`v_t - \lambda_t S_{t-1}^T k_t` for
      :math:`v_t` (*oja*: the error is written, S stays bounded)
5     :math:`y_t = \mathrm{Attention}_{window}(x)_t                    B x T x d
      + \sigma(W_g x_t) \odot W_o(S_t^T q_t)`, W_o = 0 at first
====  ==============================================================  ==========================

c does not depend on r, so it is a scan, r follows element by element, and S is gated linear
attention (*hebb*) or the gated delta rule (*oja*) with rate :math:`\eta r_t` and decay
:math:`\lambda_t`: all tokens of a chunk at once, exactly. Were S to judge relevance itself, this
form would be lost; that is why it does not.

``fixed_relevance`` sets r to a constant: plain gated linear attention, the baseline that shows what
relevance is good for. ``freeze`` empties S and c at every start of a window: what remains is a
static layer. In half precision S and c are kept in single precision.
"""

from __future__ import annotations

import math
import warnings
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engramma.errors import ConfigError, DataWarning
from engramma.memory import delta
from engramma.memory.attention import WindowAttention, merge_heads, split_heads
from engramma.memory.layer import MemoryLayer, State, join, part
from engramma.memory.scan import scan
from engramma.registry import system
from engramma.systems.sequence.synaptic_resonance_claims import CLAIMS

BIBTEX = """@article{applegarth2025exploring,
  title = {Exploring Synaptic Resonance in Large Language Models: A Novel Approach to Contextual
    Memory Integration},
  author = {Applegarth, George and Weatherstone, Christian and Hollingsworth, Maximilian and
    Middlebrook, Henry and Irvin, Marcus},
  journal = {arXiv preprint arXiv:2502.10699}, year = {2025}}"""

SEQUENCE_RULES = {"oja": delta.delta_rule, "hebb": delta.linear_attention}
TOKEN_RULES = {"oja": delta.delta_rule_step, "hebb": delta.linear_attention_step}
#: Logarithm of a decay that leaves nothing, in single precision exactly.
FORGET = -104.0


@system(
    "synaptic-resonance",
    family="sequence",
    title="Synaptic Resonance (reconstruction)",
    contract="SequenceLayer",
    paper="Applegarth et al. 2025, Exploring Synaptic Resonance in Large Language Models",
    bibtex=BIBTEX,
    claims=CLAIMS,
    tasks=[
        "recall",
        "recall-noise",
        "needle",
        "copy",
        "selective-copy",
        "bytes",
        "event-segmentation",
    ],
)
class SynapticResonance(MemoryLayer):
    r"""Window attention, and a matrix of associations beside it.

    Parameters
    ----------
    dim : int
    heads : int
    window : int
        Tokens that attention sees.
    rule : {"hebb", "oja"}
        Add the value, or what it differs by from what the key calls up already.
    context_decay : float
        :math:`\rho`, between 0 and 1.
    decay : float
        :math:`\lambda`, what is kept of S in a wholly irrelevant moment; between 0 and 1.
    rate : float
        :math:`\eta`, how much a wholly relevant moment writes; 0 writes nothing.
    fixed_relevance : float, optional
        A constant in place of r, from 0 to 1.
    freeze : bool
        Whether S and c are emptied at the start of each window.
    chunk : int
        Tokens worked on at once; changes the time only.
    """

    def __init__(
        self,
        dim: int = 64,
        heads: int = 4,
        *,
        window: int = 16,
        rule: Literal["hebb", "oja"] = "hebb",
        context_decay: float = 0.95,
        decay: float = 0.98,
        rate: float = 1.0,
        fixed_relevance: float | None = None,
        freeze: bool = False,
        chunk: int = delta.CHUNK,
    ) -> None:
        super().__init__(dim)
        if rule not in SEQUENCE_RULES:
            raise ConfigError(f"there is no rule {rule!r}", mend="use 'hebb' or 'oja'")
        for name, value in (("context_decay", context_decay), ("decay", decay)):
            if not 0 < value < 1:
                raise ConfigError(f"a decay of {value} is not between 0 and 1", where=name)
        if not (rate >= 0 and math.isfinite(rate)):
            raise ConfigError(f"a rate of {rate} is negative or not finite", where="rate")
        if fixed_relevance is not None and not 0 <= fixed_relevance <= 1:
            raise ConfigError(
                f"a relevance of {fixed_relevance} is not from 0 to 1", where="fixed_relevance"
            )
        self.attention = WindowAttention(dim, heads, window)
        self.heads, self.window, self.rule, self.chunk = heads, window, rule, chunk
        self.context_decay, self.decay, self.rate = context_decay, decay, rate
        self.fixed_relevance, self.freeze = fixed_relevance, freeze
        self.project = nn.Linear(dim, 3 * dim, bias=False)
        if fixed_relevance is None:
            #: a and b. Half-relevant at first, more so where the key resembles its context.
            self.slope = nn.Parameter(torch.ones(heads))
            self.offset = nn.Parameter(torch.zeros(heads))
        self.gate = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim, bias=False)
        nn.init.zeros_(self.output.weight)
        self._warned = False

    def initial_state(self, batch: int) -> State:
        """No associations, no context, an empty window."""
        new = torch.zeros((), dtype=self._precision(), device=self.gate.weight.device).new_zeros
        width = self.dim // self.heads
        return {
            "memory": new(batch, self.heads, width, width),
            "context": new(batch, self.heads, width),
            "place": new(batch, dtype=torch.long),
            **join(window=self.attention.initial_state(batch)),
        }

    def reset(self, state: State) -> State:
        """Empty the associations and the context; attention keeps its window."""
        empty = ("memory", "context")
        return {k: torch.zeros_like(t) if k in empty else t for k, t in state.items()}

    def relevance(self, x: Tensor, state: State | None = None) -> Tensor:
        """How well each token (batch x token x dim) fits its context: r, batch x head x token."""
        self._check_input(x, 3, "batch x token x dim")
        state = self._state(state, len(x))
        _, k, _ = self._heads(x)
        return self._relevance(k, self._contexts(k, state)[0])

    # -- the two forms ---------------------------------------------------------------------

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All tokens of a piece."""
        q, k, v = self._heads(x)
        before, context = self._contexts(k, state)
        relevance = self._relevance(k, before)
        rate, log_decay = self._plasticity(relevance)
        if self.freeze:
            log_decay = log_decay + FORGET * self._starts(state, x.shape[1])
        rule = SEQUENCE_RULES[self.rule]
        y, memory = rule(q, k, v, rate, log_decay, state["memory"], chunk=self.chunk)
        near, window = self.attention(x, part(state, "window"))
        return near + self._recalled(x, merge_heads(y)), {
            "memory": memory,
            "context": context,
            "place": (state["place"] + x.shape[1]) % self.window,
            **join(window=window),
        }

    def token(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One token."""
        q, k, v = (t.squeeze(2) for t in self._heads(x.unsqueeze(1)))
        before, memory = state["context"], state["memory"]
        if self.freeze:
            kept = (state["place"] != 0).to(memory)
            before, memory = before * kept[:, None, None], memory * kept[:, None, None, None]
        relevance = self._relevance(k.unsqueeze(2), before.unsqueeze(2)).squeeze(2)
        y, memory = TOKEN_RULES[self.rule](q, k, v, *self._plasticity(relevance), memory)
        near, window = self.attention.step(x, part(state, "window"))
        return near + self._recalled(x, y.flatten(1)), {
            "memory": memory,
            "context": self.context_decay * before + (1 - self.context_decay) * k,
            "place": (state["place"] + 1) % self.window,
            **join(window=window),
        }

    # -- what both share -------------------------------------------------------------------

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project to queries, keys (of length 1) and values: batch x head x token x channel."""
        parts = self.project(x).to(self._precision()).chunk(3, -1)
        q, k, v = (split_heads(t, self.heads) for t in parts)
        return F.normalize(q, dim=-1), F.normalize(k, dim=-1), v

    def _contexts(self, k: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """Context before each token (batch x head x token x channel), and after the last."""
        log_decay = k.new_full(k.shape[:-1], math.log(self.context_decay))
        if self.freeze:
            starts = self._starts(state, k.shape[2])
            log_decay = log_decay + FORGET * starts
        after = scan(log_decay, (1 - self.context_decay) * k, state["context"], self.chunk)
        before = torch.cat([state["context"].unsqueeze(2), after[:, :, :-1]], 2)
        if self.freeze:
            before = before * (1 - starts.unsqueeze(-1))
        return before, after[:, :, -1]

    def _starts(self, state: State, length: int) -> Tensor:
        """1 where a window starts, else 0: batch x 1 x token."""
        place = state["place"].unsqueeze(1) + torch.arange(length, device=state["place"].device)
        return (place % self.window == 0).to(state["memory"]).unsqueeze(1)

    def _relevance(self, k: Tensor, context: Tensor) -> Tensor:
        """Return r, batch x head x token. Keys have length 1, or 0: then the cosine is 0."""
        if self.fixed_relevance is not None:
            return k.new_full(k.shape[:-1], self.fixed_relevance)
        cosine = (k * F.normalize(context, dim=-1)).sum(-1)
        slope, offset = (p.to(k).unsqueeze(-1) for p in (self.slope, self.offset))
        return torch.sigmoid(slope * cosine + offset)

    def _plasticity(self, relevance: Tensor) -> tuple[Tensor, Tensor]:
        """Rate of writing, and logarithm of what is kept."""
        return self.rate * relevance, torch.log1p(-(1 - self.decay) * (1 - relevance))

    def _recalled(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.sigmoid(self.gate(x)) * self.output(y.to(x))

    def _precision(self) -> torch.dtype:
        """Precision of S and c: that of the parameters, single at least."""
        own = self.gate.weight.dtype
        if torch.finfo(own).bits >= 32:
            return own
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"the layer is in {str(own).removeprefix('torch.')}, where small changes of the "
                "associations would be lost: they are kept in float32",
                DataWarning,
                stacklevel=2,
            )
        return torch.float32
