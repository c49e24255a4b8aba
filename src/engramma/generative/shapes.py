"""Shape autoencoders: what a solid fills as a few numbers, and back.

After Girdhar et al. 2016 ("Learning a predictable and generative vector representation for
objects") an encoder brings a grid of occupancy to a vector, and a decoder the vector to a grid,
whose surface `engramma.generative.isosurface` finds. The miniature takes the height as channels, so
that its convolutions are flat, and is a variational autoencoder with very little noise.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engramma.errors import DataError
from engramma.features.model import file_fingerprint
from engramma.nn.blocks import ResidualBlock, Upsample, strided
from engramma.nn.weights import Shipped, in_batches, load_shipped

WEIGHTS = Path(__file__).parent / "weights"


class ShapeAutoencoder(abc.ABC):
    """What decoders ask of a model of shapes.

    Attributes
    ----------
    name : str
    n_latents : int
        Length of the code; codes are scaled to about unit variance.
    resolution : int
        Cells a side of the grids.
    """

    name: str
    n_latents: int
    resolution: int

    @abc.abstractmethod
    def encode(self, occupancy: np.ndarray) -> np.ndarray:
        """Return codes, shape x latent, of grids (n, x, y, z) of this resolution, 0 .. 1."""

    @abc.abstractmethod
    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Return grids of how likely each cell is filled, float32."""

    @abc.abstractmethod
    def identity(self) -> str:
        """Return a text that is the same only where the same items give the same results."""


class MiniShape(Shipped):
    """Variational autoencoder of occupancy grids.

    Parameters
    ----------
    latents : int
        Length of the code.
    channels : list of int
        At 1/2, 1/4 and 1/8 of the grid's size.
    resolution : int
        Cells a side, a multiple of 8.
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self, *, latents: int = 64, channels: Sequence[int] = (64, 96, 96), resolution: int = 32
    ) -> None:
        super().__init__()
        self.remember(locals())
        a, b, c = channels
        side = resolution // 8
        self.encoder = nn.Sequential(
            strided(resolution, a),
            ResidualBlock(a),
            strided(a, b),
            ResidualBlock(b),
            strided(b, c),
            ResidualBlock(c),
            nn.GroupNorm(c // 16, c),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(c * side * side, 2 * latents),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latents, c * side * side),
            nn.Unflatten(1, (c, side, side)),
            ResidualBlock(c),
            Upsample(c, b),
            ResidualBlock(b),
            Upsample(b, a),
            ResidualBlock(a),
            nn.GroupNorm(a // 16, a),
            nn.SiLU(),
            nn.Conv2d(a, 4 * resolution, 3, padding=1),
            nn.PixelShuffle(2),
        )
        #: Mean and scale that bring codes to mean 0 and variance 1; set after training.
        self.register_buffer("centre", torch.zeros(latents))
        self.register_buffer("spread", torch.ones(latents))

    def moments(self, grids: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the codes of grids (n, x, y, z), 0 .. 1."""
        mean, log_variance = self.encoder(_flat(grids)).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 4)

    def loss(self, grids: Tensor, kl: float = 1e-5) -> Tensor:
        """Cross-entropy of the cells, what is missing of the union, and the codes' divergence.

        Parameters
        ----------
        grids : Tensor, shape (n, x, y, z), 0 .. 1
        kl : float
            Weight of the divergence from a standard normal, in nats a shape.
        """
        mean, log_variance = self.moments(grids)
        codes = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        logits = self.decoder(codes).float().movedim(1, -1)
        entropy = functional.binary_cross_entropy_with_logits(logits, grids)
        # A soft intersection over union: thin parts count as much as the empty space around them.
        filled = logits.sigmoid()
        shared = (filled * grids).flatten(1).sum(dim=1)
        union = (filled + grids - filled * grids).flatten(1).sum(dim=1)
        overlap = (shared / union.clamp(min=1)).mean()
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=1)
        return 5 * entropy + (1 - overlap) + kl * divergence.mean()

    def encode(self, grids: Tensor) -> Tensor:
        """Scaled mean codes of grids (n, x, y, z), 0 .. 1."""
        mean, _ = self.moments(grids)
        return (mean - self.centre) / self.spread

    def decode(self, codes: Tensor) -> Tensor:
        """Probabilities (n, x, y, z) that cells are filled, of scaled codes."""
        return self.decoder(codes * self.spread + self.centre).sigmoid().movedim(1, -1)


class Miniature(ShapeAutoencoder):
    """The autoencoder of the solids, trained by ``scripts/train_mini_shape.py``."""

    name = "mini-shape"

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = WEIGHTS / "mini-shape.safetensors" if path is None else Path(path)
        self.network: MiniShape = load_shipped(MiniShape, self.path)
        self.n_latents = self.network.settings["latents"]
        self.resolution = self.network.settings["resolution"]

    def encode(self, occupancy: np.ndarray) -> np.ndarray:
        """Return codes, shape x latent, of grids.

        Raises
        ------
        DataError
            If grids have another size.
        """
        shape, n = np.shape(occupancy), self.resolution
        if len(shape) != 4 or shape[1:] != (n, n, n):
            raise DataError(
                f"grids have shape {shape}",
                where=f"model {self.name}",
                mend=f"give shapes x {n} x {n} x {n}",
            )
        grids = torch.as_tensor(occupancy, dtype=torch.float32)
        return in_batches(self.network.encode, grids).numpy()

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Return grids (n, resolution, resolution, resolution) of probabilities."""
        codes = torch.as_tensor(latents, dtype=torch.float32)
        return in_batches(self.network.decode, codes).numpy()

    def identity(self) -> str:
        """Hash of the weights file."""
        return f"mini-shape {file_fingerprint(self.path)}"


def _flat(grids: Tensor) -> Tensor:
    """Bring grids (n, x, y, z) to images (n, z, x, y), -1 .. 1."""
    return (2 * grids - 1).movedim(-1, 1).contiguous(memory_format=torch.channels_last)
