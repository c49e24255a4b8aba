"""What objects look like: the categories of `engramma.worlds.drawings`, and how to draw them."""

from __future__ import annotations

from engramma.worlds.canvas import DRAWINGS, SUPERORDINATE, Canvas
from engramma.worlds.drawings import animals, food, people, places, tools, vehicles, writing

__all__ = ["CATEGORIES", "SUPERORDINATE", "SUPERORDINATES", "Canvas", "draw"]

#: Modules of drawings, in the order of the categories; importing them fills the tables.
_THEMES = (people, animals, places, food, writing, tools, vehicles)

CATEGORIES: tuple[str, ...] = tuple(
    name
    for theme in _THEMES
    for name, drawing in DRAWINGS.items()
    if drawing.__module__ == theme.__name__
)
SUPERORDINATES: tuple[str, ...] = tuple(dict.fromkeys(SUPERORDINATE[c] for c in CATEGORIES))


def draw(category: str, canvas: Canvas) -> None:
    """Paint objects of one category.

    Parameters
    ----------
    category : str
        One of `CATEGORIES`.
    canvas : Canvas
        Painted on; empty before.
    """
    DRAWINGS[category](canvas)
