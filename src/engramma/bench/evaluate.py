"""Evaluate a system by its contract, on data that neither of them knew of when it was written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engramma.bench.material import make, per_subject, require_methods
from engramma.contracts import RunResult, SystemCard
from engramma.errors import ConfigError

#: ``f(data, *, seed) -> RunResult``.
Evaluation = Callable[..., RunResult]


def evaluate(card: SystemCard) -> Evaluation:
    """Return the generic evaluation of a system, by the first contract of its card that has one.

    Encoders are scored by `engramma.bench.score_encoder.score_encoder`, decoders by
    `engramma.bench.score_decoder.score_decoder`, comparisons by
    `engramma.bench.score_comparison.score_comparison`. The notes of the result name the split and
    what training and test share.

    Parameters
    ----------
    card : SystemCard
        Its factory is called without arguments, or with ``seed`` where it takes one.

    Returns
    -------
    callable
        ``f(data, *, seed=0) -> RunResult`` for a recording or a cohort.

    Raises
    ------
    ConfigError
        If no contract of the system can be evaluated on recordings.
    """
    known = {"Encoder": _encoder, "Decoder": _decoder, "Comparison": _comparison}
    for contract in card.contract:
        if contract in known:
            return known[contract](card)
    task = f"`engramma bench {card.tasks[0]}`" if card.tasks else "`engramma bench`"
    raise ConfigError(
        f"a system of contract {', '.join(card.contract)} is not fitted to recordings",
        where=f"system {card.slug!r}",
        mend=f"see it in {task} or check its claims with `engramma verify {card.slug}`; or give "
        "the system a run= of its own",
    )


def _encoder(card: SystemCard) -> Evaluation:
    def run(data: Any, *, seed: int = 0) -> RunResult:
        from engramma.bench.score_encoder import score_encoder

        encoder = make(card.factory, seed)
        require_methods(encoder, "Encoder", "fit", "predict")
        return per_subject(data, seed, lambda r, rng: score_encoder(encoder, r, rng))

    return run


def _decoder(card: SystemCard) -> Evaluation:
    def run(data: Any, *, seed: int = 0) -> RunResult:
        from engramma.bench.score_decoder import score_decoder

        decoder = make(card.factory, seed)
        require_methods(decoder, "Decoder", "fit")
        return per_subject(data, seed, lambda r, rng: score_decoder(decoder, r, rng))

    return run


def _comparison(card: SystemCard) -> Evaluation:
    def run(data: Any, *, seed: int = 0) -> RunResult:
        from engramma.bench.score_comparison import score_comparison

        comparison = make(card.factory, seed)
        require_methods(comparison, "Comparison", "compare")
        return score_comparison(comparison, data, np.random.default_rng(seed))

    return run
