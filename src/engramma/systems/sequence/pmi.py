r"""PMI: a neural module for inference inspired by human memory (Zeng et al. 2023).

**What it does.** Self-attention is replaced by reads from two memories: a small *working memory*,
whose slots compete for the tokens they are written with, and a third-order *long-term memory*, into
which the working memory is merged. What both recall about each token is fused and re-represents it.

**Input.** Tokens :math:`x \in R^{T \times D}`: sentences of a story, patches of an image. They are
a set: all T of them are written before any of them reads. Sinusoids say where each one stands.

**Memories.** Working memory :math:`M_w \in R^{N \times D}` starts as the first rows of the
identity; long-term memory :math:`M_l \in R^{C \times N \times D}` is drawn uniformly from [0, 1).
x is first mapped linearly to :math:`\tilde x`. One set of projections q, k (32 wide a head) and v
serves every attention below; there is no scaling by the key's width and no output projection.

====  =============================================================================  ===========
step  computation                                                                    shape
====  =============================================================================  ===========
1     write: :math:`A = \mathrm{top}_5(\mathrm{softmax}(q(M_w)\,k(\tilde x)^T))\,
      v(\tilde x)`, each slot keeps its five best tokens, not renormalised           N x D
2     :math:`\hat M = LN(M_w + A)`, :math:`\hat M \leftarrow LN(\hat M + f^4(\hat
      M))`, f one linear layer and ReLU                                              N x D
3     merge: :math:`M_l \leftarrow LN(M_l + R)`; ``code``: :math:`R_{cn:} = (\sum_d
      M_{l,cnd})\,\hat M_{n:}`; ``outer``: :math:`R = M_l \hat M^T \hat M / N`       C x N x D
4     gates: :math:`i, f = \sigma(G_n \tanh M_w + L\,\overline{ReLU(w \odot \tilde
      x)} + b)`, b = 0 and 1; :math:`M_w \leftarrow i \odot \tanh \hat M + f \odot
      M_w`                                                                           N x D
5     read: :math:`U_w = att(\tilde x; M_w)`,
      :math:`U_l = att(\tilde x; \overline{M_l})` with top 5,
      :math:`U_{wl} = att(U_l; U_w)`, :math:`U = 0.7\,U_w + 0.3\,U_{wl}`             T x D
6     :math:`h = LN(x + U)`, :math:`x = LN(h + FFN(h))`                              T x D
====  =============================================================================  ===========

One block is applied 4, 8 or 12 times (`PMI.published`: small, medium, large), and the memories
persist from one application to the next. For classification a class token is prepended and read
out (`engramma.memory.questions`).

**As a sequence layer.** A call to `PMI.forward` is one *set*, and its state (both memories and the
position) goes on to the next call. Hence within a call outputs depend on later tokens of the same
call; across calls the layer is causal. With ``segment=k`` a call is cut into sets of k tokens: then
any split at multiples of k gives the same outputs, and with ``segment=1`` (every token a set) the
layer is causal and its step form, any split and one pass agree. `PMI.step` is always a set of one.

**Ablations.** ``shared=False``: every application has weights and memories of its own (w/o1);
``read="direct"``: :math:`U_l` stands for :math:`U_{wl}` (w/o2); ``read="long-term"``: U =
:math:`U_l`, no working memory in the inference (w/o3); ``read="corrected"``: U = :math:`U_{wl}`,
which is what the published program computes under that name; ``read="working"``: U = :math:`U_w`,
the shared global workspace of Goyal et al. (2021); ``top_k=None``: soft competition.

**Where text and program differ.** The program normalises before each part (``norm="pre"``), the
text after it. The text calls the merge an outer product, and the program computes ``code``: it
merges nothing after the first time while gains are 1 and biases 0, because then every row of
:math:`M_l` is normalised and its sum is 0. The first time the sum is about D / 2, and what was
written first overwrites the start. So long-term memory is not frozen at its start, but at what the
very first application wrote. Affine normalisation (as in the program) lets training undo that,
affine-free (``affine=False``) never does. The program draws :math:`M_l` anew for every
sequence and call; here it is drawn once from ``seed``, so that inference is reproducible and rows
of a batch are independent (`PMI.initial_state` takes a generator to draw as the program does).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from engramma.errors import ConfigError, DataError
from engramma.memory.layer import MemoryLayer, State
from engramma.memory.questions import sinusoids
from engramma.memory.slots import SlotLinear, keep_top
from engramma.nn.seed import seeded
from engramma.registry import system
from engramma.systems.sequence.pmi_claims import CLAIMS

BIBTEX = """@article{zeng2023framework,
  title = {A Framework for Inference Inspired by Human Memory Mechanisms},
  author = {Zeng, Xiangyu and Lin, Jie and Hu, Piao and Huang, Ruizheng and Zhang, Zhicheng},
  journal = {arXiv preprint arXiv:2310.09297},
  year = {2023}}"""

Merge = Literal["code", "outer", "frozen"]
Read = Literal["full", "direct", "long-term", "corrected", "working"]
Norm = Literal["post", "pre"]
#: Applications of the block and heads.
SIZES = {"small": (4, 4), "medium": (8, 8), "large": (12, 16)}


class Maps(NamedTuple):
    """Attention of one application: batch x head x (slot x token), or x (token x slot)."""

    write: Tensor
    working: Tensor
    long_term: Tensor


class DualMemory(nn.Module):
    """Working and long-term memory: steps 1 to 5 of the module's table.

    Parameters
    ----------
    dim, heads, slots : int
        D, number of heads (a divisor of D), N.
    key_size : int
        Width of queries and keys of a head.
    top_k : int, optional
        Tokens that a slot is written with, and slots that long-term memory is read from; None for
        all of them.
    alpha : float
        Weight of working memory in the fusion.
    merge : {"code", "outer", "frozen"}
    read : {"full", "direct", "long-term", "corrected", "working"}
    affine : bool
        Whether the normalisations learn gains and biases.
    normalise : bool
        False leaves the normalisation out of the merge; what happens then is one of the claims.
    """

    mlp_layers = 4

    def __init__(
        self,
        dim: int,
        heads: int,
        slots: int,
        *,
        key_size: int = 32,
        top_k: int | None = 5,
        alpha: float = 0.7,
        merge: Merge = "code",
        read: Read = "full",
        affine: bool = True,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.heads, self.top_k, self.alpha = heads, top_k, alpha
        self.merging, self.reading = merge, read
        self.inputs = nn.Linear(dim, dim)
        self.query = nn.Linear(dim, heads * key_size)
        self.key = nn.Linear(dim, heads * key_size)
        self.value = nn.Linear(dim, dim)
        # One layer, passed through four times.
        self.mlp = nn.Linear(dim, dim)
        self.norm_written = nn.LayerNorm(dim, elementwise_affine=affine)
        self.norm_mlp = nn.LayerNorm(dim, elementwise_affine=affine)
        self.norm_merged = (
            nn.LayerNorm(dim, elementwise_affine=affine) if normalise else nn.Identity()
        )
        self.gate_weight = nn.Parameter(torch.randn(dim))
        self.gate_inputs = nn.Linear(dim, 2 * dim)
        self.gate_memory = SlotLinear(slots, dim, 2 * dim)
        self.input_bias = nn.Parameter(torch.tensor(0.0))
        self.forget_bias = nn.Parameter(torch.tensor(1.0))

    def attend(self, asking: Tensor, asked: Tensor, k: int | None = None) -> tuple[Tensor, Tensor]:
        """Multi-head attention with the projections that all attentions share.

        Parameters
        ----------
        asking, asked : Tensor, shape (batch, n, dim) and (batch, m, dim)
        k : int, optional
            How many of the m are kept.

        Returns
        -------
        recalled : Tensor, shape (batch, n, dim)
        weights : Tensor, shape (batch, head, n, m)
        """

        def split(x: Tensor) -> Tensor:
            return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query, key = split(self.query(asking)), split(self.key(asked))
        scores = query @ key.transpose(-1, -2)
        # Softmax; over as few as eight slots torch's own takes three times as long.
        weights = keep_top((scores - scores.logsumexp(dim=-1, keepdim=True)).exp(), k)
        return (weights @ split(self.value(asked))).transpose(1, 2).flatten(2), weights

    def write(self, tokens: Tensor, working: Tensor) -> tuple[Tensor, Tensor]:
        """Return what slots become before they are gated, and who wrote them (steps 1 and 2)."""
        written, weights = self.attend(working, tokens, self.top_k)
        memory = self.norm_written(working + written)
        inner = memory
        for _ in range(self.mlp_layers):
            inner = self.mlp(inner).relu()
        return self.norm_mlp(memory + inner), weights

    def merged(self, long_term: Tensor, written: Tensor) -> Tensor:
        """Return what step 3 adds to long-term memory (batch x C x slot x dim)."""
        if self.merging == "code":
            return long_term.sum(dim=-1, keepdim=True) * written[:, None]
        association = written.transpose(1, 2) @ written / written.shape[1]
        return long_term @ association[:, None]

    def merge(self, long_term: Tensor, written: Tensor) -> Tensor:
        """Merge working memory into long-term memory (step 3)."""
        if self.merging == "frozen":
            return long_term
        return self.norm_merged(long_term + self.merged(long_term, written))

    def gate(self, tokens: Tensor, working: Tensor, written: Tensor) -> Tensor:
        """Pass working memory through its input and forget gates (step 4)."""
        driven = self.gate_inputs((self.gate_weight * tokens).relu().mean(dim=1))
        gates = self.gate_memory(working.tanh()) + driven[:, None]
        enters, stays = gates.chunk(2, dim=-1)
        enters, stays = (enters + self.input_bias).sigmoid(), (stays + self.forget_bias).sigmoid()
        return enters * written.tanh() + stays * working

    def read(
        self, tokens: Tensor, working: Tensor, long_term: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Recall from both memories about each token; also return the attention (step 5)."""
        from_working, to_working = self.attend(tokens, working)
        from_long_term, to_long_term = self.attend(tokens, long_term.mean(dim=1), self.top_k)
        if self.reading == "working":
            recalled = from_working
        elif self.reading == "long-term":
            recalled = from_long_term
        else:
            second = from_long_term
            if self.reading != "direct":
                second, _ = self.attend(from_long_term, from_working)
            alpha = 0.0 if self.reading == "corrected" else self.alpha
            recalled = alpha * from_working + (1 - alpha) * second
        return recalled, to_working, to_long_term

    def forward(
        self, x: Tensor, working: Tensor, long_term: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Maps]:
        """Write, merge, gate and read: what is recalled, both memories, and the attention."""
        tokens = self.inputs(x)
        written, writing = self.write(tokens, working)
        long_term = self.merge(long_term, written)
        working = self.gate(tokens, working, written)
        recalled, to_working, to_long_term = self.read(tokens, working, long_term)
        return recalled, working, long_term, Maps(writing, to_working, to_long_term)


class PMIBlock(nn.Module):
    """Step 6 around a `DualMemory`: residuals, normalisations and the feed-forward network."""

    def __init__(
        self, memory: DualMemory, dim: int, ffn: int, norm: Norm, dropout: float, affine: bool
    ) -> None:
        super().__init__()
        self.memory, self.before = memory, norm == "pre"
        self.ffn = nn.Sequential(nn.Linear(dim, ffn), nn.ReLU(), nn.Linear(ffn, dim))
        self.norm_memory = nn.LayerNorm(dim, elementwise_affine=affine)
        self.norm_ffn = nn.LayerNorm(dim, elementwise_affine=affine)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, working: Tensor, long_term: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Maps]:
        """Re-represent tokens; also return both memories and the attention."""
        if self.before:
            recalled, working, long_term, maps = self.memory(
                self.norm_memory(x), working, long_term
            )
            x = x + self.dropout(recalled)
            return x + self.dropout(self.ffn(self.norm_ffn(x))), working, long_term, maps
        recalled, working, long_term, maps = self.memory(x, working, long_term)
        x = self.norm_memory(x + self.dropout(recalled))
        return self.norm_ffn(x + self.dropout(self.ffn(x))), working, long_term, maps


@system(
    "pmi",
    family="sequence",
    title="A Framework for Inference Inspired by Human Memory Mechanisms",
    contract="SequenceLayer",
    paper="Zeng, Lin, Hu, Huang & Zhang (2023). arXiv:2310.09297.",
    bibtex=BIBTEX,
    claims=CLAIMS,
    tasks=("babi", "sort-of-clevr"),
)
class PMI(MemoryLayer):
    """Perception, memory, inference: a set encoder with two memories that outlive the set.

    Parameters
    ----------
    dim : int
        Width of tokens, D.
    applications : int
        How often the block is applied to a set; 4, 8 and 12 in the paper.
    heads, slots, segments, key_size, top_k, alpha, merge, read, affine
        See `DualMemory`; ``segments`` is C.
    ffn : int, optional
        Width of the feed-forward network; twice ``dim`` by default, as in the paper.
    shared : bool
        Whether all applications share weights and memories.
    norm : {"post", "pre"}
    dropout : float
        Of what is recalled and of the feed-forward network, in training.
    positions : bool
        Whether sinusoids of a token's position in the stream are added.
    segment : int, optional
        Tokens that make one set; by default all tokens of a call.
    seed : int
        Of the start of long-term memory.

    Raises
    ------
    ConfigError
        For a choice that cannot be carried out.
    """

    start: Tensor

    def __init__(
        self,
        dim: int = 64,
        *,
        applications: int = 4,
        heads: int = 4,
        slots: int = 8,
        segments: int = 5,
        key_size: int = 32,
        top_k: int | None = 5,
        alpha: float = 0.7,
        merge: Merge = "code",
        read: Read = "full",
        affine: bool = True,
        normalise: bool = True,
        ffn: int | None = None,
        shared: bool = True,
        norm: Norm = "post",
        dropout: float = 0.1,
        positions: bool = True,
        segment: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(dim)
        _at_least_one(
            applications=applications, heads=heads, slots=slots, segments=segments,
            key_size=key_size, top_k=top_k, ffn=ffn, segment=segment,
        )  # fmt: skip
        _one_of(merge=(merge, Merge), read=(read, Read), norm=(norm, Norm))
        if dim % heads:
            raise ConfigError(
                f"{heads} heads do not divide a width of {dim}", where="heads", mend="choose others"
            )
        for name, value in {"alpha": alpha, "dropout": dropout}.items():
            if not 0 <= value <= 1:
                raise ConfigError(f"it lies between 0 and 1, not at {value}", where=name)
        self.applications, self.shared, self.segment = applications, shared, segment
        self.positions = positions
        n_blocks = 1 if shared else applications
        self.blocks = nn.ModuleList(
            PMIBlock(
                DualMemory(
                    dim,
                    heads,
                    slots,
                    key_size=key_size,
                    top_k=top_k,
                    alpha=alpha,
                    merge=merge,
                    read=read,
                    affine=affine,
                    normalise=normalise,
                ),
                dim,
                ffn or 2 * dim,
                norm,
                dropout,
                affine,
            )
            for _ in range(n_blocks)
        )
        with seeded(seed):
            self.register_buffer("start", torch.rand(n_blocks, segments, slots, dim))

    @classmethod
    def published(
        cls, size: Literal["small", "medium", "large"] = "small", *, dim: int = 256, **options: Any
    ) -> PMI:
        """Return the paper's configuration: width 256, feed-forward network 512.

        Parameters
        ----------
        size : {"small", "medium", "large"}
            4 applications with 4 heads, 8 with 8, or 12 with 16.
        dim : int
        **options
            Anything else that the class takes.
        """
        if size not in SIZES:
            raise ConfigError(f"there is no size {size!r}", mend=f"say {', '.join(SIZES)}")
        applications, heads = SIZES[size]
        return cls(dim, **{"applications": applications, "heads": heads, **options})

    def initial_state(self, batch: int, generator: torch.Generator | None = None) -> State:
        """Both memories before anything was written, and position 0.

        Parameters
        ----------
        batch : int
        generator : torch.Generator, optional
            Draws another long-term memory for each sequence, as the published program does; by
            default all start from the one that the layer's seed has drawn.

        Returns
        -------
        State
            ``working`` (batch, memory, N, D), ``long_term`` (batch, memory, C, N, D) and
            ``position`` (batch), with one memory if shared, else one an application.
        """
        memories, _, slots, dim = self.start.shape
        working = torch.eye(slots, dim, dtype=self.start.dtype, device=self.start.device)
        long_term = self.start.expand(batch, *self.start.shape)
        if generator is not None:
            long_term = torch.rand(batch, *self.start.shape, generator=generator).to(self.start)
        return {
            "working": working.expand(batch, memories, slots, dim),
            "long_term": long_term,
            "position": torch.zeros(batch, dtype=torch.int64, device=self.start.device),
        }

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Encode a piece of a stream, set by set."""
        outputs = []
        for tokens in x.split(self.segment or x.shape[1], dim=1):
            y, state, _ = self._encode(tokens, state)
            outputs.append(y)
        return torch.cat(outputs, dim=1), state

    def token(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Encode a set of one token."""
        y, state, _ = self._encode(x[:, None], state)
        return y[:, 0], state

    def slot_attention(self, x: Tensor, state: State | None = None) -> dict[str, Tensor]:
        """Who writes the slots, and what each token reads.

        Parameters
        ----------
        x : Tensor, shape (batch, token, dim)
            Taken as one set.
        state : State, optional

        Returns
        -------
        dict
            ``write`` (application, batch, head, slot, token), ``working`` and ``long_term``
            (application, batch, head, token, slot).
        """
        self._check_input(x, 3, "batch x token x dim")
        if x.shape[1] == 0:
            raise DataError("there is no token to attend to", where="slot_attention")
        _, _, maps = self._encode(x, self._state(state, len(x)))
        return {
            name: torch.stack([getattr(m, name) for m in maps]).detach() for name in Maps._fields
        }

    def _encode(self, x: Tensor, state: State) -> tuple[Tensor, State, list[Maps]]:
        """Apply the block, or one block after the other, to one set."""
        position = state["position"]
        if self.positions:
            at = position[:, None] + torch.arange(x.shape[1], device=x.device)
            x = x + sinusoids(at, self.dim).to(x)
        working, long_term = list(state["working"].unbind(1)), list(state["long_term"].unbind(1))
        maps = []
        for index in range(self.applications):
            at_block = 0 if self.shared else index
            x, working[at_block], long_term[at_block], seen = self.blocks[at_block](
                x, working[at_block], long_term[at_block]
            )
            maps.append(seen)
        after = {
            "working": torch.stack(working, dim=1),
            "long_term": torch.stack(long_term, dim=1),
            "position": position + x.shape[1],
        }
        return x, after, maps


def _at_least_one(**sizes: int | None) -> None:
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise ConfigError(f"it is at least 1, not {size}", where=name)


def _one_of(**choices: tuple[str, Any]) -> None:
    for name, (choice, allowed) in choices.items():
        options: Iterable[str] = get_args(allowed)
        if choice not in options:
            raise ConfigError(
                f"there is no {name} {choice!r}", where=name, mend=f"say {', '.join(options)}"
            )
