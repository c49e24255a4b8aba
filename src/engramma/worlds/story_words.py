"""The words that stories are made of, and the phrases that tell each kind of event.

Phrases are verb phrases in two forms, past and past participle, so that they stand alone, are
joined by *and*, or go into a subordinate clause. ``{t}`` is the thing, ``{o}`` the other person,
``{place}`` where it happens and ``{container}`` what something is hidden in.
"""

from __future__ import annotations

import re
from typing import NamedTuple

FEMALE = (
    "Mia", "Anna", "Clara", "Emma", "Ida", "Julia", "Lena", "Nora",
    "Olga", "Paula", "Rosa", "Sofia", "Tessa", "Vera", "Wilma", "Zoe",
)  # fmt: skip
MALE = (
    "Adam", "Ben", "Carl", "David", "Felix", "Hugo", "Ivan", "Jonas",
    "Leo", "Max", "Noah", "Oscar", "Paul", "Simon", "Tom", "Victor",
)  # fmt: skip
NAMES = FEMALE + MALE
PLACES = (
    "market", "kitchen", "garden", "library", "park", "workshop", "bakery", "museum",
    "attic", "cellar", "office", "theatre", "hospital", "school", "harbour", "barn",
)  # fmt: skip
#: Where what was eaten can be bought anew; the market is part of every story.
SHOPS = ("market", "bakery")
CONTAINERS = ("box", "basket", "drawer", "cupboard", "chest", "bag")
#: Categories of rendered scenes that can be carried.
THINGS = ("apple", "ice cream", "fish", "cat", "hammer", "car", "boat")
FOOD = ("apple", "ice cream")
BREAKABLE = ("hammer", "car", "boat")
#: Colours of rendered scenes. Written out, as things are, since a trained model knows the words.
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PARTS = ("morning", "afternoon", "evening")
MOST_WEEKS = 99

#: What people tell of themselves, and may change their mind about.
FACTS: dict[str, tuple[str, ...]] = {
    "favourite colour": COLOURS,
    "lucky number": ("two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "favourite month": ("January", "March", "April", "May", "June", "August", "October"),
    "favourite drink": ("tea", "coffee", "milk", "water", "juice", "cocoa"),
}
#: What is true of people and never told in a story.
KNOWLEDGE: dict[str, tuple[str, ...]] = {
    "job": ("baker", "doctor", "farmer", "painter", "sailor", "teacher", "carpenter", "lawyer"),
    "town": ("Oslo", "Cairo", "Lima", "Kyoto", "Delhi", "Porto", "Quebec", "Perth"),
    "instrument": ("piano", "violin", "flute", "drum", "harp", "guitar", "trumpet", "cello"),
}
KNOWLEDGE_SENTENCES: dict[str, tuple[str, ...]] = {
    "job": ("{p} is a {v}.", "{p} works as a {v}.", "The job of {p} is that of a {v}."),
    "town": ("{p} comes from {v}.", "{p} was born in {v}.", "The home town of {p} is {v}."),
    "instrument": (
        "{p} plays the {v}.", "The {v} is what {p} plays.", "{p} owns a {v}, which {p} plays well.",
    ),
}  # fmt: skip
KNOWLEDGE_QUESTIONS = {
    "job": "What is the job of {p}?",
    "town": "Which town does {p} come from?",
    "instrument": "Which instrument does {p} play?",
}


class Phrase(NamedTuple):
    """A verb phrase: ``{p} <past>``, ``{p} had <participle>``."""

    past: str
    participle: str


def _same(*phrases: str) -> tuple[Phrase, ...]:
    """Phrases whose participle is the past form."""
    return tuple(Phrase(p, p) for p in phrases)


PHRASES: dict[str, tuple[Phrase, ...]] = {
    "go": (
        Phrase("went to the {place}", "gone to the {place}"),
        Phrase("came into the {place}", "come into the {place}"),
        *_same("walked to the {place}", "hurried to the {place}", "returned to the {place}"),
    ),
    "take": (
        Phrase("took {t}", "taken {t}"),
        *_same("picked {t} up", "grabbed {t}", "lifted {t}"),
    ),
    "put": (
        *_same("put {t} down", "dropped {t}", "left {t} there"),
        Phrase("laid {t} on the floor", "laid {t} on the floor"),
    ),
    "give": (
        Phrase("gave {t} to {o}", "given {t} to {o}"),
        *_same("handed {t} to {o}", "passed {t} to {o}", "offered {t} to {o}"),
    ),
    "hide": (
        Phrase("hid {t} in the {container}", "hidden {t} in the {container}"),
        *_same("locked {t} in the {container}", "buried {t} in the {container}"),
    ),
    "find": _same("found {t} in the {container}", "discovered {t} in the {container}"),
    "eat": (
        Phrase("ate {t}", "eaten {t}"),
        *_same("finished {t}", "swallowed {t}"),
    ),
    "buy": _same("bought {t}", "paid for {t}"),
    "break": (
        Phrase("broke {t}", "broken {t}"),
        *_same("damaged {t}"),
    ),
    "repair": _same("repaired {t}", "mended {t}", "fixed {t}"),
    "meet": (
        *_same("met {o}", "greeted {o}"),
        Phrase("shook hands with {o}", "shaken hands with {o}"),
    ),
}  # fmt: skip
#: Whole sentences beside those that phrases give.
PASSIVE: dict[str, str] = {
    "take": "{T} was taken by {p}.",
    "give": "{T} was given to {o} by {p}.",
    "hide": "In the {container}, {t} was hidden by {p}.",
    "find": "It was {p} who found {t} in the {container}.",
    "eat": "{T} was eaten by {p}.",
    "repair": "{T} was repaired by {p}.",
    "break": "It was {p} who broke {t}.",
}
SAYINGS = (
    '"{E} is in the {v}," said {p} to {o}.',
    '{p} told {o} that {e} was in the {v}.',
    '{p} said to {o}, "I think that {e} is in the {v}."',
)  # fmt: skip
TELLINGS = (
    'The {a} of {p} is {v}.',
    '"My {a} is {v}," said {p}.',
    '{p} said that {v} was the best {a}.',
    '"I have a {a}, and it is {v}," {p} explained.',
)  # fmt: skip
NEW_DAY = (
    "On {weekday} {part} of week {week}, {s}.",
    "It was {weekday} {part} of week {week}, and {s}.",
    "{weekday} of week {week} had come, and in the {part} {s}.",
)
NEW_PART = ("In the {part}, {s}.", "That {part}, {s}.", "When it was {part}, {s}.")
SAME_PART = ("Meanwhile, {s}.", "At the same time, {s}.", "A little later, {s}.")
DISTRACTORS = (
    "The wind was blowing.",
    "It was raining a little.",
    "Somewhere a bell was ringing.",
    "The sun was shining.",
    "{n} was thinking of {e}.",
    "{n} would have liked to see the {v}.",
    "{n} remembered a dream about {e}.",
    "Nobody was talking about the {v}.",
    "{n} was humming a song.",
)
WHEREABOUTS, POSSESSION = "{E} is in the {v}.", "{p} has {e}."
QUESTION_WORDS = (
    "question answer last who what where when which did does is was happened first before "
    "or has now do take put give hide find eat buy break repair meet go of the to in on he she "
    "it week"
)


def vocabulary() -> list[str]:
    """All words and signs that stories, knowledge and questions use, in lower case, sorted."""
    texts = [
        *NAMES, *PLACES, *CONTAINERS, *THINGS, *COLOURS, *WEEKDAYS, *PARTS,
        *SAYINGS, *TELLINGS, *NEW_DAY, *NEW_PART, *SAME_PART, *DISTRACTORS, *PASSIVE.values(),
        WHEREABOUTS, POSSESSION, QUESTION_WORDS, "after before had and the she he it",
        *(form for phrases in PHRASES.values() for phrase in phrases for form in phrase),
        *(text for table in (FACTS, KNOWLEDGE) for key in table for text in (key, *table[key])),
        *(s for sentences in KNOWLEDGE_SENTENCES.values() for s in sentences),
        *KNOWLEDGE_QUESTIONS.values(),
        *map(str, range(1, MOST_WEEKS + 1)),
    ]  # fmt: skip
    found = {w for text in texts for w in words(re.sub(r"\{\w+\}", " ", text))}
    return sorted(found | set('.,?":'))


def words(text: str) -> list[str]:
    """Words and signs of a text, in lower case."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def they(name: str) -> str:
    """Pronoun of a person."""
    return "she" if name in FEMALE else "he"


def category(thing: str) -> str:
    """Category of a thing: ``ice cream`` of ``the red ice cream``."""
    return thing.partition(" ")[2]
