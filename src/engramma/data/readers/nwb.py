"""NWB files: spike times, electrical series and other time series, around presentations.

Presentations are the rows of an interval table: ``intervals=``, or the first table that has
``presentations`` in its name, or ``trials``. Needs ``pip install 'engramma[nwb]'``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engramma.data.epochs import contiguous_blocks, label
from engramma.data.quality import Notice, notice
from engramma.data.read import check_readable, decoding, reader
from engramma.data.readers._layout import by_subject, files_of
from engramma.data.readers._tables import ID_COLUMNS, find_stimulus_table, natural, read_stimuli
from engramma.data.recording import Cohort, Recording
from engramma.data.stimuli import StimulusSet, _some
from engramma.errors import ConfigError, DataError
from engramma.progress import track

#: Columns of an interval table that can name the stimulus, the likeliest first.
STIMULUS_COLUMNS = (
    *ID_COLUMNS,
    "stimulus_name",
    "image",
    "stim_name",
    "condition",
    "trial_type",
    "category",
    "orientation",
)
#: Columns that are about the row and not about the stimulus.
ROW_COLUMNS = ("start_time", "stop_time", "timeseries", "timeseries_index", "tags", "tags_index")
MODALITY = {"ElectricalSeries": "ieeg", "RoiResponseSeries": "calcium"}


def _recognises(path: Path) -> bool:
    return bool(files_of(path, ".nwb"))


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an NWB file for reading.

    Raises
    ------
    ConfigError
        If pynwb is not installed.
    DataError
        If the file is damaged.
    """
    try:
        from pynwb import NWBHDF5IO
    except ImportError as error:
        raise ConfigError(
            "reading NWB needs pynwb, which is not installed",
            where=str(path),
            mend="pip install 'engramma[nwb]'",
        ) from error
    check_readable(path)
    errors = (OSError, ValueError, KeyError, TypeError, RuntimeError)
    with decoding(path, "NWB file", *errors):
        io = NWBHDF5IO(str(path), "r", load_namespaces=True)
        try:
            content = io.read()
        except BaseException:
            io.close()
            raise
    try:
        yield content
    finally:
        io.close()


def series_of(content: Any) -> dict[str, Any]:
    """Time series of a file by name: acquisition first, then processed ones."""
    found: dict[str, Any] = {}

    def add(item: Any) -> None:
        # Containers of series (Fluorescence, LFP ...) list them in a field of one of these names.
        for field in ("electrical_series", "roi_response_series", "time_series"):
            members = getattr(item, field, None)
            if members is not None and hasattr(members, "values"):
                for member in members.values():
                    add(member)
        if hasattr(item, "data") and hasattr(item, "rate") and np.ndim(item.data) in (1, 2):
            found.setdefault(item.name, item)

    for item in content.acquisition.values():
        add(item)
    for module in content.processing.values():
        for item in module.data_interfaces.values():
            add(item)
    return found


def presentations_of(content: Any, name: str | None, path: Path) -> tuple[str, pd.DataFrame]:
    """Return the interval table that lists the presentations.

    Raises
    ------
    DataError
        If there is none, or not the one asked for.
    """
    tables = {t: content.intervals[t] for t in content.intervals}
    if content.trials is not None:
        tables.setdefault("trials", content.trials)
    if name is None:
        likely = [t for t in tables if "presentation" in t] + [t for t in tables if t == "trials"]
        name = next(iter([*likely, *tables]), None)
    if name is None or name not in tables:
        raise DataError(
            f"there is no interval table {name!r}" if name else "there is no interval table",
            where=f"{path} has {', '.join(tables) or 'none'}",
            mend="add trials (start_time, stop_time and a stimulus column), or name one with "
            "intervals=",
        )
    table = tables[name].to_dataframe().reset_index(drop=True)
    if not len(table):
        raise DataError(f"the interval table {name!r} is empty", where=str(path))
    return name, table


def bin_spikes(
    spike_times: Sequence[np.ndarray], onsets: np.ndarray, edges: np.ndarray
) -> np.ndarray:
    """Count the spikes of each unit in bins around each onset.

    Parameters
    ----------
    spike_times : sequence of ndarray
        Sorted times of each unit, in seconds.
    onsets : ndarray, shape (n_presentations,)
    edges : ndarray, shape (n_bins + 1,)
        Relative to the onset, in seconds. A spike on an edge belongs to the later bin.

    Returns
    -------
    ndarray, shape (n_presentations, n_units, n_bins), float32
        Firing rate in spikes per second.
    """
    moments = onsets[:, None] + edges[None, :]
    rates = np.empty((len(onsets), len(spike_times), len(edges) - 1), dtype=np.float32)
    for unit, times in enumerate(spike_times):
        below = np.searchsorted(np.asarray(times), moments)
        rates[:, unit] = np.diff(below, axis=1) / np.diff(edges)
    return rates


def cut_series(
    series: Any, onsets: np.ndarray, tmin: float, tmax: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut a time series around onsets, reading only the samples needed.

    Returns
    -------
    values : ndarray, shape (n_usable, n_channels, n_times), float32
    times : ndarray
        Seconds from onset.
    usable : ndarray of bool
        Onsets whose window lies inside the series.
    """
    n = len(series.data)
    if series.rate:
        rate, start = float(series.rate), float(series.starting_time or 0.0)
        first = np.round((onsets - start) * rate).astype(int)
    else:
        stamps = np.asarray(series.timestamps)
        rate = 1 / float(np.median(np.diff(stamps)))
        first = np.searchsorted(stamps, onsets - 0.5 / rate)
    offsets = np.arange(round(tmin * rate), max(round(tmax * rate), round(tmin * rate) + 1))
    usable = (first + offsets[0] >= 0) & (first + offsets[-1] < n)
    data = series.data
    width = 1 if np.ndim(data) == 1 else data.shape[1]
    values = np.empty((int(usable.sum()), width, len(offsets)), dtype=np.float32)
    for row, at in enumerate(track(list(first[usable]), "cutting presentations")):
        piece = np.asarray(data[at + offsets[0] : at + offsets[-1] + 1], dtype=np.float32)
        values[row] = piece.reshape(len(offsets), width).T
    conversion = np.float32(getattr(series, "conversion", 1.0) or 1.0)
    return values * conversion, offsets / rate, usable


def _stimulus_column(table: pd.DataFrame, given: str | None, name: str, path: Path) -> str:
    columns = [str(c) for c in table.columns if c not in ROW_COLUMNS]
    chosen = given if given is not None else next((c for c in STIMULUS_COLUMNS if c in table), None)
    if chosen is None or chosen not in table:
        problem = f"no column {given!r}" if given else "no column that names the stimulus"
        raise DataError(
            f"the interval table {name!r} has {problem}",
            where=f"{path} has {', '.join(columns) or 'no further column'}",
            mend="name one with stimulus_column=",
        )
    return chosen


def _stimuli(table: pd.DataFrame, ids: np.ndarray) -> StimulusSet:
    """Stimulus table from the columns that are constant within each stimulus."""
    constant = {}
    for name in table.columns:
        if name in ROW_COLUMNS or table[name].map(np.ndim).max():
            continue
        groups = table[name].groupby(ids)
        if (groups.nunique(dropna=False) == 1).all():
            constant[str(name)] = groups.first()
    return StimulusSet(pd.DataFrame(constant, index=pd.Index(sorted(set(ids)), dtype=object)))


def _spikes(
    content: Any, onsets: np.ndarray, tmin: float, tmax: float, width: float
) -> tuple[np.ndarray, np.ndarray, list[str], dict[str, Any]]:
    units = content.units
    times = [np.sort(np.asarray(units.get_unit_spike_times(i))) for i in range(len(units))]
    edges = tmin + width * np.arange(max(round((tmax - tmin) / width), 1) + 1)
    names = [f"unit{i}" for i in units.id[:]]
    coords: dict[str, Any] = {"kind": np.full(len(names), "unit")}
    table = units.to_dataframe()
    for column in ("location", "brain_area", "roi", "region"):
        if column in table:
            coords["roi"] = table[column].astype(str).to_numpy()
            break
    else:
        if "electrodes" in table:
            coords["roi"] = np.asarray([_location(e) for e in table["electrodes"]])
    return bin_spikes(times, onsets, edges), edges[:-1] + width / 2, names, coords


def _location(electrodes: Any) -> str:
    places = sorted(set(map(str, electrodes["location"]))) if len(electrodes) else ["unknown"]
    return "/".join(places)


def _channels(series: Any, width: int) -> tuple[list[str], dict[str, Any]]:
    kind = type(series).__name__
    coords: dict[str, Any] = {"kind": np.full(width, MODALITY.get(kind, "series"))}
    electrodes = getattr(series, "electrodes", None)
    if electrodes is None:
        return [f"{series.name}{i}" for i in range(width)], coords
    table = electrodes.to_dataframe()
    coords["roi"] = table["location"].astype(str).to_numpy()
    for axis in "xyz":
        if axis in table:
            coords[axis] = table[axis].to_numpy(dtype=np.float32)
    return [f"electrode{i}" for i in table.index], coords


def _read_one(
    path: Path,
    data: str | None,
    intervals: str | None,
    stimulus_column: str | None,
    tmin: float,
    tmax: float | None,
    width: float,
    average: bool,
    blocks: int,
    known: StimulusSet | None,
) -> Recording:
    with opened(path) as content:
        name, table = presentations_of(content, intervals, path)
        column = _stimulus_column(table, stimulus_column, name, path)
        complete = table[column].notna() & np.isfinite(table["start_time"])
        warnings: list[Notice] = []
        if not complete.all():
            text = f"{int((~complete).sum())} rows of {name} name no stimulus and were left out."
            warnings.append(notice("events-without-name", text))
        table = table[complete].reset_index(drop=True)
        onsets = table["start_time"].to_numpy(dtype=float)
        if tmax is None:
            lasting = (table["stop_time"] - table["start_time"]).to_numpy(dtype=float)
            tmax = float(np.nanmedian(lasting))
        if tmax <= tmin:
            raise ConfigError(f"tmin={tmin} is not before tmax={tmax}", where=str(path))
        series = series_of(content)
        if data is None:
            electrical = [n for n, s in series.items() if type(s).__name__ in MODALITY]
            data = "units" if content.units is not None else next(iter(electrical or series), None)
        usable = np.ones(len(table), dtype=bool)
        facts: dict[str, Any] = {}
        if data == "units" and content.units is not None:
            values, times, names, coords = _spikes(content, onsets, tmin, tmax, width)
            modality = "spikes"
            how = f"Spikes of {len(names)} units were counted in bins of {1000 * width:g} ms"
        elif data in series:
            chosen = series[data]
            values, times, usable = cut_series(chosen, onsets, tmin, tmax)
            names, coords = _channels(chosen, values.shape[1])
            modality = MODALITY.get(type(chosen).__name__, "series")
            facts["sfreq"] = float(1 / np.diff(times[:2])[0]) if len(times) > 1 else 0.0
            how = f"The series {data!r} of {len(names)} channels was cut"
        else:
            there = [*(["units"] if content.units is not None else []), *series]
            raise DataError(
                f"the file has no data {data!r}" if data else "the file has no units or series",
                where=f"{path} has {', '.join(there) or 'none'}",
                mend="name one with data=",
            )
        subject = content.subject.subject_id if content.subject is not None else None
        session = content.session_id or "1"
    if not usable.any():
        raise DataError(
            f"no presentation of {name!r} lies inside the series {data!r}",
            where=str(path),
            mend="check start_time and the clock of the series",
        )
    if not usable.all():
        text = f"{int((~usable).sum())} presentations run over an edge of the series."
        warnings.append(notice("events-past-end", text))
        table = table[usable].reset_index(drop=True)
    ids = np.asarray([label(v) for v in table[column]], dtype=str)
    history = [
        f"{how} from {1000 * tmin:.0f} to {1000 * tmax:.0f} ms around the {len(ids)} rows of "
        f"{name!r} in {path.name} ({column!r} names the stimulus)."
    ]
    if average:
        values = values.mean(axis=2)
        history.append("Responses were averaged over this window.")
    run = contiguous_blocks(len(ids), blocks) if blocks > 1 and len(ids) >= 2 * blocks else None
    if run is not None:
        history.append(
            f"The session was split into {blocks} contiguous blocks of presentations, which stand "
            "for runs in cross-validation."
        )
    counts = pd.Series(ids).value_counts().sort_index()
    return Recording.from_arrays(
        values,
        ids,
        subject=str(subject) if subject else "1",
        session=str(session),
        run="1" if run is None else run.astype(str),
        unit=names,
        time=None if average else times,
        unit_coords=coords,
        presentation_coords={"onset": table["start_time"].to_numpy(dtype=float)},
        stimuli=known if known is not None else _stimuli(table, ids),
        modality=modality,
        source=str(path),
        position_unit="as in the file",
        events=[{"name": n, "count": int(c), "used": True} for n, c in counts.items()],
        history=history,
        warnings=warnings,
        citations=["nwb"],
        **facts,
    )


def _inspect(path: Path, **options: Any) -> dict[str, Any]:
    runs, subjects = [], []
    facts: dict[str, Any] = {}
    for file in files_of(path, ".nwb"):
        with opened(file) as content:
            name, table = presentations_of(content, options.get("intervals"), file)
            column = _stimulus_column(table, options.get("stimulus_column"), name, file)
            counts = table[column].map(label).value_counts().sort_index()
            facts["events"] = [{"name": n, "count": int(c)} for n, c in counts.items()]
            units = None if content.units is None else len(content.units)
            shapes = {n: list(np.shape(s.data)) for n, s in series_of(content).items()}
            runs.append({"file": file.name, "intervals": name, "units": units, "series": shapes})
            subjects.append(str(content.subject.subject_id) if content.subject else "1")
    facts["modality"] = "spikes" if runs[0]["units"] else "series"
    return {**facts, "subjects": sorted(set(subjects), key=natural), "runs": runs, "warnings": []}


@reader(
    "nwb",
    description="NWB files (units, ElectricalSeries, TimeSeries) with trials or presentations",
    recognises=_recognises,
    inspect=_inspect,
)
def read_nwb(
    path: Path,
    *,
    data: str | None = None,
    intervals: str | None = None,
    stimulus_column: str | None = None,
    stimuli: str | Path | None = None,
    tmin: float = 0.0,
    tmax: float | None = None,
    bin: float = 0.02,
    average: bool = False,
    blocks: int = 5,
) -> Recording | Cohort:
    """Read NWB files: one gives a recording, files of several subjects a cohort.

    Parameters
    ----------
    path : Path
    data : str, optional
        ``"units"`` or the name of a series; by default units, else an electrical or fluorescence
        series, else the first series.
    intervals, stimulus_column : str, optional
        The table of presentations, and its column that names the stimulus.
    stimuli : path, optional
        Stimulus table, where it is not ``stimuli.tsv`` beside the file.
    tmin, tmax : float
        Seconds from the start of a presentation; ``tmax`` defaults to their median duration.
    bin : float
        Width of the bins in which spikes are counted, in seconds.
    average : bool
        Average over the window, to give presentation x unit.
    blocks : int
        The session is split into this many contiguous blocks, which stand for runs; 1 for not.
    """
    if bin <= 0:
        raise ConfigError(f"bin={bin} s is no width", mend="give seconds above 0, for example 0.02")
    members: dict[str, Recording] = {}
    for file in files_of(path, ".nwb"):
        table = (
            Path(stimuli) if stimuli is not None else find_stimulus_table(file.parent, file.stem)
        )
        known = read_stimuli(table) if table is not None else None
        recording = _read_one(
            file, data, intervals, stimulus_column, tmin, tmax, bin, average, blocks, known
        )
        for subject, part in by_subject(recording).items():
            if subject in members:
                raise DataError(
                    f"two files hold the subject {subject!r}",
                    where=f"{members[subject].attrs['source']} and {file}",
                    mend=f"read one file at a time, or give each its own subject_id (known: "
                    f"{_some(members)})",
                )
            members[subject] = part
    if len(members) == 1:
        return next(iter(members.values()))
    return Cohort(members, attrs={"source": str(path)})
