"""A store of passages that are found again by the words they share with a cue.

The simplest episodic memory there is: what it knows of order is what is written beside a passage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np

from engramma.errors import DataError
from engramma.memory.vector_index import ExactIndex

#: Bins that words are hashed into.
WIDTH = 1024


@dataclass(frozen=True)
class Passage:
    """A passage, and its position in the text where that is known."""

    text: str
    position: int | None


class PassageStore:
    """Passages with their vectors; fulfils the contract ``Memory``.

    Parameters
    ----------
    positions : bool
        Whether positions are kept.
    """

    def __init__(self, positions: bool = True) -> None:
        self.positions = positions
        self.passages: list[Passage] = []
        self._index = ExactIndex(WIDTH)

    def __len__(self) -> int:
        return len(self.passages)

    def write(self, key: str, value: int | None = None) -> None:
        """Store a passage (``key``) and its position (``value``)."""
        self.passages.append(Passage(key, value if self.positions else None))
        self._index.add(word_vector(key)[None])

    def read(self, cue: str) -> Passage:
        """Return the passage that is most like a cue, of equals the first.

        Raises
        ------
        DataError
            If nothing has been stored.
        """
        if not self.passages:
            raise DataError("nothing has been stored", where="PassageStore", mend="write first")
        return self.passages[int(self._index.search(word_vector(cue), 1)[0][0])]

    def consolidate(self) -> None:
        """Keep one of several equal passages: the first."""
        first: dict[str, Passage] = {}
        for passage in self.passages:
            first.setdefault(passage.text, passage)
        self._keep(first.values())

    def forget(self, which: Iterable[int]) -> None:
        """Remove passages by number, in the order in which they were written."""
        gone = set(which)
        self._keep([p for number, p in enumerate(self.passages) if number not in gone])

    def save(self, path: Path) -> None:
        """Write passages and positions as JSON."""
        rows = [[p.text, p.position] for p in self.passages]
        Path(path).write_text(json.dumps({"positions": self.positions, "passages": rows}))

    def load(self, path: Path) -> None:
        """Read what `save` wrote; what was stored before is dropped.

        Raises
        ------
        DataError
            If the file is none of these.
        """
        try:
            about = json.loads(Path(path).read_text())
            self.positions = bool(about["positions"])
            self._keep([Passage(str(text), position) for text, position in about["passages"]])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"this is no store of passages ({error})", where=str(path)) from error

    def _keep(self, passages: Iterable[Passage]) -> None:
        self.passages, self._index = [], ExactIndex(WIDTH)
        for passage in passages:
            self.write(passage.text, passage.position)


def word_vector(text: str) -> np.ndarray:
    """Count words, hashed, of length 1; shape (WIDTH,)."""
    counts = np.zeros(WIDTH, dtype=np.float32)
    np.add.at(counts, [crc32(word.lower().encode()) % WIDTH for word in text.split()], 1.0)
    return counts / max(float(np.linalg.norm(counts)), 1e-9)
