"""Surprisal of words, summed over their tokens, and of lists that are read twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from engramma.errors import ConfigError, DataError
from engramma.probing.model import LanguageModel

#: Characters from and up to.
Span = tuple[int, int]


class Surprising(Protocol):
    """What has a surprisal for each token: a transformer or a recurrent network."""

    name: str
    context: int

    def surprisal(self, tokens: Tensor) -> Tensor:
        """Nats of each token (sequence x token), NaN for the first."""
        ...


@dataclass(frozen=True)
class ListSurprisal:
    """Surprisal of the nouns of both lists.

    Parameters
    ----------
    first, second : ndarray, shape (stimulus, noun)
        Nats.
    pool : ndarray of int, shape (stimulus,)
    """

    first: np.ndarray
    second: np.ndarray
    pool: np.ndarray

    def percent(self, skip_first: bool = False) -> np.ndarray:
        """Repeat surprisal of each stimulus, per cent.

        Parameters
        ----------
        skip_first : bool
            Whether to leave out the first noun of both lists.
        """
        start = int(skip_first)
        one, two = (np.nanmean(x[:, start:], axis=1) for x in (self.first, self.second))
        return np.asarray(100 * two / one)

    def by_position(self) -> np.ndarray:
        """Repeat surprisal of each place in the list, per cent: mean over mean."""
        return np.asarray(100 * np.nanmean(self.second, axis=0) / np.nanmean(self.first, axis=0))


def tokens_of_spans(model: LanguageModel, text: str, spans: Sequence[Span]) -> list[np.ndarray]:
    """Positions of the tokens that overlap each span.

    A token with the space before a word, or with a comma behind it, belongs to the word.

    Raises
    ------
    ConfigError
        If the tokenizer cannot tell where its tokens are.
    DataError
        If a span has no token.
    """
    if not getattr(model.tokenizer, "is_fast", False):
        raise ConfigError(
            f"{model.name} has no tokenizer that tells where its tokens are in a text",
            where="word surprisal",
            mend="use a model folder with a tokenizer.json",
        )
    offsets = np.array(model.tokenizer(text, return_offsets_mapping=True)["offset_mapping"])
    found = [np.flatnonzero((offsets[:, 0] < b) & (offsets[:, 1] > a)) for a, b in spans]
    for (a, b), places in zip(spans, found, strict=True):
        if not len(places):
            raise DataError("a word has no token", where=repr(text[a:b]))
    return found


def word_surprisal(
    model: LanguageModel, texts: Sequence[str], spans: Sequence[Sequence[Span]], rows: int = 16
) -> list[np.ndarray]:
    """Sum of the surprisal of each span's tokens, nats: minus the log probability of the word.

    NaN where a word begins the text and nothing precedes it.

    Parameters
    ----------
    model : LanguageModel
    texts : sequence of str
    spans : sequence of sequence of (int, int)
        Words of each text.
    rows : int
        Texts at a time.

    Raises
    ------
    DataError
        If a text is longer than the model takes (nothing is cut off).
    """
    found = []
    for start in range(0, len(texts), rows):
        part = texts[start : start + rows]
        values = model.surprisal(model.encode(part)[0]).numpy()
        for text, where, row in zip(part, spans[start : start + rows], values, strict=True):
            words = tokens_of_spans(model, text, where)
            found.append(np.array([row[places].sum() for places in words]))
    return found
