"""Look at a file before it is studied, and convert it to zarr."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engramma.data.quality import check_recording
from engramma.data.rdms import RDMs
from engramma.data.read import find_reader, read, readable
from engramma.data.recording import Cohort, Recording
from engramma.data.store import save_recording
from engramma.errors import DataError, EngrammaError


def inspect(path: str | Path, *, format: str | None = None, **options: Any) -> dict[str, Any]:
    """Say what a file or folder holds, without loading responses where its format allows.

    Parameters
    ----------
    path : str or Path
    format : str, optional
        Name of the reader.
    **options
        Options of the reader.

    Returns
    -------
    dict
        ``path``, ``format``, ``kind`` (recording, cohort, rdms), ``usable`` and, where known,
        ``modality``, ``subjects``, ``sessions``, ``runs``, ``shape``, ``tr``, ``sfreq``,
        ``events`` and ``warnings``. Where ``usable`` is false, ``problem`` says why and how to
        mend it.

    Raises
    ------
    DataError
        If the path is not there or nothing recognises it.
    ConfigError
        If an option does not exist.
    """
    path = Path(path).expanduser()
    chosen = find_reader(path, format)
    options = chosen.check_options(options)
    facts: dict[str, Any] = {"path": str(path), "format": chosen.name}
    try:
        with readable(path):
            if chosen.inspect is not None:
                facts |= chosen.inspect(path, **options)
            else:
                facts |= describe(read(path, format=chosen.name, **options))
    except EngrammaError as error:
        return {**facts, "usable": False, "problem": str(error)}
    if "kind" not in facts:
        facts["kind"] = "cohort" if len(facts.get("subjects", [])) > 1 else "recording"
    return {**facts, "usable": True}


def describe(data: Recording | Cohort | RDMs) -> dict[str, Any]:
    """Describe what has been read; responses are not loaded."""
    if isinstance(data, RDMs):
        return {"kind": "rdms", "rdms": len(data), "stimuli": len(data.stimuli)}
    members = dict(data) if isinstance(data, Cohort) else {"": data}
    first = next(iter(members.values()))
    names: list[str] = []
    for recording in members.values():
        names += [str(s) for s in np.unique(recording.coord("subject"))]
    facts: dict[str, Any] = {
        "kind": "cohort" if isinstance(data, Cohort) else "recording",
        "modality": first.attrs.get("modality", "unknown"),
        "subjects": list(dict.fromkeys(names)),
        "sessions": [str(s) for s in np.unique(first.coord("session"))],
        "runs": [str(s) for s in np.unique(first.coord("run"))],
        "shape": {str(k): int(v) for k, v in first.array.sizes.items()},
        "units": {s: r.n_units for s, r in members.items()} if len(members) > 1 else first.n_units,
        "stimuli": len(data.stimuli),
        "stimulus_columns": [str(c) for c in data.stimuli.table.columns],
        "repeats": {"least": int(first.repeats.min()), "most": int(first.repeats.max())},
    }
    for name in ("tr", "sfreq", "events"):
        if name in first.attrs:
            facts[name] = first.attrs[name]
    warnings = list(first.attrs.get("warnings", []))
    known = {w["name"] for w in warnings}
    if first.array.chunks is None:
        warnings += [w for w in check_recording(first) if w["name"] not in known]
    return {**facts, "history": list(first.attrs.get("history", [])), "warnings": warnings}


def convert(
    path: str | Path, out: str | Path, *, format: str | None = None, **options: Any
) -> Recording | Cohort:
    """Read a file or folder and write it as zarr, whole or not at all.

    Parameters
    ----------
    path : str or Path
    out : str or Path
        Where to write; what stood there stays intact when anything fails.
    format, **options
        As for `engramma.read`.

    Returns
    -------
    Recording or Cohort
        What was written.

    Raises
    ------
    DataError
        If the input is not understood, is no recording, or ``out`` cannot be written.
    """
    data = read(path, format=format, **options)
    if isinstance(data, RDMs):
        raise DataError(
            "dissimilarity matrices are no recording, so there is nothing to convert",
            where=str(path),
            mend="study them as they are",
        )
    save_recording(data, out)
    return data
