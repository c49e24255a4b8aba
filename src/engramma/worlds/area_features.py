"""What areas can follow of a scene: stimulus x feature."""

from __future__ import annotations

import numpy as np

from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError, DataError
from engramma.worlds.objects import SUPERORDINATES
from engramma.worlds.tuning import meaning

#: What `area_features` knows.
FOLLOWS = ("position", "pixels", "orientation", "category", "meaning")


def area_features(stimuli: StimulusSet, follows: str) -> np.ndarray:
    """Return what an area perceives, stimulus x feature, centred.

    Parameters
    ----------
    stimuli : StimulusSet
    follows : str
        ``position`` of the first object; ``pixels``, 40 principal components of the low-passed
        luminance; ``orientation``, energy of four orientations in 4 x 4 receptive fields;
        ``category``, the superordinate class; or ``meaning`` (`engramma.worlds.tuning.meaning`).

    Raises
    ------
    ConfigError
        If ``follows`` is none of these.
    DataError
        If the stimuli have no images or lack a column.
    """
    if follows in ("pixels", "orientation"):
        values = _low_passed(stimuli) if follows == "pixels" else _oriented(stimuli)
    elif follows in FOLLOWS:
        needed = {"position": ("x", "y"), "category": ("superordinate",)}.get(
            follows, ("category",)
        )
        for column in needed:
            if column not in stimuli.table:
                raise DataError(
                    f"the stimulus table has no column {column!r}, which {follows!r} needs",
                    mend="make the stimuli with engramma.worlds.scenes.make_scenes, or pass drives",
                )
        if follows == "position":
            values = stimuli.table[["x", "y"]].to_numpy(float)
        elif follows == "category":
            classes = stimuli.table["superordinate"].to_numpy()
            values = (classes[:, None] == np.asarray(SUPERORDINATES)).astype(float)
        else:
            values = meaning(stimuli)
    else:
        raise ConfigError(
            f"an area cannot follow {follows!r}",
            mend=f"use {', '.join(FOLLOWS)}, or pass what it follows as drives",
        )
    return np.asarray(values - values.mean(axis=0))


def _luminance(stimuli: StimulusSet) -> np.ndarray:
    from engramma.features.pixels import luminance

    if stimuli.images is None:
        raise DataError(
            "areas that see need images in memory",
            mend="make the stimuli with engramma.worlds.scenes.make_scenes, or pass drives",
        )
    return np.stack([luminance(image) for image in stimuli.images])


def _low_passed(stimuli: StimulusSet, n_components: int = 40) -> np.ndarray:
    from scipy.ndimage import gaussian_filter, zoom

    grey = _luminance(stimuli)
    height, width = grey.shape[1:]
    smooth = gaussian_filter(grey, (0, height / 24, width / 24))
    small = zoom(smooth, (1, 16 / height, 16 / width), order=1).reshape(len(grey), -1)
    left, size, _ = np.linalg.svd(small - small.mean(axis=0), full_matrices=False)
    return np.asarray((left * size)[:, :n_components])


def _oriented(stimuli: StimulusSet, grid: int = 4) -> np.ndarray:
    import torch
    from torch.nn.functional import adaptive_avg_pool2d

    from engramma.features.gabor import GaborBank

    grey = torch.from_numpy(_luminance(stimuli).astype(np.float32))
    size = grey.shape[1]
    frequency = min(8.0, size / 3)  # cycles an image; small images hold no finer ones
    bank = GaborBank(frequencies=(frequency,), orientations=4, size=size, semisaturation=None)
    parts = [adaptive_avg_pool2d(bank.energy(some)[:, 0], grid) for some in grey.split(256)]
    return torch.cat(parts).flatten(1).numpy()
