"""Streams that fall into events of known extent: as arrays, and as tokens with needles in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engramma.errors import ConfigError


@dataclass(frozen=True)
class EventStream:
    """A stream of keys and surprises, and where its events begin.

    Parameters
    ----------
    surprise : ndarray of float64, shape (token,)
    keys : ndarray of float64, shape (token, dim)
    boundaries : ndarray of int64, shape (event,)
        First token of each event, 0 included.
    """

    surprise: np.ndarray
    keys: np.ndarray
    boundaries: np.ndarray


def event_stream(
    rng: np.random.Generator,
    n_tokens: int = 1200,
    *,
    dim: int = 32,
    lengths: tuple[int, int] = (16, 64),
    noise: float = 0.9,
    peak: float = 2.5,
    jitter: int = 3,
    false_peak: float = 2.0,
    false_rate: float = 0.03,
) -> EventStream:
    """Events whose keys share a mean, and surprise that peaks near, not at, their boundaries.

    Parameters
    ----------
    rng : Generator
    n_tokens : int
    dim : int
        Width of the keys. The mean of an event is a unit vector times the square root of ``dim``.
    lengths : (int, int)
        Shortest and longest event.
    noise : float
        Standard deviation of each key number about the mean of its event.
    peak, jitter : float, int
        What is added to surprise (else N(1, 0.5)) at each boundary, and by how many tokens at most
        it misses the boundary.
    false_peak, false_rate : float
        What is added elsewhere, and at which share of tokens.
    """
    if not 1 <= lengths[0] <= lengths[1] or n_tokens < 1:
        raise ConfigError(
            f"no stream of {n_tokens} tokens has events of {lengths[0]} to {lengths[1]}",
            where="event_stream",
            mend="give lengths in order, of at least 1",
        )
    starts = [0]
    while starts[-1] < n_tokens:
        starts.append(starts[-1] + int(rng.integers(lengths[0], lengths[1] + 1)))
    boundaries = np.array(starts[:-1])
    means = rng.standard_normal((len(boundaries), dim))
    means *= dim**0.5 / np.linalg.norm(means, axis=1, keepdims=True)
    event = np.searchsorted(boundaries, np.arange(n_tokens), side="right") - 1
    keys = means[event] + noise * rng.standard_normal((n_tokens, dim))
    surprise = rng.normal(1.0, 0.5, n_tokens)
    shift = rng.integers(-jitter, jitter + 1, len(boundaries) - 1)
    np.add.at(surprise, np.clip(boundaries[1:] + shift, 0, n_tokens - 1), peak)
    surprise += false_peak * (rng.random(n_tokens) < false_rate)
    return EventStream(surprise, keys, boundaries)


# -- tokens --------------------------------------------------------------------------------

ASK = 0
N_KEYS = N_VALUES = 16
N_THEMES, THEME = 8, 8
N_TOKENS = 1 + N_KEYS + N_VALUES + N_THEMES * THEME


@dataclass(frozen=True)
class ThemedStream:
    """Tokens of themed events, some of which state a fact.

    Parameters
    ----------
    tokens : ndarray of int64, shape (token,)
    boundaries : ndarray of int64, shape (event,)
        First token of each event.
    asked : ndarray of int64, shape (question,)
        Places of answers to questions within the stream.
    facts : dict of int to int
        Key tokens and their value tokens.
    places : dict of int to int
        Key tokens and where they were stated.
    """

    tokens: np.ndarray
    boundaries: np.ndarray
    asked: np.ndarray
    facts: dict[int, int]
    places: dict[int, int]


def themed_stream(
    rng: np.random.Generator,
    n_tokens: int,
    *,
    lengths: tuple[int, int] = (8, 16),
    facts: float = 0.5,
    questions: float = 0.0,
    n_facts: int = N_KEYS,
) -> ThemedStream:
    """Events that walk along the cycle of one theme, with facts and questions strewn in.

    The vocabulary is a question mark, `N_KEYS` keys, `N_VALUES` values and `N_THEMES` themes of
    `THEME` tokens. An event starts anywhere on the cycle of a theme that is not the last one's and
    goes along it, so that only its first token is hard to predict. A fact is ``key value`` inside
    an event; a question is ``? key value`` at the start of one, about a key stated before.

    Parameters
    ----------
    rng : Generator
    n_tokens : int
        The stream is cut there.
    lengths : (int, int)
        Shortest and longest event, without facts and questions.
    facts, questions : float
        Probability that an event has one.
    n_facts : int
        Facts at most; each has a key of its own and a value drawn anew.
    """
    keys = 1 + rng.permutation(N_KEYS)[:n_facts]
    values = 1 + N_KEYS + rng.integers(0, N_VALUES, n_facts)
    stream: list[int] = []
    starts, asked = [], []
    known: dict[int, int] = {}
    places: dict[int, int] = {}
    theme = -1
    while len(stream) < n_tokens:
        theme = int(rng.choice([t for t in range(N_THEMES) if t != theme]))
        phase, length = int(rng.integers(THEME)), int(rng.integers(lengths[0], lengths[1] + 1))
        walk = 1 + N_KEYS + N_VALUES + THEME * theme + (phase + np.arange(length)) % THEME
        event = [int(t) for t in walk]
        starts.append(len(stream))
        if known and rng.random() < questions:
            key = int(rng.choice(list(known)))
            asked.append(len(stream) + 2)
            stream += [ASK, key, known[key]]
        if len(known) < n_facts and rng.random() < facts:
            key, value = int(keys[len(known)]), int(values[len(known)])
            at = int(rng.integers(2, length - 1))
            event[at:at] = [key, value]
            known[key], places[key] = value, len(stream) + at
        stream += event
    return ThemedStream(
        np.array(stream[:n_tokens]),
        np.array([s for s in starts if s < n_tokens]),
        np.array([a for a in asked if a < n_tokens], dtype=np.int64),
        {k: v for k, v in known.items() if places[k] + 1 < n_tokens},
        {k: p for k, p in places.items() if p + 1 < n_tokens},
    )
