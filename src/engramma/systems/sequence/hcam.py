r"""Towards mental time travel: a hierarchical memory for reinforcement learning agents.

Lampinen, Chan, Banino & Hill (2021), arXiv:2105.14039: hierarchical chunk attention memory.

**What it does.** The past is cut into chunks of C tokens, each stored in full and with one key, its
mean. A token attends to the keys, picks the k chunks that suit it best, and attends in detail
within those only: M + kC scores a query in place of MC. So an agent goes back to an event and sees
all of it, without attending to what lies between.

**Layer** (`engramma.memory.chunks`; B sequences, T tokens, M chunks, width D).

====  ======================================================  =============================
step  equation                                                shape
====  ======================================================  =============================
1     accumulate inputs; after C of them store                contents B x M x C x D,
      :math:`V_m`, and its mean :math:`\bar v_m`              keys B x M x D
2     :math:`z = \mathrm{LayerNorm}(x)`,                      B x T x M
      :math:`\ell_m = (W_q z)^\top (W_k \bar v_m)/\sqrt D`;
      -10^6 for chunks that end later or belong to
      another episode
3     the k best; :math:`w = \mathrm{softmax}(\ell)`          B x T x k
4     :math:`r_m = \mathrm{MHA}(z, V_m + P, V_m + P)`,        B x T x k x D
      P counts back from the end of the chunk
5     :math:`y = x + \sum_m w_m r_m`                          B x T x D
====  ======================================================  =============================

Keys and contents are cut off the gradient: only projections learn from what is recalled. Linear
maps start with variance 2 / inputs; those within a chunk have biases and the two of step 2 none.

**Block.** Local attention, the layer above, and a feed-forward network, each added to its input;
several blocks make the memory. Local attention is that of Transformer-XL in that it slides over the
last tokens and knows relative positions; these are rotary here.

**Two forms.** The learner builds all chunks of a sequence at once and masks those that had not
ended before a token. The actor reads, then writes, one token at a time. Episodes may begin anywhere
in a batch (``begins``, `HCAM.reset`): what is older is masked, never mixed in.

The published sizes are not all known; k = 8 and C from 16 to 32 are likely ones. The default is
small: two blocks, D = 64, C = 16, k = 4. The agent around it, with its encoders, heads and
training, is `engramma.systems.sequence.hcam_agent`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from engramma.errors import ConfigError, DataError
from engramma.memory.attention import WindowAttention
from engramma.memory.chunks import ChunkMemory
from engramma.memory.layer import MemoryLayer, State, join, part
from engramma.registry import system
from engramma.systems.sequence.hcam_claims import CLAIMS

BIBTEX = """@inproceedings{lampinen2021towards,
  title = {Towards mental time travel: a hierarchical memory for reinforcement learning agents},
  author = {Lampinen, Andrew Kyle and Chan, Stephanie C. Y. and Banino, Andrea and Hill, Felix},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {34}, year = {2021}}"""


class Block(nn.Module):
    """Local attention, chunk memory, feed-forward network; each adds to its input."""

    def __init__(self, local: WindowAttention, memory: ChunkMemory, expansion: int) -> None:
        super().__init__()
        dim = memory.dim
        self.local_norm, self.local, self.memory = nn.LayerNorm(dim), local, memory
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, expansion * dim),
            nn.GELU(),
            nn.Linear(expansion * dim, dim),
        )

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map batch x token x dim, all tokens at once."""
        y, local = self.local(self.local_norm(x), part(state, "local"))
        y, memory = self.memory(x + y, part(state, "memory"))
        return y + self.mlp(y), join(local=local, memory=memory)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map one token, batch x dim."""
        y, local = self.local.step(self.local_norm(x), part(state, "local"))
        y, memory = self.memory.step(x + y, part(state, "memory"))
        return y + self.mlp(y), join(local=local, memory=memory)

    def initial_state(self, batch: int) -> State:
        """States of the local attention and of the memory."""
        return join(local=self.local.initial_state(batch), memory=self.memory.initial_state(batch))

    def reset(self, state: State, rows: Tensor) -> State:
        """Begin a new episode in these rows."""
        local, memory = part(state, "local"), part(state, "memory")
        local = {**local, "seen": torch.where(rows, 0, local["seen"])}
        return join(local=local, memory=self.memory.reset(memory, rows))


@system(
    "hcam",
    family="sequence",
    title="Hierarchical chunk attention memory (mental time travel)",
    contract="SequenceLayer",
    paper="Lampinen, Chan, Banino & Hill (2021), NeurIPS; arXiv:2105.14039",
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
        "ballet",
        "object-permanence",
    ],
)
class HCAM(MemoryLayer):
    """Hierarchical chunk attention memory: a stack of blocks.

    Parameters
    ----------
    dim : int
    chunk : int
        Tokens in a chunk, C.
    top_k : int
        Chunks read in detail, k; all, while there are fewer.
    heads : int
        Of local attention and of that within chunks.
    layers : int
        Blocks.
    window : int
        Tokens that local attention sees.
    expansion : int
        Width of the feed-forward networks, as a multiple of ``dim``.
    positional : bool
        Whether contents carry their positions in the chunk.
    capacity : int, optional
        Chunks kept, M: the oldest is overwritten and the state keeps its size. All by default;
        the state then grows.
    """

    def __init__(
        self,
        dim: int = 64,
        *,
        chunk: int = 16,
        top_k: int = 4,
        heads: int = 4,
        layers: int = 2,
        window: int = 16,
        expansion: int = 2,
        positional: bool = True,
        capacity: int | None = None,
    ) -> None:
        super().__init__(dim)
        if layers < 1:
            raise ConfigError(f"a memory of {layers} blocks is none", where="layers")

        def block() -> Block:
            memory = ChunkMemory(
                dim,
                chunk=chunk,
                top_k=top_k,
                heads=heads,
                positional=positional,
                capacity=capacity,
            )
            return Block(WindowAttention(dim, heads, window), memory, expansion)

        self.blocks = nn.ModuleList(block() for _ in range(layers))

    @property
    def growing(self) -> Mapping[str, int]:  # type: ignore[override]
        """The stores of all blocks grow, unless they have a capacity."""
        return {
            f"{index}.memory.{name}": axis
            for index, block in self._numbered()
            for name, axis in block.memory.growing.items()
        }

    def initial_state(self, batch: int) -> State:
        """Nothing seen yet."""
        return join(**{index: block.initial_state(batch) for index, block in self._numbered()})

    def reset(self, state: State, rows: Tensor) -> State:
        """Begin a new episode in these rows of the batch.

        Parameters
        ----------
        state : State
        rows : Tensor of bool, shape (batch,)

        Returns
        -------
        State
            In which all that these rows stored is masked. An agent that should keep what it
            learned in earlier episodes is simply not reset.
        """
        return join(
            **{i: block.reset(part(state, i), rows.bool()) for i, block in self._numbered()}
        )

    def forward(
        self, x: Tensor, state: State | None = None, begins: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """As `MemoryLayer.forward`; ``begins`` (batch x token, bool) says where episodes begin."""
        if begins is None:
            return super().forward(x, state)
        self._check_input(x, 3, "batch x token x dim")
        if begins.shape != x.shape[:2]:
            raise DataError(
                f"begins has shape {tuple(begins.shape)}, where batch x token = "
                f"{tuple(x.shape[:2])} is needed",
                where=type(self).__name__,
            )
        state = self._state(state, len(x))
        # Rows begin at different tokens: the sequence is cut wherever any of them does.
        cuts = begins.any(0).nonzero().flatten().tolist()
        edges = sorted({0, *cuts, x.shape[1]})
        outputs = [x[:, :0]]
        for start, stop in itertools.pairwise(edges):
            state = self.reset(state, begins[:, start])
            y, state = super().forward(x[:, start:stop], state)
            outputs.append(y)
        return torch.cat(outputs, 1), state

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map all tokens at once: the learner's form."""
        after = {}
        for index, block in self._numbered():
            x, after[index] = block(x, part(state, index))
        return x, join(**after)

    def token(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map one token: the actor's form."""
        after = {}
        for index, block in self._numbered():
            x, after[index] = block.step(x, part(state, index))
        return x, join(**after)

    def _numbered(self) -> Iterator[tuple[str, Block]]:
        return ((str(i), cast(Block, block)) for i, block in enumerate(self.blocks))
