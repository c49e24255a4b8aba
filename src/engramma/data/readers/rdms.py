"""Dissimilarity matrices: a folder with ``rdms.npz`` and a stimulus table, or rsatoolbox HDF5.

Names in ``rdms.npz`` say what is in an array. ``NAME_by_subject_session`` has subjects and
sessions as its first two axes, ``NAME_by_subject`` has subjects as its first; what remains is a
square matrix or its upper triangle, row by row. These are the RDMs. Any other array is one RDM (or
several, then averaged) to compare with: a reference. An array ``NAME`` beside
``NAME_by_subject`` is the average of the same data and so no reference. Without an array by
subject, the array called ``rdms`` (or ``dissimilarities``) holds the RDMs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.distance import squareform

from engramma.data.rdms import RDMs
from engramma.data.read import decoding, reader
from engramma.data.readers._tables import find_stimulus_table, read_stimuli
from engramma.data.readers.npz import load_npz
from engramma.data.stimuli import StimulusSet
from engramma.errors import DataError

PLAIN = ("rdms", "dissimilarities")
ENDINGS = ("_by_subject_session", "_by_subject")
SUBJECT_NAMES = ("subject", "subj", "participant", "sub")


def _file(path: Path) -> Path | None:
    """Find the file of RDMs in a folder."""
    if path.is_file():
        return path
    return next(
        (path / n for n in ("rdms.npz", "rdms.h5", "rdms.hdf5") if (path / n).is_file()), None
    )


def _is_hdf5(path: Path) -> bool:
    return path.suffix.lower() in (".h5", ".hdf5")


def _recognises(path: Path) -> bool:
    file = _file(path)
    if file is None:
        return False
    if not _is_hdf5(file):
        return file.name == "rdms.npz"
    import h5py

    return h5py.is_hdf5(file) and "dissimilarities" in h5py.File(file, "r")


def _inspect(path: Path, **options: Any) -> dict[str, Any]:
    rdms = read_rdms(path, **options)
    return {
        "kind": "rdms",
        "modality": rdms.attrs["modality"],
        "rdms": len(rdms),
        "subjects": sorted(set(rdms.subject)),
        "sessions": sorted(set(rdms.session)),
        "stimuli": len(rdms.stimuli),
        "stimulus_columns": list(map(str, rdms.stimuli.table.columns)),
        "references": list(rdms.references),
        "warnings": rdms.attrs["warnings"],
    }


@reader(
    "rdms",
    description="a folder with rdms.npz and stimuli.tsv, or an rsatoolbox RDMs file (HDF5)",
    recognises=_recognises,
    inspect=_inspect,
)
def read_rdms(path: Path, *, stimuli: str | Path | None = None, modality: str = "rdms") -> RDMs:
    """Read dissimilarity matrices.

    Parameters
    ----------
    path : Path
    stimuli : path, optional
        Stimulus table in the order of the matrices, where it is not ``stimuli.tsv`` beside them.
    modality : str
    """
    file = _file(path)
    if file is None:
        raise DataError("the folder has no rdms.npz and no rdms.h5", where=str(path))
    table = Path(stimuli) if stimuli is not None else find_stimulus_table(file.parent, file.stem)
    if _is_hdf5(file):
        return _from_rsatoolbox(file, table, modality)
    if table is None:
        raise DataError(
            "there is no stimulus table beside the RDMs",
            where=str(file.parent),
            mend="add stimuli.tsv with one row a stimulus, in the order of the matrices",
        )
    known = read_stimuli(table)
    arrays = load_npz(file)
    name, subject, session, stack = _main(arrays, len(known), file)
    base = name
    for ending in ENDINGS:
        base = base.removesuffix(ending)
    references = {
        key: _triangles(value, len(known), key, file).mean(axis=0)
        for key, value in arrays.items()
        if key not in (name, base)
    }
    return RDMs(
        stack,
        known,
        subject,
        session,
        references=references,
        attrs=_attrs(file, modality, name, len(stack), len(set(subject)), len(known)),
    )


def _main(
    arrays: dict[str, np.ndarray], n: int, file: Path
) -> tuple[str, tuple[str, ...], tuple[str, ...], np.ndarray]:
    """Find the array that holds the RDMs, and take subjects and sessions from its axes."""
    for ending in ENDINGS:
        for name in sorted(arrays):
            if not name.endswith(ending):
                continue
            array = arrays[name]
            axes = 2 if ending == ENDINGS[0] else 1
            if array.ndim not in (axes + 1, axes + 2):
                raise DataError(
                    f"{name!r} has shape {array.shape}, which does not fit its name",
                    where=str(file),
                    mend="give subject[ x session] x stimulus x stimulus, or upper triangles",
                )
            subjects, sessions = array.shape[0], array.shape[1] if axes == 2 else 1
            flat = array.reshape(-1, *array.shape[axes:])
            labels = [(str(i + 1), str(j + 1)) for i in range(subjects) for j in range(sessions)]
            subject, session = zip(*labels, strict=True)
            return name, subject, session, _triangles(flat, n, name, file)
    name = next((p for p in PLAIN if p in arrays), "")
    if not name:
        raise DataError(
            "no array holds the RDMs",
            where=f"{file} has {', '.join(sorted(arrays)) or 'nothing'}",
            mend="call it 'rdms', or NAME_by_subject with subjects first",
        )
    stack = _triangles(arrays[name], n, name, file)
    return name, tuple(str(i + 1) for i in range(len(stack))), ("1",) * len(stack), stack


def _triangles(array: np.ndarray, n: int, name: str, file: Path) -> np.ndarray:
    """Upper triangles, rdm x pair, of square matrices or of triangles."""
    pairs = n * (n - 1) // 2
    array = np.asarray(array, dtype=np.float64)
    if array.ndim >= 2 and array.shape[-2:] == (n, n):
        square = array.reshape(-1, n, n)
        if not np.isfinite(square).all():
            raise DataError(f"{name!r} holds NaN or infinity", where=str(file))
        if not np.allclose(square, square.swapaxes(1, 2), atol=1e-4):
            raise DataError(
                f"{name!r} is not symmetric", where=str(file), mend="check the order of its axes"
            )
        return np.stack([squareform(m, checks=False) for m in square])
    if array.shape[-1:] == (pairs,):
        return array.reshape(-1, pairs)
    raise DataError(
        f"{name!r} has shape {array.shape}, but {n} stimuli make {n} x {n} matrices or {pairs} "
        "pairs",
        where=str(file),
        mend="give the RDMs over exactly the stimuli of the table",
    )


def _from_rsatoolbox(file: Path, table: Path | None, modality: str) -> RDMs:
    """Read what ``rsatoolbox.rdm.RDMs.save(..., file_type="hdf5")`` writes."""
    import h5py

    with decoding(file, "HDF5 file of RDMs", OSError, KeyError, ValueError), h5py.File(file) as h5:
        stack = np.atleast_2d(np.asarray(h5["dissimilarities"], dtype=np.float64))
        patterns = _descriptors(h5, "pattern_descriptors")
        rdms = _descriptors(h5, "rdm_descriptors")
    n = round((1 + np.sqrt(1 + 8 * stack.shape[1])) / 2)
    columns = {k: v for k, v in patterns.items() if k != "index" and len(v) == n}
    if table is not None:
        known = read_stimuli(table)
    else:
        unique = next((k for k, v in columns.items() if len(set(v)) == n), None)
        ids = columns[unique] if unique else [str(i + 1) for i in range(n)]
        known = StimulusSet(pd.DataFrame(columns, index=pd.Index(ids, dtype=object)))
    subject = next((rdms[k] for k in SUBJECT_NAMES if k in rdms), ())
    session = rdms.get("session", ())
    attrs = _attrs(file, modality, "dissimilarities", len(stack), len(set(subject)), n)
    return RDMs(stack, known, tuple(subject), tuple(session), attrs=attrs)


def _descriptors(h5: Any, name: str) -> dict[str, list[str]]:
    found = {}
    for key, values in h5.get(name, {}).items():
        items = np.ravel(np.asarray(values))
        found[key] = [v.decode() if isinstance(v, bytes) else str(v) for v in items]
    return found


def _attrs(
    file: Path, modality: str, name: str, n: int, subjects: int, stimuli: int
) -> dict[str, Any]:
    facts: dict[str, Any] = {"modality": modality, "source": str(file.parent), "name": name}
    description = file.parent / "dataset_description.json"
    if description.is_file():
        with decoding(description, "JSON file", ValueError):
            facts["description"] = json.loads(description.read_text()).get("Name", "")
    history = (
        f"{n} dissimilarity matrices ({name}) of {subjects or n} subjects over {stimuli} stimuli "
        f"were read from {file.name}."
    )
    return {**facts, "history": [history], "warnings": [], "citations": []}
