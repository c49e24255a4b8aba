"""How good the miniature shape autoencoder is, on solids that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engramma.generative.isosurface import isosurface
from engramma.generative.shape_scores import (
    chamfer_distance,
    f_score,
    intersection_over_union,
)
from engramma.generative.shapes import ShapeAutoencoder
from engramma.worlds.meshes import Mesh
from engramma.worlds.solids import Solid

N_POINTS = 2048


def shape_quality(
    model: ShapeAutoencoder, solids: Sequence[Solid], mean_shape: np.ndarray
) -> dict[str, float]:
    """Compare reconstructions with the solids, beside a shape that is the same for all.

    Parameters
    ----------
    model : ShapeAutoencoder
    solids : sequence of Solid
    mean_shape : ndarray, shape (resolution, resolution, resolution)
        Mean occupancy of the shapes that the model was trained on. What is predicted for every
        solid are its fullest cells, as many as fill the mean volume.

    Returns
    -------
    dict
        Means over solids of ``iou`` (of cells more than half filled), ``chamfer`` (of 2048 points
        on the surfaces; the unit ball holds the solids) and ``f_score`` (within .05), and of
        ``mean_shape_iou`` and ``mean_shape_chamfer``.
    """
    truth = np.stack([s.occupancy(model.resolution) for s in solids])
    found = model.decode(model.encode(truth))
    filled = np.quantile(mean_shape, 1 - mean_shape.mean())
    rng = np.random.default_rng(0)
    clouds = [s.sample(N_POINTS, rng)[0] for s in solids]
    same = surface_points(mean_shape, rng, level=max(float(filled), 1e-3))
    made = [surface_points(grid, rng) for grid in found]
    pairs = list(zip(made, clouds, strict=True))
    return {
        "iou": float(intersection_over_union(found, truth).mean()),
        "chamfer": float(np.mean([chamfer_distance(a, b) for a, b in pairs])),
        "f_score": float(np.mean([f_score(a, b) for a, b in pairs])),
        "mean_shape_iou": float(intersection_over_union((mean_shape > filled)[None], truth).mean()),
        "mean_shape_chamfer": float(np.mean([chamfer_distance(same, b) for b in clouds])),
    }


def surface_points(
    grid: np.ndarray, rng: np.random.Generator, level: float = 0.5, n: int = N_POINTS
) -> np.ndarray:
    """Draw points evenly on the surface of an occupancy grid, (n, 3); the origin if it is empty."""
    vertices, faces = isosurface(grid, level)
    if not len(faces):
        return np.zeros((1, 3), np.float32)
    mesh = Mesh(vertices, faces, np.full((len(faces), 3), 0.5))
    return mesh.sample(n, rng)[0]
