"""Streams of features that an agent's life gives, and its course as tokens of place and time.

Nothing is given as a symbol: what is seen and heard goes through a random non-linear map that is
fixed by ``map_seed`` alone, and noise is added. `SenseMap` without noise is the encoder of
descriptions in the same space, as CLIP or ImageBind embed pictures, sounds and texts together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engramma.errors import ConfigError, DataError
from engramma.worlds.agent_life import SOUNDS, AgentLife
from engramma.worlds.house import FURNITURE, ROOMS
from engramma.worlds.layouts import COLOURS
from engramma.worlds.tables import rows

#: Loudness of a sound, and of silence.
LOUD, QUIET = -20.0, -60.0
_HIDDEN = 4


class SenseMap:
    r"""Embeddings of what is seen and heard, :math:`W_2\tanh(W_1 s)` brought to length 1.

    Parameters
    ----------
    dim : int
    map_seed : int
        Of the weights; the same for all lives, so that systems can be trained on others.

    Raises
    ------
    ConfigError
        If there are no dimensions.
    """

    def __init__(self, dim: int = 64, map_seed: int = 0) -> None:
        if dim < 1:
            raise ConfigError(f"features have at least one dimension, not {dim}", where="dim")
        self.words = (*ROOMS, *FURNITURE, *COLOURS, *SOUNDS)
        self._number = {w: i for i, w in enumerate(self.words)}
        rng = np.random.default_rng([map_seed, 271])
        n, hidden = len(self.words), _HIDDEN * dim
        self._first = 1.5 * rng.standard_normal((n, hidden), dtype=np.float32)
        self._second = rng.standard_normal((hidden, dim), dtype=np.float32)

    def __call__(self, *words: str) -> np.ndarray:
        """Embed a room, category, colour or sound, or several that go together, shape (dim,).

        Raises
        ------
        DataError
            If a word is none of these.
        """
        unknown = [w for w in words if w not in self._number]
        if unknown or not words:
            raise DataError(f"{unknown or 'nothing'} cannot be seen or heard",
                            mend="name rooms, categories, colours or sounds")  # fmt: skip
        hidden = np.tanh(sum(self._first[self._number[w]] for w in words))
        value: np.ndarray = hidden @ self._second
        return value / np.linalg.norm(value)


@dataclass(frozen=True, eq=False)
class LifeStreams:
    """What is seen and heard, frame by frame.

    Parameters
    ----------
    times : ndarray of float, shape (frame,)
        In seconds.
    frames, audio : ndarray of float32, shape (frame, dim)
    loudness : ndarray of float32, shape (frame,)
        In decibels.
    captions : tuple of str
        Of the events.
    boundaries : ndarray of float
        Seconds at which events start and stop.
    """

    times: np.ndarray
    frames: np.ndarray
    audio: np.ndarray
    loudness: np.ndarray
    captions: tuple[str, ...]
    boundaries: np.ndarray


def life_streams(
    life: AgentLife,
    *,
    rng: np.random.Generator,
    dim: int = 64,
    noise: float = 0.5,
    map_seed: int = 0,
) -> LifeStreams:
    """Give a life as streams of features.

    Parameters
    ----------
    life : AgentLife
    rng : numpy.random.Generator
        Of the noise.
    dim : int
    noise : float
        Length of the noise of a frame, on average; embeddings have length 1.
    map_seed : int

    Raises
    ------
    ConfigError
        If the noise is negative.
    """
    if noise < 0:
        raise ConfigError(f"noise is not negative, as {noise} is", where="noise")
    senses = SenseMap(dim, map_seed)
    objects = life.house.objects
    seen = np.array([
        senses(e.room, objects["category"][e.object], objects["colour"][e.object])
        for e in rows(life.events)
    ])  # fmt: skip
    rooms = {room: senses(room) for room in life.house.rooms}
    table = life.frames
    event = table["event"].to_numpy()
    frames = np.where(event[:, None] >= 0, seen[event], np.array([rooms[r] for r in table["room"]]))
    sounds = {"": np.zeros(dim, np.float32)} | {s: senses(s) for s in SOUNDS}
    audio = np.array([sounds[s] for s in table["sound"]])
    loudness = np.where(table["sound"] != "", LOUD, QUIET) + rng.standard_normal(len(table))
    scale = np.float32(noise / np.sqrt(dim))
    return LifeStreams(
        times=table["time"].to_numpy(),
        frames=frames + scale * rng.standard_normal(frames.shape, dtype=np.float32),
        audio=audio + scale * rng.standard_normal(audio.shape, dtype=np.float32),
        loudness=loudness.astype(np.float32),
        captions=tuple(caption(life, number) for number in range(len(life.events))),
        boundaries=life.boundaries,
    )


def described(life: AgentLife, thing: int) -> str:
    """Describe a piece of furniture: ``red sofa in the kitchen``."""
    return descriptions(life)[thing]


def descriptions(life: AgentLife) -> list[str]:
    """Describe all pieces of furniture; two may be alike in all that is said."""
    return [f"{o.colour} {o.category} in the {o.room}" for o in rows(life.house.objects)]


def caption(life: AgentLife, event: int) -> str:
    """Say what happens in an event."""
    row = life.events.iloc[event]
    text = f"The agent looks at the {described(life, row['object'])}"
    if row["sound"]:
        text += f" while the sound of {row['sound']} is heard"
    if row["item"]:
        text += f" and puts the {row['item']} there"
    return text + "."


def place_tokens(life: AgentLife, width: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Give the course of a life as places and times, in the order of time and by place.

    Parameters
    ----------
    life : AgentLife
    width : int
        The frames of a place are filled up to a multiple of it.

    Returns
    -------
    walk : ndarray of int64, shape (frame, 2)
        Index of the room, and of the frame.
    by_place : ndarray of int64, shape (frames and fillers, 2)
        The same rows grouped by room; fillers have the time -1. The layout of the walks of the
        spatially-aware transformer (Cho et al. 2024, arXiv:2402.15160).

    Raises
    ------
    ConfigError
        If the width is none.
    """
    if width < 1:
        raise ConfigError(f"places are filled up to multiples of 1 or more, not {width}",
                          where="width")  # fmt: skip
    number = {room: i for i, room in enumerate(life.house.rooms)}
    place = life.frames["room"].map(number).to_numpy(dtype=np.int64)
    walk = np.stack([place, np.arange(len(place))], axis=1)
    groups = []
    for i in range(len(number)):
        group = walk[place == i]
        groups += [group, np.tile([[i, -1]], (-len(group) % width, 1))]
    return walk, np.concatenate(groups)
