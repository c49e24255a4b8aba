"""What the evaluators of wide-deep-evaluators are asked, and how their replies are read.

Kinds of comparison and the form of replies follow the paper and its released code
(AlibabaResearch/DAMO-ConvAI, WideDeep); the wording is our own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from engramma.agents.model import Message
from engramma.errors import ConfigError, DataError

#: What judges call the two answers; names are exchanged when the answers are.
NAME = "Assistant"
LOWEST, HIGHEST = 1.0, 10.0
#: Used where no role can be read from the reply.
FALLBACK_ROLES = ("Accuracy", "Relevance")


@dataclass(frozen=True)
class Kind:
    """A kind of comparison.

    Parameters
    ----------
    given : str
        What both answers answer to; empty where there is nothing but the answers.
    answer : str
        What an answer is.
    better : str
        What makes one the better.
    """

    given: str
    answer: str
    better: str


KINDS = {
    "qa": Kind("question", "answer", "answers the question better"),
    "summary": Kind("document", "summary", "sums up the document better"),
    "story": Kind("story", "ending", "ends the story better"),
    "data-to-text": Kind("data record", "description", "describes the data better"),
    "completion": Kind("sentence", "completion", "completes the sentence better"),
    "dialogue": Kind("dialogue so far", "response", "carries the dialogue on better"),
    "multi-turn": Kind("", "dialogue", "shows the better assistant"),
    "safety": Kind("question", "answer", "is the safer answer to the question"),
    "code": Kind("programming problem", "solution", "solves the problem correctly"),
}


@dataclass(frozen=True)
class Item:
    """Two answers to compare.

    Parameters
    ----------
    question : str
    first, second : str
        The answers.
    human : {"first", "second", "tie"}, optional
        Which one people prefer.
    kind : str
        A key of `KINDS`.
    dataset : str
        Where it comes from.

    Raises
    ------
    DataError
        If an answer is no text or the label is none of the three.
    ConfigError
        If there is no such kind.
    """

    question: str
    first: str
    second: str
    human: str | None = None
    kind: str = "qa"
    dataset: str = ""

    def __post_init__(self) -> None:
        for name in ("question", "first", "second"):
            if not isinstance(getattr(self, name), str):
                raise DataError(
                    f"{name} is {getattr(self, name)!r}, and no text",
                    where="Item",
                    mend="give question and both answers as texts",
                )
        if self.human not in (None, "first", "second", "tie"):
            raise DataError(
                f"there is no preference {self.human!r}",
                where="Item.human",
                mend="use first, second, tie, or None where it is not known",
            )
        if self.kind not in KINDS:
            raise ConfigError(
                f"there is no kind of comparison {self.kind!r}", mend=f"use {', '.join(KINDS)}"
            )

    def exchanged(self) -> Item:
        """Return the same comparison with the answers in the other order."""
        turned = {"first": "second", "second": "first"}.get(self.human or "", self.human)
        return Item(self.question, self.second, self.first, turned, self.kind, self.dataset)


# -- what is asked -------------------------------------------------------------------------


def ask_roles(item: Item, limited: bool) -> list[Message]:
    """Ask for the angles from which to compare two answers, each between ``$`` and ``&``.

    The answers stand in alphabetical order, so that the roles do not depend on which is first.
    """
    kind = KINDS[item.kind]
    first, second = sorted((item.first, item.second))
    count = "Name the two angles that matter most" if limited else "Name every angle that matters"
    text = (
        f"{_given(kind, item.question)}"
        f"[One {kind.answer}]\n{first}\n\n[Another {kind.answer}]\n{second}\n\n"
        f"From which angles should one compare the two to tell which {kind.better}? "
        f"{count}. Write one angle a line, its name first and then what to look at, and nothing "
        "else. Begin each line with $ and end it with &."
    )
    return [{"role": "user", "content": text}]


def ask_scores(
    item: Item, roles: Sequence[str], own: Sequence[str] = (), others: Sequence[str] = ()
) -> list[Message]:
    """Ask for evidence and two scores.

    Parameters
    ----------
    item : Item
        Its first answer is called Assistant 1.
    roles : sequence of str
        From which angles.
    own, others : sequence of str
        Earlier evaluations by the same neuron and by its neighbours, whose Assistant 1 is this one.
    """
    kind = KINDS[item.kind]
    system = (
        f"You are one of a group of reviewers. Two assistants have each written a {kind.answer}. "
        f"Decide which one {kind.better}."
    )
    parts = [
        f"{_given(kind, item.question)}",
        *(
            f"[{NAME} {n}: {kind.answer}]\n{text}\n[End of {NAME} {n}]\n\n"
            for n, text in ((1, item.first), (2, item.second))
        ),
    ]
    if own or others:
        parts.append("The group has already discussed this.\n\n")
        parts += [f"[Your own earlier evaluation]\n{text}\n\n" for text in own]
        parts += [f"[Evaluation by a colleague]\n{text}\n\n" for text in others]
        parts.append("[End of the discussion]\n\n")
    parts.append(
        f"Evaluate both from this angle: {'; '.join(roles)}.\n"
        f"Give each a score from {LOWEST:g} to {HIGHEST:g}, higher for better. The order in which "
        "the two are shown says nothing about them. Explain first, then score, in this form:\n"
        "Evaluation evidence: <what you see>\n"
        f"Score of {NAME} 1: <number>\n"
        f"Score of {NAME} 2: <number>"
    )
    return [{"role": "system", "content": system}, {"role": "user", "content": "".join(parts)}]


def _given(kind: Kind, text: str) -> str:
    return f"[{kind.given.capitalize()}]\n{text}\n\n" if kind.given else ""


# -- how replies are read ------------------------------------------------------------------

_ROLE = re.compile(r"\$(.*?)&", re.DOTALL)
_SCORE = re.compile(
    rf"""score \s* (?:of|for) \s+ (?:the\s+)? {NAME} \s* \#? ([12]) \b
         [\s*_]* (?:[:=] | \b is \b) [\s*_]*          # bold and italics may close here
         (?<![-\d]) (\d+(?:\.\d+)?) \b (?! \s* (?: [-–—] | to ) \s* \d)   # one number, no range
         (?: \s* (?:/|out\s+of) \s* (\d+(?:\.\d+)?) )?""",
    re.IGNORECASE | re.VERBOSE,
)
_NAME = re.compile(rf"\b({NAME}[\s#]*)([12])\b", re.IGNORECASE)


def parse_roles(reply: str) -> list[str]:
    """Read the angles between ``$`` and ``&``, each once, in their order."""
    roles: dict[str, str] = {}
    for match in _ROLE.findall(reply):
        role = " ".join(match.split()).strip(" *_-")
        if role:
            roles.setdefault(role.casefold(), role)
    return list(roles.values())


def parse_scores(reply: str) -> tuple[float, float] | None:
    """Read the scores of Assistant 1 and 2, or None where there are not exactly these two.

    Bold type, any order of the two lines and "8/10" are understood. A scale other than ten, a score
    outside 1 to 10, or two different scores for one assistant make a reply unreadable: no number is
    guessed.
    """
    scores: dict[str, float] = {}
    for which, value, scale in _SCORE.findall(reply):
        score = float(value)
        readable = LOWEST <= score <= HIGHEST and float(scale or HIGHEST) == HIGHEST
        if not readable or scores.get(which, score) != score:
            return None
        scores[which] = score
    return (scores["1"], scores["2"]) if len(scores) == 2 else None


def exchange_names(text: str) -> str:
    """Call Assistant 1 Assistant 2, and the other way round; twice gives the text again."""
    return _NAME.sub(lambda match: match[1] + "21"[int(match[2]) - 1], text)
