"""What areas with receptive fields take from an image: oriented contrast, contours and hue.

Images are filtered by a bank of Gabor filters, and the amplitude of each filter is pooled over
receptive fields that lie on a lattice common to all subjects: a unit has one field of the
lattice, and weights for the channels in it (the Gabor population-receptive-field model of Kay et
al., *Nature* 452, 2008, and St-Yves and Naselaris, *NeuroImage* 180, 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engramma.worlds.anatomy import Patch
from engramma.worlds.cortex import Area

#: Places a side that the filters are evaluated at.
GRID = 32
#: Preferred contours (degrees; 90 is vertical), frequencies (cycles an image), hues (degrees).
ORIENTATIONS = np.arange(0.0, 180.0, 30.0)
FREQUENCIES = np.asarray([4.0, 6.0, 9.0, 13.0])
HUES = np.arange(0.0, 360.0, 60.0)
#: Standard deviation of a filter in cycles, and where it and receptive fields are cut off, in
#: standard deviations: beyond that nothing counts.
CYCLES, CUT = 0.4, 2.0
#: The lattice of receptive fields in each half of the visual field.
N_ECCENTRICITIES, N_ANGLES = 5, 6
FARTHEST, STEEPEST = 0.44, 75.0
#: Contrast at which divisive normalisation halves a response.
HALF_SATURATION = 0.1
#: Images filtered at a time.
CHUNK = 128


@dataclass(frozen=True, eq=False)
class Lattice:
    """Receptive fields of one area in one hemisphere.

    Parameters
    ----------
    x, y : ndarray, shape (n_fields,)
        Centres, 0 .. 1 of the image from the upper left. Fields of the right hemisphere lie in
        the left half of the image.
    size : ndarray, shape (n_fields,)
        Standard deviation of the pooling, in the same unit; grows with eccentricity.
    """

    x: np.ndarray
    y: np.ndarray
    size: np.ndarray

    def pooling(self) -> np.ndarray:
        """Weights of places on the grid, n_fields x `GRID` ** 2; each row sums to 1."""
        centre = (np.arange(GRID) + 0.5) / GRID
        dx = centre[None, None, :] - self.x[:, None, None]
        dy = centre[None, :, None] - self.y[:, None, None]
        away = (dx**2 + dy**2) / self.size[:, None, None] ** 2
        weights = np.where(away <= CUT**2, np.exp(-away / 2), 0).reshape(len(self.x), -1)
        return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def lattice(area: Area, side: str) -> Lattice:
    """Return the receptive fields of an area in one hemisphere: rings of fields.

    Rings lie denser near the middle of the image (cortical magnification), and fields are the
    larger the further out they lie (Dumoulin and Wandell, *NeuroImage* 39, 2008).
    """
    step = (np.arange(N_ECCENTRICITIES) + 0.5) / N_ECCENTRICITIES
    eccentricity = FARTHEST * np.expm1(2 * step) / np.expm1(2)
    angle = np.deg2rad(np.linspace(STEEPEST, -STEEPEST, N_ANGLES))  # from above to below
    e, a = (v.ravel() for v in np.meshgrid(eccentricity, angle, indexing="ij"))
    outwards = -1 if side == "R" else 1
    return Lattice(
        0.5 + outwards * e * np.cos(a), 0.5 - e * np.sin(a), area.field * (0.024 + 0.09 * e)
    )


def visual_field(patch: Patch, rng: np.random.Generator) -> np.ndarray:
    """Field of the lattice that each unit of an area sees through, a retinotopic map.

    Eccentricity grows from back to front. What lies above is seen below: from top to bottom of
    the area the field moves from the lower to the upper part (``hemifield``), or, where dorsal
    and ventral halves have a quarter each, polar angle moves with the distance from the centre
    (V2: from the vertical meridian ``inwards`` to the horizontal one; V3: back ``outwards``),
    so that neighbouring areas are mirror images of each other (Sereno et al., *Science* 268,
    1995).
    """
    n = len(patch)
    ring = patch.forward * N_ECCENTRICITIES + 0.3 * rng.standard_normal(n)
    below = 2 * patch.upward - 1  # -1 for a field in the upper, 1 for one in the lower part
    if patch.area.map != "hemifield":
        inwards = patch.area.map == "quarters inwards"
        steepness = 1 - patch.outward if inwards else patch.outward
        below = np.where(below < 0, -1, 1) * steepness
    angle = (below + 1) / 2 * N_ANGLES + 0.3 * rng.standard_normal(n)
    ring = np.clip(ring.astype(int), 0, N_ECCENTRICITIES - 1)
    return ring * N_ANGLES + np.clip(angle.astype(int), 0, N_ANGLES - 1)


# -- from images to channels ---------------------------------------------------------------


def visual_latents(
    images: np.ndarray, areas: Sequence[Area], *, normalisation: bool = False
) -> dict[str, np.ndarray]:
    """Pool the channels of images over the receptive fields of areas.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, height, width, 3)
    areas : sequence of Area
        Of kind ``energy``, ``contour`` or ``colour``; others are passed over.
    normalisation : bool
        Whether the contrast of each orientation is divided by that of all orientations at the
        same place and frequency (Carandini and Heeger, *Nat. Rev. Neurosci.* 13, 2012).

    Returns
    -------
    dict of str to ndarray, shape (n, 2, n_fields, n_channels), float32
        Of each area, left and right hemisphere. Channels are: for ``energy`` each of
        `FREQUENCIES` times each of `ORIENTATIONS`; for ``contour`` each frequency times each
        pair of perpendicular orientations; for ``colour`` each of `HUES`.
    """
    chosen = [area for area in areas if area.kind in ("energy", "contour", "colour")]
    pooling = {a.name: np.stack([lattice(a, s).pooling() for s in "LR"]) for a in chosen}
    kinds = {area.kind for area in chosen}
    parts: dict[str, list[np.ndarray]] = {a.name: [] for a in chosen}
    for start in range(0, len(images), CHUNK):
        some = images[start : start + CHUNK].astype(np.float32) / np.float32(255)
        maps: dict[str, np.ndarray] = {}
        if kinds & {"energy", "contour"}:
            energy = contrast(some @ np.asarray([0.299, 0.587, 0.114], dtype=np.float32))
            if normalisation:
                energy = energy / (HALF_SATURATION + energy.mean(axis=2, keepdims=True))
            half = len(ORIENTATIONS) // 2
            maps["contour"] = np.sqrt(energy[:, :, :half] * energy[:, :, half:])
            maps["energy"] = energy
        if "colour" in kinds:
            maps["colour"] = hue_channels(some)
        for area in chosen:
            flat = maps[area.kind].reshape(len(some), -1, GRID * GRID)
            fields = pooling[area.name].reshape(-1, GRID * GRID)
            pooled = (flat @ fields.T).transpose(0, 2, 1)
            parts[area.name].append(pooled.reshape(len(some), 2, -1, flat.shape[1]))
    return {name: np.concatenate(p) for name, p in parts.items()}


def contrast(luminance: np.ndarray) -> np.ndarray:
    """Amplitude of quadrature pairs of Gabor filters, all over the image.

    The square root of the energy of Adelson and Bergen (*J. Opt. Soc. Am. A* 2, 1985). Amplitudes
    are multiplied by frequency, because those of natural scenes fall with it (Field, *J. Opt. Soc.
    Am. A* 4, 1987). Filters are blind to uniform grey; at the edges the image goes on as it ends.

    Parameters
    ----------
    luminance : ndarray, shape (n, height, width)
        0 .. 1.

    Returns
    -------
    ndarray, shape (n, `FREQUENCIES`, `ORIENTATIONS`, `GRID`, `GRID`), float32
    """
    n, height, width = luminance.shape
    luminance = luminance.astype(np.float32)
    found = np.empty((n, len(FREQUENCIES), len(ORIENTATIONS), GRID, GRID), dtype=np.float32)
    across = np.deg2rad(ORIENTATIONS + 90)  # luminance changes across the contour
    for f, frequency in enumerate(FREQUENCIES):
        sd, gain = CYCLES / frequency, frequency / FREQUENCIES.mean()
        flat_y, flat_x = _window(height, 0.0, sd), _window(width, 0.0, sd)
        mean = flat_y.real @ luminance @ flat_x.real.T
        for o in range(len(ORIENTATIONS)):
            down = _window(height, -frequency * np.sin(across[o]), sd)
            right = _window(width, frequency * np.cos(across[o]), sd)
            both = _parts(down) @ luminance @ _parts(right).T  # the four products of parts
            cc, cs = both[:, :GRID, :GRID], both[:, :GRID, GRID:]
            sc, ss = both[:, GRID:, :GRID], both[:, GRID:, GRID:]
            grey = np.outer(down.sum(axis=1), right.sum(axis=1)).astype(np.complex64)
            even = cc - ss - grey.real * mean
            odd = cs + sc - grey.imag * mean
            found[:, f, o] = gain * np.sqrt(even**2 + odd**2)
    return found


def _window(size: int, frequency: float, sd: float) -> np.ndarray:
    """One dimension of Gabor filters at all places of the grid, `GRID` x size, complex64.

    Filters are cut off at `CUT` standard deviations; what lies beyond the edge of the image is
    taken from the edge.
    """
    margin = int(np.ceil(CUT * sd * size)) + 1
    pixel = np.arange(-margin, size + margin)
    centre = (np.arange(GRID) + 0.5) / GRID
    away = (pixel + 0.5) / size - centre[:, None]
    envelope = np.where(np.abs(away) <= CUT * sd, np.exp(-(away**2) / (2 * sd**2)), 0)
    envelope = envelope / np.maximum(envelope.sum(axis=1, keepdims=True), 1e-12)
    weights = envelope * np.exp(2j * np.pi * frequency * away)
    folded = np.zeros((GRID, size), dtype=np.complex128)
    np.add.at(folded.T, np.clip(pixel, 0, size - 1), weights.T)
    return folded.astype(np.complex64)


def _parts(window: np.ndarray) -> np.ndarray:
    return np.concatenate([window.real, window.imag])


def hue_channels(images: np.ndarray) -> np.ndarray:
    """How much of each hue there is at each place, n x `HUES` x `GRID` x `GRID`, float32.

    Chroma times the cosine of the difference in hue, where that is positive.
    """
    _, height, width, _ = images.shape
    red, green, blue = np.moveaxis(images, -1, 0)
    warm, cool = red - (green + blue) / 2, np.float32(np.sqrt(3) / 2) * (green - blue)
    down, right = (_window(s, 0.0, 0.5 / GRID).real for s in (height, width))
    warm, cool = down @ warm @ right.T, down @ cool @ right.T
    angle = np.deg2rad(HUES).astype(np.float32)[:, None, None]
    return np.maximum(warm[:, None] * np.cos(angle) + cool[:, None] * np.sin(angle), 0)


# -- what a unit makes of the channels -----------------------------------------------------


@dataclass(frozen=True, eq=False)
class VisualTuning:
    """Channels of units with receptive fields.

    Parameters
    ----------
    weights : ndarray, shape (n_units, n_channels)
        Zero for channels whose frequency is more than an octave from the preferred one.
    facts : dict of str to ndarray, shape (n_units,)
        ``orientation`` and ``hue`` (degrees), ``frequency`` (cycles an image), ``rf_x``,
        ``rf_y``, ``rf_size`` (standard deviation), and ``rf_reach``, the distance from the
        centre beyond which nothing counts; NaN where not defined.
    """

    weights: np.ndarray
    facts: dict[str, np.ndarray]


def visual_tuning(
    patch: Patch, field: np.ndarray, idiosyncrasy: float, rng: np.random.Generator
) -> VisualTuning:
    """Draw what the units of a patch prefer; ``field`` is their row of the lattice."""
    n, fields = len(patch), lattice(patch.area, patch.side)
    facts = {name: np.full(n, np.nan) for name in ("orientation", "frequency", "hue")}
    facts |= {"rf_x": fields.x[field], "rf_y": fields.y[field]}
    pooled = fields.size[field]
    if patch.area.kind == "colour":
        facts["hue"] = rng.choice(HUES, n)
        away = np.deg2rad(HUES - facts["hue"][:, None])
        weights = np.exp(2 * (np.cos(away) - 1))
        sd = widest = np.full(n, 0.5 / GRID)
    else:
        angles = ORIENTATIONS
        if patch.area.kind == "contour":
            angles = ORIENTATIONS[: len(ORIENTATIONS) // 2]
        turn = 180.0 if patch.area.kind == "energy" else 90.0
        facts["orientation"] = rng.choice(angles, n)
        # Units that look further out prefer coarser patterns.
        out = np.hypot(facts["rf_x"] - 0.5, facts["rf_y"] - 0.5) / FARTHEST
        octave = np.log2(FREQUENCIES[-1]) - 1.2 * out + 0.4 * rng.standard_normal(n)
        apart = np.abs(np.log2(FREQUENCIES) - octave[:, None])
        facts["frequency"] = FREQUENCIES[apart.argmin(axis=1)]
        apart = np.abs(np.log2(FREQUENCIES / facts["frequency"][:, None]))
        tuned = np.exp(-(apart**2) / (2 * 0.5**2))
        away = 2 * np.pi * (angles - facts["orientation"][:, None]) / turn
        weights = tuned[:, :, None] * np.exp(3 * (np.cos(away) - 1))[:, None]
        weights = weights + 0.3 * idiosyncrasy * rng.standard_normal(weights.shape)
        near = apart <= 1
        weights = (weights * near[:, :, None]).reshape(n, -1)
        sd = CYCLES / facts["frequency"]
        widest = CYCLES / np.where(near, FREQUENCIES, np.inf).min(axis=1)
    facts["rf_size"] = np.hypot(pooled, sd)
    # Filters are cut off to a square, whose corners are furthest.
    facts["rf_reach"] = CUT * (pooled + np.sqrt(2) * widest)
    return VisualTuning(weights.astype(np.float32), facts)
