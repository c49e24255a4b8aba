"""One call of a language model as a value, for caches, transcripts and pools of threads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engramma.agents.model import Completion, Message, TextModel
from engramma.errors import DataError

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Request:
    """Messages and settings, as in `engramma.agents.model.TextModel.complete`.

    Parameters
    ----------
    messages : sequence of Message
    temperature : float
    max_tokens : int
    stop : sequence of str
    seed : int, optional

    Raises
    ------
    DataError
        If there is no message, or one has no known role or no text.
    """

    messages: Sequence[Message]
    temperature: float = 0.0
    max_tokens: int = 512
    stop: Sequence[str] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        check_messages(self.messages)

    def ask(self, model: TextModel) -> Completion:
        """Have ``model`` answer."""
        return model.complete(
            self.messages,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            stop=self.stop,
            seed=self.seed,
        )

    def as_json(self) -> dict[str, Any]:
        """Messages and settings as plain lists, texts and numbers."""
        return {
            "messages": [{"role": m["role"], "content": m["content"]} for m in self.messages],
            "temperature": float(self.temperature),
            "max_tokens": self.max_tokens,
            "stop": list(self.stop),
            "seed": self.seed,
        }

    def key(self, model: str) -> str:
        """Hash of the name of a model, the messages and the settings."""
        return digest({"model": model, **self.as_json()})

    @property
    def prompt_bytes(self) -> int:
        """Bytes of all messages: no tokenizer that works on bytes makes more tokens of them."""
        return sum(len(m["content"].encode()) for m in self.messages)


def check_messages(messages: Sequence[Message]) -> None:
    """Refuse what is no conversation.

    Raises
    ------
    DataError
        If there is no message, or one has no known role or no text.
    """
    if isinstance(messages, str | Mapping) or not messages:
        raise DataError(
            "there is no message to answer",
            where="messages",
            mend='give a list such as [{"role": "user", "content": "..."}]',
        )
    for index, message in enumerate(messages):
        is_message = isinstance(message, Mapping) and isinstance(message.get("content"), str)
        if not is_message or message.get("role") not in ROLES:
            raise DataError(
                "a message is a role and a text",
                where=f"message {index}",
                mend=f'give {{"role": ..., "content": text}} with a role of {", ".join(ROLES)}',
            )


def digest(value: Any) -> str:
    """Hash of something that JSON can hold."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()
