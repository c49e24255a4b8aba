"""Recordings on disk: zarr, chunked over units, written whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from engramma.data.recording import Cohort, Recording
from engramma.data.stimuli import StimulusSet
from engramma.errors import DataError

UNITS_PER_CHUNK = 4096


@contextmanager
def atomic_directory(path: str | Path, replaces: Collection[str] = ()) -> Iterator[Path]:
    """Give a folder to fill, which takes the place of ``path`` only when all went well.

    Parameters
    ----------
    path : path
    replaces : collection of str
        File names, one of which marks an existing folder as an earlier result of the same kind.
        A folder that holds anything else is never replaced.

    Raises
    ------
    DataError
        If the folder above cannot be written to, or ``path`` holds something else.
    """
    path = Path(path)
    occupied = path.is_file() or (path.is_dir() and any(path.iterdir()))
    if occupied and not any((path / name).exists() for name in replaces):
        raise DataError(
            "there is something else here already, and it stays",
            where=str(path),
            mend="choose a new or empty folder",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise DataError(
            f"cannot write here ({error.strerror})",
            where=str(path),
            mend="choose a folder that you may write to",
        ) from error
    try:
        work.chmod(0o755)
        yield work
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            path.rename(old / path.name)
            work.rename(path)
            shutil.rmtree(old)
        else:
            work.rename(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def save_recording(recording: Recording | Cohort, path: str | Path) -> None:
    """Write a recording or cohort as zarr; what stood at ``path`` stays intact on failure."""
    with atomic_directory(path, replaces=("stimuli.json", "cohort.json")) as work:
        if isinstance(recording, Cohort):
            (work / "cohort.json").write_text(
                json.dumps({"subjects": list(recording), "attrs": _plain(recording.attrs)})
            )
            for number, member in enumerate(recording.values()):
                _write(member, work / f"{number:04d}.zarr")
        else:
            _write(recording, work)


def open_recording(path: str | Path) -> Recording | Cohort:
    """Open a recording or cohort; responses stay on disk until they are used.

    Raises
    ------
    DataError
        If there is no recording at ``path``.
    """
    path = Path(path)
    if (path / "cohort.json").exists():
        listing = json.loads((path / "cohort.json").read_text())
        members = {s: _open(path / f"{n:04d}.zarr") for n, s in enumerate(listing["subjects"])}
        return Cohort(members, attrs=listing["attrs"])
    return _open(path)


def _write(recording: Recording, path: Path) -> None:
    path.mkdir(exist_ok=True)
    array = recording.array.copy(deep=False)
    # Fixed-width text is what zarr 3 stores without a warning; object arrays are not.
    for name, coord in array.coords.items():
        if coord.dtype == object:
            array = array.assign_coords({name: coord.astype(str)})
    array.attrs = {"json": json.dumps(_plain(recording.attrs))}
    chunks = tuple(
        min(UNITS_PER_CHUNK, size) if dim == "unit" else size for dim, size in array.sizes.items()
    )
    if array.chunks is not None:
        array = array.chunk(dict(zip(array.dims, chunks, strict=True)))
    array.to_dataset(name="responses").to_zarr(
        path / "responses.zarr",
        mode="w",
        zarr_format=2,  # the third format has no settled way yet to keep text
        encoding={"responses": {"chunks": chunks}},
        consolidated=False,
    )
    stimuli = recording.stimuli
    root = None if stimuli.root is None else str(Path(stimuli.root).resolve())
    (path / "stimuli.json").write_text(
        json.dumps({"root": root, "attrs": _plain(stimuli.attrs), "index": stimuli.ids})
    )
    stimuli.table.to_csv(path / "stimuli.tsv", sep="\t")
    if stimuli.images is not None:
        np.save(path / "images.npy", stimuli.images, allow_pickle=False)
    for name in ("audio", "videos"):
        if name in stimuli.in_memory:
            np.savez(path / f"{name}.npz", *stimuli.in_memory[name])


def _open(path: Path) -> Recording:
    if not (path / "stimuli.json").exists():
        raise DataError(
            "there is no engramma recording here",
            where=str(path),
            mend="point to a folder written by `engramma data convert` or Recording.save",
        )
    listing = json.loads((path / "stimuli.json").read_text())
    table = pd.read_csv(path / "stimuli.tsv", sep="\t", dtype={"stimulus": str}, na_values=[""])
    table = table.drop(columns="stimulus").set_axis(pd.Index(listing["index"]), axis=0)
    images = path / "images.npy"
    stimuli = StimulusSet(
        table,
        root=Path(listing["root"]) if listing["root"] else None,
        images=np.load(images, allow_pickle=False) if images.exists() else None,
        audio=_arrays(path / "audio.npz"),
        videos=_arrays(path / "videos.npz"),
        attrs=listing["attrs"],
    )
    try:
        array = xr.open_zarr(path / "responses.zarr", consolidated=False)["responses"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"the recording cannot be opened ({error})",
            where=str(path),
            mend="convert the original data again",
        ) from error
    array.attrs = json.loads(array.attrs["json"])
    return Recording(array, stimuli)


def _arrays(path: Path) -> list[np.ndarray] | None:
    """Read the arrays of an archive in their order; None if there is none."""
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as archive:
        return [archive[k] for k in archive.files]


def _plain(value: Any) -> Any:
    """Turn numpy values into what JSON holds."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    return value
