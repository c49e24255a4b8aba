"""Shapes as signed distances, for many scenes at once.

A shape is a function of the points ``(u, v)`` of a patch, ``v`` downwards, both shape
(scenes, height, width), that gives the signed distance to its outline: negative inside. Its
parameters are numbers or one value a scene. Formulas after Quilez, *2D distance functions*.
Cut a shape out of another with ``np.maximum(one, -other)``, and join them with ``np.minimum``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

#: A number, or one value a scene.
Value = np.ndarray | float
Point = tuple[Value, Value]


def per_scene(value: Value) -> np.ndarray | float:
    """Give one value a scene the shape that broadcasts over pixels, in float32."""
    if isinstance(value, np.ndarray) and value.ndim:
        return value.astype(np.float32, copy=False)[:, None, None]
    return float(value)


def when(condition: np.ndarray, half_width: float) -> np.ndarray:
    """Half-width of a box or line that only some scenes have."""
    return np.where(condition, np.float32(half_width), np.float32(-1))


def turned(
    u: np.ndarray, v: np.ndarray, x: Value, y: Value, angle: Value = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Points seen from ``(x, y)``, turned by ``angle`` (radians, clockwise on the screen)."""
    du, dv = u - per_scene(x), v - per_scene(y)
    if isinstance(angle, float) and angle == 0.0:
        return du, dv
    cos, sin = per_scene(np.cos(angle)), per_scene(np.sin(angle))
    return cos * du + sin * dv, cos * dv - sin * du


def ellipse(
    u: np.ndarray, v: np.ndarray, x: Value, y: Value, a: Value, b: Value, angle: Value = 0.0
) -> np.ndarray:
    """Ellipse with semi-axes ``a`` and ``b``; the distance is right along the shorter one only."""
    du, dv = turned(u, v, x, y, angle)
    du /= per_scene(a)
    dv /= per_scene(b)
    length = _length(du, dv)
    length -= 1
    length *= per_scene(np.minimum(a, b))
    return length


def box(
    u: np.ndarray, v: np.ndarray, x: Value, y: Value, a: Value, b: Value, angle: Value = 0.0
) -> np.ndarray:
    """Rectangle with half-widths ``a`` and ``b``."""
    du, dv = turned(u, v, x, y, angle)
    for d, half in ((du, a), (dv, b)):
        np.abs(d, out=d)
        d -= per_scene(half)
    return np.maximum(du, dv, out=du)


def line(u: np.ndarray, v: np.ndarray, r: Value, points: Sequence[Point]) -> np.ndarray:
    """Line through points, with round ends and half-width ``r``."""
    nearest: np.ndarray | None = None
    for (x0, y0), (x1, y1) in pairwise(points):
        du, dv = u - per_scene(x0), v - per_scene(y0)
        ex, ey = per_scene(x1 - x0), per_scene(y1 - y0)
        length = ex * ex + ey * ey + 1e-9
        along = du * (ex / length)
        along += dv * (ey / length)
        np.clip(along, 0, 1, out=along)
        du -= along * ex
        along *= ey
        dv -= along
        distance = _length(du, dv)
        nearest = distance if nearest is None else np.minimum(nearest, distance, out=nearest)
    assert nearest is not None
    nearest -= per_scene(r)
    return nearest


def polygon(u: np.ndarray, v: np.ndarray, corners: Sequence[Point]) -> np.ndarray:
    """Convex polygon; corners go clockwise on the screen."""
    outside: np.ndarray | None = None
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        ex, ey = np.asarray(x1 - x0, np.float32), np.asarray(y1 - y0, np.float32)
        length = np.sqrt(ex * ex + ey * ey) + np.float32(1e-9)
        nx, ny = ey / length, -ex / length
        side = per_scene(nx) * u
        side += per_scene(ny) * v
        side -= per_scene(nx * x0 + ny * y0)
        outside = side if outside is None else np.maximum(outside, side, out=outside)
    assert outside is not None
    return outside


def ring(u: np.ndarray, v: np.ndarray, x: Value, y: Value, radius: Value, r: Value) -> np.ndarray:
    """Circle line with half-width ``r``."""
    distance = _length(u - per_scene(x), v - per_scene(y))
    distance -= per_scene(radius)
    np.abs(distance, out=distance)
    distance -= per_scene(r)
    return distance


def _length(du: np.ndarray, dv: np.ndarray) -> np.ndarray:
    """Length of vectors, written over their first component."""
    du *= du
    dv *= dv
    du += dv
    return np.sqrt(du, out=du)
