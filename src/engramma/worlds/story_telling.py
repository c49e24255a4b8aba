"""From events to sentences: varied wordings, pronouns, subordinate clauses, direct speech."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engramma.worlds.story_words import (
    DISTRACTORS,
    FEMALE,
    NEW_DAY,
    NEW_PART,
    PARTS,
    PASSIVE,
    PHRASES,
    POSSESSION,
    SAME_PART,
    SAYINGS,
    TELLINGS,
    WEEKDAYS,
    WHEREABOUTS,
    they,
)
from engramma.worlds.story_world import Event, StoryWorld

#: How often a pronoun is used where it is clear, and a sentence is in the passive voice.
PRONOUN, PASSIVE_VOICE = 0.5, 0.12


def noun(entity: str) -> str:
    """Put the article before a thing; people have none."""
    return entity if entity[0].isupper() else f"the {entity}"


def opened(text: str) -> str:
    """Text with a capital."""
    return text[0].upper() + text[1:]


def date(day: int, part: str) -> str:
    """Name a time: ``Monday morning of week 2``."""
    return f"{WEEKDAYS[day % 7]} {part} of week {day // 7 + 1}"


class Teller:
    """Writes sentences, and remembers who and what the last one was about.

    A pronoun stands only for the subject of the last sentence, if no second person of that
    gender was in it, and for its only thing.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.forget()

    def forget(self) -> None:
        """Begin a scene: nothing was mentioned."""
        self.subject, self.people, self.things = "", [""], [""]
        #: Whether the sentence that is being written needs the one before it to be understood.
        self.anaphora = False

    def _any(self, options: Sequence[str]) -> str:
        return options[int(self.rng.random() * len(options))]

    def _chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    # -- parts -----------------------------------------------------------------------------

    def _who(self, person: str) -> str:
        same = [p for p in self.people if p and (p in FEMALE) == (person in FEMALE)]
        clear = self.subject == person and same == [person]
        if clear and self._chance(PRONOUN):
            self.anaphora = True
            return they(person)
        return person

    def _what(self, thing: str) -> str:
        if self.things == [thing] and self._chance(PRONOUN):
            self.anaphora = True
            return "it"
        return f"the {thing}"

    def _phrase(self, event: Event, what: str, participle: bool = False) -> str:
        phrases = PHRASES[event.kind]
        phrase = phrases[int(self.rng.random() * len(phrases))]
        return (phrase.participle if participle else phrase.past).format(
            t=what, o=event.other, place=event.place, container=event.container
        )

    def _mention(self, events: Sequence[Event]) -> None:
        self.subject = events[-1].person
        self.people = list(dict.fromkeys(p for e in events for p in (e.person, e.other) if p))
        self.things = list(dict.fromkeys(e.thing for e in events if e.thing))

    # -- sentences -------------------------------------------------------------------------

    def opening(self, event: Event, day: int, part: str, new_day: bool, new_part: bool) -> str:
        """First sentence of a scene: when it is, and who comes; new days tell their date."""
        self.forget()
        templates = NEW_DAY if new_day else NEW_PART if new_part else SAME_PART
        clause = f"{event.person} {self._phrase(event, '')}"
        self._mention([event])
        return self._any(templates).format(
            weekday=WEEKDAYS[day % 7], week=day // 7 + 1, part=part, s=clause
        )

    def one(self, event: Event) -> str:
        """Tell one event."""
        self.anaphora = False
        if event.kind in ("say", "fact"):
            return self._speech(event)
        if event.kind in PASSIVE and self._chance(PASSIVE_VOICE):
            what = f"the {event.thing}"
            text = PASSIVE[event.kind].format(
                p=event.person, o=event.other, t=what, T=opened(what), container=event.container
            )
        else:
            who, what = self._who(event.person), self._what(event.thing)
            text = opened(f"{who} {self._phrase(event, what)}.")
        self._mention([event])
        return text

    def two(self, first: Event, second: Event) -> str:
        """Tell two events of one person in one sentence, in either order of mention."""
        self.anaphora = False
        who, pronoun = self._who(first.person), they(first.person)
        form = int(self.rng.random() * 4)
        early, late = (second, first) if form == 3 else (first, second)  # as they are mentioned
        what = f"the {early.thing}" if form == 3 else self._what(early.thing)
        again = "it" if first.thing == second.thing else f"the {late.thing}"
        mentioned = self._phrase(early, what, participle=form == 1)
        then = self._phrase(late, again, participle=form == 3)
        text = (
            f"{who} {mentioned} and {then}.",
            f"After {who} had {mentioned}, {pronoun} {then}.",
            f"{who} {mentioned} before {pronoun} {then}.",
            f"Before {who} {mentioned}, {pronoun} had {then}.",
        )[form]
        self._mention([first, second])
        return opened(text)

    def _speech(self, event: Event) -> str:
        if event.kind == "say":
            about = noun(event.topic)
            text = self._any(SAYINGS).format(
                p=event.person, o=event.other, v=event.value, e=about, E=opened(about)
            )
        else:
            text = self._any(TELLINGS).format(p=event.person, a=event.topic, v=event.value)
        self.forget()  # what was spoken of could be meant by a pronoun
        return text

    def whereabouts(self, entity: str, world: StoryWorld) -> str:
        """Say again where somebody or something is."""
        self.forget()
        about = noun(entity)
        return WHEREABOUTS.format(E=opened(about), v=world.place_of(entity))

    def possession(self, thing: str, world: StoryWorld) -> str:
        """Say again who has a thing."""
        self.forget()
        return POSSESSION.format(p=world.holder[thing], e=noun(thing))

    def distractor(self, world: StoryWorld) -> str:
        """Write a sentence that changes nothing, though it may name people, things and places."""
        text = self._any(DISTRACTORS).format(
            n=self._any(world.people), e=noun(self._any(world.things)), v=self._any(world.places)
        )
        self.forget()
        return text


def next_part(day: int, part: str) -> tuple[int, str]:
    """Day and part of the day that come next."""
    index = PARTS.index(part) + 1
    return (day, PARTS[index]) if index < len(PARTS) else (day + 1, PARTS[0])
