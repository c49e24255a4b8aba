"""BIDS folders with fMRI, raw or preprocessed (fMRIPrep derivatives).

Sidecars and event tables follow the inheritance principle of BIDS: a file applies to all data
below its folder whose name holds all of its entities, and the nearest one prevails.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engramma.data.quality import merge_notices
from engramma.data.read import reader
from engramma.data.readers._tables import (
    BASELINE,
    count_events,
    find_stimulus_table,
    natural,
    read_table,
)
from engramma.data.readers.nifti import (
    EventSettings,
    RunFiles,
    find_mask,
    open_image,
    read_json,
    recording_from_runs,
    repetition_time,
)
from engramma.data.recording import Cohort, Recording
from engramma.data.responses import ResponseSettings
from engramma.errors import ConfigError, DataError
from engramma.progress import track

ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]+)")
#: Folders below a dataset that are datasets of their own.
APART = ("derivatives", "sourcedata", "code", "stimuli")
MOTION = tuple(f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz")
#: Named sets of fMRIPrep confounds.
CONFOUNDS: dict[str, tuple[str, ...]] = {
    "motion": MOTION,
    "motion24": tuple(
        m + ending
        for m in MOTION
        for ending in ("", "_derivative1", "_power2", "_derivative1_power2")
    ),
    "acompcor": (*MOTION, *(f"a_comp_cor_{i:02d}" for i in range(6))),
}


def entities(path: Path) -> dict[str, str]:
    """Entities of a BIDS file name: ``sub-01_run-2_bold.nii.gz`` gives sub and run."""
    return dict(ENTITY.findall(path.name.split(".")[0]))


def walk(root: Path, pattern: str) -> list[Path]:
    """Files of one BIDS dataset that match a pattern, leaving out datasets inside it."""
    found = []
    for path in root.rglob(pattern):
        parts = path.relative_to(root).parts[:-1]
        if not any(p in APART or p.startswith(".") for p in parts):
            found.append(path)
    return sorted(found, key=lambda p: natural(p.relative_to(root)))


def inherited(root: Path, path: Path, suffix: str, ending: str) -> list[Path]:
    """Files that apply to ``path``, from the root to its own folder.

    Parameters
    ----------
    suffix, ending : str
        ``"events"``, ``".tsv"`` finds ``..._events.tsv``.
    """
    own = entities(path)
    folders = [f for f in (path.parent, *path.parent.parents) if f == root or root in f.parents]
    applying = []
    for folder in reversed(folders):
        here = [
            f
            for f in folder.glob(f"*{suffix}{ending}")
            if f.name == suffix + ending or f.name.endswith(f"_{suffix}{ending}")
        ]
        fits = [f for f in here if entities(f).items() <= own.items()]
        applying += sorted(fits, key=lambda f: len(entities(f)))
    return applying


def sidecar(root: Path, path: Path, suffix: str = "bold") -> dict[str, Any]:
    """Metadata of a data file, merged from all sidecars that apply to it."""
    merged: dict[str, Any] = {}
    for file in inherited(root, path, suffix, ".json"):
        merged.update(read_json(file))
    return merged


def only(items: Sequence[str] | str | None, prefix: str) -> set[str] | None:
    """Normalise a choice of subjects or sessions: ``"sub-01"``, ``"01"`` or a list of them."""
    if items is None:
        return None
    listed = [items] if isinstance(items, str) else list(items)
    return {str(i).removeprefix(f"{prefix}-") for i in listed}


def _recognises(path: Path) -> bool:
    return is_bids(path) and bool(_bold_files(path))


def is_bids(path: Path) -> bool:
    """Whether a folder holds ``sub-*``: a quick look, before all of it is walked through."""
    return path.is_dir() and next(path.glob("sub-*"), None) is not None


def _bold_files(root: Path) -> list[Path]:
    return [p for p in walk(root, "*_bold.nii*") if p.name.startswith("sub-")]


def _choose(
    root: Path,
    subjects: set[str] | None,
    sessions: set[str] | None,
    task: str | None,
    space: str | None,
) -> list[Path]:
    """Bold files asked for, at most one a run."""
    files = _bold_files(root)
    preprocessed = [f for f in files if entities(f).get("desc") == "preproc"]
    files = preprocessed or files
    for key, wanted in (
        ("sub", subjects),
        ("ses", sessions),
        ("task", {task} if task else None),
        ("space", {space} if space else None),
    ):
        if wanted is None:
            continue
        there = {entities(f).get(key, "") for f in files}
        missing = wanted - there
        if missing:
            raise DataError(
                f"the dataset has no {key}-{sorted(missing)[0]}",
                where=f"{root} has {', '.join(sorted(there, key=natural)) or 'none'}",
                mend=f"choose among these {key} values",
            )
        files = [f for f in files if entities(f).get(key, "") in wanted]
    tasks = sorted({entities(f).get("task", "") for f in files})
    if len(tasks) > 1:
        raise DataError(
            f"the dataset has {len(tasks)} tasks",
            where=", ".join(tasks),
            mend="choose one with task=",
        )
    seen: dict[tuple[str, ...], Path] = {}
    for file in files:
        of = entities(file)
        run = tuple(of.get(e, "") for e in ("sub", "ses", "task", "acq", "dir", "run"))
        if run in seen:
            raise DataError(
                "there are two images of one run",
                where=f"{seen[run].name} and {file.name}",
                mend="choose with space=, or keep one (magnitude, combined echo) of them",
            )
        seen[run] = file
    return files


def _events_of(root: Path, bold: Path, given: Path | None) -> tuple[Path, Path]:
    """Event table of a run, and the dataset it is in: this one, or the raw one it derives from."""
    if given is not None:
        roots = [given]
    else:
        above = [p for p in root.parents if (p / "dataset_description.json").is_file()]
        roots = [root, *above[:1]]
    for place in roots:
        relative = place / bold.relative_to(root)
        found = inherited(place, relative, "events", ".tsv")
        if found:
            return found[-1], place
    raise DataError(
        "there is no event table for the run",
        where=str(bold),
        mend="add *_events.tsv (onset, duration, trial_type), or give events= with the raw dataset",
    )


def _beside(bold: Path, desc: str) -> Path | None:
    """Find the brain mask of a preprocessed run."""
    name = re.sub(r"desc-[a-zA-Z0-9]+_bold\.nii(\.gz)?$", desc, bold.name)
    path = bold.with_name(name)
    return path if name != bold.name and path.is_file() else None


def _confounds(bold: Path, wanted: str | Sequence[str] | None) -> np.ndarray | None:
    """Confound time series of a preprocessed run; the first value of a derivative is 0."""
    if wanted is None:
        return None
    if isinstance(wanted, str) and wanted not in CONFOUNDS and "," in wanted:
        wanted = [w.strip() for w in wanted.split(",")]
    names = list(CONFOUNDS.get(wanted, (wanted,)) if isinstance(wanted, str) else wanted)
    of = entities(bold)
    for file in sorted(bold.parent.glob("*_desc-confounds_timeseries.tsv")):
        own = {k: v for k, v in entities(file).items() if k != "desc"}
        if own.items() <= of.items():
            table = read_table(file, na_values=["n/a"])
            missing = [n for n in names if n not in table]
            if missing:
                raise ConfigError(
                    f"there is no confound {missing[0]!r}",
                    where=str(file),
                    mend=f"use {', '.join(CONFOUNDS)}, or columns of the file",
                )
            return table[names].fillna(0.0).to_numpy(dtype=float)
    raise DataError(
        "there is no confound table for the run",
        where=str(bold),
        mend="give the fMRIPrep folder with *_desc-confounds_timeseries.tsv, or no confounds=",
    )


def _runs(
    root: Path, files: Sequence[Path], confounds: str | Sequence[str] | None, events: Path | None
) -> dict[str, list[RunFiles]]:
    """Files of each run, by subject."""
    by_subject: dict[str, list[RunFiles]] = {}
    for bold in files:
        of = entities(bold)
        runs = by_subject.setdefault(of["sub"], [])
        table, place = _events_of(root, bold, events)
        explained = sidecar(place, place / bold.relative_to(root), "events")
        tags = [of[e] for e in ("acq", "dir", "run") if e in of]
        runs.append(
            RunFiles(
                bold=bold,
                events=table,
                run="-".join(t.lstrip("0") or "0" for t in tags) or str(len(runs) + 1),
                session=of.get("ses", "1"),
                subject=of["sub"],
                tr=sidecar(root, bold).get("RepetitionTime"),
                mask=_beside(bold, "desc-brain_mask.nii.gz"),
                confounds=_confounds(bold, confounds),
                explained=tuple(explained),
            )
        )
    return by_subject


def _stimulus_column(runs: Sequence[RunFiles], given: str | None, estimate: str) -> str | None:
    """Use ``stim_file`` for single events where every table has it; blocks are conditions."""
    if given is not None or estimate == "blocks":
        return given
    tables = [read_table(r.events, na_values=["n/a"]) for r in runs]
    filled = all("stim_file" in t and t["stim_file"].notna().any() for t in tables)
    return "stim_file" if filled else None


def _inspect(path: Path, **options: Any) -> dict[str, Any]:
    files = _choose(
        path,
        only(options.get("subjects"), "sub"),
        only(options.get("sessions"), "ses"),
        options.get("task"),
        options.get("space"),
    )
    given = options.get("events")
    by_subject = _runs(path, files, None, Path(given) if given else None)
    every = [r for runs in by_subject.values() for r in runs]
    settings = EventSettings(
        options.get("condition_column", "trial_type"), options.get("stimulus_column")
    )
    tables, warnings, runs, trs = [], [], [], set()
    for run in every:
        image = open_image(run.bold)
        tr, found = repetition_time(image, run.bold, run.tr, options.get("tr"))
        table, more = settings.read(run)
        tables.append(table)
        trs.add(tr)
        warnings += [*found, *more]
        name = str(run.bold.relative_to(path))
        runs.append(
            {
                "subject": run.subject,
                "session": run.session,
                "run": run.run,
                "file": name,
                "shape": list(image.shape),
                "tr": tr,
            }
        )
    mask = find_mask(path, options.get("mask"))
    return {
        "modality": "fmri",
        "preprocessed": entities(files[0]).get("desc") == "preproc",
        "subjects": list(by_subject),
        "sessions": sorted({r.session for r in every}, key=natural),
        "runs": runs,
        "tr": sorted(trs)[0],
        "mask": None if mask is None else str(mask),
        "events": count_events(pd.concat(tables)),
        "warnings": merge_notices(warnings),
    }


@reader(
    "bids",
    description="a BIDS folder with fMRI (*_bold.nii.gz and *_events.tsv), raw or from fMRIPrep",
    recognises=_recognises,
    inspect=_inspect,
)
def read_bids(
    path: Path,
    *,
    estimate: str = "blocks",
    tr: float | None = None,
    mask: str | Path | None = None,
    subjects: Sequence[str] | str | None = None,
    sessions: Sequence[str] | str | None = None,
    task: str | None = None,
    space: str | None = None,
    events: str | Path | None = None,
    confounds: str | Sequence[str] | None = None,
    detrend: bool = True,
    high_pass: float | str | None = "auto",
    filter: str = "cosine",
    zscore: bool = True,
    hrf: str = "glover",
    delay: float = 5.0,
    statistic: str = "beta",
    noise_model: str = "ar1",
    condition_column: str = "trial_type",
    stimulus_column: str | None = None,
    exclude: Sequence[str] = BASELINE,
    jobs: int = 1,
) -> Recording | Cohort:
    """Read the fMRI of a BIDS folder: one subject gives a recording, several a cohort.

    Parameters
    ----------
    path : Path
    estimate, detrend, high_pass, filter, zscore, hrf, delay, statistic, noise_model
        See `engramma.data.responses.ResponseSettings`.
    tr : float, optional
        Seconds; goes before sidecar and header.
    mask : path, optional
        Else ``mask.nii[.gz]`` at the root, the brain masks of fMRIPrep (their intersection), or
        one computed from the mean image.
    subjects, sessions, task, space : optional
        What to read; ``subjects="01,02"`` and a list are the same.
    events : path, optional
        Raw dataset with the event tables, where a derivative is read that does not lie inside it.
    confounds : {"motion", "motion24", "acompcor"} or list of columns, optional
        fMRIPrep confounds to regress out.
    condition_column : str
        Column of the event tables.
    stimulus_column : str, optional
        Column with the stimulus shown. Without it the condition is the stimulus, except that
        ``estimate="lss"`` and ``"glm"`` use ``stim_file`` where every event table has it.
    exclude : list of str
        Conditions that are baseline.
    jobs : int
        Runs estimated at the same time.
    """
    settings = ResponseSettings(
        estimate, detrend, high_pass, filter, zscore, hrf, delay, statistic, noise_model
    )
    if isinstance(subjects, str):
        subjects = [s.strip() for s in subjects.split(",")]
    files = _choose(path, only(subjects, "sub"), only(sessions, "ses"), task, space)
    by_subject = _runs(path, files, confounds, None if events is None else Path(events))
    every = [r for runs in by_subject.values() for r in runs]
    column = _stimulus_column(every, stimulus_column, estimate)
    kind = "preprocessed (fMRIPrep) " if entities(files[0]).get("desc") == "preproc" else ""
    members = {}
    for subject, runs in track(list(by_subject.items()), "reading subjects"):
        members[subject] = recording_from_runs(
            runs,
            settings=settings,
            event_settings=EventSettings(condition_column, column, tuple(exclude)),
            mask=find_mask(path, mask),
            tr=tr,
            stimulus_table=find_stimulus_table(path),
            stimulus_folder=path / "stimuli",
            source=str(path),
            history=[f"Subject {subject} was read from a {kind}BIDS dataset ({path.name})."],
            citations=["bids", *(["fmriprep"] if kind else [])],
            jobs=jobs,
        )
    if len(members) == 1:
        return next(iter(members.values()))
    return Cohort(members, attrs={"source": str(path), "modality": "fmri"})
