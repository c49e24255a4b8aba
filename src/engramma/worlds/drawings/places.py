"""Places: buildings and a bridge."""

from __future__ import annotations

import numpy as np

from engramma.worlds import shapes
from engramma.worlds.canvas import Canvas, category
from engramma.worlds.shapes import when


def _window(c: Canvas, x: shapes.Value, y: shapes.Value, a: shapes.Value) -> None:
    """Paint a bright window with a cross of bars."""
    c.box(x, y, a, a, tone="light")
    thin = np.minimum(a, 0.025)
    c.box(x, y, thin, a, tone="dark")
    c.box(x, y, a, thin, tone="dark")


@category("house", "place")
def house(c: Canvas) -> None:
    """Paint a house with a pitched roof, a chimney, a door and two or four windows."""
    roof, door, floors, width = c.shape.T
    a = 0.68 + 0.08 * width
    ridge = -0.75 - 0.15 * roof
    c.box(0.42, -0.55, 0.11, 0.3, tone="dark")
    c.box(0.0, 0.42, a, 0.52)
    c.polygon((-a - 0.2, -0.06), (-0.03, ridge), (0.03, ridge), (a + 0.2, -0.06), tone="shade")
    c.box(0.35 * door, 0.68, 0.14, 0.26, tone="dark")
    for side in (-1, 1):
        _window(c, side * 0.4, 0.16, 0.14)
    c.ellipse(0.0, -0.32, 0.11, 0.11, tone="light")
    for side in (-1, 1):
        _window(c, side * 0.52, 0.62, when(floors * np.sign(door + side * 0.5) > 0, 0.12))


@category("castle", "place")
def castle(c: Canvas) -> None:
    """Paint a castle: two towers with battlements or pointed roofs, a wall and a gate."""
    height, roof, gate, keep = c.shape.T
    top = -0.32 - 0.12 * height
    hidden = shapes.per_scene(np.where(roof > 0, 0.0, 9.0))
    c.box(0.0, 0.1, 0.26, 0.45 + 0.1 * keep, tone="shade")
    for x in (-0.2, 0.0, 0.2):
        c.box(x, -0.37 - 0.1 * keep, 0.06, 0.08, tone="shade")
    c.box(0.0, 0.48, 0.6, 0.4)
    for x in (-0.33, -0.11, 0.11, 0.33):
        c.box(x, 0.05, 0.065, 0.1)
    for side in (-1, 1):
        x = side * 0.66
        c.line(0.025, (x, top), (x, -1.0), tone="dark")
        c.box(x, (top + 0.88) / 2, 0.24, (0.88 - top) / 2)
        for k in (-1, 0, 1):
            c.box(x + 0.2 * k, top - 0.05, 0.065, 0.1)
        cone = shapes.polygon(
            c.u, c.v, ((x - 0.32, top), (x - 0.02, -0.98), (x + 0.02, -0.98), (x + 0.32, top))
        )
        c.paint(cone + hidden, "dark")
        c.box(x, 0.0, 0.07, 0.14, tone="light")
        c.box(x, 0.5, 0.07, 0.12, tone="light")
    c.ellipse(0.0, 0.58, 0.2 + 0.04 * gate, 0.24, tone="dark")
    c.box(0.0, 0.75, 0.2 + 0.04 * gate, 0.17, tone="dark")


@category("church", "place")
def church(c: Canvas) -> None:
    """Paint a church: a tall tower with a spire and a cross beside a nave with arched windows."""
    spire, nave, windows, clock = c.shape.T
    c.line(0.03, (-0.5, -0.99), (-0.5, -0.6), tone="dark")
    c.line(0.03, (-0.62, -0.88), (-0.38, -0.88), tone="dark")
    long = 0.8 + 0.1 * nave
    c.polygon((-0.4, 0.0), (-0.2, -0.28), (long - 0.14, -0.28), (long + 0.1, 0.12), (-0.4, 0.12),
              tone="dark")  # fmt: skip
    c.box(long / 2 - 0.2, 0.48, long / 2 + 0.2, 0.4)
    base = -0.28 + 0.1 * spire
    c.box(-0.5, (base + 0.88) / 2, 0.28, (0.88 - base) / 2)
    c.polygon((-0.84, base), (-0.52, -0.82), (-0.48, -0.82), (-0.16, base), tone="shade")
    c.ellipse(-0.5, -0.02 + 0.05 * clock, 0.13, 0.13, tone="light")
    c.line(0.02, (-0.5, -0.1 + 0.05 * clock), (-0.5, -0.02), (-0.42, -0.02), tone="dark")
    c.line(0.12, (-0.5, 0.56), (-0.5, 0.78), tone="dark")
    for k in range(3):
        x = 0.0 + 0.3 * k
        shown = when((windows > 0) | (k != 1), 0.08)
        c.line(shown, (x, 0.35), (x, 0.68), tone="light")


@category("bridge", "place")
def bridge(c: Canvas) -> None:
    """Paint a stone bridge: arches under a humped roadway with a parapet and lamps."""
    arches, hump, height, lamps = c.shape.T
    pitch = shapes.per_scene(0.64 + 0.18 * np.sign(arches))
    rise = c.v - shapes.per_scene(0.25 + 0.2 * hump) * (c.u * c.u)
    for side in (-1, 1):
        x = side * (0.5 + 0.1 * lamps)
        c.line(0.04, (x, 0.0), (x, -0.66), tone="dark")
        c.ellipse(x, -0.7, 0.13, 0.13, tone="light")
    wall = np.maximum(np.abs(rise - 0.22) - 0.45, shapes.box(c.u, c.v, 0.0, 0.0, 0.96, 0.8))
    along = (c.u + 0.5 * pitch) % pitch - 0.5 * pitch
    low = shapes.per_scene(0.62 + 0.08 * height)
    a = 0.38 * pitch
    arch = np.sqrt((along / a) ** 2 + ((c.v - low) / 0.5) ** 2) - 1
    c.paint(np.maximum(wall, -arch * 0.3))
    rim = np.maximum(np.abs(arch * 0.3) - 0.04, wall)
    c.paint(np.maximum(rim, c.v - low - 0.05), "shade")
    c.paint(np.maximum(np.abs(rise + 0.13) - 0.055, np.abs(c.u) - 0.96), "dark")
