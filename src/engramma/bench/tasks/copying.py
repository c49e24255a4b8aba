"""Copying: say eight symbols again, after blanks or from among them."""

from __future__ import annotations

from functools import partial

import numpy as np

from engramma.bench.score_sequence import TokenTask, score_layer
from engramma.contracts import Task
from engramma.registry import add_task
from engramma.worlds.streams import TokenStream
from engramma.worlds.streams import copying as symbols_again

STEPS = 600
SYMBOLS = 8
TRAINED, TESTED = (8, 32), (8, 32, 64, 128, 256)


def prepare(seed: int, *, selective: bool, steps: int = STEPS, equal: str = "width") -> TokenTask:
    """Between 8 and 32 blanks in training, up to 256 in tests."""

    def batch(rng: np.random.Generator, gap: int, size: int = 32) -> TokenStream:
        return symbols_again(rng, size, gap=gap, n_symbols=SYMBOLS, selective=selective)

    return TokenTask(
        train=lambda rng: batch(rng, int(rng.integers(TRAINED[0], TRAINED[1] + 1))),
        tests={g: [batch(np.random.default_rng([seed, 1, g]), g, 64)] for g in TESTED},
        steps=steps,
        seed=seed,
        equal=equal,
    )


for _name, _selective, _question in (
    ("copy", False, "What were the eight symbols before the blanks?"),
    ("selective-copy", True, "What were the eight symbols among the blanks?"),
):
    add_task(
        Task(
            name=_name,
            contract="SequenceLayer",
            description=f"{_question} Trained with 8 to 32 blanks, tested with up to 256.",
            prepare=partial(prepare, selective=_selective),
            score=score_layer,
            metric="accuracy (mean over numbers of blanks)",
            chance=1 / SYMBOLS,
            axis="blanks",
        )
    )
