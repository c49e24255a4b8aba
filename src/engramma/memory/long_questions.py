"""Questions about long texts: LongBench and ∞-Bench, read from the JSON lines of their authors.

Sources: Bai et al. 2024 (arXiv:2308.14508) and Zhang et al. 2024 (arXiv:2402.13718).
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engramma.errors import DataError


@dataclass(frozen=True)
class LongQuestion:
    """A long text, what is asked about it, and answers of which any is right.

    Parameters
    ----------
    name : str
        Identifier of the record.
    context, question : str
    answers : tuple of str
    options : tuple of str
        What can be chosen from; empty where the answer is free.
    dataset, language : str
    length : int
        Words (characters, in Chinese) as LongBench states them; words of the context elsewhere.
    """

    name: str
    context: str
    question: str
    answers: tuple[str, ...]
    options: tuple[str, ...] = ()
    dataset: str = ""
    language: str = ""
    length: int = 0


def read_longbench(path: str | Path) -> list[LongQuestion]:
    """Read one task of LongBench.

    Each line has ``input``, ``context``, ``answers``, ``length``, ``dataset``, ``language``,
    ``all_classes`` (null, or the classes of a classification) and ``_id``.

    Raises
    ------
    DataError
        With the line and what is wrong in it.
    """
    found: list[LongQuestion] = []
    for where, record in _records(path):
        answers = _strings(record, "answers", where)
        found.append(
            LongQuestion(
                name=_string(record, "_id", where),
                context=_string(record, "context", where),
                question=_string(record, "input", where),
                answers=answers,
                options=_strings(record, "all_classes", where, optional=True),
                dataset=_string(record, "dataset", where),
                language=_string(record, "language", where),
                length=int(record.get("length") or 0),
            )
        )
    return found


def read_infinitebench(path: str | Path) -> list[LongQuestion]:
    """Read one task of ∞-Bench, whose name is that of the file.

    Each line has ``id``, ``context``, ``input``, ``answer`` (a string or a list) and ``options``
    (empty, or the choices).

    Raises
    ------
    DataError
        With the line and what is wrong in it.
    """
    found: list[LongQuestion] = []
    for where, record in _records(path):
        context = _string(record, "context", where)
        found.append(
            LongQuestion(
                name=str(record.get("id", len(found))),
                context=context,
                question=_string(record, "input", where),
                answers=_strings(record, "answer", where),
                options=_strings(record, "options", where, optional=True),
                dataset=Path(path).stem,
                length=len(context.split()),
            )
        )
    return found


def answer_f1(given: str, answers: tuple[str, ...]) -> float:
    """F1 of the words of an answer and of the best right one, as in SQuAD and LongBench.

    Case, punctuation and articles do not count.
    """

    def words(text: str) -> Counter[str]:
        plain = text.lower().translate(str.maketrans("", "", string.punctuation))
        return Counter(re.sub(r"\b(a|an|the)\b", " ", plain).split())

    mine, best = words(given), 0.0
    for answer in answers:
        theirs = words(answer)
        shared = sum((mine & theirs).values())
        if shared:
            best = max(best, 2 * shared / (mine.total() + theirs.total()))
    return best


def _records(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each line's place and its object."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the questions cannot be read ({error})", where=str(path), mend="name a .jsonl file"
        ) from error
    empty = True
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        empty, where = False, f"{path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"the line is no JSON ({error})", where=where, mend="write one object a line"
            ) from error
        if not isinstance(record, dict):
            raise DataError("the line is no object", where=where, mend="write one object a line")
        yield where, record
    if empty:
        raise DataError("the file is empty", where=str(path), mend="name a file with questions")


def _string(record: dict[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise DataError(
            f"the field {name!r} is {value!r:.40}", where=where, mend=f"give a string as {name!r}"
        )
    return value


def _strings(
    record: dict[str, Any], name: str, where: str, optional: bool = False
) -> tuple[str, ...]:
    value = record.get(name)
    if optional and not value:
        return ()
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(v, str | int | float) for v in values):
        raise DataError(
            f"the field {name!r} is {value!r:.40}",
            where=where,
            mend=f"give a string or a list of strings as {name!r}",
        )
    return tuple(str(v) for v in values)
