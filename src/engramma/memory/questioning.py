"""What a language model with a memory is asked: how likely an answer is, or what it says."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engramma.errors import ConfigError, DataError

#: A text, or its tokens.
Text = str | Sequence[int] | np.ndarray | Tensor


class Questioned:
    """Base of memories around a language model; a subclass says how tokens are read."""

    @property
    def model(self) -> Any:
        """The language model."""
        raise NotImplementedError

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer, or None."""
        raise NotImplementedError

    @property
    def following(self) -> Tensor | None:
        """Log-probabilities of the next token."""
        raise NotImplementedError

    def _read(self, tokens: Tensor, source: str = "", last_alone: bool = False) -> None:
        """Read any number of tokens."""
        raise NotImplementedError

    def _read_block(self, tokens: Tensor, source: str = "") -> None:
        """Read a few tokens."""
        raise NotImplementedError

    def _aside(self) -> AbstractContextManager[None]:
        """Forget afterwards what is read inside the ``with`` block."""
        raise NotImplementedError

    def tokens_of(self, text: Text) -> Tensor:
        """Tokens of a text, of which there must be one at least, and of one sequence only."""
        if isinstance(text, str):
            if self.tokenizer is None:
                raise ConfigError(
                    "the model has no tokenizer", where="text", mend="give tokens, or a tokenizer"
                )
            text = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens = torch.as_tensor(text)
        if tokens.ndim == 2 and len(tokens) == 1:
            tokens = tokens[0]
        if tokens.ndim == 2:
            raise DataError(
                f"there are {len(tokens)} sequences, and a memory is of one",
                where="text",
                mend="make one memory for each: memory.like()",
            )
        if tokens.ndim != 1 or not tokens.numel():
            raise DataError(
                f"there is no text in an array of shape {tuple(tokens.shape)}",
                where="text",
                mend="give a string or a sequence of at least one token",
            )
        return tokens.to(self.model.device)

    def score(self, prompt: Text, candidates: Sequence[Text]) -> np.ndarray:
        """Log-probability of each candidate after a prompt; nothing is kept of either.

        Raises
        ------
        DataError
            If there are no candidates.
        """
        if not len(candidates):
            raise DataError("there is no candidate to score", where="score", mend="give some")
        scores = []
        with self._aside():
            self._read(self.tokens_of(prompt), last_alone=True)
            for candidate in candidates:
                with self._aside():
                    scores.append(self._log_probability(self.tokens_of(candidate)))
        return np.array(scores)

    def _log_probability(self, tokens: Tensor) -> float:
        """Of tokens that follow what was read; all but the last are read, one by one."""
        total = 0.0
        for n, token in enumerate(tokens):
            if n:
                self._read_block(tokens[n - 1 : n])
            assert self.following is not None
            total += float(self.following[token])
        return total

    def answer(
        self, question: Text, choices: Sequence[Text] | None = None, max_new_tokens: int = 16
    ) -> Any:
        """Return the choice with the largest probability a token, or what the model generates."""
        if choices is None:
            return self.generate(question, max_new_tokens)
        lengths = [len(self.tokens_of(choice)) for choice in choices]
        return choices[int(np.argmax(self.score(question, choices) / lengths))]

    def generate(self, prompt: Text, max_new_tokens: int = 16) -> Any:
        """Continue a prompt by the most probable tokens; nothing is kept of it.

        Returns
        -------
        str, or list of int where the prompt was given as tokens
        """
        stop = self.model.config.eos_token_id
        stops = set(stop if isinstance(stop, list) else [stop])
        said: list[int] = []
        with self._aside():
            self._read(self.tokens_of(prompt), last_alone=True)
            while len(said) < max_new_tokens:
                assert self.following is not None
                token = int(self.following.argmax())
                if token in stops:
                    break
                said.append(token)
                if len(said) < max_new_tokens:
                    self._read_block(torch.tensor([token], device=self.model.device))
        return self.tokenizer.decode(said) if isinstance(prompt, str) else said
