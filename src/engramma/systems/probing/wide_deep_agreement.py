"""How far judges agree with people: accuracy, macro-F1 and Cohen's kappa of three classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engramma.contracts import Estimate
from engramma.errors import DataError

PREFERENCES = ("first", "second", "tie")


def agreement(
    human: Sequence[str],
    judged: Sequence[str],
    *,
    rng: np.random.Generator | None = None,
    n_bootstrap: int = 2000,
) -> dict[str, Estimate]:
    """Agreement of two lists of preferences, with 95 % bootstrap intervals over items.

    Parameters
    ----------
    human, judged : sequence of {"first", "second", "tie"}
        Item by item.
    rng : numpy.random.Generator, optional
        Of the bootstrap; one of seed 0 by default.
    n_bootstrap : int

    Returns
    -------
    dict
        ``accuracy``, ``macro_f1`` (mean F1 of the classes that occur in either list) and ``kappa``
        (Cohen 1960: agreement beyond that of the marginals), NaN where it is not defined.

    Raises
    ------
    DataError
        If the lists are empty, of unequal length, or hold anything else.
    """
    if len(human) != len(judged) or not human:
        raise DataError(
            f"{len(human)} preferences of people and {len(judged)} of judges cannot be compared",
            mend="give one of each for every item",
        )
    unknown = ({*human} | {*judged}) - {*PREFERENCES}
    if unknown:
        raise DataError(f"there is no preference {min(unknown)!r}", mend="use first, second, tie")
    codes = np.array([[PREFERENCES.index(p) for p in people] for people in (human, judged)])
    table = np.bincount(codes[0] * 3 + codes[1], minlength=9)
    rng = np.random.default_rng(0) if rng is None else rng
    draws = rng.multinomial(len(human), table / table.sum(), size=n_bootstrap)
    found = _measures(table.reshape(1, 3, 3))
    resampled = _measures(draws.reshape(-1, 3, 3))
    return {name: Estimate(float(found[name][0]), *_interval(resampled[name])) for name in found}


def _measures(tables: np.ndarray) -> dict[str, np.ndarray]:
    """Measures of confusion tables, n x human x judged."""
    share = tables / tables.sum(axis=(1, 2), keepdims=True)
    hits = np.diagonal(share, axis1=1, axis2=2)
    human, judged = share.sum(axis=2), share.sum(axis=1)
    accuracy, expected = hits.sum(axis=1), (human * judged).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = np.where(human + judged > 0, 2 * hits / (human + judged), np.nan)
        kappa = np.where(expected < 1, (accuracy - expected) / (1 - expected), np.nan)
    return {"accuracy": accuracy, "macro_f1": np.nanmean(f1, axis=1), "kappa": kappa}


def _interval(values: np.ndarray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)
