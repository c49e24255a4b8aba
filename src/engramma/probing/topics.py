"""A language of topics for small models: what is said next depends on what is talked about."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class TopicLanguage:
    """Topics with words of their own, whose frequencies fall as Zipf's law says.

    Token ``topic * words + rank`` belongs to that topic alone.

    Parameters
    ----------
    topics, words : int
        Topics, and words of each, the first being the most frequent.
    switch : float
        Probability of a new topic at each word.
    """

    topics: int = 20
    words: int = 12
    switch: float = 0.08

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.topics * self.words

    @cached_property
    def frequencies(self) -> np.ndarray:
        """Probability of each word within its topic."""
        zipf = 1.0 / np.arange(1, self.words + 1)
        return zipf / zipf.sum()

    def texts(self, rng: np.random.Generator, size: int, length: int) -> Tensor:
        """Draw texts, int64 (text, token)."""
        fresh = rng.integers(self.topics, size=(size, length))
        changes = rng.random((size, length)) < self.switch
        changes[:, 0] = True
        since = np.maximum.accumulate(np.where(changes, np.arange(length), 0), axis=1)
        topic = np.take_along_axis(fresh, since, axis=1)
        drawn = rng.random((size, length))
        word = np.searchsorted(self.frequencies.cumsum(), drawn).clip(max=self.words - 1)
        return torch.as_tensor(topic * self.words + word)

    def batch(
        self, rng: np.random.Generator, size: int = 32, length: int = 32
    ) -> tuple[Tensor, Tensor]:
        """Texts, and the weights of the loss: every token counts."""
        tokens = self.texts(rng, size, length)
        return tokens, torch.ones(tokens.shape)

    def coherence(self, tokens: Tensor) -> Tensor:
        """Share of a list of tokens (list, token) that belongs to its most frequent topic."""
        counts = torch.nn.functional.one_hot(tokens // self.words, self.topics).sum(dim=1)
        return counts.amax(dim=1) / tokens.shape[1]
