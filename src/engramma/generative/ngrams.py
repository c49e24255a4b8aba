r"""Interpolated n-gram models: what a language model has to beat.

The probability of a token is a mixture of those that follow zero, one, ... tokens of context,
:math:`p(w|h)=\lambda_0/V+\sum_k\lambda_k\,c(h_{k-1}w)/c(h_{k-1})` (Jelinek & Mercer 1980), with
weights fitted by expectation maximisation on tokens that were not counted. Where a context was
never seen its weight goes to the shorter ones, in proportion.
"""

from __future__ import annotations

import numpy as np

from engramma.errors import ConfigError, DataError

_STEPS = 30


class NGramModel:
    """Interpolated n-grams of a token sequence.

    Parameters
    ----------
    order : int
        Tokens of the longest n-gram: 1 is a unigram model.
    n_vocabulary : int
        Tokens are 0 ... n_vocabulary - 1.

    Raises
    ------
    ConfigError
        If the n-grams cannot be numbered in 64 bits.
    """

    def __init__(self, order: int, n_vocabulary: int) -> None:
        if order < 1 or n_vocabulary < 1 or order * np.log2(n_vocabulary) >= 63:
            raise ConfigError(f"n-grams of {order} of {n_vocabulary} tokens cannot be counted",
                              where="order", mend="lower the order")  # fmt: skip
        self.order, self.n_vocabulary = order, n_vocabulary
        self.weights = np.full(order + 1, 1 / (order + 1))

    def fit(self, tokens: np.ndarray, held_out: np.ndarray) -> NGramModel:
        """Count n-grams in ``tokens``, and fit the mixture on ``held_out``.

        Raises
        ------
        DataError
            If one of them is shorter than an n-gram, or holds other tokens.
        """
        tokens, held_out = self._checked(tokens), self._checked(held_out)
        self._counts = [
            np.unique(self._codes(tokens, n), return_counts=True) for n in range(1, self.order + 1)
        ]
        # How often each context occurs with a token after it.
        self._contexts = [
            np.unique(self._codes(tokens, n + 1) // self.n_vocabulary, return_counts=True)
            for n in range(1, self.order)
        ]
        self._n_tokens = len(tokens)
        parts, seen = self._parts(held_out)
        for _ in range(_STEPS):
            share = self._mixed(parts, seen)
            self.weights = share.mean(axis=0)
        return self

    def bits(self, tokens: np.ndarray) -> np.ndarray:
        """Surprisal of each token but the first ``order - 1``, shape (tokens - order + 1,)."""
        parts, seen = self._parts(self._checked(tokens))
        weights = np.where(seen, self.weights, 0)
        weights /= weights.sum(axis=1, keepdims=True)
        surprisal: np.ndarray = -np.log2((weights * parts).sum(axis=1))
        return surprisal

    def perplexity(self, tokens: np.ndarray) -> float:
        """Two to the mean surprisal."""
        return float(2 ** self.bits(tokens).mean())

    def _checked(self, tokens: np.ndarray) -> np.ndarray:
        tokens = np.asarray(tokens, dtype=np.int64)
        if tokens.ndim != 1 or len(tokens) <= self.order:
            raise DataError(f"tokens of shape {tokens.shape} hold no n-grams of {self.order}",
                            mend="give one longer sequence")  # fmt: skip
        if tokens.min() < 0 or tokens.max() >= self.n_vocabulary:
            raise DataError(f"tokens run from {tokens.min()} to {tokens.max()}",
                            where="tokens", mend="raise n_vocabulary")  # fmt: skip
        return tokens

    def _codes(self, tokens: np.ndarray, n: int) -> np.ndarray:
        """Give the number of the n-gram that ends at each place from n - 1 on."""
        code = np.zeros(len(tokens) - n + 1, dtype=np.int64)
        for i in range(n):
            code = code * self.n_vocabulary + tokens[i : len(tokens) - n + 1 + i]
        return code

    def _parts(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probability of each token by each order, and whether its context was seen."""
        n_places = len(tokens) - self.order + 1
        parts = np.zeros((n_places, self.order + 1))
        seen = np.ones((n_places, self.order + 1), dtype=bool)
        parts[:, 0] = 1 / self.n_vocabulary
        for n in range(1, self.order + 1):
            codes = self._codes(tokens, n)[-n_places:]
            together = _look_up(codes, *self._counts[n - 1])
            if n == 1:
                parts[:, 1] = together / self._n_tokens
            else:
                before = _look_up(codes // self.n_vocabulary, *self._contexts[n - 2])
                parts[:, n] = together / np.maximum(before, 1)
                seen[:, n] = before > 0
        return parts, seen

    def _mixed(self, parts: np.ndarray, seen: np.ndarray) -> np.ndarray:
        share = np.where(seen, self.weights, 0) * parts
        share = np.maximum(share, 1e-300)
        mixed: np.ndarray = share / share.sum(axis=1, keepdims=True)
        return mixed


def _look_up(codes: np.ndarray, keys: np.ndarray, counts: np.ndarray) -> np.ndarray:
    place = np.minimum(np.searchsorted(keys, codes), len(keys) - 1)
    return np.where(keys[place] == codes, counts[place], 0)
