"""The world of the stories: people who go about, and things that are handled.

A state machine: `StoryWorld.options` lists what somebody can do now, `StoryWorld.happen` does it.
All that stories tell, and all answers, follow from the list of events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from engramma.worlds.story_words import (
    BREAKABLE,
    CONTAINERS,
    FACTS,
    FOOD,
    SHOPS,
    category,
)

#: How likely each kind of event is, where it is possible.
WEIGHTS = {
    "take": 5.0, "put": 3.0, "give": 5.0, "hide": 2.0, "find": 4.0, "eat": 0.7, "buy": 4.0,
    "break": 0.7, "repair": 4.0, "meet": 1.0, "go": 1.5, "say": 1.5, "fact": 0.7,
}  # fmt: skip
#: Events after which a thing may be elsewhere, or with somebody else.
HANDLING = ("take", "put", "give", "hide", "find", "eat", "buy")
#: What would make an event pointless if it came next.
UNDONE_BY = {
    "take": "put", "put": "take", "find": "hide", "hide": "find", "break": "repair",
    "repair": "break", "eat": "buy",
}  # fmt: skip
MOST_CARRIED = 3


@dataclass(slots=True)
class Event:
    """Something that happens, or is said.

    Parameters
    ----------
    kind : str
        A key of `WEIGHTS`.
    person : str
        Who does or says it.
    place : str
        Where; of ``go``, where to.
    thing, other, container : str
        Empty where the kind has none.
    topic, value : str
        Of ``say``: what is spoken of, and where it is said to be; of ``fact``: the attribute
        and what it is from now on.
    true : bool
        Whether what is said agrees with the world.
    """

    kind: str
    person: str
    place: str
    thing: str = ""
    other: str = ""
    container: str = ""
    topic: str = ""
    value: str = ""
    true: bool = True

    def arguments(self) -> tuple[str, ...]:
        """Person, colour and category of the thing, other person."""
        colour, _, kind = self.thing.partition(" ")
        return (self.person, colour, kind, self.other)


@dataclass
class StoryWorld:
    """Where everybody and everything is.

    Parameters
    ----------
    people, things, places : sequence of str
        Things are ``COLOUR CATEGORY``.
    rng : numpy.random.Generator
    contradiction_rate, update_rate : float
        How often something said is false, and how often a fact already told is told anew.
    """

    people: Sequence[str]
    things: Sequence[str]
    places: Sequence[str]
    rng: np.random.Generator
    contradiction_rate: float = 0.0
    update_rate: float = 0.0
    at: dict[str, str] = field(init=False)
    #: Where each thing is that nobody holds; eaten things are nowhere.
    lies: dict[str, str] = field(init=False)
    holder: dict[str, str] = field(init=False, default_factory=dict)
    hidden: dict[str, str] = field(init=False, default_factory=dict)
    broken: set[str] = field(init=False, default_factory=set)
    facts: dict[tuple[str, str], str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.at = {p: self.any_of(self.places) for p in self.people}
        self.lies = {t: self.any_of(self.places) for t in self.things}

    def any_of(self, options: Sequence[str]) -> str:
        """Draw one of several."""
        return options[int(self.rng.random() * len(options))]

    def place_of(self, entity: str) -> str:
        """Where a person or thing is; empty for what was eaten."""
        if entity in self.at:
            return self.at[entity]
        return self.at[self.holder[entity]] if entity in self.holder else self.lies.get(entity, "")

    def present(self, place: str) -> list[str]:
        """Everybody who is in a place."""
        return [p for p, where in self.at.items() if where == place]

    # -- what can happen -------------------------------------------------------------------

    def options(self, person: str, may_leave: bool) -> Iterator[Event]:
        """All that a person can do now."""
        place = self.at[person]
        others = [p for p in self.present(place) if p != person]
        held = [t for t, p in self.holder.items() if p == person]
        for thing in held:
            yield Event("put", person, place, thing)
            yield Event("hide", person, place, thing, container=self.any_of(CONTAINERS))
            for other in others:
                yield Event("give", person, place, thing, other)
            if category(thing) in FOOD:
                yield Event("eat", person, place, thing)
            if category(thing) in BREAKABLE:
                yield Event("repair" if thing in self.broken else "break", person, place, thing)
        if len(held) < MOST_CARRIED:
            for thing, where in self.lies.items():
                if where == place:
                    box = self.hidden.get(thing, "")
                    yield Event("find" if box else "take", person, place, thing, container=box)
            if place in SHOPS:
                for thing in self.things:
                    if thing not in self.lies and thing not in self.holder:
                        yield Event("buy", person, place, thing)
        for other in others:
            yield Event("meet", person, place, other=other)
            yield self._saying(person, other)
        if (fact := self._fact(person)) is not None:
            yield fact
        if may_leave:
            elsewhere = [p for p in self.places if p != place]
            yield Event("go", person, self.any_of(elsewhere))

    def _saying(self, person: str, other: str) -> Event:
        there = [e for e in (*self.people, *self.things)
                 if e not in (person, other) and self.place_of(e)]  # fmt: skip
        topic = self.any_of(there) if there else person
        where, true = self.place_of(topic), True
        if self.rng.random() < self.contradiction_rate:
            where, true = self.any_of([p for p in self.places if p != where]), False
        place = self.at[person]
        return Event("say", person, place, other=other, topic=topic, value=where, true=true)

    def _fact(self, person: str) -> Event | None:
        told = [a for a in FACTS if (person, a) in self.facts]
        new = [a for a in FACTS if a not in told]
        anew = bool(told) and self.rng.random() < self.update_rate
        if not anew and not new:
            return None
        topic = self.any_of(told if anew else new)
        before = self.facts.get((person, topic))
        value = self.any_of([v for v in FACTS[topic] if v != before])
        return Event("fact", person, self.at[person], topic=topic, value=value)

    # -- what happens ----------------------------------------------------------------------

    def happen(self, event: Event) -> None:
        """Change the world as an event does."""
        person, thing = event.person, event.thing
        if event.kind == "go":
            self.at[person] = event.place
        elif event.kind in ("take", "find", "buy"):
            self.lies.pop(thing, None)
            self.hidden.pop(thing, None)
            self.holder[thing] = person
        elif event.kind in ("put", "hide"):
            del self.holder[thing]
            self.lies[thing] = event.place
            if event.kind == "hide":
                self.hidden[thing] = event.container
        elif event.kind == "give":
            self.holder[thing] = event.other
        elif event.kind == "eat":
            del self.holder[thing]
        elif event.kind == "break":
            self.broken.add(thing)
        elif event.kind == "repair":
            self.broken.discard(thing)
        elif event.kind == "fact":
            self.facts[person, event.topic] = event.value
