"""Captioners: sentences written from an embedding.

After Mokady et al. 2021 ("ClipCap"): an embedding becomes a prefix of a small language model,
which goes on from it. The miniature writes captions of the scenes from the embedding of an image,
or from the tokens that an image becomes, or from what a decoder takes for either.
"""

from __future__ import annotations

import abc
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engramma.errors import DataError
from engramma.features import contrastive
from engramma.features.model import file_fingerprint
from engramma.nn.blocks import TransformerBlock
from engramma.nn.weights import Shipped, load_shipped
from engramma.nn.words import END, PAD, START, UNKNOWN, WordTokenizer

WEIGHTS = Path(__file__).parent / "weights"
#: Captions written at once.
BATCH = 128


class Captioner(abc.ABC):
    """What decoders ask of a model that turns embeddings into sentences.

    Attributes
    ----------
    name : str
    condition_dim : int
        Width of the embeddings.
    """

    name: str
    condition_dim: int

    @abc.abstractmethod
    def caption(self, condition: np.ndarray) -> list[str]:
        """Write one sentence for each embedding (n, condition_dim)."""

    @abc.abstractmethod
    def identity(self) -> str:
        """Return a text that is the same only where the same items give the same results."""


class TokenCaptioner(Captioner):
    """A captioner of the tokens of its own image encoder, or of what a decoder predicts for them.

    Attributes
    ----------
    token_shape : tuple of int
        Tokens and width of one image; ``condition_dim`` is their product.
    """

    token_shape: tuple[int, ...]

    @abc.abstractmethod
    def image_tokens(self, images: np.ndarray) -> np.ndarray:
        """Return the image encoder's tokens, image x token x width, of RGB images (uint8)."""

    @abc.abstractmethod
    def write(self, tokens: Tensor) -> list[str]:
        """Write the likeliest sentence, word by word, for tokens (image x token x width)."""

    def caption(self, condition: np.ndarray) -> list[str]:
        """Write a sentence for the tokens of each image: image x token x width, or one row each.

        Raises
        ------
        DataError
            If they have another shape.
        """
        tokens = torch.as_tensor(condition, dtype=torch.float32)
        if tokens.shape[1:] not in ((self.condition_dim,), self.token_shape):
            raise DataError(
                f"tokens have shape {tuple(tokens.shape)}",
                where=f"model {self.name}",
                mend=f"give image x {self.token_shape[0]} x {self.token_shape[1]}, or one row each",
            )
        parts = tokens.reshape(-1, *self.token_shape).split(BATCH)
        return [text for part in parts for text in self.write(part)]

    def caption_images(self, images: np.ndarray) -> list[str]:
        """Write a sentence for each RGB image (n, height, width, 3), uint8."""
        return self.caption(self.image_tokens(images))


class MiniCaptioner(Shipped):
    """A causal transformer over words, after a prefix that an embedding becomes.

    Parameters
    ----------
    words : list of str
        The vocabulary.
    length : int
        Most tokens of a caption.
    condition : int
        Width of the embedding.
    context : int, optional
        Width of image tokens, if it reads those (Wang et al. 2022, "GIT"): the first one is the
        embedding, and every word looks at the others.
    grid : int
        How many those others are, if they are always as many: each place then has a vector of its
        own, so that words can tell of where things are. 0: any number, without it.
    hidden : int
        Width of what is understood of the embedding.
    prefix : int
        Tokens it becomes.
    dim, heads, depth : int
        Of the transformer.
    """

    def __init__(
        self,
        *,
        words: list[str],
        length: int = 64,
        condition: int = 128,
        context: int | None = None,
        grid: int = 0,
        hidden: int = 768,
        prefix: int = 4,
        dim: int = 160,
        heads: int = 4,
        depth: int = 3,
    ) -> None:
        super().__init__()
        self.remember(locals())
        self.tokenizer = WordTokenizer(words, length)
        self.understand = nn.Sequential(nn.Linear(condition, hidden), nn.GELU())
        self.prefix = nn.Linear(hidden, prefix * dim)
        # What the embedding says is within reach of every word, at every depth: from the prefix
        # alone, attention learns only late which of its tokens tells of what.
        self.remind = nn.ModuleList(nn.Linear(hidden, dim) for _ in range(depth))
        self.n_prefix, self.dim = prefix, dim
        self.words = nn.Embedding(len(self.tokenizer), dim)
        nn.init.normal_(self.words.weight, std=0.02)
        self.position = nn.Parameter(0.02 * torch.randn(prefix + length, dim))
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, heads, causal=True, context=context) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.place = nn.Parameter(0.5 * torch.randn(grid, context)) if context and grid else None

    def forward(self, condition: Tensor, tokens: Tensor) -> Tensor:
        """Logits of the next word after each of ``tokens`` (n, token).

        The condition are embeddings of unit length (n, width), or image tokens (n, token, width).
        """
        if condition.ndim == 3:
            embedding, seen = condition[:, 0], condition[:, 1:]
            seen = seen if self.place is None else seen + self.place
        else:
            embedding, seen = condition * condition.shape[1] ** 0.5, None
        known = self.understand(embedding)
        prefix = self.prefix(known).unflatten(1, (self.n_prefix, self.dim))
        x = torch.cat([prefix, self.words(tokens)], dim=1)
        x = x + self.position[: x.shape[1]]
        for block, remind in zip(self.blocks, self.remind, strict=True):
            x = block(x + remind(known)[:, None], context=seen)
        return self.norm(x[:, self.n_prefix :]) @ self.words.weight.T

    def loss(self, condition: Tensor, tokens: Tensor, read: Tensor | None = None) -> Tensor:
        """Mean negative log likelihood a word of ``tokens``, after those or after ``read``."""
        before = tokens if read is None else read
        logits = self(condition, before[:, :-1]).float()
        return functional.cross_entropy(
            logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=PAD
        )

    @torch.inference_mode()
    def write(self, condition: Tensor) -> list[str]:
        """Write the likeliest caption word by word."""
        tokens = torch.full((len(condition), 1), START)
        ended = torch.zeros(len(condition), dtype=torch.bool)
        for _ in range(self.tokenizer.length - 1):
            logits = self(condition, tokens)[:, -1]
            logits[:, [PAD, START, UNKNOWN]] = -torch.inf
            tokens = torch.cat([tokens, logits.argmax(dim=1, keepdim=True)], dim=1)
            ended |= tokens[:, -1] == END
            if ended.all():
                break
        return self.tokenizer.decode(tokens)


class Miniature(Captioner):
    """The captioner of embeddings of scenes, trained by ``scripts/train_mini_captioner.py``."""

    name = "mini-captioner"

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = WEIGHTS / "mini-captioner.safetensors" if path is None else Path(path)
        self.network: MiniCaptioner = load_shipped(MiniCaptioner, self.path)
        self.condition_dim = self.network.settings["condition"]

    def caption(self, condition: np.ndarray) -> list[str]:
        """Write one sentence for each embedding."""
        wishes = torch.as_tensor(condition, dtype=torch.float32)
        return [text for part in wishes.split(BATCH) for text in self.network.write(part)]

    def identity(self) -> str:
        """Hash of the weights file."""
        return f"{self.name} {file_fingerprint(self.path)}"


class TokenMiniature(TokenCaptioner):
    """The captioner of image tokens of scenes, trained by ``scripts/train_mini_captioner.py``.

    Its image encoder is the image tower of the miniature image-text model.
    """

    name = "mini-git"

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = WEIGHTS / "mini-git.safetensors" if path is None else Path(path)
        self.network: MiniCaptioner = load_shipped(MiniCaptioner, self.path)
        self.encoder = contrastive.Miniature()
        tower = self.encoder.network.image
        self.token_shape = tuple(tower.position.shape)
        self.condition_dim = tower.position.numel()

    def image_tokens(self, images: np.ndarray) -> np.ndarray:
        """Return the tokens, image x token x width: the global one, then the grid."""
        return self.encoder.image_tokens(images)

    def write(self, tokens: Tensor) -> list[str]:
        """Write the likeliest sentences."""
        return self.network.write(tokens)

    def identity(self) -> str:
        """Hash of the weights file, and of the encoder's."""
        return f"{self.name} {file_fingerprint(self.path)}, {self.encoder.identity()}"
