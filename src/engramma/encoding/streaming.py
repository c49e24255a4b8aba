"""Ridge from disk to disk: more units than fit in memory, on one machine or a Dask cluster.

Units are independent once the features are decomposed, so that chunks of them pass through one
`RidgeSolver` each process keeps: read, solve, write, forget. A chunk is marked done after its
results are on disk, by renaming a file; a run that is killed goes on from the chunks done, and
the results appear under their final name only when all are there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import zarr

from engramma.encoding.folds import Score
from engramma.encoding.linear import Folds, product, resolve_folds, threads
from engramma.encoding.ridge import ALPHAS, RidgeSolver
from engramma.errors import ConfigError, DataError, DataWarning
from engramma.progress import track

if TYPE_CHECKING:
    from distributed import Client

#: What can be written: units; alphas x units; features x units and units; new rows x units.
RESULTS = ("alphas", "cv_scores", "weights", "predictions")


@dataclass(frozen=True)
class _Job:
    """All that a process needs to solve chunks, whichever they are."""

    name: str
    X: np.ndarray
    X_new: np.ndarray | None
    folds: tuple[tuple[np.ndarray, np.ndarray], ...]
    options: Mapping[str, Any]
    write: tuple[str, ...]
    n_units: int
    threads: int | None
    out: str


def ridge_to_zarr(
    X: Any,
    responses: Any,
    out: str | Path,
    *,
    X_new: Any = None,
    alphas: Sequence[float] = ALPHAS,
    cv: Folds = 5,
    scoring: Score = "r2",
    center: bool = True,
    standardize: bool = False,
    write: Sequence[str] | None = None,
    units_per_chunk: int | None = None,
    executor: str | None = None,
    jobs: int | None = None,
    memory_limit: str = "auto",
) -> zarr.Group:
    """Fit a ridge with an alpha per unit to responses on disk; write what it gives to zarr.

    Answers are those of `engramma.encoding.ridge.RidgeCV` on the whole.

    Parameters
    ----------
    X : array, shape (n_presentations, n_features)
    responses : path, zarr.Array or dask.array.Array, shape (n_presentations, n_units)
        Of these only a chunk of units at a time is read by each process.
    out : path
        The zarr group to write. What stands there is replaced when the run is complete.
    X_new : array, shape (n_new, n_features), optional
        Features to predict responses for.
    alphas, cv, scoring, center, standardize
        As in `RidgeCV`.
    write : sequence of {"alphas", "cv_scores", "weights", "predictions"}, optional
        By default everything (predictions where ``X_new`` is given). "weights" brings
        ``intercept`` with it.
    units_per_chunk : int, optional
        By default some 2000, in whole chunks of the responses.
    executor : None, "local" or "tcp://host:port"
        Here, on a local Dask cluster of ``jobs`` processes, or on a Dask scheduler whose workers
        see the same file system. "local" starts processes: a script that uses it must be
        guarded by ``if __name__ == "__main__"``.
    jobs : int, optional
        Processes of the local cluster, or threads without an executor; by default all cores.
    memory_limit : str
        Of each process of the local cluster, as Dask takes it ("2GiB").

    Returns
    -------
    zarr.Group

    Raises
    ------
    DataError
        If responses cannot be opened, do not match, or are not finite (the unit is named), or
        ``out`` cannot be written.
    ConfigError
        If an option is unknown, or no cluster answers.
    """
    source = _open(responses)
    n, n_units = source.shape
    X = np.asarray(X, np.float32)
    if X.ndim != 2 or len(X) != n:
        raise DataError(
            f"features have shape {X.shape} for {n} presentations",
            mend="give one row of features for each presentation",
        )
    wanted = tuple(write or (RESULTS if X_new is not None else RESULTS[:3]))
    if set(wanted) - set(RESULTS) or ("predictions" in wanted and X_new is None):
        raise ConfigError(
            f"cannot write {', '.join(wanted)}",
            mend=f"choose among {', '.join(RESULTS)}; predictions need X_new",
        )
    options = {
        "alphas": tuple(float(a) for a in np.atleast_1d(np.asarray(alphas))),
        "scoring": scoring,
        "center": center,
        "standardize": standardize,
    }
    folds = tuple(resolve_folds(cv, n))
    X_new = None if X_new is None else np.asarray(X_new, np.float32)
    step = _step(source, units_per_chunk)
    name = _fingerprint(X, X_new, folds, options, wanted, source, step)
    out = Path(out)
    part = out.with_name(f".{out.name}.part")
    job = _Job(name, X, X_new, folds, options, wanted, n_units, jobs, str(part))
    _solver(job)  # an option or feature that cannot be is found before anything is written
    if executor is not None:
        _forget()
    _prepare(job, step)
    starts = [a for a in range(0, n_units, step) if not _mark(job, a).exists()]
    chunks = [(start, min(start + step, n_units)) for start in starts]
    with _client(executor, jobs, memory_limit) as client:
        if client is None:
            for chunk in track(chunks, "Ridge"):
                _solve_chunk(job, source, *chunk)
        else:
            _distribute(client, job, source, chunks)
    _forget()
    return _finish(part, out)


# -- what runs where the data are --------------------------------------------------------------

_KEPT: dict[str, RidgeSolver] = {}
_BUILDING = threading.Lock()  # threads of one worker share a solver


def _solver(job: _Job) -> RidgeSolver:
    """Return this process's solver for the job; one job at a time is kept."""
    with _BUILDING, threads(job.threads):
        if job.name not in _KEPT:
            _KEPT.clear()
            _KEPT[job.name] = RidgeSolver(
                job.X, cv=job.folds, n_units=job.n_units, **dict(job.options)
            )
        return _KEPT[job.name]


def _forget() -> None:
    _KEPT.clear()


def _solve_chunk(job: _Job, source: Any, start: int, stop: int) -> int:
    """Solve units ``start`` to ``stop``, write them and mark them done."""
    block = source if isinstance(source, np.ndarray) else source[:, start:stop]
    if hasattr(block, "compute"):
        block = block.compute(scheduler="synchronous")
    block = np.asarray(block)
    with threads(job.threads):
        solver = _solver(job)
        solution = solver.solve(block, first=start)
        del block
        units = slice(start, stop)
        group: Any = zarr.open_group(job.out, mode="r+")
        weights = torch.from_numpy(solution.weights)
        for name in job.write:
            if name == "alphas":
                group[name][units] = solver.alphas[solution.choice]
            elif name == "cv_scores":
                group[name][:, units] = solution.cv_scores
            elif name == "weights":
                coefficients = solver.axes.coefficients(weights).numpy()
                group[name][:, units] = coefficients
                at_zero = solver.axes.transform(solver.X.new_zeros(1, solver.X.shape[1]))
                group["intercept"][units] = solution.mean + (weights @ at_zero[0].float()).numpy()
            else:
                new = solver.axes.transform(torch.from_numpy(job.X_new)).float()
                group[name][:, units] = product(new, weights).numpy() + solution.mean
    mark = _mark(job, start)
    with (temporary := mark.with_suffix(".tmp")).open("w") as file:
        file.write(str(stop))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(mark)
    return stop - start


# -- a cluster ---------------------------------------------------------------------------------


@contextmanager
def _client(executor: str | None, jobs: int | None, memory_limit: str) -> Iterator[Client | None]:
    if executor is None:
        yield None
        return
    from distributed import Client, LocalCluster

    if executor == "local":
        with (
            LocalCluster(
                n_workers=jobs or os.cpu_count() or 1,
                threads_per_worker=1,
                processes=True,
                memory_limit=memory_limit,
                dashboard_address=None,
                silence_logs=logging.ERROR,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    if "://" not in executor:
        raise ConfigError(
            f"executor {executor!r} is not known", mend="use 'local' or 'tcp://host:port'"
        )
    try:
        client = Client(executor, timeout="20s")
    except (OSError, TimeoutError) as error:
        raise ConfigError(
            "no Dask scheduler answers", where=executor, mend="start one with `dask scheduler`"
        ) from error
    with client:
        yield client


def _distribute(client: Client, job: _Job, source: Any, chunks: Sequence[tuple[int, int]]) -> None:
    """Solve chunks on the workers, no more at a time than they can hold."""
    from dataclasses import replace

    from distributed import as_completed

    workers = client.scheduler_info(n_workers=-1)["workers"]
    slots = sum(w["nthreads"] for w in workers.values())
    per_worker = max(1, (os.cpu_count() or 1) // max(len(workers), 1))
    job = replace(job, threads=per_worker)
    shared = client.scatter(job, broadcast=True, hash=False)
    remaining = iter(chunks)

    def submit(chunk: tuple[int, int]) -> Any:
        given = source
        if hasattr(source, "dask"):  # a dask array: its chunk is computed on the workers
            given = client.compute(source[:, chunk[0] : chunk[1]])
        return client.submit(_solve_chunk, shared, given, *chunk, pure=False)

    running = as_completed([submit(c) for _, c in zip(range(2 * slots), remaining, strict=False)])
    for future in track(running, "Ridge", total=len(chunks)):
        future.result()
        following = next(remaining, None)
        if following is not None:
            running.add(submit(following))
    client.run(_forget)


# -- files -------------------------------------------------------------------------------------


def _open(responses: Any) -> Any:
    if isinstance(responses, str | Path):
        try:
            responses = zarr.open_array(str(responses), mode="r")
        except (OSError, ValueError, KeyError, zarr.errors.BaseZarrError) as error:
            raise DataError(
                f"responses cannot be opened ({error})",
                where=str(responses),
                mend="point to a zarr array, presentation x unit",
            ) from error
    if len(getattr(responses, "shape", ())) != 2 or 0 in responses.shape:
        raise DataError(
            f"responses have shape {getattr(responses, 'shape', None)}",
            mend="give a presentation x unit array",
        )
    return responses


def _step(source: Any, wanted: int | None) -> int:
    """Units per chunk: whole chunks of the responses, so that none is read twice."""
    n, n_units = source.shape
    stored = source.chunks[1]
    stored = max(stored) if isinstance(stored, tuple) else int(stored)
    if wanted is None:
        wanted = int(np.clip(64 * 2**20 // (4 * n), 128, 2048))
        wanted = stored * max(1, wanted // stored)
    return min(max(1, wanted), n_units)


def _fingerprint(
    X: np.ndarray,
    X_new: np.ndarray | None,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    options: Mapping[str, Any],
    write: Sequence[str],
    source: Any,
    step: int,
) -> str:
    """Name of the job: what must be the same for chunks already done to be worth keeping.

    Responses count by their shape, their first and last unit, and where they are stored.
    """
    digest = hashlib.sha256(json.dumps([dict(options), list(write), step]).encode())
    for array in (X, X_new, *(index for fold in folds for index in fold)):
        if array is not None:
            digest.update(np.ascontiguousarray(array).tobytes())
    store = getattr(source, "store", None)
    place = f"{store} {getattr(source, 'path', '')} {getattr(source, 'name', '')}"
    digest.update(f"{source.shape} {source.dtype} {place}".encode())
    for unit in (0, source.shape[1] - 1):
        digest.update(np.asarray(source[:, unit : unit + 1]).tobytes())
    return digest.hexdigest()[:16]


def _prepare(job: _Job, step: int) -> None:
    """Make the folder of a run in progress, or keep the one there is if it is of this job."""
    part = Path(job.out)
    try:
        known = json.loads((part / "job.json").read_text())["name"] if part.exists() else None
    except (OSError, ValueError, KeyError):
        known = None
    if known == job.name:
        return
    if part.exists():
        warnings.warn(
            f"an unfinished run with other data or options is discarded: {part}",
            DataWarning,
            stacklevel=3,
        )
        shutil.rmtree(part)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        group = zarr.open_group(str(part), mode="w")
    except OSError as error:
        raise DataError(
            f"cannot write here ({error.strerror})",
            where=str(part.parent),
            mend="choose a folder that you may write to",
        ) from error
    n_units, p = job.n_units, job.X.shape[1]
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "alphas": ((n_units,), "float64"),
        "cv_scores": ((len(job.options["alphas"]), n_units), "float64"),
        "weights": ((p, n_units), "float32"),
        "intercept": ((n_units,), "float32"),
        "predictions": ((0 if job.X_new is None else len(job.X_new), n_units), "float32"),
    }
    for name in (*job.write, *(("intercept",) if "weights" in job.write else ())):
        shape, dtype = shapes[name]
        group.create_array(name, shape=shape, dtype=dtype, chunks=(*shape[:-1], step))
    group.attrs.update({"engramma": "ridge", **{k: v for k, v in job.options.items()}})
    (part / "done").mkdir()
    (part / "job.json").write_text(json.dumps({"name": job.name}))


def _mark(job: _Job, start: int) -> Path:
    return Path(job.out) / "done" / str(start)


def _finish(part: Path, out: Path) -> zarr.Group:
    """Give complete results their name."""
    shutil.rmtree(part / "done")
    (part / "job.json").unlink()
    if out.exists():
        old = out.with_name(f".{out.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
        part.rename(out)
        shutil.rmtree(old)
    else:
        part.rename(out)
    return zarr.open_group(str(out), mode="r")
