r"""Structural MRI of virtual people, with lesions whose place is known.

People are smooth deformations of the MNI152 tissue maps that nilearn brings (Fonov et al. 2011).
Scans are made from tissue, after the generators of SynthSeg (Billot et al. 2023) and Brain-ID (Liu
et al. 2024): each tissue has a mean and a spread of intensity, times a smooth bias field, seen
through a gamma curve, thick slices and Rician noise (Gudbjartsson & Patz 1995).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates, zoom

from engramma.errors import ConfigError
from engramma.registry import world

#: Tissues, in the order of their labels; 0 is background.
TISSUES = ("fluid", "grey", "white", "lesion")
#: Mean intensity (0 to 255) of each tissue in the usual contrasts.
CONTRASTS: Mapping[str, tuple[float, float, float, float]] = MappingProxyType(
    {
        "T1": (45.0, 115.0, 165.0, 95.0),
        "T2": (220.0, 135.0, 95.0, 205.0),
        "FLAIR": (35.0, 140.0, 110.0, 215.0),
    }
)


@dataclass(frozen=True, eq=False)
class StructuralScans:
    """Scans of several people, and what they are made of.

    Parameters
    ----------
    images : ndarray of float32, shape (n_subjects, n_contrasts, x, y, z)
        Intensities, about 0 to 255; skull and scalp are absent.
    contrasts : tuple of str
    tissues : ndarray of float32, shape (n_subjects, 4, x, y, z)
        Share of each voxel that is one of `TISSUES`; what is left to 1 is background.
    lesions : ndarray of bool, shape (n_subjects, x, y, z)
        Voxels that are lesion by half or more.
    displacement : ndarray of float32, shape (n_subjects, 3, x, y, z)
        Millimetres from each voxel to the place in the template that is seen there.
    bias : ndarray of float32, shape (n_subjects, n_contrasts, x, y, z)
        Factor on the intensities.
    intensity : ndarray of float32, shape (n_subjects, n_contrasts, 4)
        Mean intensity that each tissue was given.
    subjects : DataFrame
        One row a person: ``age`` (years), ``atrophy`` (share of grey matter lost),
        ``n_lesions``, ``grey_volume``, ``white_volume`` and ``lesion_volume`` (millilitres).
    affine : ndarray, shape (4, 4)
        Voxel indices to millimetres in MNI space.
    """

    images: np.ndarray
    contrasts: tuple[str, ...]
    tissues: np.ndarray
    lesions: np.ndarray
    displacement: np.ndarray
    bias: np.ndarray
    intensity: np.ndarray
    subjects: pd.DataFrame
    affine: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """Tissue that fills most of each voxel: uint8, 0 background, then `TISSUES` from 1."""
        background = 1 - self.tissues.sum(axis=1, keepdims=True)
        shares = np.concatenate([background, self.tissues], axis=1)
        return shares.argmax(axis=1).astype(np.uint8)

    def axial_slices(self, least: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
        """Subject and height of each axial slice of which a share ``least`` is brain.

        Returns
        -------
        subject, k : ndarray of int
            So that ``images[subject, contrast, :, :, k]`` are the slices.
        """
        brain = self.tissues.sum(axis=1).mean(axis=(1, 2))
        subject, k = np.nonzero(brain >= least)
        return subject, k


@dataclass(frozen=True)
class ScanOptions:
    """How scans are made from tissue.

    Parameters
    ----------
    spread : float
        Standard deviation of intensity within a tissue (0 to 255).
    gamma : float
        Standard deviation of the logarithm of the exponent of the gamma curve.
    bias : float
        Standard deviation of the logarithm of the bias field.
    noise : float
        Standard deviation of the noise in each channel of the receiver (0 to 255).
    thickness : float
        Thickness of axial slices in millimetres; that of a voxel or less leaves them thin.
    """

    spread: float = 5.0
    gamma: float = 0.02
    bias: float = 0.1
    noise: float = 4.0
    thickness: float = 0.0


@world("structural-mri")
def structural(
    seed: int = 0,
    *,
    n_subjects: int = 8,
    contrasts: Sequence[str] = ("T1", "T2", "FLAIR"),
    voxel: float = 4.0,
    lesions: float = 2.0,
    ages: tuple[float, float] = (20.0, 80.0),
    atrophy: float = 0.002,
    warp: float = 4.0,
    rotation: float = 15.0,
    scaling: float = 0.1,
    scan: ScanOptions | None = None,
) -> StructuralScans:
    """Scan virtual people.

    Parameters
    ----------
    seed : int
        Anatomy and scanner draw from streams of their own: other contrasts or scan options leave
        people and lesions as they were.
    n_subjects : int
    contrasts : sequence of str
        Keys of `CONTRASTS`, or ``"random"``: each tissue's mean is drawn from 25 to 225, anew for
        each person and mention.
    voxel : float
        Edge in millimetres, at least 1.
    lesions : float
        Mean number of lesions in white matter (Poisson); 0 for healthy people.
    ages : tuple of float
        Ages are uniform between these.
    atrophy : float
        Share of grey matter that turns to fluid, where it borders on fluid, a year after 20.
    warp : float
        Standard deviation (mm) of the elastic part of the deformation, per axis.
    rotation, scaling : float
        Largest rotation (degrees) about each axis, and change of size along each.
    scan : ScanOptions, optional

    Returns
    -------
    StructuralScans

    Raises
    ------
    ConfigError
        If a contrast is unknown or a number out of range.
    """
    scan = scan or ScanOptions()
    for name in contrasts:
        if name not in CONTRASTS and name != "random":
            raise ConfigError(
                f"there is no contrast {name!r}", mend=f"use {', '.join(CONTRASTS)} or random"
            )
    if n_subjects < 1 or not contrasts or not 1 <= voxel <= 10 or lesions < 0:
        raise ConfigError(
            "scans cannot be made with these numbers",
            mend="use n_subjects >= 1, a contrast, 1 <= voxel <= 10 mm and lesions >= 0",
        )
    years = max(ages[1] - 20, 0)
    if not 0 < ages[0] <= ages[1] or not 0 <= atrophy * years <= 0.4 or not 0 <= scaling < 1:
        raise ConfigError(
            "ages, atrophy or scaling are out of range",
            mend="use ascending ages, at most 0.4 of grey matter lost at the end, scaling < 1",
        )
    template, affine = _template(float(voxel))
    people = []
    for stream in np.random.SeedSequence(seed).spawn(n_subjects):
        body, scanner = (np.random.default_rng(s) for s in stream.spawn(2))
        displacement = _deformation(template.shape[1:], voxel, warp, rotation, scaling, body)
        age = body.uniform(*ages)
        tissue = _shrink(_warped(template, displacement / voxel), atrophy * max(age - 20, 0))
        tissue, n_lesions = _injure(tissue, body.poisson(lesions), voxel, body)
        means = np.stack([
            scanner.uniform(25, 225, 4) if c == "random" else np.asarray(CONTRASTS[c])
            for c in contrasts
        ])  # fmt: skip
        scans = [_scan(tissue, mean, voxel, scan, scanner) for mean in means]
        volume = tissue.sum(axis=(1, 2, 3)) * voxel**3 / 1000
        facts = (age, atrophy * max(age - 20, 0), n_lesions, *volume[1:])
        people.append((displacement, tissue, means, scans, facts))
    displacement, tissues, intensity = (
        np.stack([p[i] for p in people]).astype(np.float32) for i in range(3)
    )
    columns = ["age", "atrophy", "n_lesions", "grey_volume", "white_volume", "lesion_volume"]
    names = pd.Index([f"sub-{i:02d}" for i in range(1, n_subjects + 1)], dtype=object)
    return StructuralScans(
        images=np.stack([[s[0] for s in p[3]] for p in people]).astype(np.float32),
        contrasts=tuple(contrasts),
        tissues=tissues,
        lesions=tissues[:, 3] >= 0.5,
        displacement=displacement,
        bias=np.stack([[s[1] for s in p[3]] for p in people]).astype(np.float32),
        intensity=intensity,
        subjects=pd.DataFrame([p[4] for p in people], columns=columns, index=names),
        affine=affine,
    )


@lru_cache(maxsize=4)
def _template(voxel: float) -> tuple[np.ndarray, np.ndarray]:
    """Shares of fluid, grey and white matter in the template, and its affine."""
    from nilearn import datasets

    load = (
        datasets.load_mni152_brain_mask,
        datasets.load_mni152_gm_template,
        datasets.load_mni152_wm_template,
    )
    brain, grey, white = (f(resolution=1) for f in load)
    shape = [int(np.ceil(s / voxel)) for s in brain.shape]
    # Mean over what each voxel holds, by smoothing before sampling.
    maps = []
    for image in (brain, grey, white):
        fine = np.asarray(image.dataobj, dtype=np.float32)
        fine = gaussian_filter(fine, 0.42 * (voxel - 1)) if voxel > 1 else fine
        grid = np.meshgrid(*(np.arange(s) * voxel for s in shape), indexing="ij")
        maps.append(map_coordinates(fine, grid, order=1, mode="constant"))
    inside, grey_map, white_map = maps
    # The maps are probabilities of their own: together they fill at most the brain.
    total = np.maximum((grey_map + white_map) / np.maximum(inside, 1e-6), 1)
    grey_map, white_map = grey_map / total, white_map / total
    fluid = np.maximum(inside - grey_map - white_map, 0)
    affine = np.array(brain.affine, dtype=float)
    affine[:3, :3] *= voxel
    return np.stack([fluid, grey_map, white_map]).astype(np.float32), affine


def _smooth(shape: Sequence[int], coarse: int, rng: np.random.Generator) -> np.ndarray:
    """Field of unit variance, interpolated from noise on ``coarse`` points along each axis."""
    field = rng.standard_normal((coarse,) * 3)
    for size in shape:  # one axis after the other; each pass moves the next to the front
        field = np.tensordot(field, _splines(coarse, size), axes=(0, 1))
    return np.asarray(field / field.std())


@lru_cache(maxsize=64)
def _splines(coarse: int, fine: int) -> np.ndarray:
    """Matrix, fine x coarse, of cubic spline interpolation along an axis."""
    return np.asarray(zoom(np.eye(coarse), (fine / coarse, 1), order=3, mode="nearest"))


def _deformation(
    shape: Sequence[int],
    voxel: float,
    warp: float,
    rotation: float,
    scaling: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Rotate and scale about the centre, and warp: displacement in mm, (3, x, y, z)."""
    a, b, c = np.deg2rad(rng.uniform(-rotation, rotation, 3))
    about_x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    about_y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    about_z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
    size = 1 + rng.uniform(-scaling, scaling, 3)
    matrix = np.asarray(about_x) @ about_y @ about_z @ np.diag(1 / size)
    place = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")) * voxel
    place = place - (np.asarray(shape)[:, None, None, None] - 1) / 2 * voxel
    moved = np.einsum("ij,jxyz->ixyz", matrix, place) - place
    # Coarser than the warp is long, so that space does not fold.
    elastic = np.stack([_smooth(shape, 6, rng) for _ in range(3)])
    return moved + warp * elastic


def _warped(maps: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Show maps as they are seen through a displacement in voxels."""
    grid = np.stack(np.meshgrid(*map(np.arange, maps.shape[1:]), indexing="ij"))
    return np.stack(
        [map_coordinates(m, grid + displacement, order=1, mode="constant") for m in maps]
    )


def _shrink(tissue: np.ndarray, lost: float) -> np.ndarray:
    """Turn a share of the grey matter into fluid, most where it borders on fluid."""
    fluid, grey, white = tissue
    near = grey * gaussian_filter(fluid, 1.0)
    low, high = 0.0, 1e4
    for _ in range(50):  # no more is lost in a voxel than it holds
        factor = (low + high) / 2
        too_much = np.minimum(factor * near, grey).sum() > lost * grey.sum()
        low, high = (low, factor) if too_much else (factor, high)
    gone = np.minimum(low * near, grey)
    return np.stack([fluid + gone, grey - gone, white])


def _injure(
    tissue: np.ndarray, n: int, voxel: float, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Put lesions into white matter: ellipsoids with an uneven surface."""
    white = tissue[2]
    places = np.argwhere(white > 0.8)
    lesion = np.zeros_like(white)
    n = n if len(places) else 0
    grid = np.stack(np.meshgrid(*map(np.arange, white.shape), indexing="ij"), axis=-1)
    for _ in range(n):
        centre = places[rng.integers(len(places))]
        radii = rng.uniform(5, 14, 3) / voxel
        turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        distance = np.linalg.norm((grid - centre) @ turn / radii, axis=-1)
        distance = distance + 0.15 * _smooth(white.shape, 12, rng)
        # Falls from 1 to 0 over about a voxel at the surface.
        inside = np.clip((1 - distance) * radii.mean() + 0.5, 0, 1)
        lesion = np.maximum(lesion, inside)
    lesion = lesion * white  # never outside white matter
    return np.stack([tissue[0], tissue[1], white - lesion, lesion]), n


def _scan(
    tissue: np.ndarray,
    mean: np.ndarray,
    voxel: float,
    options: ScanOptions,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Image of one contrast, and its bias field."""
    shape = tissue.shape[1:]
    clean = np.tensordot(mean, tissue, axes=1)
    # Tissues that share a voxel average their texture too.
    texture = options.spread * np.sqrt((tissue**2).sum(axis=0)) * rng.standard_normal(shape)
    image = np.maximum(clean + texture, 0)
    exponent = np.exp(options.gamma * rng.standard_normal())
    image = 300 * (image / 300) ** exponent
    bias = np.exp(options.bias * _smooth(shape, 4, rng))
    image = image * bias
    if options.thickness > voxel:
        step = options.thickness / voxel
        sharp = gaussian_filter1d(image, step / 2.355, axis=2)  # profile as wide as the slice
        slices = np.arange(0, shape[2], step)
        thick = map_coordinates(
            sharp,
            np.meshgrid(*map(np.arange, shape[:2]), slices, indexing="ij"),
            order=1,
            mode="nearest",
        )
        back = np.meshgrid(*map(np.arange, shape[:2]), np.arange(shape[2]) / step, indexing="ij")
        image = map_coordinates(thick, back, order=1, mode="nearest")
    real, imaginary = options.noise * rng.standard_normal((2, *shape))
    return np.hypot(image + real, imaginary), bias
