"""Food."""

from __future__ import annotations

import numpy as np

from engramma.worlds import shapes
from engramma.worlds.canvas import Canvas, category
from engramma.worlds.shapes import when


@category("apple", "food")
def apple(c: Canvas) -> None:
    """Paint an apple with a stalk and a leaf, with or without a bite."""
    stalk, width, bite, leaf = c.shape.T
    c.line(0.075, (0.0, -0.4), (0.14 * stalk, -0.9), tone="dark")
    c.ellipse(0.42, -0.7 + 0.06 * leaf, 0.38, 0.21, -0.35 + 0.3 * leaf, tone="dark")
    a = 0.48 + 0.08 * width
    halves = [shapes.ellipse(c.u, c.v, side * 0.32, 0.16, a, 0.68) for side in (-1, 1)]
    fruit = np.minimum(*halves)
    c.paint(fruit.copy())
    x = np.where(bite > 0, 0.86, 2.5).astype(np.float32)
    c.paint(np.maximum(fruit, shapes.ellipse(c.u, c.v, x, 0.12, 0.42, 0.42)), "light")
    c.ellipse(0.0, -0.42, 0.26, 0.13, tone="dark")
    c.ellipse(-0.5, -0.1, 0.13, 0.26, 0.35, tone="light")


@category("ice cream", "food")
def ice_cream(c: Canvas) -> None:
    """Paint scoops of ice cream on a waffle cone, two or three of them."""
    lean, cone, scoops, cherry = c.shape.T
    c.polygon((-0.44, 0.05), (0.44, 0.05), (0.03, 0.97), (-0.03, 0.97), tone="shade")
    for x, end in ((-0.3, 0.12), (-0.02, 0.24), (0.22, 0.34)):
        c.line(0.025, (x, 0.12), (end * 0.9, 0.75 - end + 0.12 * cone), tone="dark")
        c.line(0.025, (-x, 0.12), (-end * 0.9, 0.75 - end + 0.12 * cone), tone="dark")
    top = 0.16 * lean
    c.ellipse(top + 0.08, -0.88 + 0.05 * cherry, 0.11, 0.1, tone="dark")
    c.ellipse(top, -0.54, 0.33, 0.31, tone="shade")
    c.ellipse(top, -0.62, 0.29, 0.25, tone="light")
    for side in (-1, 1):
        c.ellipse(side * (0.27 + 0.03 * scoops), -0.14, 0.36, 0.34)
    c.line(0.09, (-0.5, 0.1), (0.5, 0.1))


@category("pizza", "food")
def pizza(c: Canvas) -> None:
    """Paint a slice of pizza, point downwards, with a crust and toppings."""
    width, places, olives, bend = c.shape.T
    a = 0.74 + 0.1 * width
    tip = 0.2 * bend
    c.polygon((-a, -0.55), (a, -0.55), (tip + 0.04, 0.97), (tip - 0.04, 0.97))
    c.line(0.17, (-a, -0.6), (0.0, -0.72), (a, -0.6), tone="shade")
    c.line(0.07, (-a, -0.66), (0.0, -0.78), (a, -0.66))
    for x, y in ((-0.36, -0.2), (0.36, -0.25), (0.02, 0.3)):
        c.ellipse(x + 0.08 * places, y, 0.17, 0.16, tone="dark")
    for k, (x, y) in enumerate(((0.0, -0.3), (-0.24, 0.12), (0.26, 0.1), (0.08, 0.62))):
        c.line(when(olives > 0.6 * k - 1.4, 0.1), (x, y), (x + 0.08, y + 0.05), tone="light")


@category("cake", "food")
def cake(c: Canvas) -> None:
    """Paint a birthday cake on a plate: icing that drips, and one to four candles."""
    height, candles, drips, width = c.shape.T
    a, top = 0.68 + 0.08 * width, -0.05 - 0.12 * height
    for k, x in enumerate((-0.1, 0.3, -0.45, 0.55)):
        shown = when(candles > 0.5 * k - 1.01, 0.055)
        c.box(x, top - 0.22, shown, 0.24, tone="shade")
        c.line(shown + 0.02, (x, top - 0.52), (x, top - 0.6), tone="light")
    c.line(0.09, (-0.86, 0.81), (0.86, 0.81), tone="shade")
    c.box(0.0, (top + 0.8) / 2, a, (0.8 - top) / 2)
    c.box(0.0, (top + 0.8) / 2 + 0.2, a, 0.04, tone="dark")
    wave = top + 0.11 + 0.05 * drips
    c.ellipse(0.0, top, a, 0.08, tone="light")
    for k in range(-2, 3):
        low = wave + 0.09 * (-1) ** k
        c.line(0.06, (0.29 * k * a / 0.68, top), (0.29 * k * a / 0.68, low), tone="light")
