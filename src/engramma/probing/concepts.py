"""Sentences with a label each, such as true and false, good and bad, one and many.

Five sets come with engramma; `engramma.probing.concept_files` reads those of Jin et al. 2025.
`CoinStories` is a generator for small models, with a question that is easy, one that is harder and
one that needs all of the story (the parity of coin flips).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engramma.errors import ConfigError
from engramma.probing.concept_words import NAMES, NEGATIVE, NOUNS, POSITIVE, SCENES, VERBS
from engramma.probing.facts import relations


@dataclass(frozen=True)
class LabelledTexts:
    """Texts of two classes.

    Parameters
    ----------
    name : str
    texts : tuple of str
    labels : ndarray of int, shape (text,)
        0 or 1.
    before, after : str
        Instructions around each text.
    """

    name: str
    texts: tuple[str, ...]
    labels: np.ndarray
    before: str = ""
    after: str = ""

    def prompts(self) -> list[str]:
        """Return each text with its instructions."""
        return [" ".join(filter(None, (self.before, text, self.after))) for text in self.texts]

    def pick(self, rows: Sequence[int] | np.ndarray) -> LabelledTexts:
        """Return some of the texts."""
        index = [int(i) for i in rows]
        return replace(self, texts=tuple(self.texts[i] for i in index), labels=self.labels[index])

    def distinct(self) -> tuple[LabelledTexts, int]:
        """Drop texts that were there before, and count them.

        A text on both sides of a split would be remembered and not understood.
        """
        first = {text: i for i, text in reversed(list(enumerate(self.texts)))}
        rows = sorted(first.values())
        return self.pick(rows), len(self.texts) - len(rows)

    def at_most(self, each: int, rng: np.random.Generator) -> LabelledTexts:
        """Draw so many texts of each class at random; all where there are fewer."""
        rows = [rng.permutation(np.flatnonzero(self.labels == c))[:each] for c in (0, 1)]
        return self.pick(np.sort(np.concatenate(rows)))

    def noisy(self, rng: np.random.Generator) -> LabelledTexts:
        """Put ``aaa`` or ``bbb`` before each text, as Jin et al. do."""
        marks = rng.integers(2, size=len(self.texts))
        texts = tuple("ab"[m] * 3 + t for m, t in zip(marks, self.texts, strict=True))
        return replace(self, texts=texts)


# -- sentences that come with engramma -----------------------------------------------------------


def _set(name: str, no: Sequence[str], yes: Sequence[str]) -> LabelledTexts:
    return LabelledTexts(name, (*no, *yes), np.repeat([0, 1], [len(no), len(yes)]))


def _truth(rng: np.random.Generator) -> LabelledTexts:
    forms = {
        "country capital": "The capital of {} is {}.",
        "country language": "The people of {} speak {}.",
        "city country": "The city of {} is in {}.",
    }
    no, yes = [], []
    for relation in relations(forms):
        objects = sorted({o for _, o in relation.facts})
        for subject, right in relation.facts:
            wrong = rng.choice([o for o in objects if o != right])
            yes.append(forms[relation.name].format(subject, right))
            no.append(forms[relation.name].format(subject, wrong))
    return _set("true or false", no, yes)


def _sentiment(rng: np.random.Generator) -> LabelledTexts:
    """Each word of praise or blame stands in one sentence only, so that no word is learned."""
    sides = []
    for words in (NEGATIVE, POSITIVE):
        scenes = rng.choice(SCENES, size=len(words))
        sides.append([f"{s} was {w}." for s, w in zip(scenes, words, strict=True)])
    return _set("good or bad", *sides)


def _number(rng: np.random.Generator) -> LabelledTexts:
    frames = ("I saw the {}.", "We looked at the {}.", "She thought of the {}.")
    chosen = rng.choice(frames, size=len(NOUNS)).tolist()
    pairs = list(zip(NOUNS.items(), chosen, strict=True))
    return _set(
        "one or many", [f.format(n[0]) for n, f in pairs], [f.format(n[1]) for n, f in pairs]
    )


def _tense(rng: np.random.Generator) -> LabelledTexts:
    people = rng.choice(("They", "We", "My parents", "The boys"), size=len(VERBS)).tolist()
    pairs = list(zip(VERBS.items(), people, strict=True))
    return _set(
        "present or past", [f"{p} {v[0]}" for v, p in pairs], [f"{p} {v[1]}" for v, p in pairs]
    )


def _coins(rng: np.random.Generator) -> LabelledTexts:
    """Stories of the kind of coin_flip.json: three people flip a coin or do not."""
    sides: tuple[list[str], list[str]] = ([], [])
    while min(map(len, sides)) < 60:
        flips = rng.integers(2, size=3)
        people = rng.choice(NAMES, size=3, replace=False)
        acts = [
            f"{p} {'flips' if f else 'does not flip'} it."
            for p, f in zip(people, flips, strict=True)
        ]
        text = " ".join(["A coin is heads up.", *acts, "Is it still heads up?"])
        side = sides[int(flips.sum() % 2 == 0)]
        if len(side) < 60 and text not in side:
            side.append(text)
    return _set("parity of coin flips", *sides)


OWN: dict[str, Callable[[np.random.Generator], LabelledTexts]] = {
    "good or bad": _sentiment,
    "one or many": _number,
    "present or past": _tense,
    "true or false": _truth,
    "parity of coin flips": _coins,
}


def own_texts(name: str, seed: int = 0) -> LabelledTexts:
    """Return a set of sentences that comes with engramma; see `OWN`.

    In each, what tells the classes apart on one side of a split is not to be found on the other:
    other adjectives, nouns, verbs or facts.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if name not in OWN:
        raise ConfigError(f"there is no set {name!r}", mend=f"use one of {', '.join(OWN)}")
    return OWN[name](np.random.default_rng([seed, 11]))


# -- a world for small models --------------------------------------------------------------------


@dataclass(frozen=True)
class CoinStories:
    """Stories of (word, flip) pairs, and three questions about them.

    Question 0 is the class of the first word, 1 the class of most words, 2 the parity of the flips.
    A prompt is word, flip, word, flip, ..., question; the answer is one of two tokens.

    Parameters
    ----------
    seed : int
    pairs : int
        Odd, so that there is a majority.
    words : int
        Half of them in each class.
    """

    seed: int = 0
    pairs: int = 3
    words: int = 20

    @property
    def vocabulary(self) -> int:
        """Words, two flips, three questions, two answers, two tokens that mean nothing."""
        return self.words + 9

    @cached_property
    def classes(self) -> np.ndarray:
        """Class of each word."""
        rng = np.random.default_rng([self.seed, 1])
        return rng.permutation(np.arange(self.words) % 2)

    def draw(self, rng: np.random.Generator, size: int, question: int | None = None) -> Any:
        """Draw stories.

        Returns
        -------
        tokens : Tensor of int64, shape (story, 2 pairs + 1)
        labels : ndarray of int, shape (story,)
            Answer to the question asked.
        """
        words = rng.integers(self.words, size=(size, self.pairs))
        flips = rng.integers(2, size=(size, self.pairs))
        asked = rng.integers(3, size=size) if question is None else np.full(size, question)
        classes = self.classes[words]
        answers = np.stack(
            [classes[:, 0], 2 * classes.sum(axis=1) > self.pairs, flips.sum(axis=1) % 2]
        ).astype(int)
        story = np.stack([words, self.words + flips], axis=2).reshape(size, -1)
        tokens = np.column_stack([story, self.words + 2 + asked])
        return torch.as_tensor(tokens), answers[asked, np.arange(size)]

    def answers(self, labels: np.ndarray) -> Tensor:
        """Tokens of answers."""
        return torch.as_tensor(self.words + 5 + labels)

    def noisy(self, tokens: Tensor, rng: np.random.Generator) -> Tensor:
        """Put one of the two tokens that mean nothing before each story."""
        marks = torch.as_tensor(self.words + 7 + rng.integers(2, size=(len(tokens), 1)))
        return torch.cat([marks, tokens], dim=1)

    def batch(self, rng: np.random.Generator, size: int = 128) -> tuple[Tensor, Tensor]:
        """Stories with their answers, and the weights of the loss: the answer only."""
        tokens, labels = self.draw(rng, size)
        tokens = torch.cat([tokens, self.answers(labels)[:, None]], dim=1)
        weights = torch.zeros(tokens.shape)
        weights[:, -1] = 1.0
        return tokens, weights
