"""Small rendered scenes: one or two objects in a place, with everything known about them.

Category is not given away by colour, size, position or place: all are drawn independently, all
objects have the same palette, and categories are scaled to cover the same area on average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError
from engramma.progress import track
from engramma.worlds.backgrounds import BACKGROUNDS, INDOORS, crops, paint, pink_noise
from engramma.worlds.captions import captions
from engramma.worlds.objects import CATEGORIES, SUPERORDINATE, Canvas, draw

#: The object colours, RGB 0 .. 1.
COLOURS = {
    "red": (0.80, 0.16, 0.14),
    "orange": (0.93, 0.52, 0.12),
    "yellow": (0.93, 0.82, 0.20),
    "green": (0.20, 0.62, 0.25),
    "blue": (0.18, 0.35, 0.80),
    "purple": (0.52, 0.24, 0.66),
    "pink": (0.93, 0.52, 0.67),
    "brown": (0.50, 0.33, 0.20),
}
#: Half-width of an object, as a share of the image.
SIZES = {"small": 0.17, "medium": 0.21, "large": 0.26}
#: Largest turn to either side, radians.
MOST_TURN = 0.35
_BLOCK, _GROUP = 256, 32


@dataclass(frozen=True, eq=False)
class Scenes:
    """Rendered scenes.

    Parameters
    ----------
    stimuli : StimulusSet
        Images (n, size, size, 3) uint8 in memory, and a table with ``caption`` (and
        ``caption_2``, ``caption_3``), ``category``, ``superordinate``, ``colour``, ``size``,
        ``x``, ``y`` (centre, 0 .. 1 from the upper left), ``orientation`` (degrees),
        ``background``, ``indoors``, and of a second object, empty where there is none,
        ``second``, ``second_colour`` and ``relation`` (of the first to the second).
    masks : ndarray of uint8, shape (n, size, size)
        0 background, 1 first object, 2 second.
    """

    stimuli: StimulusSet
    masks: np.ndarray

    def __len__(self) -> int:
        return len(self.masks)


def make_scenes(
    n: int,
    *,
    rng: np.random.Generator,
    size: int = 64,
    categories: Sequence[str] = CATEGORIES,
    two_objects: float = 0.35,
) -> Scenes:
    """Draw and render ``n`` scenes.

    Parameters
    ----------
    n : int
    rng : numpy.random.Generator
    size : int
        Pixels a side, at least 16.
    categories : sequence of str
        What first objects are drawn from, each about equally often.
    two_objects : float
        Share of scenes with a second object.

    Raises
    ------
    ConfigError
        If a category is unknown or a number out of range.
    """
    unknown = [c for c in categories if c not in CATEGORIES]
    if unknown or not len(categories):
        raise ConfigError(
            f"there is no object category {unknown[0]!r}" if unknown else "no category is given",
            mend=f"choose from {', '.join(CATEGORIES)}",
        )
    if n < 1 or size < 16 or not 0 <= two_objects <= 1:
        raise ConfigError(
            f"scenes cannot be made with n={n}, size={size}, two_objects={two_objects}",
            mend="use n >= 1, size >= 16 and 0 <= two_objects <= 1",
        )
    table, geometry = _compose(n, categories, two_objects, rng)
    images = np.empty((n, size, size, 3), dtype=np.uint8)
    masks = np.empty((n, size, size), dtype=np.uint8)
    texture = pink_noise(4 * size, rng)
    for start in track(range(0, n, _BLOCK), "rendering scenes"):
        block = slice(start, min(start + _BLOCK, n))
        images[block], masks[block] = _render(table[block], geometry[block], texture, size, rng)
    texts = [captions({str(k): v for k, v in row.items()}, rng) for row in table.to_dict("records")]
    for i, name in enumerate(("caption", "caption_2", "caption_3")):
        table.insert(i, name, [t[i] for t in texts])
    return Scenes(StimulusSet(table, images=images, attrs={"source": "rendered scenes"}), masks)


def _compose(
    n: int, categories: Sequence[str], two_objects: float, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Choose what is in each scene: a table of facts, and one of numbers for drawing."""
    first = rng.permutation(np.resize(np.asarray(categories), n))
    second = rng.choice(np.asarray(CATEGORIES), n)
    double = rng.random(n) < two_objects
    colours = rng.choice(np.asarray(list(COLOURS)), (n, 2))
    sizes = rng.choice(np.asarray(list(SIZES)), (n, 2))
    relation = rng.choice(np.asarray(["left of", "right of", "above", "below"]), n)
    jitter = rng.uniform(-1, 1, (n, 2, 2))
    centre = 0.5 + 0.17 * jitter
    apart = np.zeros((n, 2))
    apart[relation == "left of", 0], apart[relation == "right of", 0] = -1, 1
    apart[relation == "above", 1], apart[relation == "below", 1] = -1, 1
    for k, sign in enumerate((1, -1)):
        pair = 0.5 + sign * 0.23 * apart + jitter[:, k] * np.where(apart != 0, 0.04, 0.12)
        centre[double, k] = pair[double]
    turn = rng.uniform(-MOST_TURN, MOST_TURN, (n, 2))
    background = rng.choice(np.asarray(BACKGROUNDS), n)
    table = pd.DataFrame(
        {
            "category": first,
            "superordinate": [SUPERORDINATE[c] for c in first],
            "colour": colours[:, 0],
            "size": sizes[:, 0],
            "x": centre[:, 0, 0].round(4),
            "y": centre[:, 0, 1].round(4),
            "orientation": np.rad2deg(turn[:, 0]).round(1),
            "background": background,
            "indoors": [INDOORS[b] for b in background],
            "second": np.where(double, second, ""),
            "second_colour": np.where(double, colours[:, 1], ""),
            "relation": np.where(double, relation, ""),
        },
        index=pd.Index([f"scene{i:05d}" for i in range(n)], dtype=object),
    )
    radius = np.asarray([[SIZES[s] for s in row] for row in sizes]) * rng.uniform(
        0.92, 1.08, (n, 2)
    )
    radius[double] *= 0.8
    geometry = pd.DataFrame(
        {
            f"{name}{k}": values[:, k]
            for k in range(2)
            for name, values in (
                ("x", centre[:, :, 0]),
                ("y", centre[:, :, 1]),
                ("turn", turn),
                ("radius", radius),
            )
        },
        index=table.index,
    )
    return table, geometry


def _render(
    table: pd.DataFrame,
    geometry: pd.DataFrame,
    texture: np.ndarray,
    size: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    n = len(table)
    image = np.empty((3, n, size, size), dtype=np.float32)
    shape = rng.uniform(-1, 1, (n, 4))
    windows = crops(texture, n, size, rng)
    for kind in BACKGROUNDS:
        rows = np.flatnonzero(table["background"] == kind)
        if len(rows):
            image[:, rows] = paint(kind, windows[rows], shape[rows])
    light = rng.uniform(0, 2 * np.pi, n)
    direction = 0.18 * np.stack([np.cos(light), np.sin(light)], axis=1).astype(np.float32)
    masks = np.zeros((n, size, size), dtype=np.uint8)
    for k, names in enumerate((table["category"], table["second"])):
        hues = np.asarray(
            [COLOURS.get(c, (0, 0, 0)) for c in table[("colour", "second_colour")[k]]]
        )
        hues = np.clip(hues + rng.uniform(-0.06, 0.06, (n, 3)), 0.03, 0.97)
        forms = rng.uniform(-1, 1, (n, 4))
        numbers = geometry[[f"{c}{k}" for c in ("x", "y", "turn", "radius")]].to_numpy()
        for category in CATEGORIES:
            rows = np.flatnonzero(names == category)
            for start in range(0, len(rows), _GROUP):
                some = rows[start : start + _GROUP]
                _place(image, masks, k + 1, category, some, numbers, hues, forms, direction)
    line = np.linspace(-0.5, 0.5, size).astype(np.float32)
    across, down = direction.T[:, :, None, None]
    image *= rng.uniform(0.85, 1.1, (n, 1, 1)) * (1 + across * line + down * line[:, None])
    image += np.float32(0.02) * crops(rng.standard_normal((97, 97), np.float32), n, size, rng)
    pixels = np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
    return np.moveaxis(pixels, 0, -1), masks


def _place(
    image: np.ndarray,
    masks: np.ndarray,
    number: int,
    category: str,
    rows: np.ndarray,
    numbers: np.ndarray,
    hues: np.ndarray,
    forms: np.ndarray,
    direction: np.ndarray,
) -> None:
    """Draw objects of one category into some of the images."""
    size = image.shape[-1]
    x, y, turn, radius = numbers[rows].T
    radius = radius * size * _even_size(category)
    canvas, corner, across = _canvas(x * size, y * size, turn, radius, hues[rows], forms[rows])
    draw(category, canvas)
    shade = 1 + 1.3 * (
        direction[rows, 0, None, None] * across[0] + direction[rows, 1, None, None] * across[1]
    )
    rgb = canvas.rgb * shade
    width = canvas.u.shape[-1]
    for i, row in enumerate(rows):
        left, top = corner[i]
        inside = np.s_[max(top, 0) : min(top + width, size), max(left, 0) : min(left + width, size)]
        part = np.s_[max(-top, 0) : min(size - top, width), max(-left, 0) : min(size - left, width)]
        alpha = canvas.alpha[i][part]
        target = image[:, row][:, *inside]
        target += rgb[:, i][:, *part] - alpha * target
        masks[row][inside][alpha > 0.5] = number


def _canvas(
    x: np.ndarray,
    y: np.ndarray,
    turn: np.ndarray,
    radius: np.ndarray,
    hues: np.ndarray,
    forms: np.ndarray,
) -> tuple[Canvas, np.ndarray, np.ndarray]:
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
    upright = np.stack(np.broadcast_arrays(across, down))
    canvas = Canvas(u, v, 1 / radius, hues, forms.astype(np.float32))
    return canvas, corner, upright


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
    canvas, _, _ = _canvas(
        centre, centre, np.zeros(n), np.full(n, 20.0), np.full((n, 3), 0.5), forms
    )
    draw(category, canvas)
    return float(canvas.alpha.sum(axis=(1, 2)).mean())
