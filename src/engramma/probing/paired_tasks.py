"""Four tasks whose circuits are published, as pairs of prompts for any tokenizer.

Sentences, words and names are our own, but for coloured objects, whose objects and colours are
those of the published prompts (Merullo et al. 2024), which are read too.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from engramma.errors import DataError, DataWarning, NotTestableError
from engramma.probing.model import LanguageModel
from engramma.probing.paired_prompts import PairedPrompts, TextPair, tokenise

NAMES = [
    "Mary",
    "John",
    "Tom",
    "James",
    "Dan",
    "Sarah",
    "Anna",
    "Emma",
    "Lucy",
    "Paul",
    "Mark",
    "Peter",
    "Kate",
    "Jack",
    "Alice",
    "Bob",
    "Sam",
    "Ben",
    "Laura",
    "David",
    "Michael",
    "Robert",
    "William",
    "George",
    "Henry",
    "Lisa",
    "Susan",
    "Karen",
    "Adam",
    "Ryan",
]
PLACES = ["store", "garden", "restaurant", "school", "hospital", "office", "house", "station"]
THINGS = ["ring", "book", "basketball", "computer", "necklace", "drink", "snack", "letter"]
MEETINGS = (
    "Then, {a} and {b} went to the {place}. {s} gave a {thing} to",
    "When {a} and {b} were at the {place}, {s} wanted to give a {thing} to",
    "After {a} and {b} came back from the {place}, {s} handed a {thing} to",
)
COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "brown", "black"]
OBJECTS = [
    "pencil",
    "notebook",
    "pen",
    "cup",
    "plate",
    "jug",
    "mug",
    "puzzle",
    "textbook",
    "leash",
    "necklace",
    "bracelet",
    "bottle",
    "ball",
    "envelope",
    "lighter",
    "bowl",
]
SURFACES, STARTS = ("table", "desk", "floor"), ("there is", "you see", "I see")
EVENTS = [
    "war",
    "campaign",
    "journey",
    "siege",
    "expedition",
    "project",
    "conflict",
    "reign",
    "voyage",
    "study",
]
ARGUMENTS = [
    "load",
    "size",
    "file",
    "test",
    "state",
    "name",
    "value",
    "index",
    "path",
    "mode",
    "date",
    "user",
    "data",
    "code",
    "line",
    "point",
    "color",
    "model",
    "result",
    "image",
    "order",
    "group",
    "key",
    "start",
    "end",
    "node",
    "time",
    "table",
    "input",
    "output",
]
NOUNS = [
    "oil",
    "column",
    "piece",
    "crime",
    "population",
    "unit",
    "river",
    "metal",
    "garden",
    "paper",
    "market",
    "season",
]


def indirect_objects(
    model: LanguageModel, n: int, *, rng: np.random.Generator, template: int | None = None
) -> PairedPrompts:
    """Indirect object identification (Wang et al. 2022), ABBA and BABA in turn.

    The corrupted prompt has a third name as its second subject. The repeated name's first place
    is marked.

    Parameters
    ----------
    model : LanguageModel
    n : int
    rng : numpy.random.Generator
    template : int, optional
        One of the three sentences; all in turn by default.
    """
    names = _words(model, NAMES, 3)
    pairs = []
    for i in range(n):
        io, subject, third = rng.choice(names, 3, replace=False)
        a, b = (subject, io) if i % 2 else (io, subject)
        text = MEETINGS[(i // 2) % len(MEETINGS) if template is None else template]
        rest = {"a": a, "b": b, "place": rng.choice(PLACES), "thing": rng.choice(THINGS)}
        clean, corrupted = (text.format(s=s, **rest) for s in (subject, third))
        mark = clean[: clean.index(subject) + len(subject)]
        pairs.append(TextPair(clean, corrupted, f" {io}", [f" {subject}"], [mark]))
    return tokenise(model, pairs, "indirect objects")


def coloured_objects(
    model: LanguageModel, n: int, *, rng: np.random.Generator, capital: bool = True
) -> PairedPrompts:
    """Coloured objects after one solved example (Merullo et al. 2024, in its published form).

    The corrupted prompt asks for another of the three objects, whose colour is the first foil.
    The two wrong colours in the question are marked.

    Parameters
    ----------
    model : LanguageModel
    n : int
    rng : numpy.random.Generator
    capital : bool
        Whether answers begin with a capital, as published.
    """
    objects = _words(model, OBJECTS, 6)
    pairs = []
    for _ in range(n):
        colours = rng.permutation(COLOURS)[:6].tolist()
        chosen = rng.permutation(objects)[:6].tolist()
        solved = _items(colours[:3], chosen[:3], rng)
        i = int(rng.integers(0, 3))
        before = f"{solved.format(chosen[i])} {_cased(colours[i], capital)}\n"
        question = _items(colours[3:], chosen[3:], rng)
        right, *wrong = rng.permutation(3).tolist()
        clean, corrupted = (before + question.format(chosen[3 + k]) for k in (right, wrong[0]))
        pairs.append(_coloured(clean, corrupted, colours[3 + right], colours[3 + wrong[0]]))
    return tokenise(model, pairs, "coloured objects")


def _items(colours: Sequence[str], objects: Sequence[str], rng: np.random.Generator) -> str:
    """One question, with {} for the object that is asked for."""
    items = [
        f"{'an' if c[0] in 'aeiou' else 'a'} {c} {o}" for c, o in zip(colours, objects, strict=True)
    ]
    listed = ", ".join(items[:-1]) + f", and {items[-1]}"
    where = f"Q: On the {rng.choice(SURFACES)}, {rng.choice(STARTS)} {listed}."
    return where + " What color is the {}?\nA:"


def _cased(colour: str, capital: bool) -> str:
    return colour.title() if capital else colour


def _coloured(clean: str, corrupted: str, right: str, first_foil: str) -> TextPair:
    """Read the colours of the last question of a prompt; answers are cased as its example is."""
    start = clean.rindex("Q:")
    found = [(m[1], start + m.end(1)) for m in re.finditer(r"\ban? (\w+) \w+", clean[start:])]
    capital = re.search(r"A: [a-z]", clean) is None
    wrong = sorted((pair for pair in found if pair[0] != right), key=lambda p: p[0] != first_foil)
    if len(wrong) + 1 != len(found) or not wrong or wrong[0][0] != first_foil:
        raise DataError(
            f"the question does not name {right!r} and {first_foil!r} once each",
            where=clean[start:],
            mend="use prompts such as 'Q: On the desk, there is a red pen, ... A:'",
        )
    foils = [f" {_cased(colour, capital)}" for colour, _ in wrong]
    marks = [clean[:end] for _, end in wrong]
    return TextPair(clean, corrupted, f" {_cased(right, capital)}", foils, marks)


def greater_than(model: LanguageModel, n: int, *, rng: np.random.Generator) -> PairedPrompts:
    """Years that must be later (Hanna et al. 2023), such as "from 1742 to 17".

    The answer is a year, or its first digit where a tokenizer has no years, one or more decades
    later than the start; the foil is as many decades earlier. The corrupted prompt starts in the
    year 01. The start's decade is marked.
    """
    pairs = []
    digits = _tokens_added(model, "to the year 17", "45") > 1
    for _ in range(n):
        century, decade = int(rng.integers(11, 18)), int(rng.integers(2, 8))
        start = f"{century}{decade}{rng.integers(2, 9)}"
        apart = int(rng.integers(1, min(decade, 9 - decade) + 1))
        text = f"The {rng.choice(EVENTS)} lasted from the year {{}} to the year {century}"
        unit = "" if digits else str(rng.integers(2, 9))
        clean = text.format(start)
        mark = clean[: clean.index(start) + 3 + (not digits)]
        later, earlier = (f"{decade + sign * apart}{unit}" for sign in (1, -1))
        pairs.append(TextPair(clean, text.format(f"{century}01"), later, [earlier], [mark]))
    return tokenise(model, pairs, "greater than")


def docstrings(model: LanguageModel, n: int, *, rng: np.random.Generator) -> PairedPrompts:
    """Next argument to be documented (Heimersheim & Janiak 2023).

    The corrupted prompt documents other names than the function's. The two documented arguments'
    places in the definition are marked.
    """
    names, nouns = _words(model, ARGUMENTS, 8), _words(model, NOUNS, 2)
    pairs = []
    for _ in range(n):
        function, a, b, c, d, e, other, another = rng.permutation(names)[:8].tolist()
        x, y, z, w = (str(rng.choice(nouns)) for _ in range(4))
        head = f"def {function}(self, {a}, {b}, {c}, {d}, {e}):\n    "
        body = f'"""{x} {y}\n\n    :param {{}}: {z} {w}\n    :param {{}}: {y} {z}\n    :param'
        clean = head + body.format(b, c)
        marks = [clean[: clean.index(f" {word}") + 1 + len(word)] for word in (c, b)]
        foils = [f" {word}" for word in (c, b, a, e)]
        corrupted = head + body.format(other, another)
        pairs.append(TextPair(clean, corrupted, f" {d}", foils, marks))
    return tokenise(model, pairs, "docstrings")


#: The tasks in text, by name.
TASKS: dict[str, Callable[..., PairedPrompts]] = {
    "indirect objects": indirect_objects,
    "coloured objects": coloured_objects,
    "greater than": greater_than,
    "docstrings": docstrings,
}


def _words(model: LanguageModel, words: Sequence[str], needed: int) -> list[str]:
    """Those that are one token within a text.

    Raises
    ------
    NotTestableError
        If too few are.
    """
    found = [word for word in words if _tokens_added(model, "the", f" {word}") == 1]
    if len(found) < needed:
        raise NotTestableError(
            f"the tokenizer of {model.name} has only {len(found)} of {len(words)} words such as "
            f"{words[0]!r} as one token, and {needed} are needed"
        )
    return found


def _tokens_added(model: LanguageModel, text: str, more: str) -> int:
    return len(model.token_ids(text + more)) - len(model.token_ids(text))


# -- published prompts -----------------------------------------------------------------------


def read_coloured_objects(
    model: LanguageModel, path: str | Path, twins: str | Path, *, limit: int | None = None
) -> PairedPrompts:
    """Read the published coloured objects, ``cobjs_data_42.json`` and its minimal twins.

    Both are JSON lists of ``[prompt, label]``, aligned: a twin asks for another object. Pairs that
    differ in their number of tokens are left out, with a warning.

    Parameters
    ----------
    model : LanguageModel
    path, twins : path
        ``cobjs_data_42.json`` and ``cobjs_mindiff_data_42.json``.
    limit : int, optional
        Most prompts to take.

    Raises
    ------
    DataError
        If a file is not of that form, they differ in length, or no pair is left.
    """
    first, second = _read_pairs(path), _read_pairs(twins)
    if len(first) != len(second):
        raise DataError(
            f"there are {len(first)} prompts and {len(second)} twins",
            where=f"{path} and {twins}",
            mend="give two files of the same seed",
        )
    pairs = [
        _coloured(a, b, right.strip().lower(), wrong.strip().lower())
        for (a, right), (b, wrong) in zip(first, second, strict=True)
    ]
    equal = [p for p in pairs if _equal(model, p)]
    if not equal:
        raise DataError(
            "no prompt is as long as its twin",
            where=str(path),
            mend="use a model whose tokenizer has the objects as one token",
        )
    if len(equal) < len(pairs):
        warnings.warn(
            f"{len(pairs) - len(equal)} of {len(pairs)} prompts are left out: their twins have "
            "more or fewer tokens",
            DataWarning,
            stacklevel=2,
        )
    return tokenise(model, equal[:limit], "coloured objects")


def _equal(model: LanguageModel, pair: TextPair) -> bool:
    return len(model.token_ids(pair.clean)) == len(model.token_ids(pair.corrupted))


def _read_pairs(path: str | Path) -> list[tuple[str, str]]:
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
        return [(str(prompt), str(label)) for prompt, label in rows]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"this is no JSON list of [prompt, label] ({error})",
            where=str(path),
            mend="use the form of cobjs_data_42.json of jmerullo/circuit_reuse",
        ) from error
