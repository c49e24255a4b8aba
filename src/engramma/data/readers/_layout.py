"""The common layout of arrays in npz, MATLAB, CSV and zarr files.

=============  ==========================================  =====================================
name           shape                                       meaning
=============  ==========================================  =====================================
responses      presentation x unit, or x unit x time       required, numbers
stimulus       presentation                                required, the id of what was presented
subject        presentation, or one value                  default: from the file name
session, run,  presentation, or one value                  default: 1; repetition is counted
repetition
unit, roi,     unit                                        names, regions, kinds of sensor
kind
i, j, k        unit                                        voxel indices
x, y, z        unit                                        positions
time           time                                        seconds from onset; or give sfreq
tr, sfreq      one value                                   seconds; samples per second
affine         4 x 4                                       voxel indices to mm
volume_shape   3                                           of the image the voxels are from
modality       one value                                   fmri, eeg, meg, ieeg, spikes, calcium
=============  ==========================================  =====================================

Any other array with one value a presentation is kept as a presentation coordinate. Beside the file,
``NAME_stimuli.tsv`` or ``stimuli.tsv`` (or ``.csv``) describes the stimuli: the id in a column
``stimulus`` or ``id``, files in ``image``, ``audio`` and ``video``, text in ``caption``, and
whatever else describes them (``category``). Several files in a folder are subjects of a cohort.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engramma.data.quality import Notice, notice
from engramma.data.readers._tables import find_stimulus_table, natural, read_stimuli
from engramma.data.recording import Cohort, Recording
from engramma.data.stimuli import StimulusSet, _some
from engramma.errors import DataError

PRESENTATION = ("stimulus", "subject", "session", "run", "repetition")
UNIT = ("unit", "roi", "kind", "i", "j", "k", "x", "y", "z", "mean_signal")
FACTS = ("tr", "sfreq", "modality", "affine", "volume_shape", "position_unit")

Load = Callable[[Path], Mapping[str, Any]]


def files_of(path: Path, *suffixes: str) -> list[Path]:
    """Return the file itself, or the files of a folder with one of these endings."""
    if path.is_file():
        return [path] if path.name.lower().endswith(suffixes) else []
    return sorted(
        (f for f in path.iterdir() if f.name.lower().endswith(suffixes) and f.is_file()),
        key=lambda f: natural(f.name),
    )


def read_layout(
    path: Path,
    load: Load,
    files: Sequence[Path],
    *,
    responses: str = "responses",
    stimulus: str = "stimulus",
    stimuli: str | Path | None = None,
    subject: str | None = None,
    modality: str | None = None,
) -> Recording | Cohort:
    """Read files that ``load`` turns into named arrays: one recording, or a cohort.

    Raises
    ------
    DataError
        If arrays are missing or do not fit together, or two files hold one subject.
    """
    sets: dict[Path, StimulusSet] = {}
    members: dict[str, Recording] = {}
    origin: dict[str, Path] = {}
    for file in files:
        arrays = dict(load(file))
        for name, meaning in ((responses, "responses"), (stimulus, "stimulus")):
            if name in arrays and name != meaning:
                arrays[meaning] = arrays.pop(name)
        table = (
            Path(stimuli) if stimuli is not None else find_stimulus_table(file.parent, file.stem)
        )
        if table is not None and table not in sets:
            sets[table] = read_stimuli(table)
        default = subject if subject is not None else subject_of(file, alone=len(files) == 1)
        known = sets[table] if table is not None else None
        recording = from_arrays(arrays, file, known, default, modality)
        for name, part in by_subject(recording).items():
            if name in members:
                raise DataError(
                    f"two files hold the subject {name!r}",
                    where=f"{origin[name].name} and {file.name}",
                    mend="give each subject one file, or each file its own 'subject'",
                )
            members[name], origin[name] = part, file
    if len(members) == 1:
        return next(iter(members.values()))
    return Cohort(members, attrs={"source": str(path)})


def from_arrays(
    arrays: Mapping[str, Any],
    file: Path,
    stimuli: StimulusSet | None,
    subject: str,
    modality: str | None = None,
) -> Recording:
    """Build a recording from the named arrays of one file; see the table of this module."""
    arrays = dict(arrays)
    for name in ("responses", "stimulus"):
        if name not in arrays:
            raise DataError(
                f"the file has no array {name!r}",
                where=f"{file} has {', '.join(sorted(map(str, arrays))) or 'nothing'}",
                mend=f"rename it, or name another with {name}=",
            )
    responses = arrays.pop("responses")
    if responses.ndim not in (2, 3) or responses.dtype.kind not in "fiu":
        raise DataError(
            f"responses have shape {responses.shape} and type {responses.dtype}",
            where=str(file),
            mend="give numbers, presentation x unit or presentation x unit x time",
        )
    n, n_units = responses.shape[:2]
    ids = np.ravel(arrays["stimulus"])
    if len(ids) != n:
        hint = "transpose the responses" if len(ids) in responses.shape else "give one per row"
        raise DataError(
            f"there are {len(ids)} stimulus ids for {n} presentations (responses have shape "
            f"{responses.shape})",
            where=str(file),
            mend=f"responses are presentation x unit[ x time]: {hint}",
        )
    presentation = {
        name: _one_each(arrays.pop(name), n, name, "presentation", file)
        for name in PRESENTATION
        if name in arrays
    }
    presentation.setdefault("subject", np.full(n, subject))
    units = {
        name: _one_each(arrays.pop(name), n_units, name, "unit", file)
        for name in UNIT
        if name in arrays
    }
    time = _time(arrays, responses.shape, file)
    facts = {name: _fact(arrays.pop(name)) for name in FACTS if name in arrays}
    extra, notices = {}, []
    for name, values in arrays.items():
        if np.ndim(values) and np.size(values) == n and np.asarray(values).dtype.kind in "fiubUS":
            extra[name] = np.ravel(values)
        else:
            notices.append(name)
    if modality is not None:
        facts["modality"] = modality
    facts.setdefault("modality", "simulated" if "simulated" in str(file) else "unknown")
    warnings: list[Notice] = []
    if notices:
        warnings.append(
            notice(
                "unused-arrays",
                f"Arrays that are no part of the layout were not read: {', '.join(notices)}.",
            )
        )
    if stimuli is not None:
        _check_ids(presentation["stimulus"], stimuli, file)
    kept = {k: v for k, v in presentation.items() if k == "repetition"}
    return Recording.from_arrays(
        responses,
        _text(presentation["stimulus"]),
        subject=_text(presentation["subject"]),
        session=_text(presentation.get("session", "1")),
        run=_text(presentation.get("run", "1")),
        unit=_text(units.pop("unit")) if "unit" in units else None,
        time=time,
        unit_coords=units,
        presentation_coords={**extra, **kept},
        stimuli=stimuli,
        source=str(file),
        history=[f"Responses were read as they are from {file.name}."],
        warnings=warnings,
        citations=[],
        **facts,
    )


def by_subject(recording: Recording) -> dict[str, Recording]:
    """Take the subjects of a recording apart."""
    subject = recording.coord("subject")
    names = sorted(set(map(str, subject)), key=natural)
    if len(names) == 1:
        return {names[0]: recording}
    return {name: recording.select(np.flatnonzero(subject == name)) for name in names}


def subject_of(file: Path, alone: bool = False) -> str:
    """Return the subject that a file name tells: ``sub-01`` in it, or the whole name."""
    found = re.search(r"(?:^|[_-])sub(?:ject)?[-_]?([a-zA-Z0-9]+)", file.name.split(".")[0])
    if found:
        return found.group(1)
    return "1" if alone else file.name.split(".")[0]


def _one_each(values: Any, n: int, name: str, what: str, file: Path) -> np.ndarray:
    """Return one value a presentation or unit; a single value holds for all."""
    flat = np.ravel(np.asarray(values))
    if len(flat) == 1 and n != 1:
        flat = np.full(n, flat[0])
    if len(flat) != n:
        raise DataError(
            f"{name!r} has {len(flat)} values for {n} {what}s",
            where=str(file),
            mend=f"give one value a {what}, or one for all",
        )
    return flat


def _time(arrays: dict[str, Any], shape: tuple[int, ...], file: Path) -> np.ndarray | None:
    """Return time points in seconds, from ``time`` or from ``sfreq``."""
    given = arrays.pop("time", None)
    if len(shape) == 2:
        return None
    if given is None:
        if "sfreq" not in arrays:
            raise DataError(
                "responses have a time axis, but the file has neither 'time' nor 'sfreq'",
                where=str(file),
                mend="add time in seconds from onset",
            )
        return np.arange(shape[2]) / float(np.ravel(arrays["sfreq"])[0])
    return _one_each(given, shape[2], "time", "time point", file).astype(float)


def _fact(value: Any) -> Any:
    array = np.asarray(value)
    if array.size == 1:
        item = array.ravel()[0]
        return item.item() if isinstance(item, np.generic) else item
    return array.tolist()


def _text(values: Any) -> Any:
    """Bytes, numbers and text to text, so that 1, 1.0 and "1" are the same."""
    if np.ndim(values) == 0:
        return str(values)
    return np.asarray([_label(v) for v in values], dtype=str)


def _label(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return str(value).strip()


def _check_ids(ids: np.ndarray, stimuli: StimulusSet, file: Path) -> None:
    missing = sorted(set(_text(ids)) - set(stimuli.ids), key=natural)
    if missing:
        raise DataError(
            f"{len(missing)} stimulus ids of the recording are not in the stimulus table: "
            f"{_some(missing)}",
            where=f"{file.name}; the table {stimuli.attrs.get('source', '')} has "
            f"{_some(stimuli.ids)}",
            mend="make the ids of the recording and of the stimulus table the same",
        )
