"""Which of two segments of a text came first? Questions from any text, without annotation.

The tables and their files are those of Book-SORT (Pink et al. 2024, arXiv:2410.08133): for each
length of excerpt and segment a table of texts (``books``), of excerpts, and of pairs of segments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from engramma.errors import ConfigError, DataError

COLUMNS: dict[str, tuple[str, ...]] = {
    "books": ("book_idx", "book_title", "num_words"),
    "excerpts": ("book_idx", "excerpt_idx", "excerpt_pos", "excerpt_text"),
    "segments": (
        "book_idx", "excerpt_idx", "segment_idx", "segment_1", "segment_2", "seg1_pos", "seg2_pos",
        "distance_bin", "present_seg1_first",
    ),
}  # fmt: skip
#: Excerpts that are tried for each that is wanted.
TRIES = 10
_GUTENBERG = re.compile(
    r"\*\*\* ?START OF.*?\*\*\*(.*?)\*\*\* ?END OF", flags=re.DOTALL | re.IGNORECASE
)
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]_]*$")
_ABBREVIATION = re.compile(r"^[\"'“(]*(Mr|Mrs|Ms|Dr|St|Prof|Capt|Col|Gen|Rev|Jr|Sr|vs|[A-Z])\.$")


@dataclass(frozen=True)
class OrderItem:
    """One question, with the segments in the order of their presentation.

    Parameters
    ----------
    title, excerpt, segment_a, segment_b : str
    a_is_first : bool
        Whether segment A comes first in the text.
    book, excerpt_number, distance_bin : int
    """

    title: str
    excerpt: str
    segment_a: str
    segment_b: str
    a_is_first: bool
    book: int
    excerpt_number: int
    distance_bin: int


@dataclass(frozen=True)
class OrderQuestions:
    """The three tables of one length of excerpt and segment, in words.

    ``segment_1`` comes first in the text; ``present_seg1_first`` says whether it is shown first.
    """

    books: pd.DataFrame
    excerpts: pd.DataFrame
    segments: pd.DataFrame
    excerpt_words: int
    segment_words: int

    def items(self, first: int = 0, stop: int | None = None) -> list[OrderItem]:
        """Questions about excerpts ``first`` to ``stop`` of each text."""
        titles = {row["book_idx"]: str(row["book_title"]) for row in _rows(self.books)}
        texts = {
            (row["book_idx"], row["excerpt_idx"]): str(row["excerpt_text"])
            for row in _rows(self.excerpts)
        }
        found = []
        for row in _rows(self.segments):
            book, number = int(row["book_idx"]), int(row["excerpt_idx"])
            if number < first or (stop is not None and number >= stop):
                continue
            straight = bool(row["present_seg1_first"])
            a, b = (row["segment_1"], row["segment_2"])[:: 1 if straight else -1]
            excerpt, distance = texts[book, number], int(row["distance_bin"])
            found.append(OrderItem(titles[book], excerpt, a, b, straight, book, number, distance))
        return found

    def uniformity(self) -> float:
        """Return p of a Kolmogorov-Smirnov test that excerpts start anywhere alike."""
        words = self.excerpts["book_idx"].map(self.books.set_index("book_idx")["num_words"])
        room = (words - self.excerpt_words) / words
        return float(stats.kstest(self.excerpts["excerpt_pos"] / room, "uniform").pvalue)


def build_order_questions(
    texts: Mapping[str, str],
    *,
    excerpt_words: int = 250,
    segment_words: int = 20,
    n: int = 110,
    edges: Sequence[int] | None = None,
    rng: np.random.Generator,
) -> OrderQuestions:
    """Draw questions from texts.

    Excerpts start at sentences, drawn by a uniform position in the text; each gives one pair of
    segments in each bin of distance, both starting at sentences, uniformly among those pairs whose
    segments occur once in the excerpt. An excerpt without a pair in each bin is dropped. In each
    text and bin, exactly half of the first segments are shown first.

    Parameters
    ----------
    texts : mapping of title to text
        Headers and footers of Project Gutenberg are left out.
    excerpt_words, segment_words : int
    n : int
        Excerpts of a text, an even number.
    edges : sequence of int, optional
        Of the bins, see `distance_edges`.
    rng : numpy.random.Generator

    Raises
    ------
    ConfigError
        If ``n`` is odd, or segments could overlap.
    DataError
        If a text is too short, or has too few excerpts with a pair in each bin.
    """
    edges = distance_edges(excerpt_words, segment_words) if edges is None else list(edges)
    _check_edges(edges, excerpt_words, segment_words, n)
    books: list[tuple[int, str, int]] = []
    excerpts: list[tuple[int, int, float, str]] = []
    segments: list[tuple[Any, ...]] = []
    for book, (title, text) in enumerate(texts.items()):
        words = plain_words(text)
        if len(words) < 2 * excerpt_words:
            raise DataError(
                f"the text has {len(words)} words, too few for excerpts of {excerpt_words}",
                where=title,
                mend=f"use a text of {2 * excerpt_words} words or more, or shorter excerpts",
            )
        books.append((book, title, len(words)))
        shown = [rng.permutation(np.arange(n) % 2) for _ in edges[1:]]
        drawn = _excerpts(words, excerpt_words, segment_words, edges, n, rng, title)
        for number, (start, pairs) in enumerate(drawn):
            excerpt = words[start : start + excerpt_words]
            excerpts.append((book, number, start / len(words), " ".join(excerpt)))
            for index, (i, j) in enumerate(pairs):
                one, two = (" ".join(excerpt[k : k + segment_words]) for k in (i, j))
                segments.append(
                    (book, number, index, one, two, i, j, edges[index + 1], shown[index][number])
                )
    tables = [
        pd.DataFrame(rows, columns=list(COLUMNS[name]))
        for name, rows in (("books", books), ("excerpts", excerpts), ("segments", segments))
    ]
    return OrderQuestions(tables[0], tables[1], tables[2], excerpt_words, segment_words)


def distance_edges(excerpt_words: int, segment_words: int) -> list[int]:
    """Return the published edges of the bins: a distance lies above the left and up to the right.

    Parameters
    ----------
    excerpt_words, segment_words : int
    """
    first = 1000 if excerpt_words >= 10_000 else excerpt_words // 4
    second = excerpt_words // (4 if excerpt_words >= 10_000 else 3)
    return [segment_words, first, second, excerpt_words // 2, int(excerpt_words / 1.25)]


def plain_words(text: str) -> list[str]:
    """Words of a text, without what Project Gutenberg puts around it."""
    inside = _GUTENBERG.search(text)
    return (inside.group(1) if inside else text).split()


def sentence_starts(words: Sequence[str]) -> np.ndarray:
    """Positions of words that begin a sentence."""
    ends = [
        bool(_SENTENCE_END.search(word)) and not _ABBREVIATION.match(word) for word in words[:-1]
    ]
    return np.concatenate([[0], np.flatnonzero(ends) + 1]) if len(words) else np.empty(0, int)


# -- files ---------------------------------------------------------------------------------


def write_order_questions(folder: str | Path, questions: OrderQuestions) -> None:
    """Write ``books_``, ``excerpts_`` and ``segments_{L_E}-s{L_S}-n{N}.csv``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    n = questions.excerpts.groupby("book_idx").size().max()
    name = f"{questions.excerpt_words}-s{questions.segment_words}-n{n}.csv"
    for table in COLUMNS:
        getattr(questions, table).to_csv(folder / f"{table}_{name}", index=False)


def read_order_questions(
    folder: str | Path, excerpt_words: int = 250, segment_words: int = 20
) -> OrderQuestions:
    """Read the three tables that `write_order_questions` writes, or those of Book-SORT.

    Raises
    ------
    DataError
        If a file is missing or lacks columns.
    """
    tables = []
    for table, columns in COLUMNS.items():
        pattern = f"{table}_{excerpt_words}-s{segment_words}-n*.csv"
        files = sorted(Path(folder).glob(pattern))
        if len(files) != 1:
            raise DataError(
                f"there are {len(files)} files {pattern}", where=str(folder),
                mend="give the folder of books_, excerpts_ and segments_ of one number of excerpts",
            )  # fmt: skip
        frame = pd.read_csv(files[0])
        missing = [name for name in columns if name not in frame]
        if missing:
            raise DataError(f"there is no column {', '.join(missing)}", where=str(files[0]))
        tables.append(frame[list(columns)])
    return OrderQuestions(tables[0], tables[1], tables[2], excerpt_words, segment_words)


def _rows(table: pd.DataFrame) -> list[dict[Any, Any]]:
    return table.to_dict("records")


# -- drawing -------------------------------------------------------------------------------


def _excerpts(
    words: list[str],
    excerpt_words: int,
    segment_words: int,
    edges: Sequence[int],
    n: int,
    rng: np.random.Generator,
    title: str,
) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield starts of excerpts, and the pair of segment starts in each bin."""
    starts = sentence_starts(words)
    last = len(words) - excerpt_words
    found = 0
    for place in rng.uniform(0, last, TRIES * n):
        later = np.searchsorted(starts, place)
        if later == len(starts) or starts[later] > last:
            continue
        start = int(starts[later])
        inside = starts[(starts >= start) & (starts <= start + excerpt_words - segment_words)]
        pairs = _pairs(
            words[start : start + excerpt_words], inside - start, segment_words, edges, rng
        )
        if pairs:
            found += 1
            yield start, pairs
        if found == n:
            return
    raise DataError(
        f"only {found} of {TRIES * n} excerpts of {excerpt_words} words have a pair of segments in "
        f"each bin, and {n} are wanted",
        where=title,
        mend="use longer excerpts, fewer of them, or a text with shorter sentences",
    )


def _pairs(
    excerpt: list[str],
    starts: np.ndarray,
    segment_words: int,
    edges: Sequence[int],
    rng: np.random.Generator,
) -> list[tuple[int, int]]:
    """One pair of starts for each bin; none where a bin has no pair."""
    text = f" {' '.join(excerpt)} "
    once = [text.count(f" {' '.join(excerpt[i : i + segment_words])} ") == 1 for i in starts]
    starts = starts[np.array(once, dtype=bool)]
    distance = starts[None, :] - starts[:, None]
    found = []
    for left, right in pairwise(edges):
        possible = np.argwhere((distance > left) & (distance <= right))
        if not len(possible):
            return []
        i, j = possible[rng.integers(len(possible))]
        found.append((int(starts[i]), int(starts[j])))
    return found


def _check_edges(edges: Sequence[int], excerpt_words: int, segment_words: int, n: int) -> None:
    if n < 2 or n % 2:
        raise ConfigError(
            f"{n} excerpts cannot be balanced exactly", where="n", mend="use an even number"
        )
    if edges[0] < segment_words:
        raise ConfigError(
            f"segments of {segment_words} words that lie {edges[0]} words apart overlap",
            where="edges",
            mend="let the first edge be the length of a segment or more",
        )
    if any(b <= a for a, b in pairwise(edges)):
        raise ConfigError(
            f"the edges {list(edges)} do not rise",
            where=f"excerpts of {excerpt_words} and segments of {segment_words} words",
            mend="use excerpts of more than four segments, or edges of your own",
        )
