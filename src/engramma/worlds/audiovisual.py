"""Streams of hours: synchronised video, audio and narration, with known events and boundaries.

One event follows the other. In each, something is seen to do something somewhere, it is heard, and
a narrator says so. A stream holds the plan only; pictures and sounds are made event by event when
they are asked for, always the same ones, so that ten hours take no more memory than a minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from engramma.errors import ConfigError
from engramma.registry import world
from engramma.worlds.backgrounds import BACKGROUNDS
from engramma.worlds.layouts import MOST_OBJECTS, Layout, draw_layouts
from engramma.worlds.sounds import make_sound
from engramma.worlds.speech import RATE, Speaker, make_speakers, speak
from engramma.worlds.videos import ACTIONS, film, tell

#: Seconds between the beginning of an event and the narrator's first word.
DELAY = 0.3
#: Level of sounds under the narration, dB.
UNDER = -9.0
#: Longest sound without a pause, and longest pause, seconds.
SOUNDING, PAUSING = 1.5, 1.0


class Clip(NamedTuple):
    """What is seen, heard and said in one event.

    ``frames`` (n, size, size, 3) uint8; ``audio`` (samples,) float32 at 16 kHz; ``words``, a table
    of ``word``, ``onset`` and ``offset`` in seconds of the stream.
    """

    frames: np.ndarray
    audio: np.ndarray
    words: pd.DataFrame


@dataclass(frozen=True, eq=False)
class AudiovisualStream:
    """The plan of a stream, and what it looks and sounds like.

    Parameters
    ----------
    events : DataFrame
        One row an event: ``onset`` and ``offset`` (s), ``category``, ``colour``, ``action``,
        ``background``, ``narration``, and ``resembles``, the earlier event that shows the same
        thing in the same place doing something else (-1: none).
    layout : Layout
        Of the events.
    frame_rate : float
        Pictures a second.
    size : int
        Pixels a side.
    seed : int
    speaker : Speaker
        The narrator.
    """

    events: pd.DataFrame
    layout: Layout
    frame_rate: float
    size: int
    seed: int
    speaker: Speaker

    @property
    def duration(self) -> float:
        """Seconds."""
        return float(self.events["offset"].iloc[-1])

    @property
    def boundaries(self) -> np.ndarray:
        """Seconds at which one event gives way to the next."""
        return self.events["onset"].to_numpy()[1:]

    @property
    def audio_rate(self) -> int:
        """Samples a second."""
        return RATE

    def clip(self, number: int) -> Clip:
        """Return what is seen, heard and said in one event."""
        return _clip(self, int(number))

    def clips(self) -> Iterator[Clip]:
        """Yield the events one after the other."""
        for number in range(len(self.events)):
            yield self.clip(number)

    def between(self, start: float, stop: float) -> Clip:
        """Return what is seen, heard and said from one second to another.

        Raises
        ------
        ConfigError
            If this lies outside the stream.
        """
        if not 0 <= start < stop <= self.duration + 1e-9:
            raise ConfigError(
                f"the stream has no stretch from {start:g} to {stop:g} s",
                mend=f"use 0 <= start < stop <= {self.duration:g}",
            )
        first = int(np.searchsorted(self.boundaries, start, "right"))
        last = int(np.searchsorted(self.boundaries, stop, "left"))
        parts = [self.clip(k) for k in range(first, last + 1)]
        begin = float(self.events["onset"].iloc[first])
        frames = np.concatenate([p.frames for p in parts])
        audio = np.concatenate([p.audio for p in parts])
        words = pd.concat([p.words for p in parts], ignore_index=True)
        spoken = (words["offset"] > start) & (words["onset"] < stop)

        def cut(rate: float) -> slice:
            return slice(round((start - begin) * rate), round((stop - begin) * rate))

        return Clip(
            frames[cut(self.frame_rate)],
            audio[cut(RATE)],
            words[spoken].reset_index(drop=True),
        )


@world("audiovisual-stream")
def audiovisual_stream(
    seed: int = 0,
    *,
    minutes: float = 5.0,
    shortest: float = 6.0,
    longest: float = 30.0,
    resembling: float = 0.15,
    frame_rate: float = 4.0,
    size: int = 64,
) -> AudiovisualStream:
    """Plan a stream of video, audio and narration.

    Parameters
    ----------
    seed : int
    minutes : float
        Events are added until the stream is at least so long.
    shortest, longest : float
        Duration of events, seconds (whole ones are drawn).
    resembling : float
        Share of events that show the thing and place of an earlier event, and another action.
    frame_rate : float
        Pictures a second.
    size : int
        Pixels a side.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """
    within = minutes > 0 and 5 <= shortest <= longest and frame_rate > 0
    if not within or not 0 <= resembling <= 1:
        raise ConfigError(
            "a stream cannot be made with these numbers",
            mend="use minutes > 0, 5 <= shortest <= longest, frame_rate > 0, 0 <= resembling <= 1",
        )
    rng = np.random.default_rng(seed)
    most = int(np.ceil(60 * minutes / shortest))
    seconds = rng.integers(int(shortest), int(longest) + 1, size=most)
    n = int(np.searchsorted(np.cumsum(seconds), 60 * minutes)) + 1
    offset = np.cumsum(seconds[:n]).astype(float)
    layout = draw_layouts(n, rng=rng, object_counts=(1,))
    action = rng.integers(len(ACTIONS), size=n)
    resembles = _resemble(layout, action, rng.random(n) < resembling, rng)
    names = list(ACTIONS)
    things = layout.objects()
    events = pd.DataFrame(
        {
            "onset": offset - seconds[:n],
            "offset": offset,
            "category": things["category"],
            "colour": things["colour"],
            "action": [names[a] for a in action],
            "background": [BACKGROUNDS[b] for b in layout.background],
            "resembles": resembles,
        }
    )
    events["narration"] = [
        tell([row], row["background"], "still") for row in events.to_dict("records")
    ]
    return AudiovisualStream(events, layout, frame_rate, size, seed, make_speakers(1, rng=rng)[0])


def _resemble(
    layout: Layout, action: np.ndarray, chosen: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Let some events show what an earlier one shows, and neighbours differ; in place."""
    resembles = np.full(len(layout), -1)
    for k in range(1, len(layout)):
        show = np.stack([layout.category[:, 0], layout.colour[:, 0], layout.background])
        others = np.flatnonzero((show[:, : k - 1] != show[:, k - 1, None]).any(axis=0))
        if chosen[k] and len(others):
            j = int(rng.choice(others))
            for name in ("category", "colour", "hue", "background", "background_shape", "form"):
                getattr(layout, name)[k] = getattr(layout, name)[j]
            action[k] = (action[j] + 1 + rng.integers(len(ACTIONS) - 1)) % len(ACTIONS)
            resembles[k] = j
        elif layout.background[k] == layout.background[k - 1]:
            layout.background[k] = (layout.background[k] + 1) % len(BACKGROUNDS)
    return resembles


@lru_cache(maxsize=8)
def _clip(stream: AudiovisualStream, number: int) -> Clip:
    event = stream.events.iloc[number]
    rng = np.random.default_rng([stream.seed, number])
    seconds = float(event["offset"] - event["onset"])
    action = np.full((1, MOST_OBJECTS), -1)
    action[0, 0] = list(ACTIONS).index(event["action"])
    video = film(
        stream.layout[[number]],
        action,
        np.zeros(1, dtype=int),
        rng=rng,
        frames=max(2, round(seconds * stream.frame_rate)),
        size=stream.size,
    )
    audio = _heard(str(event["category"]), seconds, rng)
    said = speak(str(event["narration"]), stream.speaker, rng=rng)
    start = round(DELAY * RATE)
    wave = said.wave[: len(audio) - start]
    audio[start : start + len(wave)] += wave
    begin = float(event["onset"]) + DELAY
    words = pd.DataFrame(
        [(w.label, begin + w.onset, begin + w.offset) for w in said.words],
        columns=["word", "onset", "offset"],
    )
    return Clip(video.frames[0], audio, words)


def _heard(category: str, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Make the sound of a thing, again and again, with pauses."""
    audio = np.zeros(round(seconds * RATE), dtype=np.float32)
    at = 0.0
    while seconds - at > 0.5:
        length = min(float(rng.uniform(0.7, SOUNDING)), seconds - at)
        wave = make_sound(category, rng=rng, seconds=length, decibels=UNDER)
        start = round(at * RATE)
        wave = wave[: len(audio) - start]
        audio[start : start + len(wave)] += wave
        at += length + float(rng.uniform(0.2, PAUSING))
    return audio
