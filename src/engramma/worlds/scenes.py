"""Small rendered scenes: up to four objects in a place, with everything known about them.

Category is not given away by colour, size, position or place: all are drawn independently, all
objects have the same palette, and categories are scaled to cover the same area on average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError
from engramma.worlds.backgrounds import BACKGROUNDS, INDOORS
from engramma.worlds.captions import Description, Thing, captions
from engramma.worlds.layouts import Compositions, Layout, draw_layouts
from engramma.worlds.objects import CATEGORIES, SUPERORDINATE
from engramma.worlds.rendering import render


@dataclass(frozen=True, eq=False)
class Scenes:
    """Rendered scenes.

    Parameters
    ----------
    stimuli : StimulusSet
        Images (n, size, size, 3) uint8 in memory, and a table with ``caption`` (and
        ``caption_2``, ``caption_3``), of the first object ``category``, ``superordinate``,
        ``colour``, ``size``, ``x``, ``y`` (centre, 0 .. 1 from the upper left) and
        ``orientation`` (degrees), ``background``, ``indoors``, ``n_objects``, and of a second
        object, empty where there is none, ``second``, ``second_colour`` and ``relation`` (of the
        first to the second; empty where it is not plain to see).
    masks : ndarray of uint8, shape (n, size, size)
        0 background, 1 the first object, 2 the second, ...
    depth : ndarray of float32, shape (n, size, size)
        Distance of what is seen, from 1 (near) to 10 (the horizon).
    objects : DataFrame
        One row an object: ``scene`` (row), ``number``, ``category``, ``superordinate``,
        ``colour``, ``size``, ``x``, ``y``, ``radius``, ``orientation``, ``distance``, and
        ``visible``, the share of it that nothing hides.
    descriptions : list of Description
        What captions can say, and the scene graph (``descriptions[i].triples()``).
    layout : Layout
        All that is needed to draw the scenes again, changed or not.
    """

    stimuli: StimulusSet
    masks: np.ndarray
    depth: np.ndarray
    objects: pd.DataFrame
    descriptions: list[Description]
    layout: Layout

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def images(self) -> np.ndarray:
        """Images (n, size, size, 3) uint8."""
        assert self.stimuli.images is not None
        return self.stimuli.images


def make_scenes(
    n: int,
    *,
    rng: np.random.Generator,
    size: int = 64,
    categories: Sequence[str] = CATEGORIES,
    others: Sequence[str] = CATEGORIES,
    object_counts: Sequence[float] = (0.5, 0.3, 0.12, 0.08),
    compositions: Compositions = "all",
    caption: bool = True,
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
    others : sequence of str
        What further objects are drawn from. For zero-shot tests both are
        `engramma.worlds.layouts.SEEN` in training, and first objects are of ``ZERO_SHOT`` in the
        test.
    object_counts : sequence of float
        Shares of scenes with one, two, ... up to four objects.
    compositions : {"all", "common", "held out"}
        ``"common"`` leaves out a fifth of the pairs of category and colour; with ``"held out"``
        each first object is such a pair: what a model trained on common ones has never seen.
    caption : bool
        Whether to write captions.

    Raises
    ------
    ConfigError
        If a category is unknown or a number out of range.
    """
    if size < 16:
        raise ConfigError(f"scenes cannot be drawn at {size} pixels", mend="use size >= 16")
    layout = draw_layouts(
        n,
        rng=rng,
        categories=categories,
        others=others,
        object_counts=object_counts,
        compositions=compositions,
    )
    return draw_scenes(layout, rng=rng, size=size, caption=caption)


def draw_scenes(
    layout: Layout, *, rng: np.random.Generator, size: int = 64, caption: bool = True
) -> Scenes:
    """Render given layouts and tell what they show; see `make_scenes`."""
    pictures = render(layout, rng=rng, size=size)
    objects = layout.objects()
    objects.insert(3, "superordinate", objects["category"].map(SUPERORDINATE))
    objects["visible"] = pictures.visible[objects["scene"], objects["number"]].round(3)
    descriptions = describe(layout)
    table = _table(layout, objects, descriptions)
    if caption:
        texts = [captions(d, rng) for d in descriptions]
        for i, name in enumerate(("caption", "caption_2", "caption_3")):
            table.insert(i, name, [t[i] for t in texts])
    stimuli = StimulusSet(table, images=pictures.images, attrs={"source": "rendered scenes"})
    return Scenes(stimuli, pictures.masks, pictures.depth, objects, descriptions, layout)


def describe(layout: Layout) -> list[Description]:
    """Tell what layouts show, as far as captions can."""
    things: list[list[Thing]] = [[] for _ in range(len(layout))]
    columns = layout.objects()[["scene", "category", "colour", "size"]].itertuples(index=False)
    for scene, category, colour, size in columns:
        things[scene].append(Thing(category, colour, size))
    return [
        Description(BACKGROUNDS[code], tuple(some), tuple(relations))
        for code, some, relations in zip(layout.background, things, layout.relations(), strict=True)
    ]


def _table(
    layout: Layout, objects: pd.DataFrame, descriptions: Sequence[Description]
) -> pd.DataFrame:
    """Facts about the first two objects of each scene, one row a scene."""
    first = objects[objects["number"] == 0].reset_index(drop=True)
    columns = ["category", "superordinate", "colour", "size", "x", "y", "orientation"]
    table = first[columns].copy()
    table["background"] = [d.background for d in descriptions]
    table["indoors"] = [INDOORS[b] for b in table["background"]]
    table["n_objects"] = layout.n_objects
    seconds = [d.things[1] if len(d.things) > 1 else None for d in descriptions]
    table["second"] = [t.category if t else "" for t in seconds]
    table["second_colour"] = [t.colour if t else "" for t in seconds]
    table["relation"] = [d.relation(0, 1) for d in descriptions]
    table.index = pd.Index([f"scene{i:05d}" for i in range(len(layout))], dtype=object)
    return table
