"""Small helpers that sections share: intervals over units and subjects, words for numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engramma.contracts import Estimate


def show(estimate: Estimate, digits: int = 2) -> str:
    """Write ``0.42 [0.38, 0.46]``, or the value alone where there is no interval."""
    if not np.isfinite([estimate.low, estimate.high]).all():
        return f"{estimate.value:.{digits}f}"
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def numbers(estimate: Estimate) -> dict[str, float]:
    """Write an estimate for JSON."""
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def show_p(p: float) -> str:
    """Write a p value."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def plural(count: int, noun: str) -> str:
    """Write ``1 run`` or ``12 runs``."""
    irregular = {"stimulus": "stimuli", "analysis": "analyses"}
    many = irregular.get(noun, noun + "s")
    return f"{count} {noun if count == 1 else many}"


def over_subjects(
    values: Sequence[float], rng: np.random.Generator, n_bootstrap: int = 5000
) -> Estimate:
    """Mean over subjects with a percentile bootstrap interval; no interval below three."""
    x = np.asarray(values, dtype=float)
    if len(x) < 3:
        return Estimate(float(x.mean()))
    means = x[rng.integers(0, len(x), (n_bootstrap, len(x)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(x.mean()), float(low), float(high))


def by_roi(values: np.ndarray, roi: np.ndarray | None) -> dict[str, np.ndarray]:
    """Sort unit values by region; one group called ``all units`` without regions."""
    if roi is None:
        return {"all units": values}
    return {str(r): values[roi == r] for r in dict.fromkeys(map(str, roi))}


def join(words: Sequence[str]) -> str:
    """Write ``a, b and c``."""
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def percentiles(values: np.ndarray) -> Mapping[str, Any]:
    """Summarise a distribution over units."""
    low, quarter, middle, three, high = np.nanpercentile(values, [5, 25, 50, 75, 95])
    return {
        "mean": float(np.nanmean(values)),
        "median": float(middle),
        "p5": float(low),
        "p25": float(quarter),
        "p75": float(three),
        "p95": float(high),
        "n_units": int(np.size(values)),
    }
