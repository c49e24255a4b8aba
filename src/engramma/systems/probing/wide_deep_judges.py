"""Answers of known quality, and a simulated judge who sees them through one role, noise and bias.

Everything passes through text: the qualities stand in the answers, the judge finds them in the
prompt it is given, and its scores are read from its reply. So prompts, parser, exchange of names
and aggregation are all at work, and the truth is known.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist, fmean

import numpy as np

from engramma.agents.model import Completion, Message
from engramma.systems.probing.wide_deep_prompts import HIGHEST, LOWEST, Item

ASPECTS = ("Accuracy", "Relevance", "Clarity", "Depth")
#: A score is 5.5 plus this much a unit of quality, so that few reach the ends of the scale.
SCALE = 0.6
_NORMAL = NormalDist().inv_cdf
_QUALITY = re.compile(r"(\w+) is (-?\d+\.\d+)")
_ANSWER = re.compile(r"\[Assistant ([12]): \w+\]\n(.*?)\n\[End of Assistant \1\]", re.DOTALL)
_ANGLE = re.compile(r"from this angle: (.*?)\.\n")
_EARLIER = re.compile(r"Assistant ([12])\W+(\d+\.\d+)")
_FORMS = (
    "Evaluation evidence: {why}\nScore of Assistant 1: {one:.2f}\nScore of Assistant 2: {two:.2f}",
    "{why}\n\n**Score of Assistant 1:** {one:.2f}\n**Score of Assistant 2:** {two:.2f}",
    "{why}\nScore of Assistant 2: {two:.2f}/10\nScore of Assistant 1: {one:.2f}/10",
    "{why}\n- Score of the Assistant 1: **{one:.2f}**\n- Score of the Assistant 2: **{two:.2f}**",
)


def generate_items(
    n: int, *, rng: np.random.Generator, tie_band: float = 0.3, alike: bool = False
) -> list[Item]:
    """Pairs of answers whose four aspects have normally distributed qualities.

    Parameters
    ----------
    n : int
    rng : numpy.random.Generator
    tie_band : float
        People prefer the answer of higher mean quality, and neither where the difference is less.
    alike : bool
        All aspects of an answer are equally good, so that one role sees what all see.
    """
    quality = rng.normal(size=(n, 2, len(ASPECTS)))
    if alike:
        quality[:] = quality[..., :1]
    quality = quality.round(2)
    lead = quality.mean(axis=2) @ [1, -1]
    items = []
    for index, (pair, gap) in enumerate(zip(quality, lead, strict=True)):
        human = "tie" if abs(gap) < tie_band else "first" if gap > 0 else "second"
        first, second = (
            " ".join(f"{a} is {q:.2f}." for a, q in zip(ASPECTS, own, strict=True)) for own in pair
        )
        items.append(Item(f"Question {index}?", first, second, human))
    return items


class SimulatedJudge:
    """A judge who reads the aspects it is asked about with noise, and favours what comes first.

    Where the prompt holds a discussion, the new score is the mean of a fresh reading and of the
    scores that were named. The same prompt and seed give the same reply.

    Parameters
    ----------
    noise : float
        Standard deviation of one reading of one aspect.
    bias : float
        Added to the first answer.
    hears : bool or {"angles"}
        False: the judge leaves the discussion unread, and looks at its own role alone. "angles":
        it leaves the discussion unread, but looks at all angles it is told to.
    garbled : float
        Share of replies that cannot be read.
    seed : int
    """

    name = "simulated-judge"

    def __init__(
        self,
        noise: float = 1.5,
        bias: float = 1.5,
        *,
        hears: bool | str = True,
        garbled: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.noise, self.bias, self.hears = noise, bias, hears
        self.garbled, self.seed = garbled, seed

    def complete(
        self,
        messages: Sequence[Message],
        *,
        temperature: float = 0.0,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Completion:
        """Name the roles, or score, as the last message asks."""
        prompt = messages[-1]["content"]
        draws = self._draws(prompt, seed)
        if draws.pop() < self.garbled:
            reply = "Both assistants make good points, and I would rather not choose."
        elif "Begin each line with $" in prompt:
            reply = "\n".join(f"${aspect}&" for aspect in ASPECTS if aspect in prompt)
        else:
            reply = self._scores(prompt, draws)
        return Completion(reply, len(prompt) // 4, len(reply) // 4)

    def _draws(self, prompt: str, seed: int | None) -> list[float]:
        """Sixteen numbers, uniform in (0, 1), read off a hash of prompt and seed."""
        key = hashlib.blake2b(f"{self.seed}/{seed}/{prompt}".encode()).digest()
        return [(word + 0.5) / 2**32 for word in struct.unpack("<16I", key)]

    def _scores(self, prompt: str, draws: list[float]) -> str:
        named = _ANGLE.search(prompt)
        roles = named[1].split("; ") if named else []
        seen = roles if self.hears else roles[:1]
        shown, _, discussion = prompt.partition("The group has already discussed this.")
        scores = []
        for which, text in _ANSWER.findall(shown):
            quality = _qualities(text)
            readings = [quality[r] + self.noise * _NORMAL(draws.pop()) for r in seen]
            fresh = fmean(readings) + (self.bias if which == "1" else 0.0)
            score = 5.5 + SCALE * fresh
            if discussion and self.hears is True:
                said = [float(s) for w, s in _EARLIER.findall(discussion) if w == which]
                score = (score + fmean(said)) / 2
            scores.append(min(max(score, LOWEST), HIGHEST))
        form = _FORMS[int(len(_FORMS) * draws.pop())]
        why = f"On {' and '.join(seen)}, I see what I see."
        return form.format(why=why, one=scores[0], two=scores[1])


@lru_cache(maxsize=4096)
def _qualities(answer: str) -> dict[str, float]:
    """Qualities that stand in an answer; it is read again and again."""
    return {aspect: float(quality) for aspect, quality in _QUALITY.findall(answer)}
