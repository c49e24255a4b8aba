"""Studies on disk: numbers as JSON, arrays as zarr, and checkpoints to resume from."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from engramma.errors import DataError
from engramma.study.result import Figure, Notice, Section, Study, Table

#: What a study writes; nothing else in its folder is ever touched.
FILES = ("report.html", "study.json", "arrays.zarr")


def save_study(study: Study, folder: str | Path) -> Path:
    """Write ``report.html``, ``study.json`` and ``arrays.zarr`` into ``folder``.

    All three are made in a temporary folder first, so that an earlier study there stays intact
    until the new one is complete.

    Raises
    ------
    DataError
        If the folder cannot be written to.
    """
    folder = Path(folder)
    work = writable(folder)
    try:
        study.report(work / "report.html")
        (work / "study.json").write_text(json.dumps(as_json(study), indent=1))
        save_arrays(study, work / "arrays.zarr")
        for name in FILES:
            target = folder / name
            if target.is_dir():
                shutil.rmtree(target)
            (work / name).replace(target)
    except OSError as error:
        raise cannot_write(error, folder) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def cannot_write(error: OSError, folder: Path) -> DataError:
    """Say that the study cannot be written, and why."""
    return DataError(
        f"the study cannot be written ({error.strerror})",
        where=str(error.filename or folder),
        mend="free disk space, or choose another folder with --out",
    )


def writable(folder: Path) -> Path:
    """Make a temporary folder inside ``folder``, to find out early that it can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".part-*"):  # by a study that was killed while it was saved
            shutil.rmtree(left, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
    except OSError as error:
        raise DataError(
            f"cannot write here ({error.strerror})",
            where=str(folder),
            mend="choose a folder that you may write to with --out",
        ) from error


def as_json(study: Study) -> dict[str, Any]:
    """Every number of a study, without figures and arrays."""
    sections = {
        s.name: {
            "title": s.title,
            "summary": s.summary,
            "numbers": s.numbers,
            "tables": [asdict(t) for t in s.tables],
            "methods": list(s.methods),
            "citations": list(s.citations),
        }
        for s in study.sections
    }
    return plain(
        {
            "title": study.title,
            "data": study.data,
            "sections": sections,
            "warnings": [asdict(n) for n in study.notices],
            "parameters": study.parameters,
            "versions": study.versions,
            "seconds": study.seconds,
        }
    )


def save_arrays(study: Study, path: Path) -> None:
    """Write the arrays of every section, ``arrays.zarr/SECTION/NAME``."""
    import zarr

    root = zarr.open_group(str(path), mode="w")
    for section in study.sections:
        group = root.require_group(section.name)
        for name, array in section.arrays.items():
            values, levels = np.asarray(array), None
            if values.dtype.kind in "OUS":  # text is kept as codes, which every zarr reader knows
                levels, values = np.unique(values.astype(str), return_inverse=True)
            stored = group.create_array(name.replace("/", "-"), data=values)
            if levels is not None:
                stored.attrs["levels"] = levels.tolist()


def plain(value: Any) -> Any:
    """Turn numpy values into what JSON holds; NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.8g}") if np.isfinite(value) else None
    if isinstance(value, str | int | bool) or value is None:
        return value
    return str(value)


class Checkpoints:
    """Finished sections of a study that has not ended yet.

    Parameters
    ----------
    folder : path or None
        Where the study will be written. None keeps nothing.
    key : mapping
        Everything that the sections depend on: a study with another key starts anew.
    """

    def __init__(self, folder: str | Path | None, key: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(plain(key), sort_keys=True).encode()).hexdigest()[:12]
        self.folder = None if folder is None else Path(folder) / f".checkpoint-{digest}"

    def load(self, name: str) -> Section | None:
        """Return a section that was finished before; None where there is none, or it is damaged."""
        if self.folder is None or not (self.folder / name / "section.json").exists():
            return None
        try:
            return load_section(self.folder / name)
        except (OSError, ValueError, KeyError, TypeError, BadZipFile):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            return None

    def keep(self, section: Section) -> None:
        """Write a finished section.

        Raises
        ------
        DataError
            If it cannot be written.
        """
        if self.folder is None:
            return
        try:
            save_section(section, self.folder / section.name)
        except OSError as error:
            raise cannot_write(error, self.folder.parent) from error

    def clear(self) -> None:
        """Remove the checkpoints of this and of earlier, abandoned studies."""
        if self.folder is not None:
            for left in self.folder.parent.glob(".checkpoint-*"):
                shutil.rmtree(left, ignore_errors=True)


def save_section(section: Section, place: Path) -> None:
    """Write a section, figures and arrays included; the JSON comes last and marks it complete."""
    place.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_take_arrays(asdict(section), arrays))
    np.savez_compressed(place / "arrays.npz", allow_pickle=False, **arrays)
    work = place / "section.json.part"
    work.write_text(text)
    work.replace(place / "section.json")


def load_section(place: Path) -> Section:
    """Read a section written by `save_section`."""
    with np.load(place / "arrays.npz", allow_pickle=False) as archive:
        fields = _give_arrays(json.loads((place / "section.json").read_text()), archive)
    fields["figures"] = [Figure(**f) for f in fields["figures"]]
    fields["tables"] = [Table(**t) for t in fields["tables"]]
    fields["notices"] = [Notice(**n) for n in fields["notices"]]
    return Section(**fields)


def _take_arrays(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Replace arrays by references, collecting them."""
    if isinstance(value, Mapping):
        # A list of pairs keeps keys that are not text, and the order.
        return {"map": [[str(k), _take_arrays(v, arrays)] for k, v in value.items()]}
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value.astype(str) if value.dtype == object else value
        return {"array": name}
    if isinstance(value, list | tuple):
        return [_take_arrays(v, arrays) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def _give_arrays(value: Any, archive: Any) -> Any:
    if isinstance(value, dict):
        if "array" in value:
            return archive[value["array"]]
        return {k: _give_arrays(v, archive) for k, v in value["map"]}
    if isinstance(value, list):
        return [_give_arrays(v, archive) for v in value]
    return value


def notices_from(entries: Any) -> list[Notice]:
    """Turn the ``{"name", "text"}`` entries of readers and checks into notices."""
    return [Notice(e["name"], e["text"]) for e in entries or ()]
