"""Zarr: recordings that engramma wrote, and plain groups in the common layout.

Responses stay on disk until they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engramma.data.read import decoding, reader
from engramma.data.readers._layout import read_layout
from engramma.data.recording import Cohort, Recording
from engramma.data.store import open_recording

OURS = ("stimuli.json", "cohort.json")
GROUP = ("zarr.json", ".zgroup", ".zmetadata")


def _ours(path: Path) -> bool:
    return any((path / name).is_file() for name in OURS)


def _recognises(path: Path) -> bool:
    return path.is_dir() and (_ours(path) or any((path / name).is_file() for name in GROUP))


def load_group(path: Path) -> Mapping[str, Any]:
    """Open the arrays of a zarr group: responses lazily, the rest in memory."""
    import dask.array
    import zarr

    with decoding(path, "zarr group", OSError, ValueError, KeyError, zarr.errors.BaseZarrError):
        group = zarr.open_group(str(path), mode="r")
        arrays: dict[str, Any] = dict(group.attrs)
        for name, member in group.arrays():
            large = member.ndim >= 2 and member.shape != (4, 4)
            arrays[name] = dask.array.from_zarr(member) if large else member[...]
    return {k: v for k, v in arrays.items() if not isinstance(v, dict)}


def _inspect(path: Path, **options: Any) -> dict[str, Any]:
    from engramma.data.inspect import describe

    return describe(read_zarr(path, **options))


@reader(
    "zarr",
    description="a zarr written by engramma, or a zarr group with 'responses' and 'stimulus'",
    recognises=_recognises,
    generic=True,
    inspect=_inspect,
)
def read_zarr(
    path: Path,
    *,
    responses: str = "responses",
    stimulus: str = "stimulus",
    stimuli: str | Path | None = None,
    subject: str | None = None,
    modality: str | None = None,
) -> Recording | Cohort:
    """Open a zarr; for a plain group, options as for ``npz``."""
    if _ours(path):
        return open_recording(path)
    return read_layout(
        path,
        load_group,
        [path],
        responses=responses,
        stimulus=stimulus,
        stimuli=stimuli,
        subject=subject,
        modality=modality,
    )
