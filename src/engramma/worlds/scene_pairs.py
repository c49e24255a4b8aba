"""Pairs of scenes that are alike in pixels or in meaning, but not in both.

What the triplets of "What makes a face look like a hat" (Cheng et al. 2024) were found for in
photographs is made here: an anchor, a picture that looks like it and shows something else, and one
that shows the same and looks different.
"""

from __future__ import annotations

import numpy as np

from engramma.worlds.layouts import MOST_OBJECTS, Layout, draw_layouts
from engramma.worlds.objects import CATEGORIES, SUPERORDINATE
from engramma.worlds.scenes import Scenes, draw_scenes


def alike_in_pixels(scenes: Scenes, *, rng: np.random.Generator) -> Scenes:
    """Draw the same scenes with objects of other superordinate classes in the same places.

    Background, light, colours, sizes and places of the objects stay as they are.
    """
    layout = scenes.layout
    kinds = np.asarray([SUPERORDINATE[c] for c in CATEGORIES])
    lots = rng.random((*layout.category.shape, len(CATEGORIES)))
    lots[kinds[layout.category][..., None] == kinds] = -1
    category = np.where(layout.category >= 0, lots.argmax(axis=-1), -1)
    return draw_scenes(layout.with_(category=category), rng=rng, size=scenes.masks.shape[-1])


def alike_in_meaning(scenes: Scenes, *, rng: np.random.Generator) -> Scenes:
    """Draw objects of the same categories, with all else drawn anew.

    As many objects of the same categories, in other colours, sizes, forms and places, before
    other backgrounds in other light.
    """
    layout = scenes.layout
    new = {name: getattr(layout, name).copy() for name in layout.__dataclass_fields__}
    for count in np.unique(layout.n_objects):
        rows = np.flatnonzero(layout.n_objects == count)
        part = draw_layouts(len(rows), rng=rng, object_counts=np.eye(MOST_OBJECTS)[count - 1])
        for name, values in new.items():
            if name != "category":
                values[rows] = getattr(part, name)
    return draw_scenes(Layout(**new), rng=rng, size=scenes.masks.shape[-1])
