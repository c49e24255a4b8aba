"""Prompts that ask for the order of two segments; the wordings are ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from engramma.errors import ConfigError
from engramma.probing.model import LanguageModel
from engramma.probing.order_questions import OrderItem

Context = Literal["excerpt", "none"]
Task = Literal["first", "last"]


@dataclass(frozen=True)
class OrderPrompt:
    """Texts of a prompt, with ``{title}``, ``{excerpt}``, ``{segments}`` and ``{task}``.

    Parameters
    ----------
    system : str
        What the model is told to be; may be empty.
    before, after : str
        What comes with the excerpt, and behind it.
    answer : str
        Beginning of the answer.
    """

    system: str
    before: str
    after: str
    answer: str = "Answer: Segment"

    def fill(
        self, model: LanguageModel, item: OrderItem, task: Task, context: Context = "excerpt"
    ) -> str:
        """Text of a question, in the model's template for conversations if it has one.

        Raises
        ------
        ConfigError
            If there is no such context.
        """
        if context not in ("excerpt", "none"):
            raise ConfigError(f"there is no context {context!r}", mend="say excerpt or none")
        names = {
            "title": item.title,
            "excerpt": item.excerpt,
            "segments": f"Segment A: {item.segment_a}\n\nSegment B: {item.segment_b}",
            "task": task,
        }
        before = self.before.format(**names) if context == "excerpt" else ""
        asked = before + self.after.format(**names)
        if not _chats(model):
            return f"{self.system}\n\n{asked}\n{self.answer}".lstrip()
        messages = [{"role": "user", "content": asked}]
        if self.system:
            messages.insert(0, {"role": "system", "content": self.system})
        chat = model.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return f"{chat}{self.answer}"

    def labels(self, model: LanguageModel) -> tuple[int, int]:
        """Tokens of A and B behind the beginning of the answer.

        Raises
        ------
        ConfigError
            If one is no single token there.
        """
        stem = model.token_ids(self.answer, special=False)
        found = []
        for label in ("A", "B"):
            whole = model.token_ids(f"{self.answer} {label}", special=False)
            if whole[: len(stem)] != stem or len(whole) != len(stem) + 1:
                raise ConfigError(
                    f"{label!r} is no single token behind {self.answer!r}",
                    where=model.name,
                    mend="use a prompt whose answer begins otherwise",
                )
            found.append(whole[-1])
        return found[0], found[1]


def encode_prompts(model: LanguageModel, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Tokens of prompts, and where each ends; a template has the special tokens in it."""
    return model.encode(texts, special=not _chats(model))


def _chats(model: LanguageModel) -> bool:
    """Whether the tokenizer has a template for conversations."""
    return bool(getattr(model.tokenizer, "chat_template", None))


PROMPTS = (
    OrderPrompt(
        "You are a careful reader and answer briefly.",
        "Read this passage from {title}.\n\n{excerpt}\n\n",
        "Here are two segments of {title}.\n\n{segments}\n\nWhich of the two segments came {task} "
        "in the text, Segment A or Segment B?",
    ),
    OrderPrompt(
        "You remember texts in the order in which you read them.",
        "Passage:\n{excerpt}\n\n",
        "{segments}\n\nQuestion: Which segment comes {task} in {title}? Say A or B.",
    ),
    OrderPrompt(
        "You are a helpful assistant.",
        "The following is a part of {title}:\n\n{excerpt}\n\n",
        "Two pieces of it are given in random order.\n\n{segments}\n\nThe piece that is told "
        "{task} is Segment A or Segment B?",
    ),
    OrderPrompt(
        "",
        "{excerpt}\n\n",
        "{segments}\n\nOf these two, the one that appears {task} is Segment A or Segment B.",
    ),
)
