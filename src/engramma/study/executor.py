"""Fits over chunks of units: here, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from engramma.errors import ConfigError
from engramma.progress import track

if TYPE_CHECKING:
    from distributed import Client

UNITS_PER_TASK = 8192


def map_units(
    fit: Callable[..., dict[str, np.ndarray]],
    values: np.ndarray,
    executor: str | None,
    **shared: Any,
) -> dict[str, np.ndarray]:
    """Apply ``fit`` to chunks of units and join the results along the last axis.

    Parameters
    ----------
    fit : callable
        ``fit(values, **shared) -> dict of arrays`` whose last axis is units.
    values : ndarray, shape (n_rows, n_units)
    executor : str or None
        None: here, one chunk after the other. ``"local"``: a Dask cluster of this machine.
        ``tcp://...``: the scheduler there.
    **shared
        Sent once to every worker.

    Raises
    ------
    ConfigError
        If the scheduler cannot be reached.
    """
    chunks = [
        values[:, start : start + UNITS_PER_TASK]
        for start in range(0, values.shape[1], UNITS_PER_TASK)
    ]
    if executor is None:
        parts = [fit(chunk, **shared) for chunk in track(chunks, "fitting units")]
    else:
        parts = _on_cluster(fit, chunks, executor, shared)
    return {name: np.concatenate([p[name] for p in parts], axis=-1) for name in parts[0]}


def _on_cluster(
    fit: Callable[..., dict[str, np.ndarray]],
    chunks: list[np.ndarray],
    executor: str,
    shared: dict[str, Any],
) -> list[dict[str, np.ndarray]]:
    with connect(executor) as client:
        everything = client.scatter(shared, broadcast=True, hash=False)
        futures = [client.submit(_apply, fit, chunk, everything) for chunk in chunks]
        return [future.result() for future in track(futures, "fitting units on the cluster")]


def connect(executor: str) -> Client:
    """Connect to a scheduler, or start a cluster on this machine.

    Raises
    ------
    ConfigError
        If the scheduler cannot be reached.
    """
    from distributed import Client

    try:
        if executor == "local":
            return Client(dashboard_address=None)
        return Client(executor, timeout=10)
    except (OSError, ValueError, TimeoutError) as error:
        raise ConfigError(
            f"the Dask scheduler cannot be reached ({error})",
            where=f"--executor {executor}",
            mend="start one with `dask scheduler`, or use --executor local",
        ) from error


def _apply(
    fit: Callable[..., dict[str, np.ndarray]], chunk: np.ndarray, shared: dict[str, Any]
) -> dict[str, np.ndarray]:
    return fit(chunk, **shared)
