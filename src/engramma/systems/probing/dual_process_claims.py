"""What Anand et al. claim of temporary forgetting, on small models trained when it is checked.

Rates from 1e-3 to 4e-3, widths of 32 and 64, and periods of 60 and 100 steps were tried on seed 0,
where words with fresh embeddings were classed right in 0.45 to 0.76 of cases with the others than
those kept; the claims are run on seeds that were not looked at. Runs are shared by the claims of a
process. All evaluations are at a fixed phase: shortly before a
reset, unless it is said that they are right after one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from engramma.contracts import Claim, Control

if TYPE_CHECKING:
    from engramma.systems.probing.dual_process import Snapshot

PAPER = "Anand, Lepori, Merullo & Pavlick, ICLR 2025, arXiv:2406.00053"
EVERY, UNTIL, STEPS = 100, 1500, 2000
#: Evaluations of the last phase, after the last reset of temporary forgetting.
LATE = (1600, 1700, 1800, 1900, 2000)
#: Evaluations of the phase with resets.
RESETS = (1200, 1300, 1400)


@lru_cache
def run(seed: int, regime: str, blanked: float = 0.0, exponent: float = 1.0) -> list[Snapshot]:
    """Train a model and return its snapshots."""
    from engramma.probing.word_classes import zipf_world
    from engramma.systems.probing.dual_process import DualProcess

    build: Any = DualProcess  # the regime is a plain string here
    learner = build(
        zipf_world(exponent=exponent, seed=seed),
        regime,
        every=EVERY,
        until=UNTIL,
        blanked=blanked,
        seed=seed,
    )
    return list(learner.train(STEPS, (*RESETS, *LATE)))


def unused_seed(seed: int) -> int:
    """Keep claims away from seed 0, on which rate, width and period were chosen."""
    return 10 + seed


def late(seed: int, regime: str, what: str, blanked: float = 0.0) -> float:
    """Mean of a strategy over the evaluations of the last phase, before a reset."""
    found = [
        getattr(s.strategies, what)
        for s in run(seed, regime, blanked)
        if s.step in LATE and not s.fresh
    ]
    return float(np.mean(found))


def in_weights(seed: int, regime: str, steps: Sequence[int], *, fresh: bool = False) -> float:
    """Mean use of weights at some steps, where there is a reset before or right after it."""
    return float(
        np.mean(
            [
                s.strategies.in_weights
                for s in run(seed, regime, 0.3)
                if s.step in steps and s.fresh == fresh
            ]
        )
    )


def split(seed: int, regime: str) -> float:
    """Following of the context with frequent minus with rare words, in the last phase."""
    return late(seed, regime, "head_switch") - late(seed, regime, "tail_switch")


def learned(seed: int) -> tuple[bool, str]:
    """Whether plain training knows its words: in-weights use is there to be lost."""
    share = late(seed, "vanilla", "in_weights", 0.3)
    return share > 0.9, f"plain training knows {share:.2f} of its words"


CLAIMS = (
    Claim(
        name="temporary-forgetting-keeps-structure",
        sentence="After temporary forgetting new words are classed by their context at least 12 "
        "points more often than after plain training (contexts always there)",
        source=f"{PAPER}, toy model (structural in-context learning is transient)",
        metric="accuracy on words with fresh embeddings, mean of five evaluations",
        prepare=unused_seed,
        system=lambda seed: late(seed, "temporary", "structural"),
        baseline=lambda seed: late(seed, "vanilla", "structural"),
        baseline_name="plain training",
        margin=0.12,
        control=Control(
            "patterns drawn at random",
            lambda seed: (
                late(seed, "temporary", "unstructured") - late(seed, "vanilla", "unstructured")
            ),
        ),
        seeds=3,
    ),
    Claim(
        name="active-forgetting-keeps-structure",
        sentence="The same holds of active forgetting",
        source=f"{PAPER}, toy model",
        metric="accuracy on words with fresh embeddings, mean of five evaluations",
        prepare=unused_seed,
        system=lambda seed: late(seed, "active", "structural"),
        baseline=lambda seed: late(seed, "vanilla", "structural"),
        baseline_name="plain training",
        margin=0.12,
        control=Control(
            "patterns drawn at random",
            lambda seed: (
                late(seed, "active", "unstructured") - late(seed, "vanilla", "unstructured")
            ),
        ),
        seeds=3,
    ),
    Claim(
        name="structure-is-reliable",
        sentence="After temporary forgetting at least 80 % of new words are classed by their "
        "context, 30 points above chance",
        source=f"{PAPER}, toy model",
        metric="accuracy on words with fresh embeddings, mean of five evaluations",
        prepare=unused_seed,
        system=lambda seed: late(seed, "temporary", "structural"),
        baseline=lambda seed: 0.5,
        baseline_name="chance",
        margin=0.3,
        control=Control(
            "patterns drawn at random", lambda seed: late(seed, "temporary", "unstructured") - 0.5
        ),
        seeds=3,
        tried="The mean lies above the margin, its interval does not; settings as chosen on "
        "seed 0.",
    ),
    Claim(
        name="both-strategies-structure",
        sentence="With 30 % of the contexts blanked, temporary forgetting still leaves new words "
        "at least 8 points above plain training",
        source=f"{PAPER}, dual process",
        metric="accuracy on words with fresh embeddings, mean of five evaluations",
        prepare=unused_seed,
        system=lambda seed: late(seed, "temporary", "structural", 0.3),
        baseline=lambda seed: late(seed, "vanilla", "structural", 0.3),
        baseline_name="plain training",
        margin=0.08,
        control=Control(
            "patterns drawn at random",
            lambda seed: (
                late(seed, "temporary", "unstructured", 0.3)
                - late(seed, "vanilla", "unstructured", 0.3)
            ),
        ),
        presupposes=learned,
        seeds=3,
        tried="Three seeds gain 11, 25 and 1 points; settings as chosen on seed 0, not changed "
        "after this.",
    ),
    Claim(
        name="both-strategies-weights",
        sentence="And at most 5 % of known words without context are classed wrongly",
        source=f"{PAPER}, dual process",
        metric="share of words without context whose own class is missed",
        prepare=unused_seed,
        system=lambda seed: 1 - late(seed, "temporary", "in_weights", 0.3),
        baseline=lambda seed: 0.0,
        baseline_name="no error",
        margin=0.05,
        direction="below",
        control=Control(
            "the same model right after a reset",
            lambda seed: 1 - in_weights(seed, "temporary", RESETS, fresh=True),
        ),
        presupposes=learned,
        seeds=3,
    ),
    Claim(
        name="phase-trap",
        sentence="Just before a reset words are known at least 40 points better than right after "
        "the last one: evaluations must keep to one phase",
        source=f"{PAPER}, active forgetting; the phase is our caveat",
        metric="share of words without context whose own class is told",
        prepare=unused_seed,
        system=lambda seed: in_weights(seed, "temporary", RESETS),
        baseline=lambda seed: in_weights(seed, "temporary", RESETS, fresh=True),
        baseline_name="right after a reset",
        margin=0.4,
        control=Control(
            "as many steps later in the last phase, when nothing is reset",
            lambda seed: (
                in_weights(seed, "temporary", LATE[1:]) - in_weights(seed, "temporary", LATE[:-1])
            ),
        ),
        presupposes=learned,
        seeds=3,
        tried="The mean lies above the margin, its interval does not: with a period of 100 steps "
        "words are only half learned again.",
    ),
    Claim(
        name="weights-for-frequent-words",
        sentence="After temporary forgetting, words used against their class follow the context "
        "less if they are frequent than if they are rare, by at least 5 points",
        source=f"{PAPER}, head and tail switch",
        metric="share of answers that follow the context, frequent minus rare words",
        prepare=unused_seed,
        system=lambda seed: split(seed, "temporary"),
        baseline=lambda seed: 0.0,
        baseline_name="no difference",
        margin=-0.05,
        direction="below",
        control=Control("plain training", lambda seed: split(seed, "vanilla")),
        seeds=3,
        tried="Three seeds give -32, -2 and -12 points; settings as chosen on seed 0, not changed "
        "after this.",
    ),
)
