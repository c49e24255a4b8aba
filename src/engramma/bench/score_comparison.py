"""Score a measure of representational likeness on recordings it was not written for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from engramma.bench.material import recordings_of
from engramma.contracts import Estimate, RunResult
from engramma.data.recording import Recording
from engramma.errors import DataError
from engramma.progress import track

#: Fewest stimuli with which representations are compared, and groups of the jackknife.
FEWEST, GROUPS = 8, 10


def score_comparison(comparison: Any, data: Any, rng: np.random.Generator) -> RunResult:
    """Compare subjects; or the regions of one; or, without regions, two halves of the repeats.

    Parameters
    ----------
    comparison : Comparison
        Taken as symmetric: each pair is compared once.
    data : Recording or Cohort
    rng : numpy.random.Generator

    Returns
    -------
    RunResult
        ``likeness``, the mean over pairs, and with up to ten pairs each of them; arrays
        ``likeness`` (a square matrix; NaN on its diagonal) and ``names``.
    """
    patterns, about = _patterns(recordings_of(data), rng)
    names = list(patterns)
    pairs = list(combinations(range(len(names)), 2))
    estimates = {
        (i, j): comparison.compare(patterns[names[i]], patterns[names[j]])
        for i, j in track(pairs, "comparing")
    }
    matrix = np.full((len(names), len(names)), np.nan)
    for (i, j), estimate in estimates.items():
        matrix[i, j] = matrix[j, i] = estimate.value
    overall, how = _overall(comparison, patterns, matrix, about.startswith("Subjects"), rng)
    metrics = {"likeness": overall}
    if 1 < len(pairs) <= 10:
        metrics |= {f"likeness ({names[i]}, {names[j]})": e for (i, j), e in estimates.items()}
    return RunResult(metrics, {"likeness": matrix, "names": np.asarray(names, str)}, (about, how))


def _patterns(
    recordings: Mapping[str, Recording], rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], str]:
    """Arrays to compare, over the same stimuli in the same order, and what they are."""
    if len(recordings) > 1:
        shared = set.intersection(*(set(r.coord("stimulus")) for r in recordings.values()))
        stimuli = _enough(sorted(map(str, shared)))
        found = {s: _means(r, stimuli) for s, r in recordings.items()}
        return found, (
            f"Subjects were compared in pairs over the {len(stimuli)} stimuli that all saw, "
            "repeats averaged; nothing is fitted, so nothing was held out."
        )
    recording = next(iter(recordings.values()))
    stimuli = _enough(sorted(map(str, np.unique(recording.coord("stimulus")))))
    if "roi" in recording.array.coords:
        roi = recording.coord("roi").astype(str)
        if len(np.unique(roi)) > 1:
            means = _means(recording, stimuli, flat=False)
            found = {str(n): means[:, roi == n].reshape(len(means), -1) for n in np.unique(roi)}
            return found, (
                f"Regions of one subject were compared in pairs over {len(stimuli)} stimuli, "
                "repeats averaged: they share noise, which can make them alike."
            )
    return _halves(recording, rng)


def _halves(recording: Recording, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], str]:
    """Mean patterns of two random halves of the presentations of each repeated stimulus."""
    repeats = recording.repeats
    stimuli = _enough(sorted(map(str, repeats.index[repeats >= 2])), "repeated stimuli")
    shown = recording.coord("stimulus")
    half = np.full(len(shown), -1)
    for stimulus in stimuli:
        rows = rng.permutation(np.flatnonzero(shown == stimulus))
        half[rows] = np.arange(len(rows)) % 2
    found = {
        name: _means(recording.select(presentations=half == k), stimuli)
        for k, name in enumerate(("first half", "second half"))
    }
    return found, (
        f"Two random halves of the repeats of {len(stimuli)} stimuli were compared: the likeness "
        "of a representation to itself, measured anew. Halves share runs."
    )


def _means(recording: Recording, stimuli: list[str], flat: bool = True) -> np.ndarray:
    """Mean response to each stimulus, a time axis as further units."""
    means = recording.mean_over("stimulus")
    place = {str(s): i for i, s in enumerate(means.coord("stimulus"))}
    values = means.values[[place[s] for s in stimuli]]
    return values.reshape(len(values), -1) if flat else values


def _enough(stimuli: list[str], what: str = "shared stimuli") -> list[str]:
    if len(stimuli) < FEWEST:
        raise DataError(
            f"{len(stimuli)} {what} are too few to compare representations over",
            mend=f"use data with at least {FEWEST}",
        )
    return stimuli


def _overall(
    comparison: Any,
    patterns: Mapping[str, np.ndarray],
    matrix: np.ndarray,
    subjects: bool,
    rng: np.random.Generator,
) -> tuple[Estimate, str]:
    """Mean over pairs, with the interval of a jackknife over subjects or groups of stimuli."""
    mean = _pair_mean(matrix)
    n = len(matrix)
    if subjects and n >= 4:
        kept = (np.delete(np.arange(n), i) for i in range(n))
        left = [_pair_mean(matrix[np.ix_(rows, rows)]) for rows in kept]
        return _jackknife(mean, left), "The interval is the jackknife's over subjects."
    arrays = list(patterns.values())
    n_stimuli = len(arrays[0])
    groups = rng.permutation(np.arange(n_stimuli) % min(GROUPS, n_stimuli))
    without: list[float] = []
    for g in track(np.unique(groups).tolist(), "jackknife"):
        rows = groups != g
        values = [comparison.compare(a[rows], b[rows]).value for a, b in combinations(arrays, 2)]
        without.append(float(np.mean(values)))
    return _jackknife(mean, without), (
        f"The interval is the jackknife's over {len(without)} groups of stimuli."
    )


def _pair_mean(matrix: np.ndarray) -> float:
    return float(matrix[np.triu_indices(len(matrix), k=1)].mean())


def _jackknife(value: float, left: Sequence[float]) -> Estimate:
    """Interval of a value from the values that leaving out one of n gives (Tukey 1958)."""
    without = np.asarray(left)
    n = len(without)
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    half = float(stats.t.ppf(0.975, n - 1) * error)
    return Estimate(value, value - half, value + half)
