r"""Titans: Learning to Memorize at Test Time (Behrouz, Zhong & Mirrokni 2025, arXiv:2501.00663).

**What it does.** A layer (batch x token x d to the same) with two memories. Attention to the last
tokens is exact and short. A long-term memory M is the *weights* of a small network, which learns,
while the sequence is read, to map each token's key to its value: what surprises it (large gradient)
changes it most, and forgetting is weight decay.

**Long-term memory.** From an input x, with SiLU and a depthwise convolution over 4 tokens,
:math:`q, k, v = \mathrm{SiLU}(\mathrm{conv}(x W))`, shared out to heads; q and k are brought to
length 1. Each token and head has its forgetting :math:`\alpha = \sigma(w_\alpha x + b_\alpha)`,
momentum :math:`\eta = \sigma(w_\eta x + b_\eta)` and step
:math:`\theta = \theta_{max}\, \sigma(w_\theta x + b_\theta)`. Then

.. math:: u_t = \nabla_W \|M_W(k_t) - v_t\|^2, \quad S_t = \eta_t S_{t-1} - \theta_t u_t, \quad
          W_t = (1 - \alpha_t) W_{t-1} + S_t, \quad M(x)_t = M_{W_t}(q_t).

M has L_M layers (1: a matrix; 2 by default, of width 2 d_head) with SiLU between. :math:`W_0` is
learned, :math:`S_0 = 0`. The gradients of a chunk of b tokens are taken at the weights of its
start, which lets all of them be worked on at once; every token still has gates, and reads through
weights, of its own (`engramma.memory.neural_memory` has the equations). The result depends on b,
which is a part of the method: b = 1 is online gradient descent.

**Layouts.** P are N_p learned persistent tokens, which every token can attend to. The product
:math:`y \otimes m = \mathrm{norm}(y) \odot \mathrm{SiLU}(\mathrm{norm}(m))` gates; norms are RMS
norms with learned scale, and a linear map follows each layout.

===========  =====================================================================================
``memory``   :math:`o = \mathrm{norm}(M(x)) \odot \mathrm{SiLU}(x W_g)`: the memory alone
``mac``      memory as context. Segment by segment: read :math:`h = M(q_s)` without writing, from
             the memory as the segments before have left it; :math:`y` = causal attention of s to
             [P; h; s]; write y into M; :math:`o = y \otimes M(y)`
``mag``      memory as gate: :math:`y` = window attention of x to [P; x]; :math:`o = y \otimes M(x)`
``mal``      memory as layer: :math:`o` = window attention to [P; y], :math:`y` = the ``memory``
             layout
===========  =====================================================================================

**No look ahead.** In ``mac`` token i sees h of tokens up to i only, as h of a later token depends
on that token; and M(y) is read through each token's own weights (or, with ``readout="lagged"``,
those of the segment's start), never through those of its end. A segment is a chunk of the memory.

**Not in the paper**, and chosen here: rotary positions in attention; h stands at the position of
its token; P is seen by attention only (written into M it would be but another learned
:math:`W_0`); and a token's gradient is brought to a norm of at most 10, since a deep memory
diverges where the step meets large features (``largest_gradient=None`` turns that off).

**Training.** Cross-entropy; AdamW at 4e-4, weight decay 0.1, cosine. The paper's models have up to
24 layers of d = 1024 with 16 heads, context 4K (`Titans.published`); the default is small.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engramma.errors import ConfigError
from engramma.memory.attention import WindowAttention, check_heads, merge_heads, split_heads
from engramma.memory.convolution import ShortConvolution
from engramma.memory.layer import MemoryLayer, State, join, part
from engramma.memory.neural_memory import Gates, NeuralMemory
from engramma.memory.segment_attention import SegmentAttention
from engramma.registry import system
from engramma.systems.sequence.titans_claims import CLAIMS

BIBTEX = """@article{behrouz2025titans,
  title = {Titans: Learning to Memorize at Test Time},
  author = {Behrouz, Ali and Zhong, Peilin and Mirrokni, Vahab},
  journal = {arXiv preprint arXiv:2501.00663}, year = {2025}}"""

VARIANTS = ("memory", "mac", "mag", "mal")
#: Biases of the gates: little forgetting, momentum over about two tokens, half the largest step.
GATE_BIAS = {"alpha": -5.0, "eta": 0.0, "theta": 0.0}


class LongTermMemory(MemoryLayer):
    """The long-term memory of the module's text, with its projections and gates.

    Parameters
    ----------
    dim : int
    heads : int
    max_step : float
        Largest inner step, theta_max.
    convolution : int
        Tokens that the convolution sees; 1 leaves it without reach.
    largest_gradient : float, optional
        Longest gradient of a token.
    **options
        ``depth``, ``expansion``, ``chunk``, ``readout``, ``momentum``, ``block`` of
        `engramma.memory.neural_memory.NeuralMemory`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        max_step: float = 0.1,
        convolution: int = 4,
        largest_gradient: float | None = 10.0,
        **options: Any,
    ) -> None:
        super().__init__(dim)
        self.heads, self.max_step = heads, max_step
        self.project = nn.Linear(dim, 3 * dim, bias=False)
        self.convolution = ShortConvolution(3 * dim, convolution)
        self.gates = nn.Linear(dim, 3 * heads)
        nn.init.normal_(self.gates.weight, std=0.02)
        with torch.no_grad():
            self.gates.bias.copy_(torch.tensor([*GATE_BIAS.values()]).repeat_interleave(heads))
        self.memory = NeuralMemory(
            heads, check_heads(dim, heads), largest_gradient=largest_gradient, **options
        )
        self.surprise: Tensor | None = None

    def initial_state(self, batch: int) -> State:
        """Return the learned initial weights, and no tokens before."""
        return join(
            recent=self.convolution.initial_state(batch), memory=self.memory.initial_state(batch)
        )

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Write and read each token; the heads are put side by side."""
        (q, k, v), recent = self._heads(x, state)
        y, memory, surprise = self.memory(q, k, v, self._gates(x), part(state, "memory"))
        self.surprise = surprise.transpose(1, 2)
        return merge_heads(y), join(recent=recent, memory=memory)

    def token(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Write and read one token."""
        y, state = self.sequence(x.unsqueeze(1), state)
        return y.squeeze(1), state

    def read(self, x: Tensor, state: State) -> Tensor:
        """Answer to the queries of x, batch x token x dim; nothing is written."""
        (q, _, _), _ = self._heads(x, state)
        return merge_heads(self.memory.read(q, part(state, "memory")))

    def _heads(self, x: Tensor, state: State) -> tuple[tuple[Tensor, Tensor, Tensor], State]:
        mixed, recent = self.convolution(self.project(x), part(state, "recent"))
        q, k, v = (split_heads(t, self.heads) for t in mixed.chunk(3, -1))
        return (F.normalize(q, dim=-1), F.normalize(k, dim=-1), v), recent

    def _gates(self, x: Tensor) -> Gates:
        alpha, eta, theta = self.gates(x).transpose(1, 2).chunk(3, 1)
        return Gates(
            F.logsigmoid(-alpha),
            F.logsigmoid(eta) if self.memory.momentum else None,
            self.max_step * torch.sigmoid(theta),
        )


class Gate(nn.Module):
    """Product of two normalised inputs, the second through SiLU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm_y, self.norm_m = nn.RMSNorm(dim), nn.RMSNorm(dim)

    def forward(self, y: Tensor, m: Tensor) -> Tensor:
        """Gate y by m."""
        return self.norm_y(y) * F.silu(self.norm_m(m))


@system(
    "titans",
    family="sequence",
    title="Titans: a memory that learns at test time",
    contract="SequenceLayer",
    paper="Behrouz, Zhong & Mirrokni 2025, arXiv:2501.00663",
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
class Titans(MemoryLayer):
    """One Titans layer, in any of the four layouts.

    Parameters
    ----------
    dim : int
        Width d.
    variant : {"mag", "mac", "mal", "memory"}
        ``mag`` is the default: it learns in the fewest steps, and is the quickest with attention.
    heads : int, optional
        Of the memory and of attention; one for 32 channels by default.
    depth : int
        Layers L_M of the memory's network.
    chunk : int
        Tokens whose gradients are taken at the same weights; the segment of ``mac``.
    window : int
        Of attention in ``mag`` and ``mal``.
    persistent : int
        Learned tokens N_p.
    **options
        ``max_step``, ``convolution``, ``largest_gradient``, ``expansion``, ``readout``,
        ``momentum``, ``block`` of `LongTermMemory`.

    Raises
    ------
    ConfigError
        If there is no such variant, or an option is out of range.
    """

    def __init__(
        self,
        dim: int = 64,
        variant: Literal["mac", "mag", "mal", "memory"] = "mag",
        *,
        heads: int | None = None,
        depth: int = 2,
        chunk: int = 16,
        window: int = 16,
        persistent: int = 4,
        **options: Any,
    ) -> None:
        super().__init__(dim)
        if variant not in VARIANTS:
            raise ConfigError(
                f"there is no variant {variant!r}", mend=f"use one of {', '.join(VARIANTS)}"
            )
        heads = heads or max(1, dim // 32)
        self.variant = variant
        self.memory = LongTermMemory(dim, heads, depth=depth, chunk=chunk, **options)
        if variant == "mac":
            self.attention: nn.Module = SegmentAttention(dim, heads, chunk, persistent)
            self.ask = nn.Linear(dim, dim, bias=False)
            self.ask_convolution = ShortConvolution(dim, options.get("convolution", 4))
            self.context_norm = nn.RMSNorm(dim)
        elif variant != "memory":
            self.attention = WindowAttention(dim, heads, window, persistent)
        if variant in ("mac", "mag"):
            self.gate = Gate(dim)
        else:
            self.norm, self.gate_map = nn.RMSNorm(dim), nn.Linear(dim, dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)

    @classmethod
    def published(cls, variant: Literal["mac", "mag", "mal", "memory"] = "mag") -> Titans:
        """Return a layer of the largest model: d = 1024, 16 heads.

        Numbers of persistent tokens, window and segment are not published; 64, 1024 and 64 are
        choices.
        """
        return cls(1024, variant, heads=16, chunk=64, window=1024, persistent=64)

    def initial_state(self, batch: int) -> State:
        """Learned memory, nothing to attend to."""
        parts = {"memory": self.memory.initial_state(batch)}
        if self.variant != "memory":
            parts["attention"] = self.attention.initial_state(batch)  # type: ignore[operator]
        if self.variant == "mac":
            parts["asked"] = self.ask_convolution.initial_state(batch)
        return join(**parts)

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Any piece of a sequence, in the layer's layout."""
        y, state = getattr(self, f"_{self.variant}")(x, state)
        return y, state

    def token(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One token."""
        y, state = self.sequence(x.unsqueeze(1), state)
        return y.squeeze(1), state

    # -- the memory as such ----------------------------------------------------------------

    def write(self, x: Tensor, state: State | None = None) -> State:
        """Take in x (batch x token x dim) and return the state after it."""
        return self(x, state)[1]

    def read(self, x: Tensor, state: State) -> Tensor:
        """Answer of the long-term memory to x (batch x token x dim); nothing is written."""
        self._check_input(x, 3, "batch x token x dim")
        return self.memory.read(x, part(self._state(state, len(x)), "memory"))

    def surprise(self) -> Tensor:
        """Norm of each token's gradient in the last forward pass: batch x token x head.

        Raises
        ------
        ConfigError
            If nothing has been read yet.
        """
        if self.memory.surprise is None:
            raise ConfigError("no token has come in yet", where="surprise", mend="call forward")
        return self.memory.surprise

    # -- layouts ---------------------------------------------------------------------------

    def _memory(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        m, memory = self.memory(x, part(state, "memory"))
        y = self.norm(m) * F.silu(self.gate_map(x))
        return self.output(y), join(memory=memory)

    def _mal(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, after = self._memory(x, state)
        y, attention = self.attention(y, part(state, "attention"))
        return y, after | join(attention=attention)

    def _mag(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, attention = self.attention(x, part(state, "attention"))
        m, memory = self.memory(x, part(state, "memory"))
        return self.output(self.gate(y, m)), join(memory=memory, attention=attention)

    def _mac(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        asked, recent = self.ask_convolution(self.ask(x), part(state, "asked"))
        queries = F.normalize(split_heads(asked, self.memory.heads), dim=-1)
        memory, attention = part(state, "memory"), part(state, "attention")
        pieces = self.attention.pieces(x.shape[1], attention)  # type: ignore[operator]
        outputs, surprise = [], []
        for s, q in zip(x.split(pieces, 1), queries.split(pieces, 2), strict=True):
            before = part(memory, "memory")
            h = merge_heads(self.memory.memory.read(q, before, lagged=True))
            y, attention = self.attention(s, self.context_norm(h), attention)
            m, memory = self.memory(y, memory)
            outputs.append(self.gate(y, m))
            surprise.append(self.surprise())
        self.memory.surprise = torch.cat(surprise, 1)
        after = join(memory=memory, attention=attention, asked=recent)
        return self.output(torch.cat(outputs, 1)), after
