"""What areas without receptive fields respond to: objects, their places, and what a scene means.

Recognition is taken to be perfect: what is in a scene comes from the table of its stimuli, or,
with all objects, from the table of its objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from engramma.data.stimuli import StimulusSet
from engramma.errors import DataError
from engramma.worlds.anatomy import Patch
from engramma.worlds.backgrounds import BACKGROUNDS
from engramma.worlds.cortex import Area
from engramma.worlds.layouts import COLOURS, SIZES
from engramma.worlds.objects import CATEGORIES, SUPERORDINATE, SUPERORDINATES

#: Columns that the table of stimuli must have.
COLUMNS = (
    "category", "second", "size", "x", "y", "colour", "second_colour", "background", "relation",
)  # fmt: skip
#: Similarity of superordinate classes beyond chance: what an area also responds to, weakly.
_RELATED = (
    ("face", "body", 0.45),
    ("face", "animal", 0.35),
    ("body", "animal", 0.35),
    ("tool", "vehicle", 0.35),
    ("place", "vehicle", 0.25),
    ("tool", "food", 0.15),
)
#: Dimensions of the meaning that language and default-mode areas follow.
N_MEANING = 24
#: How much more an area responds to objects in the opposite half of the visual field.
CONTRALATERAL = 0.2
#: Share of units of meaning areas that follow two concepts, not one.
TWO_CONCEPTS = 0.5


def objects_seen(stimuli: StimulusSet, objects: pd.DataFrame | None = None) -> pd.DataFrame:
    """Table of the objects in each stimulus, one row an object.

    Parameters
    ----------
    stimuli : StimulusSet
        With the columns of `engramma.worlds.scenes.Scenes`.
    objects : DataFrame, optional
        As of `engramma.worlds.scenes.Scenes`; without it the first two objects are taken from
        the table of stimuli, the second where the relation puts it.

    Returns
    -------
    DataFrame
        ``scene`` (row of the stimulus), ``number``, ``category``, ``colour``, ``x``, ``y``,
        ``radius``, ``visible`` and ``distance`` (1 is near, 10 far; 4 where not known).

    Raises
    ------
    DataError
        If the table lacks a column or names a category that is not known.
    """
    table = stimuli.table
    missing = [c for c in COLUMNS if c not in table]
    if missing:
        raise DataError(
            f"the stimulus table has no column {missing[0]!r}, which virtual subjects perceive",
            mend="make the stimuli with engramma.worlds.scenes.make_scenes",
        )
    if objects is None:
        scene = np.arange(len(table))
        first = pd.DataFrame(
            {
                "scene": scene,
                "number": 0,
                "category": table["category"].to_numpy(),
                "colour": table["colour"].to_numpy(),
                "x": table["x"].to_numpy(float),
                "y": table["y"].to_numpy(float),
                "radius": table["size"].map(SIZES).fillna(SIZES["medium"]).to_numpy(float),
            }
        )
        relation = table["relation"].to_numpy()
        step = 0.4
        second = first.assign(
            number=1,
            category=table["second"].to_numpy(),
            colour=table["second_colour"].to_numpy(),
            x=first["x"] + step * ((relation == "left of") * 1.0 - (relation == "right of")),
            y=first["y"] + step * ((relation == "above") * 1.0 - (relation == "below")),
            radius=0.8 * SIZES["medium"],
        )
        both = pd.concat([first, second[second["category"] != ""]])
        objects = both.assign(visible=1.0, distance=4.0)
    unknown = sorted(set(objects["category"]) - set(CATEGORIES))
    if unknown:
        raise DataError(
            f"virtual subjects do not know the category {unknown[0]!r}",
            mend=f"they know {', '.join(CATEGORIES)}",
        )
    return objects


# -- latent responses ----------------------------------------------------------------------


def category_latents(stimuli: StimulusSet, objects: pd.DataFrame) -> np.ndarray:
    """How plainly each category is seen, and which background.

    Large, unoccluded objects in the middle count more, and those in the opposite half of the
    visual field.

    Returns
    -------
    ndarray, shape (n, 2, n_categories + n_backgrounds), float32
        For the left and the right hemisphere.
    """
    gain = objects["radius"] / SIZES["medium"] * objects["visible"]
    away = np.hypot(objects["x"] - 0.5, objects["y"] - 0.5)
    salience = (gain * (1.1 - 0.6 * away)).to_numpy(float)
    rightwards = np.clip(4 * (objects["x"].to_numpy(float) - 0.5), -1, 1)
    code = objects["category"].map({c: i for i, c in enumerate(CATEGORIES)}).to_numpy(int)
    scene = objects["scene"].to_numpy(int)
    seen = np.zeros((len(stimuli), 2, len(CATEGORIES) + len(BACKGROUNDS)), dtype=np.float32)
    for hemisphere, sign in enumerate((1, -1)):  # the left hemisphere sees the right half
        weight = salience * (1 + sign * CONTRALATERAL * rightwards)
        np.add.at(seen[:, hemisphere], (scene, code), weight)
    background = stimuli.table["background"].map({b: i for i, b in enumerate(BACKGROUNDS)})
    known = background.notna().to_numpy()
    seen[np.flatnonzero(known), :, len(CATEGORIES) + background[known].to_numpy(int)] = 1
    return seen


def position_latents(stimuli: StimulusSet, objects: pd.DataFrame) -> np.ndarray:
    """How many objects there are, where and how near, n x 2 x 11, float32.

    Nine coarse places, the number of objects, and the nearness of the first.
    """
    found = np.zeros((len(stimuli), 2, 11), dtype=np.float32)
    scene = objects["scene"].to_numpy(int)
    x, y = (np.clip((objects[c].to_numpy(float) * 3).astype(int), 0, 2) for c in "xy")
    rightwards = np.clip(4 * (objects["x"].to_numpy(float) - 0.5), -1, 1)
    for hemisphere, sign in enumerate((1, -1)):
        weight = 1 + sign * CONTRALATERAL * rightwards
        np.add.at(found[:, hemisphere], (scene, 3 * y + x), weight)
    np.add.at(found[:, 0, 9], scene, 0.3)
    first = objects["number"].to_numpy() == 0
    found[scene[first], 0, 10] = 3 / objects["distance"].to_numpy(float)[first]
    found[:, 1, 9:] = found[:, 0, 9:]
    return found


def binding_latents(stimuli: StimulusSet) -> np.ndarray:
    """Colour of the first object, and which class has that colour, n x n_features, float32.

    Neither follows from the colours and the objects of a scene without what belongs to what: the
    features are products of "is the first object" and "has the colour", and of these and class.
    """
    table = stimuli.table
    colour = table["colour"].to_numpy()[:, None] == np.asarray(list(COLOURS))
    classes = table["category"].map(SUPERORDINATE).to_numpy()[:, None] == np.asarray(SUPERORDINATES)
    joint = colour[:, :, None] & classes[:, None]
    return np.concatenate([colour, joint.reshape(len(table), -1)], axis=1).astype(np.float32)


def concept_vectors() -> dict[str, np.ndarray]:
    """Meaning of each category and background, `N_MEANING` numbers each.

    Those of one superordinate class are alike. The vectors are fixed, as a language is.
    """
    rng = np.random.default_rng(20)
    of_class = {s: rng.standard_normal(N_MEANING) for s in SUPERORDINATES}
    vectors = {
        c: of_class[SUPERORDINATE[c]] + 0.7 * rng.standard_normal(N_MEANING) for c in CATEGORIES
    }
    return vectors | {b: _word(b) for b in BACKGROUNDS}


def _word(word: str) -> np.ndarray:
    return np.random.default_rng(list(word.encode())).standard_normal(N_MEANING)


def meaning(stimuli: StimulusSet) -> np.ndarray:
    """Return what a scene means: a vector common to all subjects, stimulus x `N_MEANING`.

    The sum of vectors for category, colour, place, second object and relation.
    """
    table = stimuli.table
    vectors: dict[str, np.ndarray] = concept_vectors() | {"": np.zeros(N_MEANING)}
    total = np.zeros((len(table), N_MEANING))
    for column, size in (
        ("category", 1.0), ("background", 0.5), ("colour", 0.3), ("second", 0.6), ("relation", 0.3)
    ):  # fmt: skip
        codes, words = pd.factorize(table[column])
        of_words = [vectors[w] if w in vectors else _word(str(w)) for w in words]
        total += size * np.asarray(of_words)[codes]
    return total


# -- what a unit makes of them -------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Selectivity:
    """What units take from the latent responses of their area.

    Parameters
    ----------
    weights : ndarray, shape (n_units, n_latents)
    preferred : ndarray of str, shape (n_units,)
        Superordinate class; empty where there is none.
    concepts : ndarray of str, shape (n_units,)
        Planted concepts, joined by ``+``: the category liked best, those that a unit of a
        meaning area follows, or colour and class of a unit that binds them.
    """

    weights: np.ndarray
    preferred: np.ndarray
    concepts: np.ndarray


def selectivity(patch: Patch, idiosyncrasy: float, rng: np.random.Generator) -> Selectivity:
    """Draw what the units of an area without receptive fields respond to."""
    draw = {"category": _of_category, "meaning": _of_meaning, "binding": _of_binding}
    n = len(patch)
    if patch.area.kind == "position":
        nothing = np.full(n, "", dtype=object)
        return Selectivity(rng.standard_normal((n, 11)), nothing, nothing)
    return draw[patch.area.kind](patch.area, n, idiosyncrasy, rng)


def _of_category(area: Area, n: int, idiosyncrasy: float, rng: np.random.Generator) -> Selectivity:
    """Weigh the preferred class most, what is like it less, and single categories by liking."""
    preferred = rng.permutation(np.resize(np.asarray(area.prefers, dtype=object), n))
    classes = [SUPERORDINATE[c] for c in CATEGORIES]
    liking = np.asarray([[_relatedness(c, p) for c in classes] for p in preferred])
    own = 0.6 * idiosyncrasy * rng.standard_normal((n, len(CATEGORIES) + len(BACKGROUNDS)))
    liking = liking + own[:, : len(CATEGORIES)]
    places = own[:, len(CATEGORIES) :] * np.where(preferred == "place", 1.5, 0.1)[:, None]
    best = np.asarray(CATEGORIES, dtype=object)[liking.argmax(axis=1)]
    return Selectivity(np.concatenate([liking, places], axis=1), preferred, best)


def _of_meaning(area: Area, n: int, idiosyncrasy: float, rng: np.random.Generator) -> Selectivity:
    """Follow one or two concepts, and a random mixture of all."""
    vectors = concept_vectors()
    names = np.asarray(list(vectors), dtype=object)
    matrix = np.asarray(list(vectors.values()))
    first = rng.integers(len(names), size=n)
    second = (first + rng.integers(1, len(names), size=n)) % len(names)
    two = rng.random(n) < TWO_CONCEPTS
    weights = matrix[first] + two[:, None] * matrix[second]
    weights = weights + 2 * idiosyncrasy * rng.standard_normal(weights.shape)
    concepts = [
        f"{names[a]}+{names[b]}" if both else names[a]
        for a, b, both in zip(first, second, two, strict=True)
    ]
    return Selectivity(weights, np.full(n, "", dtype=object), np.asarray(concepts, dtype=object))


def _of_binding(area: Area, n: int, idiosyncrasy: float, rng: np.random.Generator) -> Selectivity:
    """Weigh the colour of the first object, and one conjunction of colour and class most."""
    colours, classes = np.asarray(list(COLOURS), dtype=object), np.asarray(SUPERORDINATES)
    colour, of = rng.integers(len(colours), size=n), rng.integers(len(classes), size=n)
    weights = rng.standard_normal((n, len(colours) * (1 + len(classes))))
    weights[:, len(colours) :] *= idiosyncrasy
    weights[np.arange(n), colour] += 1.5
    weights[np.arange(n), len(colours) + colour * len(classes) + of] += 1.5
    concepts = np.asarray([f"{colours[c]}+{classes[s]}" for c, s in zip(colour, of, strict=True)])
    return Selectivity(weights, np.full(n, "", dtype=object), concepts)


def _relatedness(a: str, b: str) -> float:
    if a == b:
        return 1.0
    return next((v for x, y, v in _RELATED if {x, y} == {a, b}), 0.0)


def area_latents(
    stimuli: StimulusSet, areas: Sequence[Area], objects: pd.DataFrame | None = None
) -> dict[str, np.ndarray]:
    """Latent responses of areas without receptive fields.

    Returns
    -------
    dict of str to ndarray, shape (n, 2, 1, n_latents), float32
        Of each area that is not ``silent`` and has no receptive fields, left and right
        hemisphere.
    """
    seen = objects_seen(stimuli, objects)
    make = {
        "category": lambda: category_latents(stimuli, seen),
        "position": lambda: position_latents(stimuli, seen),
        "binding": lambda: np.repeat(binding_latents(stimuli)[:, None], 2, axis=1),
        "meaning": lambda: np.repeat(meaning(stimuli)[:, None], 2, axis=1),
    }
    wanted = {area.kind for area in areas} & set(make)
    made = {kind: make[kind]().astype(np.float32)[:, :, None] for kind in wanted}
    return {area.name: made[area.kind] for area in areas if area.kind in made}
