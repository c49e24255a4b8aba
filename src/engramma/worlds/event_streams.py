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


# -- events that follow different rules ------------------------------------------------------


@dataclass(frozen=True)
class RuleStreams:
    """Streams of events, within each of which one rule says what follows what.

    Parameters
    ----------
    tokens : ndarray of int64, shape (stream, token)
    boundaries : ndarray of bool, shape (stream, token)
        Whether an event begins with this token.
    rules : ndarray of int64, shape (rule, token)
        The successor of each token under each rule.
    slips : float
        Share of tokens that follow no rule.
    mean_length : float
        Of an event, in tokens.
    """

    tokens: np.ndarray
    boundaries: np.ndarray
    rules: np.ndarray
    slips: float
    mean_length: float


def rule_streams(
    rng: np.random.Generator,
    batch: int,
    n_tokens: int,
    rules: np.ndarray,
    *,
    lengths: tuple[int, int] = (8, 24),
    slips: float = 0.05,
) -> RuleStreams:
    """Make streams whose events share their tokens and differ in which one follows which.

    What follows a token is known only to who has found out, from the tokens before, which rule is
    in force; so the first token of an event surprises, and the tokens alone give nothing away.

    Parameters
    ----------
    rng : Generator
    batch, n_tokens : int
    rules : ndarray of int, shape (rule, vocabulary)
        From `draw_rules`.
    lengths : (int, int)
        Shortest and longest event.
    slips : float
        Share of tokens drawn at random: surprises that are no boundaries.
    """
    n_rules, vocabulary = rules.shape
    tokens = np.empty((batch, n_tokens), dtype=np.int64)
    boundaries = np.zeros((batch, n_tokens), dtype=bool)
    token = rng.integers(vocabulary, size=batch)
    rule = rng.integers(n_rules, size=batch)
    left = rng.integers(lengths[0], lengths[1] + 1, size=batch)
    for t in range(n_tokens):
        new = left == 0
        if new.any():
            # Never the same rule again: that would be no new event.
            other = (rule + rng.integers(1, n_rules, size=batch)) % n_rules
            rule = np.where(new, other, rule)
            left = np.where(new, rng.integers(lengths[0], lengths[1] + 1, size=batch), left)
        slipped = rng.random(batch) < slips
        follows = np.where(slipped, rng.integers(vocabulary, size=batch), rules[rule, token])
        token = tokens[:, t] = follows if t else token
        boundaries[:, t] = new
        left -= 1
    return RuleStreams(tokens, boundaries, rules, slips, float(np.mean(lengths)))


def draw_rules(rng: np.random.Generator, n_rules: int = 4, vocabulary: int = 12) -> np.ndarray:
    """Draw permutations, rule x vocabulary."""
    return np.stack([rng.permutation(vocabulary) for _ in range(n_rules)])


def ideal_surprise(streams: RuleStreams) -> np.ndarray:
    """Surprise of an observer who knows the rules, and infers which one is in force.

    A forward filter over rules, with the mean rate at which events end.

    Returns
    -------
    ndarray, shape (stream, token)
        In nats; NaN at the first token.
    """
    n_rules, vocabulary = streams.rules.shape
    tokens, change = streams.tokens, 1 / streams.mean_length
    belief = np.full((len(tokens), n_rules), 1 / n_rules)
    surprise = np.full(tokens.shape, np.nan)
    for t in range(1, tokens.shape[1]):
        belief = (1 - change) * belief + change * (1 - belief) / (n_rules - 1)
        right = tokens[:, t, None] == streams.rules[:, tokens[:, t - 1]].T
        joint = belief * ((1 - streams.slips) * right + streams.slips / vocabulary)
        total = joint.sum(1, keepdims=True)
        surprise[:, t] = -np.log(total[:, 0])
        belief = joint / total
    return surprise
