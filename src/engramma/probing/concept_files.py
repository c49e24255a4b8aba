"""Readers of labelled sentences in the formats in which their authors publish them.

They are the sets of Jin et al. 2025 ("Exploring concept depth: how large language models acquire
knowledge and concept at different layers?"), as they lie in the folder ``dataset`` of its code.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engramma.errors import ConfigError, DataError
from engramma.probing.concepts import LabelledTexts

#: What is said before and after the sentence of each published set. The released code has such
#: instructions for each set; these are in our words.
INSTRUCTIONS: dict[str, tuple[str, str]] = {
    "cities": ("Is this statement true? Answer Yes or No.", ""),
    "common_claim": ("Is this statement true? Answer Yes or No.", ""),
    "counterfact": ("Is this statement true? Answer Yes or No.", ""),
    "stsa": ("", "Is this review of a film positive? Answer Yes or No."),
    "imdb": ("", "Is this review of a film positive? Answer Yes or No."),
    "coin_flip": ("", "Does the coin lie as it lay at first? Answer Yes or No."),
    "hateeval": ("", "Is this comment hate speech? Answer Yes or No."),
    "strategyqa": (
        "Think of the facts the question depends on, then answer Yes or No.",
        "Let us think step by step.",
    ),
    "sarcasm": (
        "Sarcasm says one thing and means the opposite.",
        "Is this headline sarcastic? Answer Yes or No.",
    ),
}

Rows = list[tuple[str, Any]]


def _table(separator: str, text: str, label: str) -> Callable[[Path], Rows]:
    # Comments hold quotation marks of all kinds; only comma-separated files quote.
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE

    def read(path: Path) -> Rows:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter=separator, quoting=quoting)
            return [(row[text], row[label]) for row in rows]

    return read


def _stsa(path: Path) -> Rows:
    lines = [x.split(" ", 1) for x in path.read_text(encoding="utf-8").splitlines() if x.strip()]
    return [(text, label) for label, text in lines]


def _coin_flip(path: Path) -> Rows:
    examples = json.loads(path.read_text(encoding="utf-8"))["examples"]
    return [(e["question"], str(e["answer"]).strip().lower()) for e in examples]


def _strategyqa(path: Path) -> Rows:
    """Question and facts; the answer that precedes the facts is cut off."""
    rows: Rows = []
    for example in json.loads(path.read_text(encoding="utf-8"))["examples"]:
        facts = str(example["target"])
        for answer in ("Yes.", "No."):
            facts = facts.removeprefix(answer)
        rows.append((f"{example['input']} {facts.strip()}", example["target_scores"]["Yes"]))
    return rows


def _sarcasm(path: Path) -> Rows:
    lines = [json.loads(x) for x in path.read_text(encoding="utf-8").splitlines() if x.strip()]
    return [(e["headline"], e["is_sarcastic"]) for e in lines]


def _folder(path: Path) -> Rows:
    return [
        (file.read_text(encoding="utf-8"), label)
        for label, name in (("0", "neg"), ("1", "pos"))
        for file in sorted((path / name).glob("*.txt"))
    ]


#: Name, reader, and most texts a class in the paper.
READERS: dict[str, tuple[Callable[[Path], Rows], int | None]] = {
    "cities": (_table(",", "statement", "label"), None),
    "common_claim": (_table(",", "examples", "label"), 3000),
    "counterfact": (_table(",", "statement", "label"), 2000),
    "stsa": (_stsa, None),
    "coin_flip": (_coin_flip, None),
    "strategyqa": (_strategyqa, None),
    "hateeval": (_table("\t", "text", "HS"), 3000),
    "sarcasm": (_sarcasm, 3000),
    "imdb": (_folder, 1000),
}
_LABELS = {"1": 1, "0": 0, "true": 1, "false": 0, "yes": 1, "no": 0, "1.0": 1, "0.0": 0}


def read_texts(name: str, path: str | Path) -> LabelledTexts:
    """Read a published set in its own format, and take the first texts of each class.

    Parameters
    ----------
    name : str
        ``cities``, ``common_claim``, ``counterfact`` (CSV), ``stsa`` (a label and a text a line),
        ``coin_flip``, ``strategyqa`` (JSON), ``hateeval`` (TSV), ``sarcasm`` (JSON lines), ``imdb``
        (a folder with ``pos`` and ``neg``).
    path : path

    Returns
    -------
    LabelledTexts
        Label 1 is true, yes, positive, hateful or sarcastic; rows with neither label (``Neither``
        of CommonClaim) are left out.

    Raises
    ------
    ConfigError
        If there is no set of that name.
    DataError
        If the file is not of that format.
    """
    if name not in READERS:
        raise ConfigError(f"there is no set {name!r}", mend=f"use one of {', '.join(READERS)}")
    reader, most = READERS[name]
    try:
        rows = [
            (str(text).strip(), _LABELS.get(str(label).strip().lower()))
            for text, label in reader(Path(path))
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"this is no file of {name} ({type(error).__name__}: {error})",
            where=str(path),
            mend="give the file as its authors publish it",
        ) from error
    kept = [(text, label) for text, label in rows if label is not None]
    if not kept:
        raise DataError("no text has a label", where=str(path), mend=f"is it a file of {name}?")
    labels = np.array([label for _, label in kept])
    index = [np.flatnonzero(labels == c)[:most] for c in (0, 1)]
    texts = LabelledTexts(name, tuple(t for t, _ in kept), labels, *INSTRUCTIONS[name])
    return texts.pick(np.sort(np.concatenate(index)))
