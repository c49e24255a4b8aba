"""Written signs: words, numbers, letters and arrows on plates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engramma.worlds import shapes
from engramma.worlds.canvas import Canvas, category

#: Strokes of letters and digits on a grid of x 0 .. 2 and y 0 (top) .. 4.
_GLYPHS: dict[str, str] = {
    "A": "0410 1024 0323",
    "C": "2000 0004 0424",
    "E": "0004 0020 0222 0424",
    "F": "0004 0020 0222",
    "H": "0004 2024 0222",
    "I": "1014",
    "K": "0004 0220 0224",
    "L": "0004 0424",
    "N": "0004 0024 2420",
    "O": "0020 2024 2404 0400",
    "R": "0004 0020 2022 2202 0224",
    "S": "2000 0002 0222 2224 2404",
    "T": "0020 1014",
    "U": "0004 0424 2420",
    "Z": "0020 2004 0424",
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
LETTERS = ("A", "E", "H", "K", "N", "R", "T", "Z")


def _strokes(word: str, height: float) -> list[tuple[float, float, float, float]]:
    """Strokes of a word around the origin: x and y of both ends."""
    unit = height / 4
    pitch = 3.5 * unit
    start = -(len(word) - 1) / 2 * pitch - unit
    return [
        (start + i * pitch + unit * x0, unit * (y0 - 2), start + i * pitch + unit * x1,
         unit * (y1 - 2))
        for i, glyph in enumerate(word)
        for x0, y0, x1, y1 in (map(int, line) for line in _GLYPHS[glyph].split())
    ]  # fmt: skip


def _write(c: Canvas, words: Sequence[str], height: float, r: float) -> None:
    """Write one of the words; the first shape parameter says which."""
    which = ((c.shape[:, 0] + 1) / 2 * len(words)).astype(int).clip(0, len(words) - 1)
    lines = [_strokes(word, height) for word in words]
    most = max(len(lines[w]) for w in which)
    # Words with fewer strokes repeat their last one.
    table = np.asarray([(ls + [ls[-1]] * most)[:most] for ls in lines], dtype=np.float32)
    chosen = np.ascontiguousarray(table[which].transpose(1, 2, 0))
    pieces = [shapes.line(c.u, c.v, r, ((x0, y0), (x1, y1))) for x0, y0, x1, y1 in chosen]
    distance = pieces[0]
    for piece in pieces[1:]:
        np.minimum(distance, piece, out=distance)
    c.paint(distance, "dark")


def _plate(c: Canvas, a: shapes.Value, b: shapes.Value) -> None:
    c.box(0.0, 0.0, a, b, tone="light")
    c.box(0.0, 0.0, a - 0.045, b - 0.045)


@category("word", "word")
def word(c: Canvas) -> None:
    """Write a word of three letters on a wide plate."""
    _plate(c, 0.97 + 0.03 * c.shape[:, 1], 0.54 + 0.08 * c.shape[:, 2])
    _write(c, WORDS, 0.6, 0.055)


@category("number", "word")
def number(c: Canvas) -> None:
    """Write a number of three digits on a wide plate."""
    _plate(c, 0.97 + 0.03 * c.shape[:, 1], 0.54 + 0.08 * c.shape[:, 2])
    _write(c, NUMBERS, 0.6, 0.055)


@category("letter", "word")
def letter(c: Canvas) -> None:
    """Write a single letter on a square plate."""
    _plate(c, 0.7 + 0.08 * c.shape[:, 1], 0.74 + 0.06 * c.shape[:, 2])
    _write(c, LETTERS, 0.9, 0.1)


@category("arrow", "word")
def arrow(c: Canvas) -> None:
    """Paint an arrow, in one of four directions, on a round sign."""
    way, long, head, plate = c.shape.T
    a = 0.74 + 0.06 * plate
    c.ellipse(0.0, 0.0, a, a, tone="light")
    c.ellipse(0.0, 0.0, a - 0.05, a - 0.05)
    angle = np.float32(np.pi / 2) * np.floor(2 * way)
    cos, sin = np.cos(angle), np.sin(angle)

    def turned(x: shapes.Value, y: shapes.Value) -> shapes.Point:
        return cos * x - sin * y, sin * x + cos * y

    tail, tip, wing = -0.4 - 0.06 * long, 0.5, 0.28 + 0.06 * head
    shaft = shapes.line(c.u, c.v, 0.085, (turned(tail, 0.0), turned(0.2, 0.0)))
    point = shapes.polygon(c.u, c.v, (turned(0.0, -wing), turned(tip, 0.0), turned(0.0, wing)))
    c.paint(np.minimum(shaft, point), "dark")
