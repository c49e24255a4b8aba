"""Images as sequences of square patches."""

from __future__ import annotations

import numpy as np

from engramma.errors import ConfigError


def cut_patches(images: np.ndarray, side: int) -> np.ndarray:
    """Cut images into square patches, row by row.

    Parameters
    ----------
    images : ndarray, shape (n, height, width, channels)
        Of uint8, which is brought to [0, 1], or of floats.
    side : int
        Height and width of a patch in pixels; divides those of the images.

    Returns
    -------
    ndarray of float32, shape (n, n_patches, side * side * channels)
    """
    n, height, width, channels = images.shape
    if side < 1 or height % side or width % side:
        raise ConfigError(
            f"patches of {side} pixels do not tile images of {height} x {width}",
            where="side",
            mend="choose a divisor",
        )
    rows, columns = height // side, width // side
    cut = images.reshape(n, rows, side, columns, side, channels).swapaxes(2, 3)
    scale = np.float32(255 if images.dtype == np.uint8 else 1)
    return cut.reshape(n, rows * columns, -1).astype(np.float32) / scale
