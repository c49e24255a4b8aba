"""Deterministic tasks whose right answers differ in how likely they are in themselves.

A cipher over a small alphabet, whose prior and best possible answers are known exactly, for models
that are trained in place; and four tasks in English for models that can read (after McCoy, Yao,
Friedman, Hardy & Griffiths 2023, "Embers of autoregression", arXiv:2309.13638, and Zhang,
Veselovsky, McCoy & Griffiths 2025, arXiv:2504.12585): taking initials, counting, a shift cipher,
and swapping articles with the word before them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from engramma.errors import ConfigError, DataError

Mode = Literal["normal", "exact", "language"]


def zipf(n: int, exponent: float = 1.0) -> np.ndarray:
    """Probabilities of n things in order of rank, proportional to rank ** -exponent."""
    weights = np.arange(1, n + 1, dtype=float) ** -exponent
    return weights / weights.sum()


@dataclass(frozen=True)
class CipherWorld:
    """Two-letter answers with a Zipf prior, to be read from two noisy symbols.

    A sequence is ``[mode, s1, s2, =, l1, l2]``, where s = l + shift modulo the number of letters.
    In mode NORMAL answers follow the prior, and each symbol is replaced by one drawn uniformly
    from all symbols with probability ``noise``: so it pays to weigh the prior. In mode EXACT
    symbols are clean and answers uniform. In mode LANGUAGE both symbols are blank: all that can be
    told is the prior.

    Parameters
    ----------
    letters : int
        Size A of the alphabet; there are A ** 2 answers.
    shift : int
    noise : float
        Probability of replacement in NORMAL.
    exponent : float
        Of the prior.
    seed : int
        Of which answer has which rank.
    """

    letters: int = 20
    shift: int = 7
    noise: float = 0.4
    exponent: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.letters < 2 or not 0 <= self.noise <= 1:
            raise ConfigError(
                f"no cipher has {self.letters} letters and noise {self.noise}",
                where="CipherWorld",
                mend="use two letters or more, and noise between 0 and 1",
            )

    @property
    def vocabulary(self) -> int:
        """Letters, symbols, three modes, the sign "=" and the blank."""
        return 2 * self.letters + 5

    @cached_property
    def prior(self) -> np.ndarray:
        """Probability of each answer (A ** 2,); answer n is the letters n // A, n % A."""
        ranked = zipf(self.letters**2, self.exponent)
        return np.random.default_rng([self.seed, 0]).permutation(ranked)

    @property
    def by_prior(self) -> np.ndarray:
        """Answers, the likeliest first."""
        return np.argsort(-self.prior, kind="stable")

    def spelled(self, answers: np.ndarray) -> np.ndarray:
        """Letters of answers (n,), n x 2."""
        return np.stack(np.divmod(answers, self.letters), axis=1)

    def symbols(self, answers: np.ndarray) -> np.ndarray:
        """Clean symbols of answers (n,), n x 2, counted from 0."""
        return (self.spelled(answers) + self.shift) % self.letters

    @cached_property
    def conditional_log_prior(self) -> np.ndarray:
        """Log probability of the first letter, and of the second given it: A ** 2 x 2, nats."""
        table = self.prior.reshape(self.letters, self.letters)
        first = table.sum(axis=1, keepdims=True)
        both = np.stack([np.broadcast_to(first, table.shape), table / first], axis=-1)
        return np.log(both).reshape(-1, 2)

    def sequences(
        self, answers: np.ndarray, mode: Mode, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Token numbers of whole sequences, n x 6; symbols are corrupted if ``rng`` is given."""
        a = self.letters
        symbols = self.symbols(answers)
        if rng is not None:
            replaced = rng.random(symbols.shape) < self.noise
            symbols = np.where(replaced, rng.integers(0, a, symbols.shape), symbols)
        symbols = np.full_like(symbols, a + 4) if mode == "language" else symbols
        sign = {"normal": 2 * a, "exact": 2 * a + 1, "language": 2 * a + 2}[mode]
        ends = np.full((len(answers), 1), 1)
        return np.hstack([sign * ends, a + symbols, (2 * a + 3) * ends, self.spelled(answers)])

    def batch(
        self, rng: np.random.Generator, normal: int = 96, exact: int = 16, language: int = 16
    ) -> tuple[Tensor, Tensor]:
        """Draw training sequences, and weights that count the answer's two letters only."""
        n = self.letters**2
        parts = [
            self.sequences(rng.choice(n, normal, p=self.prior), "normal", rng),
            self.sequences(rng.integers(0, n, exact), "exact"),
            self.sequences(rng.choice(n, language, p=self.prior), "language"),
        ]
        tokens = torch.from_numpy(np.concatenate(parts))
        weights = torch.zeros(tokens.shape)
        weights[:, 4:] = 1.0
        return tokens, weights

    # -- the best that can be done ---------------------------------------------------------------

    def posterior(self, symbols: np.ndarray) -> np.ndarray:
        """Probability of each answer given NORMAL symbols (n x 2), n x A ** 2: Bayes' rule."""
        a = self.letters
        found = self.symbols(np.arange(a**2))[None] == symbols[:, None]
        likelihood = np.where(found, 1 - self.noise + self.noise / a, self.noise / a).prod(axis=2)
        joint = likelihood * self.prior
        return np.asarray(joint / joint.sum(axis=1, keepdims=True))

    @cached_property
    def _greedy(self) -> np.ndarray:
        """Answer to each pair of symbols, the likeliest first letter first (A ** 2,)."""
        a = self.letters
        pairs = np.stack(np.divmod(np.arange(a**2), a), axis=1)
        table = self.posterior(pairs).reshape(-1, a, a)
        first = table.sum(axis=2).argmax(axis=1)
        second = table[np.arange(a**2), first].argmax(axis=1)
        return np.asarray(first * a + second)

    def bayes_answers(self, answers: np.ndarray) -> np.ndarray:
        """Return the answers of an ideal observer in NORMAL to clean symbols of ``answers`` (n,).

        Letters are chosen one after the other, as a language model decodes them: the likeliest
        first letter, then the likeliest second one given it.
        """
        s = self.symbols(answers)
        return np.asarray(self._greedy[s[:, 0] * self.letters + s[:, 1]])

    @cached_property
    def bayes_accuracy(self) -> float:
        """Accuracy of that observer over NORMAL sequences as they are trained on: the ceiling.

        Exact, summed over all answers and all pairs of symbols: the share of the posterior mass
        that its answers have, weighted by how often each pair of symbols comes.
        """
        a = self.letters
        pairs = np.stack(np.divmod(np.arange(a**2), a), axis=1)
        found = self.symbols(np.arange(a**2))[None] == pairs[:, None]
        likelihood = np.where(found, 1 - self.noise + self.noise / a, self.noise / a).prod(axis=2)
        joint = likelihood * self.prior
        return float(joint[np.arange(a**2), self._greedy].sum())


# -- tasks in English ------------------------------------------------------------------------


@dataclass(frozen=True)
class PriorItem:
    """A question with one right answer: a row of a JSON-lines file.

    Parameters
    ----------
    prompt, answer, task : str
    log_prior : float
        Nats; NaN where it is not known yet.
    """

    prompt: str
    answer: str
    task: str
    log_prior: float = float("nan")


_COMMON = """
cat dog sun man box hat car day map bed cup leg top war art bag boy pen red sea air ice job key law
oil pay sky tax toy way win age arm bar bus cow egg eye fan fun gas gun ham hot ink jam lip
"""
_STARTING = """
apple arrow anchor bread bridge button candle carpet castle desert dragon drawer eagle engine
evening feather forest finger garden guitar ginger hammer harbor honey island insect ivory jacket
jewel kitchen kettle knight ladder lemon lantern market mirror mountain needle number nature orange
onion office paper pencil pocket queen quarter quilt river rabbit ribbon silver spider summer table
tiger tunnel umbrella uncle unicorn valley velvet violin window winter wagon xylophone xenon xerox
yellow yogurt yacht zebra zipper zero
"""
_SENTENCES = """
she put the book on a chair
he saw the dog in a garden
they found the key under a stone
we bought the house near a lake
the boy gave a flower to her
a woman read the letter aloud
he wrote a song about the sea
she drew the tree with a pencil
they sold the car to a friend
we met the teacher at a shop
the cat slept on a pillow
a farmer fed the horse twice
"""
COMMON = tuple(_COMMON.split())
#: Words to hide initials in, by their first letter.
STARTING = {
    letter: tuple(word for word in _STARTING.split() if word[0] == letter)
    for letter in "abcdefghijklmnopqrstuvwxyz"
}
SENTENCES = tuple(_SENTENCES.strip().splitlines())
ARTICLES = frozenset({"a", "an", "the"})


def shifted(text: str, shift: int) -> str:
    """Letters a to z moved on by ``shift``, cyclically; all else stays."""
    return "".join(
        chr((ord(c) - 97 + shift) % 26 + 97) if "a" <= c <= "z" else c for c in text.lower()
    )


def swap_articles(text: str) -> str:
    """Exchange each article with the word before it, from left to right."""
    words = text.split()
    for place in range(1, len(words)):
        if words[place] in ARTICLES:
            words[place - 1], words[place] = words[place], words[place - 1]
    return " ".join(words)


def _random_words(n: int, rng: np.random.Generator) -> list[str]:
    """Three letters at random, no word of `COMMON` among them."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    drawn = {"".join(rng.choice(letters, 3)) for _ in range(3 * n)}
    return sorted(drawn - set(COMMON))[:: max(1, len(drawn) // n)][:n]


def _words(n: int, rng: np.random.Generator) -> list[str]:
    """As many common words as random strings, in random order."""
    common = list(rng.choice(COMMON, min(n - n // 2, len(COMMON)), replace=False))
    return list(rng.permutation([*common, *_random_words(n - len(common), rng)]))


def acronyms(n: int, *, rng: np.random.Generator) -> list[PriorItem]:
    """Words whose initials are common words in one half, and random letters in the other."""
    items = []
    for word in _words(n, rng):
        hidden = " ".join(rng.choice(STARTING[letter]) for letter in word)
        items.append(PriorItem(f"Words: {hidden}\nInitials:", word.upper(), "acronyms"))
    return items


def counting(n: int, *, rng: np.random.Generator, largest: int = 12) -> list[PriorItem]:
    """Make lists of one letter that comes 1 to ``largest`` times."""
    items = []
    for _ in range(n):
        count, letter = int(rng.integers(1, largest + 1)), rng.choice(list("abcdefghkmnprstuwxyz"))
        listed = " ".join([letter] * count)
        items.append(PriorItem(f"Letters: {listed}\nCount:", str(count), "counting"))
    return items


def shift_cipher(n: int, *, rng: np.random.Generator, shift: int = 13) -> list[PriorItem]:
    """Words to be deciphered by moving each letter back by ``shift``."""
    return [
        PriorItem(f"Cipher: {shifted(word, shift)}\nPlain:", str(word), f"shift-{shift}")
        for word in _words(n, rng)
    ]


def article_swapping(n: int, *, rng: np.random.Generator) -> list[PriorItem]:
    """Sentences whose articles change places with the word before; every second answer is good."""
    items = []
    for number in range(n):
        sentence = str(rng.choice(SENTENCES))
        # Swapped twice, a text is itself again, if no two articles are neighbours.
        given, answer = sentence, swap_articles(sentence)
        if number % 2 and swap_articles(answer) == sentence:
            given, answer = answer, given
        items.append(PriorItem(f"Text: {given}\nSwapped:", answer, "article-swapping"))
    return items


TASKS: dict[str, Callable[..., list[PriorItem]]] = {
    "acronyms": acronyms,
    "counting": counting,
    "shift-cipher": shift_cipher,
    "article-swapping": article_swapping,
}


def with_examples(items: Sequence[PriorItem], examples: Sequence[PriorItem]) -> list[str]:
    """Prompts with solved examples before them (few-shot)."""
    shown = "".join(f"{e.prompt} {e.answer}\n\n" for e in examples)
    return [shown + item.prompt for item in items]


def write_items(path: str | Path, items: Iterable[PriorItem]) -> None:
    """Write items as JSON lines."""
    lines = [json.dumps(asdict(item)) for item in items]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_items(path: str | Path) -> list[PriorItem]:
    """Read JSON lines with ``prompt``, ``answer``, ``task`` and, if known, ``log_prior``.

    Raises
    ------
    DataError
        With the line that is none.
    """
    items = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prior = float(row.get("log_prior", "nan"))
            items.append(PriorItem(row["prompt"], row["answer"], row["task"], prior))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"this is no item of a task ({error!r})",
                where=f"{path}, line {number}",
                mend='write {"prompt": ..., "answer": ..., "task": ..., "log_prior": ...}',
            ) from error
    return items
