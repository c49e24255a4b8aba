"""Token streams with known answers: key-value recall, needles, copying.

Each generator returns a batch of sequences, what should be predicted where, and how far back the
answer lies. Everything that gives an answer away is drawn anew in each sequence: keys, values, the
order of queries, places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engramma.errors import ConfigError

#: Target of positions that are not scored, as in ``torch.nn.functional.cross_entropy``.
IGNORED = -100


@dataclass(frozen=True)
class TokenStream:
    """A batch of sequences with their answers.

    Parameters
    ----------
    tokens : ndarray of int64, shape (sequence, token)
    targets : ndarray of int64, shape (sequence, token)
        What follows, where it is known from earlier tokens; `IGNORED` elsewhere.
    distance : ndarray of int64, shape (sequence, token)
        Tokens since the answer was last given; -1 where nothing is asked.
    n_tokens : int
        Size of the vocabulary.
    answers : (int, int)
        Ids of the tokens that can be answers, from and up to, for the chance level.
    """

    tokens: np.ndarray
    targets: np.ndarray
    distance: np.ndarray
    n_tokens: int
    answers: tuple[int, int]

    @property
    def chance(self) -> float:
        """Accuracy of guessing among the possible answers."""
        return 1 / (self.answers[1] - self.answers[0])


def key_value_stream(
    rng: np.random.Generator,
    batch: int,
    *,
    pairs: int = 8,
    queries: int | None = None,
    n_keys: int = 64,
    n_values: int = 64,
    gap: int = 0,
    contexts: int = 1,
    overwrites: float = 0.0,
    noise: float = 0.0,
    zipf: float = 0.0,
    n_fillers: int = 8,
) -> TokenStream:
    """Make pairs of keys and values, a gap, and the keys again, whose values are asked for.

    A sequence reads ``k v k v ... filler ... k v k v``; in its second part each value is asked
    for at the position of its key. With ``contexts`` each pair stands behind a context token, and
    one key has another value in each context.

    Parameters
    ----------
    rng : Generator
    batch : int
    pairs : int
        Distinct keys (of a context) that are given a value.
    queries : int, optional
        How many of them are asked for, in random order; all by default.
    n_keys, n_values : int
        Vocabulary. Keys are distinct in a sequence, values are not.
    gap : int
        Filler tokens before the first query.
    contexts : int
        Contexts that share the keys; their pairs are interleaved at random.
    overwrites : float
        Share of the pairs that are given a second time with a new value, which is the right one.
    noise : float
        Filler tokens strewn between pairs, as a share of the pairs.
    zipf : float
        Exponent of the frequency with which keys are chosen; 0 for equal frequency.
    n_fillers : int
        Different filler tokens.

    Returns
    -------
    TokenStream

    Raises
    ------
    ConfigError
        If more pairs are asked for than there are keys.
    """
    if pairs > n_keys:
        raise ConfigError(
            f"{pairs} pairs need as many different keys, and there are {n_keys}",
            where="pairs",
            mend="lower pairs or raise n_keys",
        )
    asked = pairs * contexts if queries is None else queries
    if not 1 <= asked <= pairs * contexts:
        raise ConfigError(
            f"{asked} queries cannot be asked of {pairs * contexts} pairs", where="queries"
        )
    keys = _choose_keys(rng, batch, pairs, n_keys, zipf)
    n_pairs = pairs * contexts
    n_twice = round(overwrites * n_pairs)
    context = np.repeat(np.arange(contexts), pairs)
    # Which pair is written at each place: all once, some of them once more later on.
    order = np.argsort(rng.random((batch, n_pairs)), axis=1)
    again = np.argsort(rng.random((batch, n_pairs)), axis=1)[:, :n_twice]
    written = np.concatenate([order, again], axis=1)
    values = rng.integers(n_values, size=written.shape)
    fillers_between = round(noise * written.shape[1])
    width = 2 + (contexts > 1)
    first_value, first_filler = n_keys, n_keys + n_values
    first_context = first_filler + n_fillers
    rows = np.arange(batch)[:, None]

    def as_tokens(which: np.ndarray, value: np.ndarray) -> np.ndarray:
        parts = [keys[rows, which % pairs], first_value + value]
        if contexts > 1:
            parts.insert(0, first_context + context[which])
        return np.stack(parts, axis=-1)

    # Places of the pairs among fillers that are strewn between them.
    slots = written.shape[1] + fillers_between
    is_pair = np.argsort(rng.random((batch, slots)), axis=1) < written.shape[1]
    body = np.full((batch, written.shape[1] * width + fillers_between), -1)
    length = np.where(is_pair, width, 1)
    start = np.cumsum(length, axis=1) - length
    pair_start = start[is_pair].reshape(batch, -1)
    at = pair_start[..., None] + np.arange(width)
    body[rows[..., None], at] = as_tokens(written, values)
    # What each pair holds at last, and where that was written.
    latest = np.zeros((batch, n_pairs), dtype=np.int64)
    place = np.zeros((batch, n_pairs), dtype=np.int64)
    for step in range(written.shape[1]):
        latest[rows[:, 0], written[:, step]] = values[:, step]
        place[rows[:, 0], written[:, step]] = pair_start[:, step] + width - 1
    query = np.argsort(rng.random((batch, n_pairs)), axis=1)[:, :asked]
    answer = latest[rows, query]
    tail = as_tokens(query, answer).reshape(batch, -1)
    tokens = np.concatenate([body, np.full((batch, gap), -1), tail], axis=1)
    filler = rng.integers(n_fillers, size=tokens.shape) + first_filler
    tokens = np.where(tokens < 0, filler, tokens)
    targets = np.full_like(tokens, IGNORED)
    distance = np.full_like(tokens, -1)
    where = body.shape[1] + gap + np.arange(asked) * width + width - 2
    targets[:, where] = first_value + answer
    distance[:, where] = where - place[rows, query]
    n_tokens = first_context + (contexts if contexts > 1 else 0)
    return TokenStream(tokens, targets, distance, n_tokens, (first_value, first_filler))


def _choose_keys(
    rng: np.random.Generator, batch: int, pairs: int, n_keys: int, zipf: float
) -> np.ndarray:
    """Distinct keys of each sequence, frequent ones more often (Gumbel top-k)."""
    weight = -zipf * np.log(np.arange(1, n_keys + 1))
    return np.argsort(-(weight + rng.gumbel(size=(batch, n_keys))), axis=1)[:, :pairs]


def needle(
    rng: np.random.Generator,
    batch: int,
    *,
    length: int = 64,
    n_keys: int = 16,
    n_values: int = 16,
    distractors: int = 0,
    n_fillers: int = 32,
) -> TokenStream:
    """One pair in a haystack of fillers, asked for at the end.

    A sequence reads ``filler ... mark k v filler ... mark k``; the answer is v. Distractors are
    further pairs with other keys.

    Parameters
    ----------
    rng : Generator
    batch : int
    length : int
        Tokens in all.
    n_keys, n_values : int
    distractors : int
    n_fillers : int

    Returns
    -------
    TokenStream
    """
    n_pairs = 1 + distractors
    room = length - 2 - 3 * n_pairs
    if room < 0 or n_pairs > n_keys:
        raise ConfigError(
            f"{n_pairs} pairs need {3 * n_pairs + 2} tokens and {n_pairs} keys",
            where=f"length {length}, {n_keys} keys",
            mend="raise length or n_keys",
        )
    rows = np.arange(batch)[:, None]
    first_filler = n_keys + n_values
    mark = first_filler + n_fillers
    keys = _choose_keys(rng, batch, n_pairs, n_keys, 0.0)
    values = rng.integers(n_values, size=(batch, n_pairs))
    tokens = rng.integers(n_fillers, size=(batch, length)) + first_filler
    # Pairs lie anywhere, three tokens each, never overlapping: sorted places plus room for each.
    # The asked-for pair is any one of them.
    start = np.sort(rng.integers(room + 1, size=(batch, n_pairs)), axis=1) + 3 * np.arange(n_pairs)
    tokens[rows, start] = mark
    tokens[rows, start + 1] = keys
    tokens[rows, start + 2] = n_keys + values
    asked = rng.integers(n_pairs, size=batch)
    one = np.arange(batch)
    tokens[:, -2] = mark
    tokens[:, -1] = keys[one, asked]
    targets = np.full_like(tokens, IGNORED)
    distance = np.full_like(tokens, -1)
    targets[:, -1] = n_keys + values[one, asked]
    distance[:, -1] = length - 1 - (start[one, asked] + 2)
    return TokenStream(tokens, targets, distance, mark + 1, (n_keys, first_filler))


def copying(
    rng: np.random.Generator,
    batch: int,
    *,
    symbols: int = 8,
    gap: int = 32,
    n_symbols: int = 8,
    selective: bool = False,
) -> TokenStream:
    """Symbols, a gap, a mark: say the symbols again in their order.

    Hochreiter & Schmidhuber 1997; ``selective`` (Gu & Dao 2023, arXiv:2312.00752) strews the
    symbols among the blanks, so that what to keep depends on the content and not on the place.

    Parameters
    ----------
    rng : Generator
    batch : int
    symbols : int
        How many are to be copied.
    gap : int
        Blanks, behind the symbols or among them.
    n_symbols : int
        Different symbols.
    selective : bool

    Returns
    -------
    TokenStream
    """
    blank, mark = n_symbols, n_symbols + 1
    content = rng.integers(n_symbols, size=(batch, symbols))
    body = np.full((batch, symbols + gap), blank)
    if selective:
        place = np.sort(np.argsort(rng.random(body.shape), axis=1)[:, :symbols], axis=1)
    else:
        place = np.tile(np.arange(symbols), (batch, 1))
    body[np.arange(batch)[:, None], place] = content
    marks = np.full((batch, 1), mark)
    # What is to be said is given back one token late, so that it can be predicted, not seen.
    tokens = np.concatenate([body, marks, content[:, :-1]], axis=1)
    targets = np.full_like(tokens, IGNORED)
    distance = np.full_like(tokens, -1)
    where = symbols + gap + np.arange(symbols)
    targets[:, where] = content
    distance[:, where] = where - place
    return TokenStream(tokens, targets, distance, mark + 1, (0, n_symbols))
