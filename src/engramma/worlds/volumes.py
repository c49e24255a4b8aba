"""Voxels for virtual brains: the grid of a scanner that holds the grey matter of fsaverage5."""

from __future__ import annotations

from functools import cache

import numpy as np

from engramma.worlds.anatomy import Sites, surface_sites

#: Voxel edge (mm), and empty voxels on each side of the grid.
VOXEL, MARGIN = 3.0, 2
#: Grey matter reaches about this far (mm) to both sides of the middle of the cortex.
HALF_THICKNESS = 1.3


@cache
def volume_sites() -> Sites:
    """Voxels whose centre lies in the cortex, with the affine that takes them to millimetres.

    A voxel belongs to the cortex where a vertex of fsaverage5, or one moved by half the
    thickness of the cortex along an axis, lies in it.
    """
    surface = surface_sites()
    steps = HALF_THICKNESS * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    points = (surface.position[:, None] + steps).reshape(-1, 3)
    side = np.repeat(surface.hemisphere, len(steps))
    origin = VOXEL * np.floor(points.min(axis=0) / VOXEL) - MARGIN * VOXEL
    voxels, first = np.unique(
        np.round((points - origin) / VOXEL).astype(int), axis=0, return_index=True
    )
    affine = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
    affine[:3, 3] = origin
    shape = tuple(int(s) for s in voxels.max(axis=0) + 1 + MARGIN)
    position = (voxels * VOXEL + origin).astype(np.float32)
    return Sites(position, side[first], voxels, affine=affine, shape=shape)
