"""Ridge for 200,000 units from zarr, on a local Dask cluster whose workers hold 2 GiB each.

``python benchmarks/ridge_zarr.py`` writes responses of 1.6 GB chunk by chunk, fits them on two
worker processes, samples the memory of each, and compares alphas, weights, scores and
predictions of some chunks of units with the answer in memory.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zarr

from _measure import arguments, machine, table, timed, write_json
from engramma.encoding.ridge import RidgeCV
from engramma.encoding.streaming import ridge_to_zarr

ALPHAS = np.logspace(0, 5, 10)
LIMIT = 2 * 2**30


class ChildrenRSS:
    """Largest resident memory of each descendant process inside a ``with`` block, in bytes."""

    def __enter__(self) -> ChildrenRSS:
        self.peaks: dict[int, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            for child in psutil.Process().children(recursive=True):
                try:
                    size = child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue  # it ended between listing and asking
                self.peaks[child.pid] = max(self.peaks.get(child.pid, 0), size)


def write_responses(path: Path, X: np.ndarray, n_units: int, chunk: int, seed: int = 1) -> None:
    """Responses of units of widely different signal-to-noise ratio, a chunk at a time."""
    rng = np.random.default_rng(seed)
    out = zarr.create_array(
        str(path),
        shape=(len(X), n_units),
        chunks=(len(X), chunk),
        dtype="float32",
        compressors=None,
    )
    for start in range(0, n_units, chunk):
        size = min(chunk, n_units - start)
        signal = X @ rng.standard_normal((X.shape[1], size), dtype=np.float32)
        signal *= (10 ** rng.uniform(-0.75, 0.5, size)).astype(np.float32) / signal.std(axis=0)
        noise = rng.standard_normal(signal.shape, dtype=np.float32)
        out[:, start : start + size] = signal + noise


def features(n: int, p: int, n_new: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((n + n_new, p), dtype=np.float32)
    latent *= np.arange(1, p + 1, dtype=np.float32) ** -0.5
    X = latent @ rng.standard_normal((p, p), dtype=np.float32) / np.float32(p**0.5)
    X = (X - X[:n].mean(axis=0)) / X[:n].std(axis=0)
    return X[:n], X[n:]


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    n, p, n_units, chunk = (200, 100, 4000, 500) if options.small else (2000, 1500, 200_000, 2000)
    print("machine:", machine())
    X, X_new = features(n, p, n_new=50)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "responses.zarr", Path(folder) / "ridge.zarr"
        write_responses(source, X, n_units, chunk)
        with ChildrenRSS() as memory:
            seconds, fitted = timed(
                lambda: ridge_to_zarr(
                    X,
                    source,
                    out,
                    X_new=X_new,
                    alphas=ALPHAS,
                    executor="local",
                    jobs=2,
                    memory_limit="2GiB",
                )
            )
        agreement = compare(X, X_new, zarr.open_array(str(source), mode="r"), fitted, chunk)
        size = n * n_units * 4
    peaks = sorted(memory.peaks.values(), reverse=True)[:2]
    table(
        f"{n} presentations x {p} features x {n_units} units from zarr, two workers",
        ("what", "measured", "wanted"),
        [
            ("seconds", seconds, ""),
            ("responses, GiB", size / 2**30, ""),
            ("peak memory of the larger worker, GiB", peaks[0] / 2**30, "<= 2"),
            ("peak memory of the other worker, GiB", peaks[-1] / 2**30, "<= 2"),
            ("units compared with the answer in memory", agreement["units"], ""),
            ("same alphas", agreement["same_alphas"], "1"),
            ("largest difference of scores", agreement["scores"], "< 1e-4"),
            ("largest relative difference of weights", agreement["weights"], "< 1e-4"),
            ("largest relative difference of predictions", agreement["predictions"], "< 1e-4"),
        ],
    )
    write_json(
        options.json,
        {
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "shape": {"presentations": n, "features": p, "units": n_units},
            "seconds": seconds,
            "worker_peak_bytes": peaks,
            "worker_limit_bytes": LIMIT,
            "responses_bytes": size,
            "agreement": agreement,
        },
    )


def compare(
    X: np.ndarray, X_new: np.ndarray, source: Any, fitted: Any, chunk: int
) -> dict[str, float]:
    """Fit the first, a middle and the last chunk of units in memory; compare every result."""
    n_units = source.shape[1]
    middle = n_units // 2 // chunk * chunk + chunk // 3  # across two chunks on purpose
    starts = (0, middle, n_units - chunk)
    found = {"units": 0.0, "same_alphas": 1.0, "scores": 0.0, "weights": 0.0, "predictions": 0.0}
    for start in starts:
        units = slice(start, start + chunk)
        model = RidgeCV(alphas=ALPHAS).fit(X, source[:, units])
        same = fitted["alphas"][units] == model.alphas_
        pairs = {
            "scores": (fitted["cv_scores"][:, units], model.cv_scores_),
            "weights": (fitted["weights"][:, units][:, same], model.coef_[:, same]),
            "predictions": (
                fitted["predictions"][:, units][:, same],
                model.predict(X_new)[:, same],
            ),
        }
        found["units"] += chunk
        found["same_alphas"] = min(found["same_alphas"], float(same.mean()))
        for name, (a, b) in pairs.items():
            level = 1.0 if name == "scores" else float(np.abs(b).max())
            found[name] = max(found[name], float(np.abs(a - b).max()) / level)
    return found


if __name__ == "__main__":
    main()
