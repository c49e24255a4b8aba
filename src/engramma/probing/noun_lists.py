"""Lists of nouns in a little story in which they are read twice.

A stimulus reads ``preface + first list + . + what happens in between + second list + .``, as of
Armeni, Honey & Linzen (2022, CoNLL). Nouns and texts are ours, but for the two published sentences
that lead to the lists. Published lists are read by `read_noun_lists`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from engramma.errors import ConfigError, DataError
from engramma.probing.list_streams import CONDITIONS, Condition, other_orders
from engramma.probing.word_surprisal import Span

#: What lies between the lists: a text as it is, its words shuffled, a text about something else,
#: or next to nothing.
Between = Literal["intact", "scrambled", "incongruent", "short"]
Kind = Literal["arbitrary", "coherent"]

CATEGORIES: dict[str, tuple[str, ...]] = {
    name: tuple(nouns.split())
    for name, nouns in {
        "animals": "horse rabbit eagle salmon spider camel goose turtle monkey goat",
        "clothes": "shirt jacket scarf trousers glove sweater skirt belt sock hat",
        "food": "bread cheese apple onion butter rice carrot honey soup pepper",
        "furniture": "table chair sofa shelf cupboard bench desk lamp mirror carpet",
        "tools": "hammer rake drill shovel wrench axe rope ladder needle brush",
        "vehicles": "truck bicycle tractor boat train wagon canoe bus sledge plane",
        "body": "elbow finger shoulder knee nose ankle throat stomach ear wrist",
        "jobs": "doctor farmer lawyer sailor teacher painter baker soldier clerk tailor",
        "instruments": "piano violin drum flute trumpet guitar harp organ cello bell",
        "landscape": "river mountain valley forest island desert meadow lake cliff swamp",
        "weather": "storm rain thunder frost fog snow wind cloud sunshine hail",
        "buildings": "church castle hospital prison factory school temple tower barn hotel",
    }.items()
}
_ARBITRARY = """
    patience window silver leader ticket shadow engine pepper letter bridge notion garden basket
    signal pocket summer master copper circle doctor theory blanket corner winter captain mirror
    rumour station marble writer dinner treaty button palace comfort needle planet lesson velvet
    anchor profit turkey temper ribbon effort island barrel pencil candle victim puzzle harbour
    verdict feather method carbon sister harvest tunnel magnet poetry wallet virus fabric cousin
    lantern budget meadow orchid tailor fossil vinegar jungle rocket sugar camera legend ladder
    thunder market quarrel statue oxygen parcel
"""
ARBITRARY: tuple[str, ...] = tuple(_ARBITRARY.split())

PREFACES: dict[str, str] = {
    "list": "Before the meeting, Mary wrote down the following list of words:",
    "poem": "In the poem that Mary learned by heart, these words were underlined in red:",
    "shop": "Mary went through the whole shop and could find nothing but these things:",
    "none": "",
}
#: What leads to the second list.
AGAIN = "When she got back, she read the list again:"

_BETWEEN: dict[str, tuple[str, ...]] = {
    "intact": (
        "After the meeting, she took a break and had a cup of coffee.",
        "The cafe on the ground floor was almost empty at this time of the day.",
        "She sat down close to the door and watched the people who walked by outside.",
        "An old man with a small dog stopped and looked at the prices, and then he went on.",
        "She thought about what had been said in the morning, and about who had said it.",
        "Nobody had agreed on a date, although they had talked about it for more than an hour.",
        "Her colleague came in, ordered a glass of water and asked whether she was free.",
        "They talked for a while about the new office, which was too hot and too loud.",
        "He told her that he would rather work at home until everything had been repaired.",
        "She laughed and said that she had heard the same thing from everyone else this week.",
        "Then he looked at his watch, paid for both of them and hurried back to work.",
        "She stayed a little longer, finished what she was drinking and wrote a short message.",
        "Her brother wanted to know when she would arrive and whether he should cook for two.",
        "She answered that it would be late, and that he should not wait for her.",
        "Outside it had become dark, and the first cars had already switched on their lights.",
        "She put on her coat, took her bag and walked slowly up the stairs to her room.",
        "On the second floor somebody had left the door open, and she heard voices from inside.",
        "They spoke about money, as they always did at the end of the year.",
        "She did not stop to listen, since she knew very well what they were going to say.",
        "In front of her own room she searched for the right key and could not find it.",
        "It was at the bottom of her bag, together with an old bill and a few coins.",
        "She opened, turned on the light and saw that everything was where she had left it.",
        "There was still a lot to do, but none of it was urgent, and she was tired.",
        "She decided to tidy up first and to see about the rest on the next day.",
    ),
    "incongruent": (
        "Most of the heat that reaches the ground is given back to the air during the night.",
        "The lower layers cool down first, and they become heavier than those above them.",
        "Such a layer can stay in place for days when there is hardly any motion.",
        "Smoke that rises into it spreads sideways and hangs over the town.",
        "Measurements were taken every hour, at four heights, over a period of two years.",
        "The differences between both ends were largest shortly before the break of day.",
        "They were smaller in spring, and they vanished when the sky was covered.",
        "A simple model explains about two thirds of what was observed.",
        "It has three numbers that must be known, and all of them can be measured directly.",
        "What it leaves out is the shape of the ground, which is not flat anywhere.",
        "Cold air flows down along a slope and gathers at the lowest point.",
        "This is why damage to plants is often found in one part of a field only.",
        "Older reports mention the same effect, though they explain it in another way.",
        "They assume that the water in the soil matters more than anything else.",
        "Both explanations predict the same average and differ in how it changes.",
        "The new data agree with the first one in nine cases out of ten.",
        "Further work should repeat this at more places, and with better devices.",
        "The cost of that is low, as everything needed is already in use elsewhere.",
        "Until then the numbers given here should be used with some care.",
        "They hold for places of this size, and for years without extreme events.",
        "Larger places make their own heat, and this was not taken into account.",
        "It is not known how far above the ground such an influence can still be seen.",
    ),
    "short": (),
    "scrambled": (),
}


@dataclass(frozen=True)
class Stimulus:
    """One text with two lists.

    Parameters
    ----------
    text : str
    first, second : tuple of (int, int)
        Where each noun is, as characters from and up to.
    condition : {"repeat", "permute", "novel"}
    nouns : int
        In a list.
    gap : int
        Words between the lists.
    between : {"intact", "scrambled", "incongruent", "short"}
    pool : int
        Stimuli of one pool share nouns: intervals are drawn over pools.
    """

    text: str
    first: tuple[Span, ...]
    second: tuple[Span, ...]
    condition: Condition
    nouns: int
    gap: int
    between: Between
    pool: int


def draw_noun_lists(
    rng: np.random.Generator, n: int, nouns: int, kind: Kind = "arbitrary"
) -> tuple[list[list[str]], list[list[str]]]:
    """Draw ``n`` lists, and for each another one without any of its nouns.

    Coherent lists are of one category each; the other list is of another category.

    Raises
    ------
    ConfigError
        If there are too few nouns, or there is no such kind.
    """
    if kind not in get_args(Kind):
        raise ConfigError(f"there are no lists of kind {kind!r}", mend="say arbitrary or coherent")
    pools = [ARBITRARY] if kind == "arbitrary" else list(CATEGORIES.values())
    room = len(ARBITRARY) // 2 if kind == "arbitrary" else min(map(len, pools))
    if not 1 <= nouns <= room:
        raise ConfigError(
            f"a list of {nouns} {kind} nouns cannot be drawn", where="nouns", mend=f"1 to {room}"
        )
    first, other = [], []
    for _ in range(n):
        if kind == "arbitrary":
            drawn = [ARBITRARY[i] for i in rng.permutation(len(ARBITRARY))[: 2 * nouns]]
            first.append(drawn[:nouns])
            other.append(drawn[nouns:])
        else:
            one, two = (pools[i] for i in rng.permutation(len(pools))[:2])
            for target, pool in ((first, one), (other, two)):
                target.append([pool[i] for i in rng.permutation(len(pool))[:nouns]])
    return first, other


def noun_stimuli(
    rng: np.random.Generator,
    lists: Sequence[Sequence[str]],
    others: Sequence[Sequence[str]],
    *,
    condition: Condition = "repeat",
    between: Between = "intact",
    gap: int = 20,
    preface: str = "list",
    pools: Sequence[int] | None = None,
) -> list[Stimulus]:
    """Build one text a list.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the other orders, and the order of scrambled words.
    lists : sequence of lists of str
        First lists.
    others : sequence of lists of str
        For ``"novel"``: another list for each, of the same length.
    condition, between
        See `Condition` and `Between`.
    gap : int
        Words between the lists, those of `AGAIN` included: rounded to whole sentences, the
        nearest. ``"short"`` has `AGAIN` only.
    preface : str
        Name in `PREFACES`, or a text.
    pools : sequence of int, optional
        Pool of each list, for intervals; by default `pools_of`, for lists that may be shifts of
        each other.

    Raises
    ------
    ConfigError
        If there is no such condition or text, or the gap is longer than our texts.
    DataError
        If a list repeats a noun, or shares one with its other list.
    """
    if condition not in CONDITIONS or between not in _BETWEEN:
        raise ConfigError(
            f"there is no condition {condition!r} with a text {between!r}",
            mend=f"conditions are {', '.join(CONDITIONS)}, texts {', '.join(_BETWEEN)}",
        )
    middle = intervening_text(rng, between, gap)
    labels = pools_of(lists) if pools is None else pools
    found = []
    for number, (nouns, other) in enumerate(zip(lists, others, strict=True)):
        _check_lists(nouns, other, number)
        second = other if condition == "novel" else nouns
        if condition == "permute":
            second = [nouns[i] for i in other_orders(rng, 1, len(nouns))[0]]
        text = ""
        spans: list[tuple[Span, ...]] = []
        for lead, items in ((PREFACES.get(preface, preface), nouns), (middle, second)):
            text = f"{text} {lead}".strip()
            text, where = _append(text, items)
            spans.append(where)
        found.append(
            Stimulus(
                text, spans[0], spans[1], condition, len(nouns), len(middle.split()), between,
                int(labels[number]),
            )
        )  # fmt: skip
    return found


def intervening_text(rng: np.random.Generator, between: Between, gap: int) -> str:
    """Text between the lists, `AGAIN` at its end.

    Raises
    ------
    ConfigError
        If more words are wanted than there are.
    """
    least = len(AGAIN.split())
    if between == "short":
        return AGAIN
    sentences = _BETWEEN["incongruent" if between == "incongruent" else "intact"]
    lengths = np.cumsum([0, *(len(s.split()) for s in sentences)]) + least
    if not least <= gap <= lengths[-1] + 20:
        raise ConfigError(
            f"there is no gap of {gap} words in the {between} text",
            where="gap",
            mend=f"use {least} to {lengths[-1]}",
        )
    text = " ".join(sentences[: int(np.abs(lengths - gap).argmin())])
    if between == "scrambled":
        text = " ".join(rng.permutation(text.split()).tolist())
    return f"{text} {AGAIN}".strip()


def read_noun_lists(path: str | Path) -> dict[int, list[list[str]]]:
    """Read ``{"n3": [[noun, ...], ...], "n5": ...}``, as published, by length of list.

    Raises
    ------
    DataError
        If the file is not in this format, or a list is not as long as it says.
    """
    try:
        groups: Mapping[str, list[list[str]]] = json.loads(Path(path).read_text("utf-8"))
        found = {int(name.removeprefix("n")): lists for name, lists in groups.items()}
        wrong = [n for n, lists in found.items() if any(len(words) != n for words in lists)]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"these are no lists of nouns ({type(error).__name__}: {error})",
            where=str(path),
            mend='give {"n3": [[noun, noun, noun], ...], ...}',
        ) from error
    if wrong or not found:
        raise DataError(
            f"lists under n{wrong[0]} do not have {wrong[0]} nouns" if wrong else "it is empty",
            where=str(path),
        )
    return found


def pools_of(lists: Sequence[Iterable[str]]) -> np.ndarray:
    """Return the pool of each list; lists that share a noun, if by way of others, are in one.

    The published lists are circular shifts of a few pools, so that 230 of them are far fewer
    independent ones.
    """
    names = {noun: i for i, noun in enumerate(sorted({w for words in lists for w in words}))}
    rows = [i for i, words in enumerate(lists) for _ in words]
    columns = [len(lists) + names[w] for words in lists for w in words]
    size = len(lists) + len(names)
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1][: len(lists)])


def _check_lists(nouns: Sequence[str], other: Sequence[str], number: int) -> None:
    if len(set(nouns)) != len(nouns) or set(nouns) & set(other) or len(other) != len(nouns):
        raise DataError(
            "a list repeats a noun, or its other list shares one or has another length",
            where=f"list {number}: {', '.join(nouns)} / {', '.join(other)}",
            mend="use different nouns",
        )


def _append(text: str, items: Sequence[str]) -> tuple[str, tuple[Span, ...]]:
    """Text with a list at its end, and where each noun is."""
    spans = []
    for number, item in enumerate(items):
        text += ("" if not text else " ") if number == 0 else ", "
        spans.append((len(text), len(text) + len(item)))
        text += item
    return text + ".", tuple(spans)
