"""Which of two pieces of a story came first: sequence order recall.

The task of SORT (Pink et al. 2024, arXiv:2410.08133). Sentences that open a scene are no part of a
segment, since they may tell the date, and no segment begins with a pronoun.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from engramma.errors import ConfigError, DataError
from engramma.worlds.story_author import Story

_TRIES = 60


@dataclass(frozen=True)
class SegmentPair:
    """Two pieces of a story, of which one came first.

    Parameters
    ----------
    a, b : str
        As they are presented.
    a_first : bool
        The answer.
    starts : tuple of int
        First sentences of ``a`` and ``b``.
    distance : int
        Between them, in sentences.
    """

    a: str
    b: str
    a_first: bool
    starts: tuple[int, int]
    distance: int


def segment_pairs(
    story: Story,
    n: int,
    *,
    rng: np.random.Generator,
    length: int = 2,
    distance: tuple[int, int] | None = None,
) -> list[SegmentPair]:
    """Draw pairs of segments of ``length`` sentences whose order is asked for.

    Half of the pairs (exactly, for even ``n``) are shown in their true order. No segment occurs
    twice in the story.

    Parameters
    ----------
    story : Story
    n, length : int
    rng : numpy.random.Generator
    distance : tuple of int, optional
        Least and greatest number of sentences between the starts; at least ``length``.

    Raises
    ------
    DataError
        If the story has no such pairs.
    """
    low, high = distance or (length, len(story.sentences))
    if length < 1 or n < 1 or low < length or high < low:
        raise ConfigError(
            f"segments of {length} sentences cannot lie {low} to {high} apart", where="distance",
            mend="let the least distance be at least the length",
        )  # fmt: skip
    opens = story.sentences["boundary"].to_numpy()
    texts = story.sentences["text"].to_numpy()
    unclear = story.sentences["anaphora"].to_numpy()
    starts = [
        i
        for i in range(len(texts) - length + 1)
        if not unclear[i] and not opens[i : i + length].any()
    ]
    pieces = {i: " ".join(texts[i : i + length]) for i in starts}
    count = pd.Series(list(pieces.values()), dtype=object).value_counts()
    once = np.array([i for i in starts if count[pieces[i]] == 1], dtype=np.int64)
    in_order = rng.permutation(np.arange(n) % 2 == 0)
    pairs: list[SegmentPair] = []
    for _ in range(_TRIES * n):
        if len(pairs) == n or len(once) < 2:
            break
        i = int(rng.choice(once))
        later = once[(once >= i + low) & (once <= i + high)]
        if len(later):
            j = int(rng.choice(later))
            a, b = (i, j) if in_order[len(pairs)] else (j, i)
            pairs.append(SegmentPair(pieces[a], pieces[b], a < b, (a, b), j - i))
    if len(pairs) < n:
        raise DataError(
            f"the story has too few segments of {length} sentences {low} to {high} apart",
            mend="tell a longer story, or ask for shorter segments",
        )
    return pairs
