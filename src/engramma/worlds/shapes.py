"""Shapes as signed distances, for many scenes at once.

A shape is a function of the points ``(u, v)`` of a patch, ``v`` downwards, both shape
(scenes, height, width), that gives the signed distance to its outline: negative inside. Its
parameters are numbers or one value a scene. Formulas after Quilez, *2D distance functions*.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: A number, or one value a scene.
Value = np.ndarray | float


def per_scene(value: Value) -> np.ndarray | float:
    """Give one value a scene the shape that broadcasts over pixels."""
    return value[:, None, None] if isinstance(value, np.ndarray) and value.ndim else value


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
    """Ellipse with semi-axes ``a`` and ``b``; the distance is right to first order."""
    du, dv = turned(u, v, x, y, angle)
    du, dv = du / per_scene(a), dv / per_scene(b)
    length = np.sqrt(du * du + dv * dv)
    return (length - 1) * per_scene(np.minimum(a, b))


def box(
    u: np.ndarray, v: np.ndarray, x: Value, y: Value, a: Value, b: Value, angle: Value = 0.0
) -> np.ndarray:
    """Rectangle with half-widths ``a`` and ``b``."""
    du, dv = turned(u, v, x, y, angle)
    return np.maximum(np.abs(du) - per_scene(a), np.abs(dv) - per_scene(b))


def stroke(
    u: np.ndarray, v: np.ndarray, x0: Value, y0: Value, x1: Value, y1: Value, r: Value
) -> np.ndarray:
    """Line from ``(x0, y0)`` to ``(x1, y1)`` with round ends and half-width ``r``."""
    du, dv = u - per_scene(x0), v - per_scene(y0)
    ex, ey = per_scene(x1) - per_scene(x0), per_scene(y1) - per_scene(y0)
    along = np.clip((du * ex + dv * ey) / (ex * ex + ey * ey + 1e-9), 0, 1)
    du, dv = du - along * ex, dv - along * ey
    return np.sqrt(du * du + dv * dv) - per_scene(r)


def polygon(u: np.ndarray, v: np.ndarray, corners: Sequence[tuple[Value, Value]]) -> np.ndarray:
    """Convex polygon; corners go clockwise on the screen."""
    outside: np.ndarray | None = None
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        ex, ey = np.asarray(x1 - x0, np.float32), np.asarray(y1 - y0, np.float32)
        length = np.sqrt(ex * ex + ey * ey) + np.float32(1e-9)
        nx, ny = ey / length, -ex / length
        offset = np.asarray(nx * x0 + ny * y0, dtype=np.float32)
        side = per_scene(nx) * u + per_scene(ny) * v - per_scene(offset)
        outside = side if outside is None else np.maximum(outside, side)
    assert outside is not None
    return outside


def ring(u: np.ndarray, v: np.ndarray, x: Value, y: Value, radius: Value, r: Value) -> np.ndarray:
    """Circle line with half-width ``r``."""
    du, dv = u - per_scene(x), v - per_scene(y)
    return np.abs(np.sqrt(du * du + dv * dv) - per_scene(radius)) - per_scene(r)
