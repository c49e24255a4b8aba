"""Image autoencoders: pictures as a few numbers on a coarse grid, and back.

Kingma and Welling 2014 (variational autoencoder); Rombach et al. 2022 ("High-resolution image
synthesis with latent diffusion models") for the use of one under a diffusion model. The miniature
brings 64 x 64 pixels to 4 x 8 x 8 numbers.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engramma.features.model import file_fingerprint
from engramma.nn.blocks import ResidualBlock, Upsample, image_batch, image_pixels, strided
from engramma.nn.weights import Shipped, in_batches, load_shipped

WEIGHTS = Path(__file__).parent / "weights"


class ImageAutoencoder(abc.ABC):
    """What decoders ask of a model such as the autoencoder of Stable Diffusion.

    Attributes
    ----------
    name : str
    latent_shape : tuple of int
        Channels, height and width of the latents; they are scaled to about unit variance.
    image_size : int
    """

    name: str
    latent_shape: tuple[int, int, int]
    image_size: int

    @abc.abstractmethod
    def encode(self, images: np.ndarray) -> np.ndarray:
        """Return latents, image x channel x height x width, of RGB images (uint8)."""

    @abc.abstractmethod
    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Return RGB images (n, height, width, 3) uint8."""

    @abc.abstractmethod
    def identity(self) -> str:
        """Return a text that is the same only where the same items give the same results."""


class MiniAutoencoder(Shipped):
    """Convolutional variational autoencoder with a factor of 8 between pixels and grid.

    Parameters
    ----------
    latents : int
        Channels of the grid.
    encoder, decoder : list of int
        Channels at half, a quarter and an eighth of the image's size; the decoder's from an
        eighth on.
    image_size : int
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        *,
        latents: int = 4,
        encoder: Sequence[int] = (32, 64, 128),
        decoder: Sequence[int] = (160, 112, 48),
        image_size: int = 64,
    ) -> None:
        super().__init__()
        self.remember(locals())
        a, b, c = encoder
        self.encoder = nn.Sequential(
            strided(3, a),
            nn.SiLU(),
            strided(a, b),
            ResidualBlock(b),
            ResidualBlock(b),
            strided(b, c),
            ResidualBlock(c),
            ResidualBlock(c),
            nn.GroupNorm(c // 16, c),
            nn.SiLU(),
            nn.Conv2d(c, 2 * latents, 1),
        )
        a, b, c = decoder
        self.decoder = nn.Sequential(
            nn.Conv2d(latents, a, 3, padding=1),
            ResidualBlock(a),
            ResidualBlock(a),
            ResidualBlock(a),
            Upsample(a, b),
            ResidualBlock(b),
            ResidualBlock(b),
            Upsample(b, c),
            ResidualBlock(c),
            nn.GroupNorm(c // 16, c),
            nn.SiLU(),
            nn.Conv2d(c, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )
        #: Mean and scale that bring latents to mean 0 and variance 1; set after training.
        self.register_buffer("centre", torch.zeros(latents))
        self.register_buffer("spread", torch.ones(latents))

    def moments(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latents of images (n, 3, size, size), -1 .. 1."""
        mean, log_variance = self.encoder(batch).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 4)

    def loss(self, batch: Tensor, kl: float = 1e-5) -> Tensor:
        """Squared error of the reconstruction, and what the latents tell beyond their prior.

        Parameters
        ----------
        batch : Tensor, shape (n, 3, size, size), -1 .. 1
        kl : float
            Weight of the divergence from a standard normal, in nats a picture, against the mean
            squared error a pixel (full scale 2).
        """
        mean, log_variance = self.moments(batch)
        latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        error = functional.mse_loss(self.decoder(latents).float(), batch)
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).flatten(1).sum(dim=1)
        return error + kl * divergence.mean()

    def encode(self, batch: Tensor) -> Tensor:
        """Scaled mean latents of images (n, 3, size, size), -1 .. 1."""
        mean, _ = self.moments(batch)
        return (mean - self.centre[:, None, None]) / self.spread[:, None, None]

    def decode(self, latents: Tensor) -> Tensor:
        """Images (n, 3, size, size), about -1 .. 1, of scaled latents."""
        return self.decoder(latents * self.spread[:, None, None] + self.centre[:, None, None])


class Miniature(ImageAutoencoder):
    """The autoencoder of the scenes, trained by ``scripts/train_mini_autoencoder.py``."""

    name = "mini-vae"

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = WEIGHTS / "mini-autoencoder.safetensors" if path is None else Path(path)
        self.network: MiniAutoencoder = load_shipped(MiniAutoencoder, self.path)
        self.image_size = self.network.settings["image_size"]
        side = self.image_size // 8
        self.latent_shape = (self.network.settings["latents"], side, side)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Return latents, image x 4 x 8 x 8, of images of the right size."""
        return in_batches(lambda x: self.network.encode(image_batch(x)), images).numpy()

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Return RGB images (n, size, size, 3) uint8."""
        batch = torch.as_tensor(latents, dtype=torch.float32)
        return in_batches(lambda z: image_pixels(self.network.decode(z)), batch).numpy()

    def identity(self) -> str:
        """Hash of the weights file."""
        return f"mini-vae {file_fingerprint(self.path)}"
