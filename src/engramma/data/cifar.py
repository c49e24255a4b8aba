"""CIFAR-10 in its binary version: no pickles."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from engramma.errors import ConfigError, DataError

SIDE = 32
RECORD = 1 + 3 * SIDE * SIDE
FILES = {
    "train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
    "test": ("test_batch.bin",),
}


def read_cifar10(
    folder: str | Path, split: Literal["train", "test"] = "train"
) -> tuple[np.ndarray, np.ndarray]:
    """Read ``data_batch_1.bin`` to ``data_batch_5.bin``, or ``test_batch.bin``.

    A record is one byte of the label and 3072 bytes of the image: red, green and blue, each row by
    row. The Python version of the data set is made of pickles, and is not read.

    Returns
    -------
    images : ndarray of uint8, shape (n, 32, 32, 3)
    labels : ndarray of int64, shape (n,)

    Raises
    ------
    DataError
        If a file is missing, cut off, or has a label above 9; the record is named.
    """
    if split not in FILES:
        raise ConfigError(f"there is no split {split!r}", mend="say train or test")
    parts = [_records(Path(folder) / name) for name in FILES[split]]
    records = np.concatenate(parts)
    images = records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].astype(np.int64)


def read_cifar10_names(folder: str | Path) -> list[str]:
    """Read the ten names of ``batches.meta.txt``, in the order of labels."""
    path = Path(folder) / "batches.meta.txt"
    try:
        names = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the names cannot be read ({error})", where=str(path)) from error
    if len(names) != 10:
        raise DataError(f"there are {len(names)} names, not ten", where=str(path))
    return names


def _records(path: Path) -> np.ndarray:
    try:
        raw = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(
            f"the file cannot be read ({error.strerror})",
            where=str(path),
            mend="name the folder cifar-10-batches-bin of the binary version",
        ) from error
    if not len(raw) or len(raw) % RECORD:
        raise DataError(
            f"{len(raw)} bytes are no whole number of records of {RECORD}",
            where=str(path),
            mend="download the binary version again",
        )
    records = raw.reshape(-1, RECORD)
    wrong = np.flatnonzero(records[:, 0] > 9)
    if len(wrong):
        raise DataError(
            f"record {wrong[0]} has the label {records[wrong[0], 0]}, not one of 0 to 9",
            where=str(path),
        )
    return records
