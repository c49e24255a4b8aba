"""Surfaces of occupancy grids, by marching tetrahedra.

Doi and Koide 1991 ("An efficient method of triangulating equi-valued surfaces by using tetrahedral
cells"). Each cube between eight cell centres is cut into six tetrahedra that share its diagonal, so
that neighbouring cubes agree and the surface is closed.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np

from engramma.errors import DataError

#: Corners of the six tetrahedra of a cube: each goes from its origin along the axes in one order.
_TETRAHEDRA = np.array(
    [
        np.cumsum([(0, 0, 0), *(np.eye(3, dtype=int)[k] for k in order)], axis=0)
        for order in permutations(range(3))
    ]
)


def isosurface(grid: np.ndarray, level: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Find the surface inside which a grid exceeds a level.

    Parameters
    ----------
    grid : ndarray, shape (n, n, n)
        Values at the centres of the cells of a cube from -1 to 1; outside they are 0.
    level : float
        Above 0.

    Returns
    -------
    vertices : ndarray of float32, shape (n_vertices, 3)
    faces : ndarray of int, shape (n_faces, 3)
        Counter-clockwise as seen from outside; none where nothing exceeds the level. Each edge
        belongs to two faces.

    Raises
    ------
    DataError
        If the grid is no cube or holds values that are not finite, or the level is not positive.
    """
    grid = np.asarray(grid, dtype=np.float64)
    if grid.ndim != 3 or len(set(grid.shape)) != 1 or not np.isfinite(grid).all() or level <= 0:
        raise DataError(
            f"there is no surface at level {level:g} of a grid of shape {grid.shape}",
            mend="give a cube of finite values, and a level above 0",
        )
    n = len(grid)
    values = np.pad(grid, 1).ravel()
    strides = np.array([(n + 2) ** 2, n + 2, 1])
    cells = np.indices((n + 1,) * 3).reshape(3, -1).T @ strides
    corners = (cells[:, None, None] + _TETRAHEDRA @ strides).reshape(-1, 4)
    inside = values[corners] > level
    mixed = inside.any(axis=1) & ~inside.all(axis=1)
    corners, inside = corners[mixed], inside[mixed]
    # Corners inside first; then the edges that the surface crosses follow from their number.
    order = np.argsort(~inside, axis=1, kind="stable")
    corners = np.take_along_axis(corners, order, axis=1)
    count = inside.sum(axis=1)
    a, b, c, d = corners.T
    crossed = {
        1: [((a, b), (a, c), (a, d))],
        2: [((a, c), (a, d), (b, d)), ((a, c), (b, d), (b, c))],
        3: [((a, d), (b, d), (c, d))],
    }
    edges, ways = [], []
    places = np.stack(np.unravel_index(np.arange(len(values)), (n + 2,) * 3), axis=1) - 0.5
    for number, triangles in crossed.items():
        rows = np.flatnonzero(count == number)
        middle = places[corners[rows]]
        way = middle[:, number:].mean(axis=1) - middle[:, :number].mean(axis=1)
        for triangle in triangles:
            edges.append(np.stack([np.stack(e, axis=1)[rows] for e in triangle], axis=1))
            ways.append(way)
    edge, way = np.concatenate(edges), np.concatenate(ways)
    # Seen from outside, the corners of each face go round counter-clockwise.
    half = places[edge].mean(axis=2)
    normal = np.cross(half[:, 1] - half[:, 0], half[:, 2] - half[:, 0])
    turn = (normal * way).sum(axis=1) < 0
    edge[turn] = edge[turn][:, ::-1]
    unique, faces = np.unique(edge.reshape(-1, 2), axis=0, return_inverse=True)
    inner, outer = unique.T
    share = (values[inner] - level) / (values[inner] - values[outer])
    vertices = places[inner] + share[:, None] * (places[outer] - places[inner])
    return (vertices * (2 / n) - 1).astype(np.float32), faces.reshape(-1, 3)
