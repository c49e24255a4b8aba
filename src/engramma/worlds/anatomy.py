"""Individual anatomy: where on the cortex each unit of a virtual subject lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from engramma.errors import ConfigError
from engramma.worlds.cortex import Area

#: Standard deviation (mm) of the centre of an area between subjects.
JITTER = 3.0


@dataclass(frozen=True, eq=False)
class Sites:
    """Places that units can lie at: vertices of a surface or voxels of a volume.

    Parameters
    ----------
    position : ndarray, shape (n, 3)
        Millimetres, MNI-like.
    hemisphere : ndarray of str, shape (n,)
        ``"L"`` or ``"R"``.
    index : ndarray of int, shape (n,) or (n, 3)
        Vertex within the hemisphere, or voxel.
    graph : csr_array, optional
        Lengths of edges between neighbours, on a surface.
    affine : ndarray, shape (4, 4), optional
        From voxels to millimetres, in a volume.
    shape : tuple of int, optional
        Of the volume.
    """

    position: np.ndarray
    hemisphere: np.ndarray
    index: np.ndarray
    graph: csr_array | None = None
    affine: np.ndarray | None = None
    shape: tuple[int, ...] | None = None

    def distances(self, start: int) -> np.ndarray:
        """Distance (mm) of all sites from one: along the surface, or straight in a volume.

        Infinite in the other hemisphere.
        """
        if self.graph is not None:
            return np.asarray(dijkstra(self.graph, indices=start))
        apart = np.linalg.norm(self.position - self.position[start], axis=1)
        return np.where(self.hemisphere == self.hemisphere[start], apart, np.inf)

    def nearest(self, place: np.ndarray, side: str) -> int:
        """Site of one hemisphere that is nearest to a place (mm)."""
        apart = np.linalg.norm(self.position - place, axis=1)
        return int(np.where(self.hemisphere == side, apart, np.inf).argmin())


@cache
def surface_sites() -> Sites:
    """Vertices of fsaverage5, half-way between the white and the pial surface.

    The mesh comes with nilearn (Fischl et al., *Hum. Brain Mapp.* 8, 1999).
    """
    from nilearn.datasets import fetch_surf_fsaverage
    from nilearn.surface import load_surf_mesh

    files = fetch_surf_fsaverage("fsaverage5")
    places, sides, vertices, edges = [], [], [], []
    start = 0
    for side, name in (("L", "left"), ("R", "right")):
        white, pial = (load_surf_mesh(files[f"{kind}_{name}"]) for kind in ("white", "pial"))
        places.append((np.asarray(white.coordinates) + np.asarray(pial.coordinates)) / 2)
        n = len(places[-1])
        sides.append(np.full(n, side))
        vertices.append(np.arange(n))
        faces = np.asarray(white.faces)
        edges.append(start + np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]))
        start += n
    position = np.concatenate(places)
    ends = np.unique(np.sort(np.concatenate(edges), axis=1), axis=0)
    length = np.linalg.norm(position[ends[:, 0]] - position[ends[:, 1]], axis=1)
    one_way = csr_array((length, (ends[:, 0], ends[:, 1])), shape=(start, start))
    graph = csr_array(one_way + one_way.T)
    return Sites(
        position.astype(np.float32), np.concatenate(sides), np.concatenate(vertices), graph
    )


@dataclass(frozen=True, eq=False)
class Patch:
    """The units of one area in one hemisphere.

    Parameters
    ----------
    area : Area
    side : {"L", "R"}
    sites : ndarray of int, shape (n,)
        Rows of `Sites`.
    forward, upward, outward : ndarray, shape (n,)
        Rank of each unit from 0 to 1 from back to front, from below to above, and from the
        centre to the rim of the area.
    """

    area: Area
    side: str
    sites: np.ndarray
    forward: np.ndarray
    upward: np.ndarray
    outward: np.ndarray

    def __len__(self) -> int:
        return len(self.sites)


def place_areas(
    sites: Sites, areas: Sequence[Area], n_units: int, *, rng: np.random.Generator
) -> list[Patch]:
    """Lay the areas of one subject out: each takes the free sites nearest to its centre.

    Areas at the same centre become rings around each other, in the order given: so V2 surrounds
    V1, and V3 surrounds V2. Centres are shifted by about `JITTER` between subjects, and areas
    are larger or smaller by up to a tenth.

    Raises
    ------
    ConfigError
        If there are more units than sites.
    """
    free = np.ones(len(sites.position), dtype=bool)
    total = sum(area.share for area in areas)
    shift: dict[tuple[tuple[float, ...], str], np.ndarray] = {}
    patches = []
    for area in areas:
        for side in area.sides:
            wanted = n_units * area.share / total / len(area.sides) * rng.uniform(0.9, 1.1)
            size = max(2 // len(area.sides), round(wanted))
            moved = shift.setdefault((area.place, side), rng.normal(0, JITTER, 3))
            centre = np.asarray(area.place) * ((-1 if side == "L" else 1), 1, 1) + moved
            distance = sites.distances(sites.nearest(centre, side))
            distance = np.where(free, distance, np.inf)
            fits = size < len(distance)
            chosen = np.argpartition(distance, size)[:size] if fits else np.arange(len(distance))
            if not fits or not np.isfinite(distance[chosen]).all():
                raise ConfigError(
                    f"{n_units} units do not fit on the cortex",
                    where=f"the area {area.name}, hemisphere {side}",
                    mend=f"use fewer units; there are {len(free)} sites",
                )
            chosen = np.sort(chosen)
            free[chosen] = False
            place = sites.position[chosen]
            ranks = (_rank(place[:, 1]), _rank(place[:, 2]), _rank(distance[chosen]))
            patches.append(Patch(area, side, chosen, *ranks))
    return patches


def _rank(values: np.ndarray) -> np.ndarray:
    """Ranks from 0 to 1; a single value stands in the middle."""
    if len(values) < 2:
        return np.full(len(values), 0.5)
    return values.argsort(kind="stable").argsort(kind="stable") / (len(values) - 1)
