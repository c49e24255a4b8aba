"""NIfTI images with events: one file a run.

A four-dimensional image needs an event table: ``events=``, or ``NAME_events.tsv`` (``.csv``)
beside it, or ``events.tsv`` in its folder. A folder of images is one subject with one run a file.
The mask is ``mask=``, or ``mask.nii[.gz]`` in the folder, or computed from the mean image.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engramma.data.quality import Notice, jumps, merge_notices, notice
from engramma.data.read import check_readable, decoding, reader
from engramma.data.readers._tables import (
    BASELINE,
    count_events,
    find_stimulus_table,
    natural,
    read_events,
    stimuli_of_events,
)
from engramma.data.recording import Recording
from engramma.data.responses import ResponseSettings, estimate_responses, suggest_high_pass
from engramma.errors import ConfigError, DataError
from engramma.progress import track

SUFFIXES = (".nii", ".nii.gz")
#: Repetition times that a scanner can have, in seconds.
SHORTEST_TR, LONGEST_TR = 0.05, 20.0


@dataclass(frozen=True)
class RunFiles:
    """The files of one run.

    Parameters
    ----------
    bold : Path
    events : Path
    tr : float, optional
        From a sidecar, in seconds as written there.
    confounds : ndarray, shape (n_volumes, n_confounds), optional
    """

    bold: Path
    events: Path
    run: str = "1"
    session: str = "1"
    subject: str = "1"
    tr: float | None = None
    mask: Path | None = None
    confounds: np.ndarray | None = None
    explained: tuple[str, ...] = ()


@dataclass(frozen=True)
class EventSettings:
    """Which columns of the event tables say what was presented."""

    condition_column: str = "trial_type"
    stimulus_column: str | None = None
    exclude: tuple[str, ...] = BASELINE

    def read(self, run: RunFiles) -> tuple[pd.DataFrame, list[Notice]]:
        """Read the events of one run."""
        return read_events(
            run.events,
            condition_column=self.condition_column,
            stimulus_column=self.stimulus_column,
            exclude=self.exclude,
            explained=run.explained,
        )


@dataclass(frozen=True)
class _Estimated:
    patterns: np.ndarray
    presentations: pd.DataFrame
    mean: np.ndarray
    tr: float
    n_volumes: int
    notices: list[Notice] = field(default_factory=list)


def is_nifti(path: Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return path.name.lower().endswith(SUFFIXES)


def stem(path: Path) -> str:
    """Name of a file without ``.nii`` or ``.nii.gz``."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _images(path: Path) -> list[Path]:
    """Return the runs among the files of a folder: everything but masks."""
    files = [path] if path.is_file() else sorted(path.iterdir(), key=lambda p: natural(p.name))
    return [f for f in files if is_nifti(f) and not re.search(r"mask|T1w|anat", f.name)]


def _recognises(path: Path) -> bool:
    if path.is_file():
        return is_nifti(path)
    named_bids = any(f.name.startswith("sub-") for f in path.iterdir())
    return not named_bids and bool(_images(path))


def open_image(path: Path) -> Any:
    """Open a NIfTI image without loading its data.

    Raises
    ------
    DataError
        If it is damaged.
    """
    import nibabel

    check_readable(path)
    errors = (OSError, EOFError, ValueError, zlib.error, nibabel.filebasedimages.ImageFileError)
    with decoding(path, "NIfTI image", *errors):
        return nibabel.load(path)


def load_array(image: Any, path: Path) -> np.ndarray:
    """Load the data of an image as float32; a file cut short is a `DataError`."""
    with decoding(path, "NIfTI image", OSError, EOFError, ValueError, zlib.error):
        return np.asarray(image.dataobj, dtype=np.float32)


def repetition_time(
    image: Any, path: Path, sidecar: float | None = None, given: float | None = None
) -> tuple[float, list[Notice]]:
    """Return the repetition time in seconds, and warnings about it.

    What the user gives goes before the sidecar, and the sidecar before the header. Milliseconds
    are converted, with a warning.

    Raises
    ------
    DataError
        If nothing states a repetition time, or one that no scanner has.
    """
    if given is not None:
        if not SHORTEST_TR <= given <= LONGEST_TR:
            raise ConfigError(f"tr={given} s is no repetition time", mend="give it in seconds")
        return float(given), []
    unit = image.header.get_xyzt_units()[1]
    header = float(image.header.get_zooms()[3])
    header *= {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)
    unset = header == 0 or (unit == "unknown" and header == 1.0)  # 1 is the default of the format
    if sidecar is not None:
        if isinstance(sidecar, bool) or not isinstance(sidecar, int | float):
            raise DataError(
                f"the sidecar states a RepetitionTime of {sidecar!r}, which is no number",
                where=str(path),
                mend="correct it, or give tr= in seconds",
            )
        tr, found = _in_seconds(float(sidecar), "the sidecar", path)
        plausible = SHORTEST_TR <= header <= LONGEST_TR and not unset
        if plausible and abs(header - tr) > 0.01 * tr:
            found.append(
                notice(
                    "tr-mismatch",
                    f"The sidecar states a TR of {tr:g} s and the header {header:g} s; the "
                    "sidecar was believed.",
                )
            )
        return tr, found
    if unset or not np.isfinite(header) or header < 0:
        raise DataError(
            "the repetition time (TR) is missing",
            where=f"header of {path.name}: {header:g}, unit {unit}; no sidecar states it",
            mend="give it in seconds with tr= (--tr on the command line)",
        )
    return _in_seconds(header, "the header", path)


def _in_seconds(value: float, origin: str, path: Path) -> tuple[float, list[Notice]]:
    if SHORTEST_TR <= value <= LONGEST_TR:
        return value, []
    if SHORTEST_TR <= value / 1000 <= LONGEST_TR and value >= 200:
        text = f"A TR of {value:g} in {origin} was taken to be milliseconds."
        return value / 1000, [notice("tr-in-milliseconds", text)]
    raise DataError(
        f"{origin} states a repetition time of {value:g} s, which no scanner has",
        where=str(path),
        mend="give the right one in seconds with tr=",
    )


def load_mask(
    path: Path, shape: tuple[int, ...], affine: np.ndarray
) -> tuple[np.ndarray, list[Notice]]:
    """Load a mask and check it against the images it is for.

    Raises
    ------
    DataError
        If its shape is another, or it is empty.
    """
    image = open_image(path)
    values = load_array(image, path)
    values = values[..., 0] if values.ndim == 4 and values.shape[-1] == 1 else values
    if values.shape != shape:
        raise DataError(
            f"the mask has shape {values.shape} and the images have shape {shape}",
            where=str(path),
            mend="resample the mask to the images (nilearn.image.resample_to_img)",
        )
    mask = np.nan_to_num(values) > 0
    if not mask.any():
        raise DataError("the mask is empty", where=str(path))
    if np.allclose(image.affine, affine, atol=1e-2):
        return mask, []
    text = "The mask has the shape of the images but another affine; it was used voxel by voxel."
    return mask, [notice("mask-affine", text)]


def compute_mask(image: Any, mean: np.ndarray, where: str) -> np.ndarray:
    """Compute a brain mask from a mean image with ``nilearn.masking.compute_epi_mask``."""
    import nibabel
    from nilearn.masking import compute_epi_mask

    # Opening erodes by two voxels in every direction, which removes thin slabs altogether.
    opening = 2 if min(mean.shape) > 8 else 0
    try:
        mask = compute_epi_mask(
            nibabel.Nifti1Image(mean, image.affine), opening=opening, ensure_finite=True
        )
    except ValueError as error:
        raise DataError(
            f"no brain mask can be computed ({error})", where=where, mend="give one with mask="
        ) from error
    inside = np.asarray(mask.dataobj) > 0
    if not inside.any():
        raise DataError("the computed brain mask is empty", where=where, mend="give one with mask=")
    return inside


def recording_from_runs(
    runs: Sequence[RunFiles],
    *,
    settings: ResponseSettings,
    event_settings: EventSettings,
    mask: Path | None = None,
    tr: float | None = None,
    stimulus_table: Path | None = None,
    stimulus_folder: Path | None = None,
    source: str = "",
    history: Sequence[str] = (),
    citations: Sequence[str] = (),
    jobs: int = 1,
) -> Recording:
    """Estimate the responses of one subject, a run at a time, and put them together.

    Only the patterns of a run are kept, so memory holds ``jobs`` runs at once.

    Raises
    ------
    DataError
        If a file is damaged, or runs do not fit together.
    """
    first = open_image(runs[0].bold)
    shape = _shape(first, runs[0].bold)
    events, notices = [], []
    for run in runs:
        image = open_image(run.bold)
        if _shape(image, run.bold)[:3] != shape[:3] or not np.allclose(
            image.affine, first.affine, atol=1e-2
        ):
            raise DataError(
                f"runs of one subject differ in shape or position: {shape[:3]} and "
                f"{image.shape[:3]}",
                where=f"{runs[0].bold.name} and {run.bold.name}",
                mend="realign and resample the runs to one space",
            )
        table, found = event_settings.read(run)
        events.append(table)
        notices += found
    inside, how, found = _mask(runs, mask, first)
    notices += found
    settings, chosen = _resolve(settings, runs, events, tr)
    arguments = [(r, e, inside, settings, tr) for r, e in zip(runs, events, strict=True)]
    estimated = _estimate_all(arguments, jobs)
    for one in estimated:
        notices += one.notices
    trs = sorted({round(e.tr, 6) for e in estimated})
    if len(trs) > 1:
        notices.append(notice("several-trs", f"Runs differ in TR: {trs} s."))
    stimuli, found = stimuli_of_events(events, stimulus_table, stimulus_folder)
    notices += found
    every = pd.concat(events)
    merged = any(n["name"] == "merged-blocks" for n in notices)
    short = float(every["duration"].median()) < 2 * trs[0]
    if settings.estimate == "blocks" and short and not merged:
        notices.append(
            notice(
                "short-events",
                f"Events last {every['duration'].median():g} s, which is short for patterns "
                "averaged over blocks: estimate='lss' or 'glm' models overlapping responses.",
            )
        )
    presentations = pd.concat([e.presentations for e in estimated], ignore_index=True)
    repeated = [len(e.presentations) for e in estimated]
    lengths = sorted({e.n_volumes for e in estimated})
    volumes = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
    means = np.mean([e.mean for e in estimated], axis=0).astype(np.float32)
    reading = (
        f"{len(runs)} run{'s' * (len(runs) > 1)} of {volumes} volumes (TR "
        f"{', '.join(f'{t:g}' for t in trs)} s) were read with nibabel {version('nibabel')}, in "
        f"{int(inside.sum())} voxels {how}."
    )
    confounds = [c for c in (r.confounds for r in runs) if c is not None]
    regressed = (
        [f"{confounds[0].shape[1]} confound time series were regressed out."] if confounds else []
    )
    index = np.argwhere(inside)
    world = index @ first.affine[:3, :3].T + first.affine[:3, 3]
    return Recording.from_arrays(
        np.concatenate([e.patterns for e in estimated]),
        presentations["stimulus"].to_numpy(),
        subject=runs[0].subject,
        session=np.repeat([r.session for r in runs], repeated),
        run=np.repeat([r.run for r in runs], repeated),
        unit=[f"v{i}-{j}-{k}" for i, j, k in index],
        unit_coords={
            **dict(zip("ijk", index.T, strict=True)),
            **dict(zip("xyz", world.T.astype(np.float32), strict=True)),
            "mean_signal": means,
        },
        presentation_coords=_extra(presentations),
        stimuli=stimuli,
        modality="fmri",
        source=source or str(runs[0].bold),
        tr=trs[0],
        estimate=settings.estimate,
        affine=first.affine.tolist(),
        volume_shape=list(shape[:3]),
        position_unit="mm",
        events=count_events(every),
        history=[*history, reading, *regressed, *chosen, *settings.history()],
        warnings=merge_notices(notices),
        citations=_unique(
            [
                *citations,
                "nibabel",
                "nilearn",
                *(["mumford2012"] if settings.estimate == "lss" else []),
            ]
        ),
    )


def _resolve(
    settings: ResponseSettings,
    runs: Sequence[RunFiles],
    events: Sequence[pd.DataFrame],
    tr: float | None,
) -> tuple[ResponseSettings, list[str]]:
    """Choose the high-pass cut-off where it is "auto", and say why."""
    if settings.high_pass != "auto":
        return settings, []
    images = [open_image(r.bold) for r in runs]
    seconds, _ = repetition_time(images[0], runs[0].bold, runs[0].tr, tr)
    cut_off, why = suggest_high_pass(events, [i.shape[3] for i in images], seconds)
    return replace(settings, high_pass=cut_off), [why] if why else []


def _estimate_all(arguments: list[tuple[Any, ...]], jobs: int) -> list[_Estimated]:
    if jobs == 1 or len(arguments) == 1:
        return [_estimate(*a) for a in track(arguments, "estimating responses")]
    from joblib import Parallel, delayed

    return list(Parallel(n_jobs=jobs, prefer="threads")(delayed(_estimate)(*a) for a in arguments))


def _estimate(
    run: RunFiles,
    events: pd.DataFrame,
    inside: np.ndarray,
    settings: ResponseSettings,
    given_tr: float | None,
) -> _Estimated:
    """Load one run and estimate its response patterns."""
    image = open_image(run.bold)
    tr, notices = repetition_time(image, run.bold, run.tr, given_tr)
    series = np.ascontiguousarray(load_array(image, run.bold)[inside].T)
    usable = np.isfinite(series).all(axis=0)
    if not usable.any():
        raise DataError("every voxel of the mask holds NaN or infinity", where=str(run.bold))
    flat = usable & (series.max(axis=0) == series.min(axis=0))
    moved = jumps(series[:, usable])
    if len(moved):
        notices.append(
            notice(
                "signal-jumps",
                f"The signal jumps as it does with head movement at {len(moved)} of {len(series)} "
                f"volumes of {stem(run.bold)} (DVARS).",
            )
        )
    if run.confounds is not None and len(run.confounds) != len(series):
        raise DataError(
            f"{len(run.confounds)} rows of confounds for {len(series)} volumes",
            where=str(run.bold),
        )
    series[:, ~usable] = 0
    patterns, presentations, found = estimate_responses(
        series, events, tr, settings, run.confounds, stem(run.bold)
    )
    # A voxel that is damaged or silent in one run is so in the recording, and is dropped there.
    patterns[:, ~usable | flat] = np.nan
    mean = np.where(usable, series.mean(axis=0), 0)
    return _Estimated(patterns, presentations, mean, tr, len(series), notices + found)


def _mask(
    runs: Sequence[RunFiles], given: Path | None, image: Any
) -> tuple[np.ndarray, str, list[Notice]]:
    """Find the voxels to read, and say where the mask came from."""
    shape = tuple(image.shape[:3])
    if given is not None:
        inside, found = load_mask(given, shape, image.affine)
        return inside, f"of the mask {given.name}", found
    own = sorted({r.mask for r in runs if r.mask is not None})
    if own:
        masks, notices = [], []
        for path in own:
            inside, found = load_mask(path, shape, image.affine)
            masks.append(inside)
            notices += found
        inside = np.logical_and.reduce(masks)
        if not inside.any():
            raise DataError("the brain masks of the runs have no voxel in common")
        return (
            inside,
            f"inside {'all ' * (len(own) > 1)}the brain mask{'s' * (len(own) > 1)}",
            notices,
        )
    mean = load_array(image, runs[0].bold).mean(axis=-1)
    inside = compute_mask(image, mean, runs[0].bold.name)
    return inside, "of a brain mask computed with nilearn from the mean of the first run", []


def _shape(image: Any, path: Path) -> tuple[int, ...]:
    if len(image.shape) != 4 or image.shape[3] < 2:
        raise DataError(
            f"a run has four dimensions, not the shape {tuple(image.shape)}",
            where=str(path),
            mend="give the 4-D time series, not an anatomical image or a mask",
        )
    return tuple(image.shape)


def _extra(presentations: pd.DataFrame) -> dict[str, np.ndarray]:
    """Further event columns, as presentation coordinates."""
    taken = ("stimulus", "category", "subject", "session", "run", "repetition", "unit", "time")
    extra = {}
    for name in presentations.columns:
        if name in taken:
            continue
        values = presentations[name]
        numeric = pd.api.types.is_numeric_dtype(values)
        label = name if name in ("onset", "duration") else f"event_{name}"
        extra[label] = values.to_numpy() if numeric else values.fillna("n/a").astype(str).to_numpy()
    return extra


def _unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _events_beside(image: Path, given: Path | None) -> Path:
    if given is not None:
        return given
    name = stem(image)
    bare = re.sub(r"_(bold|desc-.*)$", "", name)
    endings = (".tsv", ".csv")
    candidates = [f"{n}_events{e}" for n in (bare, name) for e in endings]
    candidates += [f"{n}{e}" for n in (name,) for e in endings]
    candidates += [f"events{e}" for e in endings]
    found = next((image.parent / c for c in candidates if (image.parent / c).is_file()), None)
    if found is None:
        raise DataError(
            "there is no event table for the image",
            where=str(image),
            mend=f"put {candidates[0]} beside it (onset, duration, trial_type), or give events=",
        )
    return found


def _sidecar_tr(image: Path) -> float | None:
    path = image.parent / f"{stem(image)}.json"
    if not path.is_file():
        return None
    return read_json(path).get("RepetitionTime")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON sidecar, which must hold an object."""
    with decoding(path, "JSON sidecar", ValueError):
        content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise DataError("the sidecar holds no JSON object", where=str(path))
    return content


def _inspect(path: Path, **options: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"modality": "fmri", "subjects": [options.get("subject", "1")]}
    facts["runs"], warnings = [], []
    for image_path in _images(path):
        image = open_image(image_path)
        facts["runs"].append({"file": image_path.name, "shape": list(image.shape)})
        tr, found = repetition_time(image, image_path, _sidecar_tr(image_path), options.get("tr"))
        facts["tr"] = tr
        warnings += found
        given = options.get("events")
        run = RunFiles(image_path, _events_beside(image_path, Path(given) if given else None))
        column = options.get("condition_column", "trial_type")
        events, found = EventSettings(column, options.get("stimulus_column")).read(run)
        facts["events"] = count_events(events)
        warnings += found
    return {**facts, "warnings": merge_notices(warnings)}


@reader(
    "nifti",
    description="a 4-D NIfTI image, or a folder of them, with event tables",
    recognises=_recognises,
    generic=True,
    inspect=_inspect,
)
def read_nifti(
    path: Path,
    *,
    events: str | Path | None = None,
    mask: str | Path | None = None,
    tr: float | None = None,
    subject: str = "1",
    estimate: str = "blocks",
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
) -> Recording:
    """Read 4-D NIfTI images with their events; see `ResponseSettings` for the options."""
    images = _images(path)
    if events is not None and len(images) > 1:
        raise ConfigError(
            f"events= names one table, but there are {len(images)} images",
            mend="put one event table beside each image",
        )
    given = None if events is None else Path(events)
    runs = [
        RunFiles(
            image,
            _events_beside(image, given),
            run=str(number),
            subject=str(subject),
            tr=_sidecar_tr(image),
        )
        for number, image in enumerate(images, start=1)
    ]
    folder = path if path.is_dir() else path.parent
    return recording_from_runs(
        runs,
        settings=ResponseSettings(
            estimate, detrend, high_pass, filter, zscore, hrf, delay, statistic, noise_model
        ),
        event_settings=EventSettings(condition_column, stimulus_column, tuple(exclude)),
        mask=find_mask(folder, mask),
        tr=tr,
        stimulus_table=find_stimulus_table(folder),
        source=str(path),
        jobs=jobs,
    )


def find_mask(folder: Path, given: str | Path | None) -> Path | None:
    """Return the mask given, or ``mask.nii[.gz]`` of the folder."""
    if given is not None:
        check_readable(Path(given))
        return Path(given)
    return next((folder / f"mask{s}" for s in SUFFIXES if (folder / f"mask{s}").is_file()), None)
