"""Scenes that happen one after the other, and the story that tells them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from engramma.errors import ConfigError
from engramma.worlds.story_telling import Teller, next_part
from engramma.worlds.story_words import FACTS, MOST_WEEKS, PARTS, vocabulary
from engramma.worlds.story_world import HANDLING, UNDONE_BY, WEIGHTS, Event, StoryWorld

#: Shortest and longest scene, in things that happen; how often two are told in one sentence.
SCENE_LENGTH, JOINED = (3, 9), 0.25
#: How likely the next scene plays later, and the main person of a scene acts.
TIME_PASSES, MAIN_ACTS = 0.75, 0.65


@dataclass(frozen=True, eq=False)
class StoryState:
    """Where everybody and everything is, before the first and after each event.

    Parameters
    ----------
    person_place, thing_place : ndarray of int16, shape (events + 1, people or things)
        Index of the place; -1 for what was eaten.
    holder : ndarray of int16, shape (events + 1, things)
        Index of the person who has the thing, or -1.
    hidden, broken : ndarray of bool, shape (events + 1, things)
    """

    person_place: np.ndarray
    thing_place: np.ndarray
    holder: np.ndarray
    hidden: np.ndarray
    broken: np.ndarray


@dataclass(frozen=True, eq=False)
class Story:
    """A story with all that is true in it.

    Parameters
    ----------
    sentences : DataFrame
        A row each: ``text``, ``kind`` (event, whereabouts, possession, distractor), ``events``
        (tuple of rows of ``events``, in the order in which they happen), ``entities`` (tuple of
        the people and things of these events, or of what is said again), ``place``, ``day``
        (from 0), ``part`` of the day, ``scene``, ``anaphora`` (whether a pronoun stands for
        somebody or something in the sentence before), and ``boundary`` (first sentence of a scene).
    events : DataFrame
        A row each, in order of time: ``sentence``, the fields of
        `engramma.worlds.story_world.Event`, ``day``, ``part``, ``scene``, and ``look_alike``: the
        latest earlier event of the same kind that differs in one argument only, else -1.
    people : DataFrame
        By name: ``job``, ``town``, ``instrument``, which no sentence tells.
    things, places : tuple of str
    state : StoryState
    """

    sentences: pd.DataFrame
    events: pd.DataFrame
    people: pd.DataFrame
    things: tuple[str, ...]
    places: tuple[str, ...]
    state: StoryState

    @property
    def text(self) -> str:
        """The whole story."""
        return " ".join(self.sentences["text"])

    @property
    def vocabulary(self) -> list[str]:
        """All words that stories may use, whatever the seed."""
        return vocabulary()


@dataclass
class Author:
    """Lets scenes happen in a world, and writes them down.

    Parameters
    ----------
    world : StoryWorld
    rng : numpy.random.Generator
    look_alike_rate, distractor_rate, recap_rate : float
        As in `engramma.worlds.stories.stories`.
    """

    world: StoryWorld
    rng: np.random.Generator
    look_alike_rate: float
    distractor_rate: float
    recap_rate: float
    sentences: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    day: int = 0
    part: str = PARTS[0]
    scene: int = -1
    place: str = ""

    def __post_init__(self) -> None:
        self.teller = Teller(self.rng)
        #: People and things whose place has been told.
        self.known: dict[str, None] = {}
        #: Events with one argument left out: that argument, and when it was so last.
        self.seen: dict[tuple[str, ...], dict[str, int]] = {}
        self.snapshots = [self._snapshot()]

    def write(self, n_sentences: int, facts: pd.DataFrame) -> Story:
        """Tell scenes until there are enough sentences.

        Parameters
        ----------
        n_sentences : int
        facts : DataFrame
            What is true of people and not told, by name.

        Raises
        ------
        ConfigError
            If the story outlasts the calendar.
        """
        for _ in islice(self._tell_scenes(), n_sentences):
            pass
        sentences = pd.DataFrame(
            self.sentences,
            columns=["text", "kind", "events", "entities", "place", "day", "part", "scene",
                     "anaphora"],
        )  # fmt: skip
        sentences["boundary"] = sentences["scene"].diff() != 0
        names = [*Event.__dataclass_fields__]
        events = pd.DataFrame(
            self.events, columns=["sentence", *names, "day", "part", "scene", "look_alike"]
        )
        kinds = (np.int16, np.int16, np.int16, bool, bool)
        columns = zip(*self.snapshots, strict=True)
        state = StoryState(*(np.array(c, k) for c, k in zip(columns, kinds, strict=True)))
        cast = self.world
        return Story(
            sentences=sentences,
            events=events,
            people=facts.loc[list(cast.people)],
            things=tuple(cast.things),
            places=tuple(cast.places),
            state=state,
        )

    def _snapshot(self) -> tuple[list[int], list[int], list[int], list[bool], list[bool]]:
        w = self.world
        place = {p: i for i, p in enumerate(w.places)} | {"": -1}
        person = {p: i for i, p in enumerate(w.people)}
        return (
            [place[w.at[p]] for p in w.people],
            [place[w.place_of(t)] for t in w.things],
            [person[w.holder[t]] if t in w.holder else -1 for t in w.things],
            [t in w.hidden for t in w.things],
            [t in w.broken for t in w.things],
        )

    # -- scenes; each ``yield`` is a sentence ------------------------------------------------

    def _tell_scenes(self) -> Iterator[None]:
        world, rng = self.world, self.rng
        while True:
            new_day, new_part = self.scene < 0, self.scene < 0
            if self.scene >= 0 and rng.random() < TIME_PASSES:
                day, self.part = next_part(self.day, self.part)
                new_day, new_part, self.day = day > self.day, True, day
            if self.day >= 7 * MOST_WEEKS:
                raise ConfigError(
                    f"the story lasts longer than {MOST_WEEKS} weeks", where="n_sentences",
                    mend="ask for fewer sentences, or for several stories",
                )  # fmt: skip
            self.scene += 1
            main = world.any_of(world.people)
            self.place = world.any_of([p for p in world.places if p != world.at[main]])
            arrival = Event("go", main, self.place)
            self._happen(arrival)
            text = self.teller.opening(arrival, self.day, self.part, new_day, new_part)
            self._write(text, "event", [arrival])
            yield
            others = [p for p in world.people if p != main]
            for i in rng.permutation(len(others))[: int(rng.integers(0, 3))]:
                if world.at[others[i]] != self.place:
                    arrival = Event("go", others[i], self.place)
                    self._happen(arrival)
                    self._write(self.teller.one(arrival), "event", [arrival])
                    yield
            for _ in range(int(rng.integers(*SCENE_LENGTH))):
                self._step(main)
                yield

    def _step(self, main: str) -> None:
        world, rng = self.world, self.rng
        luck = rng.random()
        if luck < self.distractor_rate:
            self._write(self.teller.distractor(world), "distractor", [])
            return
        if luck < self.distractor_rate + self.recap_rate and self.known:
            entity = world.any_of(list(self.known))
            if entity in world.holder and rng.random() < 0.5:
                text, about = self.teller.possession(entity, world), (entity, world.holder[entity])
                self._write(text, "possession", [], about)
            else:
                self._write(self.teller.whereabouts(entity, world), "whereabouts", [], (entity,))
            return
        others = [p for p in world.present(self.place) if p != main]
        person = world.any_of(others) if others and rng.random() > MAIN_ACTS else main
        first = self._choose(person, may_leave=person != main)
        if first is None:
            self._write(self.teller.distractor(world), "distractor", [])
            return
        self._happen(first)
        if first.thing and rng.random() < JOINED:
            second = self._choose(person, may_leave=False)
            if second is not None and second.thing:
                self._happen(second)
                self._write(self.teller.two(first, second), "event", [first, second])
                return
        self._write(self.teller.one(first), "event", [first])

    def _choose(self, person: str, may_leave: bool) -> Event | None:
        """Draw what somebody does, if there is anything to do; it does not undo the last event."""
        last = self.events[-1]
        undo = (UNDONE_BY.get(last[1]), last[4])
        options = [e for e in self.world.options(person, may_leave) if (e.kind, e.thing) != undo]
        if self.rng.random() < self.look_alike_rate:
            options = [e for e in options if self._look_alike(e) >= 0] or options
        if not options:
            return None
        kinds = list(dict.fromkeys(e.kind for e in options))
        weights = np.cumsum([WEIGHTS[kind] for kind in kinds])
        kind = kinds[int(np.searchsorted(weights, self.rng.random() * weights[-1]))]
        same = [e for e in options if e.kind == kind]
        return same[int(self.rng.random() * len(same))]

    def _look_alike(self, event: Event) -> int:
        latest = -1
        for value, masked in _masked(event):
            for other, when in self.seen.get(masked, {}).items():
                if other != value:
                    latest = max(latest, when)
        return latest

    def _happen(self, event: Event) -> None:
        """Let an event happen, which the sentence that comes next tells."""
        alike = self._look_alike(event)
        for value, masked in _masked(event):
            self.seen.setdefault(masked, {})[value] = len(self.events)
        self.world.happen(event)
        self.events.append(
            (len(self.sentences), *(getattr(event, name) for name in Event.__dataclass_fields__),
             self.day, self.part, self.scene, alike)
        )  # fmt: skip
        self.snapshots.append(self._snapshot())
        if event.kind == "eat":
            self.known.pop(event.thing, None)
        elif event.kind in HANDLING:
            self.known[event.thing] = None
        elif event.kind == "go":
            self.known[event.person] = None

    def _write(
        self, text: str, kind: str, events: list[Event], about: tuple[str, ...] = ()
    ) -> None:
        """Add a sentence, which tells the last events."""
        last = len(self.events)
        named = (n for e in events for n in (e.person, e.thing, e.other, e.topic) if n)
        entities = about or tuple(n for n in dict.fromkeys(named) if n not in FACTS)
        self.sentences.append(
            (text, kind, tuple(range(last - len(events), last)), entities, self.place, self.day,
             self.part, self.scene, self.teller.anaphora)
        )  # fmt: skip


def _masked(event: Event) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each argument of what is done with a thing, and the event without it."""
    if event.thing:
        arguments = event.arguments()
        for i, value in enumerate(arguments):
            yield value, (event.kind, str(i), *arguments[:i], *arguments[i + 1 :])
