"""Animals."""

from __future__ import annotations

import numpy as np

from engramma.worlds import shapes
from engramma.worlds.canvas import Canvas, category


@category("fish", "animal")
def fish(c: Canvas) -> None:
    """Paint a fish that swims to the left, slim or deep, with stripes."""
    depth, tail, fin, stripes = c.shape.T
    b = 0.42 + 0.12 * depth
    end = 0.42 + 0.12 * tail
    c.polygon((0.5, 0.0), (0.97, -end), (0.82, 0.0), tone="shade")
    c.polygon((0.5, 0.0), (0.82, 0.0), (0.97, end), tone="shade")
    top = -0.66 - 0.12 * fin
    c.polygon((-0.3, -0.25), (0.1, top), (0.45, -0.15), tone="dark")
    c.polygon((-0.1, 0.3), (0.3, 0.2), (0.2, 0.62), tone="dark")
    body = shapes.ellipse(c.u, c.v, -0.1, 0.0, 0.75, b)
    c.paint(body.copy())
    for k in range(2):
        x = 0.05 + 0.28 * k + 0.06 * stripes
        c.paint(np.maximum(body, shapes.box(c.u, c.v, x, 0.0, 0.06, 0.7)), "light")
    c.line(0.035, (-0.38, -0.25), (-0.3, 0.0), (-0.38, 0.25), tone="shade")
    c.ellipse(-0.57, -0.09, 0.12, 0.12, tone="light")
    c.ellipse(-0.59, -0.09, 0.065, 0.07, tone="dark")
    c.line(0.03, (-0.82, 0.1), (-0.66, 0.14), tone="dark")


@category("cat", "animal")
def cat(c: Canvas) -> None:
    """Paint a standing cat that looks at us: pointed ears, whiskers, a long tail."""
    tail, body, head, ears = c.shape.T
    c.line(0.075, (0.55, 0.2), (0.85, -0.1), (0.78 + 0.14 * tail, -0.62), tone="shade")
    for x in (-0.2, 0.34):
        c.line(0.09, (x, 0.3), (x, 0.85), tone="shade")
    for x in (-0.4, 0.56):
        c.line(0.09, (x, 0.3), (x, 0.85))
        c.ellipse(x - 0.03, 0.87, 0.12, 0.08, tone="light")
    c.ellipse(0.1, 0.2, 0.6, 0.32 + 0.06 * body)
    for x in (0.12, 0.32, 0.52):
        c.line(0.06, (x, -0.06), (x, 0.2), tone="dark")
    y = -0.24 + 0.1 * head
    for side in (-1, 1):
        x = -0.45 + side * 0.25
        tip = (x + side * 0.1, y - 0.6 - 0.08 * ears)
        c.polygon((x - 0.15, y - 0.1), tip, (x + 0.15, y - 0.1))
        c.polygon((x - 0.06, y - 0.2), (x + side * 0.07, y - 0.45), (x + 0.07, y - 0.2),
                  tone="dark")  # fmt: skip
    c.ellipse(-0.45, y, 0.42, 0.35)
    for side in (-1, 1):
        x = -0.45 + side * 0.17
        c.ellipse(x, y - 0.06, 0.11, 0.09, tone="light")
        c.ellipse(x, y - 0.06, 0.04, 0.09, tone="dark")
        for k in (-1, 1):
            c.line(0.018, (x, y + 0.16), (x + side * 0.33, y + 0.16 + 0.07 * k), tone="light")
    c.polygon((-0.52, y + 0.08), (-0.38, y + 0.08), (-0.45, y + 0.18), tone="dark")


@category("dog", "animal")
def dog(c: Canvas) -> None:
    """Paint a dog from the side: a long muzzle, a hanging ear, a lifted tail and a collar."""
    tail, legs, ear, muzzle = c.shape.T
    c.line(0.075, (0.6, 0.05), (0.9, -0.3 - 0.18 * tail), tone="shade")
    for x in (-0.18, 0.42):
        c.line(0.09, (x, 0.3), (x + 0.1 * legs, 0.84), tone="shade")
    for x in (-0.32, 0.58):
        c.line(0.1, (x, 0.3), (x - 0.1 * legs, 0.84))
        c.line(0.07, (x - 0.1 * legs - 0.09, 0.87), (x - 0.1 * legs, 0.87), tone="light")
    c.line(0.27, (-0.2, 0.18), (0.45, 0.2))
    c.ellipse(0.3, 0.12, 0.2, 0.14, tone="dark")
    c.line(0.17, (-0.28, 0.1), (-0.42, -0.35))
    c.line(0.055, (-0.5, -0.08), (-0.22, -0.02), tone="light")
    tip = -0.83 - 0.08 * muzzle
    c.line(0.13, (-0.5, -0.36), (tip, -0.28))
    c.ellipse(-0.45, -0.45, 0.28, 0.26)
    c.line(0.1, (-0.28, -0.6), (-0.18 + 0.1 * ear, -0.22), tone="dark")
    c.ellipse(tip - 0.08, -0.34, 0.08, 0.08, tone="dark")
    c.ellipse(-0.56, -0.5, 0.075, 0.075, tone="light")
    c.ellipse(-0.58, -0.5, 0.045, 0.05, tone="dark")
    c.line(0.025, (tip, -0.2), (-0.6, -0.24), tone="dark")


@category("bird", "animal")
def bird(c: Canvas) -> None:
    """Paint a perching bird from the side, its wing folded or raised."""
    wing, tail, head, beak = c.shape.T
    for x in (-0.1, 0.12):
        c.line(0.04, (x, 0.4), (x, 0.86), (x - 0.16, 0.9), tone="dark")
    y = 0.12 - 0.25 * tail
    c.polygon((0.3, -0.05), (0.98, y - 0.12), (0.98, y + 0.14), (0.3, 0.3), tone="shade")
    c.polygon((0.7, -0.02), (0.98, y - 0.12), (0.98, y + 0.14), (0.7, 0.22), tone="dark")
    c.ellipse(0.02, 0.12, 0.55, 0.4, 0.25)
    c.ellipse(-0.22, 0.22, 0.27, 0.27, tone="light")
    top = -0.42 + 0.08 * head
    c.line(0.24, (-0.3, 0.0), (-0.4, top))
    c.polygon((-0.98 - 0.08 * beak, top + 0.05), (-0.58, top - 0.12), (-0.58, top + 0.17),
              tone="dark")  # fmt: skip
    c.ellipse(-0.42, top - 0.02, 0.29, 0.27)
    c.ellipse(-0.48, top - 0.06, 0.09, 0.09, tone="light")
    c.ellipse(-0.5, top - 0.06, 0.055, 0.06, tone="dark")
    lift = -0.25 - 0.5 * wing
    c.polygon((-0.15, 0.0), (0.4, np.minimum(lift, 0.0)), (0.62, np.minimum(lift + 0.12, 0.1)),
              (0.3, 0.35), (0.0, 0.3), tone="shade")  # fmt: skip
