"""NumPy archives (``.npz``) in the common layout (see `engramma.data.readers._layout`)."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from engramma.data.read import check_readable, decoding, reader
from engramma.data.readers._layout import files_of, read_layout
from engramma.data.recording import Cohort, Recording
from engramma.errors import DataError


def _recognises(path: Path) -> bool:
    return any(f.name != "rdms.npz" for f in files_of(path, ".npz"))


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """Load the arrays of an archive, never unpickling.

    Raises
    ------
    DataError
        If the archive is damaged, or an array holds Python objects.
    """
    check_readable(path)
    errors = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)
    arrays = {}
    with decoding(path, "npz archive", *errors):
        archive = np.load(path, allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError("the file holds one array and is no npz archive", where=str(path))
    with archive:
        for name in archive.files:
            try:
                with decoding(
                    path, "npz archive", OSError, EOFError, zipfile.BadZipFile, zlib.error
                ):
                    arrays[name] = archive[name]
            except ValueError as error:
                raise DataError(
                    f"the array {name!r} holds Python objects ({error})",
                    where=str(path),
                    mend="save it as numbers or as fixed-width text, e.g. array.astype(str): "
                    "unpickling a file can run any code",
                ) from error
    return arrays


@reader(
    "npz",
    description="an .npz archive with 'responses' and 'stimulus', or a folder of them",
    recognises=_recognises,
    generic=True,
)
def read_npz(
    path: Path,
    *,
    responses: str = "responses",
    stimulus: str = "stimulus",
    stimuli: str | Path | None = None,
    subject: str | None = None,
    modality: str | None = None,
) -> Recording | Cohort:
    """Read an npz archive.

    Parameters
    ----------
    path : Path
    responses, stimulus : str
        Names of these arrays, where they are called otherwise.
    stimuli : path, optional
        The stimulus table, where it does not lie beside the file.
    subject, modality : str, optional
        Where the file does not tell.
    """
    return read_layout(
        path,
        load_npz,
        [f for f in files_of(path, ".npz") if f.name != "rdms.npz"],
        responses=responses,
        stimulus=stimulus,
        stimuli=stimuli,
        subject=subject,
        modality=modality,
    )
