"""MATLAB files, version 5 to 7.3, in the common layout (`engramma.data.readers._layout`)."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io.matlab import MatReadError

from engramma.data.read import check_readable, decoding, reader
from engramma.data.readers._layout import files_of, read_layout
from engramma.data.recording import Cohort, Recording


def _recognises(path: Path) -> bool:
    return bool(files_of(path, ".mat"))


def load_mat(path: Path) -> dict[str, np.ndarray]:
    """Load the numeric and text variables of a MATLAB file.

    A file whose single variable is a structure gives the fields of the structure.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    from pymatreader import read_mat

    check_readable(path)
    errors = (OSError, ValueError, TypeError, KeyError, EOFError, IndexError, zlib.error)
    with decoding(path, "MATLAB file", *errors, NotImplementedError, MatReadError):
        content = read_mat(str(path))
    content = {k: v for k, v in content.items() if not k.startswith(("__", "#"))}
    if len(content) == 1 and isinstance(next(iter(content.values())), dict):
        content = next(iter(content.values()))
    return {name: _array(value) for name, value in content.items() if not isinstance(value, dict)}


def _array(value: Any) -> np.ndarray:
    """MATLAB values (numbers, cell arrays of text) as arrays."""
    if isinstance(value, list):
        return np.asarray(
            [v if isinstance(v, str) else np.ravel(v)[0] if np.size(v) else "" for v in value]
        )
    return np.asarray(value)


@reader(
    "matlab",
    description="a .mat file (v5 to v7.3) with 'responses' and 'stimulus', or a folder of them",
    recognises=_recognises,
    generic=True,
)
def read_matlab(
    path: Path,
    *,
    responses: str = "responses",
    stimulus: str = "stimulus",
    stimuli: str | Path | None = None,
    subject: str | None = None,
    modality: str | None = None,
) -> Recording | Cohort:
    """Read a MATLAB file; options as for ``npz``."""
    return read_layout(
        path,
        load_mat,
        files_of(path, ".mat"),
        responses=responses,
        stimulus=stimulus,
        stimuli=stimuli,
        subject=subject,
        modality=modality,
    )
