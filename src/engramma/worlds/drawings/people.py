"""Faces and bodies."""

from __future__ import annotations

import numpy as np

from engramma.worlds import shapes
from engramma.worlds.canvas import Canvas, category
from engramma.worlds.shapes import Value


def _eyes(c: Canvas, y: Value, apart: Value, size: float) -> None:
    for side in (-1, 1):
        c.ellipse(side * apart, y, size, 0.75 * size, tone="light")
        c.ellipse(side * apart, y, 0.5 * size, 0.65 * size, tone="dark")


@category("man", "face")
def man(c: Canvas) -> None:
    """Paint a broad face with short hair, thick brows, a moustache and more or less beard."""
    jaw, eyes, hair, beard = c.shape.T
    a, y = 0.6 + 0.06 * jaw, -0.08 + 0.06 * eyes
    for side in (-1, 1):
        c.ellipse(side * (a + 0.04), 0.05, 0.12, 0.18, tone="shade")
    c.ellipse(0.0, -0.34, a + 0.04, 0.6, tone="dark")
    head = shapes.box(c.u, c.v, 0.0, 0.05, a - 0.25, 0.55) - 0.25
    c.paint(head.copy())
    line = 0.72 + 0.2 * beard
    c.paint(np.maximum(head, shapes.per_scene(line) - c.v), "dark")
    fringe = c.v + 0.52 + shapes.per_scene(0.3 * hair) * c.u
    c.paint(np.maximum(head, fringe + 0.06), "dark")
    _eyes(c, y, 0.27, 0.14)
    for side in (-1, 1):
        c.line(0.05, (side * 0.13, y - 0.18), (side * 0.42, y - 0.2), tone="dark")
    c.line(0.07, (0.0, y + 0.1), (-0.03, 0.28), (0.04, 0.28), tone="shade")
    c.line(0.07, (-0.26, 0.48), (0.0, 0.41), (0.26, 0.48), tone="dark")
    c.box(0.0, 0.6, 0.17, 0.06, tone="light")


@category("woman", "face")
def woman(c: Canvas) -> None:
    """Paint a narrow face in long hair, with full lips and earrings."""
    width, length, parting, eyes = c.shape.T
    y = -0.06 + 0.06 * eyes
    low = 0.62 + 0.22 * length
    c.ellipse(0.0, -0.2, 0.76 + 0.06 * width, 0.76, tone="shade")
    for side in (-1, 1):
        lock = side * (0.6 + 0.08 * width)
        c.line(0.19, (side * 0.56, -0.2), (lock, low), tone="shade")
    c.box(0.0, 0.78, 0.17, 0.2)
    c.ellipse(0.0, 0.1, 0.52, 0.72)
    for side in (-1, 1):
        c.line(0.1, (0.2 * parting, -0.76), (side * 0.52, -0.3), (side * 0.6, 0.1), tone="dark")
        c.line(0.03, (side * 0.12, y - 0.16), (side * 0.34, y - 0.19), tone="dark")
        c.ellipse(side * 0.53, 0.42, 0.1, 0.13, tone="light")
    _eyes(c, y, 0.23, 0.14)
    c.line(0.035, (0.0, 0.1), (-0.03, 0.27), (0.04, 0.27), tone="shade")
    c.ellipse(0.0, 0.49, 0.2, 0.09, tone="dark")
    c.line(0.025, (-0.1, 0.48), (0.1, 0.48), tone="bright")


@category("child", "face")
def child(c: Canvas) -> None:
    """Paint a round face with large low eyes, a tuft of hair and a wide smile."""
    width, tuft, smile, eyes = c.shape.T
    a = 0.78 + 0.07 * width
    for side in (-1, 1):
        c.ellipse(side * (a + 0.02), 0.22, 0.14, 0.16, tone="shade")
    for k in (-1, 0, 1):
        tip = 0.22 * k + 0.25 * tuft
        c.line(0.07, (0.1 * k, -0.5), (tip, -0.92 + 0.08 * abs(k)), tone="dark")
    head = shapes.ellipse(c.u, c.v, 0.0, 0.15, a, 0.75)
    c.paint(head.copy())
    c.paint(np.maximum(head, c.v + 0.3 + 0.2 * np.abs(c.u)), "dark")
    _eyes(c, 0.14 + 0.06 * eyes, 0.33, 0.2)
    for side in (-1, 1):
        c.ellipse(side * 0.52, 0.45, 0.15, 0.11, tone="bright")
    c.ellipse(0.0, 0.33, 0.07, 0.06, tone="shade")
    mouth = shapes.ellipse(c.u, c.v, 0.0, 0.5, 0.3 + 0.1 * smile, 0.23)
    c.paint(np.maximum(mouth, 0.52 - c.v), "dark")


@category("clown", "face")
def clown(c: Canvas) -> None:
    """Paint a face with curls at the sides, a pointed hat, a large nose and a painted mouth."""
    hat, curls, nose, mouth = c.shape.T
    for side in (-1, 1):
        for x, y in ((0.6, -0.25), (0.74, 0.05), (0.62, 0.33)):
            c.ellipse(side * (x + 0.05 * curls), y, 0.25, 0.24)
    c.ellipse(0.0, 0.22, 0.64, 0.73, tone="shade")
    c.ellipse(0.0, 0.22, 0.59, 0.68)
    tip = 0.35 * hat
    c.polygon((tip - 0.03, -1.0), (tip + 0.03, -1.0), (0.45, -0.3), (-0.45, -0.3), tone="dark")
    c.ellipse(tip, -0.98, 0.13, 0.13, tone="light")
    for side in (-1, 1):
        c.line(0.035, (side * 0.26, -0.2), (side * 0.26, 0.24), tone="dark")
        c.ellipse(side * 0.26, 0.02, 0.11, 0.11, tone="dark")
    c.ellipse(0.0, 0.58, 0.4 + 0.06 * mouth, 0.2, tone="light")
    c.line(0.05, (-0.26, 0.53), (0.0, 0.63 + 0.06 * mouth), (0.26, 0.53), tone="dark")
    size = 0.18 + 0.04 * nose
    c.ellipse(0.0, 0.27, size, size, tone="shade")
    c.ellipse(-0.06, 0.21, 0.06, 0.06, tone="bright")


@category("dancer", "body")
def dancer(c: Canvas) -> None:
    """Paint a dancer in a short skirt on the toes of one leg, arms and other leg lifted."""
    arms, leg, skirt, bend = c.shape.T
    c.line(0.1, (0.03, 0.15), (0.0, 0.55), (0.03, 0.94), tone="shade")
    c.line(0.1, (0.02, 0.75), (0.03, 0.95), tone="dark")
    knee = 0.45 + 0.05 * leg
    c.line(0.1, (0.05, 0.15), (knee, 0.4), (knee + 0.15 + 0.2 * leg, 0.6 - 0.25 * leg),
           tone="shade")  # fmt: skip
    lean = 0.12 * bend
    for side in (-1, 1):
        hand = (side * (0.5 + 0.2 * arms) + lean, -0.8 + 0.25 * arms)
        c.line(0.085, (side * 0.15 + lean, -0.42), (side * 0.5 + lean, -0.52), hand)
    c.polygon((lean - 0.2, -0.5), (lean + 0.2, -0.5), (0.13, 0.0), (-0.13, 0.0))
    width = 0.5 + 0.1 * skirt
    c.polygon((-0.13, -0.1), (0.13, -0.1), (width, 0.22), (-width, 0.22))
    c.line(0.05, (-width, 0.22), (width, 0.22), tone="light")
    c.line(0.07, (-0.14, 0.0), (0.14, 0.0), tone="dark")
    c.ellipse(lean, -0.95, 0.1, 0.1, tone="dark")
    c.ellipse(lean, -0.76, 0.18, 0.19, tone="dark")
    c.ellipse(lean, -0.71, 0.15, 0.16)


@category("runner", "body")
def runner(c: Canvas) -> None:
    """Paint a runner seen from the side, leaning forward in full stride."""
    stride, arms, lean, lift = c.shape.T
    x = 0.2 + 0.12 * lean
    shoulder, hip = (x, -0.42), (-0.05, 0.15)
    back = -0.55 - 0.12 * stride
    c.line(0.085, shoulder, (x - 0.38, -0.25), (x - 0.55, -0.02 - 0.2 * arms), tone="shade")
    c.line(0.12, hip, (-0.3, 0.55), (back, 0.5 + 0.2 * lift), tone="shade")
    c.line(0.08, (back, 0.5 + 0.2 * lift), (back - 0.12, 0.66 + 0.2 * lift), tone="dark")
    c.line(0.13, hip, (0.4 + 0.1 * stride, 0.32 - 0.1 * lift), (0.38, 0.82))
    c.line(0.08, (0.38, 0.86), (0.6, 0.86), tone="light")
    c.line(0.19, (x - 0.02, -0.34), hip)
    c.line(0.14, hip, (0.15, 0.2), tone="dark")
    c.line(0.085, shoulder, (x + 0.12, -0.08), (x + 0.45, -0.2 - 0.22 * arms))
    c.ellipse(x + 0.1, -0.77, 0.2, 0.21, tone="dark")
    c.ellipse(x + 0.15, -0.72, 0.16, 0.17)
    c.line(0.045, (x - 0.08, -0.84), (x + 0.28, -0.84), tone="light")


@category("hand", "body")
def hand(c: Canvas) -> None:
    """Paint an open hand with a sleeve, fingers more or less spread."""
    spread, length, thumb, sleeve = c.shape.T
    c.box(0.0, 0.72, 0.26, 0.2)
    c.box(0.0, 0.78, 0.43, 0.2 + 0.06 * sleeve, tone="dark")
    c.box(0.0, 0.6, 0.43, 0.07, tone="light")
    for i, reach in enumerate((0.5, 0.68, 0.72, 0.56)):
        x = -0.37 + 0.24 * i
        tip = (x + (0.12 + 0.1 * spread) * (i - 1.5), -0.22 - reach * (0.95 + 0.1 * length))
        c.line(0.115, (x, 0.05), tip)
        c.ellipse(*tip, 0.075, 0.09, tone="light")
    c.line(0.13, (0.3, 0.4), (0.72 + 0.1 * thumb, -0.05 + 0.2 * thumb))
    c.ellipse(0.0, 0.22, 0.48, 0.42)
    c.line(0.03, (-0.3, 0.1), (0.2, 0.2), tone="shade")
    c.line(0.03, (0.3, -0.02), (0.05, 0.08), (0.0, 0.45), tone="shade")


@category("foot", "body")
def foot(c: Canvas) -> None:
    """Paint a bare foot from above: five toes, the ball, the waist and the ankle in a sock."""
    spread, waist, length, sock = c.shape.T
    c.box(0.04, 0.7, 0.34, 0.29 + 0.05 * sock, tone="dark")
    c.box(0.04, 0.45, 0.34, 0.07, tone="light")
    c.ellipse(-0.02, -0.1, 0.46, 0.42, 0.3)
    c.line(0.22 + 0.06 * waist, (0.0, 0.0), (0.03, 0.3))
    sizes = (0.19, 0.135, 0.125, 0.115, 0.105)
    places = ((-0.4, -0.66), (-0.1, -0.72), (0.14, -0.62), (0.34, -0.47), (0.5, -0.28))
    for size, (x, y) in zip(sizes, places, strict=True):
        top = y - 0.08 - 0.06 * length
        c.line(size, (0.8 * x, y + 0.3), (x * (1 + 0.12 * spread), top))
        c.ellipse(x * (1 + 0.12 * spread), top - 0.04, 0.55 * size, 0.6 * size, tone="light")
    c.line(0.025, (-0.1, -0.25), (-0.05, 0.1), tone="shade")
    c.line(0.025, (0.14, -0.2), (0.08, 0.12), tone="shade")
