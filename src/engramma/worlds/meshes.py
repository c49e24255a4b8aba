"""Triangle meshes, and the parts that solids are built from.

A part is a closed surface and, exactly, what lies inside it: boxes and prisms, ellipsoids, and
surfaces of revolution. z points up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

#: ``contains(points)``: which of points (n, 3) lie inside.
Contains = Callable[[np.ndarray], np.ndarray]
#: Sides that circles have in meshes.
SEGMENTS = 24
#: Rows: where the first, second and third axis of a part (the third is the one it is turned
#: around, or pulled along) point to.
_AXES = {
    "x": np.array([(0, 1, 0), (0, 0, 1), (1, 0, 0)], dtype=float),
    "y": np.array([(1, 0, 0), (0, 0, 1), (0, -1, 0)], dtype=float),
    "z": np.eye(3),
}
Point = tuple[float, float, float]
Outline = Sequence[tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles with a colour each.

    Parameters
    ----------
    vertices : ndarray, shape (n_vertices, 3)
    faces : ndarray of int, shape (n_faces, 3)
        Corners of each triangle, counter-clockwise as seen from outside.
    colours : ndarray, shape (n_faces, 3)
        RGB, 0 .. 1.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray

    @cached_property
    def _crosses(self) -> np.ndarray:
        a, b, c = (self.vertices[self.faces[:, k]] for k in range(3))
        return np.cross(b - a, c - a)

    @property
    def areas(self) -> np.ndarray:
        """Area of each face."""
        return np.linalg.norm(self._crosses, axis=1) / 2

    @property
    def normals(self) -> np.ndarray:
        """Unit vector outwards of each face."""
        return self._crosses / np.maximum(2 * self.areas, 1e-30)[:, None]

    @property
    def volume(self) -> float:
        """Volume inside a closed mesh (divergence theorem); where parts overlap it counts twice."""
        return float((self.vertices[self.faces[:, 0]] * self._crosses).sum() / 6)

    @property
    def watertight(self) -> bool:
        """Whether each edge is run through once in either direction."""
        edges = np.concatenate(
            [self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [2, 0]]]
        )
        there, back = (e[np.lexsort(e.T)] for e in (edges, edges[:, ::-1]))
        once = len(np.unique(edges, axis=0)) == len(edges)
        return once and bool((there == back).all())

    def sample(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw points evenly by area, and the faces that they lie on.

        Osada et al. 2002 ("Shape distributions"), equation 1.

        Returns
        -------
        points : ndarray, shape (n, 3)
        faces : ndarray of int, shape (n,)
        """
        chosen = rng.choice(len(self.faces), n, p=self.areas / self.areas.sum())
        root, second = np.sqrt(rng.random((n, 1))), rng.random((n, 1))
        a, b, c = (self.vertices[self.faces[chosen, k]] for k in range(3))
        return (1 - root) * a + root * (1 - second) * b + root * second * c, chosen


def join(meshes: Sequence[Mesh]) -> Mesh:
    """Put meshes side by side in one."""
    before = np.cumsum([0, *(len(m.vertices) for m in meshes)])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.faces + k for m, k in zip(meshes, before, strict=False)]),
        np.concatenate([m.colours for m in meshes]),
    )


@dataclass(frozen=True, eq=False)
class Part:
    """A closed surface, what lies inside it, and its tone (see `engramma.worlds.canvas.TONES`)."""

    vertices: np.ndarray
    faces: np.ndarray
    contains: Contains
    tone: str = "own"

    def placed(
        self, at: Sequence[float] = (0, 0, 0), axes: np.ndarray | None = None, scale: float = 1.0
    ) -> Part:
        """Scale the part, point its axes along the rows of a rotation, and move it."""
        rotation = np.eye(3) if axes is None else axes
        offset, contains = np.asarray(at, dtype=float), self.contains
        return replace(
            self,
            vertices=scale * self.vertices @ rotation + offset,
            contains=lambda points: contains((points - offset) @ rotation.T / scale),
        )

    def mesh(self, colour: Sequence[float]) -> Mesh:
        """Return the surface in one colour."""
        return Mesh(self.vertices, self.faces, np.tile(colour, (len(self.faces), 1)))


def prism(
    outline: Outline, thickness: float, at: Point, *, axis: str = "y", tone: str = "own"
) -> Part:
    """Pull a convex outline along an axis.

    Parameters
    ----------
    outline : sequence of (float, float)
        Corners, counter-clockwise: (y, z) for the axis x, (x, z) for y, (x, y) for z.
    thickness : float
        Half on either side of ``at``.
    at : (float, float, float)
        Where the origin of the outline is.
    axis : {"x", "y", "z"}
    tone : str
    """
    corners = np.asarray(outline, dtype=float)
    n, half = len(corners), thickness / 2
    low, high = (np.column_stack([corners, np.full(n, z)]) for z in (-half, half))
    fan = np.column_stack([np.zeros(n - 2, int), np.arange(1, n - 1), np.arange(2, n)])
    k, then = np.arange(n), (np.arange(n) + 1) % n
    sides = np.concatenate(
        [np.column_stack([k, then, then + n]), np.column_stack([k, then + n, k + n])]
    )
    faces = np.concatenate([fan[:, ::-1], fan + n, sides])

    def contains(points: np.ndarray) -> np.ndarray:
        inside = np.abs(points[:, 2]) <= half
        inside[inside] = within(points[inside, :2], corners)
        return inside

    return Part(np.concatenate([low, high]), faces, contains, tone).placed(at, _AXES[axis])


def box(size: Point, at: Point, *, pitch: float = 0.0, tone: str = "own") -> Part:
    """Make a box by its extents and its centre, turned by ``pitch`` (radians) from x towards z."""
    x, z = size[0] / 2, size[2] / 2
    flat = prism([(-x, -z), (x, -z), (x, z), (-x, z)], size[1], (0, 0, 0), tone=tone)
    cos, sin = np.cos(pitch), np.sin(pitch)
    return flat.placed(at, np.array([(cos, 0, sin), (0, 1, 0), (-sin, 0, cos)]))


def turned(profile: Outline, at: Point, *, axis: str = "z", tone: str = "own") -> Part:
    """Turn a closed profile around an axis.

    Parameters
    ----------
    profile : sequence of (float, float)
        Corners (distance from the axis, place along it), counter-clockwise; if the surface meets
        the axis, the first and last corner lie on it.
    at : (float, float, float)
    axis : {"x", "y", "z"}
    tone : str
    """
    corners = np.asarray(profile, dtype=float)
    m, k = len(corners), np.arange(SEGMENTS)
    angle = 2 * np.pi * k / SEGMENTS
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    radius, height = corners.T
    vertices = np.concatenate(
        [radius[:, None, None] * ring, np.broadcast_to(height[:, None, None], (m, len(k), 1))],
        axis=2,
    ).reshape(-1, 3)
    # On the axis all vertices of a ring are one.
    number = np.where(radius[:, None] > 0, k, 0) + SEGMENTS * np.arange(m)[:, None]
    low, high = number, np.roll(number, -1, axis=0)
    faces = np.concatenate(
        [
            np.stack([low, np.roll(low, -1, axis=1), np.roll(high, -1, axis=1)], axis=-1),
            np.stack([low, np.roll(high, -1, axis=1), high], axis=-1),
        ]
    ).reshape(-1, 3)
    along = ((radius > 0) | (np.roll(radius, -1) > 0)).repeat(SEGMENTS)
    whole = (
        (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    )
    used, faces = np.unique(faces[whole & np.tile(along, 2)], return_inverse=True)

    def contains(points: np.ndarray) -> np.ndarray:
        return within(
            np.column_stack([np.hypot(points[:, 0], points[:, 1]), points[:, 2]]), corners
        )

    return Part(vertices[used], faces.reshape(-1, 3), contains, tone).placed(at, _AXES[axis])


def cylinder(
    radius: float, height: float, at: Point, *, axis: str = "z", tone: str = "own", top: float = 1.0
) -> Part:
    """Make a cylinder by its centre, or a cone cut off where its radius is ``top`` of the lower."""
    h, r = height / 2, radius * top
    end = [(r, h), (0.0, h)] if r > 0 else [(0.0, h)]
    return turned([(0, -h), (radius, -h), *end], at, axis=axis, tone=tone)


def ball(radii: Point, at: Point, *, tone: str = "own") -> Part:
    """Make an ellipsoid by its half-axes and its centre."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, SEGMENTS // 2 + 1)
    arc = np.column_stack([np.cos(angle), np.sin(angle)])
    arc[[0, -1], 0] = 0
    sphere = turned([(float(r), float(z)) for r, z in arc], (0, 0, 0), tone=tone)
    scale = np.asarray(radii, dtype=float)
    ellipsoid = replace(
        sphere,
        vertices=sphere.vertices * scale,
        contains=lambda points: ((points / scale) ** 2).sum(axis=1) <= 1,
    )
    return ellipsoid.placed(at)


def within(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Whether points (n, 2) lie inside a polygon, by the even-odd rule."""
    inside = np.zeros(len(points), bool)
    x, y = points.T
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y1 != y2:
            crosses = (y1 > y) != (y2 > y)
            inside ^= crosses & (x < x1 + (y - y1) * ((x2 - x1) / (y2 - y1)))
    return inside
