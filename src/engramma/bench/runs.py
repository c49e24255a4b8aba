"""Runs: one execution of a system on data, with everything needed to run it again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from engramma.bench.evaluate import evaluate
from engramma.contracts import Estimate, RunResult
from engramma.data.read import read
from engramma.data.store import atomic_directory
from engramma.errors import ConfigError, DataError
from engramma.registry import systems, worlds
from engramma.versions import versions

RUN, ARRAYS = "run.json", "arrays.npz"
#: What is kept of an estimate.
ENDS = ("value", "low", "high")


@dataclass(frozen=True)
class Run:
    """One execution of a system.

    Parameters
    ----------
    system, data : str
        Slug, and path or world as the user gave it.
    options : mapping
        Reader options.
    seed : int
    fingerprint : str
        Of the data.
    metrics : mapping of str to Estimate
    notes : tuple of str
    arrays : mapping of str to ndarray
        Artefacts; saved as ``arrays.npz``.
    versions : mapping
    seconds : float
    """

    system: str
    data: str
    seed: int
    fingerprint: str
    metrics: Mapping[str, Estimate]
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Everything but the arrays."""
        fields = {k: v for k, v in self.__dict__.items() if k not in ("arrays", "metrics")}
        fields["metrics"] = {
            name: {k: _number(getattr(e, k)) for k in ENDS} for name, e in self.metrics.items()
        }
        return fields

    def save(self, folder: str | Path) -> None:
        """Write ``run.json`` and ``arrays.npz``; an earlier run there stays intact on failure."""
        with atomic_directory(folder, replaces=(RUN,)) as work:
            self._write(work)

    def _write(self, folder: Path) -> None:
        (folder / RUN).write_text(json.dumps(self.as_json(), indent=1, default=str))
        objects = [n for n, a in self.arrays.items() if np.asarray(a).dtype.hasobject]
        if objects:
            raise ConfigError(
                f"the artefact {objects[0]!r} holds Python objects, which are never pickled",
                where=f"system {self.system!r}",
                mend="return numbers or fixed-width text (array.astype(str))",
            )
        arrays: dict[str, Any] = dict(self.arrays)
        np.savez_compressed(folder / ARRAYS, **arrays)


def run_system(
    slug: str,
    data: Any,
    *,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
) -> Run:
    """Fit a system to data and score it.

    Parameters
    ----------
    slug : str
    data : path, name of a world, Recording, Cohort or RDMs
    seed : int
        Of the system's evaluation, and of a world whose options name no other.
    options : mapping, optional
        Reader options, where ``data`` is a path or world.
    out : path, optional
        Folder to save the run in. That it may be written is checked before the work begins, and
        it is written whole or not at all.

    Returns
    -------
    Run

    Raises
    ------
    ConfigError
        If there is no such system, or it cannot be evaluated on recordings.
    DataError
        If the data cannot be read or do not suit the system, or ``out`` holds something else.
    """
    if out is not None:
        with atomic_directory(out, replaces=(RUN,)) as work:
            run = run_system(slug, data, seed=seed, options=options)
            run._write(work)
        return run
    card = systems.get(slug)
    evaluation = card.run or evaluate(card)
    name, options = _identify(data, dict(options or {}), seed)
    loaded = data if name is None else read(name, **options)
    return _execute(slug, evaluation, loaded, name or repr(data), options, seed)


def run_again(path: str | Path) -> tuple[Run, Run]:
    """Repeat a saved run, and return the saved and the new one.

    Raises
    ------
    DataError
        If there is no run at ``path``, or its data were no file or world.
    ConfigError
        If the data have changed since: nothing is fitted to them then.
    """
    old = load_run(path)
    card = systems.get(old.system)
    evaluation = card.run or evaluate(card)
    try:
        loaded = read(old.data, **old.options)
    except DataError as error:
        raise DataError(
            f"the data of the run cannot be read again ({error.what})",
            where=error.where or old.data,
            mend="put them back, or start a new run",
        ) from error
    now = loaded.fingerprint()
    if now != old.fingerprint:
        raise ConfigError(
            f"the data have changed since (fingerprint {old.fingerprint}, now {now})",
            where=old.data,
            mend="restore the data, or start a new run",
        )
    return old, _execute(old.system, evaluation, loaded, old.data, old.options, old.seed)


def load_run(path: str | Path) -> Run:
    """Read the run saved in a folder, with its arrays.

    Raises
    ------
    DataError
        If there is none.
    """
    path = Path(path)
    path = path / RUN if path.is_dir() else path
    try:
        saved = json.loads(path.read_text())
        metrics = {
            name: Estimate(_float(e["value"]), _float(e["low"]), _float(e["high"]))
            for name, e in saved.pop("metrics").items()
        }
        with np.load(path.with_name(ARRAYS), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return Run(**{**saved, "notes": tuple(saved["notes"])}, metrics=metrics, arrays=arrays)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadZipFile) as error:
        raise DataError(
            f"there is no run to repeat here ({error})",
            where=str(path),
            mend="point to the folder that `engramma run` wrote",
        ) from error


def differences(old: Run, new: Run) -> list[str]:
    """Sentences for metrics that a repetition did not reproduce, digit for digit."""
    sentences = []
    for name in sorted({*old.metrics, *new.metrics}):
        if name not in old.metrics or name not in new.metrics:
            sentences.append(f"{name} was given in one of the two runs only")
            continue
        a, b = old.metrics[name], new.metrics[name]
        for part in ENDS:
            x, y = getattr(a, part), getattr(b, part)
            if x != y and not (np.isnan(x) and np.isnan(y)):
                end = "" if part == "value" else f" ({part} end)"
                sentences.append(f"{name}{end} was {x!r} and now {y!r}")
    if sentences:
        for package in sorted({*old.versions, *new.versions}):
            was, now = (r.versions.get(package, "absent") for r in (old, new))
            if was != now:
                sentences.append(f"{package} was {was} and now {now}")
    return sentences


def _float(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _identify(data: Any, options: dict[str, Any], seed: int) -> tuple[str | None, dict[str, Any]]:
    """Name to read the data by, from any folder, and the options; no name for data in memory."""
    if not isinstance(data, str | Path):
        return None, options
    path = Path(data).expanduser()
    if path.exists():
        return str(path.resolve()), options
    if str(data) in worlds.all():
        options.setdefault("seed", seed)
    return str(data), options


def _execute(
    slug: str,
    evaluation: Callable[..., RunResult],
    loaded: Any,
    name: str,
    options: Mapping[str, Any],
    seed: int,
) -> Run:
    start = time.perf_counter()
    fingerprint = loaded.fingerprint()
    result = evaluation(loaded, seed=seed)
    return Run(
        system=slug,
        data=name,
        options=dict(options),
        seed=seed,
        fingerprint=fingerprint,
        metrics=result.metrics,
        arrays=result.arrays,
        notes=result.notes,
        versions=versions(),
        seconds=round(time.perf_counter() - start, 2),
    )
