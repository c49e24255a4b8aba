"""Questions about order in streams of tokens, for miniatures that learn them in place.

A stream shows ten different tokens (the excerpt), then asks eight times ``a b ASK -> which came
first?``, to be answered with a or b. With one question a stream, nothing is learned for a long
time; dense questions are what makes the task learnable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engramma.errors import ConfigError

ASK = 0
#: Tokens of excerpts, from and up to.
WORDS = (1, 41)
N_TOKENS = WORDS[1]


@dataclass(frozen=True)
class OrderStreams:
    """Streams with questions.

    Parameters
    ----------
    tokens : Tensor of int64, shape (stream, token)
        Excerpt, then ``a b ASK answer`` for each question.
    places : Tensor of int64, shape (question,)
        Of the answers.
    distance : Tensor of int64, shape (stream, question)
        How far apart a and b are in the excerpt.
    """

    tokens: Tensor
    places: Tensor
    distance: Tensor

    def weights(self) -> Tensor:
        """Let the answers count, and nothing else."""
        found = torch.zeros(self.tokens.shape)
        found[:, self.places] = 1.0
        return found


def order_streams(
    rng: np.random.Generator,
    n: int,
    *,
    words: int = 10,
    questions: int = 8,
    excerpts: np.ndarray | None = None,
    hide: bool = False,
) -> OrderStreams:
    """Draw streams.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
    words, questions : int
        In each stream.
    excerpts : ndarray of int64, shape (n, words), optional
        Drawn anew unless given.
    hide : bool
        Whether the excerpt that is shown is another one: nothing to look up.

    Raises
    ------
    ConfigError
        If there are too few tokens for the excerpts.
    """
    if not 2 <= words <= (WORDS[1] - WORDS[0]) // 2:
        raise ConfigError(
            f"excerpts of {words} different tokens cannot be drawn", where="order_streams",
            mend=f"use 2 to {(WORDS[1] - WORDS[0]) // 2}",
        )  # fmt: skip
    drawn = rng.permuted(np.tile(np.arange(*WORDS), (n, 1)), axis=1)
    told = drawn[:, :words] if excerpts is None else excerpts
    shown = drawn[:, words : 2 * words] if hide else told
    pairs = rng.permuted(np.tile(np.arange(words), (n, questions, 1)), axis=2)[:, :, :2]
    asked = np.take_along_axis(told[:, None], pairs, axis=2)
    answer = np.take_along_axis(told[:, None], pairs.min(axis=2, keepdims=True), axis=2)
    rows = np.concatenate([asked, np.full_like(answer, ASK), answer], axis=2)
    tokens = np.concatenate([shown, rows.reshape(n, -1)], axis=1)
    places = words + 3 + 4 * np.arange(questions)
    return OrderStreams(
        torch.from_numpy(tokens),
        torch.from_numpy(places),
        torch.from_numpy(np.abs(pairs[..., 0] - pairs[..., 1])),
    )
