"""Views of meshes that turn on a table, with depth and mask: a z-buffer over many views at once.

A camera looks at the origin from a little above, and solids of radius 1 just fit into the picture.
Faces are shaded by Lambert's law, with light from the upper left behind the camera.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engramma.errors import ConfigError
from engramma.worlds.meshes import Mesh

#: Distance of the camera from the origin, and share of the picture that the unit ball takes.
DISTANCE, FILL = 3.5, 0.96
#: Direction to the light: right, up, and towards the camera.
LIGHT = np.array([-0.45, 0.6, 0.66])
AMBIENT = 0.38
BACKGROUND = 0.82
#: Fractions of a pixel that are drawn a side.
FINE = 2
#: Triangles drawn at once.
_BLOCK = 40_000


class Views(NamedTuple):
    """What is seen of one mesh.

    ``images`` (views, size, size, 3) uint8; ``depth`` (views, size, size) float32, distance from
    the camera along its axis, infinite where nothing is; ``masks`` (views, size, size) bool,
    where the mesh covers at least half a pixel.
    """

    images: np.ndarray
    depth: np.ndarray
    masks: np.ndarray


def turntable(
    mesh: Mesh, azimuths: np.ndarray, *, size: int = 64, elevation: float = 20.0
) -> Views:
    """Render a mesh at angles of a turntable.

    Parameters
    ----------
    mesh : Mesh
        Within the unit ball; z points up.
    azimuths : ndarray, shape (views,)
        Degrees by which the table has turned, counter-clockwise as seen from above; at 0 the
        camera looks along -x.
    size : int
        Pixels a side.
    elevation : float
        Degrees by which the camera looks down.

    Raises
    ------
    ConfigError
        If the size or the elevation is out of range.
    """
    if size < 8 or not -90 < elevation < 90:
        raise ConfigError(
            f"there is no view with size={size} and elevation={elevation:g}",
            mend="use size >= 8 and an elevation between -90 and 90 degrees",
        )
    azimuths = np.atleast_1d(np.asarray(azimuths, dtype=float))
    fine = FINE * size
    block = max(1, _BLOCK // len(mesh.faces))
    parts = [
        _draw(mesh, cameras(azimuths[i : i + block], elevation), fine)
        for i in range(0, len(azimuths), block)
    ]
    inverse, colours = (np.concatenate(p) for p in zip(*parts, strict=True))
    covered = _cells(inverse > 0, size).sum(axis=(2, 4))
    mean = _cells(inverse, size).sum(axis=(2, 4)) / np.maximum(covered, 1)
    masks = covered >= FINE**2 / 2
    with np.errstate(divide="ignore"):
        depth = np.where(masks, 1 / mean, np.inf)
    image = _cells(colours, size).mean(axis=(2, 4))
    return Views((image * 255 + 0.5).astype(np.uint8), depth.astype(np.float32), masks)


def cameras(azimuths: np.ndarray, elevation: float) -> np.ndarray:
    """Axes of the camera (right, up, towards it) as the turned mesh sees them, (views, 3, 3)."""
    turn, up = np.deg2rad(azimuths), np.deg2rad(elevation)
    cos, sin, zero = np.cos(turn), np.sin(turn), np.zeros(len(turn))
    right = np.stack([sin, cos, zero], axis=1)
    flat = np.stack([cos, -sin, zero], axis=1)
    above = np.array([0, 0, 1.0])
    return np.stack(
        [right, np.cos(up) * above - np.sin(up) * flat, np.cos(up) * flat + np.sin(up) * above],
        axis=1,
    )


def focal_length(size: int) -> float:
    """Pixels that a unit of width at unit distance takes."""
    return 0.5 * FILL * size * float(np.sqrt(DISTANCE**2 - 1))


def _draw(mesh: Mesh, axes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Inverse depth (views, size, size), 0 where nothing is, and colours (.., 3)."""
    seen = mesh.vertices @ axes.transpose(0, 2, 1)
    inverse = 1 / (DISTANCE - seen[..., 2])
    focal = focal_length(size)
    across = size / 2 + focal * seen[..., 0] * inverse
    down = size / 2 - focal * seen[..., 1] * inverse
    x, y, w = (part[:, mesh.faces] for part in (across, down, inverse))
    # Twice the signed area on the screen (y down): only what faces the camera is negative.
    area = (x[..., 1] - x[..., 0]) * (y[..., 2] - y[..., 0])
    area -= (x[..., 2] - x[..., 0]) * (y[..., 1] - y[..., 0])
    view, face = np.nonzero(area < -1e-9)
    x, y, w, area = (part[view, face] for part in (x, y, w, area))
    pixel, value, triangle = _fill(x, y, w, area, size)
    pixel = pixel + view[triangle] * size**2
    buffer = np.zeros(len(axes) * size**2)
    np.maximum.at(buffer, pixel, value)
    nearest = value == buffer[pixel]
    pixel, triangle = pixel[nearest], triangle[nearest]
    light = axes.transpose(0, 2, 1) @ LIGHT
    facing = np.maximum(np.einsum("tc,tc->t", mesh.normals[face], light[view]), 0)
    shade = mesh.colours[face] * (AMBIENT + (1 - AMBIENT) * facing)[:, None]
    colours = np.full((len(buffer), 3), BACKGROUND)
    colours[pixel] = np.minimum(shade[triangle], 1)
    shape = (len(axes), size, size)
    return buffer.reshape(shape), colours.reshape(*shape, 3)


def _fill(
    x: np.ndarray, y: np.ndarray, w: np.ndarray, area: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels whose centres triangles (n, 3) cover, inverse depth there, and which triangle."""
    left, right = (np.clip(f(x, axis=1), 0, size) for f in (np.min, np.max))
    top, bottom = (np.clip(f(y, axis=1), 0, size) for f in (np.min, np.max))
    column, row = np.ceil(left - 0.5).astype(int), np.ceil(top - 0.5).astype(int)
    width = np.maximum(np.floor(right - 0.5).astype(int) - column + 1, 0)
    height = np.maximum(np.floor(bottom - 0.5).astype(int) - row + 1, 0)
    count = width * height
    triangle = np.repeat(np.arange(len(x)), count)
    place = np.arange(len(triangle)) - np.repeat(np.cumsum(count) - count, count)
    down, across = np.divmod(place, width[triangle])
    px = column[triangle] + across
    py = row[triangle] + down
    # Barycentric coordinates are linear on the screen, and so is inverse depth.
    weights = []
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        a, b = (y[:, i] - y[:, j]) / area, (x[:, j] - x[:, i]) / area
        c = -(a * (x[:, i] - 0.5) + b * (y[:, i] - 0.5))
        weights.append(a[triangle] * px + b[triangle] * py + c[triangle])
    # A little beyond the edges, so that there are no cracks between faces.
    inside = (weights[0] > -1e-6) & (weights[1] > -1e-6) & (weights[2] > -1e-6)
    value = sum(weights[k][inside] * w[triangle[inside], k] for k in range(3))
    return (py * size + px)[inside], np.asarray(value), triangle[inside]


def _cells(fine: np.ndarray, size: int) -> np.ndarray:
    """View fine pixels as (views, size, FINE, size, FINE, ...)."""
    return fine.reshape(len(fine), size, FINE, size, FINE, *fine.shape[3:])
