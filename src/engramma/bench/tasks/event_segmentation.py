"""Cutting a stream into events where its tokens surprise a trained sequence layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from engramma.bench.score_sequence import TokenTask, build, cost, own_loss
from engramma.contracts import Scored, Task
from engramma.memory.segmentation import boundary_f1, surprise_cuts
from engramma.memory.training import fit
from engramma.registry import add_task
from engramma.worlds.event_streams import RuleStreams, draw_rules, ideal_surprise, rule_streams
from engramma.worlds.streams import TokenStream

STEPS, TRAINED, TESTED = 600, 64, 512
#: How far from a boundary a cut may lie, in tokens.
TOLERANCES = (0, 1, 2, 4)


@dataclass(frozen=True)
class Segmentation:
    """What to train on, and streams to cut.

    Parameters
    ----------
    tokens : TokenTask
        Its one test holds ``streams`` as tokens.
    streams : RuleStreams
    """

    tokens: TokenTask
    streams: RuleStreams


def prepare(seed: int, *, steps: int = STEPS, equal: str = "width") -> Segmentation:
    """Four rules over twelve tokens; 64 tokens to train on, 512 to cut."""
    rules = draw_rules(np.random.default_rng([seed, 0]))
    streams = rule_streams(np.random.default_rng([seed, 1]), 32, TESTED, rules)
    task = TokenTask(
        train=lambda rng: following(rule_streams(rng, 32, TRAINED, rules)),
        tests={float(TESTED): [following(streams)]},
        steps=steps,
        seed=seed,
        equal=equal,
    )
    return Segmentation(task, streams)


def following(streams: RuleStreams) -> TokenStream:
    """Ask for the token that follows, everywhere."""
    tokens, targets = streams.tokens[:, :-1], streams.tokens[:, 1:]
    vocabulary = streams.rules.shape[1]
    return TokenStream(tokens, targets, np.ones_like(targets), vocabulary, (0, vocabulary))


@torch.no_grad()
def surprise(model: nn.Module, streams: RuleStreams) -> np.ndarray:
    """Surprise of each token in nats, stream x token; NaN at the first."""
    tokens = torch.as_tensor(streams.tokens)
    logits, _ = model(tokens[:, :-1])
    log_p = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    return np.pad(-log_p.numpy().astype(float), ((0, 0), (1, 0)), constant_values=np.nan)


def segmentation_score(surprises: np.ndarray, streams: RuleStreams, tolerance: int) -> float:
    """F1 of the surprising tokens as boundaries, less that of as many cuts anywhere."""
    rng, gains = np.random.default_rng(0), []
    for s, true in zip(surprises, streams.boundaries, strict=True):
        cuts = surprise_cuts(s, block=64, window=256)
        where = np.flatnonzero(true)
        chance = [
            boundary_f1(rng.choice(np.arange(1, len(s)), len(cuts), False), where, tolerance)
            for _ in range(20)
        ]
        gains.append(boundary_f1(cuts, where, tolerance) - float(np.mean(chance)))
    return float(np.mean(gains))


def score(system: Any, data: Segmentation) -> Scored:
    """Train a model around a layer to predict tokens, and cut where it is surprised."""
    model = build(system, data.tokens)
    fit(
        model,
        data.tokens.train,
        steps=data.tokens.steps,
        seed=data.tokens.seed,
        learning_rate=5e-3,
        auxiliary=own_loss,
        description=type(system).__name__,
    )
    surprises = surprise(model, data.streams)
    curve = {float(t): segmentation_score(surprises, data.streams, t) for t in TOLERANCES}
    return Scored(curve[1.0], curve, cost(model, data.tokens))


def ceiling(data: Segmentation) -> float:
    """Score of an observer who knows the rules."""
    return segmentation_score(ideal_surprise(data.streams), data.streams, 1)


add_task(
    Task(
        name="event-segmentation",
        contract="SequenceLayer",
        description="Where does a new event begin? Cuts where a layer, trained on what follows "
        "what, is surprised.",
        prepare=prepare,
        score=score,
        metric="boundary F1 within 1 token, beyond that of as many random cuts",
        chance=0.0,
        ceiling=ceiling,
        axis="tolerance in tokens",
    )
)
