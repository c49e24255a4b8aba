"""Multiple-choice questions about an agent's life, across what was seen, heard and done.

=============  =================================================  =============================
kind           example                                            rests on
=============  =================================================  =============================
seen           What was seen when the bell was heard on day 2?    the event with that sound
heard          What was heard at the red sofa on day 2?           the event at that object
gist           In which room was most of the time spent?          all frames
order          Which was looked at first: the sofa or the sink?   first events at both
item           In what is the key now?                            last event with that item
=============  =================================================  =============================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engramma.errors import ConfigError, DataError
from engramma.worlds.agent_life import SOUNDS, AgentLife
from engramma.worlds.life_streams import descriptions
from engramma.worlds.story_questions import Question

_TRIES = 60
#: text, answer, foils, rows of the events, query
_Asked = tuple[str, str, Sequence[str], Sequence[int], dict[str, Any]]


def _seen(life: AgentLife, rng: np.random.Generator) -> _Asked | None:
    events = life.events
    heard = events[events["sound"] != ""]
    if heard.empty:
        return None
    row = heard.iloc[int(rng.integers(len(heard)))]
    same = heard[(heard["sound"] == row["sound"]) & (heard["day"] == row["day"])]
    if len(same) > 1:
        return None
    text = f"What was seen when the sound of {row['sound']} was heard on day {row['day'] + 1}?"
    names = descriptions(life)
    foils = [names[i] for i in events["object"].unique() if i != row["object"]]
    query = {"find": "object", "sound": row["sound"], "day": int(row["day"])}
    answer = names[row["object"]]
    return text, answer, [f for f in foils if f != answer], [same.index[0]], query


def _heard(life: AgentLife, rng: np.random.Generator) -> _Asked | None:
    events = life.events
    row = events.iloc[int(rng.integers(len(events)))]
    names = descriptions(life)
    here = names[row["object"]]
    alike = [i for i, name in enumerate(names) if name == here]
    same = events[events["object"].isin(alike) & (events["day"] == row["day"])]
    if len(same) > 1 or not row["sound"]:
        return None
    text = f"What was heard at the {here} on day {row['day'] + 1}?"
    query = {"find": "sound", "object": int(row["object"]), "day": int(row["day"])}
    return text, row["sound"], SOUNDS, [same.index[0]], query


def _gist(life: AgentLife, rng: np.random.Generator) -> _Asked | None:
    day = int(rng.integers(int(life.events["day"].max()) + 1))
    frames = life.frames[life.frames["day"] == day]
    counts = frames["room"].value_counts()
    if len(counts) > 1 and counts.iloc[0] == counts.iloc[1]:
        return None
    text = f"In which room was most of day {day + 1} spent?"
    rows = life.events.index[life.events["day"] == day]
    return text, str(counts.index[0]), life.house.rooms, list(rows), {"find": "room", "day": day}


def _order(life: AgentLife, rng: np.random.Generator) -> _Asked | None:
    first = life.events.drop_duplicates("object")
    if len(first) < 2:
        return None
    i, j = sorted(rng.choice(len(first), 2, replace=False))
    things = [int(first["object"].iloc[k]) for k in (i, j)]
    names = descriptions(life)
    told = [names[thing] for thing in things]
    if any(names.count(name) > 1 for name in told):
        return None
    swap = bool(rng.random() < 0.5)
    a, b = told[::-1] if swap else told
    query = {"find": "first", "objects": tuple(things[::-1] if swap else things)}
    text = f"Which was looked at first: the {a}, or the {b}?"
    return text, told[0], told, list(first.index[[i, j]]), query


def _item(life: AgentLife, rng: np.random.Generator) -> _Asked | None:
    put = life.events[life.events["item"] != ""]
    if put.empty:
        return None
    last = put.drop_duplicates("item", keep="last")
    chosen = int(rng.integers(len(last)))
    row = last.iloc[chosen]
    foils = list(life.house.objects["name"])
    query = {"find": "name", "item": row["item"]}
    return f"In what is the {row['item']} now?", row["name"], foils, [last.index[chosen]], query


_ASK: dict[str, Callable[[AgentLife, np.random.Generator], _Asked | None]] = {
    "seen": _seen, "heard": _heard, "gist": _gist, "order": _order, "item": _item,
}  # fmt: skip
KINDS = tuple(_ASK)


def ask_life(
    life: AgentLife,
    n: int,
    *,
    rng: np.random.Generator,
    kinds: Sequence[str] = KINDS,
    n_choices: int = 4,
) -> list[Question]:
    """Ask questions about a life, the kinds in turn, none twice.

    Parameters
    ----------
    life : AgentLife
    n : int
        There are fewer where the life has no more to ask for.
    rng : numpy.random.Generator
    kinds : sequence of str
        Of `KINDS`.
    n_choices : int
        The answer and foils, as many as there are.

    Returns
    -------
    list of Question
        ``evidence`` are rows of ``life.events``, and ``asked_at`` is their number.

    Raises
    ------
    ConfigError
        If there is no such kind, or a number is out of range.
    DataError
        If the life allows no such question.
    """
    unknown = [kind for kind in kinds if kind not in _ASK]
    if unknown or n < 1 or n_choices < 2:
        raise ConfigError(
            f"{n} questions of the kinds {', '.join(kinds)} with {n_choices} choices cannot be "
            "asked",
            where="ask_life",
            mend=f"use kinds of {', '.join(KINDS)}, and two choices or more",
        )
    found: dict[str, Question] = {}
    for turn in range(n):
        kind = kinds[turn % len(kinds)]
        for _ in range(_TRIES):
            asked = _ASK[kind](life, rng)
            if asked is None or asked[0] in found:
                continue
            text, answer, others, events, query = asked
            foils = [f for f in dict.fromkeys(others) if f != answer]
            if foils:
                shown = [answer, *(foils[i] for i in rng.permutation(len(foils))[: n_choices - 1])]
                choices = tuple(shown[i] for i in rng.permutation(len(shown)))
                evidence = tuple(sorted(map(int, events)))
                found[text] = Question(kind, text, answer, choices, evidence,
                                       len(life.events), query)  # fmt: skip
                break
    if not found:
        raise DataError("nothing happened that such a question could be asked of",
                        where="ask_life", mend="let more events happen")  # fmt: skip
    return list(found.values())
