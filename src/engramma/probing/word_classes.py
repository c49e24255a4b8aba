"""Nouns and adjectives whose class can be told from a pattern around them, or from themselves.

After the toy task of Anand, Lepori, Merullo & Pavlick 2025 (arXiv:2406.00053).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engramma.errors import ConfigError, DataError
from engramma.probing.priors import zipf

#: The signs, numbered after the words: two patterns, the blank, and the question mark.
SIGNS = 4


@dataclass(frozen=True)
class PatternWorld:
    """Words with their frequencies as noun and as adjective, and sequences about them.

    Parameters
    ----------
    counts : ndarray, shape (word, 2)
        How often each is a noun, and an adjective; the most frequent words first.

    Raises
    ------
    DataError
        If there is no noun, no adjective, or a word that is neither.
    """

    counts: np.ndarray

    def __post_init__(self) -> None:
        c = self.counts
        if c.ndim != 2 or c.shape[1] != 2 or (c < 0).any() or not c.sum(0).all():
            raise DataError(
                f"counts of shape {c.shape} give no nouns and adjectives",
                where="PatternWorld",
                mend="give word x 2, not negative, with some nouns and some adjectives",
            )
        if not c.sum(1).all():
            raise DataError("a word is neither noun nor adjective", where="PatternWorld")

    @property
    def words(self) -> int:
        """Number of words."""
        return len(self.counts)

    @property
    def own(self) -> np.ndarray:
        """Class of each word by itself: 0 noun, 1 adjective."""
        return self.counts.argmax(axis=1)

    @property
    def ambiguous(self) -> np.ndarray:
        """Whether a word is used in both classes."""
        return np.asarray((self.counts > 0).all(axis=1))

    def sequences(
        self, nouns: np.ndarray, adjectives: np.ndarray, *, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Put pairs (n,) into sequences with random patterns and queries.

        Returns
        -------
        tokens : Tensor of int64, shape (n, 5)
        targets : Tensor of int64, shape (n,)
            Class of the query by the context.
        """
        n, v = len(nouns), self.words
        pattern, asked = rng.integers(0, 2, (2, n))
        pair = np.stack([nouns, adjectives], axis=1)
        rows = np.arange(n)
        shown = np.where(pattern[:, None] == 0, pair, pair[:, ::-1])
        sign = np.full(n, v + 3)
        tokens = np.column_stack([v + pattern, shown, sign, pair[rows, asked]])
        return torch.from_numpy(tokens), torch.from_numpy(asked)

    def blanked(self, words: np.ndarray) -> tuple[Tensor, Tensor]:
        """Ask for words (n,) without context; targets are their own classes."""
        n, v = len(words), self.words
        tokens = np.column_stack([np.full((n, 3), v + 2), np.full(n, v + 3), words])
        return torch.from_numpy(tokens), torch.from_numpy(self.own[words])

    def sample(
        self, n: int, *, rng: np.random.Generator, blanked: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Draw n sequences by frequency, a share of them without context."""
        chances = self.counts / self.counts.sum(axis=0)
        nouns, adjectives = (rng.choice(self.words, n, p=p) for p in chances.T)
        tokens, targets = self.sequences(nouns, adjectives, rng=rng)
        without = torch.from_numpy(rng.random(n) < blanked)
        bare, own = self.blanked(tokens[:, 4].numpy())
        return torch.where(without[:, None], bare, tokens), torch.where(without, own, targets)


def zipf_world(
    words: int = 1000, *, exponent: float = 1.0, ambiguous: float = 0.1, seed: int = 0
) -> PatternWorld:
    """Words whose frequencies follow Zipf's law, nouns and adjectives in turn.

    Parameters
    ----------
    words : int
    exponent : float
        0 makes all words equally frequent.
    ambiguous : float
        Share of words that are used in both classes.
    seed : int
        Of which words those are.

    Raises
    ------
    ConfigError
        If there are fewer than four words, or the share is no share.
    """
    if words < 4 or not 0 <= ambiguous <= 1:
        raise ConfigError(
            f"no world has {words} words, {ambiguous} of them ambiguous",
            where="zipf_world",
            mend="use four words or more, and a share between 0 and 1",
        )
    both = np.random.default_rng([seed, 0]).random(words) < ambiguous
    own = np.arange(words) % 2
    used = np.stack([(own == 0) | both, (own == 1) | both], axis=1)
    counts = zipf(words, exponent)[:, None] * used
    # The class that comes first in ties is the noun; an ambiguous adjective keeps its own.
    counts[both & (own == 1), 1] *= 1 + 1e-9
    return PatternWorld(counts)


def conllu_world(path: str | Path) -> PatternWorld:
    """Nouns and adjectives of a treebank with their frequencies.

    Parameters
    ----------
    path : path
        A CoNLL-U file: ten columns split by tabs, of which the second (form) and the fourth
        (universal part of speech) are used.

    Raises
    ------
    DataError
        With the line that has no ten columns, or if there is no noun or no adjective.
    """
    found: Counter[tuple[str, int]] = Counter()
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        columns = line.split("\t")
        if len(columns) != 10:
            raise DataError(
                f"a token has {len(columns)} columns and not 10",
                where=f"{path}, line {number}",
                mend="give a CoNLL-U file, with columns split by tabs",
            )
        if columns[3] in ("NOUN", "ADJ") and columns[0].isdigit():
            found[columns[1].lower(), int(columns[3] == "ADJ")] += 1
    words = Counter({w: 0 for w, _ in found})
    for (word, _), count in found.items():
        words[word] += count
    counts = [[found[word, 0], found[word, 1]] for word, _ in words.most_common()]
    return PatternWorld(np.array(counts, dtype=float).reshape(-1, 2))
