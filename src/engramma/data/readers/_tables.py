"""Event tables and stimulus tables: what several readers share."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engramma.data.quality import Notice, notice
from engramma.data.read import check_readable, decoding
from engramma.data.stimuli import StimulusSet, _some
from engramma.errors import DataError

#: Conditions that are no stimulus: the implicit baseline.
BASELINE = ("rest", "baseline", "fixation", "fix", "null", "iti", "blank")
#: Event columns that BIDS defines.
BIDS_COLUMNS = (
    "onset",
    "duration",
    "trial_type",
    "response_time",
    "stim_file",
    "stim_id",
    "value",
    "sample",
    "HED",
    "identifier",
    "channel",
)
MEDIA = {
    "image": (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    "audio": (".wav", ".flac", ".ogg", ".mp3"),
    "video": (".mp4", ".avi", ".mov", ".mkv", ".webm"),
}
STIMULUS_TABLES = ("stimuli.tsv", "stimuli.csv")
ID_COLUMNS = ("stimulus", "id", "stimulus_id", "stim_id", "name")


def natural(text: Any) -> tuple[Any, ...]:
    """Sort key that puts run 2 before run 10."""
    parts = re.split(r"(\d+)", str(text))
    return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts)


def read_table(path: Path, **kwargs: Any) -> pd.DataFrame:
    """Read a CSV or TSV with a header.

    Raises
    ------
    DataError
        If it cannot be parsed, or has no columns.
    """
    check_readable(path)
    comma = path.name.lower().removesuffix(".gz").endswith(".csv")
    with decoding(path, "table", ValueError, UnicodeDecodeError, pd.errors.ParserError, EOFError):
        table = pd.read_csv(path, sep="," if comma else "\t", **kwargs)
    table.columns = [str(c).strip() for c in table.columns]
    return table


def read_events(
    path: Path,
    *,
    condition_column: str = "trial_type",
    stimulus_column: str | None = None,
    exclude: Collection[str] = BASELINE,
    explained: Collection[str] = (),
) -> tuple[pd.DataFrame, list[Notice]]:
    """Read a BIDS-like event table.

    Parameters
    ----------
    path : Path
    condition_column : str
        Column with the condition of each event.
    stimulus_column : str, optional
        Column with the stimulus of each event; without one, the condition is the stimulus.
    exclude : collection of str
        Conditions that are baseline and no stimulus (upper and lower case alike).
    explained : collection of str
        Columns that a sidecar explains.

    Returns
    -------
    events : DataFrame
        Columns ``onset`` and ``duration`` in seconds, ``stimulus``, ``category``, and whatever
        else the table has.
    notices : list of dict

    Raises
    ------
    DataError
        If a required column is missing or holds no numbers, or no event is left.
    """
    table = read_table(path, na_values=["n/a"], dtype={condition_column: str})
    where = path.name
    wanted = ["onset", "duration", condition_column]
    if stimulus_column is not None:
        wanted.append(stimulus_column)
    missing = [c for c in wanted if c not in table]
    if missing:
        raise DataError(
            f"the event table has no column {missing[0]!r}",
            where=f"{where} has the columns {', '.join(map(str, table.columns))}",
            mend="add it, or name another with condition_column= or stimulus_column=",
        )
    notices = []
    known = {*BIDS_COLUMNS, *wanted, *explained}
    unknown = [str(c) for c in table.columns if c not in known]
    if unknown:
        notices.append(
            notice(
                "unknown-event-columns",
                f"Event tables have columns that neither BIDS nor a sidecar explains: "
                f"{', '.join(unknown)}. They are kept beside each presentation and not used.",
            )
        )
    for column in ("onset", "duration"):
        numbers = pd.to_numeric(table[column], errors="coerce")
        bad = np.flatnonzero(~np.isfinite(numbers))
        if column == "duration":  # BIDS allows n/a
            bad = np.flatnonzero(~np.isfinite(numbers) & table[column].notna())
            bad = np.union1d(bad, np.flatnonzero(numbers < 0))
            numbers = numbers.fillna(0.0)
        if len(bad):
            raise DataError(
                f"{column} is no valid time in {len(bad)} rows",
                where=f"{where}, row {bad[0] + 2}: {table[column].iloc[bad[0]]!r}",
                mend="give seconds from the start of the run",
            )
        table[column] = numbers.astype(float)
    if (table["onset"] < 0).any():
        before = int((table["onset"] < 0).sum())
        notices.append(
            notice("events-before-start", f"{before} events start before the run ({where}).")
        )
    condition = table[condition_column]
    unnamed = condition.isna()
    if stimulus_column is not None:
        unnamed |= table[stimulus_column].isna()
    if unnamed.any():
        notices.append(
            notice(
                "events-without-name",
                f"{int(unnamed.sum())} events name no condition or stimulus and were left out "
                f"({where}).",
            )
        )
    rest = condition.astype(str).str.lower().isin([e.lower() for e in exclude])
    events = table[~unnamed & ~rest].copy()
    if events.empty:
        raise DataError("the event table has no event with a stimulus", where=where)
    column = stimulus_column or condition_column
    events["category"] = events[condition_column].astype(str)
    events["stimulus"] = [_label(v) for v in events[column]]
    dropped = {condition_column, stimulus_column} - {"stimulus", "category"}
    return events.drop(columns=[c for c in dropped if c in events]).reset_index(drop=True), notices


def count_events(events: pd.DataFrame) -> list[dict[str, Any]]:
    """List what was presented: name, category, number and mean duration in seconds."""
    rows = []
    for name, group in events.groupby("stimulus", sort=True):
        duration = float(group["duration"].mean())
        rows.append(
            {
                "name": str(name),
                "category": str(group["category"].iloc[0]),
                "count": len(group),
                "duration": round(duration, 4),
                "used": True,
            }
        )
    return rows


def find_stimulus_table(folder: Path, stem: str = "") -> Path | None:
    """Return the stimulus table of a file (``STEM_stimuli.tsv``) or of its folder."""
    names = [f"{stem}_{n}" for n in STIMULUS_TABLES] if stem else []
    places = [folder / n for n in (*names, *STIMULUS_TABLES)]
    places += [folder / "stimuli" / n for n in STIMULUS_TABLES]
    return next((p for p in places if p.is_file()), None)


def read_stimuli(path: Path) -> StimulusSet:
    """Read a stimulus table with its media files.

    The id is the column ``stimulus`` or ``id`` (or ``stimulus_id``, ``stim_id``, ``name``); where
    there is none, the name of the image, audio or video file without its ending. File names are
    relative to the folder of the table, or to a folder in it named after the column
    (``images``, ``audio``, ``videos``).

    Raises
    ------
    DataError
        If there is no id, an id repeats, or a media file is not there or empty.
    """
    table = read_table(path)
    key = next((c for c in ID_COLUMNS if c in table), None)
    media = [m for m in MEDIA if m in table]
    if key is not None:
        ids = [_label(v) for v in table[key]]
        table = table.drop(columns=key)
    elif media:
        ids = [Path(str(v)).stem for v in table[media[0]]]
    else:
        raise DataError(
            "the stimulus table names no stimulus",
            where=f"{path} has the columns {', '.join(map(str, table.columns))}",
            mend="add a column 'stimulus' with the id used in the recording",
        )
    table.index = pd.Index(ids, dtype=object)
    root = path.parent
    for medium in media:
        table[medium] = _locate(table[medium], medium, root, path)
    return StimulusSet(table, root=root, attrs={"source": str(path)})


def stimuli_of_events(
    events: Iterable[pd.DataFrame], table: Path | None, stimulus_folder: Path | None = None
) -> tuple[StimulusSet, list[Notice]]:
    """Make the stimulus set of a recording from its events and its stimulus table, if any.

    Stimulus ids that are file names (BIDS ``stim_file``) become media where the files are there.
    """
    joined = pd.concat([e[["stimulus", "category"]] for e in events])
    category = joined.groupby("stimulus", sort=True)["category"].agg(
        lambda v: v.iloc[0] if v.nunique() == 1 else "several"
    )
    own = pd.DataFrame({"category": category.to_numpy()}, index=category.index.astype(object))
    if table is not None:
        given = read_stimuli(table).select(own.index)
        added = given.table.copy()
        if "category" not in added:
            added["category"] = own["category"].to_numpy()
        return StimulusSet(added, root=given.root, attrs=given.attrs), []
    endings = {str(i): Path(str(i)).suffix.lower() for i in own.index}
    for medium, suffixes in MEDIA.items():
        if stimulus_folder is None or not all(e in suffixes for e in endings.values()):
            continue
        absent = [i for i in endings if not (stimulus_folder / i).is_file()]
        if absent:
            return StimulusSet(own), [
                notice(
                    "missing-stimulus-files",
                    f"{len(absent)} of {len(own)} stimulus files named in the events are not "
                    f"there ({_some(absent)}), so no {medium} features can be made.",
                )
            ]
        own[medium] = list(endings)
        return StimulusSet(own, root=stimulus_folder), []
    return StimulusSet(own), []


def _locate(names: pd.Series, medium: str, root: Path, table: Path) -> list[str | float]:
    """Return file names relative to ``root``; refuse files that are not there or empty."""
    folders = ("", f"{medium}s", medium)
    located: list[str | float] = []
    absent, empty = [], []
    for name in names:
        if pd.isna(name) or not str(name).strip():
            located.append(np.nan)
            continue
        found = next((f for f in folders if (root / f / str(name)).is_file()), None)
        if found is None:
            absent.append(str(name))
            continue
        place = Path(found) / str(name)
        if (root / place).stat().st_size == 0:
            empty.append(str(name))
        located.append(str(place))
    for files, state in ((absent, "not there"), (empty, "empty (0 bytes)")):
        if files:
            raise DataError(
                f"{len(files)} of {len(names)} {medium} files are {state}: {_some(files)}",
                where=f"column {medium!r} of {table}",
                mend="put the files beside the table, or remove the column",
            )
    return located


def _label(value: Any) -> str:
    """Write an id so that 1, 1.0 and "1" are the same."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return str(value).strip()
