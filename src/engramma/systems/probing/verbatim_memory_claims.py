"""What Armeni et al. claim of verbatim memory, in a form that can be run.

Miniatures trained on streams with repeated lists (`engramma.probing.list_streams`), and the real
SmolLM2-135M-Instruct on lists of nouns. Numbers are repeat surprisal: surprisal of the second list
in per cent of that of the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from engramma.contracts import Claim, Control
from engramma.probing.list_streams import (
    CONDITIONS,
    Condition,
    Trained,
    list_pairs,
    stream_lstm,
    stream_transformer,
)
from engramma.probing.model import LanguageModel
from engramma.probing.noun_lists import Stimulus, draw_noun_lists, noun_stimuli
from engramma.probing.word_surprisal import Surprising

if TYPE_CHECKING:
    from engramma.systems.probing.verbatim_memory import VerbatimMemory

PAPER = "Armeni, Honey & Linzen 2022"
Model = Trained | Literal["lstm"]


def probe() -> VerbatimMemory:
    """Return the system; it imports this module, hence not at the top."""
    from engramma.systems.probing.verbatim_memory import VerbatimMemory

    return VerbatimMemory()


@dataclass
class Lists:
    """Streams with five nouns a list and a gap of eight, 200 of each condition."""

    seed: int
    _known: dict[tuple[str, Condition], float] = field(default_factory=dict)

    def percent(self, name: Model, condition: Condition) -> float:
        """Repeat surprisal of a miniature; there are three of each kind."""
        if (name, condition) not in self._known:
            pairs = list_pairs(
                np.random.default_rng([self.seed, 5]), 200, gap=8, length=40, condition=condition
            )
            model: Surprising = (
                stream_lstm(self.seed % 3)
                if name == "lstm"
                else stream_transformer(name, self.seed % 3)
            )
            self._known[name, condition] = float(probe().surprisal(model, pairs).percent().mean())
        return self._known[name, condition]

    def order(self, name: Model) -> float:
        """Order effect: permute minus repeat."""
        return self.percent(name, "permute") - self.percent(name, "repeat")

    def spread(self, name: Model) -> float:
        """Largest difference between two conditions."""
        found = [self.percent(name, c) for c in CONDITIONS]
        return max(found) - min(found)


@cache
def _smollm2() -> LanguageModel:
    return LanguageModel.load("smollm2")


@dataclass
class InSmol:
    """Twelve lists of five nouns in the little story, a gap of about 20 words."""

    seed: int
    n: int = 12

    @cached_property
    def lists(self) -> tuple[list[list[str]], list[list[str]]]:
        """Return lists and other lists."""
        return draw_noun_lists(np.random.default_rng([self.seed, 5]), self.n, 5)

    def percent(self, condition: Condition, seen: bool = True) -> float:
        """Repeat surprisal; unless ``seen`` the first list shown is the other one."""
        lists, others = self.lists
        stimuli = noun_stimuli(
            np.random.default_rng([self.seed, 6]), lists, others, condition=condition
        )
        if not seen:
            shown = noun_stimuli(np.random.default_rng([self.seed, 6]), others, lists)
            stimuli = [
                _with_first_list(stimulus, other)
                for stimulus, other in zip(stimuli, shown, strict=True)
            ]
        values = probe().surprisal(_smollm2(), stimuli)
        return float(values.percent().mean())

    @cached_property
    def repeat(self) -> float:
        """Repeat surprisal of the same list."""
        return self.percent("repeat")


def _with_first_list(stimulus: Stimulus, other: Stimulus) -> Stimulus:
    """Replace the first list of a stimulus by that of another one."""
    end, other_end = stimulus.first[-1][1], other.first[-1][1]
    shift = other_end - end
    return replace(
        stimulus,
        text=other.text[:other_end] + stimulus.text[end:],
        first=other.first,
        second=tuple((a + shift, b + shift) for a, b in stimulus.second),
    )


CLAIMS = (
    Claim(
        name="repeat",
        sentence="A transformer of two layers finds a repeated list at most 60 % as surprising as "
        "at first",
        source=f"{PAPER}, section 4.1",
        metric="repeat surprisal, per cent",
        prepare=Lists,
        system=lambda task: task.percent("two_layers", "repeat"),
        baseline=lambda task: 0.0,
        baseline_name="a perfect copy",
        margin=60.0,
        direction="below",
        control=Control("other nouns", lambda task: task.percent("two_layers", "novel")),
        seeds=3,
    ),
    Claim(
        name="order",
        sentence="The same nouns in another order are at least 12 points more surprising",
        source=f"{PAPER}, section 4.1 (order is remembered)",
        metric="repeat surprisal, per cent",
        prepare=Lists,
        system=lambda task: task.percent("two_layers", "permute"),
        baseline=lambda task: task.percent("two_layers", "repeat"),
        baseline_name="the same order",
        margin=12.0,
        control=Control(
            "a transformer in whose training no list came twice",
            lambda task: task.order("never_repeated"),
        ),
        seeds=3,
    ),
    Claim(
        name="novel",
        sentence="Other nouns are at least 95 % as surprising as those of the first list",
        source=f"{PAPER}, section 4.1",
        metric="repeat surprisal, per cent",
        prepare=Lists,
        system=lambda task: task.percent("two_layers", "novel"),
        baseline=lambda task: 0.0,
        baseline_name="a perfect copy",
        margin=95.0,
        control=Control("the same nouns", lambda task: task.percent("two_layers", "repeat")),
        seeds=3,
    ),
    Claim(
        name="lstm-forgets",
        sentence="An LSTM after the same tokens finds a repeated list at least 85 % as surprising",
        source=f"{PAPER}, section 4.4",
        metric="repeat surprisal, per cent",
        prepare=Lists,
        system=lambda task: task.percent("lstm", "repeat"),
        baseline=lambda task: 0.0,
        baseline_name="a perfect copy",
        margin=85.0,
        control=Control(
            "a transformer of two layers", lambda task: task.percent("two_layers", "repeat")
        ),
        seeds=3,
    ),
    Claim(
        name="lstm-knows-no-order",
        sentence="To the LSTM the order makes a difference of less than 3 points",
        source=f"{PAPER}, section 4.4",
        metric="repeat surprisal, per cent",
        prepare=Lists,
        system=lambda task: task.percent("lstm", "permute"),
        baseline=lambda task: task.percent("lstm", "repeat"),
        baseline_name="the same order",
        margin=3.0,
        direction="within",
        control=Control("a transformer of two layers", lambda task: task.order("two_layers")),
        seeds=3,
    ),
    Claim(
        name="depth",
        sentence="A transformer of one layer finds a repeated list at least 85 % as surprising",
        source=f"{PAPER}, section 4.3 (depth); no induction in one layer",
        metric="repeat surprisal, per cent",
        prepare=Lists,
        system=lambda task: task.percent("one_layer", "repeat"),
        baseline=lambda task: 0.0,
        baseline_name="a perfect copy",
        margin=85.0,
        control=Control("two layers", lambda task: task.percent("two_layers", "repeat")),
        seeds=3,
        tried="One layer cannot know what came after a noun, and has no memory of order (claim "
        "depth-and-order), but it can look at the list and make all its nouns likelier. Three "
        "networks have learned that to different degrees in as many steps as two layers took: "
        "73, 92 and 97 %.",
    ),
    Claim(
        name="depth-and-order",
        sentence="To one layer the order makes a difference of less than 12 points",
        source=f"{PAPER}, section 4.3 (depth)",
        metric="repeat surprisal, per cent",
        prepare=Lists,
        system=lambda task: task.percent("one_layer", "permute"),
        baseline=lambda task: task.percent("one_layer", "repeat"),
        baseline_name="the same order",
        margin=12.0,
        direction="within",
        control=Control("two layers", lambda task: task.order("two_layers")),
        seeds=3,
    ),
    Claim(
        name="learned-from-repetition",
        sentence="Where no list came twice in training, repeat, permute and novel lie within 5 "
        "points",
        source=f"{PAPER}, section 5 (memory comes from training)",
        metric="largest difference of repeat surprisal, points",
        prepare=Lists,
        system=lambda task: task.spread("never_repeated"),
        baseline=lambda task: 0.0,
        baseline_name="no difference",
        margin=5.0,
        direction="below",
        control=Control(
            "the same network trained with repeated lists", lambda task: task.spread("two_layers")
        ),
        seeds=3,
    ),
    Claim(
        name="smollm2-repeat",
        sentence="SmolLM2-135M finds a repeated list of five nouns at least 40 points less "
        "surprising than other nouns",
        source=f"{PAPER}, section 4.1, in a model of 135 million parameters",
        metric="repeat surprisal, per cent",
        prepare=InSmol,
        system=lambda task: task.repeat,
        baseline=lambda task: task.percent("novel"),
        baseline_name="other nouns",
        margin=-40.0,
        direction="below",
        control=Control(
            "the first list held other nouns",
            lambda task: task.percent("repeat", seen=False) - task.percent("novel"),
        ),
        seeds=3,
    ),
    Claim(
        name="smollm2-order",
        sentence="To SmolLM2-135M the same nouns in another order are at least 12 points more "
        "surprising",
        source=f"{PAPER}, section 4.1, in a model of 135 million parameters",
        metric="repeat surprisal, per cent",
        prepare=InSmol,
        system=lambda task: task.percent("permute"),
        baseline=lambda task: task.repeat,
        baseline_name="the same order",
        margin=12.0,
        control=Control(
            "the first list held other nouns",
            lambda task: task.percent("permute", seen=False) - task.percent("repeat", seen=False),
        ),
        seeds=3,
    ),
)
