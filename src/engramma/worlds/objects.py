"""What objects look like: sixteen categories in eight superordinate classes.

Each category is a drawing: a function of a `Canvas` and of four shape parameters a scene (each
in -1 .. 1) that paints parts from back to front, in coordinates where the object about fills
-1 .. 1. Parts are painted in the object's own colour, or in tones that every category uses, so
that colour says nothing of category.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engramma.worlds import shapes

#: Tones beside the object's own colour: every category uses them.
TONES = {"dark": (0.12, 0.11, 0.13), "light": (0.95, 0.94, 0.90)}


class Canvas:
    """Patches that parts are painted on.

    Parameters
    ----------
    u, v : ndarray, shape (scenes, height, width)
        Coordinates of the pixels as the object sees them.
    pixel : ndarray, shape (scenes,)
        Width of a pixel in these coordinates.
    colour : ndarray, shape (scenes, 3)
        The object's own colour, 0 .. 1.
    shape : ndarray, shape (scenes, 4)
        Shape parameters, -1 .. 1.
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
        self.shape = shape
        self._sharp = (1 / pixel)[:, None, None].astype(np.float32)
        self.alpha = np.zeros_like(u)
        self.rgb = np.zeros((3, *u.shape), dtype=np.float32)
        own = colour.T.astype(np.float32)[:, :, None, None]
        self._paint = {
            "own": own,
            "shade": own * 0.62,
            "bright": own * 0.55 + 0.45,
            **{k: np.asarray(c, np.float32)[:, None, None, None] for k, c in TONES.items()},
        }

    def paint(self, distance: np.ndarray, tone: str = "own") -> None:
        """Paint a part over what is there."""
        cover = np.clip(0.5 - distance * self._sharp, 0, 1)
        self.rgb += cover * (self._paint[tone] - self.rgb)
        np.maximum(self.alpha, cover, out=self.alpha)

    def ellipse(self, *args: shapes.Value, tone: str = "own") -> None:
        """Paint an ellipse: x, y, a, b[, angle]."""
        self.paint(shapes.ellipse(self.u, self.v, *args), tone)

    def box(self, *args: shapes.Value, tone: str = "own") -> None:
        """Paint a rectangle: x, y, a, b[, angle]."""
        self.paint(shapes.box(self.u, self.v, *args), tone)

    def stroke(self, *args: shapes.Value, tone: str = "own") -> None:
        """Paint a line: x0, y0, x1, y1, half-width."""
        self.paint(shapes.stroke(self.u, self.v, *args), tone)

    def polygon(self, *corners: tuple[shapes.Value, shapes.Value], tone: str = "own") -> None:
        """Paint a convex polygon, corners clockwise on the screen."""
        self.paint(shapes.polygon(self.u, self.v, corners), tone)

    def ring(self, *args: shapes.Value, tone: str = "own") -> None:
        """Paint a circle line: x, y, radius, half-width."""
        self.paint(shapes.ring(self.u, self.v, *args), tone)


Drawing = Callable[[Canvas], None]
_DRAWINGS: dict[str, Drawing] = {}
#: Superordinate class of each category.
SUPERORDINATE: dict[str, str] = {}


def _category(name: str, superordinate: str) -> Callable[[Drawing], Drawing]:
    def register(drawing: Drawing) -> Drawing:
        _DRAWINGS[name] = drawing
        SUPERORDINATE[name] = superordinate
        return drawing

    return register


def draw(category: str, canvas: Canvas) -> None:
    """Paint objects of one category."""
    _DRAWINGS[category](canvas)


def _face(c: Canvas) -> None:
    a, b = 0.62 + 0.07 * c.shape[:, 0], 0.08 * c.shape[:, 1]
    c.ellipse(0.0, 0.1, a, 0.8)
    for side in (-1, 1):
        x = side * (0.25 + 0.04 * c.shape[:, 2])
        c.ellipse(x, -0.05 + b, 0.15, 0.1, tone="light")
        c.ellipse(x, -0.05 + b, 0.075, 0.09, tone="dark")
        c.stroke(x - 0.13, -0.24 + b, x + 0.13, -0.24 + b, 0.035, tone="dark")
    c.stroke(0.0, 0.02, -0.06, 0.3, 0.04, tone="shade")
    c.stroke(-0.06, 0.3, 0.06, 0.3, 0.04, tone="shade")
    c.ellipse(0.0, 0.55, 0.24 + 0.06 * c.shape[:, 3], 0.075, tone="dark")


@_category("man", "face")
def _man(c: Canvas) -> None:
    c.ellipse(0.0, -0.25, 0.68 + 0.05 * c.shape[:, 0], 0.7, tone="dark")
    for side in (-1, 1):
        c.ellipse(side * 0.66, 0.1, 0.11, 0.18, tone="shade")
    _face(c)
    c.polygon((-0.55, -0.62), (0.55, -0.62), (0.48, -0.4), (-0.48, -0.4), tone="dark")


@_category("woman", "face")
def _woman(c: Canvas) -> None:
    c.ellipse(0.0, -0.1, 0.85, 0.85, tone="dark")
    c.box(0.0, 0.45, 0.82 + 0.05 * c.shape[:, 1], 0.5, tone="dark")
    _face(c)
    c.stroke(-0.05, -0.75, -0.55, -0.25, 0.14, tone="dark")
    c.stroke(-0.05, -0.75, 0.55, -0.25, 0.14, tone="dark")


@_category("dancer", "body")
def _dancer(c: Canvas) -> None:
    s = c.shape
    reach, step = 0.35 * s[:, 0], 0.12 * s[:, 1]
    for side in (-1, 1):
        foot = side * 0.42 + step
        c.stroke(side * 0.14, 0.1, foot, 0.52, 0.12, tone="shade")
        c.stroke(foot, 0.52, foot * 1.05, 0.92, 0.09, tone="shade")
        hand = -0.55 + side * reach
        c.stroke(side * 0.22, -0.45, side * 0.62, -0.32, 0.09)
        c.stroke(side * 0.62, -0.32, side * 0.8, hand, 0.075, tone="bright")
    c.polygon((-0.19, -0.1), (0.19, -0.1), (0.3, 0.22), (-0.3, 0.22), tone="shade")
    c.polygon((-0.32, -0.55), (0.32, -0.55), (0.19, 0.02), (-0.19, 0.02))
    c.ellipse(0.0, -0.77, 0.17, 0.2, tone="bright")


@_category("hand", "body")
def _hand(c: Canvas) -> None:
    s = c.shape
    spread = 0.1 + 0.03 * s[:, 0]
    c.box(0.0, 0.75, 0.27, 0.3, tone="shade")
    for i, length in enumerate((0.55, 0.7, 0.72, 0.5)):
        x = -0.38 + 0.25 * i
        tip = x + spread * (i - 1.5)
        c.stroke(x, 0.05, tip, -0.2 - length * (1 + 0.06 * s[:, 1]), 0.115)
        c.ellipse(tip, -0.2 - length * (1 + 0.06 * s[:, 1]), 0.07, 0.09, tone="bright")
    c.stroke(0.3, 0.4, 0.82 + 0.06 * s[:, 2], -0.02, 0.13)
    c.ellipse(0.0, 0.25, 0.5, 0.4)
    c.stroke(-0.28, 0.1, 0.2, 0.2, 0.025, tone="shade")


@_category("fish", "animal")
def _fish(c: Canvas) -> None:
    s = c.shape
    b = 0.4 + 0.07 * s[:, 0]
    c.polygon((0.5, 0.0), (0.97, -0.42 + 0.08 * s[:, 1]), (0.82, 0.0), tone="shade")
    c.polygon((0.5, 0.0), (0.82, 0.0), (0.97, 0.42 - 0.08 * s[:, 1]), tone="shade")
    c.polygon((-0.25, -0.3), (0.1, -0.68), (0.4, -0.2), tone="shade")
    c.polygon((-0.1, 0.3), (0.3, 0.25), (0.15, 0.6), tone="shade")
    c.ellipse(-0.1, 0.0, 0.75, b)
    c.ellipse(-0.15, 0.16, 0.5, b * 0.5, tone="bright")
    c.stroke(-0.4, -0.22, -0.36, 0.22, 0.03, tone="shade")
    c.ellipse(-0.58, -0.09, 0.1, 0.1, tone="light")
    c.ellipse(-0.6, -0.09, 0.05, 0.05, tone="dark")


@_category("cat", "animal")
def _cat(c: Canvas) -> None:
    s = c.shape
    tail = -0.55 + 0.2 * s[:, 0]
    c.stroke(0.55, 0.25, 0.88, -0.1, 0.08, tone="shade")
    c.stroke(0.88, -0.1, 0.8, tail, 0.07, tone="shade")
    for x in (-0.35, -0.12, 0.3, 0.52):
        c.stroke(x, 0.3, x, 0.85, 0.09, tone="shade" if x in (-0.12, 0.3) else "own")
    c.ellipse(0.1, 0.2, 0.6, 0.32 + 0.04 * s[:, 1])
    for side in (-1, 1):
        x = -0.5 + side * 0.22
        c.polygon((x - 0.14, -0.3), (x + side * 0.08, -0.82), (x + 0.14, -0.3))
    c.ellipse(-0.5, -0.2, 0.38, 0.33)
    for side in (-1, 1):
        c.ellipse(-0.5 + side * 0.15, -0.26, 0.085, 0.07, tone="light")
        c.ellipse(-0.5 + side * 0.15, -0.26, 0.035, 0.07, tone="dark")
        c.stroke(-0.5 + side * 0.15, -0.06, -0.5 + side * 0.5, -0.1, 0.015, tone="light")
    c.polygon((-0.56, -0.13), (-0.44, -0.13), (-0.5, -0.05), tone="dark")


@_category("house", "place")
def _house(c: Canvas) -> None:
    s = c.shape
    eave = -0.08 + 0.08 * s[:, 0]
    c.box(0.45, -0.55, 0.1, 0.25, tone="shade")
    c.box(0.0, 0.42, 0.7, 0.5)
    c.polygon((-0.9, eave), (-0.02, -0.85), (0.02, -0.85), (0.9, eave), tone="shade")
    c.box(0.05 * s[:, 1], 0.62, 0.14, 0.3, tone="dark")
    for side in (-1, 1):
        c.box(side * 0.43, 0.32, 0.15, 0.15, tone="light")
        c.stroke(side * 0.43, 0.2, side * 0.43, 0.44, 0.02, tone="dark")
        c.stroke(side * 0.43 - 0.12, 0.32, side * 0.43 + 0.12, 0.32, 0.02, tone="dark")


@_category("castle", "place")
def _castle(c: Canvas) -> None:
    s = c.shape
    top = -0.35 + 0.1 * s[:, 0]
    c.box(0.0, 0.42, 0.6, 0.5)
    for x in (-0.3, 0.0, 0.3):
        c.box(x, -0.13, 0.1, 0.1)
    for side in (-1, 1):
        c.box(side * 0.66, 0.3, 0.25, 0.62, tone="shade")
        c.polygon((side * 0.66 - 0.32, top), (side * 0.66, -0.95), (side * 0.66 + 0.32, top))
        c.box(side * 0.66, 0.0, 0.07, 0.13, tone="dark")
    c.ellipse(0.0, 0.55, 0.2, 0.24, tone="dark")
    c.box(0.0, 0.75, 0.2, 0.17, tone="dark")


@_category("apple", "food")
def _apple(c: Canvas) -> None:
    s = c.shape
    c.stroke(0.0, -0.45, 0.1 + 0.06 * s[:, 0], -0.9, 0.06, tone="dark")
    c.ellipse(0.38, -0.75, 0.27, 0.12, -0.4, tone="shade")
    for side in (-1, 1):
        c.ellipse(side * 0.3, 0.15, 0.52 + 0.04 * s[:, 1], 0.7)
    c.ellipse(0.0, -0.5, 0.2, 0.09, tone="shade")
    c.ellipse(-0.45, -0.1, 0.13, 0.24, 0.35, tone="bright")


@_category("ice cream", "food")
def _ice_cream(c: Canvas) -> None:
    s = c.shape
    c.polygon((-0.42, 0.0), (0.42, 0.0), (0.03, 0.97), (-0.03, 0.97), tone="shade")
    for k in (-0.25, 0.05, 0.35):
        c.stroke(k - 0.1, 0.05, 0.3 * k + 0.12, 0.6, 0.025, tone="dark")
    c.ellipse(0.0, -0.62, 0.34 + 0.04 * s[:, 1], 0.33, tone="light")
    for side in (-1, 1):
        c.ellipse(side * 0.27, -0.2, 0.38, 0.34 + 0.03 * s[:, 0])
    c.ellipse(-0.3, -0.32, 0.1, 0.1, tone="bright")
    c.ellipse(0.05, -0.93, 0.1, 0.09, tone="dark")


#: Strokes of letters and digits on a grid of x 0 .. 2 and y 0 (top) .. 4.
_GLYPHS: dict[str, str] = {
    "A": "0410 1024 0323",
    "C": "2000 0004 0424",
    "E": "0004 0020 0222 0424",
    "F": "0004 0020 0222",
    "H": "0004 2024 0222",
    "I": "1014",
    "L": "0004 0424",
    "N": "0004 0024 2420",
    "O": "0020 2024 2404 0400",
    "S": "2000 0002 0222 2224 2404",
    "T": "0020 1014",
    "U": "0004 0424 2420",
    "1": "1014",
    "2": "0020 2022 2202 0204 0424",
    "3": "0020 2024 0222 0424",
    "4": "0002 0222 2024",
    "5": "2000 0002 0222 2224 2404",
    "7": "0020 2014",
    "9": "2202 0200 0020 2024 2404",
}
WORDS = ("SEA", "TEN", "SUN", "HAT", "ICE", "OIL", "FAN", "LOT")
NUMBERS = ("125", "472", "937", "254", "749", "391", "523", "475")


def _letters(c: Canvas, words: tuple[str, ...]) -> None:
    """Paint one of the words on a plate; the first shape parameter says which."""
    which = np.clip(((c.shape[:, 0] + 1) / 2 * len(words)).astype(int), 0, len(words) - 1)
    lines = []
    for word in words:
        word_lines = []
        for place, glyph in enumerate(word):
            for line in _GLYPHS[glyph].split():
                x0, y0, x1, y1 = map(int, line)
                left = -0.72 + 0.56 * place
                ends = (left + 0.16 * x0, 0.15 * y0 - 0.3, left + 0.16 * x1, 0.15 * y1 - 0.3)
                word_lines.append(ends)
        lines.append(word_lines)
    most = max(map(len, lines))
    # Words with fewer strokes repeat their last one.
    table = np.asarray([ls + [ls[-1]] * (most - len(ls)) for ls in lines], dtype=np.float32)
    chosen = table[which]
    c.box(0.0, 0.0, 0.97, 0.55)
    distance = np.full_like(c.u, 9.0)
    for i in range(most):
        x0, y0, x1, y1 = np.ascontiguousarray(chosen[:, i].T)
        piece = shapes.stroke(c.u, c.v, x0, y0, x1, y1, 0.055)
        np.minimum(distance, piece, out=distance)
    c.paint(distance, "dark")


@_category("word", "word")
def _word(c: Canvas) -> None:
    _letters(c, WORDS)


@_category("number", "word")
def _number(c: Canvas) -> None:
    _letters(c, NUMBERS)


@_category("hammer", "tool")
def _hammer(c: Canvas) -> None:
    s = c.shape
    c.stroke(0.0, -0.4, 0.0, 0.88, 0.12 + 0.02 * s[:, 0])
    c.stroke(0.0, 0.35, 0.0, 0.88, 0.15, tone="shade")
    c.box(0.0, -0.6, 0.5, 0.17, tone="shade")
    c.box(-0.58, -0.6, 0.14, 0.25, tone="dark")
    c.polygon((0.45, -0.77), (0.9 + 0.05 * s[:, 1], -0.5), (0.45, -0.43), tone="dark")


@_category("scissors", "tool")
def _scissors(c: Canvas) -> None:
    s = c.shape
    gap = 0.24 + 0.1 * s[:, 0]
    for side in (-1, 1):
        c.polygon(
            *_clockwise(side, [(-0.1, 0.18), (0.1, 0.18), (0.02, -0.95), (-0.02, -0.95)], gap),
            tone="light" if side < 0 else "bright",
        )
        c.stroke(0.0, 0.1, side * 0.28, 0.42, 0.08, tone="shade")
        c.ring(side * 0.36, 0.65, 0.22 + 0.02 * s[:, 1], 0.09)
    c.ellipse(0.0, 0.08, 0.07, 0.07, tone="dark")


def _clockwise(
    side: int, corners: list[tuple[float, float]], gap: np.ndarray
) -> list[tuple[shapes.Value, shapes.Value]]:
    """Corners of a blade that leans by ``gap`` to one side, the tip last two, clockwise."""
    leaning = [(x - side * gap * (0.2 if y > 0 else 1.0) * 1.4, y) for x, y in corners]
    return [leaning[3], leaning[2], leaning[1], leaning[0]]


@_category("car", "vehicle")
def _car(c: Canvas) -> None:
    s = c.shape
    roof = -0.45 + 0.06 * s[:, 0]
    front = 0.3 + 0.08 * s[:, 1]
    c.polygon((-0.45, roof), (front, roof), (front + 0.3, 0.0), (-0.65, 0.0), tone="shade")
    c.polygon((-0.4, roof + 0.1), (-0.05, roof + 0.1), (-0.05, -0.02), (-0.55, -0.02), tone="light")
    c.polygon((0.03, roof + 0.1), (front - 0.04, roof + 0.1), (front + 0.17, -0.02), (0.03, -0.02),
              tone="light")  # fmt: skip
    c.box(0.0, 0.2, 0.95, 0.22)
    c.ellipse(0.88, 0.12, 0.09, 0.08, tone="light")
    for side in (-1, 1):
        c.ellipse(side * 0.55, 0.42, 0.24, 0.24, tone="dark")
        c.ellipse(side * 0.55, 0.42, 0.1, 0.1, tone="light")


@_category("boat", "vehicle")
def _boat(c: Canvas) -> None:
    s = c.shape
    c.stroke(0.0, -0.9, 0.0, 0.4, 0.045, tone="dark")
    c.polygon((-0.02 - 0.05, -0.85), (-0.07, 0.25), (-0.62 + 0.08 * s[:, 0], 0.25), tone="light")
    c.polygon((0.08, -0.7), (0.6 + 0.08 * s[:, 1], 0.25), (0.08, 0.25), tone="bright")
    c.polygon((-0.95, 0.38), (0.95, 0.38), (0.62, 0.85), (-0.62, 0.85))
    c.stroke(-0.8, 0.5, 0.8, 0.5, 0.04, tone="shade")


CATEGORIES: tuple[str, ...] = tuple(_DRAWINGS)
SUPERORDINATES: tuple[str, ...] = tuple(dict.fromkeys(SUPERORDINATE.values()))
