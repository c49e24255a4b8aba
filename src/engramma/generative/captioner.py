"""Captioners: sentences written from an embedding.

After Mokady et al. 2021 ("ClipCap"): an embedding becomes a prefix of a small language model,
which goes on from it. The miniature writes captions of the scenes from the embedding of an image,
or from what a decoder takes for it.
"""

from __future__ import annotations

import abc
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engramma.features.model import file_fingerprint
from engramma.nn.blocks import TransformerBlock
from engramma.nn.weights import Shipped, load_shipped
from engramma.nn.words import END, PAD, START, UNKNOWN, WordTokenizer

WEIGHTS = Path(__file__).parent / "weights"


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
    hidden : int
        Width of what is understood of it.
    prefix : int
        Tokens it becomes.
    dim, heads, depth : int
        Of the transformer.
    """

    centre: Tensor
    whitening: Tensor

    def __init__(
        self,
        *,
        words: list[str],
        length: int = 64,
        condition: int = 128,
        hidden: int = 768,
        prefix: int = 4,
        dim: int = 160,
        heads: int = 4,
        depth: int = 3,
    ) -> None:
        super().__init__()
        self.remember(locals())
        self.tokenizer = WordTokenizer(words, length)
        #: Brings embeddings to mean 0 and unit variance in all directions; see `whiten`.
        self.register_buffer("centre", torch.zeros(condition))
        self.register_buffer("whitening", torch.eye(condition) * condition**0.5)
        self.understand = nn.Sequential(nn.Linear(condition, hidden), nn.GELU())
        self.prefix = nn.Linear(hidden, prefix * dim)
        # What the embedding says is within reach of every word, at every depth: from the prefix
        # alone, attention learns only late which of its tokens tells of what.
        self.remind = nn.ModuleList(nn.Linear(hidden, dim) for _ in range(depth))
        self.n_prefix, self.dim = prefix, dim
        self.words = nn.Embedding(len(self.tokenizer), dim)
        nn.init.normal_(self.words.weight, std=0.02)
        self.position = nn.Parameter(0.02 * torch.randn(prefix + length, dim))
        self.blocks = nn.ModuleList(TransformerBlock(dim, heads, causal=True) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def whiten(self, embeddings: Tensor, floor: float = 1e-6) -> None:
        """Fit the whitening of conditions to the embeddings of training images (n, width).

        Contrastive embeddings lie along a few directions (here: the place of the scene), and what
        the other directions hold would be learnt late.
        """
        self.centre.copy_(embeddings.mean(dim=0))
        variance, directions = torch.linalg.eigh(torch.cov(embeddings.T))
        self.whitening.copy_(directions / (variance.clamp(min=0) + floor).sqrt())

    def forward(self, condition: Tensor, tokens: Tensor) -> Tensor:
        """Logits of the next word after each of ``tokens`` (n, token), given embeddings."""
        known = self.understand((condition - self.centre) @ self.whitening)
        prefix = self.prefix(known).unflatten(1, (self.n_prefix, self.dim))
        x = torch.cat([prefix, self.words(tokens)], dim=1)
        x = x + self.position[: x.shape[1]]
        for block, remind in zip(self.blocks, self.remind, strict=True):
            x = block(x + remind(known)[:, None])
        return self.norm(x[:, self.n_prefix :]) @ self.words.weight.T

    def loss(self, condition: Tensor, tokens: Tensor) -> Tensor:
        """Mean negative log likelihood a word."""
        logits = self(condition, tokens[:, :-1]).float()
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
    """The captioner of the scenes, trained by ``scripts/train_mini_captioner.py``."""

    name = "mini-captioner"

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = WEIGHTS / "mini-captioner.safetensors" if path is None else Path(path)
        self.network: MiniCaptioner = load_shipped(MiniCaptioner, self.path)
        self.condition_dim = self.network.settings["condition"]

    def caption(self, condition: np.ndarray) -> list[str]:
        """Write one sentence for each embedding."""
        wishes = torch.as_tensor(condition, dtype=torch.float32)
        return [text for part in wishes.split(128) for text in self.network.write(part)]

    def identity(self) -> str:
        """Hash of the weights file."""
        return f"mini-captioner {file_fingerprint(self.path)}"
