"""SSVEPSim: subjects look at flickering targets with joint frequency and phase coding."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engramma.data.recording import Cohort, Recording
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError
from engramma.registry import world

CHANNELS = ("Pz", "PO3", "PO5", "PO4", "PO6", "POz", "O1", "Oz", "O2")


@world("ssvep")
def simulate_ssvep(
    seed: int = 0,
    *,
    n_subjects: int = 4,
    n_targets: int = 12,
    n_blocks: int = 6,
    first_frequency: float = 9.0,
    frequency_step: float = 0.2,
    phase_step: float = 0.5 * np.pi,
    n_harmonics: int = 3,
    snr: float = 0.2,
    individuality: float = 0.5,
    latency: float = 0.14,
    latency_spread: float = 0.01,
    jitter: float = 0.0,
    seconds: float = 1.2,
    sfreq: float = 250.0,
    microvolts: float = 10.0,
) -> Cohort:
    r"""Generate a cohort whose visual cortex follows a flicker.

    The response to frequency f with phase :math:`\phi` at channel c of subject s is

    .. math:: \sum_h a_h\, p_{h,s,c} \sin(2 \pi h f (t - \tau) + h \phi), \quad t \ge \tau

    with amplitudes :math:`a_h = 1/h`, a topography :math:`p_{h,s}` that mixes one shared by all
    with one of the subject's own, and :math:`\tau` the subject's visual latency plus, with
    ``jitter``, a new delay in each trial. Noise has a 1/f power spectrum and is mixed between
    channels in the subject's own way.

    Parameters
    ----------
    seed : int
    n_subjects, n_targets, n_blocks : int
        Each block shows each target once, in random order.
    first_frequency, frequency_step : float
        In Hz.
    phase_step : float
        Between neighbouring targets, in radians.
    n_harmonics : int
        The fundamental counts as one.
    snr : float
        Root mean square of the response over that of the noise, averaged over channels.
    individuality : float
        Share (0 to 1) of a topography's variance that is the subject's own.
    latency, latency_spread, jitter : float
        Seconds: mean visual latency, its standard deviation over subjects and over trials.
    seconds, sfreq : float
        Duration of a trial from stimulus onset, and sampling rate in Hz.
    microvolts : float
        Root mean square of the noise.

    Returns
    -------
    Cohort
        Nine parieto-occipital channels. ``attrs["truth"]`` holds ``topography`` (subject x
        harmonic x channel), ``latency`` (subject), ``mixing`` (subject x channel x channel),
        ``delays`` (subject x trial, in order of presentation) and ``clean`` (subject x target x
        channel x time: the response without noise or jitter).
    """
    if not 0 <= individuality <= 1:
        raise ConfigError(f"individuality is a share between 0 and 1, not {individuality:g}")
    highest = first_frequency + frequency_step * (n_targets - 1)
    if n_harmonics * highest >= sfreq / 2:
        raise ConfigError(
            f"harmonic {n_harmonics} of {highest:g} Hz lies above half the sampling rate",
            mend="raise sfreq, or lower n_harmonics",
        )
    rng = np.random.default_rng([seed, 55])
    time = np.arange(round(seconds * sfreq)) / sfreq
    frequencies = first_frequency + frequency_step * np.arange(n_targets)
    phases = (phase_step * np.arange(n_targets)) % (2 * np.pi)
    table = pd.DataFrame(
        {"frequency": frequencies, "phase": phases}, index=[f"{f:.1f}Hz" for f in frequencies]
    )
    stimuli = StimulusSet(table, attrs={"name": "SSVEPSim"})
    shape = (n_harmonics, len(CHANNELS))
    shared = _unit(rng.standard_normal(shape))
    recordings: dict[str, Recording] = {}
    truth: dict[str, list[np.ndarray]] = {
        k: [] for k in ("topography", "latency", "mixing", "delays", "clean")
    }
    for number in range(n_subjects):
        own = _unit(rng.standard_normal(shape))
        topography = _unit(np.sqrt(1 - individuality) * shared + np.sqrt(individuality) * own)
        weights = topography / np.arange(1, n_harmonics + 1)[:, None]
        lag = latency + latency_spread * rng.standard_normal()
        shown = np.concatenate([rng.permutation(n_targets) for _ in range(n_blocks)])
        delays = lag + jitter * rng.standard_normal(len(shown))
        gain = snr * microvolts * np.sqrt(2 * len(CHANNELS)) / np.linalg.norm(weights)
        clean = gain * _respond(frequencies, phases, np.full(n_targets, lag), weights, time)
        signal = gain * _respond(frequencies[shown], phases[shown], delays, weights, time)
        mixing = np.eye(len(CHANNELS)) + 0.5 * rng.standard_normal((len(CHANNELS),) * 2)
        mixing /= np.linalg.norm(mixing, axis=1, keepdims=True)
        noise = microvolts * (mixing @ _pink(rng, (len(shown), len(CHANNELS), len(time)), sfreq))
        name = f"S{number + 1}"
        recordings[name] = Recording.from_arrays(
            (signal + noise).astype(np.float32),
            np.asarray(stimuli.ids)[shown],
            subject=name,
            run=np.repeat(np.arange(1, n_blocks + 1), n_targets),
            unit=CHANNELS,
            unit_coords={"kind": np.full(len(CHANNELS), "eeg")},
            time=time,
            stimuli=stimuli,
            modality="simulated",
            source="SSVEPSim",
            sfreq=sfreq,
        )
        found = (topography, np.asarray(lag), mixing, delays, clean.astype(np.float32))
        for key, value in zip(truth, found, strict=True):
            truth[key].append(value)
    facts = {"name": "ssvep", "seed": seed, "snr": snr, "jitter": jitter}
    return Cohort(recordings, attrs={**facts, "truth": {k: np.stack(v) for k, v in truth.items()}})


def _respond(
    frequencies: np.ndarray,
    phases: np.ndarray,
    delays: np.ndarray,
    weights: np.ndarray,
    time: np.ndarray,
) -> np.ndarray:
    """Sum of harmonics, trial x channel x time; silent before the delay."""
    harmonics = np.arange(1, len(weights) + 1)[:, None]
    since = time - delays[:, None, None]
    angle = 2 * np.pi * frequencies[:, None, None] * harmonics * since
    waves = np.sin(angle + harmonics * phases[:, None, None]) * (since >= 0)
    return np.einsum("hc,nht->nct", weights, waves)


def _pink(rng: np.random.Generator, shape: tuple[int, int, int], sfreq: float) -> np.ndarray:
    """Noise of unit variance whose power falls as 1/f above 1 Hz."""
    spectrum = np.fft.rfft(rng.standard_normal(shape), axis=-1)
    frequency = np.fft.rfftfreq(shape[-1], 1 / sfreq)
    spectrum *= 1 / np.sqrt(np.maximum(frequency, 1.0))
    noise = np.fft.irfft(spectrum, n=shape[-1], axis=-1)
    return noise / np.sqrt((noise**2).mean())


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
