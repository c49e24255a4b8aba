"""Recall of key-value pairs: of more pairs than trained on, and through noise and overwrites."""

from __future__ import annotations

import numpy as np

from engramma.bench.score_sequence import TokenTask, score_layer
from engramma.contracts import Task
from engramma.registry import add_task
from engramma.worlds.streams import TokenStream, key_value_stream

STEPS = 600
KEYS, VALUES = 64, 16
#: Pairs of a sequence: in training, and in tests, up to four times as many.
TRAINED, TESTED = (4, 8, 16), (4, 8, 16, 32, 64)
#: Filler tokens per pair, in the noisy task.
TRAINED_NOISE, TESTED_NOISE = (0.0, 1.0), (0.0, 1.0, 2.0, 4.0, 8.0)


def prepare(seed: int, *, steps: int = STEPS, equal: str = "width") -> TokenTask:
    """Sequences of 4, 8 or 16 pairs to train on; up to 64 to be tested with."""

    def batch(rng: np.random.Generator, pairs: int, size: int = 32) -> TokenStream:
        return key_value_stream(rng, size, pairs=pairs, n_keys=KEYS, n_values=VALUES)

    return TokenTask(
        train=lambda rng: batch(rng, int(rng.choice(TRAINED))),
        tests={p: [batch(np.random.default_rng([seed, 1, p]), p, 64)] for p in TESTED},
        steps=steps,
        seed=seed,
        equal=equal,
    )


def prepare_noise(seed: int, *, steps: int = STEPS, equal: str = "width") -> TokenTask:
    """Eight pairs, half of which are overwritten, among fillers; all asked for after a gap."""

    def batch(rng: np.random.Generator, noise: float, size: int = 32) -> TokenStream:
        return key_value_stream(
            rng,
            size,
            pairs=8,
            n_keys=KEYS,
            n_values=VALUES,
            overwrites=0.5,
            noise=noise,
            gap=round(8 * noise),
        )

    return TokenTask(
        train=lambda rng: batch(rng, float(rng.choice(TRAINED_NOISE))),
        tests={n: [batch(np.random.default_rng([seed, 2, int(n)]), n, 64)] for n in TESTED_NOISE},
        steps=steps,
        seed=seed,
        equal=equal,
    )


add_task(
    Task(
        name="recall",
        contract="SequenceLayer",
        description="Which value had this key? Trained on 4 to 16 pairs, tested with up to 64.",
        prepare=prepare,
        score=score_layer,
        metric="accuracy (mean over numbers of pairs)",
        chance=1 / VALUES,
        axis="pairs",
    )
)
add_task(
    Task(
        name="recall-noise",
        contract="SequenceLayer",
        description="Which value had this key last? Half of 8 pairs are overwritten, among fillers "
        "of which tests have up to eight times as many as training.",
        prepare=prepare_noise,
        score=score_layer,
        metric="accuracy (mean over amounts of noise)",
        chance=1 / VALUES,
        axis="filler tokens per pair",
    )
)
