"""How alike two shapes are: clouds of points on their surfaces, and grids of what they fill."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from engramma.errors import DataError


def normalised(points: np.ndarray) -> np.ndarray:
    """Move points (n, 3) to mean 0 and divide by twice their largest distance from it.

    After MinD-3D (Gao et al. 2024, arXiv 2312.07485); distances then do not depend on place and
    scale.
    """
    points = _cloud(points)
    centred = points - points.mean(axis=0)
    return centred / max(2 * float(np.linalg.norm(centred, axis=1).max()), 1e-12)


def chamfer_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean squared distance to the nearest point of the other cloud, both ways summed.

    Fan, Su and Guibas 2017 ("A point set generation network"), with means in place of sums.

    Parameters
    ----------
    first, second : ndarray, shape (n, 3) and (m, 3)

    Raises
    ------
    DataError
        If these are no clouds of finite points.
    """
    there, back = _nearest(first, second)
    return float((there**2).mean() + (back**2).mean())


def f_score(first: np.ndarray, second: np.ndarray, within: float = 0.05) -> float:
    """Return the harmonic mean of the shares of points that lie near the other cloud.

    Tatarchenko et al. 2019 ("What do single-view 3D reconstruction networks learn?").

    Parameters
    ----------
    first, second : ndarray, shape (n, 3) and (m, 3)
    within : float
        Distance that counts as near.
    """
    there, back = ((d <= within).mean() for d in _nearest(first, second))
    return float(2 * there * back / (there + back)) if there + back else 0.0


def earth_movers_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean distance between points under the best one-to-one assignment.

    Exact (Hungarian algorithm), in time cubic in the number of points: use up to about 1000.

    Parameters
    ----------
    first, second : ndarray, shape (n, 3)

    Raises
    ------
    DataError
        If the clouds differ in size.
    """
    first, second = _cloud(first), _cloud(second)
    if len(first) != len(second):
        raise DataError(
            f"clouds of {len(first)} and {len(second)} points have no one-to-one assignment",
            mend="sample as many points of either shape",
        )
    distance = cdist(first, second)
    return float(distance[linear_sum_assignment(distance)].mean())


def intersection_over_union(
    first: np.ndarray, second: np.ndarray, level: float = 0.5
) -> np.ndarray:
    """Return what two shapes share of what either fills, 1 where both are empty.

    Parameters
    ----------
    first, second : ndarray, shape (..., n, n, n)
        Occupancy; cells above ``level`` are filled.
    level : float

    Returns
    -------
    ndarray, shape (...)
    """
    a, b = np.asarray(first) > level, np.asarray(second) > level
    axes = (-3, -2, -1)
    both, either = (a & b).sum(axis=axes), (a | b).sum(axis=axes)
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def _nearest(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = _cloud(first), _cloud(second)
    return KDTree(second).query(first)[0], KDTree(first).query(second)[0]


def _cloud(points: np.ndarray) -> np.ndarray:
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not len(points) or not np.isfinite(points).all():
        raise DataError(
            f"an array of shape {points.shape} is no cloud of points",
            mend="give n x 3 finite coordinates, at least one point",
        )
    return points
