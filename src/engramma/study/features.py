"""Which feature spaces a study compares."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engramma.data.features import Features
from engramma.data.stimuli import StimulusSet
from engramma.features.extraction import available_models, extract
from engramma.study.context import Context

#: Layers and sizes for models with many: an early, a middle and a late stage are told apart by
#: regions, and each further space makes the banded ridge slower and its partition harder to read.
LAYERS = {
    "efficientnet-lite0": ("stage2", "stage4", "stage6"),
    "smollm2": ("hidden.15",),
}
#: Models that are not taken by default, as another says the same and more.
SMALL = ("colour",)
#: Wider spaces are projected: a linear map of random directions keeps distances between stimuli.
MOST_FEATURES = 2000


def feature_spaces(context: Context) -> dict[str, Features]:
    """Features of every stimulus from every model that fits (or from those the user chose).

    Conditions without images, captions or sounds get one feature a condition.
    """
    if context.encodes_conditions:
        spaces = {"condition": condition_features(context.stimuli.ids)}
        for column in context.stimuli.categorical():
            spaces.update(extract(context.stimuli, f"category:{column}"))
        return spaces
    chosen = context.options.features
    if chosen is None:
        usable = [m.name for m in available_models(context.stimuli) if m.usable and m.default]
        chosen = tuple(m for m in usable if m not in ("category", *SMALL))
        chosen += tuple(f"category:{c}" for c in _categories(context.stimuli))
    spaces = {}
    for model in chosen:
        layers = LAYERS.get(model)
        spaces.update(extract(context.stimuli, model, layers, dimensions=MOST_FEATURES, seed=0))
    return spaces


def _categories(stimuli: StimulusSet) -> list[str]:
    """Return the column ``category``, if it sorts the stimuli."""
    return [c for c in stimuli.categorical() if c == "category"]


def condition_features(ids: list[str]) -> Features:
    """One feature a condition."""
    one_hot = pd.get_dummies(pd.Series(ids)).to_numpy(dtype=np.float32)
    return Features(one_hot, tuple(ids), "condition", model="one feature a condition")
