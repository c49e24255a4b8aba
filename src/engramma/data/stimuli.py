"""The stimulus set: one row a stimulus."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engramma.errors import DataError

#: Columns with a meaning of their own; every other column is an attribute of the stimulus.
MEDIA_COLUMNS = ("image", "audio", "video", "caption")
#: Where each medium is held in memory.
IN_MEMORY = {"image": "images", "audio": "audio", "video": "videos"}


@dataclass(frozen=True, eq=False)
class StimulusSet:
    """A table with one row a stimulus.

    Parameters
    ----------
    table : pandas.DataFrame
        Indexed by stimulus id (unique strings). The columns ``image``, ``audio`` and ``video``
        hold file names, ``caption`` holds text; every other column describes the stimulus
        (``category``, ``animate``, ...).
    root : Path, optional
        Folder that relative file names start from.
    images : ndarray, optional
        Images in memory, stimulus x height x width x 3, uint8: used in place of image files.
    audio : sequence of ndarray, optional
        Waveforms in memory, one a stimulus, with ``sampling_rate`` in ``attrs``.
    videos : sequence of ndarray, optional
        Clips in memory, one a stimulus, frames x height x width x 3, uint8: used in place of video
        files.
    attrs : dict
        Facts about the set (name, source, licence).

    Raises
    ------
    DataError
        If ids repeat or are missing, or arrays do not match the table.
    """

    table: pd.DataFrame
    root: Path | None = None
    images: np.ndarray | None = None
    audio: Sequence[np.ndarray] | None = None
    videos: Sequence[np.ndarray] | np.ndarray | None = None
    attrs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        table = self.table.copy()
        table.index = pd.Index([str(i) for i in table.index], name="stimulus", dtype=object)
        duplicated = table.index[table.index.duplicated()].unique()
        if len(duplicated):
            raise DataError(
                f"stimulus ids repeat: {_some(duplicated)}",
                where="stimulus table",
                mend="give each stimulus one row and one id",
            )
        object.__setattr__(self, "table", table)
        for name, media in self.in_memory.items():
            if len(media) != len(table):
                raise DataError(
                    f"{len(media)} {name} for {len(table)} stimuli",
                    where=f"StimulusSet.{name}",
                    mend="give one per row of the table, in its order",
                )

    def __len__(self) -> int:
        return len(self.table)

    @property
    def in_memory(self) -> dict[str, Sequence[np.ndarray] | np.ndarray]:
        """What is held in memory of ``images``, ``audio`` and ``videos``, by these names."""
        held = {name: getattr(self, name) for name in IN_MEMORY.values()}
        return {name: media for name, media in held.items() if media is not None}

    @property
    def ids(self) -> list[str]:
        """Stimulus ids, in table order."""
        return [str(i) for i in self.table.index]

    def has(self, medium: str) -> bool:
        """Whether ``medium`` (image, audio, video, caption) is there for every stimulus."""
        if IN_MEMORY.get(medium) in self.in_memory:
            return True
        return medium in self.table and bool(self.table[medium].notna().all())

    def path(self, medium: str, stimulus: str) -> Path:
        """File of one stimulus."""
        path = Path(str(self.table.at[stimulus, medium]))
        return path if path.is_absolute() or self.root is None else self.root / path

    def select(self, ids: Iterable[str]) -> StimulusSet:
        """Return the named stimuli, in the order given.

        Raises
        ------
        DataError
            If an id is not in the table.
        """
        ids = [str(i) for i in ids]
        missing = [i for i in ids if i not in self.table.index]
        if missing:
            raise DataError(
                f"{len(missing)} stimulus ids are not in the stimulus table: {_some(missing)}",
                where=f"the table has {_some(self.ids)}",
                mend="make the ids of the recording and of the stimulus table the same",
            )
        rows = self.table.index.get_indexer(pd.Index(ids, dtype=object))
        return StimulusSet(
            self.table.iloc[rows],
            root=self.root,
            images=None if self.images is None else self.images[rows],
            audio=None if self.audio is None else [self.audio[int(i)] for i in rows],
            videos=None if self.videos is None else [self.videos[int(i)] for i in rows],
            attrs=self.attrs,
        )

    def fingerprint(self, ids: Iterable[str] | None = None) -> str:
        """Short hash of the table and of what media hold, of some stimuli or of all.

        Neither the order of stimuli and columns nor the names of media files change it.
        """
        chosen = self.table.index if ids is None else pd.Index(sorted(set(map(str, ids))))
        rows = self.table.index.get_indexer(chosen)
        digest = hashlib.sha256("\x1f".join(map(str, chosen)).encode())
        for column in sorted(self.table.columns, key=str):
            values = self.table[column].iloc[rows]
            media = column in MEDIA_COLUMNS and column != "caption"
            for stimulus, value in zip(chosen, values, strict=True):
                text = "" if pd.isna(value) else str(value)
                if media and text:
                    text = _file_digest(self.path(column, stimulus), text)
                digest.update(f"{column}\x1f{text}\x1e".encode())
        for row in rows:
            for memory in self.in_memory.values():
                digest.update(np.ascontiguousarray(memory[int(row)]).tobytes())
        return digest.hexdigest()[:16]

    def categorical(self, max_levels: int = 40) -> list[str]:
        """Columns that sort all stimuli into at least two groups, at least one with two members."""
        usable = []
        for name in self.table.columns:
            if name in MEDIA_COLUMNS or self.table[name].isna().any():
                continue
            levels = self.table[name].nunique()
            if 2 <= levels <= min(max_levels, len(self.table) - 1):
                usable.append(str(name))
        return usable


def _file_digest(path: Path, name: str) -> str:
    """Hash of a file's content; its name where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return name
    return _content(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _content(path: Path, size: int, changed: int) -> str:
    """Hash of a file, read once for each size and time of change."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _some(values: Iterable[Any], most: int = 5) -> str:
    """Name a few of many values."""
    values = list(values)
    text = ", ".join(repr(str(v)) for v in values[:most])
    return text + (f" and {len(values) - most} more" if len(values) > most else "")
