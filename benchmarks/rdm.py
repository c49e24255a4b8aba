"""RDMs against rsatoolbox: answers first, then time and memory.

``python benchmarks/rdm.py`` computes correlation and crossnobis RDMs of 1000 stimuli over 20,000
units in four runs, from one recording in the order in which it was made.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from _measure import PeakRSS, arguments, peak_rss_of, table, timed, write_json

TARGETS = {"correlation": 15.0, "crossnobis": 5.0}
TOLERANCE = 1e-5


def make(n_stimuli: int, n_units: int, n_runs: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Responses (float32), and the stimulus and run of each presentation.

    Units have a baseline, and stimuli patterns of a few dimensions; order is random in each run.
    """
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n_stimuli, 20), dtype=np.float32)
    patterns = latent @ rng.standard_normal((20, n_units), dtype=np.float32) / np.float32(20**0.5)
    patterns += rng.standard_normal(n_units, dtype=np.float32)
    stimulus = np.concatenate([rng.permutation(n_stimuli) for _ in range(n_runs)])
    responses = patterns[stimulus]
    responses += rng.standard_normal(responses.shape, dtype=np.float32)
    return responses, stimulus, np.repeat(np.arange(n_runs), n_stimuli)


def ours(method: str, responses: np.ndarray, stimulus: np.ndarray, run: np.ndarray) -> np.ndarray:
    from engramma.data.recording import Recording
    from engramma.geometry.rdm import rdm_from_recording

    recording = Recording.from_arrays(responses, [f"{s:05d}" for s in stimulus], run=run)
    return rdm_from_recording(recording, method).dissimilarities[0]


def theirs(method: str, responses: np.ndarray, stimulus: np.ndarray, run: np.ndarray) -> np.ndarray:
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm

    # It fills an array of strings with NaN on its way.
    warnings.filterwarnings("ignore", "invalid value encountered in cast")
    names = [f"{s:05d}" for s in stimulus]
    data = Dataset(responses, obs_descriptors={"stimulus": names, "run": list(run)})
    cv = {"cv_descriptor": "run"} if method == "crossnobis" else {}
    return calc_rdm(data, method=method, descriptor="stimulus", **cv).dissimilarities[0]


def memory(name: str, method: str, size: tuple[int, int, int]) -> dict[str, Any]:
    """Run one contestant in a process of its own, whose inputs do not count."""
    contestant = {"engramma": ours, "rsatoolbox": theirs}[name]
    contestant(method, *make(8, 50, size[2]))  # imports do not count either
    data = make(*size)
    with PeakRSS() as watched:
        contestant(method, *data)
    return {"bytes": watched.peak - watched.before}


def reference(method: str, responses: np.ndarray, stimulus: np.ndarray, run: np.ndarray) -> Any:
    """Follow the definition in float64, pair of folds by pair of folds, for a few stimuli."""
    from scipy.spatial.distance import pdist

    n, n_runs = stimulus.max() + 1, run.max() + 1
    folds = np.empty((n_runs, n, responses.shape[1]))
    folds[run, stimulus] = responses
    if method == "correlation":
        return pdist(folds.mean(axis=0), "correlation")
    first, second = np.triu_indices(n, k=1)
    difference = folds[:, first] - folds[:, second]
    pairs = [(f, g) for f in range(n_runs) for g in range(f)]
    return np.mean([(difference[f] * difference[g]).mean(axis=1) for f, g in pairs], axis=0)


def largest_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, in units of the largest dissimilarity where that is above 1."""
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


def main() -> int:
    """Compare, measure, print; return 1 where an answer differs or a target is missed."""
    parser = arguments(__doc__.splitlines()[0])
    options = parser.parse_args()
    from threadpoolctl import threadpool_limits

    size = (60, 500, 4) if options.small else (1000, 20_000, 4)
    data, few = make(*size), make(30, size[1], size[2], seed=1)
    times, peaks, results, missed = [], [], {}, []
    with threadpool_limits(options.threads):
        for method, target in TARGETS.items():
            theirs(method, *few)  # the first call imports
            exact = largest_error(ours(method, *few), reference(method, *few))
            seconds, found = timed(lambda m=method: ours(m, *data), repeats=3)
            their_seconds, expected = timed(lambda m=method: theirs(m, *data))
            error = largest_error(found, expected)
            del found, expected
            peak, their_peak = (
                peak_rss_of(memory, name, method, size)[1]["bytes"]
                for name in ("engramma", "rsatoolbox")
            )
            ratio = their_seconds / seconds
            if max(error, exact) > TOLERANCE:
                missed.append(f"{method}: answers differ by {max(error, exact):.1e}")
            if ratio < target and not options.small:
                missed.append(f"{method}: {ratio:.1f} times faster, not {target:g}")
            times.append((method, error, exact, seconds, their_seconds, ratio, target))
            peaks.append((method, peak / 2**20, their_peak / 2**20))
            results[method] = {
                "largest_error_against_rsatoolbox": error,
                "largest_error_against_float64_definition": exact,
                "seconds": {"engramma": seconds, "rsatoolbox": their_seconds},
                "speed_up": ratio,
                "target": target,
                "peak_bytes_beside_input": {"engramma": peak, "rsatoolbox": their_peak},
            }
    shape = f"{size[0]} stimuli x {size[1]} units x {size[2]} runs, {options.threads} threads"
    columns = ("", "error", "exact", "ours, s", "theirs, s", "speed-up", "target")
    table(f"RDMs of {shape}, against rsatoolbox", columns, times)
    print("error: largest difference to rsatoolbox; exact: to the definition in float64\n")
    table("Peak memory beside the input, MiB", ("", "ours", "theirs"), peaks)
    for line in missed:
        print("MISSED", line)
    write_json(options.json, {"size": size, "rdm": results, "missed": missed})
    return bool(missed)


if __name__ == "__main__":
    raise SystemExit(main())
