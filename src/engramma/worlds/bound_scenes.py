"""BoundScenes: four objects, a text that names one, and voxels that need both.

Each scene has an object in each of four slots, of different shapes. The caption names the shape
of one and says nothing of colour. *Binding* voxels follow the colour of the named object, which
is a product of what image and text say: no linear map of the two side by side gives it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from engramma.data.features import Features
from engramma.data.recording import Cohort
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError
from engramma.registry import world
from engramma.worlds import layouts, shapes
from engramma.worlds.vector_views import VectorView, record

SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
COLOURS = ("red", "yellow", "green", "blue", "purple", "pink")
N_SLOTS = 4
_CAPTIONS = ("look at the {}.", "there is a {} here.", "this picture shows a {}.")


@world("bound-scenes")
def bound_scenes(
    seed: int = 0,
    *,
    n_scenes: int = 600,
    n_voxels: int = 40,
    n_repeats: int = 1,
    noise: float = 1.2,
    size: int = 64,
    signal: bool = True,
) -> VectorView:
    """Show captioned scenes of four objects.

    Parameters
    ----------
    seed : int
    n_scenes : int
    n_voxels : int
        In each ``roi``: ``visual`` follows shapes and colours in their slots, ``textual`` the
        shape that is named, ``binding`` the colour of the named object, and ``noise`` nothing. On
        visual and textual voxels, image and text side by side are all that can be used; on binding
        voxels they reach half the correlation of the ceiling. An image alone rules out two of six
        names, which is a tenth of the variance of ``textual``.
    n_repeats : int
        Presentations of each scene.
    noise : float
        Standard deviation of the noise; that of the signal is 1.
    size : int
        Pixels a side of the images, an even number from 16.
    signal : bool
        False: no voxel follows anything.

    Returns
    -------
    VectorView
        Stimuli have images, ``caption``, ``named`` (shape), ``colour`` (of the named object) and
        ``slot``. Features ``visual`` (one-hot shape and colour of each slot), ``textual`` (one-hot
        shape named) and ``binding`` (one-hot colour of the named object: what only an oracle has).
        Truth: ``shape`` and ``colour`` (scene x slot, numbers in `SHAPES` and `COLOURS`).

    Raises
    ------
    ConfigError
        If an option is out of range.
    """
    if n_scenes < 2 or n_voxels < 1 or noise <= 0 or size < 16 or size % 2:
        raise ConfigError(
            "bound scenes cannot be made with these options",
            mend="use two scenes, a voxel, noise > 0 and an even size of at least 16",
        )
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence([seed, 3]).spawn(3)]
    scene_rng, image_rng, brain_rng = streams
    kind = scene_rng.permuted(np.tile(np.arange(len(SHAPES)), (n_scenes, 1)), axis=1)[:, :N_SLOTS]
    colour = scene_rng.integers(len(COLOURS), size=(n_scenes, N_SLOTS))
    slot = scene_rng.integers(N_SLOTS, size=n_scenes)
    wording = scene_rng.integers(len(_CAPTIONS), size=n_scenes)
    row = np.arange(n_scenes)
    named, bound = kind[row, slot], colour[row, slot]
    ids = tuple(f"scene{i:05d}" for i in range(n_scenes))
    table = pd.DataFrame(
        {
            "caption": [
                _CAPTIONS[w].format(SHAPES[k]) for w, k in zip(wording, named, strict=True)
            ],
            "named": [SHAPES[k] for k in named],
            "colour": [COLOURS[c] for c in bound],
            "slot": slot,
        },
        index=pd.Index(ids, dtype=object),
    )
    stimuli = StimulusSet(table, images=_draw(kind, colour, size, image_rng))
    vectors = {
        "visual": np.concatenate([np.eye(6)[kind], np.eye(6)[colour]], axis=2).reshape(
            n_scenes, -1
        ),
        "textual": np.eye(6)[named],
        "binding": np.eye(6)[bound],
    }
    clean = [v @ brain_rng.standard_normal((v.shape[1], n_voxels)) for v in vectors.values()]
    clean.append(np.zeros((n_scenes, n_voxels)))
    recording = record(
        np.concatenate(clean, axis=1) * signal,
        np.repeat([*vectors, "noise"], n_voxels),
        stimuli,
        snr=1 / noise**2,
        rng=brain_rng,
        n_repeats=n_repeats,
        source="generated: voxels that see, read or bind",
    )
    features = {
        name: Features(v.astype(np.float32), ids, name, "bound-scenes")
        for name, v in vectors.items()
    }
    facts = {"world": "bound-scenes", "seed": seed, "noise": noise, "signal": signal}
    cohort = Cohort({"sub-01": recording}, attrs=facts)
    return VectorView(stimuli, cohort, features, {"shape": kind, "colour": colour})


def _draw(kind: np.ndarray, colour: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Scenes with one object in each quarter, of varied place and size, on dark ground."""
    half = size // 2
    n = kind.size
    place = (np.arange(half, dtype=np.float32) + 0.5) / half * 2 - 1
    v, u = (np.broadcast_to(g, (n, half, half)) for g in np.meshgrid(place, place, indexing="ij"))
    x, y = rng.uniform(-0.25, 0.25, (2, n)).astype(np.float32)
    radius = rng.uniform(0.45, 0.6, n).astype(np.float32)
    cover = np.zeros((n, half, half), dtype=np.float32)
    for number, name in enumerate(SHAPES):
        rows = np.flatnonzero(kind.ravel() == number)
        distance = _distance(name, u[rows], v[rows], x[rows], y[rows], radius[rows])
        cover[rows] = np.clip(0.5 - distance * half / 2, 0, 1)
    ground = rng.uniform(20, 70, (n // N_SLOTS, 1, 1, 1, 1)).astype(np.float32)
    palette = np.asarray([layouts.COLOURS[c] for c in COLOURS], dtype=np.float32)
    paint = 255 * palette[colour]
    tiles = cover.reshape(-1, N_SLOTS, half, half)[..., None]
    pixels = ground + tiles * (paint[:, :, None, None, :] - ground)
    quarters = pixels.reshape(-1, 2, 2, half, half, 3).transpose(0, 1, 3, 2, 4, 5)
    return quarters.reshape(-1, size, size, 3).astype(np.uint8)


def _distance(
    name: str, u: np.ndarray, v: np.ndarray, x: np.ndarray, y: np.ndarray, radius: np.ndarray
) -> np.ndarray:
    """Signed distance to one of `SHAPES`."""
    if name == "circle":
        return shapes.ellipse(u, v, x, y, radius, radius)
    if name == "square":
        return shapes.box(u, v, x, y, 0.85 * radius, 0.85 * radius)
    if name == "diamond":
        return shapes.box(u, v, x, y, 0.8 * radius, 0.8 * radius, np.full(len(x), np.pi / 4))
    if name == "ring":
        return shapes.ring(u, v, x, y, 0.8 * radius, 0.22 * radius)
    if name == "cross":
        return np.minimum(
            shapes.box(u, v, x, y, radius, 0.3 * radius),
            shapes.box(u, v, x, y, 0.3 * radius, radius),
        )
    return shapes.polygon(
        u, v, [(x, y - radius), (x + radius, y + 0.8 * radius), (x - radius, y + 0.8 * radius)]
    )
