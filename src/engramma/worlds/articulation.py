"""From words to movements of the mouth: when each phoneme is said, with what melody, and how.

Durations follow Klatt (J. Acoust. Soc. Am. 59, 1976): function words are short, the last syllable
of a phrase is long. Coarticulation: articulators glide, so that formants are the phonemes' targets
smoothed over 60 ms, while the sources change within 15 ms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engramma.worlds.formants import HOP, RATE, Tracks
from engramma.worlds.phonemes import PHONEMES, Phoneme
from engramma.worlds.pronunciation import FUNCTION_WORDS, pronounce

#: Silence of the signs that part phrases, and at both ends of an utterance, in seconds.
PAUSES, MARGIN = {",": 0.18, ".": 0.35, "?": 0.35}, 0.1
#: Smoothing of formants and of sources, in moments of 5 ms.
_GLIDE, _SWITCH = 13, 3
#: Frication of level 0 dB, so that it is as strong as a vowel.
_VOWEL_LEVEL = 1.2
_FOURTH_FORMANT = 3500.0


class Spoken(NamedTuple):
    """A phoneme in its place: which word it is of, and how long it takes in seconds."""

    phoneme: Phoneme | None  # None is a pause
    word: int
    seconds: float


class _Piece(NamedTuple):
    """A stretch of time in which the targets stay the same; no formants: those of what follows."""

    seconds: float
    formants: tuple[float, float, float] | None
    voicing: float = 0.0
    aspiration: float = 0.0
    frication: float = 0.0
    peak: float = 4000.0
    width: float = 2000.0
    nasal: float = 0.0


@dataclass(frozen=True, eq=False)
class Articulation:
    """How words are said.

    Parameters
    ----------
    tracks : Tracks
        Sources and formants every 5 ms.
    spoken : list of Spoken
        Phonemes and pauses in order.
    onsets, ends : list of float
        Of these, in seconds.
    """

    tracks: Tracks
    spoken: list[Spoken]
    onsets: list[float]
    ends: list[float]


def articulate(
    tokens: Sequence[str], *, pitch: float, rate: float, melody: float, rng: np.random.Generator
) -> Articulation:
    """Plan how words are said.

    Parameters
    ----------
    tokens : sequence of str
        What `engramma.worlds.pronunciation.words` returns.
    pitch : float
        Mean fundamental frequency in Hz.
    rate : float
        Speed; 1 is about 150 words a minute.
    melody : float
        How far the pitch moves; 0 is monotone.
    rng : numpy.random.Generator
        For small variations of durations.
    """
    spoken = list(_timed(tokens, rate, rng))
    pieces: list[_Piece] = []
    ends: list[float] = []
    time = 0.0
    for number, item in enumerate(spoken):
        made = _pieces(item, spoken[number + 1 : number + 2])
        pieces += made
        time += sum(p.seconds for p in made)
        ends.append(time)
    onsets = [0.0, *ends[:-1]]
    tracks = _tracks(pieces)
    semitones = _melody(tokens, spoken, onsets, ends, len(tracks.pitch))
    tracks.pitch[:] = pitch * 2 ** (melody * semitones / 12)
    return Articulation(tracks, spoken, onsets, ends)


def _timed(tokens: Sequence[str], rate: float, rng: np.random.Generator) -> Iterator[Spoken]:
    """Phonemes and pauses with their durations."""
    yield Spoken(None, -1, MARGIN)
    for number, token in enumerate(tokens):
        if token in PAUSES:
            if number + 1 < len(tokens):
                yield Spoken(None, -1, PAUSES[token] / rate)
            continue
        phonemes = [PHONEMES[symbol] for symbol in pronounce(token)]
        vowels = [i for i, p in enumerate(phonemes) if p.vowel]
        last_of_phrase = number + 1 == len(tokens) or tokens[number + 1] in PAUSES
        shorter = 0.75 if token in FUNCTION_WORDS else 0.9 if len(vowels) > 1 else 1.0
        for i, phoneme in enumerate(phonemes):
            longer = 1.35 if last_of_phrase and i >= vowels[-1] else 1.0
            unstressed = 0.8 if phoneme.vowel and i > vowels[0] else 1.0
            varied = np.exp(0.06 * rng.standard_normal())
            factor = shorter * longer * unstressed * varied / rate
            yield Spoken(phoneme, number, phoneme.duration / 1000 * factor)
    yield Spoken(None, -1, MARGIN)


def _pieces(item: Spoken, following: Sequence[Spoken]) -> list[_Piece]:
    """Stretches of constant targets that make a phoneme."""
    phoneme, seconds = item.phoneme, item.seconds
    if phoneme is None:
        return [_Piece(seconds, None)]
    noise = phoneme.frication
    if phoneme.kind == "breath":
        return [_Piece(seconds, None, aspiration=0.7)]
    if noise is None:
        voicing = {"vowel": 1.0, "glide": 0.8, "nasal": 0.7}[phoneme.kind]
        nasal = float(phoneme.kind == "nasal")
        share = seconds / len(phoneme.targets)
        return [_Piece(share, target, voicing, nasal=nasal) for target in phoneme.targets]
    target, peak = phoneme.targets[0], noise.peak
    then = following[0].phoneme if following else None
    if phoneme.symbol in "KG" and then and then.targets:
        # The tongue meets the palate where the next vowel is made.
        second = (target[1] + then.targets[0][1]) / 2
        target, peak = (target[0], second, target[2]), second
    strength = _VOWEL_LEVEL * 10 ** (noise.level / 20)
    voicing = 0.35 if phoneme.voiced else 0.0
    hiss = _Piece(seconds, target, voicing, 0.0, strength, peak, noise.width)
    if phoneme.kind == "fricative":
        return [hiss]
    closure = _Piece(0.0, target, voicing=0.15 if phoneme.voiced else 0.0)
    if phoneme.kind == "affricate":
        return [closure._replace(seconds=0.45 * seconds), hiss._replace(seconds=0.55 * seconds)]
    burst = hiss._replace(seconds=0.015)
    breath = 0.25 * seconds if not phoneme.voiced else 0.0
    made = [closure._replace(seconds=max(seconds - breath - 0.015, 0.02)), burst]
    return [*made, _Piece(breath, None, aspiration=0.5)] if breath else made


def _tracks(pieces: Sequence[_Piece]) -> Tracks:
    """Sample the pieces every 5 ms, and smooth them as articulators move."""
    ends = np.cumsum([p.seconds for p in pieces])
    moments = round(ends[-1] * RATE / HOP)
    at = np.searchsorted(ends, (np.arange(moments) + 0.5) * HOP / RATE).clip(max=len(pieces) - 1)
    known = [(i, (*p.formants, _FOURTH_FORMANT)) for i, p in enumerate(pieces) if p.formants]
    places, given = (np.asarray(values) for values in zip(*known, strict=True))
    # Where none are given, the mouth prepares what follows, or stays as it was.
    targets = given[np.searchsorted(places, at).clip(max=len(places) - 1)]
    sources = np.asarray([p[2:5] for p in pieces])[at]
    shapes = np.asarray([p[5:] for p in pieces])[at]
    voicing, aspiration, frication = _smooth(sources, _SWITCH).T
    peak, width, nasal = _smooth(shapes, _SWITCH).T
    return Tracks(
        pitch=np.empty(moments),
        formants=_smooth(targets, _GLIDE),
        voicing=voicing,
        aspiration=aspiration,
        frication=frication,
        peak=peak,
        width=width,
        nasal=nasal,
    )


def _smooth(tracks: np.ndarray, length: int) -> np.ndarray:
    """Weighted running mean over an odd number of moments; tracks are moment x track."""
    window = np.hanning(length + 2)[1:-1]
    padded = np.pad(tracks, ((length // 2,) * 2, (0, 0)), mode="edge")
    views = np.lib.stride_tricks.sliding_window_view(padded, length, axis=0)
    return views @ (window / window.sum())


def _melody(
    tokens: Sequence[str],
    spoken: Sequence[Spoken],
    onsets: Sequence[float],
    ends: Sequence[float],
    moments: int,
) -> np.ndarray:
    """Pitch in semitones every 5 ms: it sinks, rises on accents, and falls (or asks) at the end."""
    time = (np.arange(moments) + 0.5) * HOP / RATE
    first, last = ends[0], onsets[-1]
    semitones = 2.0 - 4.0 * np.clip((time - first) / max(last - first, 0.1), 0, 1)
    accented: set[int] = set()
    for item, onset, end in zip(spoken, onsets, ends, strict=True):
        if item.phoneme is None or not item.phoneme.vowel or item.word in accented:
            continue
        if tokens[item.word] not in FUNCTION_WORDS:
            accented.add(item.word)
            middle, reach = (onset + end) / 2, (end - onset) / 2 + 0.08
            semitones += 3.0 * np.clip(1 - ((time - middle) / reach) ** 2, 0, None)
    final = np.clip((time - last + 0.25) / 0.25, 0, 1)
    semitones += (6.0 if tokens[-1] == "?" else -2.0) * final
    return semitones
