"""Backgrounds of scenes: indoor and outdoor places, painted over whole images at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: ``paint(x, y, texture, shape) -> image``: coordinates 0 .. 1, texture about -1 .. 1 (scenes,
#: height, width), four numbers in -1 .. 1 a scene; the image is (3, scenes, height, width).
Painter = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
_PAINTERS: dict[str, Painter] = {}
#: Whether each kind is indoors.
INDOORS: dict[str, bool] = {}


def _background(name: str, *, indoors: bool) -> Callable[[Painter], Painter]:
    def register(painter: Painter) -> Painter:
        _PAINTERS[name] = painter
        INDOORS[name] = indoors
        return painter

    return register


def paint(kind: str, texture: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Paint backgrounds of one kind; see `Painter`."""
    size = texture.shape[-1]
    line = ((np.arange(size) + 0.5) / size).astype(np.float32)
    s = shape.astype(np.float32)[:, :, None, None]
    x = np.broadcast_to(line, texture.shape)
    y = np.broadcast_to(line[:, None], texture.shape)
    return _PAINTERS[kind](x, y, texture, s)


def pink_noise(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a periodic texture with a 1/f amplitude spectrum and unit standard deviation.

    Natural images have about this spectrum (Field, *J. Opt. Soc. Am. A* 4, 1987).
    """
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    f[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) / f, s=(size, size))
    return (noise / noise.std()).astype(np.float32)


def crops(texture: np.ndarray, n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Cut ``n`` random windows of a periodic texture."""
    period = len(texture)
    start = rng.integers(period, size=(n, 2))
    rows = (start[:, :1] + np.arange(size)) % period
    columns = (start[:, 1:] + np.arange(size)) % period
    return texture[rows[:, :, None], columns[:, None, :]]


def _colour(rgb: tuple[float, float, float]) -> np.ndarray:
    return np.asarray(rgb, dtype=np.float32)[:, None, None, None]


def _mix(
    where: np.ndarray, first: tuple[float, float, float], second: tuple[float, float, float]
) -> np.ndarray:
    """Blend from the second colour (``where`` 0) to the first (1)."""
    a, b = (_colour(c) for c in (first, second))
    return b + np.clip(where, 0, 1)[None] * (a - b)


def _over(image: np.ndarray, where: np.ndarray, colour: tuple[float, float, float]) -> None:
    """Paint a colour where ``where`` is 1."""
    image += np.clip(where, 0, 1)[None] * (_colour(colour) - image)


@_background("room", indoors=True)
def _room(x: np.ndarray, y: np.ndarray, texture: np.ndarray, s: np.ndarray) -> np.ndarray:
    floor = (y - 0.72 - 0.06 * s[:, 0]) * 40
    image = _mix(floor, (0.5, 0.4, 0.31), (0.76, 0.72, 0.64))
    left = 0.12 + 0.1 * (s[:, 1] + 1)
    inside = np.minimum(np.minimum(x - left, left + 0.28 - x), np.minimum(y - 0.1, 0.42 - y))
    _over(image, inside * 60 + 1, (0.55, 0.5, 0.45))
    _over(image, (inside - 0.025) * 60, (0.75, 0.84, 0.9))
    _over(image, 1 - np.abs(floor) / 1.6, (0.4, 0.36, 0.32))
    image += 0.03 * texture
    return image


@_background("kitchen", indoors=True)
def _kitchen(x: np.ndarray, y: np.ndarray, texture: np.ndarray, s: np.ndarray) -> np.ndarray:
    pitch = 0.16 + 0.03 * s[:, 0]
    image = _mix(0.5 + 0.1 * texture, (0.82, 0.84, 0.83), (0.72, 0.75, 0.76))
    for along in (x + 0.05 * s[:, 1], y + 0.05 * s[:, 2]):
        joint = np.abs((along / pitch) % 1 - 0.5) * pitch
        _over(image, 1 - joint / 0.013, (0.55, 0.57, 0.58))
    _over(image, (y - 0.78 - 0.04 * s[:, 3]) * 60, (0.46, 0.38, 0.34))
    return image


@_background("field", indoors=False)
def _field(x: np.ndarray, y: np.ndarray, texture: np.ndarray, s: np.ndarray) -> np.ndarray:
    hill = 0.5 + 0.06 * s[:, 0] + 0.07 * np.sin(5 * x + 3 * s[:, 1])
    image = _mix(0.5 + 0.5 * texture - 1.2 * y, (0.93, 0.95, 0.97), (0.55, 0.72, 0.88))
    grass = _mix(0.5 + 0.35 * texture, (0.45, 0.6, 0.28), (0.33, 0.48, 0.2))
    return image + np.clip((y - hill) * 40, 0, 1)[None] * (grass - image)


@_background("beach", indoors=False)
def _beach(x: np.ndarray, y: np.ndarray, texture: np.ndarray, s: np.ndarray) -> np.ndarray:
    horizon, shore = (
        0.38 + 0.05 * s[:, 0],
        0.64 + 0.05 * s[:, 1] + 0.03 * np.sin(9 * x + 3 * s[:, 2]),
    )
    image = _mix(y * 2, (0.85, 0.9, 0.95), (0.5, 0.7, 0.9))
    _over(image, (y - horizon) * 60, (0.18, 0.42, 0.6))
    image += 0.05 * texture * (y > horizon)
    _over(image, 1 - np.abs(y - shore) * 40, (0.95, 0.96, 0.96))
    _over(image, (y - shore) * 40, (0.84, 0.76, 0.57))
    return image + 0.02 * texture


@_background("forest", indoors=False)
def _forest(x: np.ndarray, y: np.ndarray, texture: np.ndarray, s: np.ndarray) -> np.ndarray:
    image = _mix(0.5 + 0.4 * texture - 0.6 * (y - 0.5), (0.42, 0.55, 0.3), (0.12, 0.22, 0.12))
    for k in range(4):
        centre = 0.13 + 0.25 * k + 0.08 * s[:, k] + 0.02 * np.sin(6 * y + k)
        trunk = 0.035 + 0.012 * s[:, (k + 1) % 4]
        _over(image, (trunk - np.abs(x - centre)) * 60, (0.3, 0.22, 0.16))
    _over(image, (y - 0.8 - 0.03 * texture) * 30, (0.3, 0.3, 0.14))
    return image + 0.03 * texture


@_background("street", indoors=False)
def _street(x: np.ndarray, y: np.ndarray, texture: np.ndarray, s: np.ndarray) -> np.ndarray:
    image = _mix(1.2 - y * 2 + 0.2 * texture, (0.7, 0.78, 0.86), (0.82, 0.83, 0.84))
    block = np.floor((x + 0.2 * s[:, 0]) * 3.3)
    height = 0.3 + 0.1 * np.sin(2.3 * block + 5 * s[:, 1])
    wall = _mix(0.5 + 0.5 * np.sin(4.1 * block + s[:, 2]), (0.66, 0.56, 0.5), (0.56, 0.58, 0.62))
    image += np.clip((y - height) * 60, 0, 1)[None] * (wall - image)
    pane = np.minimum(np.sin(62 * (x + 0.2 * s[:, 0])), np.sin(55 * y))
    _over(image, (pane - 0.1) * 4 * (y > height + 0.05), (0.36, 0.4, 0.46))
    _over(image, (y - 0.7) * 60, (0.38, 0.38, 0.4))
    _over(image, 1 - np.abs(y - 0.86 - 0.02 * s[:, 3]) * 60, (0.86, 0.84, 0.7))
    return image + 0.03 * texture


BACKGROUNDS: tuple[str, ...] = tuple(_PAINTERS)
