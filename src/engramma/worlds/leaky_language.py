r"""LeakyLanguage: sentences whose words leave traces that fade, facts, and reading times.

A vocabulary of words, made of one to three sub-word tokens, has frequencies after Zipf and belongs
to topics. Within a passage on a topic words follow a Markov chain of known probabilities, so that
the true surprisal of every word is known. Voxels follow leaky sums of word vectors,

.. math:: L_\tau = \sum_i e^{-(n - i)/\tau}\, v_i

over the n words of a sentence, each voxel with one time constant. Sentences may name an entity:
*knowledge* voxels follow its attributes, which no sentence states.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from engramma.data.features import Features
from engramma.data.recording import Cohort
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError
from engramma.registry import world
from engramma.worlds.vector_views import VectorView, record, unit_rows

#: Attributes of entities and their values.
ATTRIBUTES = {
    "job": ("baker", "sailor", "teacher", "farmer"),
    "home": ("coast", "city", "forest", "hills"),
    "pet": ("cat", "parrot", "goat", "snake"),
}
_SUCCESSORS, _FOLLOWS = 5, 0.5


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Words, their tokens and vectors, and how they follow one another.

    Parameters
    ----------
    tokens : list of str
        Sub-word tokens.
    words : list of str
    spelling : list of tuple of int
        Tokens of each word.
    topics : ndarray of int, shape (n_words,)
        Topic of each word.
    vectors : ndarray, shape (n_words, n_dimensions)
        Unit length: topic, mean of the tokens and the word's own part.
    unigrams : ndarray, shape (n_topics, n_words)
        Probabilities in passages on a topic: Zipf's, tenfold for words of the topic.
    successors : ndarray of int, shape (n_words, 5)
        Words that follow a word, equally likely, with probability one half; else the next is
        drawn from the topic's unigrams.
    """

    tokens: list[str]
    words: list[str]
    spelling: list[tuple[int, ...]]
    topics: np.ndarray
    vectors: np.ndarray
    unigrams: np.ndarray
    successors: np.ndarray

    def probability(self, word: np.ndarray, before: np.ndarray, topic: np.ndarray) -> np.ndarray:
        """Return the true probability of words; ``before`` is -1 at the start of a sentence."""
        base = self.unigrams[topic, word]
        follows = (self.successors[before] == word[..., None]).mean(axis=-1)
        mixed = (1 - _FOLLOWS) * base + _FOLLOWS * follows
        return np.where(before < 0, base, mixed)


@world("leaky-language")
def leaky_language(
    seed: int = 0,
    *,
    n_passages: int = 60,
    n_sentences: int = 8,
    n_words: int = 400,
    n_tokens: int = 150,
    n_topics: int = 12,
    n_dimensions: int = 50,
    n_entities: int = 24,
    time_constants: tuple[float, ...] = (1.0, 4.0, 16.0),
    n_voxels: int = 100,
    noise: float = 1.0,
    reading: tuple[float, float, float, float] = (250.0, 12.0, 8.0, 60.0),
    signal: bool = True,
) -> VectorView:
    """Let a virtual subject read sentences.

    Parameters
    ----------
    seed : int
    n_passages, n_sentences : int
        Each passage, which is a session, has a topic and so many sentences of 5 to 14 words.
    n_words, n_tokens, n_topics, n_dimensions : int
        Of the vocabulary.
    n_entities : int
        People; each is named by about as many sentences, of which half name nobody.
    time_constants : tuple of float
        Of the leaky sums, in words.
    n_voxels : int
        That follow leaky sums, shared equally between time constants (``roi`` ``leaky 1``, ...).
        A fifth as many each follow the attributes of the named person (``knowledge``), the number
        of words (``length``: no meaning helps there) and nothing (``noise``).
    noise : float
        Standard deviation of the noise; that of the signal is 1.
    reading : tuple of float
        Of a word's reading time in milliseconds: constant, per bit of true surprisal, per letter,
        and standard deviation of the noise.
    signal : bool
        False: no voxel follows anything.

    Returns
    -------
    VectorView
        Stimuli have ``caption`` (the sentence), ``passage``, ``topic``, ``entity`` (or empty) and
        ``n_words``. Features ``mean`` and ``last`` (word vectors of a sentence), ``length``, and
        the oracles ``leaky`` (all sums side by side) and ``knowledge``. Truth: ``vocabulary``
        (`Vocabulary`), ``words`` (a table: one row a word with ``sentence``, ``position``,
        ``word``, ``code`` (-1 for a name), ``surprisal`` in bits and ``reading_time`` in ms),
        ``facts`` (entity x attribute) and ``statements`` (a table: a ``sentence`` that states each
        fact, a ``question`` and its ``answer``).

    Raises
    ------
    ConfigError
        If an option is out of range.
    """
    if n_words < 5 * n_topics or n_tokens < 20 or n_topics < 1 or n_passages < 1:
        raise ConfigError(
            f"{n_words} words of {n_tokens} tokens are too few for {n_topics} topics",
            mend="use five words a topic and 20 tokens, or more",
        )
    if not time_constants or min(time_constants) <= 0 or n_voxels < 5 or noise <= 0:
        raise ConfigError(
            "the world 'leaky-language' cannot be made with these options",
            mend="use positive time constants and noise, and at least 5 voxels",
        )
    if n_sentences < 1 or n_entities < 1 or n_passages * n_sentences < 2:
        raise ConfigError("there is nothing to read", mend="use more sentences and entities")
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence([seed, 4]).spawn(4)]
    word_rng, text_rng, brain_rng, eye_rng = streams
    vocabulary = make_vocabulary(n_words, n_tokens, n_topics, n_dimensions, rng=word_rng)
    names, facts, statements = _people(vocabulary, n_entities, word_rng)
    name_vectors = unit_rows(word_rng.standard_normal((n_entities, n_dimensions)))
    n = n_passages * n_sentences
    topic = np.repeat(text_rng.integers(n_topics, size=n_passages), n_sentences)
    lengths = text_rng.integers(5, 15, n)
    codes = _write(vocabulary, topic, int(lengths.max()), text_rng)
    entity = np.where(text_rng.random(n) < 0.5, text_rng.integers(n_entities, size=n), -1)
    # A name stands before the sentence, and counts as one of its words.
    texts, vectors, rows = [], [], []
    surprisal = -np.log2(_chances(vocabulary, codes, topic))
    for i in range(n):
        own = codes[i, : lengths[i]]
        spoken = [vocabulary.words[c] for c in own]
        bits = list(surprisal[i, : lengths[i]])
        seen, listed = vocabulary.vectors[own], list(own)
        if entity[i] >= 0:
            spoken, listed = [names[entity[i]], *spoken], [-1, *listed]
            bits = [np.log2(2 * n_entities), *bits]
            seen = np.concatenate([name_vectors[[entity[i]]], seen])
        else:
            bits[0] += 1  # one bit says that nobody is named, as likely as that someone is
        texts.append(" ".join(spoken) + ".")
        vectors.append(seen)
        rows += [(i, p, *w) for p, w in enumerate(zip(spoken, listed, bits, strict=True))]
    words = pd.DataFrame(rows, columns=["sentence", "position", "word", "code", "surprisal"])
    words["reading_time"] = (
        reading[0]
        + reading[1] * words["surprisal"]
        + reading[2] * words["word"].str.len()
        + reading[3] * eye_rng.standard_normal(len(words))
    )
    count = np.asarray([len(v) for v in vectors])
    sums = np.stack([[leaky_sum(v, tau) for v in vectors] for tau in time_constants])
    known = np.zeros((n, 4 * len(ATTRIBUTES)))
    for a, values in enumerate(facts.T):
        named = np.flatnonzero(entity >= 0)
        known[named, 4 * a + values[entity[named]]] = 1
    clean, roi = _responses(sums, time_constants, known, count, n_voxels, brain_rng)
    ids = tuple(f"sentence{i:04d}" for i in range(n))
    table = pd.DataFrame(
        {
            "caption": texts,
            "passage": [f"passage{i:03d}" for i in np.repeat(np.arange(n_passages), n_sentences)],
            "topic": [f"topic{t}" for t in topic],
            "entity": [names[e] if e >= 0 else "" for e in entity],
            "n_words": count,
        },
        index=pd.Index(ids, dtype=object),
    )
    stimuli = StimulusSet(table)
    recording = record(
        clean * signal, roi, stimuli, snr=1 / noise**2, rng=brain_rng,
        source="generated: voxels in which words leave fading traces",
    )  # fmt: skip
    arrays = {
        "mean": np.stack([v.mean(axis=0) for v in vectors]),
        "last": np.stack([v[-1] for v in vectors]),
        "length": count[:, None],
        "leaky": np.concatenate(list(sums), axis=1),
        "knowledge": known,
    }
    features = {
        k: Features(v.astype(np.float32), ids, k, "leaky-language") for k, v in arrays.items()
    }
    truth = {
        "vocabulary": vocabulary,
        "words": words,
        "facts": pd.DataFrame(
            {a: np.asarray(v)[facts[:, i]] for i, (a, v) in enumerate(ATTRIBUTES.items())},
            index=pd.Index(names, dtype=object),
        ),
        "statements": statements,
    }
    attrs = {"world": "leaky-language", "seed": seed, "noise": noise, "signal": signal}
    return VectorView(stimuli, Cohort({"sub-01": recording}, attrs=attrs), features, truth)


def make_vocabulary(
    n_words: int, n_tokens: int, n_topics: int, n_dimensions: int, *, rng: np.random.Generator
) -> Vocabulary:
    """Make words of one to three tokens, with frequencies, topics, vectors and successors."""
    heads = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    syllables = heads + [h + c for h in heads for c in "lnrs"]
    if n_tokens > len(syllables):
        raise ConfigError(
            f"{n_tokens} tokens are more than can be spelled", mend=f"use {len(syllables)} at most"
        )
    tokens = [syllables[i] for i in rng.permutation(len(syllables))[:n_tokens]]
    words: dict[str, tuple[int, ...]] = {}
    while len(words) < n_words:
        spelled = tuple(int(t) for t in rng.integers(n_tokens, size=rng.integers(1, 4)))
        words.setdefault("".join(tokens[t] for t in spelled), spelled)
    spelling = list(words.values())
    topics = rng.permutation(np.arange(n_words) % n_topics)
    of_token = rng.standard_normal((n_tokens, n_dimensions))
    of_topic = rng.standard_normal((n_topics, n_dimensions))
    parts = np.stack([of_token[list(s)].sum(axis=0) / np.sqrt(len(s)) for s in spelling])
    own = rng.standard_normal((n_words, n_dimensions))
    zipf = 1 / (1 + rng.permutation(n_words))
    unigrams = zipf * np.where(topics == np.arange(n_topics)[:, None], 10.0, 1.0)
    return Vocabulary(
        tokens=tokens,
        words=list(words),
        spelling=spelling,
        topics=topics,
        vectors=unit_rows(0.6 * of_topic[topics] + 0.6 * parts + own),
        unigrams=unigrams / unigrams.sum(axis=1, keepdims=True),
        successors=np.stack([rng.permutation(n_words)[:_SUCCESSORS] for _ in range(n_words)]),
    )


def leaky_sum(vectors: np.ndarray, time_constant: float) -> np.ndarray:
    """Sum the word vectors (n, d) of a sentence, each faded by the words that came after it."""
    age = np.arange(len(vectors) - 1, -1, -1)
    return np.asarray(np.exp(-age / time_constant) @ vectors)


def localizer_texts(
    vocabulary: Vocabulary, n: int, *, n_words: int = 12, rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Write sentences and lists of as many non-words, for a language localizer.

    Non-words are spelled with the same tokens, after Fedorenko et al. (2010).

    Returns
    -------
    sentences, nonwords : list of str
        ``n`` each.
    """
    topic = rng.integers(len(vocabulary.unigrams), size=n)
    codes = _write(vocabulary, topic, n_words, rng)
    sentences = [" ".join(vocabulary.words[c] for c in row) for row in codes]
    real = set(vocabulary.words)
    lists: list[str] = []
    while len(lists) < n:
        made: list[str] = []
        while len(made) < n_words:
            spelled = rng.integers(len(vocabulary.tokens), size=rng.integers(1, 4))
            word = "".join(vocabulary.tokens[t] for t in spelled)
            if word not in real:
                made.append(word)
        lists.append(" ".join(made))
    return sentences, lists


def _write(
    vocabulary: Vocabulary, topic: np.ndarray, length: int, rng: np.random.Generator
) -> np.ndarray:
    """Words of sentences, (n, length), all sentences one word after the other."""
    codes = np.empty((len(topic), length), dtype=int)
    cumulative = vocabulary.unigrams.cumsum(axis=1)
    cumulative[:, -1] = 1.0
    for position in range(length):
        chance = rng.random(len(topic))
        drawn = (cumulative[topic] < chance[:, None]).sum(axis=1)
        if position:
            options = vocabulary.successors[codes[:, position - 1]]
            picked = options[np.arange(len(topic)), rng.integers(_SUCCESSORS, size=len(topic))]
            drawn = np.where(rng.random(len(topic)) < _FOLLOWS, picked, drawn)
        codes[:, position] = drawn
    return codes


def _chances(vocabulary: Vocabulary, codes: np.ndarray, topic: np.ndarray) -> np.ndarray:
    """Probability of every word given its topic and the word before."""
    before = np.concatenate([np.full((len(codes), 1), -1), codes[:, :-1]], axis=1)
    return vocabulary.probability(codes, before, topic[:, None])


def _people(
    vocabulary: Vocabulary, n: int, rng: np.random.Generator
) -> tuple[list[str], np.ndarray, pd.DataFrame]:
    """Names, attributes (person x attribute, numbers) and what states and asks for them."""
    names: list[str] = []
    while len(names) < n:
        spelled = rng.integers(len(vocabulary.tokens), size=2)
        name = "".join(vocabulary.tokens[t] for t in spelled).capitalize()
        if name not in names and name.lower() not in vocabulary.words:
            names.append(name)
    facts = rng.integers(4, size=(n, len(ATTRIBUTES)))
    rows = [
        (name, attribute, f"the {attribute} of {name} is {values[code]}.",
         f"what is the {attribute} of {name}?", values[code])
        for name, codes in zip(names, facts, strict=True)
        for (attribute, values), code in zip(ATTRIBUTES.items(), codes, strict=True)
    ]  # fmt: skip
    columns = ["entity", "attribute", "sentence", "question", "answer"]
    return names, facts, pd.DataFrame(rows, columns=columns)


def _responses(
    sums: np.ndarray,
    time_constants: tuple[float, ...],
    known: np.ndarray,
    count: np.ndarray,
    n_voxels: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Noise-free responses of all voxels, and what each follows."""
    clean, roi = [], []
    for part, total, tau in zip(
        np.array_split(np.arange(n_voxels), len(sums)), sums, time_constants, strict=True
    ):
        clean.append(total @ rng.standard_normal((total.shape[1], len(part))))
        roi += [f"leaky {tau:g}"] * len(part)
    few = n_voxels // 5
    clean.append(known @ rng.standard_normal((known.shape[1], few)))
    clean.append(np.outer(count, rng.choice([-1.0, 1.0], few)))
    clean.append(np.zeros((len(known), few)))
    return np.concatenate(clean, axis=1), np.asarray([*roi, *np.repeat(
        ["knowledge", "length", "noise"], few)])  # fmt: skip
