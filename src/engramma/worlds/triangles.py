"""Three clusters of dots on black, which make an equilateral triangle or another one.

Each corner is a cluster of eight dots within a pixel of it, in pairs that lie opposite each other,
so that the mean of a cluster is its corner. Half of the images are equilateral, up to corners being
rounded towards zero; in the others the third corner is anywhere. As Goyal et al. (2021) and Zeng et
al. (2023) generate them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engramma.errors import ConfigError
from engramma.nn.patches import cut_patches

#: Pixels around a dot's centre that belong to it.
DOT = 2


@dataclass(frozen=True, eq=False)
class Triangles:
    """Images of three clusters.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size, 1)
    equilateral : ndarray of bool, shape (n,)
    corners : ndarray of int64, shape (n, 3, 2)
        Column and row.
    """

    images: np.ndarray
    equilateral: np.ndarray
    corners: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def patches(self, side: int = 32) -> np.ndarray:
        """Cut images into squares: (n, n_patches, side * side), float32 in [0, 1]."""
        return cut_patches(self.images, side)


def make_triangles(
    n: int, *, rng: np.random.Generator, size: int = 64, dots: int = 8, jitter: int = 1
) -> Triangles:
    """Draw triangles.

    Parameters
    ----------
    n : int
    rng : numpy.random.Generator
    size : int
        Height and width in pixels.
    dots : int
        Of a cluster; even.
    jitter : int
        Pixels by which a dot lies off its corner, at most, along rows and columns.
    """
    if dots < 2 or dots % 2:
        raise ConfigError(f"clusters are made of pairs of dots, not of {dots}", where="dots")
    if size < 4 * (jitter + DOT) or jitter < 0:
        raise ConfigError(
            f"clusters with a jitter of {jitter} do not fit into {size} pixels", where="size"
        )
    equilateral = rng.random(n) < 0.5
    corners = np.empty((n, 3, 2), np.int64)
    todo = np.arange(n)
    while len(todo):
        # Bounds are those of the published generator, the last pixel included.
        corners[todo] = rng.integers(jitter, size - jitter + 1, (len(todo), 3, 2))
        turn = todo[equilateral[todo]]
        corners[turn, 2] = third_corner(corners[turn, 0], corners[turn, 1])
        outside = ((corners[todo] < jitter) | (corners[todo] > size - jitter)).any(axis=(1, 2))
        same = (corners[todo, 0] == corners[todo, 1]).all(axis=1)
        todo = todo[outside | same]
    off = rng.integers(-jitter, jitter + 1, (n, 3, dots // 2, 2))
    centres = corners[:, :, None] + np.concatenate([off, -off], axis=2)
    return Triangles(_draw(centres.reshape(n, -1, 2), size), equilateral, corners)


def third_corner(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Turn the way from the first corner to the second by 60 degrees; round towards zero."""
    across, down = np.moveaxis(second - first, -1, 0)
    cos, sin = np.cos(np.pi / 3), np.sin(np.pi / 3)
    turned = np.stack([cos * across + sin * down, cos * down - sin * across], axis=-1)
    return np.trunc(first + turned).astype(np.int64)


def _draw(centres: np.ndarray, size: int) -> np.ndarray:
    """White dots at centres (n x dot x 2); what lies outside the image is cut off."""
    side = np.arange(-DOT, DOT + 1)
    offsets = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    offsets = offsets[(offsets**2).sum(axis=1) < (DOT + 0.5) ** 2]
    images = np.zeros((len(centres), size + 4 * DOT, size + 4 * DOT), np.uint8)
    at = centres[:, :, None] + offsets + 2 * DOT
    images[np.arange(len(centres))[:, None, None], at[..., 1], at[..., 0]] = 255
    return images[:, 2 * DOT : -2 * DOT, 2 * DOT : -2 * DOT, None]
