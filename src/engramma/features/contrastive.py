"""Image-text models: pictures and sentences in one space, and the miniature of them.

Radford et al. 2021, "Learning transferable visual models from natural language supervision"
(CLIP): two towers are trained so that the embedding of an image lies next to that of its own
caption, and far from those of other images. The miniature learnt it on the scenes of
`engramma.worlds`; `engramma.features.foundation` takes a real one from a folder.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engramma.features.model import FeatureModel, feature_model, file_fingerprint
from engramma.features.pooling import Activation, Tokens
from engramma.nn.blocks import ResidualBlock, TransformerBlock, image_batch, strided
from engramma.nn.hooks import capture
from engramma.nn.weights import Shipped, in_batches, load_shipped
from engramma.nn.words import PAD, WordTokenizer

WEIGHTS = Path(__file__).parent / "weights"


class ImageTextModel(abc.ABC):
    """What decoders and encoders ask of a model such as CLIP.

    Attributes
    ----------
    name : str
    dim : int
        Width of the common space.
    """

    name: str
    dim: int

    @abc.abstractmethod
    def embed_images(self, images: np.ndarray) -> np.ndarray:
        """Return unit vectors, image x dim, of images (n, height, width, 3) uint8."""

    @abc.abstractmethod
    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors, text x dim."""

    @abc.abstractmethod
    def image_tokens(self, images: np.ndarray) -> np.ndarray:
        """Return the image tower's last tokens, image x token x width, the global one first."""

    @abc.abstractmethod
    def text_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """Return the text tower's last tokens, text x token x width, zero where there is none."""

    @abc.abstractmethod
    def identity(self) -> str:
        """Return a text that is the same only where the same items give the same embeddings."""


class ImageTower(nn.Module):
    """Two streams to an 8 x 8 grid of tokens, then a transformer with a global token.

    Form is read off the brightness alone, colour off single pixels: as in early vision (Livingstone
    and Hubel 1988), and so that what a thing is can be told whatever its colour. A network that
    sees both at once learns which colours each category never had.

    Parameters
    ----------
    channels : sequence of int
        Of the form stream's stem and two stages.
    dim, heads, depth : int
        Of the transformer.
    image_size : int
        Pixels a side: 8 times the side of the grid.
    """

    layers = ("stem", "stage1", "stage2", "colour", "block1", "block2", "block3")

    def __init__(
        self, channels: Sequence[int], dim: int, heads: int, depth: int, image_size: int
    ) -> None:
        super().__init__()
        a, b, c = channels
        self.settings = {
            "channels": list(channels),
            "dim": dim,
            "heads": heads,
            "depth": depth,
            "image_size": image_size,
        }
        self.image_size = image_size
        self.stem = nn.Sequential(strided(1, a), nn.GroupNorm(a // 16, a), nn.SiLU())
        self.stage1 = nn.Sequential(strided(a, b), ResidualBlock(b), ResidualBlock(b))
        self.stage2 = nn.Sequential(
            strided(b, c), ResidualBlock(c), ResidualBlock(c), ResidualBlock(c)
        )
        # A soft histogram of the colours of each cell, of 2 x 2 pixels at a time.
        pixels = nn.Conv2d(3, a, 1)
        with torch.no_grad():  # so that units prefer different colours from the start
            pixels.weight *= 4
        self.colour = nn.Sequential(
            nn.AvgPool2d(2), pixels, nn.SiLU(), nn.Conv2d(a, a, 1), nn.SiLU(), nn.AvgPool2d(4)
        )
        self.colour_norm = nn.LayerNorm(a)
        self.tokens = nn.Linear(c + a, dim)
        self.position = nn.Parameter(0.02 * torch.randn((image_size // 8) ** 2 + 1, dim))
        for i in range(1, depth + 1):
            self.add_module(f"block{i}", TransformerBlock(dim, heads))
        self.depth = depth
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, 3, size, size), -1 .. 1, to tokens (n, 1 + grid, dim)."""
        if x.shape[-1] != self.image_size or x.shape[-2] != self.image_size:
            x = functional.interpolate(
                x, (self.image_size, self.image_size), mode="bilinear", antialias=True
            )
        form = self.stage2(self.stage1(self.stem(x.mean(dim=1, keepdim=True))))
        form, colour = (part.flatten(2).transpose(1, 2) for part in (form, self.colour(x)))
        x = self.tokens(torch.cat([form, self.colour_norm(colour)], dim=2))
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.position
        for i in range(1, self.depth + 1):
            x = self.get_submodule(f"block{i}")(x)
        return self.norm(x)


class TextTower(nn.Module):
    """A transformer over words; the first token stands for the whole text."""

    def __init__(self, vocabulary: int, length: int, dim: int, heads: int, depth: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, dim)
        self.position = nn.Parameter(0.02 * torch.randn(length, dim))
        self.blocks = nn.ModuleList(TransformerBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token numbers (n, token) to tokens (n, token, dim)."""
        there = tokens != PAD
        x = self.words(tokens) + self.position[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, mask=there)
        return self.norm(x) * there[..., None]


class ObjectPool(nn.Module):
    """An embedding of tokens, of cells or of words, that keeps apart what belongs to which object.

    The global token of towers that are taught with captions alone tells what things and what
    colours there are, not which thing has which colour (Yuksekgonul et al. 2023). Here one query an
    object looks for it, in the order in which the image is read, as slots do (Locatello et al.
    2020, "Object-centric learning with slot attention"; Carion et al. 2020, "End-to-end object
    detection with transformers"); what they find, side by side, becomes the embedding.

    Parameters
    ----------
    width, dim : int
        Of the tokens and of the embedding.
    heads, depth : int
        Of the transformer.
    tokens, objects : int
        Most tokens beside the global one, and most objects.
    """

    def __init__(
        self, width: int, dim: int, heads: int, depth: int, *, tokens: int, objects: int
    ) -> None:
        super().__init__()
        self.place = nn.Parameter(0.5 * torch.randn(tokens, width))
        self.query = nn.Parameter(0.5 * torch.randn(objects, width))
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, context=width) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.together = nn.Linear((1 + objects) * width, dim, bias=False)

    def forward(self, tokens: Tensor, there: Tensor | None = None) -> Tensor:
        """Map tokens (n, 1 + token, width), the global one first, to (n, dim).

        ``there`` (n, token) says which of the others are no padding.
        """
        whole, seen = tokens[:, :1], tokens[:, 1:] + self.place[: tokens.shape[1] - 1]
        x = whole + self.query
        for block in self.blocks:
            x = block(x, context=seen, context_mask=there)
        return self.together(torch.cat([whole, self.norm(x)], dim=1).flatten(1))


class MiniImageText(Shipped):
    """The two towers of the miniature.

    Parameters
    ----------
    words : list of str
        The vocabulary.
    length : int
        Most tokens of a text.
    dim, width, heads : int
        Width of the common space and of the transformers, and their heads.
    channels : list of int
        Of the image tower's convolutions.
    image_depth, text_depth : int
        Transformer blocks of the towers.
    image_size : int
    objects, mentions : int
        Objects that the embeddings of an image and of a text keep apart (`ObjectPool`). With 0 the
        embedding is the tower's global token.
    pool_depth : int
        Transformer blocks that look for them.
    """

    def __init__(
        self,
        *,
        words: list[str],
        length: int = 64,
        dim: int = 128,
        width: int = 128,
        heads: int = 4,
        channels: Sequence[int] = (32, 64, 128),
        image_depth: int = 3,
        text_depth: int = 2,
        image_size: int = 64,
        objects: int = 0,
        mentions: int = 0,
        pool_depth: int = 3,
    ) -> None:
        super().__init__()
        self.remember(locals())
        self.tokenizer = WordTokenizer(words, length)
        self.image = ImageTower(channels, width, heads, image_depth, image_size)
        self.text = TextTower(len(self.tokenizer), length, width, heads, text_depth)
        sizes = width, dim, heads, pool_depth
        if objects:
            grid = len(self.image.position) - 1
            self.pool = ObjectPool(*sizes, tokens=grid, objects=objects)
        else:
            self.image_projection = nn.Linear(width, dim, bias=False)
        if mentions:
            self.text_pool = ObjectPool(*sizes, tokens=length - 1, objects=mentions)
        else:
            self.text_projection = nn.Linear(width, dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))

    def project_images(self, batch: Tensor) -> Tensor:
        """Return unit vectors of images (n, 3, size, size), -1 .. 1."""
        return self.project_tokens(self.image(batch))

    def project_tokens(self, tokens: Tensor) -> Tensor:
        """Return unit vectors of what the image tower puts out (n, token, width)."""
        if self.settings["objects"]:
            found = self.pool(tokens)
        else:
            found = self.image_projection(tokens[:, 0])
        return functional.normalize(found.float(), dim=-1)

    def project_texts(self, tokens: Tensor) -> Tensor:
        """Return unit vectors of token numbers (n, token)."""
        words = self.text(tokens)
        if self.settings["mentions"]:
            found = self.text_pool(words, tokens[:, 1:] != PAD)
        else:
            found = self.text_projection(words[:, 0])
        return functional.normalize(found.float(), dim=-1)


class Miniature(ImageTextModel):
    """The image-text model of the scenes, trained by ``scripts/train_mini_image_text.py``.

    Parameters
    ----------
    path : path, optional
        Other weights of the same kind.
    """

    name = "mini-clip"

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = WEIGHTS / "mini-image-text.safetensors" if path is None else Path(path)
        self.network: MiniImageText = load_shipped(MiniImageText, self.path)
        self.dim = self.network.settings["dim"]

    def embed_images(self, images: np.ndarray) -> np.ndarray:
        """Return unit vectors, image x dim."""
        return in_batches(lambda x: self.network.project_images(image_batch(x)), images).numpy()

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors, text x dim."""
        tokens = self.network.tokenizer.encode(texts)
        return in_batches(self.network.project_texts, tokens).numpy()

    def image_tokens(self, images: np.ndarray) -> np.ndarray:
        """Return tokens, image x 65 x width: the global one, then the grid row by row."""
        return in_batches(lambda x: self.network.image(image_batch(x)), images).numpy()

    def text_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """Return tokens, text x token x width, padded with zeros to the longest text possible."""
        tokens = self.network.tokenizer.encode(texts)
        found = in_batches(self.network.text, tokens)
        missing = self.network.tokenizer.length - found.shape[1]
        return functional.pad(found, (0, 0, 0, missing)).numpy()

    def identity(self) -> str:
        """Hash of the weights file."""
        return f"mini-clip {file_fingerprint(self.path)}"


class MiniatureImageLayers(FeatureModel):
    """Layers of the miniature's image tower, as features of an encoding model."""

    name = "mini-clip"
    layers = (*ImageTower.layers, "embedding")

    def identity(self) -> str:
        """Hash of the weights file."""
        return Miniature().identity()

    def activations(self, items: Sequence[Any], layers: Sequence[str]) -> dict[str, Activation]:
        """Return maps of stem and stages, tokens of the blocks, and the unit vector."""
        network = Miniature().network
        inner = [n for n in layers if n != "embedding"]
        with torch.inference_mode(), capture(network.image, inner) as outputs:
            embedding = network.project_images(image_batch(np.stack(items)))
        side = network.image.image_size // 8
        found: dict[str, Activation] = {
            n: Tokens(outputs[n], prefix=1, side=side) if n.startswith("block") else outputs[n]
            for n in inner
        }
        return {**found, **({"embedding": embedding} if "embedding" in layers else {})}


class MiniatureTextLayers(FeatureModel):
    """The miniature's embedding of captions, as features of an encoding model."""

    name = "mini-clip-text"
    medium = "caption"
    layers = ("embedding",)
    single_layer = True

    def identity(self) -> str:
        """Hash of the weights file."""
        return f"text, {Miniature().identity()}"

    def activations(self, items: Sequence[Any], layers: Sequence[str]) -> dict[str, Activation]:
        """Return unit vectors."""
        return {"embedding": torch.from_numpy(Miniature().embed_texts(list(items)))}


@feature_model(
    "mini-clip", "image", "image tower of the miniature image-text model, by layer", default=False
)
def _image() -> FeatureModel:
    return MiniatureImageLayers()


@feature_model(
    "mini-clip-text", "caption", "text embedding of the miniature image-text model", default=False
)
def _text() -> FeatureModel:
    return MiniatureTextLayers()
