"""What objects are painted on, and the table of drawings that paint them.

A drawing is a function of a `Canvas` that paints one category, many scenes at once, part by part
from back to front, in coordinates where the object about fills -1 .. 1. Parts are painted in the
object's own colour or in greys that every category uses in about equal shares, so that colour
says nothing of category.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engramma.worlds import shapes

#: Tones as (share of the object's own colour, grey added to it).
TONES = {
    "own": (1.0, 0.0),
    "shade": (0.62, 0.0),
    "bright": (0.55, 0.42),
    "dark": (0.0, 0.12),
    "light": (0.0, 0.94),
}


class Canvas:
    """Patches that parts are painted on.

    Parameters
    ----------
    u, v : ndarray, shape (scenes, height, width)
        Coordinates of the pixels as the object sees them, v downwards.
    pixel : ndarray, shape (scenes,)
        Width of a pixel in these coordinates.
    colour : ndarray, shape (scenes, 3)
        The object's own colour, 0 .. 1.
    shape : ndarray, shape (scenes, 4)
        Shape parameters, -1 .. 1.

    Attributes
    ----------
    alpha : ndarray, shape (scenes, height, width)
        How much of each pixel the object covers.
    own, grey : ndarray, shape (scenes, height, width)
        Share of the own colour, and grey, in what is painted, each times ``alpha``.
    """

    def __init__(
        self,
        u: np.ndarray,
        v: np.ndarray,
        pixel: np.ndarray,
        colour: np.ndarray,
        shape: np.ndarray,
    ) -> None:
        self.u, self.v = u, v
        self.shape = shape.astype(np.float32, copy=False)
        self._colour = colour.T.astype(np.float32)[:, :, None, None]
        self._sharp = (-1 / pixel)[:, None, None].astype(np.float32)
        self.alpha, self.own, self.grey = (np.zeros(u.shape, np.float32) for _ in range(3))

    @property
    def rgb(self) -> np.ndarray:
        """Colours times alpha, (3, scenes, height, width)."""
        return self._colour * self.own + self.grey

    def paint(self, distance: np.ndarray, tone: str = "own") -> None:
        """Paint a part over what is there; its signed distance is used up."""
        cover = distance
        cover *= self._sharp
        cover += 0.5
        np.clip(cover, 0, 1, out=cover)
        own, grey = TONES[tone]
        for layer, value in ((self.alpha, 1.0), (self.own, own), (self.grey, grey)):
            change = value - layer
            change *= cover
            layer += change

    def ellipse(self, *args: shapes.Value, tone: str = "own") -> None:
        """Paint an ellipse: x, y, a, b[, angle]."""
        self.paint(shapes.ellipse(self.u, self.v, *args), tone)

    def box(self, *args: shapes.Value, tone: str = "own") -> None:
        """Paint a rectangle: x, y, a, b[, angle]."""
        self.paint(shapes.box(self.u, self.v, *args), tone)

    def line(self, r: shapes.Value, *points: shapes.Point, tone: str = "own") -> None:
        """Paint a line of half-width ``r`` through points."""
        self.paint(shapes.line(self.u, self.v, r, points), tone)

    def polygon(self, *corners: shapes.Point, tone: str = "own") -> None:
        """Paint a convex polygon, corners clockwise on the screen."""
        self.paint(shapes.polygon(self.u, self.v, corners), tone)

    def ring(self, *args: shapes.Value, tone: str = "own") -> None:
        """Paint a circle line: x, y, radius, half-width."""
        self.paint(shapes.ring(self.u, self.v, *args), tone)


Drawing = Callable[[Canvas], None]
DRAWINGS: dict[str, Drawing] = {}
#: Superordinate class of each category.
SUPERORDINATE: dict[str, str] = {}


def category(name: str, superordinate: str) -> Callable[[Drawing], Drawing]:
    """Register the drawing of a category of a superordinate class."""

    def register(drawing: Drawing) -> Drawing:
        DRAWINGS[name] = drawing
        SUPERORDINATE[name] = superordinate
        return drawing

    return register
