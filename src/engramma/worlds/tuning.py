"""What the areas of a virtual subject respond to: the noise-free response of each unit."""

from __future__ import annotations

from typing import Any

import numpy as np

from engramma.data.stimuli import StimulusSet
from engramma.worlds.objects import CATEGORIES, SUPERORDINATE, SUPERORDINATES

#: Similarity of superordinate classes beyond chance: what an area also responds to, weakly.
_RELATED = (
    ("face", "body", 0.45),
    ("face", "animal", 0.35),
    ("body", "animal", 0.35),
    ("tool", "vehicle", 0.35),
    ("place", "vehicle", 0.25),
    ("tool", "food", 0.15),
)
#: Of the meaning that language areas follow.
N_MEANING = 24


def early_tuning(
    n: int, coordinates: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Draw receptive fields, orientations and spatial frequencies of early units.

    The field of a unit follows its place in the area (``coordinates``, -1 .. 1, unit x 2), as on
    a retinotopic map: angle along one axis, eccentricity along the other, wider further out.

    Returns
    -------
    dict of str to ndarray, shape (n,)
        ``rf_x``, ``rf_y`` (0 .. 1 of the image), ``rf_size`` (standard deviation, same unit),
        ``orientation`` (degrees of the preferred contour) and ``frequency`` (cycles an image).
    """
    angle = np.pi * (coordinates[:, 0] + 0.1 * rng.standard_normal(n))
    eccentricity = np.clip(
        0.24 + 0.2 * coordinates[:, 1] + 0.03 * rng.standard_normal(n), 0.02, 0.46
    )
    return {
        "rf_x": 0.5 + eccentricity * np.cos(angle),
        "rf_y": 0.5 + eccentricity * np.sin(angle),
        "rf_size": 0.05 + 0.12 * eccentricity,
        "orientation": rng.choice(np.arange(0, 180, 22.5), n),
        "frequency": rng.choice(np.asarray([4.0, 6.0, 9.0, 13.0]), n),
    }


def orientation_energy(luminance: np.ndarray, tuning: dict[str, np.ndarray]) -> np.ndarray:
    """Energy of a quadrature pair of Gabor filters in each unit's receptive field.

    Adelson and Bergen, *J. Opt. Soc. Am. A* 2, 1985; responses are square roots of energy.

    Parameters
    ----------
    luminance : ndarray, shape (n_stimuli, height, width)
    tuning : as from `early_tuning`

    Returns
    -------
    ndarray, shape (n_stimuli, n_units), float32
    """
    n, height, width = luminance.shape
    x = (np.arange(width, dtype=np.float32) + 0.5) / width
    y = (np.arange(height, dtype=np.float32) + 0.5) / height
    t = {k: v.astype(np.float32)[:, None, None] for k, v in tuning.items()}
    dx, dy = x[None, None, :] - t["rf_x"], y[None, :, None] - t["rf_y"]
    window = np.exp(-(dx**2 + dy**2) / (2 * t["rf_size"] ** 2))
    across = np.deg2rad(t["orientation"] + 90)  # luminance changes across the contour
    phase = 2 * np.pi * t["frequency"] * (np.cos(across) * dx - np.sin(across) * dy)
    flat = luminance.reshape(n, -1).astype(np.float32)
    energy = np.zeros((n, len(window)), dtype=np.float32)
    for wave in (np.cos(phase), np.sin(phase)):
        kernel = window * wave
        weight = window / window.sum(axis=(1, 2), keepdims=True)
        kernel = kernel - weight * kernel.sum(axis=(1, 2), keepdims=True)  # blind to grey
        kernel /= np.sqrt((kernel**2).sum(axis=(1, 2), keepdims=True)) + 1e-9
        energy += (flat @ kernel.reshape(len(kernel), -1).T) ** 2
    return np.sqrt(energy)


def early(
    luminance: np.ndarray, coordinates: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Respond as an early visual area; returns responses and tuning."""
    tuning = early_tuning(len(coordinates), coordinates, rng)
    return orientation_energy(luminance, tuning), tuning


def middle(
    luminance: np.ndarray, coordinates: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Respond to corners: two orientations that must meet in neighbouring receptive fields."""
    n = len(coordinates)
    first = early_tuning(n, coordinates, rng)
    first["rf_size"] = 1.7 * first["rf_size"]
    second = dict(first)
    turn = rng.uniform(0, 2 * np.pi, n)
    second["rf_x"] = first["rf_x"] + first["rf_size"] * np.cos(turn)
    second["rf_y"] = first["rf_y"] + first["rf_size"] * np.sin(turn)
    second["orientation"] = (first["orientation"] + rng.choice([45.0, 90.0, 135.0], n)) % 180
    product = orientation_energy(luminance, first) * orientation_energy(luminance, second)
    return np.sqrt(product), first


def category(stimuli: StimulusSet, preferred: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Respond to a superordinate class, and in a graded way to what is like it.

    Recognition is taken to be perfect: what is there comes from the table of scenes. Each unit
    weighs the preferred class most, has its own liking for single categories, and responds more
    to large things in the middle.
    """
    liking = np.asarray([_relatedness(SUPERORDINATE[c], preferred) for c in CATEGORIES])
    weights = liking[:, None] + 0.18 * rng.standard_normal((len(CATEGORIES), n))
    return _visible(stimuli) @ weights


def _relatedness(a: str, b: str) -> float:
    if a == b:
        return 1.0
    return next((v for x, y, v in _RELATED if {x, y} == {a, b}), 0.0)


def _visible(stimuli: StimulusSet) -> np.ndarray:
    """How plainly each category can be seen in each stimulus, stimulus x category."""
    table = stimuli.table
    gain = table["size"].map({"small": 0.85, "medium": 1.0, "large": 1.15}).to_numpy(float)
    distance = np.hypot(table["x"].to_numpy(float) - 0.5, table["y"].to_numpy(float) - 0.5)
    seen = np.zeros((len(table), len(CATEGORIES)))
    code = {c: i for i, c in enumerate(CATEGORIES)}
    for row, (first, second) in enumerate(zip(table["category"], table["second"], strict=True)):
        seen[row, code[first]] += gain[row] * (1.1 - 0.6 * distance[row])
        if second in code:
            seen[row, code[second]] += 0.5
    return seen


def meaning(stimuli: StimulusSet) -> np.ndarray:
    """Return what a scene means: a vector common to all subjects, stimulus x `N_MEANING`.

    The sum of vectors for class, category, colour, place and relation; those of one
    superordinate class are alike. The vectors are fixed, as a language is.
    """
    rng = np.random.default_rng(20)
    of_class = {s: rng.standard_normal(N_MEANING) for s in SUPERORDINATES}
    of_category = {
        c: of_class[SUPERORDINATE[c]] + 0.7 * rng.standard_normal(N_MEANING) for c in CATEGORIES
    }
    words: dict[Any, np.ndarray] = {}

    def vector(word: Any, size: float) -> np.ndarray:
        if word not in words:
            own = np.random.default_rng(list(str(word).encode()))
            words[word] = own.standard_normal(N_MEANING)
        return size * words[word]

    rows = []
    for scene in stimuli.table.to_dict("records"):
        total = of_category[scene["category"]] + vector(scene["background"], 0.5)
        total = total + vector(scene["colour"], 0.3)
        if scene["second"]:
            total = total + 0.6 * of_category[scene["second"]] + vector(scene["relation"], 0.3)
        rows.append(total)
    return np.asarray(rows)


def language(stimuli: StimulusSet, n: int, rng: np.random.Generator) -> np.ndarray:
    """Respond to meaning, each unit to its own mixture."""
    return meaning(stimuli) @ rng.standard_normal((N_MEANING, n))
