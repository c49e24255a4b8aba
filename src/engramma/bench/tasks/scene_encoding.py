"""Predict the responses of a virtual subject to scenes it has not been fitted to.

Features are handed over by the task (orientation energy, and what the object is), so that only
the mapping from features to responses is compared. The share of signal in every unit is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engramma.bench.material import for_encoder
from engramma.contracts import Task
from engramma.data.features import Features
from engramma.data.recording import Recording
from engramma.encoding.encoders import select_stimuli
from engramma.encoding.scores import correlation
from engramma.registry import add_task

N_STIMULI, N_TESTED, N_REPEATS, N_UNITS = 160, 40, 3, 150
#: Orientation energy is projected to this many features: banded ridge stays quick.
N_FEATURES = 400
#: Units below this share of signal in single presentations are not scored.
LEAST_SIGNAL = 0.05


@dataclass(frozen=True, eq=False)
class Scenes:
    """Responses to training scenes, and what is to be predicted.

    Parameters
    ----------
    spaces : dict of str to Features
        Of all scenes.
    training : Recording
        Mean responses to the training scenes.
    tested : tuple of str
        Scenes to predict.
    responses : ndarray, shape (n_tested, n_units)
        Mean responses to them.
    ceiling : ndarray, shape (n_units,)
        Correlation of these with the noise-free responses, from the known share of signal.
    """

    spaces: dict[str, Features]
    training: Recording
    tested: tuple[str, ...]
    responses: np.ndarray
    ceiling: np.ndarray


def prepare(seed: int) -> Scenes:
    """Show 160 scenes, three times each, to one virtual subject, and hold 40 out."""
    from engramma.features.extraction import extract
    from engramma.worlds.scenes_cohort import scenes

    cohort = scenes(seed, n_subjects=1, n_stimuli=N_STIMULI, n_repeats=N_REPEATS, n_units=N_UNITS)
    recording = next(iter(cohort.values()))
    share = recording.coord("true_ceiling").astype(float)
    informative = share >= LEAST_SIGNAL
    share = share[informative]
    means = recording.select(units=informative).mean_over("stimulus")
    stimuli = recording.stimuli
    energy = extract(stimuli, "gabor", dimensions=N_FEATURES, cache=False)
    spaces = energy | extract(stimuli, "category")
    held_out = np.zeros(means.n_presentations, dtype=bool)
    chosen = np.random.default_rng(seed).permutation(len(held_out))[:N_TESTED]
    held_out[chosen] = True
    return Scenes(
        spaces,
        means.select(presentations=~held_out),
        tuple(map(str, means.coord("stimulus")[held_out])),
        means.values[held_out],
        np.sqrt(share / (share + (1 - share) / N_REPEATS)),
    )


def score(system: Any, data: Scenes) -> float:
    """Mean over informative units of the correlation as a share of its true ceiling."""
    features = for_encoder(system, data.spaces)
    trained = list(map(str, data.training.coord("stimulus")))
    system.fit(select_stimuli(features, trained), data.training)
    predicted = system.predict(select_stimuli(features, data.tested))
    return float((correlation(data.responses, predicted) / data.ceiling).mean())


add_task(
    Task(
        name="scene-encoding",
        contract="Encoder",
        description="How well are responses of a virtual subject to new scenes predicted from "
        "given features?",
        prepare=prepare,
        score=score,
        metric="share of the true noise ceiling (mean over informative units)",
        chance=0.0,
        # The score is in units of the ceiling that the world knows.
        ceiling=lambda data: 1.0,
    )
)
