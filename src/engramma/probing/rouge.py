"""ROUGE: how much of a reference a text has, in words, pairs of words, and their order.

Lin 2004, "ROUGE: a package for automatic evaluation of summaries".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from engramma.errors import DataError


@dataclass(frozen=True)
class Rouge:
    """F1 of single words, of pairs, and of the longest common subsequence; 0 to 1."""

    one: float
    two: float
    longest: float


def rouge(text: Sequence[Hashable], reference: Sequence[Hashable]) -> Rouge:
    """Compare a text with a reference, both lists of words or tokens.

    The cue of a recall must not be a part of either: an empty memory would be paid for it.
    """
    common = longest_common_subsequence(text, reference)
    return Rouge(
        _overlap(text, reference, 1),
        _overlap(text, reference, 2),
        _f1(common, len(text), len(reference)),
    )


def rouge_1_recall(reference: Sequence[Hashable], found: Sequence[Hashable]) -> float:
    """Share of the reference's words that are found, each as often as it is there (Lin 2004).

    Raises
    ------
    DataError
        If the reference is empty.
    """
    if not reference:
        raise DataError("recall of an empty answer is not defined", where="reference")
    shared = Counter(reference) & Counter(found)
    return sum(shared.values()) / len(reference)


def longest_common_subsequence(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Length of the longest sequence that both have, with gaps allowed."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = row
        row = [0]
        for place, y in enumerate(b):
            row.append(before[place] + 1 if x == y else max(before[place + 1], row[place]))
    return row[-1]


def _overlap(a: Sequence[Hashable], b: Sequence[Hashable], n: int) -> float:
    counts = [Counter(zip(*(s[i:] for i in range(n)), strict=False)) for s in (a, b)]
    common = (counts[0] & counts[1]).total()
    return _f1(common, counts[0].total(), counts[1].total())


def _f1(common: int, in_text: int, in_reference: int) -> float:
    return 2 * common / (in_text + in_reference) if common else 0.0
