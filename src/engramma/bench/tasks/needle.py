"""A needle in a haystack, at lengths beyond training."""

from __future__ import annotations

import numpy as np

from engramma.bench.score_sequence import TokenTask, score_layer
from engramma.contracts import Task
from engramma.registry import add_task
from engramma.worlds.streams import TokenStream
from engramma.worlds.streams import needle as haystack

STEPS = 600
VALUES = 16
TRAINED, TESTED = 64, (64, 128, 256, 512, 1024)


def prepare(seed: int, *, steps: int = STEPS, equal: str = "width") -> TokenTask:
    """One of four pairs, asked for at the end of 64 tokens; tested with up to 1024."""

    def batch(rng: np.random.Generator, length: int, size: int = 32) -> TokenStream:
        return haystack(rng, size, length=length, n_values=VALUES, distractors=3)

    return TokenTask(
        train=lambda rng: batch(rng, TRAINED),
        tests={n: [batch(np.random.default_rng([seed, 1, n]), n, 64)] for n in TESTED},
        steps=steps,
        seed=seed,
        equal=equal,
    )


add_task(
    Task(
        name="needle",
        contract="SequenceLayer",
        description="Which value stood beside this key, somewhere in the haystack? Trained on "
        "64 tokens, tested with up to 1024.",
        prepare=prepare,
        score=score_layer,
        metric="accuracy (mean over lengths)",
        chance=1 / VALUES,
        axis="tokens",
    )
)
