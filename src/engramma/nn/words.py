"""Texts as numbers, for models with a closed vocabulary of whole words."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

PAD, START, END, UNKNOWN = range(4)


class WordTokenizer:
    """Words and commas to numbers and back; 0 .. 3 are padding, start, end and unknown words.

    Parameters
    ----------
    words : sequence of str
        The vocabulary.
    length : int
        Most tokens of a text, start and end included; longer texts are cut.
    """

    def __init__(self, words: Sequence[str], length: int) -> None:
        self.words = list(words)
        self.length = length
        self._code = {w: i + 4 for i, w in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words) + 4

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return token numbers, text x token, padded at the end."""
        rows = []
        for text in texts:
            found = re.findall(r"[a-z']+|,", text.lower())[: self.length - 2]
            rows.append([START, *(self._code.get(w, UNKNOWN) for w in found), END])
        longest = max(map(len, rows), default=2)
        return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])

    def decode(self, tokens: Tensor) -> list[str]:
        """Return the texts that rows of token numbers stand for, up to their end."""
        texts = []
        for row in tokens.tolist():
            words = []
            for token in row:
                if token == END:
                    break
                if token > UNKNOWN:
                    words.append(self.words[token - 4])
            texts.append(" ".join(words).replace(" ,", ","))
        return texts
