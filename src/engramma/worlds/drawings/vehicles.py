"""Vehicles."""

from __future__ import annotations

from engramma.worlds import shapes
from engramma.worlds.canvas import Canvas, category
from engramma.worlds.shapes import when


@category("car", "vehicle")
def car(c: Canvas) -> None:
    """Paint a car from the side: a saloon or an estate, high or low."""
    roof, rear, front, wheels = c.shape.T
    y = -0.45 - 0.1 * roof
    back = -0.5 - 0.18 * rear
    nose = 0.25 + 0.1 * front
    c.polygon((back, y), (nose, y), (nose + 0.32, 0.02), (back - 0.15, 0.02))
    c.polygon(
        (back + 0.09, y + 0.12),
        (-0.12, y + 0.12),
        (-0.12, -0.06),
        (back + 0.03, -0.06),
        tone="light",
    )
    c.polygon((0.0, y + 0.12), (nose - 0.06, y + 0.12), (nose + 0.12, -0.06), (0.0, -0.06),
              tone="light")  # fmt: skip
    c.paint(shapes.box(c.u, c.v, 0.0, 0.2, 0.85, 0.12) - 0.1)
    c.line(0.03, (-0.85, 0.3), (0.85, 0.3), tone="shade")
    c.line(0.025, (-0.05, 0.0), (-0.05, 0.38), tone="shade")
    c.ellipse(0.88, 0.13, 0.08, 0.08, tone="light")
    size = 0.24 + 0.03 * wheels
    for side in (-1, 1):
        c.ellipse(side * 0.54, 0.42, size, size, tone="dark")
        c.ellipse(side * 0.54, 0.42, 0.1, 0.1, tone="bright")


@category("boat", "vehicle")
def boat(c: Canvas) -> None:
    """Paint a sailing boat: hull, mast, two sails and a pennant."""
    main, jib, hull, mast = c.shape.T
    top = -0.88 - 0.08 * mast
    c.line(0.05, (0.0, top), (0.0, 0.4), tone="dark")
    c.polygon((0.0, top), (0.3, top + 0.1), (0.0, top + 0.2), tone="dark")
    c.polygon((-0.08, top + 0.08), (-0.08, 0.25), (-0.66 + 0.14 * main, 0.25))
    c.polygon((0.09, -0.55), (0.55 + 0.16 * jib, 0.25), (0.09, 0.25), tone="light")
    low = 0.82 + 0.08 * hull
    c.polygon((-0.95, 0.36), (0.98, 0.36), (0.62, low), (-0.66, low))
    c.line(0.05, (-0.84, 0.46), (0.84, 0.46), tone="dark")
    for k in (-1, 0, 1):
        c.ellipse(0.3 * k, 0.64, 0.07, 0.07, tone="dark")


@category("bicycle", "vehicle")
def bicycle(c: Canvas) -> None:
    """Paint a bicycle: two spoked wheels, a frame, handlebars and a saddle."""
    wheel, frame, bars, saddle = c.shape.T
    size = 0.36 + 0.04 * wheel
    for side in (-1, 1):
        c.ring(side * 0.56, 0.38, size, 0.07, tone="own")
        c.ring(side * 0.56, 0.38, size - 0.06, 0.025, tone="light")
        c.ellipse(side * 0.56, 0.38, 0.08, 0.08, tone="dark")
    top = -0.2 + 0.08 * frame
    rear, front, pedal = (-0.56, 0.38), (0.56, 0.38), (-0.05, 0.38)
    seat, head = (-0.22, top), (0.36, top - 0.06)
    c.line(0.055, rear, pedal, seat, rear, tone="own")
    c.line(0.065, seat, head, pedal)
    c.line(0.065, front, head, (0.32, -0.5))
    grip = (0.5 + 0.08 * bars, -0.42 - 0.1 * bars)
    c.line(0.055, (0.22 + 0.12 * bars, -0.56), (0.34, -0.55), grip, tone="dark")
    c.line(0.05, seat, (-0.27, -0.42), tone="shade")
    c.line(0.075, (-0.42 - 0.04 * saddle, -0.46), (-0.14, -0.44), tone="dark")
    c.ellipse(-0.05, 0.38, 0.11, 0.11, tone="dark")


@category("aeroplane", "vehicle")
def aeroplane(c: Canvas) -> None:
    """Paint an aeroplane from the side: fuselage, fin, swept wing and a row of windows."""
    wing, fin, nose, windows = c.shape.T
    c.polygon((0.62, -0.08), (0.8 + 0.05 * fin, -0.6 - 0.1 * fin), (0.98, -0.6 - 0.1 * fin),
              (0.92, 0.0), tone="shade")  # fmt: skip
    c.polygon((0.1, -0.1), (0.38, -0.58), (0.5, -0.56), (0.3, -0.1), tone="dark")
    c.ellipse(0.02, 0.0, 0.94, 0.2 + 0.05 * nose)
    c.polygon((0.5, -0.16), (0.96, -0.12), (0.8, 0.02), (0.5, 0.1))
    for k in range(5):
        shown = when(windows > 0.35 * k - 1.6, 0.06)
        c.box(-0.4 + 0.2 * k, -0.05, shown, 0.07, tone="light")
    c.polygon((-0.92, -0.02), (-0.72, -0.13), (-0.62, -0.13), (-0.62, -0.02), tone="light")
    end = 0.62 + 0.14 * wing
    c.polygon((-0.2, 0.06), (0.22, 0.06), (0.62, end), (0.42, end), tone="shade")
    c.line(0.09, (0.05, 0.34), (0.24, 0.34), tone="dark")
    c.polygon((0.68, -0.06), (0.9, -0.06), (1.0, 0.16), (0.88, 0.16), tone="dark")
