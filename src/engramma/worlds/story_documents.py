"""What language models of the stories are trained and tried on: documents and completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engramma.errors import ConfigError
from engramma.worlds.story_author import Story
from engramma.worlds.story_questions import Question, ask
from engramma.worlds.story_telling import noun, opened


@dataclass(frozen=True)
class Completion:
    """A text that breaks off where only the story tells how it goes on.

    Parameters
    ----------
    prompt, answer : str
        The story and ``X is in the``; the place where X is.
    choices : tuple of str
        All places of the story.
    question : Question
        The same as a question, with its evidence.
    """

    prompt: str
    answer: str
    choices: tuple[str, ...]
    question: Question


def document(story: Story, questions: Sequence[Question] = ()) -> str:
    """Put questions with their answers after a story, as ``Question: ...? Answer: ... .``."""
    return " ".join([story.text, *(f"Question: {q.text} Answer: {q.answer}." for q in questions)])


def completions(story: Story, n: int, *, rng: np.random.Generator) -> list[Completion]:
    """Break off after ``X is in the``, for people and things whose place was told.

    Parameters
    ----------
    story : Story
    n : int
        There are fewer where fewer places are known.
    rng : numpy.random.Generator

    Raises
    ------
    ConfigError
        If ``n`` is none.
    """
    if n < 1:
        raise ConfigError(f"at least one completion is made, not {n}", where="n")
    made = []
    for question in ask(story, n, rng=rng, kinds=("place",)):
        about = opened(noun(question.query["entity"]))
        prompt = f"{story.text} {about} is in the"
        made.append(Completion(prompt, question.answer, story.places, question))
    return made
