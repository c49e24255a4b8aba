"""Long texts that memories are tried on: books, encyclopaedia articles, fused question sets.

Nothing is downloaded: each reader takes files as their authors hand them out.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engramma.errors import ConfigError, DataError
from engramma.worlds.streams import IGNORED

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Document:
    """A text and what it is called."""

    name: str
    text: str


@dataclass(frozen=True)
class Question:
    """A question behind the long text that it is about.

    Parameters
    ----------
    context, question, answer : str
    decision : str
        Short answer (yes, no, maybe) where there is one.
    """

    context: str
    question: str
    answer: str
    decision: str = ""

    @property
    def prompt(self) -> str:
        """Context, then question."""
        return f"{self.context} {self.question}"


def read_books(folder: str | Path, split: str) -> Iterator[Document]:
    """Books of PG-19 (Rae et al. 2020), in the order of their file names.

    Parameters
    ----------
    folder : path
        Holds ``train``, ``validation`` and ``test``, each with one text file a book.
    split : str
    """
    if split not in SPLITS:
        raise ConfigError(
            f"there is no split {split!r}", where="read_books", mend=f"use {', '.join(SPLITS)}"
        )
    files = sorted((Path(folder) / split).glob("*.txt"))
    if not files:
        raise DataError(
            "there are no books",
            where=str(Path(folder) / split),
            mend="name the folder that holds train/, validation/ and test/ with one .txt a book",
        )
    return (Document(path.stem, _read(path)) for path in files)


def read_wikitext(path: str | Path) -> list[Document]:
    """Articles of WikiText (Merity et al. 2017), from a file such as ``wiki.test.tokens``.

    An article starts at a heading of the first level, `` = Title = ``, between empty lines.
    """
    text = _read(Path(path))
    heading = re.compile(r"^ = ([^=\n](?:.*[^=\n])?) = ?$", re.MULTILINE)
    found = list(heading.finditer(text))
    if not found:
        raise DataError(
            "there is no article in it",
            where=str(path),
            mend="name wiki.train.tokens, wiki.valid.tokens or wiki.test.tokens",
        )
    stops = [m.start() for m in found[1:]] + [len(text)]
    return [
        Document(m.group(1).strip(), text[m.start() : stop].strip())
        for m, stop in zip(found, stops, strict=True)
    ]


def read_texts(path: str | Path) -> list[Document]:
    """Documents of a plain text file (one), or of JSON lines with a field ``text``."""
    path = Path(path)
    if path.suffix not in (".jsonl", ".json"):
        return [Document(path.stem, _read(path))]
    found = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line.strip():
            continue
        record = _parse(line, f"{path}, line {number}")
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            raise DataError(
                "there is no text in it",
                where=f"{path}, line {number}",
                mend='write one object a line, with a field "text"',
            )
        found.append(Document(str(record.get("id", f"{path.stem} {number}")), record["text"]))
    if not found:
        raise DataError("the file is empty", where=str(path), mend="give at least one document")
    return found


def read_pubmedqa(path: str | Path) -> list[Question]:
    """Questions of PubMedQA (Jin et al. 2019), each with its own abstract as context.

    Parameters
    ----------
    path : path
        JSON keyed by PMID with ``QUESTION``, ``CONTEXTS``, ``LONG_ANSWER`` and ``final_decision``,
        as the authors hand it out; or the form of the hub, a JSON list or JSON lines of
        ``question``, ``context.contexts``, ``long_answer`` and ``final_decision``.
    """
    path = Path(path)
    text = _read(path)
    if path.suffix == ".jsonl":
        records = [_parse(line, str(path)) for line in text.splitlines() if line.strip()]
    else:
        whole = _parse(text, str(path))
        records = list(whole.values()) if isinstance(whole, dict) else whole
    if not isinstance(records, list) or not records:
        raise DataError("there are no questions", where=str(path), mend="give PubMedQA's JSON")
    return [_question(record, f"{path}, record {n}") for n, record in enumerate(records)]


def _question(record: Any, where: str) -> Question:
    try:
        if "QUESTION" in record:
            contexts, question = record["CONTEXTS"], record["QUESTION"]
            answer = record["LONG_ANSWER"]
        else:
            contexts, question = record["context"]["contexts"], record["question"]
            answer = record["long_answer"]
        return Question(
            " ".join(contexts), str(question), str(answer), str(record.get("final_decision", ""))
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"this is no record of PubMedQA ({error} is missing or of another type)",
            where=where,
            mend="it has QUESTION, CONTEXTS and LONG_ANSWER, or question, context.contexts and "
            "long_answer",
        ) from error


def fuse(questions: Sequence[Question], size: int) -> list[Question]:
    """Make contexts long: those of ``size`` questions are joined, and each is asked of the whole.

    The last group may be smaller. Each question is in exactly one group.
    """
    if size < 1:
        raise ConfigError(f"{size} contexts cannot be fused", where="fuse", mend="fuse at least 1")
    fused = []
    for start in range(0, len(questions), size):
        group = questions[start : start + size]
        context = " ".join(q.context for q in group)
        fused += [Question(context, q.question, q.answer, q.decision) for q in group]
    return fused


def labelled(tokenizer: Any, question: Question) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of a question with its answer, and labels that score the answer only.

    Returns
    -------
    tokens, labels : ndarray of int64, shape (1, token)
        Each label is the next token; -100 where nothing is scored.
    """
    prompt = tokenizer(question.prompt)["input_ids"]
    answer = tokenizer(" " + question.answer, add_special_tokens=False)["input_ids"]
    if not prompt or not answer:
        raise DataError("prompt or answer is empty", where=repr(question.question))
    tokens = np.array([prompt + answer])
    labels = np.full_like(tokens, IGNORED)
    labels[0, len(prompt) - 1 : -1] = answer
    return tokens, labels


def answer_f1(said: str, truth: str) -> float:
    """F1 of the words of an answer, whatever their order, case and punctuation."""
    words = [Counter(re.findall(r"\w+", text.lower())) for text in (said, truth)]
    common = sum((words[0] & words[1]).values())
    if not common:
        return float(not words[0] and not words[1])
    return 2 * common / (words[0].total() + words[1].total())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the text cannot be read ({error})", where=str(path), mend="give a UTF-8 text file"
        ) from error


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"this is no JSON ({error})", where=where, mend="restore it") from error
