"""Plain encoders: the mean response, ridge, and ridge that weighs feature spaces."""

from __future__ import annotations

import numpy as np

from engramma.data.recording import Recording
from engramma.data.splits import run_ids
from engramma.encoding import encoders
from engramma.encoding.encoders import FeatureSpaces
from engramma.registry import system

TASKS = ("scene-encoding",)


def generalises_over(recording: Recording) -> int | str:
    """Inner folds for the generalisation that training presentations suggest.

    Where every stimulus comes back in other runs, the stimuli are conditions and runs are held
    out. Else whole stimuli are: average repeats before fitting to predict new stimuli.
    """
    repeated = bool((recording.repeats >= 2).all())
    return "run" if repeated and len(np.unique(run_ids(recording))) >= 2 else 5


@system(
    "mean-encoder",
    family="baselines",
    title="The mean response of each unit, whatever the stimulus",
    contract="Encoder",
    tasks=TASKS,
    baseline=True,
)
class MeanEncoder(encoders.MeanEncoder):
    """Predict the mean training response: what an encoder that knows nothing predicts."""

    several_spaces = True


@system(
    "ridge-encoder",
    family="baselines",
    title="Ridge regression on all features side by side",
    contract="Encoder",
    paper=(
        "Hoerl AE, Kennard RW (1970). Ridge regression: biased estimation for nonorthogonal "
        "problems. Technometrics 12:55-67"
    ),
    tasks=TASKS,
    baseline=True,
)
class RidgeEncoder(encoders.RidgeEncoder):
    """Ridge with a penalty for each unit, chosen by inner folds of stimuli or runs.

    Features are standardised by the training presentations.
    """

    def __init__(self) -> None:
        super().__init__()

    def fit(self, features: encoders.Features, recording: Recording) -> RidgeEncoder:
        """Learn from the presentations of ``recording``."""
        self.folds = generalises_over(recording)
        super().fit(features, recording)
        return self


@system(
    "banded-ridge-encoder",
    family="baselines",
    title="Banded ridge: each unit weighs the feature spaces its own way",
    contract="Encoder",
    paper=(
        "Dupré la Tour T, Eickenberg M, Nunez-Elizalde AO, Gallant JL (2022). Feature-space "
        "selection with banded ridge regression. NeuroImage 264:119728"
    ),
    tasks=TASKS,
    baseline=True,
)
class BandedRidgeEncoder(encoders.BandedRidgeEncoder):
    """Ridge with a penalty for each unit and feature space, chosen by random search.

    Parameters
    ----------
    seed : int
        Of the random search.
    """

    several_spaces = True

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed=seed)

    def fit(self, features: FeatureSpaces, recording: Recording) -> BandedRidgeEncoder:
        """Learn from the presentations of ``recording``."""
        self.folds = generalises_over(recording)
        super().fit(features, recording)
        return self
