"""How solids are built: for each category, the parts that four shape parameters make.

Parameters go from -1 to 1. Lengths are arbitrary, as solids are scaled afterwards; z points up
and the front is at +x.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engramma.worlds.meshes import Part, ball, box, cylinder, prism, turned

#: ``builder(a, b, c, d) -> parts``.
Builder = Callable[[float, float, float, float], list[Part]]
BUILDERS: dict[str, Builder] = {}


def _solid(name: str) -> Callable[[Builder], Builder]:
    def register(builder: Builder) -> Builder:
        BUILDERS[name] = builder
        return builder

    return register


def _legs(x: float, y: float, height: float, thick: float, tone: str) -> list[Part]:
    """Four legs that stand on z = 0, at +-x and +-y."""
    return [
        box((thick, thick, height), (i * x, j * y, height / 2), tone=tone)
        for i in (-1, 1)
        for j in (-1, 1)
    ]


def _roof(width: float, depth: float, rise: float, base: float) -> Part:
    """Gable over a house of that width (y) and depth (x), from height ``base``."""
    half = width / 2
    return prism([(-half, 0), (half, 0), (0, rise)], depth, (0, 0, base), axis="x", tone="shade")


@_solid("chair")
def _chair(a: float, b: float, c: float, d: float) -> list[Part]:
    width, height, back, thick = 1 + 0.2 * a, 0.9 + 0.25 * b, 0.95 + 0.35 * c, 0.15 + 0.04 * d
    return [
        *_legs(0.5 - thick / 2, width / 2 - thick / 2, height, thick, "dark"),
        box((1, width, 0.16), (0, 0, height), tone="own"),
        box((0.14, width, back), (-0.43, 0, height + back / 2), tone="shade"),
    ]


@_solid("table")
def _table(a: float, b: float, c: float, d: float) -> list[Part]:
    length, width, height, thick = 1.8 + 0.4 * a, 1.1 + 0.3 * b, 0.9 + 0.25 * c, 0.17 + 0.05 * d
    return [
        *_legs(width / 2 - thick / 2, length / 2 - thick / 2, height, thick, "dark"),
        box((width + 0.1, length + 0.1, 0.15), (0, 0, height)),
    ]


@_solid("cup")
def _cup(a: float, b: float, c: float, d: float) -> list[Part]:
    top, low, height, reach = 0.56 + 0.12 * a, 0.42 + 0.12 * b, 1.05 + 0.25 * c, 0.34 + 0.1 * d
    wall = 0.1
    profile = [
        (0, 0),
        (low, 0),
        (top, height),
        (top - wall, height),
        (low - wall, wall),
        (0, wall),
    ]
    middle = (top + low) / 2
    outer = middle + reach
    return [
        turned(profile, (0, 0, 0)),
        box((0.1, 0.14, 0.55 * height), (0, outer, 0.5 * height), tone="shade"),
        *(
            box((0.1, reach + 0.12, 0.13), (0, middle + reach / 2, z * height), tone="shade")
            for z in (0.25, 0.75)
        ),
    ]


@_solid("apple")
def _apple(a: float, b: float, c: float, d: float) -> list[Part]:
    angle = np.linspace(-np.pi / 2, np.pi / 2, 13)
    bulge = 1 + (0.1 + 0.08 * a) * np.sin(angle)
    radius = np.cos(angle) * bulge
    radius[[0, -1]] = 0
    dimple = 0.35 * np.exp(-((radius / 0.3) ** 2))
    height = (0.9 + 0.12 * b) * np.sin(angle) - np.sign(angle) * dimple
    stem = 0.5 + 0.15 * c
    return [
        turned(list(zip(radius.tolist(), height.tolist(), strict=True)), (0, 0, 0)),
        cylinder(0.07, stem, (0, 0, 0.5 + stem / 2), tone="dark"),
        ball((0.1, 0.28 + 0.08 * d, 0.12), (0, 0.3, 0.85 + 0.3 * c * 0.15), tone="bright"),
    ]


@_solid("ice cream")
def _ice_cream(a: float, b: float, c: float, d: float) -> list[Part]:
    length, first, second, stick = 1.5 + 0.3 * a, 0.56 + 0.07 * b, 0.42 + 0.1 * c, 0.5 + 0.2 * d
    upper = first * 0.9
    return [
        turned([(0, -length), (0.5, 0), (0, 0)], (0, 0, 0), tone="shade"),
        ball((first, first, first), (0, 0, first * 0.4)),
        ball((second, second, second), (0, 0, upper + second * 0.5), tone="light"),
        cylinder(0.07, stick, (0.1, 0.15, upper + second + stick / 2), tone="dark"),
    ]


@_solid("cake")
def _cake(a: float, b: float, c: float, d: float) -> list[Part]:
    low, high, ratio, candle = 0.4 + 0.12 * a, 0.36 + 0.12 * b, 0.62 + 0.14 * c, 0.3 + 0.1 * d
    top = low + high
    return [
        cylinder(1, low, (0, 0, low / 2)),
        cylinder(1.02, 0.09, (0, 0, low), tone="light"),
        cylinder(ratio, high, (0, 0, low + high / 2)),
        cylinder(ratio + 0.02, 0.09, (0, 0, top), tone="light"),
        *(
            cylinder(0.06, candle, (0.3 * x, 0.3 * y, top + candle / 2), tone="dark")
            for x, y in ((1, 0), (-0.5, 0.87), (-0.5, -0.87))
        ),
    ]


@_solid("house")
def _house(a: float, b: float, c: float, d: float) -> list[Part]:
    width, height, rise, chimney = 1.3 + 0.25 * a, 0.8 + 0.2 * b, 0.6 + 0.2 * c, 0.2 + 0.08 * d
    return [
        box((1.1, width, height), (0, 0, height / 2)),
        _roof(width + 0.2, 1.25, rise, height),
        box((0.22, 0.22, rise + chimney), (-0.25, 0.3, height + (rise + chimney) / 2), tone="dark"),
        box((0.04, 0.26, 0.5), (0.56, -0.25, 0.25), tone="dark"),
        box((0.04, 0.3, 0.28), (0.56, 0.28, 0.5 * height), tone="light"),
    ]


@_solid("castle")
def _castle(a: float, b: float, c: float, d: float) -> list[Part]:
    height, radius, wall, peak = 1.2 + 0.25 * a, 0.27 + 0.06 * b, 0.65 + 0.15 * c, 0.45 + 0.2 * d
    corners = [(i * 0.7, j * 0.7) for i in (-1, 1) for j in (-1, 1)]
    return [
        box((1.4, 1.4, wall), (0, 0, wall / 2)),
        *(cylinder(radius, height, (x, y, height / 2), tone="bright") for x, y in corners),
        *(
            cylinder(radius + 0.07, peak, (x, y, height + peak / 2), top=0, tone="shade")
            for x, y in corners
        ),
        box((0.06, 0.36, 0.45), (0.71, 0, 0.225), tone="dark"),
    ]


@_solid("church")
def _church(a: float, b: float, c: float, d: float) -> list[Part]:
    length, height, tower, spire = 1.5 + 0.3 * a, 0.7 + 0.15 * b, 1.3 + 0.3 * c, 0.7 + 0.25 * d
    front = length / 2 + 0.2
    return [
        box((length, 0.8, height), (0, 0, height / 2)),
        _roof(0.95, length, 0.45, height),
        box((0.5, 0.5, tower), (front, 0, tower / 2), tone="bright"),
        cylinder(0.42, spire, (front, 0, tower + spire / 2), top=0, tone="shade"),
        box((0.06, 0.22, 0.36), (front + 0.25, 0, 0.18), tone="dark"),
    ]


@_solid("bridge")
def _bridge(a: float, b: float, c: float, d: float) -> list[Part]:
    height, tower, span, width = 0.5 + 0.15 * a, 0.75 + 0.2 * b, 0.62 + 0.12 * c, 0.55 + 0.15 * d
    reach = 1.5
    parts = [box((width, 2 * reach, 0.14), (0, 0, height))]
    for side in (-1, 1):
        y = side * span
        for x in (-width / 2, width / 2):
            top = height + tower
            parts.append(box((0.13, 0.16, top), (x, y, top / 2), tone="shade"))
            for end in (side * (reach - 0.05), 0.0):
                long, drop = abs(end - y), tower - 0.05
                # Cables run from the tops of the towers down to the deck.
                cable = box((np.hypot(long, drop), 0.08, 0.08), (0, 0, 0), tone="dark")
                angle = np.arctan2(drop, y - end)
                axes = np.array(
                    [
                        (0, np.cos(angle), np.sin(angle)),
                        (-1, 0, 0),
                        (0, -np.sin(angle), np.cos(angle)),
                    ]
                )
                middle = (x, (end + y) / 2, height + drop / 2)
                parts.append(cable.placed(middle, axes))
    return parts


@_solid("hammer")
def _hammer(a: float, b: float, c: float, d: float) -> list[Part]:
    length, thick, head, face = 1.9 + 0.35 * a, 0.12 + 0.03 * b, 0.95 + 0.2 * c, 0.22 + 0.05 * d
    top = length / 2
    return [
        cylinder(thick, length, (0, 0, 0), tone="own"),
        box((0.32, head, 0.34), (0, 0, top), tone="dark"),
        cylinder(face, 0.24, (0, head / 2, top), axis="y", tone="dark"),
        prism(
            [(-head / 2 - 0.45, -0.06), (-head / 2, -0.17), (-head / 2, 0.17)],
            0.32,
            (0, 0, top),
            axis="x",
            tone="dark",
        ),
    ]


@_solid("car")
def _car(a: float, b: float, c: float, d: float) -> list[Part]:
    length, cabin, wheel, seat = 2.1 + 0.3 * a, 0.42 + 0.12 * b, 0.27 + 0.05 * c, 0.6 + 0.12 * d
    base = wheel + 0.42
    outline = [(-seat, 0), (seat, 0), (seat - 0.25, cabin), (0.2 - seat, cabin)]
    return [
        box((length, 1, 0.45), (0, 0, wheel + 0.2)),
        prism(outline, 0.86, (-0.08, 0, base), tone="light"),
        box((1.6 * seat - 0.3, 0.88, 0.08), (-0.1, 0, base + cabin), tone="own"),
        *(
            cylinder(wheel, 0.2, (x, y, wheel), axis="y", tone="dark")
            for x in (-0.31 * length, 0.31 * length)
            for y in (-0.48, 0.48)
        ),
    ]


@_solid("boat")
def _boat(a: float, b: float, c: float, d: float) -> list[Part]:
    length, mast, sail, depth = 1.8 + 0.3 * a, 1.6 + 0.3 * b, 0.75 + 0.15 * c, 0.4 + 0.1 * d
    half = length / 2
    return [
        prism(
            [(-half * 0.75, -depth), (half * 0.6, -depth), (half, 0), (-half, 0)], 0.7, (0, 0, 0)
        ),
        cylinder(0.06, mast, (0, 0, mast / 2), tone="dark"),
        prism([(-sail, 0.2), (-0.05, 0.2), (-0.05, mast)], 0.09, (0, 0, 0), tone="light"),
        prism(
            [(0.05, 0.2), (0.85 * sail, 0.2), (0.05, 0.85 * mast)], 0.09, (0, 0, 0), tone="bright"
        ),
    ]


@_solid("aeroplane")
def _aeroplane(a: float, b: float, c: float, d: float) -> list[Part]:
    length, span, chord, tail = 1.3 + 0.2 * a, 1.25 + 0.25 * b, 0.5 + 0.1 * c, 0.5 + 0.12 * d
    back = -length * 0.85
    parts = [
        ball((length, 0.24, 0.24), (0, 0, 0)),
        prism(
            [(back - 0.2, 0), (back + 0.25, 0), (back, tail), (back - 0.2, tail)], 0.09, (0, 0, 0.1)
        ),
        box((0.2, 0.2, 0.12), (length * 0.6, 0, 0.17), tone="light"),
    ]
    for side in (-1, 1):
        wing = [
            (chord / 2, 0),
            (-chord * 0.4, side * span),
            (-chord * 0.75, side * span),
            (-chord / 2, 0),
        ]
        fin = [
            (back + 0.2, 0),
            (back - 0.05, side * 0.5),
            (back - 0.2, side * 0.5),
            (back - 0.15, 0),
        ]
        for outline, z in ((wing, -0.05), (fin, 0.05)):
            turn = outline if side > 0 else outline[::-1]
            parts.append(prism(turn, 0.09, (0, 0, z), axis="z", tone="shade"))
    return parts


@_solid("fish")
def _fish(a: float, b: float, c: float, d: float) -> list[Part]:
    length, height, tail, fin = 1 + 0.15 * a, 0.55 + 0.12 * b, 0.5 + 0.12 * c, 0.32 + 0.1 * d
    back = -0.75 * length
    return [
        ball((length, 0.26, height), (0, 0, 0)),
        prism([(back, 0), (back - 0.6, tail), (back - 0.6, -tail)], 0.11, (0, 0, 0), tone="shade"),
        prism([(0.35, 0), (-0.45, fin), (-0.5, 0)], 0.11, (0, 0, 0.85 * height), tone="shade"),
        *(ball((0.11, 0.06, 0.11), (0.6 * length, y, 0.12), tone="light") for y in (-0.19, 0.19)),
        *(ball((0.05, 0.04, 0.05), (0.64 * length, y, 0.12), tone="dark") for y in (-0.24, 0.24)),
    ]


@_solid("arrow")
def _arrow(a: float, b: float, c: float, d: float) -> list[Part]:
    length, thick, head, wide = 1.3 + 0.3 * a, 0.2 + 0.06 * b, 0.75 + 0.2 * c, 0.55 + 0.13 * d
    return [
        box((0.25, length, 2 * thick), (0, -length / 2, 0)),
        prism([(0, -wide), (head, 0), (0, wide)], 0.25, (0, -0.02, 0), axis="x", tone="shade"),
    ]
