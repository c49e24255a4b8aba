"""Runs: one execution of a system on data, with everything needed to run it again."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engramma.bench.evaluate import evaluate
from engramma.contracts import Estimate
from engramma.data.read import read
from engramma.data.store import atomic_directory
from engramma.errors import ConfigError, DataError
from engramma.registry import systems
from engramma.versions import versions


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
            name: {k: v if np.isfinite(v) else None for k, v in asdict(e).items() if k != "details"}
            for name, e in self.metrics.items()
        }
        return fields

    def save(self, folder: str | Path) -> None:
        """Write ``run.json`` and ``arrays.npz``; an earlier run there stays intact on failure."""
        with atomic_directory(folder, replaces=("run.json",)) as work:
            (work / "run.json").write_text(json.dumps(self.as_json(), indent=1, default=str))
            np.savez_compressed(work / "arrays.npz", **dict(self.arrays))


def run_system(
    slug: str, data: Any, *, seed: int = 0, options: Mapping[str, Any] | None = None
) -> Run:
    """Fit a system to data and score it.

    Parameters
    ----------
    slug : str
    data : path, name of a world, Recording, Cohort or RDMs
    seed : int
    options : mapping, optional
        Reader options, where ``data`` is a path or world.

    Returns
    -------
    Run
    """
    card = systems.get(slug)
    name = data if isinstance(data, str | Path) else repr(data)
    loaded = read(data, **(options or {})) if isinstance(data, str | Path) else data
    start = time.perf_counter()
    result = (card.run or evaluate(card))(loaded, seed=seed)
    return Run(
        system=slug,
        data=str(name),
        options=dict(options or {}),
        seed=seed,
        fingerprint=loaded.fingerprint(),
        metrics=result.metrics,
        arrays=result.arrays,
        notes=result.notes,
        versions=versions(),
        seconds=round(time.perf_counter() - start, 2),
    )


def run_again(path: str | Path) -> tuple[Run, Run]:
    """Repeat a saved run, and return the saved and the new one.

    Raises
    ------
    DataError
        If there is no run at ``path``.
    ConfigError
        If the data have changed since.
    """
    path = Path(path)
    path = path / "run.json" if path.is_dir() else path
    try:
        saved = json.loads(path.read_text())
        metrics = {
            k: Estimate(**{n: float("nan") if x is None else x for n, x in v.items()})
            for k, v in saved.pop("metrics").items()
        }
        old = Run(**saved, metrics=metrics)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"there is no run to repeat here ({error})",
            where=str(path),
            mend="point to the folder that `engramma run` wrote",
        ) from error
    new = run_system(old.system, old.data, seed=old.seed, options=old.options)
    if new.fingerprint != old.fingerprint:
        raise ConfigError(
            f"the data have changed since (fingerprint {old.fingerprint}, now {new.fingerprint})",
            where=old.data,
            mend="restore the data, or start a new run",
        )
    return old, new
