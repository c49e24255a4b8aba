"""What an orchestration asks of a language model: messages in, text and its cost out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

#: ``{"role": "system" | "user" | "assistant", "content": text}``.
Message = Mapping[str, str]


@dataclass(frozen=True)
class Completion:
    """One answer.

    Parameters
    ----------
    text : str
    prompt_tokens, completion_tokens : int
        What it cost; 0 where the model does not say.
    seconds : float
        How long it took.
    cached : bool
        Whether it was on disk, and cost nothing.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cached: bool = False


@runtime_checkable
class TextModel(Protocol):
    """A language model that answers messages; safe to be called from several threads."""

    name: str

    def complete(
        self,
        messages: Sequence[Message],
        *,
        temperature: float = 0.0,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Completion:
        """Answer the last message.

        Parameters
        ----------
        messages : sequence of Message
        temperature : float
            0 takes the likeliest token each time.
        max_tokens : int
            Most tokens of the answer.
        stop : sequence of str
            Texts at which the answer ends; they are not part of it.
        seed : int, optional
            Of the draws, where the model knows seeds: repeated calls with other seeds are other
            draws, and other entries of a cache.

        Raises
        ------
        engramma.errors.EngrammaError
            If no answer could be had; never an empty answer instead.
        """
        ...
