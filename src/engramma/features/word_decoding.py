"""The likeliest words that scores of symbols stand for, by token passing through a lexicon.

Young, Russell and Thornton ("Token passing", Cambridge technical report 38, 1989): all words are
laid out as chains of states, ends of words lead through a boundary to all beginnings, and the
best path through them is found moment by moment. The chains are those of connectionist temporal
classification: a blank may stand between two symbols, and must where they are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from engramma.errors import ConfigError

_NEVER = np.float32(-1e30)
#: States that all words share: silence before a boundary, the boundary, silence after it.
_BEFORE, _BOUNDARY, _AFTER = range(3)


class WordDecoder:
    """Finds the words of an utterance.

    Parameters
    ----------
    lexicon : mapping of str to sequence of str
        Words and their symbols; of words that sound alike the first is found.
    symbols : sequence of str
        Symbol i has scores in column i + 1; column 0 is the blank.
    boundary : str
        The symbol between words.

    Raises
    ------
    ConfigError
        If the lexicon is empty, or names a symbol that there is not.
    """

    def __init__(
        self, lexicon: Mapping[str, Sequence[str]], symbols: Sequence[str], boundary: str
    ) -> None:
        if not lexicon:
            raise ConfigError("the lexicon is empty", mend="name the words that may be said")
        number = {symbol: i + 1 for i, symbol in enumerate(symbols)}
        columns, self._word = [0, number[boundary], 0], [-1, -1, -1]
        first, last, skips = [], [], [False] * 3
        for row, (word, said) in enumerate(lexicon.items()):
            unknown = [s for s in said if s not in number]
            if unknown or not said:
                raise ConfigError(
                    f"word {word!r} " + (f"has the unknown symbol {unknown[0]!r}" if said else
                                         "has no symbols"),
                    where="lexicon",
                    mend=f"use {', '.join(symbols)}",
                )  # fmt: skip
            first.append(len(columns))
            for place, symbol in enumerate(said):
                if place:  # the blank that may stand in front
                    columns.append(0)
                    skips.append(False)
                columns.append(number[symbol])
                skips.append(place > 0 and symbol != said[place - 1])
            last.append(len(columns) - 1)
            self._word += [row] * (2 * len(said) - 1)
        self.words = list(lexicon)
        self._columns, self._skips = np.asarray(columns), np.asarray(skips)
        self._first, self._last = np.asarray(first), np.asarray(last)

    def __call__(self, scores: np.ndarray) -> list[str]:
        """Return the likeliest words.

        Parameters
        ----------
        scores : ndarray, shape (moments, 1 + symbols)
            Logarithms of probabilities.
        """
        emitted = scores[:, self._columns].astype(np.float32)
        n = emitted.shape[1]
        came = np.zeros((len(emitted), n), dtype=np.int32)
        best = np.full(n, _NEVER)
        started = [_AFTER, *self._first]
        best[started] = emitted[0, started]
        here = np.arange(n)
        for moment in range(1, len(emitted)):
            source, value = here.copy(), best.copy()
            _advance(value, source, best[:-1], here[1:], here[:-1])
            skip = here[self._skips]
            _advance(value, source, best[skip - 2], skip, skip - 2)
            # The state in front of a first one is of another word: only a boundary leads here.
            value[self._first], source[self._first] = best[self._first], self._first
            for shared in (_BOUNDARY, _AFTER):
                _advance(value, source, best[[shared] * len(self._first)], self._first, shared)
            value[:3], source[:3] = best[:3], here[:3]
            ended = int(self._last[best[self._last].argmax()])
            for state, origin in (
                (_BEFORE, ended),
                (_BOUNDARY, ended),
                (_BOUNDARY, _BEFORE),
                (_AFTER, _BOUNDARY),
            ):
                if best[origin] > value[state]:
                    value[state], source[state] = best[origin], origin
            best, came[moment] = value + emitted[moment], source
        return self._trace(best, came)

    def _trace(self, best: np.ndarray, came: np.ndarray) -> list[str]:
        """Go back along the best path that ends after a word."""
        ends = np.append(self._last, _BEFORE)
        state = int(ends[best[ends].argmax()])
        found: list[str] = []
        inside = False
        for sources in came[::-1]:
            row = self._word[state]
            if row >= 0 and not inside:
                found.append(self.words[row])
            inside = row >= 0
            state = int(sources[state])
        return found[::-1]


def _advance(
    value: np.ndarray,
    source: np.ndarray,
    offered: np.ndarray,
    states: np.ndarray,
    origin: np.ndarray | int,
) -> None:
    """Let tokens move on to ``states`` where they are better than what is there."""
    better = offered > value[states]
    value[states] = np.where(better, offered, value[states])
    source[states] = np.where(better, origin, source[states])
