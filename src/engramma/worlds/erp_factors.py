"""Event-related potentials of many participants, made of components of known size.

For models that take potentials apart and name clinical labels by the parts: N1, P2, P3 and the
late positive potential each have a size of their own in each participant, and each label shifts
one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from engramma.data.recording import Recording
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError
from engramma.registry import world
from engramma.worlds.artefacts import Disturbances, make_noise, noise_covariance
from engramma.worlds.forward import lead_field
from engramma.worlds.sensors import CENTRE, RADIUS, make_sensors

#: By component: peak and width (s), amplitude (V, at the site that sees it best), what affective
#: pictures multiply it by, and the place of its dipole in a head of radius 1.
COMPONENTS = {
    "N1": (0.10, 0.022, -5e-6, 1.0, (0.0, 0.25, 0.65)),
    "P2": (0.19, 0.030, 5e-6, 1.0, (0.0, 0.05, 0.70)),
    "P3": (0.34, 0.055, 7e-6, 1.15, (0.0, -0.40, 0.60)),
    "LPP": (0.58, 0.120, 6e-6, 1.5, (0.0, -0.25, 0.65)),
}
#: Midline sites, conditions, and samples: 256 at 250 Hz from -248 ms on.
SITES, CONDITIONS = ("Fz", "Cz", "Pz"), ("neutral", "affective")
SFREQ, N_TIMES, FIRST = 250.0, 256, -62


@dataclass(frozen=True, eq=False)
class ERPFactors:
    """Potentials and what they are made of.

    Parameters
    ----------
    recording : Recording
        presentation x site x time (V); the stimuli are the two conditions, and presentations
        carry the labels.
    gains : DataFrame
        Participant x component: the size of each, 1 on average without labels.
    labels : DataFrame of int
        Participant x component: the label (0 or 1) that shifts that gain.
    clean : ndarray, shape (n_participants, 2, 3, 256)
        Potentials without noise, neutral and affective.
    """

    recording: Recording
    gains: pd.DataFrame
    labels: pd.DataFrame
    clean: np.ndarray


@world("erp-factors")
def erp_factors(
    seed: int = 0,
    *,
    n_participants: int = 240,
    n_trials: int = 20,
    spread: float = 0.25,
    shift: float = 0.5,
    noise: float = 1.0,
) -> ERPFactors:
    """Record participants who view neutral and affective pictures.

    Parameters
    ----------
    seed : int
    n_participants : int
    n_trials : int
        Of each condition.
    spread : float
        Standard deviation of gains between participants with the same labels.
    shift : float
        What a label adds to the gain of its component (half above, half below the mean); 0 is the
        control in which labels say nothing.
    noise : float
        Against that of a usual head, which is 1/f.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """
    if min(n_participants, n_trials) < 1 or min(spread, shift, noise) < 0:
        raise ConfigError(
            "potentials cannot be recorded with these numbers",
            mend="use n_participants and n_trials >= 1, and spread, shift and noise >= 0",
        )
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2)]
    of_people, of_noise = streams
    names = [f"sub-{i:03d}" for i in range(1, n_participants + 1)]
    shape = (n_participants, len(COMPONENTS))
    labels = pd.DataFrame(of_people.integers(0, 2, shape), names, list(COMPONENTS))
    gains = 1 + shift * (labels - 0.5) + spread * of_people.standard_normal(shape)
    sensors = make_sensors("cap32")
    sites = [sensors.names.index(s) for s in SITES]
    time = (np.arange(N_TIMES) + FIRST) / SFREQ
    effect = np.asarray([np.ones(len(COMPONENTS)), [c[3] for c in COMPONENTS.values()]])
    parts = np.einsum("ci,cj->cij", _fields(sites), _courses(time))
    clean = np.einsum("nc,ec,cij->neij", gains.to_numpy(), effect, parts)
    person, condition = (
        v.ravel() for v in np.meshgrid(range(n_participants), (0, 1), indexing="ij")
    )
    person, condition = np.repeat(person, n_trials), np.repeat(condition, n_trials)
    brain, white = noise_covariance(sensors, Disturbances())
    data = make_noise(
        len(person),
        N_TIMES,
        noise**2 * brain[np.ix_(sites, sites)],
        noise**2 * white[sites],
        sfreq=SFREQ,
        exponent=1.0,
        rng=of_noise,
    )
    data += clean[person, condition].astype(np.float32)
    recording = Recording.from_arrays(
        data,
        np.asarray(CONDITIONS)[condition],
        subject=np.asarray(names)[person],
        unit=SITES,
        time=time,
        unit_coords={
            "kind": np.full(len(SITES), "eeg"),
            **dict(zip("xyz", sensors.positions[sites].T, strict=True)),
        },
        presentation_coords={name: labels[name].to_numpy()[person] for name in COMPONENTS},
        stimuli=StimulusSet(pd.DataFrame(index=list(CONDITIONS))),
        modality="eeg",
        source="virtual participants",
        sfreq=SFREQ,
        truth={"components": {k: {"peak": c[0], "width": c[1]} for k, c in COMPONENTS.items()}},
    )
    return ERPFactors(recording, gains, labels, clean.astype(np.float32))


def _fields(sites: list[int]) -> np.ndarray:
    """Component x site: radial dipoles, average reference over the whole cap."""
    places = np.asarray([c[4] for c in COMPONENTS.values()])
    field = lead_field(make_sensors("cap32"), np.asarray(CENTRE) + RADIUS * places)[sites]
    along = np.einsum("kcx,cx->ck", field, places / np.linalg.norm(places, axis=1, keepdims=True))
    amplitude = np.asarray([c[2] for c in COMPONENTS.values()])
    return np.asarray(amplitude[:, None] * along / np.abs(along).max(axis=1, keepdims=True))


def _courses(time: np.ndarray) -> np.ndarray:
    """Component x time: Gaussian bumps after onset."""
    peak, width = (np.asarray([c[i] for c in COMPONENTS.values()])[:, None] for i in (0, 1))
    bump = np.exp(-((time - peak) ** 2) / (2 * width**2))
    return np.asarray(bump * (time > 0))
