"""A sequence model around any memory layer: embedding, blocks, head."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from engramma.errors import DataError
from engramma.memory.layer import MemoryLayer, State, join, part
from engramma.nn.seed import seeded


class Block(nn.Module):
    """Norm, layer, residual; norm, feed-forward network, residual.

    Parameters
    ----------
    layer : MemoryLayer
    expansion : int
        Width of the feed-forward network, as a multiple of that of the layer; 0 leaves it out.
    """

    def __init__(self, layer: MemoryLayer, expansion: int = 2) -> None:
        super().__init__()
        dim = layer.dim
        self.before, self.layer = nn.RMSNorm(dim), layer
        self.between = nn.RMSNorm(dim)
        self.feed_forward = (
            nn.Sequential(
                nn.Linear(dim, expansion * dim), nn.GELU(), nn.Linear(expansion * dim, dim)
            )
            if expansion
            else None
        )

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Map batch x token x dim and the layer's state to the same."""
        y, state = self.layer(self.before(x), state)
        return self._rest(x + y), state

    def step(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Map one token, batch x dim."""
        y, state = self.layer.step(self.before(x), state)
        return self._rest(x + y), state

    def _rest(self, x: Tensor) -> Tensor:
        return x if self.feed_forward is None else x + self.feed_forward(self.between(x))


class SequenceModel(nn.Module):
    """Tokens (or vectors) in, logits out, around copies of one kind of layer.

    Embedding and head share their weights where both are over one vocabulary.

    Parameters
    ----------
    layers : callable
        ``layers() -> MemoryLayer``, called once a block; all have the same width.
    n_inputs : int
        Size of the vocabulary; or, with ``vectors``, width of the input vectors.
    n_outputs : int, optional
        Size of the output; ``n_inputs`` by default.
    blocks : int
    expansion : int
        Of the feed-forward networks.
    vectors : bool
        Whether inputs are vectors (batch x token x n_inputs) instead of token ids.
    seed : int
        Of all initial weights.
    """

    def __init__(
        self,
        layers: Callable[[], MemoryLayer],
        n_inputs: int,
        n_outputs: int | None = None,
        *,
        blocks: int = 2,
        expansion: int = 2,
        vectors: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.n_inputs, self.vectors = n_inputs, vectors
        with seeded(seed):
            made = [layers() for _ in range(blocks)]
            self.dim = made[0].dim
            self.blocks = nn.ModuleList(Block(layer, expansion) for layer in made)
            self.embed: nn.Module
            if vectors:
                self.embed = nn.Linear(n_inputs, self.dim)
            else:
                self.embed = nn.Embedding(n_inputs, self.dim)
                # Unit-length tokens: rows of N(0, 1) would drown what the blocks add to them.
                nn.init.normal_(self.embed.weight, std=self.dim**-0.5)
            self.norm = nn.RMSNorm(self.dim)
            self.head = nn.Linear(self.dim, n_outputs or n_inputs, bias=False)
        if isinstance(self.embed, nn.Embedding) and n_outputs in (None, n_inputs):
            self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map token ids (batch x token) and a state to logits and the next state."""
        return self._through(tokens, state, step=False)

    def step(self, token: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map one token id a sequence (batch) to logits (batch x output) and the next state."""
        return self._through(token, state, step=True)

    def initial_state(self, batch: int) -> State:
        """States of all blocks before the first token."""
        return join(**{str(i): b.layer.initial_state(batch) for i, b in enumerate(self.blocks)})  # type: ignore[union-attr, operator]

    def _through(self, tokens: Tensor, state: State | None, step: bool) -> tuple[Tensor, State]:
        self._check(tokens)
        x, after = self.embed(tokens), {}
        for index, block in enumerate(self.blocks):
            before = None if state is None else part(state, str(index))
            x, after[str(index)] = (block.step if step else block)(x, before)  # type: ignore[operator]
        return self.head(self.norm(x)), join(**after)

    def _check(self, tokens: Tensor) -> None:
        if self.vectors or not tokens.numel():
            return
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.n_inputs:
            raise DataError(
                f"token ids run from {low} to {high}, but the vocabulary has {self.n_inputs}",
                where=f"shape {tuple(tokens.shape)}",
                mend="map the text to ids of this vocabulary",
            )


def n_parameters(module: nn.Module) -> int:
    """Count the trained numbers."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@torch.no_grad()
def generate(model: SequenceModel, prompt: Tensor, length: int) -> Tensor:
    """Continue token ids (batch x token) greedily, one step a token."""
    logits, state = model(prompt)
    token, out = logits[:, -1].argmax(-1), []
    for _ in range(length):
        out.append(token)
        logits, state = model.step(token, state)
        token = logits.argmax(-1)
    return torch.stack(out, 1)
