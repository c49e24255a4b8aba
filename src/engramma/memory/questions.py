"""Models that answer questions about stories and scenes, around any layer.

Perception turns the input into tokens of one width. `ClassToken` prepends a token and reads it out,
for layers that let every token see the others (set encoders); `LastToken` reads the last one, as
causal layers need it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engramma.errors import ConfigError
from engramma.memory.layer import MemoryLayer
from engramma.memory.model import SequenceModel
from engramma.nn.seed import seeded
from engramma.nn.train import train
from engramma.worlds.sort_of_clevr import QUESTION_SIZE


def sinusoids(position: Tensor, dim: int) -> Tensor:
    """Sines and cosines of positions (any shape), in ``dim`` further numbers."""
    half = (dim + 1) // 2
    rate = torch.exp(
        torch.arange(half, device=position.device, dtype=torch.float64) * (-math.log(1e4) / half)
    )
    angle = position[..., None].double() * rate
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[..., :dim]


class ClassToken(nn.Module):
    """Read a class off a token that is prepended to the set.

    Parameters
    ----------
    layer : MemoryLayer
        One that lets the first token see the others.
    n_classes : int
    """

    def __init__(self, layer: MemoryLayer, n_classes: int) -> None:
        super().__init__()
        self.layer = layer
        self.class_token = nn.Parameter(torch.randn(layer.dim))
        self.head = nn.Linear(layer.dim, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (batch x token x dim) to logits (batch x class)."""
        y, _ = self.layer(torch.cat([self.class_token.expand(len(x), 1, -1), x], dim=1))
        return self.head(y[:, 0])


class LastToken(nn.Module):
    """Read a class off the last token of a sequence model."""

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """Map what the model takes to logits (batch x class)."""
        logits, _ = self.model(tokens)
        return logits[:, -1]


class Sentences(nn.Module):
    """Sentences as tokens: the sum of their words' vectors, each scaled by its place.

    Parameters
    ----------
    n_words, width, dim : int
        Size of the vocabulary (0 fills up), words of the longest sentence, width of a token.
    """

    def __init__(self, n_words: int, width: int, dim: int) -> None:
        super().__init__()
        self.word = nn.Embedding(n_words, dim, padding_idx=0)
        nn.init.normal_(self.word.weight, std=0.5)
        with torch.no_grad():
            self.word.weight[0].zero_()
        self.place = nn.Parameter(torch.ones(width, dim))

    def forward(self, sentences: Tensor) -> Tensor:
        """Map word numbers (... x word) to tokens (... x dim)."""
        return (self.word(sentences) * self.place).sum(dim=-2)


class StoryReader(nn.Module):
    """Answer a question about a story: its sentences and the question are the tokens.

    Parameters
    ----------
    layer : MemoryLayer
    n_words, width, n_answers : int
        Of a vocabulary.
    """

    def __init__(self, layer: MemoryLayer, n_words: int, width: int, n_answers: int) -> None:
        super().__init__()
        self.sentences = Sentences(n_words, width, layer.dim)
        self.classify = ClassToken(layer, n_answers)

    def forward(self, story: Tensor, question: Tensor) -> Tensor:
        """Map word numbers (batch x sentence x word, batch x word) to logits of answers."""
        told = torch.cat([story, question[:, None]], dim=1)
        return self.classify(self.sentences(told))


class Viewer(nn.Module):
    """Answer a question about a scene: the question and the scene's parts are the tokens.

    Parameters
    ----------
    layer : MemoryLayer
    part_size : int
        Numbers that describe a part: a patch of an image (675 for 15 x 15 pixels), an object.
    n_answers : int
    """

    def __init__(self, layer: MemoryLayer, part_size: int, n_answers: int = 10) -> None:
        super().__init__()
        self.part = nn.Linear(part_size, layer.dim)
        self.question = nn.Linear(QUESTION_SIZE, layer.dim)
        self.classify = ClassToken(layer, n_answers)

    def forward(self, parts: Tensor, question: Tensor) -> Tensor:
        """Map parts (batch x part x part_size) and questions (batch x 18) to logits."""
        return self.classify(torch.cat([self.question(question)[:, None], self.part(parts)], dim=1))


class ImageClassifier(nn.Module):
    """Name what an image shows: its patches are the tokens.

    Parameters
    ----------
    layer : MemoryLayer
    patch_size : int
        Numbers of a patch.
    n_classes : int
    """

    def __init__(self, layer: MemoryLayer, patch_size: int, n_classes: int) -> None:
        super().__init__()
        self.patch = nn.Linear(patch_size, layer.dim)
        self.classify = ClassToken(layer, n_classes)

    def forward(self, patches: Tensor) -> Tensor:
        """Map patches (batch x patch x patch_size) to logits."""
        return self.classify(self.patch(patches))


class Transformer(MemoryLayer):
    """Torch's own encoder layers, applied in turn, after sinusoids: the baseline of set encoders.

    Parameters
    ----------
    dim, heads, ffn : int
    blocks : int
        Layers with weights of their own.
    applications : int
        How often a layer is applied, in all.
    norm_first : bool
    dropout : float
    """

    def __init__(
        self,
        dim: int = 64,
        *,
        heads: int = 4,
        ffn: int = 128,
        blocks: int = 1,
        applications: int = 4,
        norm_first: bool = True,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(dim)
        self.applications = applications
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim, heads, ffn, dropout, batch_first=True, norm_first=norm_first
            )
            for _ in range(blocks)
        )

    def initial_state(self, batch: int) -> dict[str, Tensor]:
        """Nothing: every call is a set of its own."""
        return {}

    def sequence(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Encode a set."""
        x = x + sinusoids(torch.arange(x.shape[1], device=x.device), self.dim).to(x)
        for index in range(self.applications):
            x = self.blocks[index % len(self.blocks)](x)
        return x, state


#: ``f(rng) -> (inputs of the model, right answers)``: one batch.
Batches = Callable[[np.random.Generator], tuple[tuple[Tensor, ...], Tensor]]


def learn(
    model: nn.Module,
    batch: Batches,
    *,
    steps: int,
    seed: int,
    learning_rate: float = 3e-3,
    clip: float = 5.0,
) -> list[float]:
    """Minimise cross-entropy with Adam; the rate rises over a tenth of the steps, then falls.

    Returns
    -------
    list of float
        Mean loss of each tenth of the steps.
    """
    if steps < 10:
        raise ConfigError(f"learning takes at least 10 steps, not {steps}", where="steps")
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps + 1, pct_start=0.1
    )
    edges = np.linspace(0, steps, 11).astype(int)

    def batches(epoch: int) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        for step in range(edges[epoch], edges[epoch + 1]):
            yield batch(np.random.default_rng([seed, step]))
            scheduler.step()

    def loss(model: nn.Module, batch: tuple[tuple[Tensor, ...], Tensor]) -> Tensor:
        inputs, answers = batch
        return F.cross_entropy(model(*inputs), answers)

    with seeded(seed):
        return train(model, loss, batches, epochs=10, optimizer=optimizer, clip=clip)


@torch.no_grad()
def correct(
    model: nn.Module, inputs: Sequence[Tensor], answers: Tensor, size: int = 500
) -> np.ndarray:
    """Say of each question whether the answer is right."""
    model.eval()
    parts = zip(*(x.split(size) for x in inputs), strict=True)
    said = torch.cat([model(*part).argmax(dim=1) for part in parts])
    return (said == answers).numpy()
