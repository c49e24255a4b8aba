"""Solid objects with known shape: meshes, points on the surface, occupancy, and turntable views.

Each category is a function of four shape parameters that returns parts; a solid is their union,
centred and scaled to the unit ball. Those that `engramma.worlds.objects` draws, too, share its
names and tones, so that colour says nothing of category here either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError
from engramma.progress import track
from engramma.registry import world
from engramma.worlds.canvas import TONES
from engramma.worlds.layouts import COLOURS, HOLD_OUT_EVERY
from engramma.worlds.meshes import Mesh, Part, join
from engramma.worlds.solid_parts import BUILDERS
from engramma.worlds.turntable import turntable

SOLIDS = tuple(BUILDERS)
#: Shape parameters of a solid, -1 .. 1.
N_PARAMETERS = 4


@dataclass(frozen=True, eq=False)
class Solid:
    """One object.

    Parameters
    ----------
    category : str
        One of `SOLIDS`.
    form : ndarray, shape (4,)
        Shape parameters, -1 .. 1.
    colour : sequence of float
        RGB, 0 .. 1.
    """

    category: str
    form: np.ndarray
    colour: Sequence[float] = (0.5, 0.5, 0.5)

    @cached_property
    def parts(self) -> list[Part]:
        """Parts of the object, within the unit ball; z points up, and the front is at +x."""
        parts = BUILDERS[self.category](*map(float, self.form))
        vertices = np.concatenate([p.vertices for p in parts])
        centre = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
        scale = 1 / np.linalg.norm(vertices - centre, axis=1).max()
        return [p.placed(-scale * centre, scale=scale) for p in parts]

    @cached_property
    def mesh(self) -> Mesh:
        """Surfaces of all parts; those of parts that meet run on inside each other."""
        own = np.asarray(self.colour)
        tones = [TONES[p.tone] for p in self.parts]
        return join(
            [p.mesh((a * own + b).tolist()) for p, (a, b) in zip(self.parts, tones, strict=True)]
        )

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Whether points (n, 3) lie inside any part."""
        return np.any([p.contains(points) for p in self.parts], axis=0)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw points of the outer surface, evenly by area, and the normals there.

        Returns
        -------
        points, normals : ndarray of float32, shape (n, 3)
        """
        points, faces = self.mesh.sample(3 * n, rng)
        normals = self.mesh.normals[faces]
        part = np.repeat(np.arange(len(self.parts)), [len(p.faces) for p in self.parts])[faces]
        # A little above the surface no other part may be: where two parts touch is no surface.
        above = points + 1e-4 * normals
        outer = np.ones(len(points), bool)
        for number, other in enumerate(self.parts):
            outer &= (part == number) | ~other.contains(above)
        rows = np.flatnonzero(outer)[:n]
        points, normals = points[rows], normals[rows]
        if len(rows) < n:
            more = self.sample(n - len(rows), rng)
            points, normals = (np.concatenate(p) for p in zip((points, normals), more, strict=True))
        return points.astype(np.float32), normals.astype(np.float32)

    def occupancy(self, resolution: int = 32, fine: int = 2) -> np.ndarray:
        """Share of each cell of a grid over the cube from -1 to 1 that the object fills.

        Parameters
        ----------
        resolution : int
            Cells a side.
        fine : int
            Points a side in each cell at which it is looked up.

        Returns
        -------
        ndarray of float32, shape (resolution, resolution, resolution)
            Along x, y and z.
        """
        n = resolution * fine
        line = (np.arange(n) + 0.5) * (2 / n) - 1
        inside = np.zeros((n, n, n), bool)
        for part in self.parts:
            # Only where the part can be.
            low, high = part.vertices.min(axis=0), part.vertices.max(axis=0)
            first, last = np.searchsorted(line, low), np.searchsorted(line, high)
            spans = [slice(a, b) for a, b in zip(first, last, strict=True)]
            grid = np.stack(np.meshgrid(*(line[s] for s in spans), indexing="ij"), axis=-1)
            inside[*spans] |= part.contains(grid.reshape(-1, 3)).reshape(grid.shape[:3])
        cells = inside.reshape(resolution, fine, resolution, fine, resolution, fine)
        return cells.mean(axis=(1, 3, 5), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Solids:
    """Solids, and what is seen of them as they turn.

    Parameters
    ----------
    stimuli : StimulusSet
        The first views, and a table with ``caption``, ``category``, ``colour`` and the shape
        parameters ``form_1`` to ``form_4``.
    solids : list of Solid
    azimuths : ndarray, shape (views,)
        Degrees by which the table has turned.
    images : ndarray of uint8, shape (n, views, size, size, 3)
    depth : ndarray of float32, shape (n, views, size, size)
        Distance along the axis of the camera, infinite where nothing is.
    masks : ndarray of bool, shape (n, views, size, size)
    points, normals : ndarray of float32, shape (n, n_points, 3)
        Of the outer surfaces.
    """

    stimuli: StimulusSet
    solids: list[Solid]
    azimuths: np.ndarray
    images: np.ndarray
    depth: np.ndarray
    masks: np.ndarray
    points: np.ndarray
    normals: np.ndarray

    def __len__(self) -> int:
        return len(self.solids)

    @property
    def forms(self) -> np.ndarray:
        """Shape parameters (n, 4)."""
        return np.stack([s.form for s in self.solids])

    def occupancy(self, resolution: int = 32) -> np.ndarray:
        """Return the share of each cell that is filled, (n, resolution, resolution, resolution)."""
        return np.stack([s.occupancy(resolution) for s in self.solids])


@world("solids")
def solids(seed: int = 0, *, n: int = 60, **options: object) -> Solids:
    """Make solid objects on a turntable; options are those of `make_solids`."""
    return make_solids(n, rng=np.random.default_rng([seed, 37]), **options)  # type: ignore[arg-type]


def make_solids(
    n: int,
    *,
    rng: np.random.Generator,
    categories: Sequence[str] = SOLIDS,
    shapes: str = "all",
    n_views: int = 12,
    size: int = 64,
    n_points: int = 2048,
) -> Solids:
    """Draw solids and render them as they turn.

    Parameters
    ----------
    n : int
    rng : numpy.random.Generator
    categories : sequence of str
        Each about equally often; leaving some out holds whole categories out.
    shapes : {"all", "common", "held out"}
        See `draw_solids`.
    n_views : int
        Views a turn, evenly from 0 degrees.
    size : int
        Pixels a side.
    n_points : int
        Points a cloud.

    Raises
    ------
    ConfigError
        If a category is unknown or a number out of range.
    """
    if min(n, n_views, n_points) < 1 or size < 8:
        raise ConfigError(
            f"solids cannot be shown with n={n}, n_views={n_views}, size={size} and "
            f"n_points={n_points}",
            mend="use one or more of each, and size >= 8",
        )
    found, colours = draw_solids(n, rng=rng, categories=categories, shapes=shapes)
    azimuths = np.arange(n_views) * (360 / n_views)
    views = [turntable(s.mesh, azimuths, size=size) for s in track(found, "turning solids")]
    images, depth, masks = (np.stack(parts) for parts in zip(*views, strict=True))
    clouds = [s.sample(n_points, rng) for s in found]
    points, normals = (np.stack(parts) for parts in zip(*clouds, strict=True))
    table = _table(found, colours)
    stimuli = StimulusSet(table, images=images[:, 0], attrs={"source": "rendered solids"})
    return Solids(stimuli, found, azimuths, images, depth, masks, points, normals)


def draw_solids(
    n: int,
    *,
    rng: np.random.Generator,
    categories: Sequence[str] = SOLIDS,
    shapes: str = "all",
) -> tuple[list[Solid], list[str]]:
    """Draw solids and the names of their colours.

    Parameters
    ----------
    n : int
    rng : numpy.random.Generator
    categories : sequence of str
    shapes : {"all", "common", "held out"}
        Held out are combinations of the first two shape parameters: where, each cut into five
        equal ranges, their sum of ranges is a multiple of five.

    Raises
    ------
    ConfigError
        If a category is unknown or there are no such shapes.
    """
    unknown = [c for c in categories if c not in BUILDERS]
    if unknown or not len(categories) or shapes not in ("all", "common", "held out"):
        raise ConfigError(
            f"there is no solid {unknown[0]!r}"
            if unknown
            else f"there are no solids with shapes={shapes!r} and categories={tuple(categories)}",
            mend=f"use shapes all, common or held out, and choose from {', '.join(SOLIDS)}",
        )
    forms = rng.uniform(-1, 1, (n, N_PARAMETERS))
    if shapes != "all":
        wrong = held_out_forms(forms) == (shapes == "common")
        while wrong.any():
            forms[wrong] = rng.uniform(-1, 1, (int(wrong.sum()), N_PARAMETERS))
            wrong = held_out_forms(forms) == (shapes == "common")
    kinds = rng.permutation(np.resize(np.asarray(categories, dtype=object), n))
    names = rng.choice(list(COLOURS), n)
    jitter = rng.uniform(-0.06, 0.06, (n, 3))
    hues = np.clip([np.add(COLOURS[c], j) for c, j in zip(names, jitter, strict=True)], 0.03, 0.97)
    found = [
        Solid(str(kind), form, hue.tolist())
        for kind, form, hue in zip(kinds, forms, hues, strict=True)
    ]
    return found, [str(c) for c in names]


def held_out_forms(forms: np.ndarray) -> np.ndarray:
    """Whether shape parameters (n, 4) are those that ``shapes="common"`` leaves out, a fifth."""
    ranges = np.floor((forms[:, :2] + 1) / 2 * HOLD_OUT_EVERY).astype(int)
    return ranges.sum(axis=1) % HOLD_OUT_EVERY == 0


def _table(found: Sequence[Solid], colours: Sequence[str]) -> pd.DataFrame:
    words = [f"{c} {s.category}" for s, c in zip(found, colours, strict=True)]
    columns: Mapping[str, Sequence] = {
        "caption": [f"{'an' if w[0] in 'aeiou' else 'a'} {w}" for w in words],
        "category": [s.category for s in found],
        "colour": colours,
        **{f"form_{k + 1}": [s.form[k] for s in found] for k in range(N_PARAMETERS)},
    }
    ids = pd.Index([f"solid{i:05d}" for i in range(len(found))], dtype=object)
    return pd.DataFrame(columns, index=ids)
