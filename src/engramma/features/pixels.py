"""The simplest descriptions of an image: its pixels, and which colours it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from engramma.errors import ConfigError
from engramma.features.model import FeatureModel, feature_model, to_batch
from engramma.features.pooling import Activation

#: Weights of red, green and blue in luma (ITU-R BT.709).
LUMA = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
#: Linear sRGB to CIE XYZ, and the white point D65 (IEC 61966-2-1).
RGB_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
WHITE = np.array([0.95047, 1.0, 1.08883])


def luminance(image: np.ndarray) -> np.ndarray:
    """Luma of an RGB image, 0 to 1, float32, shape (height, width)."""
    return (image.astype(np.float32) / 255.0) @ LUMA


def square(image: np.ndarray, size: int) -> np.ndarray:
    """Cut the central square out of an RGB image and resize it to size x size, antialiased."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    crop = Image.fromarray(np.ascontiguousarray(image[top : top + side, left : left + side]))
    return np.asarray(crop.resize((size, size), Image.Resampling.BICUBIC))


def to_lab(image: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65, 2 degrees) of an sRGB image, shape (height, width, 3).

    CIE 15:2004, section 8.2.1.
    """
    value = image.astype(np.float64) / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = linear @ RGB_TO_XYZ.T / WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


class Pixels(FeatureModel):
    """The central square of the image, downsampled.

    Parameters
    ----------
    size : int
        Rows and columns that are kept.
    """

    name = "pixels"
    pool = "flatten"
    layers = ("rgb", "luminance")
    default_layers = ("rgb",)

    def __init__(self, size: int = 32) -> None:
        if size < 1:
            raise ConfigError(f"an image of {size} pixels has no features", mend="use size >= 1")
        self.size = size

    def identity(self) -> str:
        """Size of the image that is kept."""
        return f"pixels size={self.size}"

    def activations(self, items: Sequence[Any], layers: Sequence[str]) -> dict[str, Activation]:
        """Return maps: ``rgb`` (n, 3, size, size) and ``luminance`` (n, 1, size, size), 0 to 1."""
        small = [square(image, self.size) for image in items]
        maps = {
            "rgb": to_batch([np.moveaxis(s, -1, 0) for s in small]) / 255.0,
            "luminance": to_batch([luminance(s)[None] for s in small]),
        }
        return {name: maps[name] for name in layers}


class Colour(FeatureModel):
    """How much of each colour the image holds, wherever it lies.

    A histogram over L* x a* x b*, in which a perceived difference is about the same everywhere;
    the root of each share is kept, so that Euclidean distance is the Hellinger distance.

    Parameters
    ----------
    bins : tuple of int
        Bins along L* (0 to 100), a* and b* (-100 to 100).
    """

    name = "colour"
    layers = ("histogram",)
    single_layer = True

    def __init__(self, bins: tuple[int, int, int] = (4, 8, 8)) -> None:
        self.bins = bins

    def identity(self) -> str:
        """Bins of the histogram."""
        return f"colour bins={self.bins}"

    def activations(self, items: Sequence[Any], layers: Sequence[str]) -> dict[str, Activation]:
        """Return vectors: ``histogram`` (n, product of bins)."""
        rows = [self._histogram(image) for image in items] if layers else []
        return {name: to_batch(rows) for name in layers}

    def _histogram(self, image: np.ndarray) -> np.ndarray:
        low, high = np.array([0, -100, -100]), np.array([100, 100, 100])
        lab = to_lab(square(image, 64)).reshape(-1, 3)
        places = ((lab - low) / (high - low) * self.bins).astype(int)
        places = np.clip(places, 0, np.array(self.bins) - 1)
        flat = np.ravel_multi_index(tuple(places.T), self.bins)
        return np.sqrt(np.bincount(flat, minlength=int(np.prod(self.bins))) / len(flat))


@feature_model("pixels", "image", "the image itself, 32 x 32 pixels")
def _pixels() -> FeatureModel:
    return Pixels()


@feature_model("colour", "image", "histogram of the colours in CIE L*a*b*")
def _colour() -> FeatureModel:
    return Colour()
