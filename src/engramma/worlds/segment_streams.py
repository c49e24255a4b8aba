"""Pairs spread over the segments of a text, one of which is asked for at its end.

A memory that reads a text segment by segment has to hand on the pair of an early segment to the
last one, across segments that hold other pairs. The query stands at the end of the first half of
the last segment, so that a summary of that half may hold it, and the answer is the token after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engramma.errors import ConfigError
from engramma.worlds.streams import IGNORED, TokenStream


@dataclass(frozen=True)
class SegmentStream(TokenStream):
    """A `TokenStream` that knows its segments.

    Parameters
    ----------
    segments_back : ndarray of int64, shape (sequence,)
        How many segments before the query's the pair that is asked for stands.
    """

    segments_back: np.ndarray


def segment_pairs(
    rng: np.random.Generator,
    batch: int,
    *,
    segments: int = 8,
    segment: int = 16,
    idle: int = 1,
    topics: int = 1,
    n_keys: int = 16,
    n_values: int = 16,
    n_fillers: int = 8,
) -> SegmentStream:
    """One pair in each segment but the last ones, and a question in the last.

    A segment reads ``filler .. k v .. filler``; the last one ``filler .. ask k``, up to the end of
    its first half, then v and fillers. With ``topics`` a pair reads ``topic k v`` and the question
    ``ask topic k``: blocks of two segments take turns in their topic, and each topic has its own
    value for a key.

    Parameters
    ----------
    rng : Generator
    batch : int
    segments, segment : int
        Number of segments, and tokens in each.
    idle : int
        Segments without a pair before the last one.
    topics : int
    n_keys, n_values, n_fillers : int
        Vocabulary. Keys are distinct within a topic, values are not.

    Returns
    -------
    SegmentStream

    Raises
    ------
    ConfigError
        If there is no segment for a pair, too few keys, or no room.
    """
    n_pairs = segments - 1 - idle
    width = 2 + (topics > 1)
    half = segment // 2
    per_topic = -(-n_pairs // topics) + 1
    if n_pairs < 1 or min(per_topic, n_pairs) > n_keys or half < width:
        raise ConfigError(
            f"{segments} segments of {segment} tokens hold no {n_pairs} pairs of {n_keys} keys",
            where="segment_pairs",
            mend="take longer or more segments, fewer idle ones, or more keys",
        )
    rows = np.arange(batch)
    first_filler = n_keys + n_values
    ask = first_filler + n_fillers
    first_topic = ask + 1
    topic = (np.arange(n_pairs) // 2) % topics
    key = np.zeros((batch, n_pairs), dtype=np.int64)
    for one in range(topics):
        of_topic = np.flatnonzero(topic == one)
        key[:, of_topic] = np.argsort(rng.random((batch, n_keys)), 1)[:, : len(of_topic)]
    value = n_keys + rng.integers(n_values, size=(batch, n_pairs))
    tokens = first_filler + rng.integers(n_fillers, size=(batch, segments, segment))
    place = rng.integers(segment - width + 1, size=(batch, n_pairs))
    at = (rows[:, None], np.arange(n_pairs)[None])
    if topics > 1:
        tokens[(*at, place)] = first_topic + topic
    tokens[(*at, place + width - 2)] = key
    tokens[(*at, place + width - 1)] = value
    asked = rng.integers(n_pairs, size=batch)
    answer = value[rows, asked]
    tokens[:, -1, half - width] = ask
    if topics > 1:
        tokens[:, -1, half - 2] = first_topic + topic[asked]
    tokens[:, -1, half - 1] = key[rows, asked]
    tokens[:, -1, half] = answer
    targets = np.full(tokens.shape, IGNORED)
    distance = np.full(tokens.shape, -1)
    targets[:, -1, half - 1] = answer
    back = segments - 1 - asked
    distance[:, -1, half - 1] = back * segment + half - 1 - (place[rows, asked] + width - 1)
    n_tokens = first_topic + (topics if topics > 1 else 0)
    flat = (batch, segments * segment)
    return SegmentStream(
        tokens.reshape(flat),
        targets.reshape(flat),
        distance.reshape(flat),
        n_tokens,
        (n_keys, first_filler),
        back,
    )
