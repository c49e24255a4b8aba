"""The caption language: a small grammar of attributes, relations and places, written and read.

.. code-block:: text

    caption   -> body place | place "," body | "there is" body place | "a picture of" body place
    body      -> thing | thing relation thing | body ", and" thing [relation reference]
    thing     -> article [size] colour name
    reference -> "the" [colour] name

Whatever is written can be read back (`read`), so that what a decoder says about a picture is
checked against what is there, attribute by attribute and relation by relation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from engramma.worlds.backgrounds import BACKGROUNDS
from engramma.worlds.layouts import COLOURS, OPPOSITE, RELATIONS
from engramma.worlds.objects import CATEGORIES

#: Where each background places things; the others are "in a ...".
_PLACES: Mapping[str, str] = {
    "beach": "on a beach",
    "street": "on a street",
    "mountains": "in the mountains",
}
#: Wordings of each relation of one thing to another.
_RELATION_WORDS: Mapping[str, Sequence[str]] = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above", "higher than"),
    "below": ("below", "lower than"),
    "in front of": ("in front of",),
    "behind": ("behind",),
}
_SIZE_WORDS: Mapping[str, Sequence[str]] = {
    "small": ("small", "little"),
    "medium": ("medium",),
    "large": ("large", "big"),
}
#: Wordings of categories; the others go by the name they have in `CATEGORIES`.
_NAMES: Mapping[str, Sequence[str]] = {
    "man": ("man's face", "face of a man"),
    "woman": ("woman's face", "face of a woman"),
    "child": ("child's face", "face of a child"),
    "clown": ("clown's face", "face of a clown"),
    "word": ("sign with a word", "written word"),
    "number": ("sign with a number", "written number"),
    "letter": ("sign with a letter", "written letter"),
    "arrow": ("sign with an arrow", "arrow sign"),
    "scissors": ("pair of scissors",),
    "boat": ("boat", "sailing boat"),
    "aeroplane": ("aeroplane", "plane"),
    "pizza": ("slice of pizza",),
    "cat": ("cat", "kitten"),
    "dog": ("dog", "puppy"),
}
#: How often a size is said.
SAY_SIZE = 0.7


@dataclass(frozen=True)
class Thing:
    """An object as words tell it; no size where none was said."""

    category: str
    colour: str
    size: str = ""


@dataclass(frozen=True)
class Description:
    """What a scene shows, as far as words tell.

    Parameters
    ----------
    background : str
        Empty where it was not said.
    things : tuple of Thing
    relations : tuple of (int, str, int)
        Relation of one thing to another, by their positions in ``things``.
    """

    background: str
    things: tuple[Thing, ...]
    relations: tuple[tuple[int, str, int], ...] = ()

    def relation(self, first: int, second: int) -> str:
        """Return how one thing stands to another; empty where that is not told."""
        for i, name, j in self.relations:
            if (i, j) == (first, second):
                return name
            if (j, i) == (first, second):
                return OPPOSITE[name]
        return ""

    def triples(self) -> list[tuple[str, str, str]]:
        """Return the scene graph as (subject, predicate, object); things are ``category#number``.

        Each thing has its category, colour, size and place; each relation stands both ways.
        """
        names = [f"{t.category}#{i}" for i, t in enumerate(self.things)]
        found = []
        for name, thing in zip(names, self.things, strict=True):
            found += [(name, "is a", thing.category), (name, "has colour", thing.colour)]
            if thing.size:
                found.append((name, "has size", thing.size))
            if self.background:
                found.append((name, "is at", self.background))
        for i, relation, j in self.relations:
            found += [(names[i], relation, names[j]), (names[j], OPPOSITE[relation], names[i])]
        return found


def place_phrase(background: str) -> str:
    """Return where a background places things: "in a kitchen"."""
    return _PLACES.get(background, f"in a {background}")


def names(category: str) -> Sequence[str]:
    """Return what a category is called."""
    return _NAMES.get(category, (category,))


def captions(scene: Description, rng: np.random.Generator, n_captions: int = 3) -> list[str]:
    """Write differently worded captions of one scene.

    Parameters
    ----------
    scene : Description
    rng : numpy.random.Generator
    n_captions : int
    """
    kinds = rng.permutation(max(n_captions, 4))[:n_captions] % 4
    return [_caption(scene, int(kind), rng) for kind in kinds]


def _caption(scene: Description, kind: int, rng: np.random.Generator) -> str:
    order = list(range(len(scene.things)))
    if rng.random() < 0.5:
        order[:2] = order[:2][::-1]
    body = _body(scene, order, rng)
    place = place_phrase(scene.background)
    if kind == 1:
        return f"{place}, {body}"
    start = ("", "", "there is ", "a picture of ")[kind]
    return f"{start}{body}{', ' if len(order) > 2 else ' '}{place}"


def _body(scene: Description, order: Sequence[int], rng: np.random.Generator) -> str:
    first, *others = order
    text = _thing(scene.things[first], rng)
    said = [first]
    for k in others:
        new = _thing(scene.things[k], rng)
        related = [
            m for m in said if scene.relation(k, m) and (len(said) == 1 or _unique(scene, m))
        ]
        if not related:
            text += f", and {new}"
        elif len(said) == 1:
            text += f" {_words_of(scene.relation(first, k), rng)} {new}"
        else:
            m = related[int(rng.integers(len(related)))]
            link = _words_of(scene.relation(k, m), rng)
            text += f", and {new} {link} {_reference(scene, m)}"
        said.append(k)
    return text


def _words_of(relation: str, rng: np.random.Generator) -> str:
    return str(rng.choice(_RELATION_WORDS[relation]))


def _thing(thing: Thing, rng: np.random.Generator) -> str:
    said = thing.size and rng.random() < SAY_SIZE
    size = str(rng.choice(_SIZE_WORDS[thing.size])) if said else ""
    words = [w for w in (size, thing.colour, str(rng.choice(names(thing.category)))) if w]
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join([article, *words])


def _unique(scene: Description, number: int) -> bool:
    """Whether a thing's colour and category are those of no other."""
    key = [(t.category, t.colour) for t in scene.things]
    return key.count(key[number]) == 1


def _reference(scene: Description, number: int) -> str:
    thing = scene.things[number]
    alone = sum(t.category == thing.category for t in scene.things) == 1
    return " ".join(["the", *([] if alone else [thing.colour]), names(thing.category)[0]])


# -- reading -------------------------------------------------------------------------------


def read(caption: str) -> Description:
    """Read a caption back, as far as it can be understood.

    Words that do not fit the grammar are passed over: a captioner is judged by what it says right.
    """
    text = " ".join(caption.lower().split())
    background = ""
    for kind in sorted(BACKGROUNDS, key=lambda b: -len(place_phrase(b))):
        found = re.search(rf"\b{re.escape(place_phrase(kind))}\b", text)
        if found:
            background = kind
            text = text[: found.start()] + " " + text[found.end() :]
            break
    things: list[Thing] = []
    relations: list[tuple[int, str, int]] = []
    subject, pending = -1, ""
    for _, kind, value in _pieces(text):
        if kind == "relation":
            subject, pending = len(things) - 1, str(value)
            continue
        if isinstance(value, Thing) and kind == "thing":
            things.append(value)
            number = len(things) - 1
        else:
            assert isinstance(value, Thing)
            number = _referred(things, value)
        if pending and min(subject, number) >= 0 and subject != number:
            relations.append((subject, pending, number))
        pending = ""
    return Description(background, tuple(things), tuple(relations))


def _referred(things: Sequence[Thing], to: Thing) -> int:
    """Find the last thing that a reference fits, -1 if there is none."""
    fits = [
        i for i, t in enumerate(things) if t.category == to.category and to.colour in ("", t.colour)
    ]
    return fits[-1] if fits else -1


@cache
def _pattern() -> tuple[re.Pattern[str], dict[str, str], dict[str, str], dict[str, str]]:
    def alternatives(words: Mapping[str, str]) -> str:
        return "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))

    called = {name: c for c in CATEGORIES for name in names(c)}
    sized = {word: size for size, words in _SIZE_WORDS.items() for word in words}
    related = {word: r for r in RELATIONS for word in _RELATION_WORDS[r]}
    colour = "|".join(COLOURS)
    pattern = (
        rf"\b(?:an?\s+(?:(?P<size>{alternatives(sized)})\s+)?(?P<colour>{colour})\s+"
        rf"(?P<name>{alternatives(called)})|the\s+(?:(?P<colour2>{colour})\s+)?"
        rf"(?P<name2>{alternatives(called)})|(?P<relation>{alternatives(related)}))\b"
    )
    return re.compile(pattern), called, sized, related


def mentions(caption: str) -> list[tuple[int, int, Thing]]:
    """Find where a caption tells of things or refers to them.

    Returns
    -------
    list of (int, int, Thing)
        First of the `tokens` that tell of it, the one after the last, and the thing; one that is
        only referred to may lack a colour.
    """
    text = caption.lower()
    return [
        (len(tokens(text[:start])), len(tokens(text[:stop])), value)
        for (start, stop), _, value in _pieces(text)
        if isinstance(value, Thing)
    ]


def roles(caption: str) -> list[tuple[int, int, str, bool]]:
    """Find which things and references stand in which relation.

    Returns
    -------
    list of (int, int, str, bool)
        First of the `tokens` that tell of a thing, the one after the last, the relation next to
        it, and whether the thing is that which is said to be so.
    """
    text = caption.lower()
    found = list(_pieces(text))
    parts = []
    for before, (_, kind, value), after in zip(found, found[1:], found[2:], strict=False):
        if kind == "relation":
            for ((start, stop), _, _), subject in ((before, True), (after, False)):
                words = len(tokens(text[:start])), len(tokens(text[:stop]))
                parts.append((*words, str(value), subject))
    return parts


def _pieces(text: str) -> Iterator[tuple[tuple[int, int], str, Thing | str]]:
    pattern, called, sized, related = _pattern()
    for match in pattern.finditer(text):
        part = match.groupdict()
        if part["relation"]:
            yield match.span(), "relation", related[part["relation"]]
        elif part["name"]:
            size = sized.get(part["size"] or "", "")
            yield match.span(), "thing", Thing(called[part["name"]], part["colour"], size)
        else:
            thing = Thing(called[part["name2"]], part["colour2"] or "")
            yield match.span(), "reference", thing


def misdescribe(scene: Description, rng: np.random.Generator) -> Description:
    """Describe a scene with one thing wrong: the hardest captions to tell from the right ones.

    Where there are several things, as often as not two of them exchange their colours (or, alike
    in colour, their categories) or a relation is turned round; else a colour, a category, a size
    or the place is another.
    """
    things = list(scene.things)
    kinds = ["colour", "category", "size", "background"]
    if len(things) > 1:
        kinds = ["exchange"] * 4 + ["turn"] * 4 * bool(scene.relations) + kinds
    kind = str(rng.choice(kinds))
    i = int(rng.integers(len(things)))
    if kind == "exchange":
        j = int(rng.choice([k for k in range(len(things)) if k != i]))
        a, b = things[i], things[j]
        if a.colour != b.colour:
            things[i], things[j] = replace(a, colour=b.colour), replace(b, colour=a.colour)
        elif a.category != b.category:
            things[i], things[j] = replace(a, category=b.category), replace(b, category=a.category)
        else:
            kind = "colour"
    if kind == "turn":
        turned = tuple((j, name, i) for i, name, j in scene.relations)
        return replace(scene, relations=turned)
    if kind == "background":
        other = [b for b in BACKGROUNDS if b != scene.background]
        return replace(scene, background=str(rng.choice(other)))
    if kind in ("colour", "category", "size"):
        values = {"colour": list(COLOURS), "category": CATEGORIES, "size": list(_SIZE_WORDS)}[kind]
        now = getattr(things[i], kind)
        new = str(rng.choice([v for v in values if v != now]))
        things[i] = replace(things[i], **{kind: new})
    return replace(scene, things=tuple(things))


def tokens(caption: str) -> list[str]:
    """Split a caption into words and commas."""
    return re.findall(r"[a-z']+|,", caption.lower())


def vocabulary() -> list[str]:
    """Return all words that captions are made of, sorted."""
    phrases = [
        *(name for c in CATEGORIES for name in names(c)),
        *(word for words in _RELATION_WORDS.values() for word in words),
        *(word for words in _SIZE_WORDS.values() for word in words),
        *(place_phrase(b) for b in BACKGROUNDS),
        *COLOURS,
        "there is a an the and , a picture of",
    ]
    return sorted({word for phrase in phrases for word in tokens(phrase)})


def agreement(said: Description, scene: Description) -> dict[str, tuple[int, int]]:
    """Count what a description says right about a scene.

    Each said thing is matched to one of the scene, so that as much as possible agrees.

    Returns
    -------
    dict of str to (int, int)
        For ``category``, ``colour``, ``size``, ``background`` and ``relation``: how many of the
        statements are right, and how many there are. Things of the scene that go unsaid count as
        wrong statements of ``category``.
    """
    from scipy.optimize import linear_sum_assignment

    gain = np.asarray(
        [
            [
                4 * (s.category == t.category) + 2 * (s.colour == t.colour) + (s.size == t.size)
                for t in scene.things
            ]
            for s in said.things
        ]
    ).reshape(len(said.things), len(scene.things))
    rows, columns = linear_sum_assignment(-gain)
    match = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    pairs = [(said.things[i], scene.things[j]) for i, j in match.items()]
    most = max(len(said.things), len(scene.things))
    related = [
        i in match and j in match and scene.relation(match[i], match[j]) == name
        for i, name, j in said.relations
    ]
    sizes = [s.size == t.size for s, t in pairs if s.size]
    return {
        "category": (sum(s.category == t.category for s, t in pairs), most),
        "colour": (sum(s.colour == t.colour for s, t in pairs), most),
        "size": (sum(sizes), len(sizes)),
        "background": (int(said.background == scene.background), int(bool(said.background))),
        "relation": (sum(related), len(related)),
    }
