"""Spoken words and sentences, of many speakers, with the times of all words and phonemes.

A text is pronounced (`engramma.worlds.pronunciation`), its phonemes become movements of the vocal
tract (`engramma.worlds.articulation`), and these are heard (`engramma.worlds.formants`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from engramma.errors import ConfigError, DataError
from engramma.worlds.articulation import MARGIN, PAUSES, articulate
from engramma.worlds.formants import RATE, synthesise
from engramma.worlds.pronunciation import words

#: Root mean square of an utterance while somebody speaks.
LEVEL = 0.06
ENGINES = ("formant", "espeak")


@dataclass(frozen=True)
class Speaker:
    """A voice.

    Parameters
    ----------
    name : str
    pitch : float
        Mean fundamental frequency in Hz.
    tract : float
        Formants are multiplied by it: 1 for a vocal tract of 17.5 cm, about 1.17 for women and
        1.3 for children.
    rate : float
        Speed, relative to about 150 words a minute.
    breathiness : float
        0 (clear) .. 0.4 (breathy).
    melody : float
        How far the pitch moves: 0 is monotone, 1 lively.
    jitter : float
        Standard deviation of the pitch from one period to the next, as a share.

    Raises
    ------
    ConfigError
        If pitch, tract or rate lie outside what a human voice can do.
    """

    name: str = "speaker"
    pitch: float = 120.0
    tract: float = 1.0
    rate: float = 1.0
    breathiness: float = 0.1
    melody: float = 1.0
    jitter: float = 0.01

    def __post_init__(self) -> None:
        limits = {"pitch": (50, 600), "tract": (0.7, 1.6), "rate": (0.3, 3.0)}
        for option, (low, high) in limits.items():
            value = getattr(self, option)
            if not low <= value <= high:
                raise ConfigError(
                    f"no voice has {option}={value:g}",
                    where=f"speaker {self.name!r}",
                    mend=f"choose {option} between {low:g} and {high:g}",
                )


def make_speakers(n: int, *, rng: np.random.Generator) -> list[Speaker]:
    """Draw speakers from deep-voiced men to children; high voices go with short vocal tracts."""
    found = []
    for number in range(n):
        height = rng.random()
        found.append(
            Speaker(
                name=f"speaker{number:02d}",
                pitch=float(95 * 2 ** (1.35 * height + 0.12 * rng.standard_normal())),
                tract=float(0.94 + 0.32 * height + 0.03 * rng.standard_normal()),
                rate=float(np.exp(0.13 * rng.standard_normal())),
                breathiness=float(rng.uniform(0.03, 0.3)),
                melody=float(rng.uniform(0.4, 1.4)),
                jitter=float(rng.uniform(0.003, 0.015)),
            )
        )
    return found


class Interval(NamedTuple):
    """A word or phoneme, and when it begins and ends, in seconds."""

    label: str
    onset: float
    offset: float


@dataclass(frozen=True, eq=False)
class Utterance:
    """Something said, and what is known of it.

    Parameters
    ----------
    text : str
    wave : ndarray of float32, shape (samples,)
    rate : int
        Samples a second.
    speaker : Speaker
    words, phonemes : tuple of Interval
    pitch : ndarray, shape (moments,)
        Fundamental frequency in Hz every 5 ms, 0 where nothing is voiced.
    formants : ndarray, shape (moments, 4)
        Frequencies in Hz every 5 ms, as this speaker has them.
    """

    text: str
    wave: np.ndarray
    rate: int
    speaker: Speaker
    words: tuple[Interval, ...]
    phonemes: tuple[Interval, ...] = ()
    pitch: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    formants: np.ndarray = field(default_factory=lambda: np.empty((0, 4), np.float32))

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.wave) / self.rate


def speak(
    text: str,
    speaker: Speaker | None = None,
    *,
    rng: np.random.Generator,
    snr: float | None = None,
    engine: str = "formant",
) -> Utterance:
    """Say a text.

    Parameters
    ----------
    text : str
        English; commas and stops are pauses, and a question ends high.
    speaker : Speaker, optional
        By default a man's voice.
    rng : numpy.random.Generator
        For noises and small variations of durations.
    snr : float, optional
        Signal-to-noise ratio in dB of added noise that has the spectrum of the utterance itself;
        none by default.
    engine : str
        ``"formant"``, or ``"espeak"`` where espeak-ng is installed: it says word by word, so that
        the times of words are known; phonemes, pitch and formants are not.

    Returns
    -------
    Utterance
        At 16 kHz, with 0.1 s of silence at both ends.

    Raises
    ------
    ConfigError
        If there is no such engine, or espeak-ng is not installed.
    DataError
        If there is nothing in the text that can be said.
    """
    speaker = speaker or Speaker()
    if engine not in ENGINES:
        raise ConfigError(
            f"there is no speech engine {engine!r}", mend=f"use {' or '.join(ENGINES)}"
        )
    tokens = words(text)
    if not any(token not in PAUSES for token in tokens):
        raise DataError("there is no word to say", where=f"text {text!r}", mend="write some words")
    if engine == "espeak":
        from engramma.worlds.espeak import speak_words

        wave, spoken = speak_words(tokens, speaker, PAUSES, MARGIN)
        said = Utterance(text, wave, RATE, speaker, tuple(Interval(*word) for word in spoken))
    else:
        said = _speak(text, tokens, speaker, rng)
    active = np.abs(said.wave) > 0.02 * np.abs(said.wave).max()
    wave = said.wave * np.float32(LEVEL / np.sqrt(np.mean(said.wave[active] ** 2)))
    said.wave[:] = wave if snr is None else wave + _noise_like(wave, snr, rng)
    return said


def _speak(
    text: str, tokens: Sequence[str], speaker: Speaker, rng: np.random.Generator
) -> Utterance:
    plan = articulate(
        tokens, pitch=speaker.pitch, rate=speaker.rate, melody=speaker.melody, rng=rng
    )
    tracks = plan.tracks
    wave = synthesise(
        tracks,
        rng=rng,
        tract=speaker.tract,
        breathiness=speaker.breathiness,
        jitter=speaker.jitter,
    )
    phonemes: list[Interval] = []
    by_word: dict[int, list[Interval]] = {}
    for item, onset, end in zip(plan.spoken, plan.onsets, plan.ends, strict=True):
        if item.phoneme:
            phonemes.append(Interval(item.phoneme.symbol, onset, end))
            by_word.setdefault(item.word, []).append(phonemes[-1])
    return Utterance(
        text,
        wave,
        RATE,
        speaker,
        tuple(Interval(tokens[w], p[0].onset, p[-1].offset) for w, p in by_word.items()),
        tuple(phonemes),
        np.where(tracks.voicing > 0.05, tracks.pitch, 0).astype(np.float32),
        (tracks.formants * speaker.tract).astype(np.float32),
    )


def _noise_like(wave: np.ndarray, snr: float, rng: np.random.Generator) -> np.ndarray:
    """Noise with the spectrum of a sound (its phases are drawn anew), ``snr`` dB below it."""
    spectrum = np.abs(np.fft.rfft(wave))
    noise = np.fft.irfft(spectrum * np.exp(2j * np.pi * rng.random(len(spectrum))), len(wave))
    noise *= np.sqrt(np.mean(wave**2) / np.mean(noise**2)) * 10 ** (-snr / 20)
    return noise.astype(np.float32)
