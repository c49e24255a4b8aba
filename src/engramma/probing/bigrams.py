"""Sentences to be remembered, and foils they could be taken for.

A bigram language of word numbers for models that are trained in place; a small grammar of English
for models that can read. In both each word has a synonym, so that the foils of Orhan 2023
(arXiv:2303.17557) can be made: other sentences, paraphrases, one word replaced by a synonym, random
words, and shuffled words. A sentence is a list of words, numbers or text.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from engramma.errors import ConfigError, DataError

Word = TypeVar("Word", bound=Hashable)


@dataclass(frozen=True)
class BigramLanguage:
    """Words that depend on the word before.

    Words 2 m and 2 m + 1 are two forms of meaning m: they are followed by the same words, and each
    comes in half of the cases. The meaning that follows is drawn from a row of a table whose rows
    are drawn from a symmetric Dirichlet distribution; the first one is drawn uniformly.

    Parameters
    ----------
    words : int
        V, even.
    concentration : float
        Of the Dirichlet distribution: the smaller, the fewer words may follow.
    length : int
        Words T of a sentence.
    seed : int
        Of the table.
    """

    words: int = 200
    concentration: float = 0.05
    length: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.words < 4 or self.words % 2 or self.length < 2 or self.concentration <= 0:
            raise ConfigError(
                f"no bigram language has {self.words} words, sentences of {self.length} and "
                f"concentration {self.concentration}",
                mend="use an even number of words, two or more a sentence, and a positive number",
            )

    @cached_property
    def meanings(self) -> np.ndarray:
        """Probability of the next meaning given the last (V / 2, V / 2)."""
        n = self.words // 2
        rng = np.random.default_rng([self.seed, 0])
        return np.asarray(rng.dirichlet(np.full(n, self.concentration), size=n))

    def sample(self, n: int, *, rng: np.random.Generator) -> np.ndarray:
        """Draw sentences, n x T word numbers."""
        cumulated = self.meanings.cumsum(axis=1)
        meanings = np.empty((n, self.length), dtype=np.int64)
        meanings[:, 0] = rng.integers(0, len(cumulated), n)
        for place in range(1, self.length):
            rows = cumulated[meanings[:, place - 1]]
            # Rounding may leave the last sum a little below 1.
            drawn = (rows < rng.random((n, 1)) * rows[:, -1:]).sum(axis=1)
            meanings[:, place] = drawn
        return 2 * meanings + rng.integers(0, 2, meanings.shape)

    def log_probability(self, sentences: np.ndarray) -> np.ndarray:
        """Log probability of each word after the first (n, T - 1), nats; -inf where impossible."""
        meanings = np.asarray(sentences) // 2
        with np.errstate(divide="ignore"):
            return np.log(self.meanings[meanings[:, :-1], meanings[:, 1:]] / 2)

    @property
    def synonyms(self) -> dict[int, int]:
        """The other form of each word."""
        return {word: word ^ 1 for word in range(self.words)}

    def random(self, n: int, *, rng: np.random.Generator) -> np.ndarray:
        """Draw strings of words that have nothing to do with each other, n x T."""
        return rng.integers(0, self.words, (n, self.length))


# -- foils -----------------------------------------------------------------------------------


def one_synonym(
    sentence: Sequence[Word], synonyms: Mapping[Word, Word], *, rng: np.random.Generator
) -> list[Word]:
    """Replace one word, chosen at random, by its synonym.

    Raises
    ------
    DataError
        If no word has one.
    """
    able = [place for place, word in enumerate(sentence) if word in synonyms]
    if not able:
        raise DataError(
            "no word of this sentence has a synonym",
            where=" ".join(map(str, sentence)),
            mend="give a larger mapping of synonyms",
        )
    changed = list(sentence)
    place = int(rng.choice(able))
    changed[place] = synonyms[changed[place]]
    return changed


def paraphrase(sentence: Sequence[Word], synonyms: Mapping[Word, Word]) -> list[Word]:
    """Replace all words by their synonyms, where they have one."""
    return [synonyms.get(word, word) for word in sentence]


def shuffled(sentence: Sequence[Word], *, rng: np.random.Generator) -> list[Word]:
    """Put words in random order."""
    return [sentence[place] for place in rng.permutation(len(sentence))]


def gibberish(text: str, *, rng: np.random.Generator) -> str:
    """Put the letters of each word, and the words, in random order."""
    words = ["".join(shuffled(word, rng=rng)) for word in text.split()]
    return " ".join(shuffled(words, rng=rng))


def experiment(
    number: int, language: BigramLanguage, n: int, *, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Study set and aligned foils of one of Orhan's six experiments, in a bigram language.

    Parameters
    ----------
    number : {1, 2, 3, 4, 5, 6}
        1 other sentences; 2 paraphrases; 3 one word replaced by its synonym; 4 random words,
        foils too; 5 random words, foils sentences; 6 shuffled sentences, foils the originals.
    language : BigramLanguage
    n : int
        Sentences.

    Returns
    -------
    study, foils : ndarray of int64, n x T
    """
    sentences = language.sample(n, rng=rng)
    if number == 1:
        return sentences, language.sample(n, rng=rng)
    if number == 2:
        return sentences, np.array([paraphrase(s, language.synonyms) for s in sentences.tolist()])
    if number == 3:
        changed = [one_synonym(s, language.synonyms, rng=rng) for s in sentences.tolist()]
        return sentences, np.array(changed)
    if number == 4:
        return language.random(n, rng=rng), language.random(n, rng=rng)
    if number == 5:
        return language.random(n, rng=rng), sentences
    if number == 6:
        return np.array([shuffled(s, rng=rng) for s in sentences.tolist()]), sentences
    raise ConfigError(f"there is no experiment {number}", mend="they are 1 to 6")


def shares_ngram(
    sentences: Sequence[Sequence[Hashable]], corpus: Sequence[Sequence[Hashable]], n: int = 8
) -> np.ndarray:
    """Whether a sentence has n words in a row that the corpus has too (sentence,)."""
    known = {gram for text in corpus for gram in _ngrams(text, n)}
    return np.array([any(gram in known for gram in _ngrams(s, n)) for s in sentences])


def _ngrams(words: Sequence[Hashable], n: int) -> set[tuple[Hashable, ...]]:
    return set(zip(*(words[i:] for i in range(n)), strict=False))


# -- English ---------------------------------------------------------------------------------

#: Slots of a sentence; in each, pairs of words of nearly the same meaning.
_GRAMMAR = {
    "quality": "old/ancient small/little quiet/silent rich/wealthy brave/bold sad/unhappy "
    "clever/smart strange/odd tired/weary polite/courteous",
    "person": "doctor/physician teacher/instructor sailor/mariner lawyer/attorney cook/chef "
    "writer/author thief/robber soldier/warrior farmer/grower king/monarch",
    "town": "Lisbon Oslo Naples Quebec Havana Dakar Riga Cork Perth Lima",
    "deed": "bought/purchased found/discovered built/constructed hid/concealed broke/smashed "
    "sold/traded painted/coloured lifted/raised stole/took repaired/mended",
    "number": "three seven nine twelve twenty forty",
    "look": "red/crimson huge/enormous broken/damaged shiny/gleaming cheap/inexpensive "
    "heavy/weighty dirty/filthy wooden/timber round/circular soft/tender",
    "thing": "boats/ships rocks/stones sofas/couches carpets/rugs pictures/images coats/jackets "
    "lamps/lanterns bottles/flasks bags/sacks hats/caps",
    "when": "before/until after/following during/throughout",
    "event": "storm/tempest war/conflict feast/banquet trial/hearing journey/voyage "
    "party/gathering",
}
_SLOTS = {
    name: [tuple(pair.split("/")) for pair in words.split()] for name, words in _GRAMMAR.items()
}
_PATTERN = "The {quality} {person} from {town} {deed} {number} {look} {thing} {when} the {event}."
#: Synonyms of the grammar's words, in both directions.
THESAURUS = {
    word: other
    for pairs in _SLOTS.values()
    for pair in pairs
    if len(pair) == 2
    for word, other in (pair, pair[::-1])
}


def english_sentences(n: int, *, rng: np.random.Generator) -> list[str]:
    """Sentences of one pattern about made-up deeds; no two are the same."""
    found: dict[str, None] = {}
    while len(found) < n:
        chosen = {}
        for name, pairs in _SLOTS.items():
            pair = pairs[rng.integers(len(pairs))]
            chosen[name] = pair[rng.integers(len(pair))]
        found[_PATTERN.format(**chosen)] = None
    return list(found)


def english_foils(sentences: Sequence[str], kind: str, *, rng: np.random.Generator) -> list[str]:
    """Foils of the grammar's sentences.

    Parameters
    ----------
    sentences : sequence of str
    kind : {"other", "paraphrase", "synonym", "shuffled"}

    Raises
    ------
    ConfigError
        If there is no such kind.
    """
    if kind == "other":
        taken = set(sentences)
        drawn = english_sentences(2 * len(sentences), rng=rng)
        return [s for s in drawn if s not in taken][: len(sentences)]
    words = [s.removesuffix(".").split() for s in sentences]
    if kind == "paraphrase":
        changed = [paraphrase(s, THESAURUS) for s in words]
    elif kind == "synonym":
        changed = [one_synonym(s, THESAURUS, rng=rng) for s in words]
    elif kind == "shuffled":
        changed = [shuffled(s, rng=rng) for s in words]
    else:
        raise ConfigError(
            f"there is no kind of foil {kind!r}", mend="use other, paraphrase, synonym or shuffled"
        )
    return [" ".join(s) + "." for s in changed]


def read_experiment(
    folder: str | Path, number: int, replicate: int = 0
) -> tuple[list[str], list[str]]:
    """Read study set and aligned foils as Orhan's repository keeps them.

    Parameters
    ----------
    folder : path
        With ``expt{1..6}/seen_data_{0..3}.json`` and ``unseen_data_{0..3}.json``: JSON lines with
        ``sent``, the text, and more.
    number, replicate : int

    Raises
    ------
    DataError
        If a file is missing or damaged, or the two differ in length.
    """
    parts = []
    for kind in ("seen", "unseen"):
        path = Path(folder) / f"expt{number}" / f"{kind}_data_{replicate}.json"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            parts.append([str(json.loads(line)["sent"]) for line in lines if line.strip()])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"these are no sentences of an experiment ({error!r})",
                where=str(path),
                mend='each line is a JSON object with "sent"',
            ) from error
    if len(parts[0]) != len(parts[1]):
        raise DataError(
            f"{len(parts[0])} seen sentences stand beside {len(parts[1])} unseen ones",
            where=str(Path(folder) / f"expt{number}"),
            mend="they are aligned by line: line n of the one is the foil of line n of the other",
        )
    return parts[0], parts[1]
