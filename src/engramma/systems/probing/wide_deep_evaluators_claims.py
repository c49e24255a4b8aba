"""What Zhang et al. claim of wide and deep evaluators, in a form that can be run.

All but the last claim are about simulated judges (`wide_deep_judges`): they show what width, depth
and order do when a judge sees one role, reads it with noise and favours what comes first, and not
that a given language model is such a judge. Kappa is over 1,000 comparisons a seed (the benchmark
has 2,553), which makes a claim run for about a minute; every call goes through prompt and parser.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from engramma.contracts import Claim, Control
from engramma.systems.probing.wide_deep_judges import ASPECTS, SimulatedJudge, generate_items
from engramma.systems.probing.wide_deep_prompts import Item

if TYPE_CHECKING:
    from engramma.systems.probing.wide_deep_evaluators import WideDeep

PAPER = "Zhang et al. 2023"
N_ITEMS = 1000
#: Options of each network; calls an item, the one for roles included, behind each.
NETWORKS: dict[str, dict[str, Any]] = {
    "two layers": {"depth": 2},  # 17
    "one layer": {"depth": 1},  # 9
    "eight neurons": {"depth": 1, "roles": ASPECTS * 2},  # 16
    "copies": {"depth": 1, "roles": ASPECTS[:1] * 4},  # 8
    "eight neurons, one order": {"depth": 1, "roles": ASPECTS * 2, "order_swap": False},  # 8
}


def network(name: str, seed: int = 0) -> WideDeep:
    """One of `NETWORKS`; without threads, which a simulated judge gains nothing from."""
    from engramma.systems.probing.wide_deep_evaluators import WideDeep

    return WideDeep(workers=1, seed=seed, **NETWORKS[name])


@cache
def kappa(name: str, seed: int, alike: bool = False, **judge: Any) -> float:
    """Kappa of a network of simulated judges with the people of one seed."""
    items = generate_items(N_ITEMS, rng=np.random.default_rng(seed), alike=alike)
    return network(name, seed).score(items, SimulatedJudge(seed=seed, **judge)).kappa.value


def same(seed: int) -> int:
    """Return the seed: it is the whole task."""
    return seed


# -- exchanging the answers ----------------------------------------------------------------


def not_turned_round(seed: int, order_swap: bool) -> float:
    """Share of 200 decisions that are not exactly turned round when the answers are exchanged."""
    from engramma.systems.probing.wide_deep_evaluators import WideDeep

    items = generate_items(200, rng=np.random.default_rng(seed))
    wide = WideDeep(workers=1, depth=3, order_swap=order_swap, seed=seed)
    judge = SimulatedJudge(seed=seed, garbled=0.05)
    changed = [
        wide.evaluate(item, judge).scores != wide.evaluate(item.exchanged(), judge).scores[::-1]
        for item in items
    ]
    return float(np.mean(changed))


# -- a real model --------------------------------------------------------------------------

FACTS = (
    ("What is the capital of France?", "It is Paris.", "It is Berlin."),
    ("How many legs does a spider have?", "It has eight legs.", "It has two legs."),
    ("What do cows drink?", "Cows drink water.", "Cows drink sand."),
    ("What colour is snow?", "Snow is white.", "Snow is black."),
    ("Which is larger, the sun or the moon?", "The sun is larger.", "The moon is larger."),
    ("In which season does it snow most?", "In winter.", "In summer."),
    ("What do bees make?", "Bees make honey.", "Bees make steel."),
    ("How many days has a week?", "A week has seven days.", "A week has forty days."),
)


@cache
def smollm2() -> Any:
    """SmolLM2-135M-Instruct, read once."""
    from engramma.agents.local import LocalModel

    return LocalModel("smollm2")


def facts(seed: int) -> list[Item]:
    """Questions with a right and a wrong answer, in an order that is drawn."""
    rng = np.random.default_rng(seed)
    chosen = [FACTS[i] for i in rng.choice(len(FACTS), 4, replace=False)]
    items = [Item(question, right, wrong, "first") for question, right, wrong in chosen]
    return [item.exchanged() if i % 2 else item for i, item in enumerate(items)]


def one_reviewer(order_swap: bool) -> WideDeep:
    """Build the least network: one role, one layer, short replies, one try."""
    from engramma.systems.probing.wide_deep_evaluators import WideDeep

    return WideDeep(
        depth=1,
        roles=("Accuracy",),
        order_swap=order_swap,
        temperature=0.0,
        tries=1,
        max_tokens=64,
        workers=1,
    )


def can_judge(items: list[Item]) -> tuple[bool, str]:
    """Whether SmolLM2 gives scores in the form asked for, and not the same in every reply."""
    said = [one_reviewer(order_swap=False).evaluate(item, smollm2()) for item in items]
    read = [d.scores for d in said if d.preference is not None]
    enough = len(read) >= len(items) / 2 and len({one - two for one, two in read}) > 1
    return enough, f"SmolLM2-135M gives readable scores in {len(read)} of {len(items)} replies"


def kappa_of_smollm2(items: list[Item], order_swap: bool) -> float:
    """Kappa of one reviewer with the truth."""
    return one_reviewer(order_swap).score(items, smollm2()).kappa.value


CLAIMS = (
    Claim(
        name="width",
        sentence="Judges with four roles agree better with people than four copies of one judge.",
        source=f"{PAPER}, abstract",
        metric="Cohen's kappa, three classes (simulated judges)",
        prepare=same,
        system=lambda seed: kappa("one layer", seed),
        baseline=lambda seed: kappa("copies", seed),
        baseline_name="four copies of one judge, other draws, as many judgements",
        margin=0.08,
        control=Control(
            sentence="all aspects of an answer are equally good, so that one role sees what all do",
            measure=lambda seed: (
                kappa("one layer", seed, alike=True) - kappa("copies", seed, alike=True)
            ),
        ),
    ),
    Claim(
        name="depth",
        sentence="A second layer, in which judges read each other, raises agreement with people "
        "(for almost twice as many calls).",
        source=f"{PAPER}, abstract",
        metric="Cohen's kappa, three classes (simulated judges)",
        prepare=same,
        system=lambda seed: kappa("two layers", seed),
        baseline=lambda seed: kappa("one layer", seed),
        baseline_name="one layer of the same four neurons",
        margin=0.03,
        control=Control(
            sentence="judges leave the discussion unread",
            measure=lambda seed: kappa("two layers", seed, hears=False) - kappa("one layer", seed),
        ),
        tried="The control was first held against one layer of as many calls, another baseline "
        "than the claim's own, and seemed to break it.",
    ),
    Claim(
        name="depth-equal-calls",
        sentence="Two layers agree better with people than one layer that makes as many calls.",
        source=f"{PAPER}, abstract; the equal budget is ours",
        metric="Cohen's kappa, three classes (simulated judges)",
        prepare=same,
        system=lambda seed: kappa("two layers", seed),
        baseline=lambda seed: kappa("eight neurons", seed),
        baseline_name="one layer of eight neurons, each role twice",
        margin=0.03,
        tried="Taking the last layer alone gains 0.025 [0.004, 0.046] over eight neurons, a vote "
        "of all neurons 0.014 [-0.003, 0.031]; judges who leave the discussion unread but look at "
        "all angles that it names gain 0.029 [0.006, 0.052]. So what a second layer adds here is "
        "more readings, from more angles, and not what judges told each other.",
        control=Control(
            sentence="judges leave the discussion unread",
            measure=lambda seed: (
                kappa("two layers", seed, hears=False) - kappa("eight neurons", seed)
            ),
        ),
    ),
    Claim(
        name="order-swap",
        sentence="Judging in both orders agrees better with people than as many judgements in one.",
        source=f"{PAPER}, released code",
        metric="Cohen's kappa, three classes (simulated judges)",
        prepare=same,
        system=lambda seed: kappa("one layer", seed),
        baseline=lambda seed: kappa("eight neurons, one order", seed),
        baseline_name="eight neurons in the order given",
        margin=0.1,
        control=Control(
            sentence="judges do not favour what comes first",
            measure=lambda seed: (
                kappa("one layer", seed, bias=0.0)
                - kappa("eight neurons, one order", seed, bias=0.0)
            ),
        ),
    ),
    Claim(
        name="antisymmetry",
        sentence="Exchanging the answers turns scores and decision round exactly, at any depth.",
        source=f"{PAPER}, released code; exactness is ours",
        metric="share of decisions that are not turned round",
        prepare=same,
        system=lambda seed: not_turned_round(seed, order_swap=True),
        baseline=lambda seed: 0.0,
        baseline_name="exact antisymmetry",
        margin=1e-9,
        direction="within",
        seeds=3,
        control=Control(
            sentence="each neuron judges in one order only",
            measure=lambda seed: not_turned_round(seed, order_swap=False),
        ),
    ),
    Claim(
        name="order-swap-smollm2",
        sentence="With SmolLM2-135M as the judge, judging in both orders agrees better with the "
        "truth than judging in one.",
        source=f"{PAPER}, released code",
        metric="Cohen's kappa with the right answer of simple questions",
        prepare=facts,
        presupposes=can_judge,
        system=lambda items: kappa_of_smollm2(items, order_swap=True),
        baseline=lambda items: kappa_of_smollm2(items, order_swap=False),
        baseline_name="one order",
        margin=0.0,
        seeds=3,
        control=Control(
            sentence="the labels are turned round",
            measure=lambda items: kappa_of_smollm2([i.exchanged() for i in items], True),
        ),
    ),
)
