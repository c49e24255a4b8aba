"""Questions about a story: who, what, where, when, in which order, and what is true now.

Answers are computed from the table of events, never from the text. Each question names the
sentences that carry its evidence, and offers foils from the same story, so that guessing what is
plausible does not help.

========  ============================================  ==================================
kind      example                                       rests on
========  ============================================  ==================================
who       Who gave the red car to Tom?                  that event
what      What did Mia give to Tom?                     that event
where     Where did Mia take the red car?               that event, the scene's opening
when      When did Mia take the red car?                that event, what told the date
order     Which happened first: ... or ...?             both events, of one kind
place     Where is the red car now?                     last handling, its holder's arrival;
                                                        or a later sentence that says so
holder    Who has the red car now?                      last handling
previous  Where was Mia before she went to the park?    both arrivals
fact      What is the favourite colour of Mia?          what was told last
knowledge What is the job of Mia?                       nothing in the story
========  ============================================  ==================================

Which of two pieces of the text came first is asked by `engramma.worlds.story_segments`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engramma.errors import ConfigError, DataError
from engramma.worlds.story_author import Story
from engramma.worlds.story_telling import date
from engramma.worlds.story_words import FACTS, KNOWLEDGE_QUESTIONS, PHRASES
from engramma.worlds.story_world import HANDLING
from engramma.worlds.tables import rows

#: Infinitives, with what follows the thing.
DID = {
    "take": "take {t}", "put": "put {t} down", "give": "give {t} to {o}",
    "hide": "hide {t} in the {container}", "find": "find {t} in the {container}",
    "eat": "eat {t}", "buy": "buy {t}", "break": "break {t}", "repair": "repair {t}",
    "go": "go to the {place}", "meet": "meet {o}",
}  # fmt: skip
#: What identifies an event of each kind, beside its person.
ARGUMENTS = {
    "give": ("thing", "other"), "hide": ("thing", "container"), "find": ("thing", "container"),
    "go": ("place",), "meet": ("other",),
}  # fmt: skip
_TRIES = 60


@dataclass(frozen=True)
class Question:
    """A question whose answer follows from the events.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    text, answer : str
    choices : tuple of str
        The answer among foils that occur in the same story.
    evidence : tuple of int
        Rows of ``story.sentences`` from which the answer can be known, sorted; none for
        knowledge.
    asked_at : int
        So many sentences were told before.
    query : dict
        The question in terms of the table of events: ``kind`` and further columns that are
        given, and what is to be found (``find``).
    """

    kind: str
    text: str
    answer: str
    choices: tuple[str, ...]
    evidence: tuple[int, ...]
    asked_at: int
    query: dict[str, Any]

    @property
    def distance(self) -> int | None:
        """Sentences from the oldest evidence to the question; None where none is told."""
        return self.asked_at - self.evidence[0] if self.evidence else None

    @property
    def chance(self) -> float:
        """Accuracy of guessing among the choices."""
        return 1 / len(self.choices)


#: text, answer, foils, evidence, query
_Asked = tuple[str, str, Sequence[str], Sequence[int], dict[str, Any]]


class _Asker:
    """What can be asked of a story after so many sentences."""

    def __init__(self, story: Story, asked_at: int, rng: np.random.Generator) -> None:
        self.story, self.rng = story, rng
        events = story.events[story.events["sentence"] < asked_at]
        self.rows = rows(events)
        self.of_kind: dict[str, list[Any]] = {}
        for row in self.rows:
            self.of_kind.setdefault(row.kind, []).append(row)
        told = story.sentences.iloc[:asked_at]
        self.dates = list(dict.fromkeys(zip(told["day"], told["part"], strict=True)))
        self.day_told = {d: i for i, d in reversed(list(enumerate(told["day"])))}
        days = zip(told["day"], told["part"], strict=True)
        self.part_told = {d: i for i, d in reversed(list(enumerate(days)))}
        self.scene_told = {s: int(i) for i, s in told.loc[told["boundary"], "scene"].items()}
        #: Last sentence that says again where somebody or something is, or who has it.
        self.again: dict[str, dict[str, int]] = {"whereabouts": {}, "possession": {}}
        for i, kind, entities in zip(told.index, told["kind"], told["entities"], strict=True):
            if kind in self.again:
                self.again[kind][entities[0]] = int(i)
        self.arrivals: dict[str, list[Any]] = {}
        self.handled: dict[str, Any] = {}
        #: Last event that somebody took part in.
        self.seen: dict[str, Any] = {}
        for row in self.rows:
            self.seen[row.person] = row
            if row.other:
                self.seen[row.other] = row
            if row.kind == "go":
                self.arrivals.setdefault(row.person, []).append(row)
            elif row.kind in HANDLING:
                self.handled[row.thing] = row

    def _any(self, options: Sequence[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def _date_told(self, row: Any) -> list[int]:
        return [self.day_told[row.day], self.part_told[row.day, row.part]]

    # -- events ----------------------------------------------------------------------------

    def event(self, find: str) -> _Asked | None:
        """Ask for the person, thing, place or date of an event that all the rest identifies."""
        row = self._any(self.rows)
        if row.kind not in DID:
            return None
        given = {
            name: getattr(row, name) for name in ("person", *ARGUMENTS.get(row.kind, ("thing",)))
        }
        wanted = {"who": "person", "what": "thing", "where": "place", "when": "date"}[find]
        if find == "what" and "thing" not in given:
            return None
        given.pop(wanted, None)
        query = {"kind": row.kind, **given}
        evidence = [row.sentence]
        when = ""
        if find == "when":
            evidence += self._date_told(row)
        elif len(self._matching(query)) > 1:
            query |= {"day": row.day, "part": row.part}
            evidence += self._date_told(row)
            when = f" on {date(row.day, row.part)}"
        if len(self._matching(query)) != 1:
            return None
        if find == "where" and row.kind != "go":
            evidence.append(self.scene_told[row.scene])
        text, answer, foils = self._wording(row, find)
        return f"{text}{when}?", answer, foils, evidence, query | {"find": wanted}

    def _matching(self, query: dict[str, Any]) -> list[Any]:
        return [
            row for row in self.of_kind[query["kind"]]
            if all(getattr(row, name) == value for name, value in query.items())
        ]  # fmt: skip

    def _wording(self, row: Any, find: str) -> tuple[str, str, Sequence[str]]:
        words = {"t": f"the {row.thing}", "o": row.other, "place": row.place,
                 "container": row.container}  # fmt: skip
        if find == "who":
            others = [p for p in self.story.people.index if p != row.other]
            return f"Who {PHRASES[row.kind][0].past.format(**words)}", row.person, others
        if find == "what":
            did = DID[row.kind].replace("{t} ", "").replace("{t}", "").format(**words).strip()
            return f"What did {row.person} {did}", row.thing, self.story.things
        if find == "where":
            did = "go" if row.kind == "go" else DID[row.kind].format(**words)
            return f"Where did {row.person} {did}", row.place, self.story.places
        did = DID[row.kind].format(**words)
        dates = [date(*d) for d in self.dates]
        return f"When did {row.person} {did}", date(row.day, row.part), dates

    def order(self) -> _Asked | None:
        """Ask which of two events of one kind happened first."""
        kind = self._any(("take", "give", "put", "hide", "find", "meet"))
        same = self.of_kind.get(kind, [])
        if len(same) < 2:
            return None
        i, j = sorted(self.rng.choice(len(same), 2, replace=False))
        told, queries = [], []
        for row in (same[i], same[j]):
            names = ("person", *ARGUMENTS.get(kind, ("thing",)))
            query = {"kind": kind} | {name: getattr(row, name) for name in names}
            if len(self._matching(query)) != 1:
                return None
            queries.append(query)
            past = PHRASES[kind][0].past.format(
                t=f"the {row.thing}", o=row.other, container=row.container
            )
            told.append(f"{row.person} {past}")
        swap = bool(self.rng.random() < 0.5)
        shown = told[::-1] if swap else told
        text = f"Which happened first: {shown[0]}, or {shown[1]}?"
        query = {"find": "first", "events": tuple(queries[::-1] if swap else queries)}
        return text, told[0], told, [same[i].sentence, same[j].sentence], query

    # -- what is true now --------------------------------------------------------------------

    def _said_again(self, kind: str, entity: str) -> int:
        return self.again[kind].get(entity, -1)

    def _told_place(self, person: str) -> tuple[str, list[int]]:
        """Where somebody is, and the sentences that tell it."""
        if self.arrivals.get(person):
            arrival = self.arrivals[person][-1]
            return arrival.place, [max(arrival.sentence, self._said_again("whereabouts", person))]
        seen = self.seen[person]
        return seen.place, [seen.sentence, self.scene_told[seen.scene]]

    def place(self) -> _Asked | None:
        """Ask where somebody or something is, if it was told."""
        things = [t for t, row in self.handled.items() if row.kind != "eat"]
        entity = self._any([*self.seen, *things])
        if entity in self.seen:
            where, evidence = self._told_place(entity)
            about = entity
        else:
            row = self.handled[entity]
            about, evidence = f"the {entity}", [row.sentence]
            if _holder(row):
                where, told = self._told_place(_holder(row))
            else:
                where, told = row.place, [self.scene_told[row.scene]]
            evidence += told
        again = self._said_again("whereabouts", entity)
        if again > max(evidence):
            evidence = [again]
        query = {"find": "place", "entity": entity}
        return f"Where is {about} now?", where, self.story.places, evidence, query

    def holder(self) -> _Asked | None:
        """Ask who has a thing that somebody has."""
        held = [row for row in self.handled.values() if _holder(row)]
        if not held:
            return None
        row = self._any(held)
        text = f"Who has the {row.thing} now?"
        query = {"find": "holder", "entity": row.thing}
        told = max(row.sentence, self._said_again("possession", row.thing))
        return text, _holder(row), list(self.story.people.index), [told], query

    def previous(self) -> _Asked | None:
        """Ask where somebody was before they last went to a place."""
        if not self.arrivals:
            return None
        person = self._any(list(self.arrivals))
        arrivals = self.arrivals[person]
        last = {row.place: i for i, row in enumerate(arrivals)}
        place = self._any(list(last))
        if last[place] == 0:
            return None
        before, after = arrivals[last[place] - 1 : last[place] + 1]
        text = f"Where was {person} before {person} last went to the {place}?"
        foils = [p for p in self.story.places if p != place]
        query = {"find": "previous", "person": person, "place": place}
        return text, before.place, foils, [before.sentence, after.sentence], query

    def fact(self) -> _Asked | None:
        """Ask for a fact, as it was told last."""
        told = self.of_kind.get("fact", [])
        if not told:
            return None
        row = self._any(told)
        last = [r for r in told if (r.person, r.topic) == (row.person, row.topic)][-1]
        text = f"What is the {row.topic} of {row.person}?"
        query = {"find": "value", "person": row.person, "topic": row.topic}
        return text, last.value, FACTS[row.topic], [last.sentence], query

    def knowledge(self) -> _Asked | None:
        """Ask for what no sentence tells."""
        people = self.story.people
        person, topic = self._any(list(people.index)), self._any(list(people.columns))
        foils = sorted(set(people[topic]))
        query = {"find": topic, "person": person}
        answer = str(people.loc[person, topic])
        return KNOWLEDGE_QUESTIONS[topic].format(p=person), answer, foils, [], query


def _holder(row: Any) -> str:
    """Who has a thing after it was handled, if anybody has."""
    return {"take": row.person, "find": row.person, "buy": row.person, "give": row.other}.get(
        row.kind, ""
    )


_ASK: dict[str, Callable[[_Asker], _Asked | None]] = {
    "who": lambda a: a.event("who"),
    "what": lambda a: a.event("what"),
    "where": lambda a: a.event("where"),
    "when": lambda a: a.event("when"),
    "order": _Asker.order,
    "place": _Asker.place,
    "holder": _Asker.holder,
    "previous": _Asker.previous,
    "fact": _Asker.fact,
    "knowledge": _Asker.knowledge,
}
KINDS = tuple(_ASK)


def ask(
    story: Story,
    n: int,
    *,
    rng: np.random.Generator,
    kinds: Sequence[str] = KINDS[:-1],
    asked_at: int | None = None,
    n_choices: int = 4,
) -> list[Question]:
    """Ask questions about a story, the kinds in turn, none twice.

    Parameters
    ----------
    story : Story
    n : int
        There are fewer where the story has no more to ask for.
    rng : numpy.random.Generator
    kinds : sequence of str
        Of `KINDS`; all but knowledge by default.
    asked_at : int, optional
        Ask after so many sentences; by default at the end.
    n_choices : int
        The answer and foils; fewer where the story does not hold so many.

    Raises
    ------
    ConfigError
        If there is no such kind, or a number is out of range.
    DataError
        If the sentences do not allow any such question.
    """
    for kind in kinds:
        if kind not in _ASK:
            raise ConfigError(f"there is no kind of question {kind!r}", where="kinds",
                              mend=f"use some of {', '.join(KINDS)}")  # fmt: skip
    length = len(story.sentences)
    asked_at = length if asked_at is None else asked_at
    if not 1 <= asked_at <= length:
        raise ConfigError(f"the story has {length} sentences, not {asked_at}", where="asked_at")
    if n_choices < 2 or n < 1:
        raise ConfigError(f"{n} questions with {n_choices} choices are none", where="n, n_choices",
                          mend="ask at least one, with at least two choices")  # fmt: skip
    asker = _Asker(story, asked_at, rng)
    pronouns = story.sentences["anaphora"].to_numpy()
    found: dict[str, Question] = {}
    for kind in _turns(kinds, n):
        for _ in range(_TRIES):
            asked = _ASK[kind](asker)
            if asked is None or asked[0] in found:
                continue
            text, answer, others, evidence, query = asked
            foils = [str(f) for f in dict.fromkeys(others) if f != answer]
            if foils:
                foils = [foils[i] for i in rng.permutation(len(foils))[: n_choices - 1]]
                shown = [answer, *foils]
                choices = tuple(shown[i] for i in rng.permutation(len(shown)))
                told = tuple(sorted(_with_antecedents(evidence, pronouns)))
                found[text] = Question(kind, text, answer, choices, told, asked_at, query)
                break
    if not found:
        raise DataError(
            f"{asked_at} sentences allow no question of the kinds {', '.join(kinds)}",
            mend="ask later, or other kinds",
        )
    return list(found.values())


def _with_antecedents(evidence: Sequence[int], anaphora: np.ndarray) -> set[int]:
    """Sentences, and those before them that say who *she* and what *it* is."""
    found = set()
    for sentence in map(int, evidence):
        found.add(sentence)
        while anaphora[sentence]:
            sentence -= 1
            found.add(sentence)
    return found


def _turns(kinds: Sequence[str], n: int) -> Iterator[str]:
    return (kinds[i % len(kinds)] for i in range(n))
