"""EventAudio: sequences of sounds whose number, order, pitch and loudness are known.

Beside the sounds of objects there are four plain ones: tones, chirps, bursts of noise and clicks.
Every event has a pitch and a loudness of its own, drawn independently of what it is, so that each
of the questions needs to be answered from what it asks about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError
from engramma.registry import world
from engramma.worlds.formants import RATE
from engramma.worlds.objects import CATEGORIES
from engramma.worlds.sound_parts import SoundCanvas
from engramma.worlds.sounds import LEVEL, equalised, make_sound

PLAIN = ("tone", "chirp", "noise", "click")
#: Factors of pitch (a tone of 600 Hz is the middle), and loudness in dB.
PITCHES = {"low": 2**-0.75, "high": 2**0.75}
LOUDNESS = {"soft": -6.0, "loud": 6.0}
#: Seconds that an event lasts; clicks are shorter.
EVENT, CLICK = 0.35, 0.05
ATTRIBUTES = ("count", "order", "pitch", "loudness")
_COUNTS = tuple(["one", "two", "three", "four", "five", "six", "seven", "eight"])


@dataclass(frozen=True)
class SoundEvent:
    """A sound in a sequence.

    Parameters
    ----------
    kind : str
        One of `PLAIN` or of the object categories.
    onset, offset : float
        Seconds.
    pitch : str
        A key of `PITCHES`.
    loudness : str
        A key of `LOUDNESS`.
    """

    kind: str
    onset: float
    offset: float
    pitch: str
    loudness: str


@dataclass(frozen=True)
class SoundQuestion:
    """A question about one sequence: which, about what attribute, the words, and the answers."""

    clip: int
    attribute: str
    text: str
    answer: str
    options: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class EventAudio:
    """Sequences of sounds.

    Parameters
    ----------
    waves : ndarray of float32, shape (clips, samples)
        At 16 kHz.
    events : list of tuple of SoundEvent
        Of each clip, in order of time.
    """

    waves: np.ndarray
    events: list[tuple[SoundEvent, ...]]
    rate: int = RATE

    @property
    def stimuli(self) -> StimulusSet:
        """The clips as stimuli; the table holds ``count`` and ``kinds`` (parted by spaces)."""
        table = pd.DataFrame(
            {
                "count": [len(e) for e in self.events],
                "kinds": [" ".join(event.kind for event in e) for e in self.events],
            },
            index=[f"clip{i:04d}" for i in range(len(self.events))],
        )
        attrs = {"name": "event-audio", "sampling_rate": self.rate}
        return StimulusSet(table, audio=list(self.waves), attrs=attrs)


@world("event-audio")
def make_event_audio(
    seed: int = 0,
    *,
    n: int = 100,
    seconds: float = 3.0,
    kinds: Sequence[str] = PLAIN,
    most_events: int = 5,
    snr: float = 30.0,
) -> EventAudio:
    """Make sequences of one to ``most_events`` sounds that do not overlap.

    Parameters
    ----------
    seed : int
    n : int
        Clips.
    seconds : float
        How long each is.
    kinds : sequence of str
        What sounds are drawn from: `PLAIN`, and object categories.
    most_events : int
    snr : float
        How far the background noise lies below a sound of middle loudness, in dB.

    Raises
    ------
    ConfigError
        If a kind is unknown, or there is not time enough for so many events.
    """
    unknown = [kind for kind in kinds if kind not in (*PLAIN, *CATEGORIES)]
    if unknown or not kinds:
        raise ConfigError(
            f"there is no sound called {unknown[0]!r}"
            if unknown
            else "no kinds of sound are given",
            mend=f"use {', '.join(PLAIN)}, or a category of objects",
        )
    if not 1 <= most_events <= len(_COUNTS) or seconds < most_events * (EVENT + 0.1):
        raise ConfigError(
            f"{most_events} sounds do not fit into {seconds:g} s",
            mend=f"use 1 to {len(_COUNTS)} sounds and {EVENT + 0.1:g} s for each",
        )
    rng = np.random.default_rng([seed, 71])
    samples = round(seconds * RATE)
    noise = LEVEL * 10 ** (-snr / 20)
    waves = (noise * rng.standard_normal((n, samples))).astype(np.float32)
    sequences = []
    for clip in range(n):
        events = _draw_events(int(rng.integers(1, most_events + 1)), seconds, kinds, rng)
        for event in events:
            first = round(event.onset * RATE)
            sound = _sound(event, rng)
            waves[clip, first : first + len(sound)] += sound
        sequences.append(events)
    return EventAudio(waves, sequences)


def _draw_events(
    count: int, seconds: float, kinds: Sequence[str], rng: np.random.Generator
) -> tuple[SoundEvent, ...]:
    # Each gap gets a share of the time that is left when all events and least gaps are taken.
    spare = seconds - count * (EVENT + 0.1)
    gaps = 0.1 + spare * rng.dirichlet(np.ones(count + 1))[:count]
    onsets = np.cumsum(gaps + EVENT) - EVENT
    events = []
    for onset in onsets:
        kind = str(rng.choice(np.asarray(kinds, dtype=object)))
        length = CLICK if kind == "click" else EVENT
        pitch, loudness = str(rng.choice(list(PITCHES))), str(rng.choice(list(LOUDNESS)))
        events.append(SoundEvent(kind, float(onset), float(onset + length), pitch, loudness))
    return tuple(events)


def _sound(event: SoundEvent, rng: np.random.Generator) -> np.ndarray:
    pitch, decibels = PITCHES[event.pitch], LOUDNESS[event.loudness]
    seconds = event.offset - event.onset
    if event.kind not in PLAIN:
        return make_sound(event.kind, rng=rng, seconds=seconds, pitch=pitch, decibels=decibels)
    canvas = SoundCanvas(round(seconds * RATE), pitch, rng)
    if event.kind == "tone":
        canvas.tone(0.0, seconds, 600, harmonics=(1, 0.3, 0.1))
    elif event.kind == "chirp":
        canvas.tone(0.0, seconds, 500, 1500)
    elif event.kind == "noise":
        canvas.noise(0.0, seconds, 900, 2700)
    else:
        canvas.noise(0.0, seconds, 700, 4000, shape="burst")
    return equalised(canvas.wave, decibels)


def ask(
    audio: EventAudio, *, rng: np.random.Generator, attributes: Sequence[str] = ATTRIBUTES
) -> list[SoundQuestion]:
    """Ask one question about each attribute of each sequence that it can be asked of.

    Questions of order, pitch and loudness compare the first sound with the last, so they are not
    asked where there is only one; nor where both agree in what is asked.

    Parameters
    ----------
    audio : EventAudio
    rng : numpy.random.Generator
        For the wording.
    attributes : sequence of str
        Of `ATTRIBUTES`.

    Raises
    ------
    ConfigError
        If there is no such attribute.
    """
    unknown = [a for a in attributes if a not in ATTRIBUTES]
    if unknown:
        raise ConfigError(
            f"no questions are asked about {unknown[0]!r}", mend=f"use {', '.join(ATTRIBUTES)}"
        )
    questions = []
    for clip, events in enumerate(audio.events):
        for attribute in attributes:
            asked = _question(attribute, events, rng)
            if asked:
                questions.append(SoundQuestion(clip, attribute, *asked))
    return questions


def _question(
    attribute: str, events: Sequence[SoundEvent], rng: np.random.Generator
) -> tuple[str, str, tuple[str, ...]] | None:
    """Words, answer and options of a question; None where it has no answer."""
    first, last = events[0], events[-1]
    if attribute == "count":
        texts = ("how many sounds are there", "how often is something heard")
        return str(rng.choice(texts)), _COUNTS[len(events) - 1], _COUNTS
    if attribute == "order":
        if first.kind == last.kind:
            return None
        options = tuple(sorted((first.kind, last.kind)))
        if rng.random() < 0.5:
            return "what is heard first", first.kind, options
        return "what is heard last", last.kind, options
    one, other = getattr(first, attribute), getattr(last, attribute)
    if one == other:
        return None
    words = {"low": "lower", "high": "higher", "soft": "softer", "loud": "louder"}
    options = ("higher", "lower") if attribute == "pitch" else ("louder", "softer")
    if rng.random() < 0.5:
        return f"is the first sound {options[0]} or {options[1]} than the last", words[one], options
    return f"is the last sound {options[0]} or {options[1]} than the first", words[other], options
