"""Backgrounds of scenes: indoor and outdoor places, painted over whole images at once.

Each kind has a ground that begins at an edge (the horizon, or the foot of a wall), which a
function of place and shape parameters gives; what is painted and how far it is both follow it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: ``edge(x, shape)``: the height (0 top .. 1) at which the ground begins, at each x.
Edge = Callable[[np.ndarray, np.ndarray], np.ndarray]
#: ``painter(x, y, texture, shape, edge) -> image``: x is (scenes, 1, width), y (scenes, height,
#: 1), texture about -1 .. 1 (scenes, height, width), shape four numbers in -1 .. 1 as
#: (4, scenes, 1, 1), edge as given by `Edge`; the image is (3, scenes, height, width).
Painter = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
_PAINTERS: dict[str, Painter] = {}
_EDGES: dict[str, Edge] = {}
#: Whether each kind is indoors.
INDOORS: dict[str, bool] = {}
#: Distance of walls, sky and horizon, and of the ground at the lower edge of the image.
FAR, NEAR = 10.0, 2.0
Colour = tuple[float, float, float]


def _background(name: str, *, indoors: bool, edge: Edge) -> Callable[[Painter], Painter]:
    def register(painter: Painter) -> Painter:
        _PAINTERS[name], _EDGES[name], INDOORS[name] = painter, edge, indoors
        return painter

    return register


def _level(height: float, range_: float) -> Edge:
    """Return a straight edge whose height the first shape parameter shifts."""
    return lambda x, s: height + range_ * s[0] + 0 * x


def paint(
    kind: str, texture: np.ndarray, shape: np.ndarray, shift: np.ndarray | None = None
) -> np.ndarray:
    """Paint backgrounds of one kind.

    Parameters
    ----------
    kind : str
        One of `BACKGROUNDS`.
    texture : ndarray, shape (scenes, size, size)
        Of about unit standard deviation; moves with the camera only if the caller moves it.
    shape : ndarray, shape (scenes, 4)
        Shape parameters, -1 .. 1.
    shift : ndarray, shape (scenes, 2), optional
        How far the camera has moved right and down, in shares of the image: what is seen at x is
        what was at x + shift.

    Returns
    -------
    ndarray of float32, shape (3, scenes, size, size)
        About 0 .. 1; texture may lead slightly beyond.
    """
    x, y, s = _coordinates(len(texture), texture.shape[-1], shape, shift)
    return _PAINTERS[kind](x, y, texture.astype(np.float32, copy=False), s, _EDGES[kind](x, s))


def depth(kind: str, size: int, shape: np.ndarray, shift: np.ndarray | None = None) -> np.ndarray:
    """Distance to what `paint` paints with the same parameters.

    Walls and sky are at `FAR`. The ground is a plane seen in perspective: its inverse distance
    grows linearly from 1 / `FAR` at its edge to 1 / `NEAR` at the lower edge of the image, and
    further below it where the camera has moved down, up to 1.

    Returns
    -------
    ndarray of float32, shape (scenes, size, size)
        From 1 (near) to 10.
    """
    x, y, s = _coordinates(len(shape), size, shape, shift)
    edge = _EDGES[kind](x, s)
    steep = (1 / NEAR - 1 / FAR) / (1 - edge)
    inverse = np.maximum(y - edge, 0) * steep
    inverse += 1 / FAR
    return np.reciprocal(np.minimum(inverse, 1, out=inverse), out=inverse)


def _coordinates(
    n: int, size: int, shape: np.ndarray, shift: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates across and down, and shape parameters, to broadcast over images."""
    moved = np.zeros((n, 2), np.float32) if shift is None else shift
    line = (np.arange(size) + 0.5) / size
    x = (line + moved[:, :1]).astype(np.float32)[:, None, :]
    y = (line + moved[:, 1:]).astype(np.float32)[:, :, None]
    return x, y, shape.T.astype(np.float32)[:, :, None, None]


def pink_noise(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a periodic texture with a 1/f amplitude spectrum and unit standard deviation.

    Natural images have about this spectrum (Field, *J. Opt. Soc. Am. A* 4, 1987).
    """
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    f[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) / f, s=(size, size))
    return (noise / noise.std()).astype(np.float32)


def windows(texture: np.ndarray, corner: np.ndarray, size: int) -> np.ndarray:
    """Cut windows of a periodic texture whose upper left corners are given (row, column)."""
    period = len(texture)
    rows = (corner[:, :1] + np.arange(size)) % period
    columns = (corner[:, 1:] + np.arange(size)) % period
    return texture[rows[:, :, None], columns[:, None, :]]


def _mix(where: np.ndarray, first: Colour, second: Colour) -> np.ndarray:
    """Blend from the second colour (``where`` 0) to the first (1), over whole images."""
    where = np.clip(where, 0, 1)
    return np.stack(
        [where * np.float32(a - b) + np.float32(b) for a, b in zip(first, second, strict=True)]
    )


def _blend(image: np.ndarray, where: np.ndarray, over: np.ndarray | Colour) -> None:
    """Paint a colour or an image over another where ``where`` is 1."""
    where = np.clip(where, 0, 1)
    for channel, colour in zip(image, over, strict=True):
        change = colour - channel
        change *= where
        channel += change


def _inside(x: np.ndarray, y: np.ndarray, left: np.ndarray | float, top: np.ndarray | float,
            width: float, height: float) -> np.ndarray:  # fmt: skip
    """Distance to the border of a rectangle, positive inside."""
    across = np.minimum(x - left, left + width - x)
    return np.minimum(across, np.minimum(y - top, top + height - y))


def _wave(x: np.ndarray, period: np.ndarray | float) -> np.ndarray:
    """Rise and fall between 0 and 1 in straight lines, 0 at multiples of the period."""
    return 1 - np.abs((x / period) % 1 * 2 - 1)


# -- indoors -------------------------------------------------------------------------------


@_background("room", indoors=True, edge=_level(0.72, 0.06))
def _room(
    x: np.ndarray, y: np.ndarray, texture: np.ndarray, s: np.ndarray, edge: np.ndarray
) -> np.ndarray:
    floor = (y - edge) * 40
    image = _mix(floor + 0 * texture, (0.5, 0.4, 0.31), (0.76, 0.72, 0.64))
    left = 0.12 + 0.1 * (s[1] + 1)
    inside = _inside(x, y, left, 0.1, 0.28, 0.32)
    _blend(image, inside * 60 + 1, (0.55, 0.5, 0.45))
    _blend(image, (inside - 0.025) * 60, (0.75, 0.84, 0.9))
    _blend(image, 1 - np.abs(floor) / 1.6, (0.4, 0.36, 0.32))
    image += 0.03 * texture
    return image


@_background("kitchen", indoors=True, edge=_level(0.8, 0.04))
def _kitchen(
    x: np.ndarray, y: np.ndarray, texture: np.ndarray, s: np.ndarray, edge: np.ndarray
) -> np.ndarray:
    image = _mix(0.5 + 0.15 * texture, (0.84, 0.86, 0.85), (0.74, 0.77, 0.78))
    pitch = 0.22 + 0.04 * s[3]
    for along in (x + 0.1 * s[1], y + 0.1 * s[2]):
        _blend(image, 0.5 - 0.5 * _wave(along, pitch) * pitch / 0.025, (0.6, 0.63, 0.65))
    top = edge - 0.3
    _blend(image, (y - top) * 40, (0.72, 0.6, 0.45))
    door = np.abs(_wave(x + 0.2 * s[2], 0.42) - 0.06) * 0.21
    _blend(image, (1 - door / 0.02) * np.clip((y - top) * 40, 0, 1), (0.55, 0.44, 0.32))
    _blend(image, 1 - np.abs(y - top) / 0.035, (0.5, 0.46, 0.44))
    _blend(image, (y - edge) * 40, (0.46, 0.38, 0.34))
    return image


@_background("library", indoors=True, edge=_level(0.8, 0.05))
def _library(
    x: np.ndarray, y: np.ndarray, texture: np.ndarray, s: np.ndarray, edge: np.ndarray
) -> np.ndarray:
    shelf, along = 0.26 + 0.02 * s[1], x + 0.1 * s[2]
    down = edge - y + 0.03
    row = np.floor(down / shelf)
    tone = 0.5 + 0.3 * np.sin(27 * along + 2.1 * row) + 0.2 * np.sin(43 * along + 5 * row)
    image = _mix(tone + 0.1 * texture, (0.6, 0.42, 0.36), (0.34, 0.4, 0.46))
    height = (down / shelf - row) * shelf - shelf + 0.05 + 0.015 * np.sin(21 * along + row)
    _blend(image, height * 40, (0.28, 0.21, 0.18))
    _blend(image, 1.4 - _wave(down, shelf) * shelf / 0.05, (0.47, 0.33, 0.22))
    _blend(image, 1.4 - _wave(along + 0.2, 0.8) * 0.4 / 0.035, (0.47, 0.33, 0.22))
    _blend(image, (y - edge) * 40, (0.52, 0.36, 0.3))
    image += 0.02 * texture
    return image


@_background("bathroom", indoors=True, edge=_level(0.78, 0.05))
def _bathroom(
    x: np.ndarray, y: np.ndarray, texture: np.ndarray, s: np.ndarray, edge: np.ndarray
) -> np.ndarray:
    tiled = (y - 0.34 - 0.06 * s[1]) * 30
    image = _mix(tiled + 0 * texture, (0.55, 0.74, 0.78), (0.88, 0.9, 0.88))
    _blend(image, 1 - np.abs(tiled) / 1.2, (0.36, 0.56, 0.62))
    middle = 0.72 + 0.1 * s[2]
    mirror = 1 - np.hypot((x - middle) / 0.16, (y - 0.22) / 0.19)
    _blend(image, mirror * 12 + 1, (0.6, 0.6, 0.6))
    _blend(
        image, mirror * 12, _mix(0.5 + 3 * (x - middle) + y, (0.82, 0.88, 0.92), (0.7, 0.78, 0.84))
    )
    left = 0.02 + 0.06 * s[3]
    tub = _inside(x, y, left, edge - 0.2, 0.55, 0.23)
    _blend(image, tub * 40 + 1, (0.96, 0.97, 0.97))
    _blend(image, 1 - np.abs(y - edge + 0.17) / 0.025 - 9 * (tub < 0), (0.8, 0.83, 0.85))
    _blend(image, np.minimum((y - edge) * 40, 0.5 - 40 * tub), (0.68, 0.71, 0.72))
    image += 0.02 * texture
    return image


# -- outdoors ------------------------------------------------------------------------------


def _sky(y: np.ndarray, texture: np.ndarray) -> np.ndarray:
    return _mix(0.8 + 0.25 * texture - 1.2 * y, (0.93, 0.95, 0.97), (0.55, 0.72, 0.88))


@_background(
    "field",
    indoors=False,
    edge=lambda x, s: 0.5 + 0.06 * s[0] + 0.07 * np.sin(5 * x + 3 * s[1]),
)
def _field(
    x: np.ndarray, y: np.ndarray, texture: np.ndarray, s: np.ndarray, edge: np.ndarray
) -> np.ndarray:
    image = _sky(y, texture)
    grass = _mix(0.5 + 0.25 * texture, (0.45, 0.6, 0.28), (0.33, 0.48, 0.2))
    _blend(image, (y - edge) * 40, grass)
    return image


@_background("beach", indoors=False, edge=_level(0.38, 0.05))
def _beach(
    x: np.ndarray, y: np.ndarray, texture: np.ndarray, s: np.ndarray, edge: np.ndarray
) -> np.ndarray:
    image = _mix(y * 2 + 0.1 * texture, (0.85, 0.9, 0.95), (0.5, 0.7, 0.9))
    _blend(image, (y - edge) * 60, _mix(0.5 + 0.4 * texture, (0.24, 0.5, 0.66), (0.14, 0.36, 0.56)))
    shore = y - (0.64 + 0.05 * s[1] + 0.03 * np.sin(9 * x + 3 * s[2]))
    _blend(image, shore * 40, _mix(0.5 + 0.3 * texture, (0.88, 0.8, 0.61), (0.79, 0.71, 0.52)))
    _blend(image, 1 - np.abs(shore) * 40, (0.95, 0.96, 0.96))
    return image


@_background("forest", indoors=False, edge=_level(0.74, 0.06))
def _forest(
    x: np.ndarray, y: np.ndarray, texture: np.ndarray, s: np.ndarray, edge: np.ndarray
) -> np.ndarray:
    image = _mix(0.8 + 0.25 * texture - 0.6 * y, (0.42, 0.55, 0.3), (0.16, 0.28, 0.16))
    ground = _mix(0.5 + 0.3 * texture, (0.42, 0.42, 0.2), (0.3, 0.3, 0.14))
    _blend(image, (y - edge) * 30, ground)
    # More trunks than fit, so that some come into sight when the camera moves.
    for k in range(-1, 5):
        centre = 0.13 + 0.25 * k + 0.08 * s[k % 4] + 0.02 * np.sin(6 * y + k)
        trunk = 0.035 + 0.012 * s[(k + 1) % 4] - np.abs(x - centre)
        foot = 1 - (y - edge - 0.03) * 40
        _blend(image, np.minimum(trunk * 50, foot), (0.3, 0.22, 0.16))
    image += 0.02 * texture
    return image


@_background("street", indoors=False, edge=_level(0.7, 0.03))
def _street(
    x: np.ndarray, y: np.ndarray, texture: np.ndarray, s: np.ndarray, edge: np.ndarray
) -> np.ndarray:
    image = _mix(1.2 - y * 2 + 0.2 * texture, (0.7, 0.78, 0.86), (0.82, 0.83, 0.84))
    along = x + 0.2 * s[1]
    block = np.floor(along * 3)
    top = 0.24 + 0.1 * np.sin(2.3 * block + 5 * s[2])
    wall = _mix(
        0.5 + 0.5 * np.sin(4.1 * block + s[2]) + 0 * y, (0.68, 0.55, 0.48), (0.54, 0.57, 0.63)
    )
    _blend(image, (y - top) * 50, wall)
    pane = np.minimum(_wave(along, 1 / 6), _wave(edge - y, 0.19)) - 0.4
    _blend(image, np.minimum(pane * 5, (y - top - 0.05) * 50), (0.4, 0.44, 0.5))
    _blend(image, (y - edge) * 50, (0.72, 0.7, 0.66))
    _blend(image, (y - edge - 0.06) * 50, (0.38, 0.38, 0.4))
    _blend(image, 1 - np.abs(y - 0.89 - 0.02 * s[3]) * 50, (0.8, 0.78, 0.66))
    image += 0.02 * texture
    return image


@_background(
    "desert",
    indoors=False,
    edge=lambda x, s: 0.52 + 0.06 * s[0] + 0.04 * np.sin(7 * x + 3 * s[1]),
)
def _desert(
    x: np.ndarray, y: np.ndarray, texture: np.ndarray, s: np.ndarray, edge: np.ndarray
) -> np.ndarray:
    image = _mix(y * 1.6 + 0.1 * texture, (0.98, 0.84, 0.62), (0.52, 0.7, 0.86))
    sun = np.hypot(x - 0.5 - 0.35 * s[2], y - 0.16)
    _blend(image, (0.08 - sun) * 30, (1.0, 0.96, 0.76))
    _blend(image, (y - edge) * 40, _mix(0.5 + 0.3 * texture, (0.88, 0.68, 0.4), (0.78, 0.56, 0.31)))
    for low, period in ((0.14, 5.0), (0.3, 4.0)):
        dune = y - edge - low - 0.05 * np.sin(period * x + 3 * s[3] + 9 * low)
        _blend(image, np.minimum(dune * 30, 1.0 - dune * 8), (0.69, 0.47, 0.26))
    return image


@_background("mountains", indoors=False, edge=_level(0.66, 0.05))
def _mountains(
    x: np.ndarray, y: np.ndarray, texture: np.ndarray, s: np.ndarray, edge: np.ndarray
) -> np.ndarray:
    image = _sky(y, texture)
    for k, (tone, height) in enumerate((((0.56, 0.62, 0.74), 0.44), ((0.4, 0.46, 0.58), 0.33))):
        period = 0.75 - 0.2 * k
        peak = edge + 0.04 - height * (0.4 + 0.6 * _wave(x + 0.4 * s[1 + k] + 0.3 * k, period))
        _blend(image, (y - peak) * 40, tone)
        # Snow lies above a line, thicker where the mountain is higher.
        snow = edge - height * (0.66 - 0.04 * s[3]) + 0.02 * np.sin(40 * x) - y
        _blend(image, np.minimum((y - peak) * 40, snow * 30), (0.95, 0.96, 0.98))
    _blend(
        image, (y - edge) * 40, _mix(0.5 + 0.25 * texture, (0.5, 0.62, 0.42), (0.36, 0.48, 0.32))
    )
    return image


BACKGROUNDS: tuple[str, ...] = tuple(_PAINTERS)
