"""Orientation energy: what the simple and complex cells of early visual cortex respond to.

Adelson & Bergen 1985, J. Opt. Soc. Am. A 2, 284 (energy of a quadrature pair); Kay et al. 2008,
Nature 452, 352 (as an encoding model of fMRI); Heeger 1992, Vis. Neurosci. 9, 181 (normalisation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from engramma.errors import ConfigError
from engramma.features.model import FeatureModel, feature_model, to_batch
from engramma.features.pixels import luminance, square
from engramma.features.pooling import Activation

#: Standard deviation of a Gabor's envelope in periods of its wave, for a bandwidth of one octave:
#: sqrt(ln 2 / 2) / pi * (2 ** b + 1) / (2 ** b - 1) with b = 1.
ENVELOPE = float(np.sqrt(np.log(2) / 2) / np.pi * 3)


class GaborBank(FeatureModel):
    """Quadrature Gabor filters at several spatial frequencies and orientations.

    A filter is a Gaussian in the half plane of spatial frequencies, so that its response is
    complex: real and imaginary part are the even and the odd filter of a quadrature pair, and the
    modulus is the root of their energy, which does not depend on phase. It is 1 for a grating of
    the preferred frequency and orientation whose luminance swings by ±1. Then each response r is
    divided by ``semisaturation`` plus the mean r of all orientations at its frequency and place.

    Parameters
    ----------
    frequencies : sequence of float
        Cycles per image.
    orientations : int
        Evenly spaced over 180 degrees. Orientation 0 is a wave that runs from left to right
        (vertical bars); angles grow counter-clockwise.
    size : int
        The central square of each image is resized to size x size pixels.
    semisaturation : float or None
        In units of luminance contrast; None: no normalisation.
    """

    name = "gabor"
    pool = "grid8"
    layers = ("energy",)
    single_layer = True

    def __init__(
        self,
        frequencies: Sequence[float] = (2, 4, 8, 16, 32),
        orientations: int = 8,
        size: int = 128,
        semisaturation: float | None = 0.1,
    ) -> None:
        if not frequencies or min(frequencies) <= 0 or max(frequencies) > size / 3:
            raise ConfigError(
                f"Gabor frequencies {tuple(frequencies)} do not fit an image of {size} pixels",
                mend="use frequencies above 0 and up to a third of the size",
            )
        self.frequencies = tuple(float(f) for f in frequencies)
        self.orientations = orientations
        self.size = size
        self.semisaturation = semisaturation
        self.margin = size // 4
        self._spectra = self._filters(size + 2 * self.margin)

    def identity(self) -> str:
        """All parameters of the bank."""
        return (
            f"gabor frequencies={self.frequencies} orientations={self.orientations} "
            f"size={self.size} semisaturation={self.semisaturation}"
        )

    def _filters(self, width: int) -> torch.Tensor:
        """Spectra, shape (n_frequencies, n_orientations, width, width)."""
        axis = torch.fft.fftfreq(width, d=1 / self.size, dtype=torch.float64)  # cycles per image
        angles = torch.arange(self.orientations, dtype=torch.float64) * torch.pi
        angles = angles / self.orientations
        centre = torch.tensor(self.frequencies, dtype=torch.float64)[:, None, None, None]
        right = axis[None, :] - centre * angles.cos()[:, None, None]
        # Rows of an image run downwards, angles upwards.
        down = axis[:, None] + centre * angles.sin()[:, None, None]
        spread = centre / (2 * torch.pi * ENVELOPE)
        spectra = 2 * torch.exp(-(right**2 + down**2) / (2 * spread**2))
        spectra[..., 0, 0] = 0  # no response to a uniform image
        return spectra.float()

    def energy(self, images: torch.Tensor) -> torch.Tensor:
        """Root of the energy of each filter, before normalisation.

        Parameters
        ----------
        images : tensor, shape (n, size, size)
            Luminance.

        Returns
        -------
        tensor, shape (n, n_frequencies, n_orientations, size, size)
        """
        edge = self.margin
        centred = images - images.mean(dim=(1, 2), keepdim=True)
        # Mirrored edges: the transform is periodic, and a jump there would look like a line.
        padded = F.pad(centred[:, None], (edge,) * 4, mode="reflect")[:, 0]
        spectrum = torch.fft.fft2(padded)
        inside = slice(edge, edge + self.size)
        responses = [
            torch.fft.ifft2(spectrum[:, None] * filters)[..., inside, inside].abs()
            for filters in self._spectra
        ]
        return torch.stack(responses, dim=1)

    def activations(self, items: Sequence[Any], layers: Sequence[str]) -> dict[str, Activation]:
        """Return maps: ``energy`` (n, n_frequencies x n_orientations, size, size)."""
        rows = [luminance(square(image, self.size)) for image in items]
        energy = self.energy(to_batch(rows))
        if self.semisaturation is not None:
            energy = energy / (self.semisaturation + energy.mean(dim=2, keepdim=True))
        return {name: energy.flatten(1, 2) for name in layers}


@feature_model("gabor", "image", "orientation energy, 5 spatial frequencies x 8 orientations")
def _gabor() -> FeatureModel:
    return GaborBank()
