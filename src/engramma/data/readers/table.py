"""CSV and TSV tables of responses.

*Wide*: one row a presentation; ``stimulus``, ``subject``, ``session``, ``run`` and ``repetition``
are what they say, and every other column of numbers is a unit. *Long*: one row a value, with the
columns ``stimulus``, ``unit`` and ``response``, and ``presentation`` (or run and repetition)
telling presentations of one stimulus apart; ``time`` in seconds adds a time axis.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from engramma.data.read import reader
from engramma.data.readers._layout import PRESENTATION, files_of, read_layout
from engramma.data.readers._tables import read_table
from engramma.data.recording import Cohort, Recording
from engramma.errors import DataError

ASIDE = ("stimuli", "participants", "events", "sessions")
UNIT_FACTS = ("roi", "kind", "i", "j", "k", "x", "y", "z")


def _tables(path: Path) -> list[Path]:
    files = files_of(path, ".csv", ".tsv", ".csv.gz", ".tsv.gz")
    return [f for f in files if not f.name.split(".")[0].endswith(ASIDE)]


def _recognises(path: Path) -> bool:
    if path.is_dir() and files_of(path, ".npz", ".mat", ".nii", ".nii.gz"):
        return False
    return any("stimulus" in read_table(f, nrows=1) for f in _tables(path))


def load_table(path: Path, stimulus: str = "stimulus") -> dict[str, np.ndarray]:
    """Turn a wide or long table into the arrays of the common layout.

    Raises
    ------
    DataError
        If columns are missing, a column of responses holds text, or values are missing or double.
    """
    table = read_table(path, dtype={stimulus: str, **dict.fromkeys(PRESENTATION[:4], str)})
    if stimulus != "stimulus" and stimulus in table:
        table = table.rename(columns={stimulus: "stimulus"})
    if "stimulus" not in table:
        raise DataError(
            "the table has no column 'stimulus'",
            where=f"{path} has {', '.join(map(str, table.columns[:12]))}",
            mend="add the id of the stimulus of each row, or name its column with stimulus=",
        )
    if {"unit", "response"} <= set(table.columns):
        return _long(table, path)
    labels = {c: table[c].to_numpy() for c in PRESENTATION if c in table}
    units = table.drop(columns=list(labels))
    units = units.drop(columns=[c for c in units if str(c).startswith("Unnamed")])
    if "presentation" in units:
        units = units.drop(columns="presentation")
    wrong = [str(c) for c in units if not pd.api.types.is_numeric_dtype(units[c])]
    if wrong:
        raise DataError(
            f"the column {wrong[0]!r} holds text, so it is no unit",
            where=f"{path}: {units[wrong[0]].iloc[0]!r}",
            mend="remove it, or put what describes the stimuli into stimuli.tsv beside the file",
        )
    if units.shape[1] == 0:
        raise DataError("the table has no column of responses", where=str(path))
    return {
        **labels,
        "responses": units.to_numpy(dtype=np.float32),
        "unit": np.asarray(units.columns, dtype=str),
    }


def _long(table: pd.DataFrame, path: Path) -> dict[str, np.ndarray]:
    keys = [c for c in (*PRESENTATION, "presentation") if c in table]
    axes = ["unit", "time"] if "time" in table else ["unit"]
    double = table.duplicated([*keys, *axes])
    if double.any():
        raise DataError(
            f"{int(double.sum())} rows repeat a presentation and unit",
            where=f"{path}, row {int(np.flatnonzero(double)[0]) + 2}",
            mend="tell presentations apart with a column 'presentation', 'run' or 'repetition'",
        )
    table = table.assign(**{k: table[k].fillna("1") for k in keys})
    code = table.groupby(keys, sort=False).ngroup().to_numpy()
    presentations = table.drop_duplicates(keys)
    unit_code, units = pd.factorize(table["unit"].astype(str))
    shape = [len(presentations), len(units)]
    index = [code, unit_code]
    arrays: dict[str, np.ndarray] = {}
    if "time" in table:
        time_code, times = pd.factorize(table["time"].to_numpy(dtype=float), sort=True)
        shape.append(len(times))
        index.append(time_code)
        arrays["time"] = np.asarray(times)
    if int(np.prod(shape)) != len(table):
        raise DataError(
            f"{len(table)} rows do not fill {' x '.join(map(str, shape))} presentations and units",
            where=str(path),
            mend="give every presentation a response of every unit",
        )
    responses = np.full(shape, np.nan, dtype=np.float32)
    responses[tuple(index)] = pd.to_numeric(table["response"], errors="coerce")
    arrays |= {c: presentations[c].to_numpy() for c in keys if c != "presentation"}
    first = table.drop_duplicates("unit")
    arrays |= {c: first[c].to_numpy() for c in UNIT_FACTS if c in table}
    return {**arrays, "responses": responses, "unit": np.asarray(units, dtype=str)}


@reader(
    "table",
    description="a CSV or TSV of responses, wide or long, with a column 'stimulus'",
    recognises=_recognises,
    generic=True,
)
def read_response_table(
    path: Path,
    *,
    stimulus: str = "stimulus",
    stimuli: str | Path | None = None,
    subject: str | None = None,
    modality: str | None = None,
) -> Recording | Cohort:
    """Read a CSV or TSV; options as for ``npz``."""
    return read_layout(
        path,
        lambda file: load_table(file, stimulus),
        _tables(path),
        stimuli=stimuli,
        subject=subject,
        modality=modality,
    )
