"""The code that virtual subjects share, and what each makes of it: the noise-free responses.

An area carries latent responses that are the same in every brain; each unit weighs those that
reach it in its own way. So one subject's area can be mapped linearly onto another's, while unit
i of one has nothing to do with unit i of the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from engramma.data.stimuli import StimulusSet
from engramma.errors import DataError
from engramma.worlds.anatomy import Patch
from engramma.worlds.cortex import IMAGE_KINDS, Area
from engramma.worlds.retinotopy import visual_field, visual_latents, visual_tuning
from engramma.worlds.selectivity import area_latents, meaning, selectivity

__all__ = ["SharedCode", "Wiring", "meaning", "shared_code", "wire"]

#: Facts about units that `wire` draws.
NUMBERS = ("orientation", "frequency", "hue", "rf_x", "rf_y", "rf_size", "rf_reach")


@dataclass(frozen=True, eq=False)
class SharedCode:
    """Latent responses of areas to stimuli.

    Parameters
    ----------
    latents : mapping of str to ndarray, shape (n_stimuli, 2, n_fields, n_channels)
        By area; hemispheres left and right.
    meaning : ndarray, shape (n_stimuli, n_dimensions)
        What the stimuli mean (`engramma.worlds.selectivity.meaning`).
    """

    latents: Mapping[str, np.ndarray]
    meaning: np.ndarray

    def __len__(self) -> int:
        return len(self.meaning)

    def __add__(self, other: SharedCode) -> SharedCode:
        """Join the code of further stimuli."""
        joined = {a: np.concatenate([v, other.latents[a]]) for a, v in self.latents.items()}
        return SharedCode(joined, np.concatenate([self.meaning, other.meaning]))


def shared_code(
    stimuli: StimulusSet,
    areas: Sequence[Area],
    *,
    objects: pd.DataFrame | None = None,
    normalisation: bool = False,
) -> SharedCode:
    """Compute the latent responses of areas.

    Parameters
    ----------
    stimuli : StimulusSet
        With images in memory and the columns of `engramma.worlds.scenes.Scenes`.
    areas : sequence of Area
    objects : DataFrame, optional
        All objects, as of `engramma.worlds.scenes.Scenes`; else the first two of each scene are
        taken from the table of stimuli.
    normalisation : bool
        Divisive normalisation in areas with receptive fields.

    Raises
    ------
    DataError
        If the stimuli have no images or lack a column.
    """
    if stimuli.images is None:
        raise DataError(
            "a virtual subject needs images in memory",
            mend="make the stimuli with engramma.worlds.scenes.make_scenes",
        )
    latents = area_latents(stimuli, areas, objects)
    latents |= visual_latents(stimuli.images, areas, normalisation=normalisation)
    return SharedCode(latents, meaning(stimuli))


@dataclass(frozen=True, eq=False)
class Wiring:
    """What the units of one area in one hemisphere take from the shared code.

    Parameters
    ----------
    patch : Patch
    field : ndarray of int, shape (n_units,)
        Receptive field each unit sees through; 0 in areas that have none.
    weights : ndarray, shape (n_units, n_channels)
        Zero channels in areas that are silent.
    facts : dict of str to ndarray, shape (n_units,)
        `NUMBERS`, and ``preferred`` and ``concepts``.
    """

    patch: Patch
    field: np.ndarray
    weights: np.ndarray
    facts: dict[str, np.ndarray]

    def respond(self, code: SharedCode) -> np.ndarray:
        """Noise-free responses before they are standardised, stimulus x unit."""
        n = len(self.patch)
        if not self.weights.shape[1]:
            return np.zeros((len(code), n), dtype=np.float32)
        latents = code.latents[self.patch.area.name][:, "LR".index(self.patch.side)]
        response = np.empty((len(code), n), dtype=np.float32)
        for field in np.unique(self.field):
            units = self.field == field
            response[:, units] = latents[:, field] @ self.weights[units].T
        return response


def wire(patch: Patch, *, idiosyncrasy: float, rng: np.random.Generator) -> Wiring:
    """Draw what the units of a patch respond to.

    Parameters
    ----------
    patch : Patch
    idiosyncrasy : float
        Size of each unit's private mixture of latent responses against its planted tuning.
    rng : numpy.random.Generator
    """
    n = len(patch)
    facts: dict[str, np.ndarray] = {name: np.full(n, np.nan) for name in NUMBERS}
    facts |= {name: np.full(n, "", dtype=object) for name in ("preferred", "concepts")}
    field, weights = np.zeros(n, dtype=int), np.zeros((n, 0), dtype=np.float32)
    if patch.area.kind in IMAGE_KINDS:
        field = visual_field(patch, rng)
        visual = visual_tuning(patch, field, idiosyncrasy, rng)
        weights, facts = visual.weights, facts | visual.facts
    elif patch.area.kind != "silent":
        chosen = selectivity(patch, idiosyncrasy, rng)
        weights = chosen.weights.astype(np.float32)
        facts |= {"preferred": chosen.preferred, "concepts": chosen.concepts}
    return Wiring(patch, field, weights, facts)
