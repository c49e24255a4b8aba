"""Intracranial recordings of a virtual subject who speaks words.

A word is a sequence of syllables, each a trajectory that a few sources in speech cortex run
through; contacts pick up their potentials in a homogeneous conductor, so that those close to the
sources carry the word and the others next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.signal

from engramma.data.recording import Recording
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError, DataError
from engramma.registry import world
from engramma.worlds.artefacts import coloured
from engramma.worlds.forward import homogeneous_potential

#: Where shafts enter the left hemisphere (m, MNI: right, front, up); the first in speech cortex.
ENTRIES = np.asarray(
    [[-0.066, -0.02, 0.006], [-0.06, 0.03, 0.035], [-0.066, -0.05, -0.02],
     [-0.05, 0.05, 0.0], [-0.06, -0.06, 0.03], [-0.045, 0.0, 0.06]]
)  # fmt: skip
#: Distance of neighbouring contacts, and of sources from a shaft (m).
PITCH, AWAY = 0.0035, 0.002
#: Noise of a contact: its own, and that of the reference, which all contacts share (V).
OWN_NOISE, REFERENCE_NOISE = 15e-6, 25e-6
#: A syllable lasts this long (s), has this many dimensions, and follows the cue by the delay (s).
SYLLABLE, DIMENSIONS, DELAY = 0.25, 3, 0.3
#: The band (Hz) of high gamma.
HIGH_GAMMA = (70.0, 150.0)


@dataclass(frozen=True, eq=False)
class Intracranial:
    """Words that were read aloud, and unlabelled speech of the same subject.

    Parameters
    ----------
    recording : Recording
        presentation x unit x time (V). Units carry ``shaft``, ``x, y, z`` (m, MNI) and
        ``carried``: the share of their variance, while a word lasts, that the speech sources make
        (with high gamma including what these do at rest).
    babble : Recording
        Segments of syllables in no order.
    syllables : ndarray, shape (n_syllables, dimensions, n_times)
        The dictionary.
    words : list of tuple of int
        Syllables of each word.
    """

    recording: Recording
    babble: Recording
    syllables: np.ndarray
    words: list[tuple[int, ...]]


@world("intracranial")
def intracranial(
    seed: int = 0,
    *,
    n_words: int = 8,
    n_trials: int = 20,
    n_syllables: int = 12,
    n_babble: int = 60,
    babble_duration: float = 4.0,
    n_shafts: int = 3,
    n_contacts: int = 9,
    reference: str = "bipolar",
    source: str = "dipole",
    high_gamma: bool = False,
    sfreq: float = 100.0,
    start: float = -0.5,
    stop: float = 2.5,
    jitter: float = 0.15,
    snr: float = 1.0,
    signal: bool = True,
    subject: str = "sub-01",
    responses: np.ndarray | None = None,
) -> Intracranial:
    """Record words and babble from shafts of contacts.

    Parameters
    ----------
    seed : int
    n_words, n_trials : int
        Words, and trials of each, one a run.
    n_syllables : int
        Size of the dictionary; words are three or four of them.
    n_babble : int
    babble_duration : float
        Segments of unlabelled speech, and their length (s).
    n_shafts, n_contacts : int
        Up to 6 shafts, of 8 to 12 contacts each.
    reference : {"bipolar", "common"}
        Differences of neighbouring contacts, or all against one distant electrode whose noise
        they share.
    source : {"dipole", "monopole"}
        Potentials fall with the square of the distance, or with the distance.
    high_gamma : bool
        Sources are noise of 70 to 150 Hz whose amplitude follows the word; else their slow
        potentials do.
    sfreq : float
        Samples a second, at least 400 with ``high_gamma``.
    start, stop : float
        Seconds from the cue.
    jitter : float
        Onsets are spread evenly over plus and minus this time (s).
    snr : float
        Standard deviation of the signal while a word lasts against that of the noise, in the
        median channel of the speech shaft.
    signal : bool
        False: nothing follows words.
    subject : str
    responses : ndarray, shape (n_stimuli, dimensions, n_times), optional
        What sources run through instead of words, at ``sfreq``, from 0.3 s after the cue on: the
        drives of any area.

    Raises
    ------
    ConfigError, DataError
        If an option is out of range, or the responses do not fit.
    """
    _check(locals())
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(5)]
    of_place, of_words, of_trials, of_babble, of_noise = streams
    montage = _Montage(n_shafts, n_contacts, reference, source, of_place)
    syllables = _dictionary(n_syllables, round(SYLLABLE * sfreq), of_words)
    words = _draw_words(n_words, n_syllables, of_words)
    if responses is None:
        said = [np.concatenate(syllables[list(word)], axis=1) for word in words]
    else:
        said = list(_checked(responses, stop, jitter, sfreq))
        words = []
    mixing = of_place.standard_normal((len(montage.places), said[0].shape[0]))
    typical = np.concatenate([mixing @ s for s in said], axis=1)
    mixing /= max(typical.std(), 1e-12)
    # An amplitude 1 + z of a carrier of variance 1 makes a signal whose variance is 1 + 1.
    covariance = 2 * np.eye(len(mixing)) if high_gamma else np.cov(typical) / typical.var()
    gain, carried = _strength(montage, covariance, reference, snr, signal)

    def record(courses: np.ndarray) -> np.ndarray:
        """Channel data of sources that run through courses (n x dimensions x times)."""
        z = np.matmul(mixing, courses) * signal
        sources = np.maximum(0, 1 + z) * _carrier(z.shape, sfreq, of_noise) if high_gamma else z
        shape = (len(courses), len(montage.contacts), courses.shape[2])
        noise = OWN_NOISE * coloured(shape, sfreq=sfreq, exponent=1.0, rng=of_noise)
        shared = coloured((len(courses), 1, shape[2]), sfreq=sfreq, exponent=1.0, rng=of_noise)
        values = montage.channels @ (noise + REFERENCE_NOISE * shared)
        return np.asarray(values + gain * montage.field @ sources, dtype=np.float32)

    time = np.arange(round(start * sfreq), round(stop * sfreq)) / sfreq
    shown = np.concatenate([of_trials.permutation(len(said)) for _ in range(n_trials)])
    onset = DELAY + of_trials.uniform(-jitter, jitter, len(shown))
    courses = _laid_out(said, shown, np.round((onset - start) * sfreq).astype(int), len(time))
    table = pd.DataFrame(
        {"syllables": [" ".join(map(str, w)) for w in words] or [""] * len(said)},
        index=[f"word{i:02d}" for i in range(len(said))],
    )
    facts: dict[str, Any] = {
        "modality": "ieeg",
        "source": "virtual subject",
        "sfreq": sfreq,
        "reference": reference,
        "truth": {
            "carriers": [montage.names[i] for i in np.flatnonzero(carried > 0.1 * carried.max())]
            if signal
            else [],
            "sources": montage.places.round(5).tolist(),
            "signal": signal,
        },
    }
    units = {
        "kind": np.full(len(montage.names), "seeg"),
        "shaft": np.asarray([name[0] for name in montage.names]),
        "carried": carried,
        **dict(zip("xyz", montage.positions.T, strict=True)),
    }
    recording = Recording.from_arrays(
        record(courses),
        np.asarray(table.index, dtype=object)[shown],
        subject=subject,
        run=np.repeat(np.arange(1, n_trials + 1), len(said)),
        unit=montage.names,
        time=time,
        unit_coords=units,
        presentation_coords={"onset": onset},
        stimuli=StimulusSet(table),
        **facts,
    )
    length = round(babble_duration * sfreq)
    babble = Recording.from_arrays(
        record(_babble(n_babble, length, syllables, of_babble))
        if responses is None
        else record(np.zeros((n_babble, said[0].shape[0], length))),
        [f"babble{i:04d}" for i in range(n_babble)],
        subject=subject,
        unit=montage.names,
        time=np.arange(length) / sfreq,
        unit_coords=units,
        **facts,
    )
    return Intracranial(recording, babble, syllables, words)


def _strength(
    montage: _Montage, covariance: np.ndarray, reference: str, snr: float, signal: bool
) -> tuple[float, np.ndarray]:
    """Moment of the sources (A m or A), and the share of each channel's variance they make."""
    variance = np.einsum("kp,kr,pr->k", montage.field, montage.field, covariance)
    noise = 2 * OWN_NOISE**2 if reference == "bipolar" else OWN_NOISE**2 + REFERENCE_NOISE**2
    gain = snr * np.sqrt(noise / np.median(variance[montage.shaft == 0]))
    variance = signal * gain**2 * variance
    return float(gain), variance / (variance + noise)


def _laid_out(
    said: list[np.ndarray], shown: np.ndarray, first: np.ndarray, n_times: int
) -> np.ndarray:
    """Trial x dimension x time: what is said in each trial, from sample ``first`` on."""
    courses = np.zeros((len(shown), said[0].shape[0], n_times))
    for row, (word, start) in enumerate(zip(shown, first, strict=True)):
        courses[row, :, start : start + said[word].shape[1]] = said[word]
    return courses


class _Montage:
    """Contacts on shafts, channels made of them, and sources near the first shaft."""

    def __init__(
        self, n_shafts: int, n_contacts: int, reference: str, source: str, rng: np.random.Generator
    ) -> None:
        steps = PITCH * np.arange(n_contacts)
        entries = ENTRIES[:n_shafts] + 0.003 * rng.standard_normal((n_shafts, 3))
        inwards = np.asarray([1.0, 0.0, 0.0]) + 0.15 * rng.standard_normal((n_shafts, 3))
        inwards /= np.linalg.norm(inwards, axis=1, keepdims=True)
        contacts = entries[:, None] + inwards[:, None] * steps[:, None]
        self.contacts = contacts.reshape(-1, 3)
        letters = [chr(ord("A") + s) for s in range(n_shafts)]
        identity = np.eye(n_contacts)
        if reference == "bipolar":
            one = identity[:-1] - identity[1:]
            self.names = [f"{s}{i}-{s}{i + 1}" for s in letters for i in range(1, n_contacts)]
        else:
            one = identity
            self.names = [f"{s}{i}" for s in letters for i in range(1, n_contacts + 1)]
        self.channels = np.kron(np.eye(n_shafts), one)
        self.positions = np.kron(np.eye(n_shafts), np.abs(one) / np.abs(one).sum(axis=1)[:, None])
        self.positions = self.positions @ self.contacts
        self.shaft = np.repeat(np.arange(n_shafts), len(one))
        # One source beside the middle of each pair of neighbours on the first shaft.
        sideways = np.cross(inwards[0], rng.standard_normal((n_contacts - 1, 3)))
        sideways *= AWAY / np.linalg.norm(sideways, axis=1, keepdims=True)
        self.places = (contacts[0, :-1] + contacts[0, 1:]) / 2 + sideways
        along = np.tile(inwards[0], (n_contacts - 1, 1)) if source == "dipole" else None
        if along is None:  # a monopole midway between two contacts would not differ between them
            self.places = self.places + 0.3 * PITCH * inwards[0]
        self.field = self.channels @ homogeneous_potential(self.contacts, self.places, along)


def _dictionary(n: int, n_times: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth trajectories that start and end at 0, syllable x dimension x time."""
    phase = np.linspace(0, np.pi, n_times)
    waves = np.stack([np.sin((k + 1) * phase) for k in range(4)])
    return np.asarray(np.einsum("sdk,kt->sdt", rng.standard_normal((n, DIMENSIONS, 4)), waves))


def _draw_words(n: int, n_syllables: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    words: dict[tuple[int, ...], None] = {}
    while len(words) < n:
        words[tuple(rng.integers(0, n_syllables, rng.integers(3, 5)).tolist())] = None
    return list(words)


def _babble(n: int, n_times: int, syllables: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    length = syllables.shape[2]
    codes = rng.integers(0, len(syllables), (n, n_times // length + 2))
    stream = syllables[codes].swapaxes(1, 2).reshape(n, syllables.shape[1], -1)
    first = rng.integers(0, length, n)
    return np.stack([s[:, f : f + n_times] for s, f in zip(stream, first, strict=True)])


def _carrier(shape: tuple[int, ...], sfreq: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of unit variance in the band of high gamma."""
    sos = scipy.signal.butter(4, HIGH_GAMMA, "bandpass", fs=sfreq, output="sos")
    noise = scipy.signal.sosfiltfilt(sos, rng.standard_normal(shape), axis=-1)
    return np.asarray(noise / noise.std())


def _checked(responses: np.ndarray, stop: float, jitter: float, sfreq: float) -> np.ndarray:
    responses = np.asarray(responses, dtype=float)
    room = int((stop - DELAY - jitter) * sfreq) - 1
    if responses.ndim != 3 or not np.isfinite(responses).all() or responses.shape[2] > room:
        raise DataError(
            f"responses of shape {responses.shape} do not fit",
            where="option responses",
            mend=f"give finite numbers, stimuli x dimensions x at most {room} samples",
        )
    return responses


def _check(given: Mapping[str, Any]) -> None:
    """Refuse options that are out of range."""
    for name, choices in (("reference", ("bipolar", "common")), ("source", ("dipole", "monopole"))):
        if given[name] not in choices:
            raise ConfigError(f"{name} is {given[name]!r}", mend=f"use {' or '.join(choices)}")
    if not 1 <= given["n_shafts"] <= len(ENTRIES) or not 8 <= given["n_contacts"] <= 12:
        raise ConfigError(
            f"{given['n_shafts']} shafts of {given['n_contacts']} contacts cannot be placed",
            mend=f"use 1 to {len(ENTRIES)} shafts of 8 to 12 contacts",
        )
    counts = ("n_words", "n_trials", "n_syllables", "n_babble")
    if min(given[n] for n in counts) < 1 or given["n_words"] > given["n_syllables"] ** 3:
        raise ConfigError(
            "words cannot be recorded with these numbers",
            mend=f"use {', '.join(counts)} >= 1, and more syllables for so many words",
        )
    if not 0 <= given["jitter"] <= DELAY or given["snr"] < 0:
        raise ConfigError(
            f"jitter is {given['jitter']}, snr is {given['snr']}",
            mend=f"use jitter between 0 and {DELAY} and snr >= 0",
        )
    longest = DELAY + given["jitter"] + 4 * SYLLABLE
    if given["start"] > 0 or given["stop"] <= longest:
        raise ConfigError(
            f"a word may last until {longest:.2f} s after the cue, the recording does not",
            mend="use start <= 0 and a later stop, or less jitter",
        )
    least = 2.6 * HIGH_GAMMA[1] if given["high_gamma"] else 20.0
    if given["sfreq"] < least:
        raise ConfigError(
            f"{given['sfreq']} samples a second are too few", mend=f"use sfreq >= {least:g}"
        )
