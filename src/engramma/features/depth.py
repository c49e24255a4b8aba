"""Depth estimators: how far away what an image shows is.

After Ranftl et al. 2022 ("MiDaS") a network learns the logarithm of distance; the miniature is a
small U-net (Ronneberger et al. 2015) that learnt it on the scenes of `engramma.worlds`.
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
from engramma.features.pooling import Activation
from engramma.nn.blocks import ResidualBlock, Upsample, image_batch, strided
from engramma.nn.weights import Shipped, in_batches, load_shipped

WEIGHTS = Path(__file__).parent / "weights"


class DepthEstimator(abc.ABC):
    """What decoders ask of a model such as MiDaS or DPT."""

    name: str

    @abc.abstractmethod
    def depth(self, images: np.ndarray) -> np.ndarray:
        """Return distances, image x height x width, float32, of RGB images (uint8)."""

    @abc.abstractmethod
    def identity(self) -> str:
        """Return a text that is the same only where the same items give the same results."""


class MiniDepth(Shipped):
    """U-net from an image to the logarithm of the distance of every pixel.

    Parameters
    ----------
    channels : list of int
        At half, a quarter and an eighth of the image's size.
    """

    def __init__(self, *, channels: Sequence[int] = (32, 64, 96)) -> None:
        super().__init__()
        self.remember(locals())
        a, b, c = channels
        self.first = nn.Sequential(strided(3, a), nn.GroupNorm(a // 16, a), nn.SiLU())
        self.second = nn.Sequential(strided(a, b), ResidualBlock(b), ResidualBlock(b))
        self.third = nn.Sequential(
            strided(b, c), ResidualBlock(c), ResidualBlock(c), ResidualBlock(c)
        )
        self.to_quarter = Upsample(c, b)
        self.mix_quarter = nn.Sequential(ResidualBlock(b), ResidualBlock(b))
        self.to_half = Upsample(b, a)
        self.mix_half = ResidualBlock(a)
        self.leave = nn.Sequential(
            nn.GroupNorm(a // 16, a), nn.SiLU(), nn.Conv2d(a, 4, 3, padding=1), nn.PixelShuffle(2)
        )

    def forward(self, batch: Tensor) -> Tensor:
        """Map images (n, 3, height, width), -1 .. 1, to log distances (n, height, width)."""
        half = self.first(batch)
        quarter = self.second(half)
        x = self.mix_quarter(self.to_quarter(self.third(quarter)) + quarter)
        x = self.mix_half(self.to_half(x) + half)
        return self.leave(x)[:, 0]

    def loss(self, batch: Tensor, depth: Tensor) -> Tensor:
        """Mean absolute error of the log distance."""
        return functional.l1_loss(self(batch).float(), depth.log())


class Miniature(DepthEstimator):
    """The depth estimator of the scenes, trained by ``scripts/train_mini_depth.py``."""

    name = "mini-depth"

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = WEIGHTS / "mini-depth.safetensors" if path is None else Path(path)
        self.network: MiniDepth = load_shipped(MiniDepth, self.path)

    def depth(self, images: np.ndarray) -> np.ndarray:
        """Return distances from 1 (near) to 10 (the horizon)."""
        found = in_batches(lambda x: self.network(image_batch(x)), images)
        return found.exp().numpy()

    def identity(self) -> str:
        """Hash of the weights file."""
        return f"mini-depth {file_fingerprint(self.path)}"


class DepthMaps(FeatureModel):
    """The estimated distance of every pixel, as features of an encoding model."""

    name = "mini-depth"
    layers = ("depth",)
    pool = "grid8"
    single_layer = True

    def identity(self) -> str:
        """Hash of the weights file."""
        return Miniature().identity()

    def activations(self, items: Sequence[Any], layers: Sequence[str]) -> dict[str, Activation]:
        """Return maps of one channel."""
        return {"depth": torch.from_numpy(Miniature().depth(np.stack(items)))[:, None]}


@feature_model(
    "mini-depth", "image", "distance of every pixel, as the miniature estimates it", default=False
)
def _depth() -> FeatureModel:
    return DepthMaps()
