"""EEG, MEG and intracranial recordings: everything MNE-Python reads, and BIDS folders of it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.io.matlab import MatReadError

from engramma.data.epochs import (
    NOT_STIMULI,
    EpochSettings,
    Log,
    condition_fields,
    contiguous_blocks,
    data_channels,
    label,
    make_epochs,
    stimulus_ids,
)
from engramma.data.quality import merge_notices
from engramma.data.read import check_readable, decoding, reader
from engramma.data.readers._layout import subject_of
from engramma.data.readers._tables import find_stimulus_table, natural, read_stimuli, read_table
from engramma.data.readers.bids import entities, inherited, is_bids, only, walk
from engramma.data.recording import Cohort, Recording
from engramma.data.stimuli import StimulusSet, _some
from engramma.errors import DataError

SUFFIXES = (
    ".set",
    ".vhdr",
    ".edf",
    ".bdf",
    ".gdf",
    ".cnt",
    ".fif",
    ".fif.gz",
    ".nxe",
    ".lay",
    ".sqd",
    ".con",
    ".mff",
    ".ds",
    ".egi",
)
BIDS_SUFFIXES = ("eeg", "meg", "ieeg")
MODALITY = {
    "eeg": "eeg",
    "mag": "meg",
    "grad": "meg",
    "seeg": "ieeg",
    "ecog": "ieeg",
    "dbs": "ieeg",
}
#: What MNE raises on files that are damaged or not what their name says.
ERRORS = (
    MatReadError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    RuntimeError,
    AttributeError,
    EOFError,
)


def _is_recording(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def _files(path: Path) -> list[Path]:
    """Find recordings: the path itself, those of a BIDS dataset, or those of the folder."""
    if _is_recording(path):
        return [path]
    if path.is_file():
        return []
    kinds = BIDS_SUFFIXES if is_bids(path) else ()
    named = [f for s in kinds for f in walk(path, f"sub-*_{s}.*") if _is_recording(f)]
    own = named or [f for f in path.iterdir() if _is_recording(f)]
    # Split FIF files are read through their first part.
    own = [f for f in own if not re.search(r"split-0*[2-9]|-\d+\.fif", f.name)]
    return sorted(own, key=lambda f: natural(f.name))


def _recognises(path: Path) -> bool:
    return bool(_files(path))


@contextmanager
def _listening(log: Log) -> Iterator[None]:
    """Silence MNE, and keep its warnings as named ones."""
    import mne

    with warnings.catch_warnings(record=True) as caught, mne.utils.use_log_level("WARNING"):
        warnings.simplefilter("always")
        yield
    for one in caught:
        if not issubclass(one.category, DeprecationWarning | FutureWarning | ResourceWarning):
            log.warn("mne", " ".join(str(one.message).split()))


def open_recording_file(path: Path, *, preload: bool = False) -> Any:
    """Open a file with MNE: continuous data, epochs, or a list of evoked responses.

    Raises
    ------
    DataError
        If the file, or a file that belongs to it, is missing or damaged.
    """
    import mne

    check_readable(path)
    name = path.name.lower()
    if name.endswith(".set"):
        trials = _check_eeglab(path)
        with decoding(path, "EEGLAB recording", *ERRORS):
            if trials > 1:
                return mne.io.read_epochs_eeglab(path)
            return mne.io.read_raw_eeglab(path, preload=preload)
    if name.endswith(".vhdr"):
        _check_brainvision(path)
    if re.search(r"[-_]ave\.fif(\.gz)?$", name):
        with decoding(path, "evoked responses", *ERRORS):
            return mne.read_evokeds(path)
    if re.search(r"[-_]epo\.fif(\.gz)?$", name):
        with decoding(path, "epochs", *ERRORS):
            return mne.read_epochs(path)
    with decoding(path, "M/EEG recording", *ERRORS):
        if name.endswith((".fif", ".fif.gz")):
            # Names outside MNE's conventions are only worth a warning to MNE.
            return mne.io.read_raw_fif(path, preload=preload)
        return mne.io.read_raw(path, preload=preload)


def _check_eeglab(path: Path) -> int:
    """Return the number of trials of an EEGLAB file, after a look for the file with its samples."""
    content = _eeglab(path)
    data = content.get("data", content.get("datfile"))
    if isinstance(data, str) and data:
        beside = path.parent / Path(data.replace("\\", "/")).name
        own = path.with_suffix(".fdt")
        if not beside.is_file() and not own.is_file():
            raise DataError(
                f"the samples of the EEGLAB file are in {beside.name}, which is not there",
                where=str(path),
                mend="put the .fdt file beside the .set file, under the name it was saved with",
            )
        check_readable(beside if beside.is_file() else own)
    return int(np.ravel(content.get("trials", 1) or 1)[0])


def _eeglab(path: Path) -> dict[str, Any]:
    """Fields of the EEG structure."""
    from pymatreader import read_mat

    with decoding(path, "EEGLAB file", *ERRORS):
        content = read_mat(str(path))
        structure = content.get("EEG", content)
        if not isinstance(structure, dict) or "srate" not in structure:
            raise DataError("the file holds no EEG structure", where=str(path))
    return structure


def _check_brainvision(path: Path) -> None:
    """Look for the files that a BrainVision header names."""
    text = path.read_bytes().decode("utf-8", errors="replace")
    for key in ("DataFile", "MarkerFile"):
        found = re.search(rf"^{key}=(.+)$", text, flags=re.MULTILINE)
        if not found:
            continue
        named = found.group(1).strip().replace("$b", path.stem)
        if not (path.parent / named).is_file():
            raise DataError(
                f"the header names the file {named}, which is not there",
                where=str(path),
                mend="put it beside the header, under the name it was saved with",
            )


def events_of(raw: Any, path: Path, root: Path) -> pd.DataFrame:
    """Events of a continuous recording, in seconds from its first sample.

    From ``*_events.tsv`` in a BIDS dataset, the event structure of an EEGLAB file, the
    annotations, or the stimulus channel, in this order.

    Returns
    -------
    DataFrame
        Columns ``onset``, ``category`` and further fields.
    """
    import mne

    tables = inherited(root, path, "events", ".tsv") if path.name.startswith("sub-") else []
    if tables:
        table = read_table(tables[-1], na_values=["n/a"])
        kind = next((c for c in ("trial_type", "event_type", "value") if c in table), None)
        if "onset" not in table or kind is None:
            raise DataError(
                f"the event table has no column {'onset' if kind else 'trial_type'!r}",
                where=f"{tables[-1].name} has {', '.join(map(str, table.columns))}",
                mend="add it",
            )
        table = table[table[kind].notna()].assign(onset=pd.to_numeric(table["onset"]))
        return table.rename(columns={kind: "category"}).reset_index(drop=True)
    if path.name.lower().endswith(".set"):
        return _eeglab_events(path)
    annotations = raw.annotations
    if len(annotations):
        first = raw.first_time if annotations.orig_time is not None else 0.0
        return pd.DataFrame(
            {
                "onset": np.asarray(annotations.onset) - first,
                "duration": annotations.duration,
                "category": annotations.description,
            }
        )
    channels = mne.pick_types(raw.info, meg=False, stim=True)
    if not len(channels):
        return pd.DataFrame({"onset": [], "category": []})
    found = mne.find_events(raw, shortest_event=1, initial_event=False)
    onset = (found[:, 0] - raw.first_samp) / raw.info["sfreq"]
    return pd.DataFrame({"onset": onset, "category": found[:, 2].astype(str)})


def _eeglab_events(path: Path) -> pd.DataFrame:
    """Events of an EEGLAB file with all of their fields (latency counts samples from 1)."""
    content = _eeglab(path)
    given = content.get("event")
    if not isinstance(given, dict) or "latency" not in given:
        return pd.DataFrame({"onset": [], "category": []})
    n = np.size(given["latency"])
    columns: dict[str, Any] = {}
    for name, values in given.items():
        items = [values] if n == 1 and not isinstance(values, list) else list(values)
        if len(items) == n:
            columns[name] = [np.nan if np.size(v) == 0 else v for v in items]
    table = pd.DataFrame(columns)
    onset = (table.pop("latency").astype(float) - 1) / float(content["srate"])
    category = table.pop("type").map(lambda v: str(v)) if "type" in table else "event"
    table = table.drop(columns=[c for c in ("urevent", "epoch", "duration") if c in table])
    return table.assign(onset=onset, category=category)


def choose_events(
    events: pd.DataFrame,
    wanted: Sequence[str] | str | None,
    columns: Sequence[str] | None,
    path: Path,
    log: Log,
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Choose stimulus events and name their stimuli; also list all events.

    Raises
    ------
    DataError
        If there is no event, or not the one asked for.
    """
    counts = events["category"].astype(str).value_counts()
    if not len(counts):
        raise DataError(
            "the recording has no events",
            where=str(path),
            mend="add annotations, a stimulus channel, or a BIDS *_events.tsv",
        )
    if wanted is None:
        names = [c for c in counts.index if not NOT_STIMULI.match(re.split(r"[/\s]", c)[0])]
        if not names:
            raise DataError(
                "no event looks like a stimulus",
                where=f"{path} has the events {_some(counts.index)}",
                mend="name the ones to use with events=",
            )
    else:
        names = wanted.split(",") if isinstance(wanted, str) else list(wanted)
        absent = [n for n in names if n not in counts.index]
        if absent:
            raise DataError(
                f"the recording has no event {absent[0]!r}",
                where=f"{path} has the events {_some(counts.index, 20)}",
                mend="name one of these with events=",
            )
    chosen = events[events["category"].astype(str).isin(names)].reset_index(drop=True)
    if columns is None:
        columns = condition_fields(chosen)
    missing = [c for c in columns if c not in chosen]
    if missing:
        raise DataError(
            f"events have no field {missing[0]!r}",
            where=f"{path} has {', '.join(map(str, chosen.columns))}",
            mend="name one of these with stimulus_columns=",
        )
    texts = {c: [label(v) for v in chosen[c]] for c in columns}
    chosen = chosen.assign(**texts)
    chosen = chosen.assign(stimulus=stimulus_ids(chosen, list(columns)))
    left_out = [f"{c} ({counts[c]})" for c in counts.index if c not in names]
    log.did(
        f"Stimulus events were {', '.join(f'{n} ({counts[n]})' for n in names)}"
        + (f", told apart by the field {' and '.join(columns)}" if columns else "")
        + (f"; not used were {', '.join(left_out)}" if left_out else "")
        + "."
    )
    keep = ["onset", "category", "stimulus", *columns]
    facts = [
        {"name": str(c), "count": int(counts[c]), "used": c in names} for c in sorted(counts.index)
    ]
    return chosen[keep], facts


def _recording(
    path: Path,
    root: Path,
    settings: EpochSettings,
    wanted: Sequence[str] | str | None,
    columns: Sequence[str] | None,
    known: StimulusSet | None,
    subject: str,
) -> Recording:
    """Read one file into epochs."""
    log = Log()
    with _listening(log):
        opened = open_recording_file(path)
        if isinstance(opened, list):
            values, info, times, labels, kept = _evoked(opened, path, log)
            facts = [{"name": k, "count": int(n), "used": True} for k, n in kept["nave"].items()]
            extra = {"nave": np.asarray(list(kept["nave"].values()))}
            metadata = pd.DataFrame({"category": labels, "stimulus": labels})
        else:
            if hasattr(opened, "metadata"):
                epochs, facts = _given_epochs(opened, wanted, log)
            else:
                _bids_channels(opened, path, root)
                n = f"{opened.times[-1]:.0f} s at {opened.info['sfreq']:g} Hz"
                log.did(
                    f"{len(opened.ch_names)} channels, {n}, were read from {path.name} with "
                    f"MNE-Python {version('mne')}."
                )
                events = events_of(opened, path, root)
                chosen, facts = choose_events(events, wanted, columns, path, log)
                with decoding(path, "M/EEG recording", OSError, EOFError, RuntimeError, ValueError):
                    opened.load_data()
                epochs = make_epochs(opened, chosen, settings, log)
            info, times, metadata = epochs.info, epochs.times, epochs.metadata
            values, extra = epochs.get_data(copy=False), {}
            if "onset" in metadata:
                extra["onset"] = metadata["onset"].to_numpy(dtype=float)
    import mne

    kinds = [mne.channel_type(info, i) for i in range(len(info["ch_names"]))]
    position = np.asarray([c["loc"][:3] for c in info["chs"]], dtype=float)
    position[~position.any(axis=1)] = np.nan
    of = entities(path)
    attributes = metadata.drop(columns=[c for c in ("onset",) if c in metadata])
    table = attributes.drop_duplicates("stimulus").set_index("stimulus").sort_index()
    unit_coords: dict[str, Any] = {"kind": np.asarray(kinds)}
    if np.isfinite(position).any():
        unit_coords |= dict(zip("xyz", position.T.astype(np.float32), strict=True))
    return Recording.from_arrays(
        np.asarray(values, dtype=np.float32),
        metadata["stimulus"].to_numpy(),
        subject=subject,
        session=of.get("ses", "1"),
        run=of.get("run", "1").lstrip("0") or "0",
        unit=info["ch_names"],
        time=times,
        unit_coords=unit_coords,
        presentation_coords=extra,
        stimuli=known if known is not None else StimulusSet(table),
        modality=MODALITY[kinds[0]],
        source=str(path),
        sfreq=float(info["sfreq"]),
        position_unit="m",
        events=facts,
        history=log.history,
        warnings=merge_notices(log.notices),
        citations=list(dict.fromkeys(["mne", *log.citations])),
    )


def _evoked(evokeds: list[Any], path: Path, log: Log) -> tuple[Any, Any, Any, list[str], Any]:
    """Averaged responses: one presentation a condition."""
    if not evokeds:
        raise DataError("the file holds no evoked response", where=str(path))
    first = evokeds[0]
    picks = data_channels(first.info)
    labels = [e.comment or f"condition {i + 1}" for i, e in enumerate(evokeds)]
    for other in evokeds[1:]:
        if other.ch_names != first.ch_names or not np.allclose(other.times, first.times):
            raise DataError("averaged responses differ in channels or time points", where=str(path))
    if len(set(labels)) < len(labels):
        labels = [f"{label} ({i + 1})" for i, label in enumerate(labels)]
    import mne

    values = np.stack([e.data[picks] for e in evokeds])
    info = mne.pick_info(first.info, picks)
    log.did(
        f"{len(evokeds)} averaged responses of {len(picks)} good channels were read from "
        f"{path.name} with MNE-Python {version('mne')}."
    )
    log.warn("averaged", "Responses are averages over trials: single trials cannot be decoded.")
    nave = {label: e.nave for label, e in zip(labels, evokeds, strict=True)}
    return values, info, first.times, labels, {"nave": nave}


def _given_epochs(
    epochs: Any, wanted: Sequence[str] | str | None, log: Log
) -> tuple[Any, list[dict[str, Any]]]:
    """Epochs that the file already holds: taken as they are, good data channels only."""
    epochs.load_data()
    names = {code: name for name, code in epochs.event_id.items()}
    labels = pd.Series([names[c] for c in epochs.events[:, 2]])
    counts = labels.value_counts()
    chosen = list(counts.index) if wanted is None else wanted
    chosen = chosen.split(",") if isinstance(chosen, str) else list(chosen)
    absent = [c for c in chosen if c not in counts]
    if absent:
        raise DataError(
            f"the epochs have no event {absent[0]!r}", where=f"they have {_some(counts.index)}"
        )
    epochs = epochs[np.flatnonzero(labels.isin(chosen))]
    labels = labels[labels.isin(chosen)].reset_index(drop=True)
    epochs.metadata = pd.DataFrame(
        {
            "category": labels,
            "stimulus": labels,
            "onset": (epochs.events[:, 0] - epochs.events[0, 0]) / epochs.info["sfreq"],
        }
    )
    epochs.pick(data_channels(epochs.info))
    log.did(f"{len(epochs)} epochs were taken as the file holds them.")
    facts = [{"name": c, "count": int(counts[c]), "used": c in chosen} for c in counts.index]
    return epochs, facts


def _bids_channels(raw: Any, path: Path, root: Path) -> None:
    """Types and bad channels from ``*_channels.tsv``."""
    tables = inherited(root, path, "channels", ".tsv") if path.name.startswith("sub-") else []
    if not tables:
        return
    table = read_table(tables[-1], na_values=["n/a"])
    if not {"name", "type"} <= set(table.columns):
        return
    table = table[table["name"].isin(raw.ch_names)]
    told = {"EEG": "eeg", "EOG": "eog", "VEOG": "eog", "HEOG": "eog", "ECG": "ecg", "EMG": "emg"}
    told |= {"TRIG": "stim", "MISC": "misc", "SEEG": "seeg", "ECOG": "ecog", "DBS": "dbs"}
    now = dict(zip(raw.ch_names, raw.get_channel_types(), strict=True))
    types = {
        str(name): told[kind]
        for name, kind in zip(table["name"], table["type"].astype(str).str.upper(), strict=True)
        if kind in told and now[name] not in ("mag", "grad", told[kind])
    }
    raw.set_channel_types(types, on_unit_change="ignore")
    if "status" in table:
        raw.info["bads"] = sorted({*raw.info["bads"], *table["name"][table["status"] == "bad"]})


def join_runs(recordings: Sequence[Recording]) -> Recording:
    """Put the runs of one subject together, over the units that all of them have."""
    if len(recordings) == 1:
        return recordings[0]
    common = [
        u for u in recordings[0].coord("unit") if all(u in r.coord("unit") for r in recordings)
    ]
    if not common:
        raise DataError(
            "the runs of a subject have no channel in common",
            where=", ".join(str(r.attrs["source"]) for r in recordings[:4]),
        )
    first = recordings[0]
    for other in recordings[1:]:
        if not np.array_equal(other.array["time"].values, first.array["time"].values):
            raise DataError(
                "the runs of a subject differ in sampling rate or epoch length",
                where=f"{first.attrs['source']} and {other.attrs['source']}",
                mend="resample all with resample=",
            )
    names = set(map(str, first.array.coords))
    for other in recordings[1:]:
        names &= set(map(str, other.array.coords))
    parts = [
        r.array.drop_vars([c for c in r.array.coords if c not in names or c == "repetition"]).sel(
            unit=common
        )
        for r in recordings
    ]
    array = xr.concat(parts, "presentation", coords="minimal", compat="override")
    table = pd.concat([r.stimuli.table for r in recordings])
    table = table[~table.index.duplicated()]
    events: dict[str, dict[str, Any]] = {}
    for fact in (f for r in recordings for f in r.attrs["events"]):
        known = events.setdefault(fact["name"], {**fact, "count": 0})
        known["count"] += fact["count"]
    array.attrs = {
        **first.attrs,
        "events": list(events.values()),
        "history": list(dict.fromkeys(h for r in recordings for h in r.attrs["history"])),
        "warnings": merge_notices([w for r in recordings for w in r.attrs["warnings"]]),
    }
    return Recording(array, StimulusSet(table, root=first.stimuli.root, attrs=first.stimuli.attrs))


def split_into_blocks(recording: Recording, blocks: int) -> Recording:
    """Give a recording of one run contiguous blocks for runs, so that blocks can be left out."""
    if blocks < 2 or len(set(recording.coord("run"))) > 1 or recording.n_presentations < 2 * blocks:
        return recording
    runs = contiguous_blocks(recording.n_presentations, blocks).astype(str)
    array = recording.array.assign_coords(run=("presentation", runs))
    sentence = (
        f"The one run was split into {blocks} contiguous blocks of presentations, which stand for "
        "runs in cross-validation."
    )
    array.attrs = {**recording.attrs, "history": [*recording.attrs["history"], sentence]}
    return Recording(array, recording.stimuli)


def _inspect(path: Path, **options: Any) -> dict[str, Any]:
    log = Log()
    runs, subjects = [], []
    facts: dict[str, Any] = {}
    for file in _chosen(path, options.get("subjects"), options.get("task")):
        with _listening(log):
            opened = open_recording_file(file)
            one = opened[0] if isinstance(opened, list) else opened
            kinds = pd.Series(one.get_channel_types()).value_counts().to_dict()
            runs.append({"file": file.name, "channels": kinds, "sfreq": float(one.info["sfreq"])})
            subjects.append(_subject(file, options.get("subject"), path))
            picks = data_channels(one.info)
            if picks:
                facts["modality"] = MODALITY[one.get_channel_types()[picks[0]]]
            if isinstance(opened, list):
                facts["events"] = [
                    {"name": e.comment, "count": int(e.nave), "used": True} for e in opened
                ]
            elif not hasattr(opened, "metadata"):
                runs[-1]["seconds"] = float(one.times[-1])
                events = events_of(opened, file, path if path.is_dir() else file.parent)
                _, facts["events"] = choose_events(
                    events, options.get("events"), options.get("stimulus_columns"), file, log
                )
    return {
        **facts,
        "subjects": list(dict.fromkeys(subjects)),
        "runs": runs,
        "sfreq": runs[0]["sfreq"],
        "warnings": merge_notices(log.notices),
    }


def _subject(file: Path, given: str | None, path: Path) -> str:
    if given is not None:
        return str(given)
    return entities(file).get("sub") or subject_of(file, alone=len(_files(path)) == 1)


def _chosen(path: Path, subjects: Sequence[str] | str | None, task: str | None) -> list[Path]:
    """Files of the subjects and task asked for."""
    files = _files(path)
    wanted = only(subjects.split(",") if isinstance(subjects, str) else subjects, "sub")
    if wanted is not None:
        there = {_subject(f, None, path) for f in files}
        if wanted - there:
            raise DataError(
                f"there is no subject {sorted(wanted - there)[0]!r}",
                where=f"{path} has {_some(sorted(there))}",
            )
        files = [f for f in files if _subject(f, None, path) in wanted]
    if task is not None:
        files = [f for f in files if entities(f).get("task") == task]
        if not files:
            raise DataError(f"there is no task {task!r}", where=str(path))
    return files


@reader(
    "eeg",
    description="EEG, MEG or intracranial data that MNE reads (EEGLAB, BrainVision, EDF, BDF, FIF "
    "...), or a BIDS folder of it",
    recognises=_recognises,
    inspect=_inspect,
)
def read_eeg(
    path: Path,
    *,
    events: Sequence[str] | str | None = None,
    stimulus_columns: Sequence[str] | None = None,
    stimuli: str | Path | None = None,
    subject: str | None = None,
    subjects: Sequence[str] | str | None = None,
    task: str | None = None,
    blocks: int = 5,
    tmin: float = -0.2,
    tmax: float = 0.8,
    baseline: tuple[float | None, float | None] | None = (None, 0.0),
    l_freq: float | None = 0.1,
    h_freq: float | None = 40.0,
    notch: float | None = None,
    reference: str | list[str] | None = "average",
    eog: str | None = "regress",
    reject: str | float | None = "auto",
    resample: float | None = None,
    seed: int = 0,
) -> Recording | Cohort:
    """Read M/EEG into epochs: presentation x channel x time.

    Parameters
    ----------
    path : Path
    events : list of str, optional
        Events to use; by default all that do not look like responses or bookkeeping.
    stimulus_columns : list of str, optional
        Event fields that tell stimuli apart (``position`` gives ``square/position-1``); by
        default all that sort the events into a few groups. An empty list uses none.
    stimuli : path, optional
        Stimulus table.
    subject : str, optional
        Where the file name does not tell.
    subjects, task : optional
        What to read of a folder.
    blocks : int
        A single run is split into this many contiguous blocks, which stand for runs; 1 for not.
    tmin, tmax, baseline, l_freq, h_freq, notch, reference, eog, reject, resample, seed
        See `engramma.data.epochs.EpochSettings`.
    """
    settings = EpochSettings(
        tmin, tmax, baseline, l_freq, h_freq, notch, reference, eog, reject, resample, seed
    )
    files = _chosen(path, subjects, task)
    root = path if path.is_dir() else path.parent
    table = Path(stimuli) if stimuli is not None else find_stimulus_table(root)
    known = read_stimuli(table) if table is not None else None
    by_subject: dict[str, list[Recording]] = {}
    for number, file in enumerate(files):
        name = _subject(file, subject, path)
        one = _recording(file, root, settings, events, stimulus_columns, known, name)
        of_subject = by_subject.setdefault(name, [])
        if of_subject and not {"run", "ses", "task"} & set(entities(file)):
            raise DataError(
                f"two files hold the subject {name!r}",
                where=f"{files[number - 1].name} and {file.name}",
                mend="tell runs apart in their names (run-1, run-2), or rename a subject",
            )
        of_subject.append(one)
    members = {
        name: split_into_blocks(join_runs(runs), blocks) for name, runs in by_subject.items()
    }
    if len(members) == 1:
        return next(iter(members.values()))
    return Cohort(members, attrs={"source": str(path)})
