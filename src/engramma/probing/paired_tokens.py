"""Tasks of paired prompts in token numbers, for small models that are trained on them.

Three kinds of sequence over one vocabulary, each token a number:

- indirect object identification (Wang et al. 2022): ``A and B went PLACE , B gave THING to`` ->
  ``A``. Corrupted: the second B is a third name, so that nothing tells A from B.
- coloured objects (Merullo et al. 2024): ``Q o1 c1 o2 c2 o3 c3 ? o2`` -> ``c2``, after one
  solved example of other objects and colours. Corrupted: another of the three is asked for. The
  colour stands behind its object: with it in front, a small model was at chance after 1500 steps.
- induction: a few random tokens, again and again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from engramma.errors import ConfigError
from engramma.probing.paired_prompts import PairedPrompts

#: Numbers of the tokens of each kind.
NAMES = np.arange(0, 16)
PLACES = np.arange(16, 20)
THINGS = np.arange(20, 24)
COLOURS = np.arange(24, 32)
OBJECTS = np.arange(32, 48)
AND, WENT, COMMA, GAVE, TO, QUESTION, ASK = range(48, 55)
VOCABULARY = 55
#: Tokens of the longest sequence with its answer.
LENGTH = 20
#: Where the answer of the solved example of coloured objects stands.
SOLVED = 9
#: How much a repeated random token counts beside an answer.
INDUCTION_WEIGHT = 0.3
#: Random sequences are repeated after at least as many tokens, and less than as many.
PERIODS = (4, 11)


def identification_tokens(n: int, *, rng: np.random.Generator) -> PairedPrompts:
    """Prompts of indirect object identification, half of them ABBA and half BABA.

    Parameters
    ----------
    n : int
    rng : numpy.random.Generator

    Returns
    -------
    PairedPrompts
        Ten tokens each; ``marked`` is where the repeated name first stands.
    """
    _check(n)
    indirect, subject, third = _without_replacement(NAMES, 3, n, rng).T
    first_is_subject = np.arange(n) % 2 == 0
    clean = np.empty((n, 10), dtype=np.int64)
    clean[:, 0] = np.where(first_is_subject, subject, indirect)
    clean[:, 2] = np.where(first_is_subject, indirect, subject)
    clean[:, [1, 3, 5, 7, 9]] = AND, WENT, COMMA, GAVE, TO
    clean[:, 4], clean[:, 8] = rng.choice(PLACES, n), rng.choice(THINGS, n)
    clean[:, 6] = subject
    corrupted = clean.copy()
    corrupted[:, 6] = third
    return PairedPrompts(
        name="indirect objects",
        clean=torch.from_numpy(clean),
        corrupted=torch.from_numpy(corrupted),
        last=torch.full((n,), 9),
        answers=torch.from_numpy(indirect),
        foils=torch.from_numpy(subject[:, None]),
        marked=torch.from_numpy(np.where(first_is_subject, 0, 2)[:, None]),
    )


def colour_tokens(n: int, *, rng: np.random.Generator) -> PairedPrompts:
    """Prompts of coloured objects, after one solved example.

    Returns
    -------
    PairedPrompts
        Nineteen tokens each; the first foil is the colour that the corrupted prompt asks for, and
        ``marked`` is where the two wrong colours stand in the question.
    """
    _check(n)
    colours = _without_replacement(COLOURS, 6, n, rng)
    objects = _without_replacement(OBJECTS, 6, n, rng)
    which = _without_replacement(np.arange(3), 3, n, rng)
    rows = np.arange(n)
    example = rng.integers(0, 3, n)
    solved = _question(colours[:, :3], objects[:, :3], objects[rows, example])
    asked = [_question(colours[:, 3:], objects[:, 3:], objects[rows, 3 + w]) for w in which.T[:2]]
    clean, corrupted = (
        np.concatenate([solved, colours[rows, example][:, None], question], axis=1)
        for question in asked
    )
    right, *wrong = (colours[rows, 3 + w] for w in which.T)
    start = solved.shape[1] + 3
    return PairedPrompts(
        name="coloured objects",
        clean=torch.from_numpy(clean),
        corrupted=torch.from_numpy(corrupted),
        last=torch.full((n,), clean.shape[1] - 1),
        answers=torch.from_numpy(right),
        foils=torch.from_numpy(np.stack(wrong, axis=1)),
        marked=torch.from_numpy(start + 2 * which[:, 1:]),
    )


def training_batch(
    rows: int = 32, *, practice: bool = True
) -> Callable[[np.random.Generator], tuple[Tensor, Tensor]]:
    """Make batches of as many sequences of each of the three kinds.

    Parameters
    ----------
    rows : int
        Sequences of each kind.
    practice : bool
        Whether as many more ask three questions about the same coloured objects, one after
        another. From one question a sequence, models stay on a plateau at which they name any of
        the three colours, some for more than ten thousand steps.

    Returns
    -------
    callable
        ``batch(rng) -> (tokens, weights)`` as `train_language_model` takes it: an answer counts 1,
        that of the solved example too, a repeated random token 0.3, all else nothing.
    """

    def batch(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        tokens = torch.zeros((3 + practice) * rows, LENGTH, dtype=torch.long)
        weights = torch.zeros(tokens.shape)
        for start, make in ((0, identification_tokens), (rows, colour_tokens)):
            prompts = make(rows, rng=rng)
            part, end = slice(start, start + rows), int(prompts.last[0]) + 1
            tokens[part, :end], tokens[part, end] = prompts.clean, prompts.answers
            weights[part, end] = 1.0
        weights[rows : 2 * rows, SOLVED] = 1.0
        period = rng.integers(*PERIODS, (rows, 1))
        position = np.arange(LENGTH)
        drawn = rng.integers(0, AND, (rows, LENGTH))
        again = np.take_along_axis(drawn, position % period, axis=1)
        random = slice(2 * rows, 3 * rows)
        tokens[random] = torch.from_numpy(again)
        weights[random] = torch.from_numpy(INDUCTION_WEIGHT * (position > period))
        if practice:
            asked = torch.from_numpy(_practice(rows, rng))
            tokens[3 * rows :, : asked.shape[1]] = asked
            weights[3 * rows :, SOLVED : asked.shape[1] : 3] = 1.0
        return tokens, weights

    return batch


def _practice(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw three questions with their answers about the same three objects."""
    colours = _without_replacement(COLOURS, 3, n, rng)
    objects = _without_replacement(OBJECTS, 3, n, rng)
    # Any object may be asked for again: else the last answer were the colour not said before.
    order = rng.integers(0, 3, (n, 3))
    asked, answers = (np.take_along_axis(x, order, axis=1) for x in (objects, colours))
    first = _question(colours, objects, asked[:, 0])
    ask = np.full(n, ASK)
    more = [answers[:, 0], ask, asked[:, 1], answers[:, 1], ask, asked[:, 2], answers[:, 2]]
    return np.concatenate([first, np.stack(more, axis=1)], axis=1)


def _question(colours: np.ndarray, objects: np.ndarray, asked: np.ndarray) -> np.ndarray:
    n = len(asked)
    tokens = np.empty((n, 9), dtype=np.int64)
    tokens[:, [0, 7]] = QUESTION, ASK
    tokens[:, 1:7:2], tokens[:, 2:7:2], tokens[:, 8] = objects, colours, asked
    return tokens


def _without_replacement(
    values: np.ndarray, k: int, n: int, rng: np.random.Generator
) -> np.ndarray:
    return rng.permuted(np.tile(values, (n, 1)), axis=1)[:, :k]


def _check(n: int) -> None:
    if n < 1:
        raise ConfigError(f"{n} prompts are wanted", where="n", mend="ask for at least one")
