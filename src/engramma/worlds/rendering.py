"""Drawing layouts: image, mask and depth of each scene."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from engramma.progress import track
from engramma.worlds import backgrounds
from engramma.worlds.backgrounds import BACKGROUNDS, paint, pink_noise, windows
from engramma.worlds.layouts import MOST_OBJECTS, Layout
from engramma.worlds.objects import CATEGORIES, Canvas, draw

_BLOCK, _GROUP = 256, 32


class Pictures(NamedTuple):
    """What is drawn of n scenes.

    ``images`` (n, size, size, 3) uint8; ``masks`` (n, size, size) uint8, 0 for the background and
    1 + the number of the object in front; ``depth`` (n, size, size) float32, the distance of what
    is seen, 1 (near) to 10 (the horizon); ``visible`` (n, `MOST_OBJECTS`), the share of each
    object that nothing hides, NaN where there is none.
    """

    images: np.ndarray
    masks: np.ndarray
    depth: np.ndarray
    visible: np.ndarray


def render(
    layout: Layout,
    *,
    rng: np.random.Generator,
    size: int = 64,
    grain: float = 0.02,
    description: str = "rendering scenes",
) -> Pictures:
    """Draw scenes.

    Parameters
    ----------
    layout : Layout
    rng : numpy.random.Generator
        Draws the grain only: the same layouts give the same pictures but for it.
    size : int
        Pixels a side.
    grain : float
        Standard deviation of the sensor noise, full scale 1.
    description : str
        Label of the progress bar.
    """
    n = len(layout)
    shape = (n, size, size)
    pictures = Pictures(
        np.empty((*shape, 3), np.uint8),
        np.zeros(shape, np.uint8),
        np.empty(shape, np.float32),
        np.full((n, MOST_OBJECTS), np.nan),
    )
    noise = rng.standard_normal((97, 97), dtype=np.float32)
    for start in track(range(0, n, _BLOCK), description):
        block = slice(start, min(start + _BLOCK, n))
        corner = rng.integers(97, size=(block.stop - start, 2))
        _render(
            layout[block],
            Pictures(*(part[block] for part in pictures)),
            grain * windows(noise, corner, size),
        )
    return pictures


def _render(layout: Layout, pictures: Pictures, grain: np.ndarray) -> None:
    n, size = len(layout), pictures.masks.shape[-1]
    image = np.empty((3, n, size, size), dtype=np.float32)
    texture = _texture(4 * size)
    moved = layout.texture + np.rint(layout.shift[:, ::-1] * size).astype(int)
    patches = windows(texture, moved, size)
    still = not layout.shift.any()
    for code, kind in enumerate(BACKGROUNDS):
        rows = np.flatnonzero(layout.background == code)
        if len(rows):
            form, shift = layout.background_shape[rows], None if still else layout.shift[rows]
            image[:, rows] = paint(kind, patches[rows], form, shift)
            pictures.depth[rows] = backgrounds.depth(kind, size, form, shift)
    whole = np.zeros((n, MOST_OBJECTS))
    # The nearest are drawn last, over what they hide.
    order = np.argsort(-layout.distance, axis=1, kind="stable")
    for place in range(MOST_OBJECTS):
        number = order[:, place]
        category = layout.category[np.arange(n), number]
        for code in np.unique(category[category >= 0]):
            rows = np.flatnonzero(category == code)
            for start in range(0, len(rows), _GROUP):
                some = rows[start : start + _GROUP]
                _place(image, pictures, whole, layout, CATEGORIES[code], some, number[some])
    for k in range(MOST_OBJECTS):
        seen = (pictures.masks == k + 1).sum(axis=(1, 2))
        there = layout.category[:, k] >= 0
        pictures.visible[there, k] = (seen / np.maximum(whole[:, k], 1))[there]
    line = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    across, down = layout.light.T[:, :, None, None]
    image *= layout.brightness[:, None, None] * (1 + across * line + down * line[:, None])
    image += grain
    np.clip(image * 255 + 0.5, 0, 255, out=image)
    pictures.images[:] = np.moveaxis(image, 0, -1)


@lru_cache(maxsize=4)
def _texture(size: int) -> np.ndarray:
    """One natural texture for all scenes, which look at it through different windows."""
    return pink_noise(size, np.random.default_rng(4))


def _place(
    image: np.ndarray,
    pictures: Pictures,
    whole: np.ndarray,
    layout: Layout,
    category: str,
    rows: np.ndarray,
    numbers: np.ndarray,
) -> None:
    """Draw one object of one category into each of some of the images."""
    size = image.shape[-1]
    at = (rows, numbers)
    radius = layout.radius[at] * size * _even_size(category)
    canvas, corner, across, down = _canvas(
        layout.x[at] * size,
        layout.y[at] * size,
        layout.turn[at],
        radius,
        layout.hue[at],
        layout.form[at],
    )
    draw(category, canvas)
    light = 1.3 * layout.light[rows][:, :, None, None]
    rgb = canvas.rgb * (1 + light[:, 0] * across + light[:, 1] * down)
    distance = layout.distance[at].astype(np.float32)
    solid = canvas.alpha > 0.5
    width = canvas.u.shape[-1]
    for i, row in enumerate(rows):
        left, top = corner[i]
        inside = np.s_[max(top, 0) : min(top + width, size), max(left, 0) : min(left + width, size)]
        part = np.s_[max(-top, 0) : min(size - top, width), max(-left, 0) : min(size - left, width)]
        target = image[:, row][:, *inside]
        target += rgb[:, i][:, *part] - canvas.alpha[i][part] * target
        there = solid[i][part]
        pictures.masks[row][inside][there] = numbers[i] + 1
        pictures.depth[row][inside][there] = distance[i]
        whole[row, numbers[i]] = there.sum()


def _canvas(
    x: np.ndarray,
    y: np.ndarray,
    turn: np.ndarray,
    radius: np.ndarray,
    hues: np.ndarray,
    forms: np.ndarray,
) -> tuple[Canvas, np.ndarray, np.ndarray, np.ndarray]:
    """Patches around object centres (pixels), their corners, and their upright coordinates."""
    half = int(np.ceil(1.32 * radius.max())) + 1
    corner = np.stack([np.round(x).astype(int) - half, np.round(y).astype(int) - half], axis=1)
    line = np.arange(2 * half, dtype=np.float32) + 0.5
    r = radius[:, None].astype(np.float32)
    across = (line + (corner[:, :1] - x[:, None]).astype(np.float32)) / r
    down = (line + (corner[:, 1:] - y[:, None]).astype(np.float32)) / r
    across, down = across[:, None, :], down[:, :, None]
    cos, sin = (f(turn).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
    u, v = cos * across + sin * down, cos * down - sin * across
    return Canvas(u, v, 1 / radius, hues, forms.astype(np.float32)), corner, across, down


@lru_cache
def _even_size(category: str) -> float:
    """Factor that gives all categories the same mean area."""
    areas = {c: _mean_area(c) for c in CATEGORIES}
    mean = float(np.mean(list(areas.values())))
    return float(np.sqrt(mean / areas[category]))


@lru_cache
def _mean_area(category: str) -> float:
    n = 24
    forms = np.random.default_rng(0).uniform(-1, 1, (n, 4))
    centre = np.full(n, 32.0)
    canvas, *_ = _canvas(centre, centre, np.zeros(n), np.full(n, 20.0), np.full((n, 3), 0.5), forms)
    draw(category, canvas)
    return float(canvas.alpha.sum(axis=(1, 2)).mean())
