"""Tools."""

from __future__ import annotations

import numpy as np

from engramma.worlds import shapes
from engramma.worlds.canvas import Canvas, category
from engramma.worlds.shapes import when


@category("hammer", "tool")
def hammer(c: Canvas) -> None:
    """Paint a hammer with a face to the left and a claw or wedge to the right."""
    handle, claw, head, grip = c.shape.T
    a = 0.13 + 0.02 * handle
    c.box(0.0, 0.25, a, 0.7)
    c.line(a + 0.03, (0.0, 0.45 + 0.12 * grip), (0.0, 0.85), tone="dark")
    c.line(0.03, (0.0, 0.5 + 0.12 * grip), (0.0, 0.85), tone="light")
    b = 0.19 + 0.03 * head
    c.box(0.0, -0.6, 0.5, b)
    c.box(-0.6, -0.6, 0.15, b + 0.08, tone="shade")
    c.polygon((0.4, -0.6 - b), (0.95, -0.45 + 0.25 * claw), (0.4, -0.6 + b))
    c.box(0.0, -0.6, a + 0.05, b + 0.04, tone="bright")


@category("scissors", "tool")
def scissors(c: Canvas) -> None:
    """Paint an open pair of scissors."""
    gap, loops, blades, screw = c.shape.T
    lean = 0.2 + 0.13 * gap
    tip = -0.9 - 0.08 * blades
    for side, tone in ((-1, "light"), (1, "own")):
        x = side * 1.4 * lean
        corners = [
            (0.11 - 0.2 * x, 0.16),
            (-0.11 - 0.2 * x, 0.16),
            (x - 0.03, tip),
            (x + 0.03, tip),
        ]
        c.polygon(*corners, tone=tone)
        c.line(0.09, (0.0, 0.08), (-side * 0.28, 0.42), tone="shade")
        size = 0.23 + 0.03 * loops
        c.ring(-side * 0.36, 0.66, size, 0.11)
        c.ring(-side * 0.36, 0.66, size - 0.05, 0.035, tone="dark")
    c.ellipse(0.0, 0.04, 0.1 + 0.02 * screw, 0.1 + 0.02 * screw, tone="dark")


@category("key", "tool")
def key(c: Canvas) -> None:
    """Paint a key: a ring with or without lobes, a shaft and two or three teeth."""
    bow, teeth, length, hole = c.shape.T
    end = 0.8 + 0.12 * length
    c.line(0.115, (0.0, -0.1), (0.0, end))
    for k in range(3):
        y = end - 0.05 - 0.24 * k
        c.box(0.22 + 0.03 * k, y, when((teeth > 0) | (k < 2), 0.24), 0.085, tone="own")
    c.box(0.0, -0.06, 0.23, 0.08, tone="dark")
    size = 0.3 + 0.05 * hole
    for side in (-1, 1):
        c.ring(side * 0.38, -0.42, size - 0.12, when(bow > 0, 0.12))
    c.ring(0.0, -0.55, size, 0.15)
    c.ring(0.0, -0.55, size - 0.08, 0.045, tone="dark")
    c.ring(0.0, -0.55, size + 0.1, 0.02, tone="light")
    c.line(0.045, (-0.03, 0.1), (-0.03, end - 0.1), tone="light")


@category("saw", "tool")
def saw(c: Canvas) -> None:
    """Paint a hand saw: a long toothed blade and a handle with a hole."""
    teeth, taper, handle, length = c.shape.T
    pitch = shapes.per_scene(0.2 + 0.05 * teeth)
    left = -0.9 - 0.07 * length
    back = -0.02 + 0.1 * taper
    blade = shapes.polygon(c.u, c.v, ((left, back), (0.45, -0.35), (0.45, 0.32), (left, 0.32)))
    jag = np.abs((c.u / pitch) % 1 - 0.5) * pitch * 1.3
    jag += c.v - 0.36
    c.paint(np.maximum(blade, jag))
    c.line(0.03, (left + 0.15, back + 0.08), (0.4, -0.24), tone="light")
    grip = shapes.box(c.u, c.v, 0.64, -0.02, 0.14, 0.26, 0.25 + 0.15 * handle) - 0.1
    hole = shapes.ellipse(c.u, c.v, 0.66, 0.0, 0.1, 0.19, 0.25 + 0.15 * handle)
    c.paint(np.maximum(grip, -hole), "dark")
    c.ellipse(0.44, -0.22, 0.05, 0.05, tone="light")
    c.ellipse(0.44, 0.2, 0.05, 0.05, tone="light")
