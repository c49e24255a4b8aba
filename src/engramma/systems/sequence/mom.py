r"""MoM: Linear Sequence Modeling with Mixture-of-Memories (Du et al. 2025).

**What it does.** A linear recurrent layer keeps all it has read in one matrix, where new content
overwrites old. Here a router sends each token to k of M matrices, and one more sees all of them:
more state, and what does not belong together does not meet, at a cost that stays linear.

**Input** :math:`x \in R^{B \times T \times d}`, **output** of the same shape. H heads of width
:math:`d_k` (keys) and :math:`d_v` (values).

====  ============================================================  ================================
step  equation                                                      shape
====  ============================================================  ================================
1     :math:`p = \mathrm{softmax}(x W_r)`; the k largest are         B x T x M, B x T x k
      kept and renormalised: g
2     :math:`q = \mathrm{conv}(x W_q)`, shared; of each memory m     B x T x H x (d_k or d_v)
      :math:`k = \mathrm{conv}(x W_k^m), v = \mathrm{conv}(x W_v^m)`
      (depthwise over 4 tokens, SiLU); q, k to length 1
3     :math:`\beta = \sigma(x W_b^m)`,                               B x T x H
      :math:`\log \gamma = -e^a \mathrm{softplus}(x W_a^m + c)`
4     for the chosen m,                                              B x M x H x d_k x d_v
      :math:`S \leftarrow \gamma S + \beta k (v - \gamma S^T k)^T`;
      all other memories stay as they are
5     :math:`o = \sum_m g_m S_m^T q + S_{shared}^T q`; the shared    B x T x H x d_v
      memory, with projections of its own, takes every token
6     RMSNorm per head, times :math:`\mathrm{SiLU}(x W_g)`,          B x T x d
      projection
====  ============================================================  ================================

Step 4 is the gated delta rule. The mixture takes any linear recurrence: ``rule="add"`` is gated
linear attention, ``gated=False`` drops the decay. Convolution, a and c are shared by the memories.

**Two layouts.** *reorder* gathers the tokens of each memory into a subsequence, runs all of them
as a batch, and scatters the answers back; it projects and updates k/M as much as *masked*, which
runs every memory over all tokens with :math:`\beta = 0, \log \gamma = 0` where they belong to
another. Without convolution (width 1) the two are the same function. With convolution they are
not: in *reorder* a token's neighbours are those before it in its memory, in *masked* those before
it in the sequence. The published code does the former, and so does the default. (In training it
also lets the convolution run from one gathered subsequence into the next; that is not copied.)

**Loss.** Cross-entropy plus 0.01 times the balance loss :math:`M^2\,\mathrm{mean}_m(f_m P_m)` of
each layer, where f is the share of tokens a memory receives and P its mean weight. Trained with
AdamW (0.9, 0.95), weight decay 0.01, rate 3e-4 with 1024 steps of warm-up and a cosine, 30,720
steps of context 2048 on SlimPajama. ``MoM(1024)`` is the layer of the published model of 340M
parameters (24 layers, 4 heads of 256, M = 4, k = 2); the default is small.

Padding is sent nowhere (``mask=``). Without ``capacity`` no token is ever dropped; with it, a
warning and the state's ``dropped`` tell how many were.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engramma.errors import ConfigError, DataError
from engramma.memory import delta
from engramma.memory.attention import check_heads
from engramma.memory.convolution import ShortConvolution
from engramma.memory.layer import MemoryLayer, State
from engramma.memory.routing import Placement, Routing, balance_loss, check_top_k, top_k_routing
from engramma.registry import system
from engramma.systems.sequence.mom_claims import CLAIMS

BIBTEX = """@article{du2025mom,
  title = {{MoM}: Linear Sequence Modeling with Mixture-of-Memories},
  author = {Du, Jusen and Sun, Weigao and Lan, Disen and Hu, Jiaxi and Cheng, Yu},
  journal = {arXiv preprint arXiv:2502.13685}, year = {2025}}"""

SEQUENCE_RULES = {"delta": delta.delta_rule, "add": delta.linear_attention}
TOKEN_RULES = {"delta": delta.delta_rule_step, "add": delta.linear_attention_step}


@system(
    "mom",
    family="sequence",
    title="MoM: Mixture-of-Memories",
    contract="SequenceLayer",
    paper="Du et al. 2025, MoM: Linear Sequence Modeling with Mixture-of-Memories",
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
class MoM(MemoryLayer):
    """Mixture of matrix memories behind a router.

    Parameters
    ----------
    dim : int
    heads : int
    memories : int
        M, without the shared one.
    top_k : int
        Memories that each token is sent to.
    shared : bool
        Whether there is one more memory that takes every token.
    key_dim, value_dim : int, optional
        Width of a head's keys and values; ``dim // heads`` by default.
    rule : {"delta", "add"}
        Replace what a key holds, or add to it.
    gated : bool
        Whether content decays.
    convolution : int
        Tokens that the short convolution sees; 1 for none but the token itself.
    activation : bool
        Whether SiLU follows the convolution.
    layout : {"reorder", "masked"}
    capacity : float, optional
        Limit of what a memory takes of one call's tokens, relative to an even share; what comes
        later is dropped. Only without a limit does the result not depend on how a sequence is cut.
    chunk : int
        Tokens worked on at once; changes the time only.
    """

    def __init__(
        self,
        dim: int = 64,
        heads: int = 4,
        *,
        memories: int = 4,
        top_k: int = 2,
        shared: bool = True,
        key_dim: int | None = None,
        value_dim: int | None = None,
        rule: Literal["delta", "add"] = "delta",
        gated: bool = True,
        convolution: int = 4,
        activation: bool = True,
        layout: Literal["reorder", "masked"] = "reorder",
        capacity: float | None = None,
        chunk: int = delta.CHUNK,
    ) -> None:
        super().__init__(dim)
        check_top_k(top_k, memories)
        if rule not in SEQUENCE_RULES:
            raise ConfigError(f"there is no rule {rule!r}", mend="use 'delta' or 'add'")
        if layout not in ("reorder", "masked"):
            raise ConfigError(f"there is no layout {layout!r}", mend="use 'reorder' or 'masked'")
        if capacity is not None and not capacity > 0:
            raise ConfigError(f"a memory cannot hold {capacity} of its share", where="capacity")
        self.heads, self.memories, self.top_k, self.shared = heads, memories, top_k, shared
        self.rule, self.gated, self.layout = rule, gated, layout
        self.capacity, self.chunk = capacity, chunk
        self.key_dim = key_dim or check_heads(dim, heads)
        self.value_dim = value_dim or check_heads(dim, heads)
        keys, values = heads * self.key_dim, heads * self.value_dim
        self.router = nn.Linear(dim, memories, bias=False)
        self.query = nn.Linear(dim, keys, bias=False)
        #: Keys, values, rate of writing and decay of each memory, the shared one last.
        self.own = nn.Parameter(torch.empty(memories + shared, dim, keys + values + 2 * heads))
        nn.init.uniform_(self.own, -(dim**-0.5), dim**-0.5)
        self.convolution = ShortConvolution(2 * keys + values, convolution, activation)
        self.log_speed = nn.Parameter(torch.zeros(heads))
        # Half-lives from some seventy tokens to seven.
        self.decay_bias = nn.Parameter(torch.logspace(-2, -1, heads).expm1().log())
        self.gate = nn.Linear(dim, values, bias=False)
        self.norm = nn.RMSNorm(self.value_dim)
        self.output = nn.Linear(values, dim, bias=False)
        self.last: Routing | None = None

    # -- what is kept ----------------------------------------------------------------------

    def initial_state(self, batch: int) -> State:
        """Empty memories (the shared one last), and no tokens before the first."""
        size, new = self.memories + self.shared, self.own.new_zeros
        width = self.convolution.width - 1
        return {
            "memory": new(batch, size, self.heads, self.key_dim, self.value_dim),
            "recent": new(batch, size, width, self.convolution.dim),
            "routed": new(batch, self.memories, dtype=torch.long),
            "dropped": new(batch, dtype=torch.long),
        }

    def route(self, x: Tensor, mask: Tensor | None = None) -> Routing:
        """Choose the memories of each token (batch x token x dim); ``mask`` as in `forward`."""
        self._check_input(x, 3, "batch x token x dim")
        return top_k_routing(self.router(x), self.top_k, mask, self.capacity)

    @staticmethod
    def usage(state: State) -> Tensor:
        """Share of a stream's routed tokens that each memory received, batch x memory."""
        routed = state["routed"].double()
        return routed / routed.sum(-1, keepdim=True).clamp(min=1)

    def balance_loss(self) -> Tensor:
        """Balance loss of the last call of `forward` in training mode.

        Raises
        ------
        ConfigError
            If there was none.
        """
        if self.last is None:
            raise ConfigError("nothing was routed in training mode yet", mend="call forward first")
        return balance_loss(self.last)

    def train(self, mode: bool = True) -> MoM:
        """Switch the mode; the routing of the last call, and its graph, are let go."""
        self.last = None
        return super().train(mode)

    # -- a piece at once -------------------------------------------------------------------

    def forward(
        self, x: Tensor, state: State | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Map a piece of a sequence, some tokens of which may be padding.

        Parameters
        ----------
        x : Tensor, shape (batch, token, dim)
        state : State, optional
        mask : Tensor of bool, shape (batch, token), optional
            False for padding, anywhere in the sequence. It is sent nowhere, changes no state, no
            convolution sees it, and its outputs are 0.

        Returns
        -------
        y : Tensor, shape (batch, token, dim)
        state : State
        """
        if mask is None:
            return super().forward(x, state)
        self._check_input(x, 3, "batch x token x dim")
        if mask.shape != x.shape[:2]:
            raise DataError(
                f"the mask has shape {tuple(mask.shape)}, and the input {tuple(x.shape)}",
                where=type(self).__name__,
                mend="give one truth value a token",
            )
        state = self._state(state, len(x))
        if x.shape[1] == 0:
            return x, state
        real = mask.bool().unsqueeze(-1)
        none = torch.zeros_like(real, dtype=torch.long)
        packed = Placement.of(Routing(none, real.to(x), real, real.to(x), none[:, 0, 0]))
        y, state = self._tokens(packed.gather(x)[0], state, packed.filled[0])
        return packed.scatter(y.unsqueeze(0), real.to(x)), state

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All tokens of a piece, in the chosen layout."""
        return self._tokens(x, state, None)

    def _tokens(self, x: Tensor, state: State, real: Tensor | None) -> tuple[Tensor, State]:
        routing = self.route(x, real)
        self.last = routing if self.training else None
        full = x.new_ones(x.shape[:2], dtype=torch.bool) if real is None else real
        q = self.query(x)
        memory, recent = (state[name].transpose(0, 1) for name in ("memory", "recent"))
        apart = self._reordered if self.layout == "reorder" else self._masked
        own, m = self.own, self.memories
        y, new_memory, new_recent = apart(x, q, routing, full, own[:m], memory[:m], recent[:m])
        if self.shared:
            all_of_it = full.unsqueeze(0)
            more, *after = self._remember(
                x.unsqueeze(0),
                q.unsqueeze(0),
                all_of_it,
                all_of_it,
                own[m:],
                memory[m:],
                recent[m:],
            )
            y = y + more.squeeze(0)
            new_memory = torch.cat([new_memory, after[0]])
            new_recent = torch.cat([new_recent, after[1]])
        return self._answer(x, y), {
            "memory": new_memory.transpose(0, 1),
            "recent": new_recent.transpose(0, 1),
            "routed": state["routed"] + routing.counts(),
            "dropped": state["dropped"] + routing.dropped,
        }

    def _reordered(
        self, x: Tensor, q: Tensor, routing: Routing, real: Tensor, own: Tensor, *state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Each memory over its own tokens."""
        place = Placement.of(routing)
        y, memory, recent = self._remember(
            place.gather(x), place.gather(q), place.filled, place.filled, own, *state
        )
        return place.scatter(y, routing.weights), memory, recent

    def _masked(
        self, x: Tensor, q: Tensor, routing: Routing, real: Tensor, own: Tensor, *state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Each memory over all tokens, of which the foreign ones write and forget nothing."""
        n = len(own)
        active = routing.mask().movedim(-1, 0)
        y, memory, recent = self._remember(
            x.expand(n, -1, -1, -1), q.expand(n, -1, -1, -1), real.expand(n, -1, -1), active, own,
            *state,
        )  # fmt: skip
        full = torch.zeros_like(routing.probabilities)
        full = full.scatter(-1, routing.chosen, routing.weights)
        return torch.einsum("btm,mbtv->btv", full, y), memory, recent

    def _remember(
        self,
        x: Tensor,
        q: Tensor,
        real: Tensor,
        active: Tensor,
        own: Tensor,
        memory: Tensor,
        recent: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the recurrences of several memories, each over a batch of sequences.

        Parameters
        ----------
        x, q : Tensor, shape (memory, batch, token, channel)
        real, active : Tensor of bool, shape (memory, batch, token)
            Tokens that are there (in front), and those that write and forget.
        own : Tensor, shape (memory, dim, channel)
            Projections.
        memory, recent : Tensor, shape (memory, batch, ...)
            States.

        Returns
        -------
        y : Tensor, shape (memory, batch, token, head x value)
        memory, recent : Tensor
        """
        shape = x.shape[:3]
        k, v, rate, decay = self._project(x.flatten(1, 2), own)
        mixed = torch.cat([q.flatten(1, 2), k, v], -1).unflatten(1, shape[1:]).flatten(0, 1)
        mixed, recent = self._convolve(mixed, recent.flatten(0, 1), real.flatten(0, 1))
        q, k, v = self._heads(mixed)
        rate, log_decay = self._gates(rate, decay)
        rate, log_decay = (
            (t.unflatten(1, shape[1:]) * active.unsqueeze(-1)).flatten(0, 1).transpose(1, 2)
            for t in (rate, log_decay)
        )
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        rule = SEQUENCE_RULES[self.rule]
        y, memory = rule(q, k, v, rate, log_decay, memory.flatten(0, 1), chunk=self.chunk)
        y = y.transpose(1, 2).flatten(2)
        y, memory, recent = (t.unflatten(0, shape[:2]) for t in (y, memory, recent))
        return y, memory, recent

    def _convolve(self, x: Tensor, recent: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve rows of different lengths; the last tokens of each become its state."""
        y, _ = self.convolution.sequence(x, {"recent": recent})
        last = real.sum(-1, keepdim=True) + torch.arange(recent.shape[1], device=x.device)
        index = last.unsqueeze(-1).expand(-1, -1, x.shape[-1])
        return y, torch.cat([recent, x], 1).gather(1, index)

    # -- one token -------------------------------------------------------------------------

    def token(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One token: the memories it is not sent to come out as they went in."""
        routing = top_k_routing(self.router(x).unsqueeze(1), self.top_k, None, self.capacity)
        chosen, weights = routing.chosen[:, 0], routing.weights[:, 0]
        batch, n = len(x), len(self.own)
        if self.shared:
            last = chosen.new_full((batch, 1), n - 1)
            chosen = torch.cat([chosen, last], 1)
            weights = torch.cat([weights, torch.ones_like(weights[:, :1])], 1)
        k, v, *gates = (t.transpose(0, 1) for t in self._project(x.expand(n, -1, -1), self.own))
        mixed = torch.cat([self.query(x).unsqueeze(1).expand(-1, n, -1), k, v], -1)
        mixed, after = self.convolution.token(
            mixed.flatten(0, 1), {"recent": state["recent"].flatten(0, 1)}
        )
        row = torch.arange(batch, device=x.device).unsqueeze(1)
        recent = after["recent"].unflatten(0, (batch, n))
        if self.layout == "reorder":
            recent = state["recent"].index_put((row, chosen), recent[row, chosen])
        q, k, v = self._heads(mixed.unflatten(0, (batch, n))[row, chosen].flatten(0, 1))
        rate, log_decay = self._gates(*(t[row, chosen].flatten(0, 1) for t in gates))
        y, memory = TOKEN_RULES[self.rule](
            q, k, v, rate, log_decay, state["memory"][row, chosen].flatten(0, 1)
        )
        y = y.flatten(1).unflatten(0, chosen.shape)
        return self._answer(x, (weights.unsqueeze(1) @ y).squeeze(1)), {
            "memory": state["memory"].index_put((row, chosen), memory.unflatten(0, chosen.shape)),
            "recent": recent,
            "routed": state["routed"] + routing.counts(),
            "dropped": state["dropped"] + routing.dropped,
        }

    # -- what both forms share -------------------------------------------------------------

    def _project(self, x: Tensor, own: Tensor) -> tuple[Tensor, ...]:
        """Keys, values, rates and decays of memory x row x dim, by each memory's own weights."""
        keys, values = self.heads * self.key_dim, self.heads * self.value_dim
        return (x @ own).split([keys, values, self.heads, self.heads], -1)

    def _heads(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split queries, keys and values by head; the first two get length 1."""
        keys, values = self.heads * self.key_dim, self.heads * self.value_dim
        parts = mixed.split([keys, keys, values], -1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)) for t in parts)
        return F.normalize(q, dim=-1), F.normalize(k, dim=-1), v

    def _gates(self, rate: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
        """How much is written, and the logarithm of how much is kept."""
        if not self.gated:
            return rate.sigmoid(), torch.zeros_like(decay)
        return rate.sigmoid(), -self.log_speed.exp() * F.softplus(decay + self.decay_bias)

    def _answer(self, x: Tensor, y: Tensor) -> Tensor:
        y = self.norm(y.unflatten(-1, (self.heads, -1))).flatten(-2)
        return self.output(y * F.silu(self.gate(x)))
