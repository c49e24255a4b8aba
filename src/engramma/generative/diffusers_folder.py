"""Autoencoders from folders of the diffusers library, and how its parts are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engramma.errors import ConfigError, DataError, MissingPackageError
from engramma.features.folders import read_json, require_weights
from engramma.features.huggingface import folder_fingerprint, transformers
from engramma.features.pretrained import (
    all_batches,
    check_images,
    library_class,
    read_network,
)
from engramma.generative.autoencoder import ImageAutoencoder
from engramma.nn.blocks import image_batch, image_pixels


def diffusers() -> Any:
    """Import diffusers.

    Raises
    ------
    MissingPackageError
        If it, or transformers, is not installed.
    """
    transformers()
    try:
        import diffusers
    except ImportError as error:
        raise MissingPackageError(
            "the package diffusers is not installed", mend="pip install 'engramma[diffusion]'"
        ) from error
    return diffusers


def read_part(folder: Path, kind: str) -> Any:
    """Read a network of diffusers, after a look at what the folder says it holds.

    Raises
    ------
    ConfigError
        If there is none, it is of another kind, or its weights are not safe to read.
    """
    require_weights(folder)
    found = read_json(folder / "config.json")
    if found.get("_class_name") != kind:
        held = found.get("_class_name") or f"a model of type {found.get('model_type')!r}"
        raise ConfigError(
            f"this folder holds {held}, and {kind} is needed",
            where=str(folder),
            mend="point to the folder of a pipeline with such a part, or to the part",
        )
    return read_network(library_class(diffusers(), kind), folder)


class AutoencoderFolder(ImageAutoencoder):
    """The ``AutoencoderKL`` of a pipeline's folder, or of a folder of its own.

    Latents are means of the encoder's distribution, scaled as the diffusion model expects them.

    Parameters
    ----------
    source : str or path
    image_size : int, optional
        Side of the images in pixels, a multiple of 8 for the usual models; by default the one
        that it was trained on. Images of another size are resized.
    """

    def __init__(self, source: str | Path, *, image_size: int | None = None) -> None:
        folder = Path(source).expanduser()
        self.name = folder.resolve().name
        self.folder = folder / "vae" if (folder / "vae").is_dir() else folder
        self.network = read_part(self.folder, "AutoencoderKL")
        config = self.network.config
        factor = 2 ** (len(config.block_out_channels) - 1)
        self.image_size = int(image_size or config.sample_size)
        if self.image_size % factor:
            raise ConfigError(f"image_size={self.image_size} is no multiple of {factor}")
        side = self.image_size // factor
        self.latent_shape = (int(config.latent_channels), side, side)
        self._scale = float(config.scaling_factor)
        self._shift = float(config.shift_factor or 0)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Return latents, image x channel x height x width."""
        check_images(images)
        size = (self.image_size, self.image_size)

        def run(batch: np.ndarray) -> Tensor:
            pixels = image_batch(batch)
            if pixels.shape[2:] != size:
                pixels = functional.interpolate(pixels, size, mode="bilinear", antialias=True)
            mean = self.network.encode(pixels).latent_dist.mean
            return (mean - self._shift) * self._scale

        return all_batches(run, images, size=4)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Return RGB images (n, size, size, 3) uint8.

        Raises
        ------
        DataError
            If latents have another number of channels.
        """
        batch = torch.as_tensor(latents, dtype=torch.float32)
        if batch.ndim != 4 or batch.shape[1] != self.latent_shape[0]:
            raise DataError(
                f"latents have shape {tuple(batch.shape)}",
                where=f"model {self.name}",
                mend=f"give image x {' x '.join(map(str, self.latent_shape))}",
            )

        def run(part: Tensor) -> Tensor:
            return image_pixels(self.network.decode(part / self._scale + self._shift).sample)

        return all_batches(run, batch, size=4).astype(np.uint8)

    def identity(self) -> str:
        """Hash of the folder, and the size of images."""
        return f"AutoencoderKL {folder_fingerprint(self.folder)} size={self.image_size}"
