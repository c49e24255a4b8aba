"""What is where in a scene: objects, their attributes and places, and the relations between them.

Category, colour, size, place and background are drawn independently of each other, so that none
gives another away. Layouts are all that drawing needs: changing one and drawing it again gives
videos, and pairs of pictures that are alike in pixels or in meaning only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from engramma.errors import ConfigError
from engramma.worlds.backgrounds import BACKGROUNDS
from engramma.worlds.objects import CATEGORIES, SUPERORDINATE

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
#: Most objects a scene, and by how much they shrink as there are more.
MOST_OBJECTS = 4
SHRINK = (1.0, 0.8, 0.68, 0.6)
#: Largest turn to either side, radians.
MOST_TURN = 0.35
#: Distance of an object that stands on the lower, and on the upper edge of the image.
NEAR, FAR = 1.5, 7.5
RELATIONS = ("left of", "right of", "above", "below", "in front of", "behind")
OPPOSITE = {
    "left of": "right of",
    "above": "below",
    "in front of": "behind",
    "right of": "left of",
    "below": "above",
    "behind": "in front of",
}
#: One in so many pairs of category and colour is held out as a new composition.
HOLD_OUT_EVERY = 5
Compositions = Literal["all", "common", "held out"]
#: Categories to hold out whole in zero-shot tests: the last one of each superordinate class.
ZERO_SHOT = tuple({kind: c for c, kind in SUPERORDINATE.items()}.values())
SEEN = tuple(c for c in CATEGORIES if c not in ZERO_SHOT)


@dataclass(frozen=True, eq=False)
class Layout:
    """What is where in n scenes of up to `MOST_OBJECTS` objects.

    Parameters
    ----------
    background : ndarray of int, shape (n,)
        Position in `BACKGROUNDS`.
    background_shape : ndarray, shape (n, 4)
        Shape parameters of the background, -1 .. 1.
    texture : ndarray of int, shape (n, 2)
        Row and column of the window into the texture.
    light : ndarray, shape (n, 2)
        Direction the light comes from, right and down.
    brightness : ndarray, shape (n,)
    shift : ndarray, shape (n, 2)
        How far the camera has moved right and down, in shares of the image.
    category, colour, size : ndarray of int, shape (n, MOST_OBJECTS)
        Positions in `CATEGORIES`, `COLOURS` and `SIZES`; -1 where there is no object.
    hue : ndarray, shape (n, MOST_OBJECTS, 3)
        RGB, 0 .. 1: the colour, and what makes each object's a little its own.
    x, y, turn, radius : ndarray, shape (n, MOST_OBJECTS)
        Centre and half-width in shares of the image, and turn in radians.
    form : ndarray, shape (n, MOST_OBJECTS, 4)
        Shape parameters of the objects, -1 .. 1.
    """

    background: np.ndarray
    background_shape: np.ndarray
    texture: np.ndarray
    light: np.ndarray
    brightness: np.ndarray
    shift: np.ndarray
    category: np.ndarray
    colour: np.ndarray
    size: np.ndarray
    hue: np.ndarray
    x: np.ndarray
    y: np.ndarray
    turn: np.ndarray
    radius: np.ndarray
    form: np.ndarray

    def __len__(self) -> int:
        return len(self.background)

    @property
    def n_objects(self) -> np.ndarray:
        """Objects in each scene."""
        return (self.category >= 0).sum(axis=1)

    @property
    def distance(self) -> np.ndarray:
        """Distance of each object from the camera: what stands lower is nearer."""
        base = np.clip(self.y + 0.8 * self.radius, 0, 1)
        return NEAR + (FAR - NEAR) * (1 - base)

    def __getitem__(self, rows: object) -> Layout:
        """Layouts of some of the scenes."""
        return Layout(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})

    def with_(self, **changes: np.ndarray) -> Layout:
        """Return the same layouts with some of the arrays changed."""
        return replace(self, **changes)

    def relations(self) -> list[list[tuple[int, str, int]]]:
        """Relations that are plain to see, of each object to those after it, scene by scene."""
        apart_x = self.x[:, :, None] - self.x[:, None]
        apart_y = self.y[:, :, None] - self.y[:, None]
        touch = 0.62 * (self.radius[:, :, None] + self.radius[:, None])
        near = np.hypot(apart_x, apart_y) < touch
        sideways = np.abs(apart_x) > 1.4 * np.abs(apart_y)
        upright = np.abs(apart_y) > 1.4 * np.abs(apart_x)
        front = self.distance[:, :, None] < self.distance[:, None]
        code = np.full(near.shape, -1)
        code[sideways] = np.where(apart_x < 0, 0, 1)[sideways]
        code[upright] = np.where(apart_y < 0, 2, 3)[upright]
        code[near] = np.where(front, 4, 5)[near]
        there = self.category >= 0
        code[~(there[:, :, None] & there[:, None])] = -1
        code[:, *np.tril_indices(MOST_OBJECTS)] = -1
        found: list[list[tuple[int, str, int]]] = [[] for _ in range(len(self))]
        for scene, i, j in np.argwhere(code >= 0):
            found[scene].append((int(i), RELATIONS[code[scene, i, j]], int(j)))
        return found

    def objects(self) -> pd.DataFrame:
        """Table of all objects, one row each, numbered from 0 within their scene."""
        scene, number = np.nonzero(self.category >= 0)
        at = (scene, number)
        names = np.asarray(CATEGORIES, dtype=object), np.asarray(list(COLOURS), dtype=object)
        return pd.DataFrame(
            {
                "scene": scene,
                "number": number,
                "category": names[0][self.category[at]],
                "colour": names[1][self.colour[at]],
                "size": np.asarray(list(SIZES), dtype=object)[self.size[at]],
                "x": self.x[at].round(4),
                "y": self.y[at].round(4),
                "radius": self.radius[at].round(4),
                "orientation": np.rad2deg(self.turn[at]).round(1),
                "distance": self.distance[at].round(3),
            }
        )


def held_out_compositions() -> np.ndarray:
    """Pairs that no scene of ``compositions="common"`` shows, category x colour, boolean."""
    category, colour = np.indices((len(CATEGORIES), len(COLOURS)))
    return (category + colour) % HOLD_OUT_EVERY == 0


def draw_layouts(
    n: int,
    *,
    rng: np.random.Generator,
    categories: Sequence[str] = CATEGORIES,
    others: Sequence[str] = CATEGORIES,
    object_counts: Sequence[float] = (0.5, 0.3, 0.12, 0.08),
    compositions: Compositions = "all",
) -> Layout:
    """Draw the layouts of ``n`` scenes.

    Parameters
    ----------
    n : int
    rng : numpy.random.Generator
    categories : sequence of str
        What first objects are drawn from, each about equally often.
    others : sequence of str
        What further objects are drawn from.
    object_counts : sequence of float
        Shares of scenes with one, two, ... objects.
    compositions : {"all", "common", "held out"}
        ``"common"`` leaves out the pairs of category and colour that are held out; with
        ``"held out"`` each first object is such a pair, and the others are common.

    Raises
    ------
    ConfigError
        If a category is unknown or a number out of range.
    """
    codes, further = _category_codes(categories), _category_codes(others)
    shares = np.asarray(object_counts, dtype=float)
    if n < 1 or not 1 <= len(shares) <= MOST_OBJECTS or (shares < 0).any() or shares.sum() <= 0:
        raise ConfigError(
            f"scenes cannot be made with n={n} and object_counts={tuple(object_counts)}",
            mend=f"use n >= 1 and up to {MOST_OBJECTS} shares of scenes, none of them negative",
        )
    count = 1 + rng.choice(len(shares), n, p=shares / shares.sum())
    there = np.arange(MOST_OBJECTS) < count[:, None]
    category = further[rng.integers(len(further), size=(n, MOST_OBJECTS))]
    category[:, 0] = rng.permutation(np.resize(codes, n))
    colour = _colours(category, compositions, rng)
    size = rng.integers(len(SIZES), size=(n, MOST_OBJECTS))
    x, y = _places(count, rng)
    radius = np.asarray(list(SIZES.values()))[size] * rng.uniform(0.92, 1.08, size.shape)
    radius *= np.asarray(SHRINK)[count - 1, None]
    palette = np.asarray(list(COLOURS.values()))
    hue = palette[colour] + rng.uniform(-0.06, 0.06, (n, MOST_OBJECTS, 3))
    angle = rng.uniform(0, 2 * np.pi, n)
    return Layout(
        background=rng.integers(len(BACKGROUNDS), size=n),
        background_shape=rng.uniform(-1, 1, (n, 4)).astype(np.float32),
        texture=rng.integers(1 << 20, size=(n, 2)),
        light=0.18 * np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32),
        brightness=rng.uniform(0.85, 1.1, n).astype(np.float32),
        shift=np.zeros((n, 2)),
        category=np.where(there, category, -1),
        colour=np.where(there, colour, -1),
        size=np.where(there, size, -1),
        hue=np.clip(hue, 0.03, 0.97).astype(np.float32),
        x=x,
        y=y,
        turn=rng.uniform(-MOST_TURN, MOST_TURN, (n, MOST_OBJECTS)),
        radius=radius,
        form=rng.uniform(-1, 1, (n, MOST_OBJECTS, 4)).astype(np.float32),
    )


def _category_codes(categories: Sequence[str]) -> np.ndarray:
    unknown = [c for c in categories if c not in CATEGORIES]
    if unknown or not len(categories):
        raise ConfigError(
            f"there is no object category {unknown[0]!r}" if unknown else "no category is given",
            mend=f"choose from {', '.join(CATEGORIES)}",
        )
    return np.asarray([CATEGORIES.index(c) for c in categories])


def _colours(
    category: np.ndarray, compositions: Compositions, rng: np.random.Generator
) -> np.ndarray:
    """Draw a colour for each object out of those that its category may have."""
    if compositions not in ("all", "common", "held out"):
        raise ConfigError(
            f"there are no compositions {compositions!r}", mend="use all, common or held out"
        )
    lots = rng.random((*category.shape, len(COLOURS)))
    if compositions != "all":
        out = held_out_compositions()[category]
        if compositions == "held out":
            out[:, 0] = ~out[:, 0]
        lots[out] = -1
    return lots.argmax(axis=2)


def _places(count: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the objects: anywhere near the middle, in pairs, or one in each quarter."""
    n = len(count)
    centre = 0.5 + 0.17 * rng.uniform(-1, 1, (n, MOST_OBJECTS, 2))
    jitter = rng.uniform(-1, 1, (n, MOST_OBJECTS, 2))
    # Pairs stand side by side, one above the other, or one in front of the other.
    kind = rng.integers(6, size=n)
    direction = np.asarray(
        [(-0.23, 0), (0.23, 0), (0, -0.23), (0, 0.23), (0.075, 0.055), (-0.075, -0.055)]
    )[kind]
    loose = np.where(np.abs(direction) > 0.2, 0.04, np.where(direction == 0, 0.1, 0.02))
    pair = count == 2
    for k, sign in enumerate((1, -1)):
        centre[pair, k] = (0.5 + sign * direction + jitter[:, k] * loose)[pair]
    # More stand in the quarters of the image, in any order.
    quarter = np.asarray([(-1, -1), (1, -1), (-1, 1), (1, 1)]) * 0.22
    order = rng.random((n, MOST_OBJECTS)).argsort(axis=1)
    many = count > 2
    centre[many] = (0.5 + quarter[order] + 0.05 * jitter)[many]
    return centre[..., 0], centre[..., 1]
