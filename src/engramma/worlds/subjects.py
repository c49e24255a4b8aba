"""Virtual subjects: recordings in which everything is known.

A subject has areas on a grid of voxels. Each unit has a noise-free response to each stimulus
(`engramma.worlds.tuning`), and noise set so that a known share of the variance of its single
presentations is signal: its ceiling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from engramma.data.recording import Recording
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError, DataError
from engramma.worlds import tuning

#: Voxel edge (mm) and shape of the grid.
VOXEL, GRID = 3.0, (30, 34, 16)
#: Areas: kind, centre on the grid, and share of the units.
AREAS: Mapping[str, tuple[str, tuple[int, int, int], float]] = {
    "early": ("early", (15, 5, 7), 0.22),
    "middle": ("middle", (15, 12, 8), 0.14),
    "face": ("category", (22, 15, 4), 0.08),
    "body": ("category", (24, 10, 9), 0.07),
    "animal": ("category", (7, 13, 4), 0.07),
    "place": ("category", (10, 18, 4), 0.08),
    "tool": ("category", (6, 14, 10), 0.07),
    "word": ("category", (6, 20, 5), 0.06),
    "language": ("language", (5, 26, 9), 0.11),
    "noise": ("noise", (20, 28, 11), 0.10),
}


@dataclass(frozen=True)
class SubjectOptions:
    """How virtual subjects are made.

    Parameters
    ----------
    n_units : int
        Voxels, give or take a tenth between subjects.
    n_repeats : int
        Presentations of each stimulus, one a run.
    ceiling : float
        Mean, over units that carry signal, of the share of variance in single presentations
        that is signal.
    spread : float
        Standard deviation of that share between units.
    smoothness : float
        Standard deviation (mm) of the kernel that correlates noise over neighbouring voxels.
    correlated : float
        Share of the noise variance that is so correlated.
    drift : float
        Share of the noise variance that is slow drift over a run.
    idiosyncrasy : float
        Size, against its own response, of each unit's private mixture of its area.
    signal : bool
        False makes every unit pure noise: a control in which nothing is to be found.
    """

    n_units: int = 400
    n_repeats: int = 3
    ceiling: float = 0.3
    spread: float = 0.1
    smoothness: float = 4.0
    correlated: float = 0.3
    drift: float = 0.1
    idiosyncrasy: float = 0.3
    signal: bool = True
    areas: Mapping[str, tuple[str, tuple[int, int, int], float]] = field(
        default_factory=lambda: AREAS
    )

    def __post_init__(self) -> None:
        if self.n_units < 2 * len(self.areas) or self.n_repeats < 1:
            raise ConfigError(
                f"a subject cannot have {self.n_units} units and {self.n_repeats} repeats",
                mend=f"use at least {2 * len(self.areas)} units and one repeat",
            )
        within = 0 <= self.ceiling < 1 and self.correlated >= 0 and self.drift >= 0
        if not within or self.correlated + self.drift > 1 or self.spread < 0:
            raise ConfigError(
                "ceiling, spread, correlated and drift are shares of variance",
                mend="use 0 <= ceiling < 1 and correlated + drift <= 1",
            )


def make_subject(
    stimuli: StimulusSet,
    name: str,
    options: SubjectOptions,
    rng: np.random.Generator,
) -> Recording:
    """Show ``stimuli`` to a new virtual subject.

    Parameters
    ----------
    stimuli : StimulusSet
        With images in memory and the columns of `engramma.worlds.scenes.Scenes`.
    name : str
    options : SubjectOptions
    rng : numpy.random.Generator
        Anatomy, tuning, order of presentation and noise follow it.

    Returns
    -------
    Recording
        presentation x unit, one run a repeat, stimuli in a new order each run. Units carry
        ``roi``, ``i``, ``j``, ``k``, ``true_ceiling`` (share of single-presentation variance
        that is signal), ``preferred`` (superordinate class, else empty), and the orientation
        (degrees) and receptive field (``rf_x``, ``rf_y``) of visual units, else NaN.

    Raises
    ------
    DataError
        If the stimuli have no images or lack a column.
    """
    luminance = _luminance(stimuli)
    roi, voxels = _anatomy(options, rng)
    clean, facts = _responses(stimuli, luminance, roi, voxels, options, rng)
    ceiling = np.clip(options.ceiling + options.spread * rng.standard_normal(len(roi)), 0.0, 0.95)
    silent = ~clean.any(axis=0)
    ceiling = np.where(silent, 0.0, ceiling)
    n = len(stimuli)
    shown = np.concatenate([rng.permutation(n) for _ in range(options.n_repeats)])
    noise = _noise(n, voxels, options, rng)
    values = np.sqrt(ceiling) * clean[shown] + np.sqrt(1 - ceiling) * noise
    affine = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
    affine[:3, 3] = [-VOXEL * g / 2 for g in GRID]
    return Recording.from_arrays(
        values.astype(np.float32),
        np.asarray(stimuli.ids, dtype=object)[shown],
        subject=name,
        run=np.repeat(np.arange(1, options.n_repeats + 1), n),
        unit_coords={
            "roi": roi,
            "i": voxels[:, 0],
            "j": voxels[:, 1],
            "k": voxels[:, 2],
            "true_ceiling": ceiling,
            **facts,
        },
        stimuli=stimuli,
        modality="simulated",
        source="virtual subject",
        affine=affine,
        volume_shape=list(GRID),
        truth={
            "ceiling": float(ceiling.mean()),
            "areas": {a: {"kind": k, "units": int((roi == a).sum())}
                      for a, (k, _, _) in options.areas.items()},
            "informative": [a for a in options.areas if ceiling[roi == a].any()],
            "signal": options.signal,
            "noise": {"correlated": options.correlated, "drift": options.drift},
        },
    )  # fmt: skip


def _luminance(stimuli: StimulusSet) -> np.ndarray:
    if stimuli.images is None:
        raise DataError(
            "a virtual subject needs images in memory",
            mend="make the stimuli with engramma.worlds.scenes.make_scenes",
        )
    for column in ("category", "second", "size", "x", "y", "colour", "background", "relation"):
        stimuli_has = column in stimuli.table
        if not stimuli_has:
            raise DataError(
                f"the stimulus table has no column {column!r}, which virtual subjects perceive",
                mend="make the stimuli with engramma.worlds.scenes.make_scenes",
            )
    weights = np.asarray([0.299, 0.587, 0.114], dtype=np.float32) / np.float32(255)
    return np.asarray(stimuli.images, dtype=np.float32) @ weights


def _anatomy(options: SubjectOptions, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Area and voxel of each unit; sizes and places of areas vary between subjects."""
    grid = np.stack(np.meshgrid(*map(np.arange, GRID), indexing="ij"), axis=-1).reshape(-1, 3)
    free = np.ones(len(grid), dtype=bool)
    total = sum(share for _, _, share in options.areas.values())
    roi, voxels = [], []
    for area, (_, centre, share) in options.areas.items():
        wanted = options.n_units * share / total * rng.uniform(0.9, 1.1)
        size = max(2, round(wanted))
        middle = np.asarray(centre) + rng.normal(0, 0.7, 3)
        stretch = rng.uniform(0.8, 1.25, 3)
        distance = (((grid - middle) * stretch) ** 2).sum(axis=1)
        nearest = np.argsort(np.where(free, distance, np.inf), kind="stable")[:size]
        free[nearest] = False
        voxels.append(grid[np.sort(nearest)])
        roi += [area] * size
    return np.asarray(roi), np.concatenate(voxels)


def _responses(
    stimuli: StimulusSet,
    luminance: np.ndarray,
    roi: np.ndarray,
    voxels: np.ndarray,
    options: SubjectOptions,
    rng: np.random.Generator,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Noise-free responses with mean 0 and variance 1 over stimuli, and facts about the units."""
    clean = np.zeros((len(stimuli), len(roi)))
    facts = {k: np.full(len(roi), np.nan) for k in ("orientation", "rf_x", "rf_y")}
    preferred = np.full(len(roi), "", dtype=object)
    for area, (kind, _, _) in options.areas.items():
        units = np.flatnonzero(roi == area)
        if kind == "noise" or not options.signal:
            continue
        if kind in ("early", "middle"):
            place = voxels[units, :2] - voxels[units, :2].mean(axis=0)
            place = place / (np.abs(place).max(axis=0) + 1e-9)
            respond = tuning.early if kind == "early" else tuning.middle
            response, own = respond(luminance, place, rng)
            for name, values in facts.items():
                values[units] = own[name]
        elif kind == "category":
            response = tuning.category(stimuli, area, len(units), rng)
            preferred[units] = area
        else:
            response = tuning.language(stimuli, len(units), rng)
        response = _standard(response)
        mixing = rng.standard_normal((len(units), len(units))) / np.sqrt(len(units))
        clean[:, units] = _standard(response + options.idiosyncrasy * response @ mixing)
    return clean, {**facts, "preferred": preferred.astype(str)}


def _standard(values: np.ndarray) -> np.ndarray:
    values = values - values.mean(axis=0)
    spread = values.std(axis=0)
    return values / np.where(spread > 1e-9, spread, 1.0) * (spread > 1e-9)


def _noise(
    n: int, voxels: np.ndarray, options: SubjectOptions, rng: np.random.Generator
) -> np.ndarray:
    """Noise of unit variance: alone, shared between neighbours, and slow within each run."""
    n_units, total = len(voxels), n * options.n_repeats
    white = rng.standard_normal((total, n_units), dtype=np.float32)
    apart = VOXEL * (voxels[:, None] - voxels[None]).astype(np.float32)
    kernel = np.exp(-(apart**2).sum(axis=2) / (2 * max(options.smoothness, 1e-3) ** 2))
    kernel /= np.sqrt((kernel**2).sum(axis=0))
    shared = rng.standard_normal((total, n_units), dtype=np.float32) @ kernel
    time = np.linspace(0, np.pi, n) if n > 1 else np.zeros(1)
    waves = np.stack([np.cos((k + 1) * time) for k in range(3)], axis=1)
    slow = [_standard(waves @ rng.standard_normal((3, n_units))) for _ in range(options.n_repeats)]
    alone = 1 - options.correlated - options.drift
    return (
        np.sqrt(alone) * white
        + np.sqrt(options.correlated) * shared
        + np.sqrt(options.drift) * np.concatenate(slow)
    )
