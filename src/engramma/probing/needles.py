"""Needles in haystacks: a sentence that fits nowhere, hidden in a long text and asked for.

Texts are put together as tokens, so that all prompts with one needle and one length are equally
long whatever the depth, and can be answered as one batch.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from operator import eq
from pathlib import Path

import numpy as np

from engramma.errors import ConfigError, DataError
from engramma.probing.list_streams import END, list_pairs
from engramma.probing.model import LanguageModel
from engramma.worlds.stories import stories

#: What is asked behind the haystack, and how the answer begins (Wu et al. 2024).
QUESTION = "\nBased on the content of the book, Question: {question}"
ANSWER = "Answer:"
#: Share of a needle's different tokens that a window must hold to be the needle.
OVERLAP = 0.9


@dataclass(frozen=True)
class Needle:
    """A sentence, the question that it answers, and the answer (a part of the sentence)."""

    text: str
    question: str
    answer: str


NEEDLES = (
    Needle(
        "The secret ingredient of the festival soup in Marlow is a spoonful of roasted barley and "
        "two dried plums.",
        "What is the secret ingredient of the festival soup in Marlow?",
        "a spoonful of roasted barley and two dried plums",
    ),
    Needle(
        "The lighthouse keeper of Tern Island plays the violin every Thursday because the seals "
        "come to listen.",
        "Why does the lighthouse keeper of Tern Island play the violin every Thursday?",
        "because the seals come to listen",
    ),
    Needle(
        "The best way to cross the Velden marsh is to follow the white stones and wear wooden "
        "shoes.",
        "What is the best way to cross the Velden marsh?",
        "follow the white stones and wear wooden shoes",
    ),
    Needle(
        "Professor Adler keeps the key of the observatory inside a blue teapot on the third shelf.",
        "Where does Professor Adler keep the key of the observatory?",
        "inside a blue teapot on the third shelf",
    ),
    Needle(
        "The password of the old library in Elmstead is seven green herons under a bridge.",
        "What is the password of the old library in Elmstead?",
        "seven green herons under a bridge",
    ),
    Needle(
        "The clock tower of Brindle was painted orange to scare away the pigeons.",
        "Why was the clock tower of Brindle painted orange?",
        "to scare away the pigeons",
    ),
)


@dataclass(frozen=True)
class NeedlePrompt:
    """A haystack with its needle, and the question behind it.

    Parameters
    ----------
    tokens : tuple of int
    start, stop : int
        Where the needle is.
    answer : tuple
        Words, or for models of token numbers tokens, that the answer should hold.
    depth : float
        From 0 (the needle comes first) to 1 (last), as asked for.
    name : str
        Which needle.
    end : tuple of int
        Tokens that end an answer.
    """

    tokens: tuple[int, ...]
    start: int
    stop: int
    answer: tuple[Hashable, ...]
    depth: float
    name: str = ""
    end: tuple[int, ...] = ()

    @property
    def needle(self) -> tuple[int, ...]:
        """Tokens of the needle."""
        return self.tokens[self.start : self.stop]


def read_needles(path: str | Path) -> list[Needle]:
    """Read needles in the published format: JSON lines of ``needle, question, real_needle``.

    Raises
    ------
    DataError
        If there are none, or a line lacks a field.
    """
    try:
        rows = [json.loads(row) for row in Path(path).read_text("utf-8").splitlines() if row]
        found = [Needle(row["needle"], row["question"], row["real_needle"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"the needles cannot be read ({type(error).__name__}: {error})",
            where=str(path),
            mend='give a JSON object a line: {"needle": ..., "question": ..., "real_needle": ...}',
        ) from error
    if not found:
        raise DataError("there is no needle in this file", where=str(path))
    return found


def read_haystack(path: str | Path) -> str:
    """Text of a file, or of all ``.txt`` files of a folder in the order of their names.

    Raises
    ------
    DataError
        If there is no text.
    """
    path = Path(path)
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    try:
        text = "\n".join(file.read_text("utf-8").strip() for file in files)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the haystack cannot be read ({error})",
            where=str(path),
            mend="give a UTF-8 text file, or a folder of .txt files",
        ) from error
    if not text.strip():
        raise DataError("there is no text in the haystack", where=str(path))
    return text


def story_haystack(seed: int = 0, n_sentences: int = 400) -> str:
    """Return a haystack of simulated everyday life, about nine tokens a sentence."""
    return stories(seed, n_sentences=n_sentences).text


def needle_prompts(
    model: LanguageModel,
    haystack: str,
    needles: Iterable[Needle] = NEEDLES,
    *,
    lengths: Sequence[int] = (256,),
    depths: Sequence[float] = (0.0, 0.33, 0.67, 1.0),
    question: str = QUESTION,
) -> list[NeedlePrompt]:
    """Hide each needle at each depth of haystacks of each length.

    A needle goes to the end of the sentence before the depth (or to the very beginning). Where the
    tokenizer has a template for conversations, haystack and question are what the user says, and
    the answer is begun for the model.

    Parameters
    ----------
    model : LanguageModel
        With a tokenizer.
    haystack : str
    needles : iterable of Needle
    lengths : sequence of int
        Tokens of haystack and needle together, at most: haystacks end with a sentence.
    depths : sequence of float
        Share of the haystack that comes before the needle.
    question : str
        With ``{question}`` in it.

    Raises
    ------
    ConfigError
        If the haystack is too short, or a prompt longer than the model takes.
    DataError
        If a needle is not found again.
    """
    begin, close = _frame(model)
    whole = model.token_ids(haystack, special=False)
    ends = np.array([model.decode([t]).rstrip()[-1:] in set(".!?") for t in whole])
    newline = tuple(
        {t for text in ("\n", "\n\n", ".\n") for t in model.token_ids(text, special=False)[-1:]}
    )
    found = []
    for needle in needles:
        hidden = model.token_ids(f" {needle.text}", special=False)
        asked = model.token_ids(question.format(question=needle.question) + close, special=False)
        for length in lengths:
            room = length - len(hidden)
            _check_room(model, room, len(whole), length + len(begin) + len(asked))
            stops = np.concatenate([[0], np.flatnonzero(ends[:room]) + 1])
            last = int(stops[-1]) or room
            for depth in depths:
                place = int(stops[stops <= depth * last][-1])
                context = [*begin, *whole[:place], *hidden, *whole[place:last]]
                start, stop = find_span(context, hidden)
                found.append(
                    NeedlePrompt(
                        (*context, *asked), start, stop, words(needle.answer), depth,
                        needle.text, newline,
                    )
                )  # fmt: skip
    return found


def stream_needles(
    rng: np.random.Generator, n: int, *, nouns: int = 6, length: int = 64
) -> list[NeedlePrompt]:
    """Hide lists of tokens in filler, and ask for them by their marker; for miniatures.

    Parameters
    ----------
    rng : numpy.random.Generator
    n, nouns : int
    length : int
        Tokens up to the last marker and the room for the answer; all prompts are equally long.
    """
    pairs = list_pairs(rng, n, nouns=nouns, length=length)
    asked = pairs.second[0, 0]
    return [
        NeedlePrompt(
            tuple(row[:asked].tolist()), int(places[0]), int(places[-1]) + 1,
            tuple(row[places].tolist()), places[0] / asked, "list", (END,),
        )
        for row, places in zip(pairs.tokens, pairs.first, strict=True)
    ]  # fmt: skip


def find_span(tokens: Sequence[int], needle: Sequence[int]) -> tuple[int, int]:
    """Where a needle is: the window that shares most of its different tokens.

    Of equals the one with most tokens in their places counts, then the first.

    Raises
    ------
    DataError
        If no window shares more than nine tenths of them.
    """
    wanted, width = set(needle), len(needle)
    windows = [tokens[i : i + width] for i in range(len(tokens) - width + 1)]
    shares = [len(wanted.intersection(w)) / max(len(wanted), 1) for w in windows]
    largest = max(shares, default=0.0)
    if largest <= OVERLAP:
        raise DataError(
            "the needle is not found among the tokens of the prompt",
            where=f"{width} tokens, of which a window holds {largest:.0%} at most",
            mend="use the model's own tokenizer, and put a space before and after the needle",
        )
    best = [i for i, share in enumerate(shares) if share == largest]
    start = max(best, key=lambda i: sum(map(eq, windows[i], needle)))
    return start, start + width


def words(text: str) -> tuple[str, ...]:
    """Words of a text in lower case, without punctuation."""
    stripped = (word.strip(".,;:!?\"'()").lower() for word in text.split())
    return tuple(word for word in stripped if word)


def _frame(model: LanguageModel) -> tuple[list[int], str]:
    """Tokens before the haystack, and the text behind the question."""
    if getattr(model.tokenizer, "chat_template", None):
        begin, end = model.tokenizer.apply_chat_template(
            [{"role": "user", "content": "HAYSTACK"}], tokenize=False, add_generation_prompt=True
        ).split("HAYSTACK")
        return model.token_ids(begin, special=False), f"{end}{ANSWER}"
    with_them, without = (model.token_ids("a", special=special) for special in (True, False))
    return with_them[: with_them.index(without[0])], f"\n{ANSWER}"


def _check_room(model: LanguageModel, room: int, available: int, total: int) -> None:
    if not 0 < room <= available:
        raise ConfigError(
            f"{room} tokens of haystack are wanted, and there are {available}",
            where="lengths",
            mend="give a longer haystack, or lengths beyond that of the needle",
        )
    if total > model.context:
        raise ConfigError(
            f"a prompt would have {total} tokens, and {model.name} takes {model.context}",
            where="lengths",
            mend="use shorter haystacks",
        )
