"""What wide-deep-evaluators hands back: judgements, decisions and agreement, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from engramma.agents.model import Completion
from engramma.contracts import Estimate

Preference = Literal["first", "second", "tie"]
Scores = tuple[float, float]
#: Scores that differ by less are a tie.
TIE = 1e-6


class Cost(NamedTuple):
    """Replies (those from a cache among them), tokens and seconds of the model."""

    calls: int
    cached: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float

    @classmethod
    def of(cls, replies: Sequence[Completion]) -> Cost:
        """Sum up; what came from a cache cost no tokens and no time."""
        paid = [r for r in replies if not r.cached]
        return cls(
            len(replies),
            len(replies) - len(paid),
            sum(r.prompt_tokens for r in paid),
            sum(r.completion_tokens for r in paid),
            math.fsum(r.seconds for r in paid),
        )


NOTHING = Cost(0, 0, 0, 0, 0.0)


@dataclass(frozen=True)
class Judgement:
    """What one neuron said in one layer and one order.

    Parameters
    ----------
    layer, neuron : int
        From 1 on.
    exchanged : bool
        Whether the answers were shown in the other order.
    roles : tuple of str
    scores : (float, float) or None
        Of the item's first and second answer; None where the reply could not be read.
    evidence : str
        The reply; its Assistant 1 is the item's first answer.
    replies : tuple of Completion
        All that were given, as they came.
    problem : str
        Why there are no scores.
    failed : bool
        Whether the back end failed.
    """

    layer: int
    neuron: int
    exchanged: bool
    roles: tuple[str, ...]
    scores: Scores | None
    evidence: str
    replies: tuple[Completion, ...]
    problem: str = ""
    failed: bool = False


@dataclass(frozen=True)
class Decision:
    """Outcome of one comparison.

    Parameters
    ----------
    preference : {"first", "second", "tie"} or None
        None where nothing could be read.
    scores : (float, float)
        Of both answers: means, or shares of the votes. NaN where nothing was scored.
    roles : tuple of str
    trace : tuple of Judgement
    cost : Cost
    complete : bool
        False where the back end failed on the way, or nothing could be read.
    notes : tuple of str
        Neurons that dropped out, roles that were cut or stood in, failures.
    """

    preference: Preference | None
    scores: Scores
    roles: tuple[str, ...] = ()
    trace: tuple[Judgement, ...] = ()
    cost: Cost = NOTHING
    complete: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Agreement:
    """Agreement with people over a set of items.

    Parameters
    ----------
    accuracy, macro_f1, kappa : Estimate
        Over the items that were decided.
    n, undecided, incomplete : int
        Items; how many of them have no decision, and one that is incomplete.
    cost : Cost
    decisions : tuple of Decision
    """

    accuracy: Estimate
    macro_f1: Estimate
    kappa: Estimate
    n: int
    undecided: int
    incomplete: int
    cost: Cost
    decisions: tuple[Decision, ...] = field(repr=False)


#: Judgements of a neuron in a layer, in the orders in which it was asked.
Layer = dict[int, tuple[Judgement, ...]]


# -- adding up ------------------------------------------------------------------------------


def decide(layers: Sequence[Layer], aggregate: str) -> tuple[Preference | None, Scores]:
    """Preference and scores of both answers, from the judgements of all layers."""
    if not layers:
        return None, (math.nan, math.nan)
    if aggregate == "last":
        layers = layers[-1:]
    if aggregate == "vote":
        means = [_mean([j.scores for j in js]) for layer in layers for js in layer.values()]
        ballots = [_ballot(one - two) for one, two in means]
        scores = _mean([(b, 1 - b) for b in ballots])
    else:
        scores = _mean([j.scores for layer in layers for js in layer.values() for j in js])
    return ("tie", "first", "second")[_sign(scores[0] - scores[1])], scores


def _sign(lead: float) -> int:
    return 0 if abs(lead) <= TIE else 1 if lead > 0 else -1


def _ballot(lead: float) -> float:
    """Vote for the first answer: 1, 0, or a half."""
    return (1 + _sign(lead)) / 2


def _mean(scores: Iterable[Scores | None]) -> Scores:
    """Mean of each side; summed exactly, so that it does not depend on the order."""
    known = [s for s in scores if s is not None]
    one, two = (math.fsum(side) / len(known) for side in zip(*known, strict=True))
    return one, two
