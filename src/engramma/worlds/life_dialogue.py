"""Dialogue over days in which somebody tells of a life, with facts that change and are asked for.

The user tells what was put where (`engramma.worlds.agent_life`), what the things with invented
names are, and what they like; likings change. Of each fact the latest holds. Some facts come up
again after given numbers of days, so that memories which are strengthened by recall can keep
them. Probes ask for facts in other words than those in which they were told.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from engramma.errors import ConfigError
from engramma.worlds.agent_life import AgentLife
from engramma.worlds.story_words import FACTS, NAMES
from engramma.worlds.tables import rows

FIRST_DAY = datetime.date(2024, 3, 1)
_TOLD = {
    "place": ("I put the {s} into the {v} today.", "The {s} is in the {v} from now on.",
              "I moved the {s}; look into the {v} for it."),
    "category": ("The thing I call {s} is a {v}.", "My {v} has a name: {s}."),
    "room": ("You find the {s} in the {v}.", "The {s} stands in the {v}."),
    "liking": ("My {a} is {v} now.", "These days {v} is my {a}.", "I chose {v} as my {a}."),
}  # fmt: skip
_ASKED = {
    "place": ("Where did I leave the {s}?", "I need the {s}. Which piece of furniture holds it?"),
    "category": ("What sort of furniture is the {s}?", "What did I mean by {s}?"),
    "room": ("In which room should I look for the {s}?", "Where does the {s} belong?"),
    "liking": ("Which {a} would I pick?", "Do you remember my {a}?"),
}
_ANSWERED = ("I will remember that.", "Thank you for telling me.", "Good to know.")
_SMALL_TALK = (
    ("Good morning!", "Good morning to you."),
    ("I slept badly.", "I am sorry to hear that."),
    ("The weather is fine.", "Then go for a walk."),
    ("I have had a long day.", "Take some rest."),
    ("Tell me a joke.", "I know none, sadly."),
)


@dataclass(frozen=True)
class Probe:
    """A question about a fact, in other words.

    Parameters
    ----------
    text, answer : str
    choices : tuple of str
        The answer, what was true before, and other values that occur.
    fact : int
        Row of ``facts`` that holds.
    turns : tuple of int
        Rows of ``turns`` that tell or repeat that fact: what should be retrieved.
    """

    text: str
    answer: str
    choices: tuple[str, ...]
    fact: int
    turns: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Dialogue:
    """Dated turns, and the facts in them.

    Parameters
    ----------
    user : str
    turns : DataFrame
        A row each: ``date`` (ISO), ``day`` (from 0), ``query``, ``response``, ``kind`` (fact,
        recall, small talk), ``fact`` (row of ``facts`` or -1).
    facts : DataFrame
        A row each, in the order in which they are told: ``kind`` (place, category, room,
        liking), ``subject``, ``value``, ``turn``, ``day``, ``replaces`` (the fact that it
        contradicts, or -1), and ``holds`` (whether none contradicts it).
    probes : tuple of Probe
        Two about each fact that holds.
    """

    user: str
    turns: pd.DataFrame
    facts: pd.DataFrame
    probes: tuple[Probe, ...]

    def history(self) -> dict[str, object]:
        """Give the turns as the files of MemoryBank have them (Zhong et al. 2023)."""
        days = {
            str(date): group[["query", "response"]].to_dict("records")
            for date, group in self.turns.groupby("date")
        }
        return {self.user: {"name": self.user, "history": days}}


def dialogue(
    life: AgentLife,
    *,
    rng: np.random.Generator,
    n_likings: int = 8,
    recall_schedule: Sequence[int] = (1, 3),
    recalled: float = 0.5,
    small_talk: int = 2,
    n_choices: int = 4,
) -> Dialogue:
    """Write the dialogue of a life.

    Parameters
    ----------
    life : AgentLife
    rng : numpy.random.Generator
    n_likings : int
        How often a liking is told; most replace an earlier one, where there are more than kinds.
    recall_schedule : sequence of int
        Days after which a fact comes up again, if it still holds and there is such a day.
    recalled : float
        Share of the facts that do.
    small_talk : int
        Turns a day without any fact.
    n_choices : int
        Of the probes.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """
    if n_likings < 0 or small_talk < 0 or n_choices < 2 or not 0 <= recalled <= 1:
        raise ConfigError("a number of the dialogue is out of range", where="dialogue",
                          mend="recalled lies in 0 .. 1, and n_choices is at least 2")  # fmt: skip
    if any(lag < 1 for lag in recall_schedule):
        raise ConfigError("facts come up again on a later day", where="recall_schedule",
                          mend="name days from 1 on")  # fmt: skip
    facts = _facts(life, rng, n_likings)
    n_days = int(life.events["day"].max()) + 1
    plan: list[list[tuple[str, int]]] = [[("small talk", -1)] * small_talk for _ in range(n_days)]
    until = {f.replaces: f.day for f in rows(facts) if f.replaces >= 0}
    for number, fact in enumerate(rows(facts)):
        plan[fact.day].append(("fact", number))
        if rng.random() < recalled:
            for lag in recall_schedule:
                day = fact.day + lag
                if day < min(n_days, until.get(number, n_days)):
                    plan[day].append(("recall", number))
    said = []
    for day, entries in enumerate(plan):
        # Facts stay in the order in which they became true; the rest comes anywhere.
        order = iter(sorted(n for kind, n in entries if kind == "fact"))
        for i in rng.permutation(len(entries)):
            kind, number = entries[i]
            number = next(order) if kind == "fact" else number
            query, response = _turn(kind, facts, number, rng)
            date = (FIRST_DAY + datetime.timedelta(days=day)).isoformat()
            said.append((date, day, query, response, kind, number))
    turns = pd.DataFrame(said, columns=["date", "day", "query", "response", "kind", "fact"])
    told = turns[turns["kind"] == "fact"]
    facts["turn"] = pd.Series(told.index, index=told["fact"]).reindex(facts.index)
    facts["holds"] = ~facts.index.isin(facts["replaces"])
    user = NAMES[int(rng.integers(len(NAMES)))]
    return Dialogue(user, turns, facts, _probes(turns, facts, rng, n_choices))


def _facts(life: AgentLife, rng: np.random.Generator, n_likings: int) -> pd.DataFrame:
    """Everything that is told, in the order in which it becomes true."""
    told: list[tuple[int, float, str, str, str]] = []
    seen: set[str] = set()
    objects = life.house.objects.set_index("name")
    for e in rows(life.events):
        if e.name not in seen:  # a thing is introduced when it is first visited
            seen.add(e.name)
            told.append((e.day, e.start, "category", e.name, str(objects["category"][e.name])))
            told.append((e.day, e.start, "room", e.name, e.room))
        if e.item:
            told.append((e.day, e.stop, "place", e.item, e.name))
    n_days = int(life.events["day"].max()) + 1
    now: dict[str, str] = {}
    for day in sorted(rng.integers(0, n_days, n_likings).tolist()):
        topic = list(FACTS)[int(rng.integers(len(FACTS)))]
        others = [v for v in FACTS[topic] if v != now.get(topic)]
        now[topic] = others[int(rng.integers(len(others)))]
        told.append((day, np.inf, "liking", topic, now[topic]))
    told.sort(key=lambda fact: fact[:2])
    latest: dict[tuple[str, str], int] = {}
    table: list[tuple[str, str, str, int, int]] = []
    for day, _, kind, subject, value in told:
        before = latest.get((kind, subject), -1)
        if before >= 0 and table[before][2] == value:
            continue  # put where it already was: nothing new
        latest[kind, subject] = len(table)
        table.append((kind, subject, value, day, before))
    return pd.DataFrame(table, columns=["kind", "subject", "value", "day", "replaces"])


def _turn(kind: str, facts: pd.DataFrame, number: int, rng: np.random.Generator) -> tuple[str, str]:
    """Query and response of a turn."""
    if kind == "small talk":
        return _SMALL_TALK[int(rng.integers(len(_SMALL_TALK)))]
    fact = facts.iloc[number]
    words = {"s": fact["subject"], "v": fact["value"], "a": fact["subject"]}
    told = _TOLD[fact["kind"]]
    text = told[int(rng.integers(len(told)))].format(**words)
    if kind == "recall":
        return f"Let me say it again: {text}", "Yes, you told me so."
    return text, _ANSWERED[int(rng.integers(len(_ANSWERED)))]


def _probes(
    turns: pd.DataFrame, facts: pd.DataFrame, rng: np.random.Generator, n_choices: int
) -> tuple[Probe, ...]:
    probes = []
    for number in np.flatnonzero(facts["holds"]):
        fact = facts.iloc[number]
        kind, subject, value = fact["kind"], fact["subject"], fact["value"]
        same = facts[facts["kind"] == kind]
        before = same.loc[same["subject"] == subject, "value"]
        others = list(FACTS[subject]) if kind == "liking" else list(same["value"].unique())
        shuffled = [others[i] for i in rng.permutation(len(others))]
        foils = [v for v in dict.fromkeys([*before[::-1], *shuffled]) if v != value]
        if not foils:
            continue
        shown = [value, *foils[: n_choices - 1]]
        told = tuple(int(i) for i in turns.index[turns["fact"] == number])
        for wording in _ASKED[kind]:
            choices = tuple(shown[i] for i in rng.permutation(len(shown)))
            text = wording.format(s=subject, a=subject)
            probes.append(Probe(text, value, choices, int(number), told))
    return tuple(probes)
