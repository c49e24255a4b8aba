"""Captions of scenes, spoken by several people; and how well a speech encoder understands them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from engramma.data.stimuli import StimulusSet
from engramma.features.speech import BOUNDARY, Miniature, edit_distance
from engramma.registry import world
from engramma.worlds.articulation import PAUSES
from engramma.worlds.captions import Description, captions, vocabulary
from engramma.worlds.formants import RATE
from engramma.worlds.layouts import Compositions
from engramma.worlds.pronunciation import pronounce, words
from engramma.worlds.scenes import make_scenes
from engramma.worlds.speech import Speaker, Utterance, make_speakers, speak


@dataclass(frozen=True, eq=False)
class SpokenCaptions:
    """Captions that were said.

    Parameters
    ----------
    stimuli : StimulusSet
        Sounds in memory, and a table with ``caption``, ``speaker``, ``pitch``, ``tract`` and
        ``snr`` (dB).
    utterances : list of Utterance
        With the times of all words and phonemes.
    speakers : list of Speaker
    descriptions : list of Description
        The scenes that the captions are of.
    """

    stimuli: StimulusSet
    utterances: list[Utterance]
    speakers: list[Speaker]
    descriptions: list[Description]


@world("spoken-captions")
def make_spoken_captions(
    seed: int = 0,
    *,
    n: int = 40,
    n_speakers: int = 8,
    snr: float | None = 20.0,
    object_counts: Sequence[float] = (0.5, 0.5),
    compositions: Compositions = "all",
    engine: str = "formant",
) -> SpokenCaptions:
    """Draw scenes, write a caption of each, and let speakers say them in turn.

    Parameters
    ----------
    seed : int
    n : int
        Captions.
    n_speakers : int
    snr : float, optional
        Signal-to-noise ratio in dB; no noise for None.
    object_counts : sequence of float
        Shares of scenes with one, two, ... objects.
    compositions : {"all", "common", "held out"}
        See `engramma.worlds.scenes.make_scenes`.
    engine : str
        See `engramma.worlds.speech.speak`.
    """
    rng = np.random.default_rng([seed, 67])
    scenes = make_scenes(
        n, rng=rng, size=16, object_counts=object_counts, compositions=compositions, caption=False
    )
    texts = [captions(d, rng, 1)[0] for d in scenes.descriptions]
    speakers = make_speakers(n_speakers, rng=rng)
    said = [
        speak(text, speakers[i % n_speakers], rng=rng, snr=snr, engine=engine)
        for i, text in enumerate(texts)
    ]
    table = pd.DataFrame(
        {
            "caption": texts,
            "speaker": [u.speaker.name for u in said],
            "pitch": [u.speaker.pitch for u in said],
            "tract": [u.speaker.tract for u in said],
            "snr": np.inf if snr is None else snr,
        },
        index=[f"spoken{i:04d}" for i in range(n)],
    )
    stimuli = StimulusSet(
        table,
        audio=[u.wave for u in said],
        attrs={"name": "spoken-captions", "sampling_rate": RATE},
    )
    return SpokenCaptions(stimuli, said, speakers, scenes.descriptions)


def symbols(text: str) -> list[str]:
    """Phonemes of a text, with a mark between words."""
    spoken = [list(pronounce(w)) for w in words(text) if w not in PAUSES]
    return [s for word in spoken for s in (BOUNDARY, *word)][1:]


def lexicon() -> dict[str, tuple[str, ...]]:
    """All words of the captions, and their phonemes."""
    return {w: pronounce(w) for w in vocabulary() if w not in PAUSES}


def speech_quality(model: Miniature, n: int = 100, seed: int = 4242) -> Mapping[str, float]:
    """Measure how well an encoder understands captions and speakers that it never heard.

    Parameters
    ----------
    model : Miniature
    n : int
        Captions, whose first objects are held-out compositions; each is said by two of ten
        speakers.
    seed : int

    Returns
    -------
    mapping of str to float
        ``word_accuracy`` (1 - word error rate) in faint noise (20 dB) and
        ``word_accuracy_in_noise`` (5 dB); ``phoneme_accuracy`` likewise (20 dB); and
        ``utterance_retrieval``: how often the other speaker's same sentence is the nearest of n
        (20 dB).
    """
    rng = np.random.default_rng(seed)
    scenes = make_scenes(
        n, rng=rng, size=16, object_counts=(0.4, 0.6), compositions="held out", caption=False
    )
    texts = [captions(d, rng, 1)[0] for d in scenes.descriptions]
    speakers = make_speakers(10, rng=rng)

    def say(offset: int, snr: float) -> list[tuple[np.ndarray, int]]:
        said = (
            speak(text, speakers[(i + offset) % 10], rng=rng, snr=snr)
            for i, text in enumerate(texts)
        )
        return [(u.wave, u.rate) for u in said]

    clear, other, noisy = say(0, 20), say(3, 20), say(6, 5)
    found, sought = model.embed(clear), model.embed(other)
    retrieved = (found @ sought.T).argmax(axis=1) == np.arange(n)
    phonemes = [symbols(text) for text in texts]
    return {
        "word_accuracy": word_accuracy(model, clear, texts),
        "word_accuracy_in_noise": word_accuracy(model, noisy, texts),
        "phoneme_accuracy": _accuracy(model.symbols(clear), phonemes),
        "utterance_retrieval": float(retrieved.mean()),
    }


def word_accuracy(
    model: Miniature, sounds: Sequence[tuple[np.ndarray, int]], texts: Sequence[str]
) -> float:
    """One minus the word error rate; words that sound alike count as the same."""
    known = lexicon()
    alike = {said: word for word, said in reversed(list(known.items()))}
    right = [[alike[pronounce(w)] for w in words(t) if w not in PAUSES] for t in texts]
    return _accuracy(model.transcribe(sounds, known), right)


def _accuracy(found: Sequence[Sequence[str]], right: Sequence[Sequence[str]]) -> float:
    errors = sum(edit_distance(a, b) for a, b in zip(found, right, strict=True))
    return 1 - errors / sum(map(len, right))
