"""LLMEval2: comparisons of two answers with people's preferences (Zhang et al. 2023).

JSON lines ``{"query", "response1", "response2", "human", "dataset"}``; 2,553 items of 15 data sets,
from AlibabaResearch/DAMO-ConvAI, folder WideDeep.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engramma.errors import DataError
from engramma.systems.probing.wide_deep_prompts import Item

#: Kind of comparison of each data set, as the released code assigns them.
KIND_OF_DATASET = {
    "webgpt": "qa",
    "shp": "qa",
    "eli5": "qa",
    "rlhf-reward-chinese": "qa",
    "reward-aira-portuguese": "qa",
    "summeval": "summary",
    "summarizefeedback": "summary",
    "openmeva": "story",
    "bagel": "data-to-text",
    "hellaswag": "completion",
    "rlhf-reward-russian": "dialogue",
    "hh-rlhf": "dialogue",
    "pku-saferlhf": "safety",
    "mt-bench": "multi-turn",
    "code-contests": "code",
}
#: How often people prefer each in the whole benchmark (its README).
PUBLISHED_COUNTS = {"first": 1050, "second": 1021, "tie": 482}
#: Values that say what they mean.
PLAIN_WORDS = {
    "response1": "first",
    "response2": "second",
    "first": "first",
    "second": "second",
    "tie": "tie",
}
_FIELDS = ("query", "response1", "response2", "human", "dataset")


def load_llmeval2(path: str | Path, coding: Mapping[Any, str] | None = None) -> list[Item]:
    """Read LLMEval2, or comparisons in its format.

    Parameters
    ----------
    path : path
        JSON lines.
    coding : mapping, optional
        What values of ``human`` mean: to ``"first"``, ``"second"`` or ``"tie"``. How the published
        file codes preferences is not documented. Without a coding, the values of a file with the
        published counts (1,050, 1,021 and 482) are told apart by these; of any other file, values
        that say what they mean (response1, response2, first, second, tie) are taken, and numbers
        are refused.

    Raises
    ------
    DataError
        If the file cannot be read, a line is no comparison, or a preference, or a data set is
        unknown.
    """
    path = Path(path)
    records = _read(path)
    known = coding or _coding_by_counts(records) or PLAIN_WORDS
    items = []
    for line, record in records:
        where = f"{path}, line {line}"
        human, dataset = record["human"], record["dataset"]
        if human not in known:
            raise DataError(
                f"it is not known what the preference {human!r} means",
                where=where,
                mend="give coding={value: 'first', value: 'second', value: 'tie'}",
            )
        if dataset not in KIND_OF_DATASET:
            raise DataError(
                f"there is no data set {dataset!r}",
                where=where,
                mend=f"use {', '.join(KIND_OF_DATASET)}, or build items with `Item`",
            )
        items.append(
            Item(
                record["query"],
                record["response1"],
                record["response2"],
                known[human],
                KIND_OF_DATASET[dataset],
                dataset,
            )
        )
    return items


def _read(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Numbered records of a file of JSON lines."""
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the comparisons cannot be read ({error})",
            where=str(path),
            mend="name a file of JSON lines; the published one comes zipped",
        ) from error
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"the line is no JSON ({error})", where=where) from error
        missing = [f for f in _FIELDS if not isinstance(record, dict) or f not in record]
        if missing:
            raise DataError(f"the line has no {', '.join(missing)}", where=where)
        if not isinstance(record["human"], str | int | float):
            raise DataError(f"the preference is {record['human']!r}", where=where)
        records.append((number, record))
    if not records:
        raise DataError("the file holds no comparison", where=str(path))
    return records


def _coding_by_counts(records: list[tuple[int, dict[str, Any]]]) -> dict[Any, str] | None:
    """Coding of the published file: its three values occur with three different counts."""
    counts = Counter(record["human"] for _, record in records)
    if sorted(counts.values()) != sorted(PUBLISHED_COUNTS.values()):
        return None
    named = {count: preference for preference, count in PUBLISHED_COUNTS.items()}
    return {value: named[count] for value, count in counts.items()}
