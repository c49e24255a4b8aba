r"""Stories of people who walk about and carry things, with questions whose answers are known.

The format is that of the bAbI tasks (Weston et al. 2015), line for line: a number, a sentence; and
for a question a number, the question, a tab, the answer, a tab, and the numbers of the lines that
support it. Number 1 starts a new story. What is told of a story are the sentences above a question.

====  ===================  ==========================================  ==========================
task  name                 question                                    support
====  ===================  ==========================================  ==========================
1     one fact             Where is Mary?                              her last move
2     two facts            Where is the milk?                          last handling, carrier's
                                                                       last move until then
3     three facts          Where was the milk before the office?       last handling, the move to
                                                                       the office, the one before
6     yes or no            Is Mary in the office?                      her last move
7     counting             How many objects is Mary carrying?          all she took, gave or left
8     lists                What is Mary carrying?                      the same
====  ===================  ==========================================  ==========================

`make_babi` writes such stories, `read_babi` reads them and published files, and `Vocabulary` turns
either into numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from engramma.errors import ConfigError, DataError

ACTORS = ("Mary", "John", "Sandra", "Daniel", "Fred", "Jeff", "Bill", "Julie")
PLACES = ("hallway", "bathroom", "kitchen", "bedroom", "garden", "office", "park", "school")
OBJECTS = ("milk", "football", "apple", "box", "cake", "ring")
MOVES = ("went to", "journeyed to", "travelled to", "moved to", "went back to")
TAKES = ("got", "picked up", "grabbed", "took")
DROPS = ("dropped", "put down", "discarded", "left")
GIVES = ("gave", "handed", "passed")
NUMBERS = ("none", "one", "two", "three", "four", "five", "six")
SPLITS = ("train", "valid", "test")
#: Sentences that are kept of a story, the last ones; of task 3 and of all tasks together, more.
LAST_SENTENCES, LAST_SENTENCES_LONG = 70, 130


@dataclass(frozen=True)
class Question:
    """A question, and what was told before it.

    Parameters
    ----------
    story : tuple of tuple of str
        Words of each sentence, in lower case.
    question : tuple of str
    answer : str
        One word; several are joined by commas.
    support : tuple of int
        Which sentences of ``story`` the answer rests on, from 0, in the order of the file.
    """

    story: tuple[tuple[str, ...], ...]
    question: tuple[str, ...]
    answer: str
    support: tuple[int, ...]


# -- reading -------------------------------------------------------------------------------


def words_of(sentence: str) -> tuple[str, ...]:
    """Words in lower case, without punctuation."""
    return tuple(re.findall(r"\w+(?:'\w+)?", sentence.lower()))


def read_babi(path: str | Path) -> list[Question]:
    """Read a file of stories and questions.

    Raises
    ------
    DataError
        If a line is not what it should be; file and line are named.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"the stories cannot be read ({error.strerror})",
            where=str(path),
            mend="name a file such as qa1_train.txt",
        ) from error
    except UnicodeDecodeError as error:
        raise DataError("the file is not text in UTF-8", where=str(path)) from error
    return parse_babi(text.splitlines(), str(path))


def parse_babi(lines: Iterable[str], where: str = "stories") -> list[Question]:
    """Parse the lines of such a file."""
    found: list[Question] = []
    story: list[tuple[str, ...]] = []
    place: dict[int, int] = {}
    last = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        at = f"{where}, line {number}"
        head, _, rest = line.lstrip().partition(" ")
        if not head.isdigit() or not rest.strip():
            raise DataError(
                "the line does not consist of a number and a sentence", where=at,
                mend="start it as in '1 Mary moved to the hallway.'",
            )  # fmt: skip
        index = int(head)
        if index == 1:
            story, place = [], {}
        elif index != last + 1:
            raise DataError(
                f"number {index} follows {last}", where=at,
                mend="number the lines of a story 1, 2, 3, ...",
            )  # fmt: skip
        last = index
        if "\t" in rest:
            found.append(_question(rest, story, place, at))
        else:
            place[index] = len(story)
            story.append(words_of(rest))
    if not found:
        raise DataError(
            "there is no question", where=where,
            mend="questions have two tabs: question, answer, supporting lines",
        )  # fmt: skip
    return found


def _question(rest: str, story: list[tuple[str, ...]], place: dict[int, int], at: str) -> Question:
    parts = [part.strip() for part in rest.split("\t")]
    if len(parts) != 3 or not parts[0] or not parts[1]:
        raise DataError(
            "a question needs its answer and its supporting lines", where=at,
            mend="write question, tab, answer, tab, line numbers",
        )  # fmt: skip
    support = []
    for number in parts[2].split():
        if not number.isdigit() or int(number) not in place:
            raise DataError(
                f"supporting line {number!r} is no sentence of this story so far", where=at
            )
        support.append(place[int(number)])
    return Question(tuple(story), words_of(parts[0]), parts[1].lower(), tuple(support))


def find_babi(folder: str | Path, task: int) -> dict[str, Path]:
    """Files ``qaN_{train,valid,test}.txt`` of one task, those that are there.

    Raises
    ------
    DataError
        If the folder holds none; the tasks that it holds are named.
    """
    folder = Path(folder)
    files = {split: folder / f"qa{task}_{split}.txt" for split in SPLITS}
    there = {split: path for split, path in files.items() if path.exists()}
    if not there:
        matches = (re.match(r"qa(\d+)_", path.name) for path in folder.glob("qa*_*.txt"))
        held = sorted({int(match.group(1)) for match in matches if match})
        raise DataError(
            f"there are no stories of task {task}",
            where=str(folder),
            mend=f"tasks there are {', '.join(map(str, held))}" if held
            else "name a folder with files such as qa1_train.txt",
        )  # fmt: skip
    return there


# -- encoding ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Encoded:
    """Questions as word numbers; 0 fills up.

    Parameters
    ----------
    story : ndarray of int64, shape (question, sentence, word)
        The last sentences, filled up at the front, so that the latest comes last.
    question : ndarray of int64, shape (question, word)
    answer : ndarray of int64, shape (question,)
        Index into the vocabulary's ``answers``.
    """

    story: np.ndarray
    question: np.ndarray
    answer: np.ndarray


@dataclass(frozen=True)
class Vocabulary:
    """Words and answers of training questions, and how long their sentences are.

    Parameters
    ----------
    words, answers : tuple of str
        Words are numbered from 2: 0 fills up and 1 is an unknown word. Answers from 1: 0 is an
        unknown answer.
    width : int
        Words of the longest sentence.
    """

    words: tuple[str, ...]
    answers: tuple[str, ...]
    width: int
    _number: dict[str, int] = field(init=False, repr=False, compare=False)
    _answer: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_number", {w: i for i, w in enumerate(self.words, 2)})
        object.__setattr__(self, "_answer", {a: i for i, a in enumerate(self.answers, 1)})

    @classmethod
    def of(cls, questions: Sequence[Question]) -> Vocabulary:
        """Collect what occurs in (training) questions, sorted."""
        sentences = {s for q in questions for s in (*q.story, q.question)}
        return cls(
            tuple(sorted({word for sentence in sentences for word in sentence})),
            tuple(sorted({q.answer for q in questions})),
            max(map(len, sentences), default=0),
        )

    @property
    def n_words(self) -> int:
        """How many numbers words take, fill and unknown included."""
        return len(self.words) + 2

    @property
    def n_answers(self) -> int:
        """How many numbers answers take, unknown included."""
        return len(self.answers) + 1

    def encode(
        self,
        questions: Sequence[Question],
        *,
        sentences: int = LAST_SENTENCES,
        unknown: Literal["error", "unk"] = "error",
    ) -> Encoded:
        """Turn questions into numbers.

        Parameters
        ----------
        questions : sequence of Question
        sentences : int
            At most so many are kept of each story, the last ones.
        unknown : {"error", "unk"}
            What happens to a word or answer that the vocabulary lacks: it is refused, or
            numbered as unknown (an unknown answer is never right).

        Raises
        ------
        DataError
            For an unknown word, and for a sentence longer than ``width``.
        """
        if unknown not in ("error", "unk"):
            raise ConfigError(f"there is no choice {unknown!r}", where="unknown",
                              mend="say error or unk")  # fmt: skip
        if sentences < 1:
            raise ConfigError(f"at least one sentence is kept, not {sentences}", where="sentences")
        kept = [q.story[-sentences:] for q in questions]
        story = np.zeros((len(kept), max(map(len, kept), default=0), self.width), np.int64)
        question = np.zeros((len(kept), self.width), np.int64)
        for i, (told, q) in enumerate(zip(kept, questions, strict=True)):
            for j, sentence in enumerate(told, start=story.shape[1] - len(told)):
                self._put(story[i, j], sentence, unknown)
            self._put(question[i], q.question, unknown)
        answer = [self._look_up(q.answer, self._answer, 0, "answer", unknown) for q in questions]
        return Encoded(story, question, np.array(answer, np.int64))

    def _put(self, row: np.ndarray, sentence: tuple[str, ...], unknown: str) -> None:
        if len(sentence) > self.width:
            raise DataError(
                f"the sentence has {len(sentence)} words, and the longest in training {self.width}",
                where=" ".join(sentence),
                mend="give a vocabulary with a larger width",
            )
        row[: len(sentence)] = [
            self._look_up(word, self._number, 1, "word", unknown) for word in sentence
        ]

    @staticmethod
    def _look_up(text: str, numbers: dict[str, int], spare: int, what: str, unknown: str) -> int:
        if text in numbers or unknown == "unk":
            return numbers.get(text, spare)
        raise DataError(
            f"the {what} {text!r} does not occur in training",
            mend="collect the vocabulary from more stories, or say unknown='unk'",
        )


# -- writing -------------------------------------------------------------------------------


@dataclass
class _World:
    """Where everybody and everything is, and the numbers of the lines that told it."""

    rng: np.random.Generator
    actors: Sequence[str]
    places: Sequence[str]
    objects: Sequence[str]
    giving: bool
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.at = {actor: self._any(self.places) for actor in self.actors}
        self.lies = {thing: self._any(self.places) for thing in self.objects}
        self.holder: dict[str, str] = {}
        #: Objects in the order in which an actor first had them; lists keep it.
        self.had: dict[str, dict[str, None]] = {actor: {} for actor in self.actors}
        self.moved: dict[str, int] = {}
        #: Last line that says what was done with an object, and all such lines of an actor.
        self.handled: dict[str, int] = {}
        self.handling: dict[str, list[int]] = {actor: [] for actor in self.actors}
        #: Places of an object that can be known, each with the move that brought it there.
        self.trail: dict[str, list[tuple[str, int]]] = {thing: [] for thing in self.objects}

    def _any(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def tell(self, line: str) -> int:
        """Add a line and return its number."""
        self.lines.append(f"{len(self.lines) + 1} {line}")
        return len(self.lines)

    def carried(self, actor: str) -> list[str]:
        """Objects an actor carries, in the order in which they first came."""
        return [thing for thing in self.had[actor] if self.holder.get(thing) == actor]

    def happen(self, handle: float) -> None:
        """Let something happen; with probability ``handle`` to an object, if that can be."""
        if self.objects and self.rng.random() < handle:
            actor = self._any(self.actors)
            here = [t for t, p in self.lies.items() if p == self.at[actor]]
            has = self.carried(actor)
            others = [a for a in self.actors if a != actor and self.at[a] == self.at[actor]]
            acts: list[Callable[[], None]] = []
            acts += [lambda: self.take(actor, self._any(here))] * bool(here)
            acts += [lambda: self.drop(actor, self._any(has))] * bool(has)
            can_give = self.giving and has and others
            acts += [lambda: self.give(actor, self._any(has), self._any(others))] * bool(can_give)
            if acts:
                acts[int(self.rng.integers(len(acts)))]()
                return
        actor = self._any(self.actors)
        self.move(actor, self._any([p for p in self.places if p != self.at[actor]]))

    def move(self, actor: str, place: str) -> None:
        """Walk to another place, with all that is carried."""
        self.at[actor] = place
        self.moved[actor] = self.tell(f"{actor} {self._any(MOVES)} the {place}.")
        for thing in self.carried(actor):
            self.trail[thing].append((place, self.moved[actor]))

    def take(self, actor: str, thing: str) -> None:
        """Pick up what lies here."""
        del self.lies[thing]
        self._hand(actor, thing, f"{actor} {self._any(TAKES)} the {thing}{self._there()}.")
        self._held_by(actor, thing)

    def drop(self, actor: str, thing: str) -> None:
        """Put down what is carried."""
        del self.holder[thing]
        self.lies[thing] = self.at[actor]
        self._hand(actor, thing, f"{actor} {self._any(DROPS)} the {thing}{self._there()}.")

    def give(self, actor: str, thing: str, to: str) -> None:
        """Hand what is carried to somebody in the same place."""
        self._hand(actor, thing, f"{actor} {self._any(GIVES)} the {thing} to {to}.")
        self.handling[to].append(self.handled[thing])
        self._held_by(to, thing)

    def _hand(self, actor: str, thing: str, line: str) -> None:
        self.handled[thing] = self.tell(line)
        self.handling[actor].append(self.handled[thing])

    def _held_by(self, actor: str, thing: str) -> None:
        self.holder[thing] = actor
        self.had[actor].setdefault(thing)
        known = self.moved.get(actor)
        trail = self.trail[thing]
        if known is not None and (not trail or trail[-1][0] != self.at[actor]):
            trail.append((self.at[actor], known))

    def _there(self) -> str:
        return " there" if self.rng.random() < 0.2 else ""


#: question, answer, supporting lines
_Asked = tuple[str, str, list[int]]


def _ask_person(world: _World) -> list[_Asked]:
    return [(f"Where is {a}?", world.at[a], [line]) for a, line in world.moved.items()]


def _ask_object(world: _World) -> list[_Asked]:
    # Where an object is can be known once its carrier's place is.
    return [
        (f"Where is the {thing}?", trail[-1][0], [world.handled[thing], trail[-1][1]])
        for thing, trail in world.trail.items()
        if trail
    ]


def _ask_before(world: _World) -> list[_Asked]:
    asked: list[_Asked] = []
    for thing, trail in world.trail.items():
        latest = {place: index for index, (place, _) in enumerate(trail)}
        for place, index in latest.items():
            if index:
                before, told = trail[index - 1]
                lines = [world.handled[thing], trail[index][1], told]
                asked.append((f"Where was the {thing} before the {place}?", before, lines))
    return asked


def _ask_yes_or_no(world: _World) -> list[_Asked]:
    asked: list[_Asked] = []
    for actor, line in world.moved.items():
        here = world.at[actor]
        other = world._any([p for p in world.places if p != here])
        truth = bool(world.rng.random() < 0.5)
        place, answer = (here, "yes") if truth else (other, "no")
        asked.append((f"Is {actor} in the {place}?", answer, [line]))
    return asked


def _ask_number(world: _World) -> list[_Asked]:
    return [
        (f"How many objects is {a} carrying?", NUMBERS[len(world.carried(a))], lines)
        for a, lines in world.handling.items()
        if lines
    ]


def _ask_list(world: _World) -> list[_Asked]:
    return [
        (f"What is {a} carrying?", ",".join(world.carried(a)) or "nothing", lines)
        for a, lines in world.handling.items()
        if lines
    ]


@dataclass(frozen=True)
class _Task:
    ask: Callable[[_World], list[_Asked]]
    handle: float = 0.0
    giving: bool = False


TASKS = {
    1: _Task(_ask_person),
    2: _Task(_ask_object, 0.4),
    3: _Task(_ask_before, 0.25),
    6: _Task(_ask_yes_or_no, 0.2),
    7: _Task(_ask_number, 0.5, giving=True),
    8: _Task(_ask_list, 0.5, giving=True),
}


def make_babi(
    task: int,
    n_stories: int,
    *,
    rng: np.random.Generator,
    n_sentences: int = 10,
    every: int = 2,
    n_actors: int = 4,
    n_places: int = 6,
    n_objects: int = 3,
) -> list[str]:
    """Write stories, as the lines of a file.

    Parameters
    ----------
    task : int
        Key of `TASKS`.
    n_stories : int
    rng : numpy.random.Generator
    n_sentences : int
        Of each story.
    every : int
        A question follows after every so many sentences, if one can be answered by then; with
        ``every=n_sentences`` there is one, at the end. A story of which nothing can be asked
        is told anew.
    n_actors, n_places, n_objects : int

    Raises
    ------
    ConfigError
        If there is no such task, or the cast is too small or too large.
    """
    if task not in TASKS:
        raise ConfigError(
            f"stories of task {task} cannot be generated",
            mend=f"generate one of {', '.join(map(str, TASKS))}, or read a published file",
        )
    cast = {
        "n_actors": (n_actors, 1, len(ACTORS)),
        "n_places": (n_places, 2, len(PLACES)),
        "n_objects": (n_objects, 1, len(OBJECTS)),
    }
    for name, (value, low, high) in cast.items():
        if not low <= value <= high:
            raise ConfigError(f"it lies between {low} and {high}, not at {value}", where=name)
    if not 1 <= every <= n_sentences or (task == 3 and n_sentences < 4):
        raise ConfigError(
            f"stories of {n_sentences} sentences with a question every {every} leave none to ask",
            mend="take longer stories",
        )
    lines: list[str] = []
    while n_stories > 0:
        world = _World(
            rng, ACTORS[:n_actors], PLACES[:n_places], OBJECTS[:n_objects], TASKS[task].giving
        )
        asked = 0
        for told in range(1, n_sentences + 1):
            world.happen(TASKS[task].handle)
            if told % every == 0 and (options := TASKS[task].ask(world)):
                question, answer, support = options[int(rng.integers(len(options)))]
                world.tell(f"{question}\t{answer}\t{' '.join(map(str, support))}")
                asked += 1
        if asked:
            lines += world.lines
            n_stories -= 1
    return lines
