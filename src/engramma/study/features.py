"""Which feature spaces a study compares."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engramma.data.features import Features
from engramma.features.extract import available_models, extract
from engramma.study.context import MOST_CONDITIONS, Context

#: Layers and sizes for models with many: an early, a middle and a late stage are told apart by
#: regions, and each further space makes the banded ridge slower and its partition harder to read.
LAYERS = {
    "efficientnet-lite0": ("stage2", "stage5", "head"),
    "smollm2": ("layers.15",),
}
#: Wider spaces are projected: a linear map of random directions keeps distances between stimuli.
MOST_FEATURES = 2000


def feature_spaces(context: Context) -> dict[str, Features]:
    """Features of every stimulus from every model that fits (or from those the user chose).

    Conditions without images, captions or sounds get one feature a condition.
    """
    chosen = context.options.features
    if chosen is None:
        chosen = tuple(m.name for m in available_models(context.stimuli) if m.usable)
        if "category" in chosen and "category" not in context.stimuli.categorical():
            chosen = tuple(m for m in chosen if m != "category")
    spaces: dict[str, Features] = {}
    for model in chosen:
        layers = LAYERS.get(model)
        spaces.update(extract(context.stimuli, model, layers, dimensions=MOST_FEATURES, seed=0))
    if not spaces and len(context.stimuli) <= MOST_CONDITIONS:
        spaces["condition"] = condition_features(context.stimuli.ids)
    return spaces


def condition_features(ids: list[str]) -> Features:
    """One feature a condition."""
    one_hot = pd.get_dummies(pd.Series(ids)).to_numpy(dtype=np.float32)
    return Features(one_hot, tuple(ids), "condition", model="one feature a condition")
