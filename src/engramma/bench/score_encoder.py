"""Score an encoder on a recording it was not written for."""

from __future__ import annotations

from typing import Any

import numpy as np

from engramma.bench.claims import mean_interval
from engramma.bench.material import (
    condition_spaces,
    feature_spaces,
    for_encoder,
    holds_conditions,
    run_splits,
    stimulus_splits,
)
from engramma.contracts import Estimate, RunResult
from engramma.data.ceilings import variance_ceiling
from engramma.data.recording import Recording
from engramma.data.stimuli import MEDIA_COLUMNS
from engramma.encoding.encoders import CrossValidated, cross_validated_predictions
from engramma.encoding.scores import two_versus_two
from engramma.errors import DataError

#: Below this mean noise ceiling there is nothing to take a share of.
LEAST_CEILING = 0.05
#: Resamplings of the stimuli, and units resampled at once.
N_BOOTSTRAP, UNITS = 1000, 2048


def score_encoder(encoder: Any, recording: Recording, rng: np.random.Generator) -> RunResult:
    """Predict held-out stimuli, or held-out runs where stimuli are conditions without media.

    Parameters
    ----------
    encoder : Encoder
        Unfitted; each fold fits a copy.
    recording : Recording
        Of one subject.
    rng : numpy.random.Generator

    Returns
    -------
    RunResult
        ``correlation`` (mean over units), ``share of ceiling`` where stimuli were repeated, and
        ``two-versus-two``; arrays ``correlation``, ``ceiling`` and ``predictions``.
    """
    shown = recording.stimuli.select(np.unique(recording.coord("stimulus")))
    by_run = holds_conditions(recording) and not any(shown.has(m) for m in MEDIA_COLUMNS)
    if by_run:
        spaces = condition_spaces(shown)
        rows = recording.mean_over("session", "run", "stimulus")
        splits, about = run_splits(rows)
        about = f"Repeats within a run were averaged. {about}"
    else:
        spaces = feature_spaces(shown)
        rows, splits, about = stimulus_splits(recording, rng)
    features = for_encoder(encoder, spaces)
    result = cross_validated_predictions(
        encoder, features, rows, splits, allow=("stimulus",) if by_run else ("run",)
    )
    r = result.correlation
    averaged = recording.n_presentations / rows.n_presentations if by_run else None
    ceiling = _ceiling(recording, averaged)
    weights = {"correlation": np.full(r.size, 1 / r.size)}
    notes = [
        about,
        f"Features: {', '.join(f'{n} ({f.n_features})' for n, f in spaces.items())}.",
        "Correlations are within test sets, averaged over them; intervals "
        + (
            "are over runs (Student's t or bootstrap, the wider)."
            if by_run
            else "resample stimuli."
        ),
    ]
    arrays = {"correlation": r, "predictions": result.predictions}
    if ceiling is None:
        notes.append("Stimuli were not repeated, so there is no noise ceiling.")
    else:
        arrays["ceiling"] = ceiling
        if ceiling.mean() >= LEAST_CEILING:
            weights["share of ceiling"] = weights["correlation"] / ceiling.mean()
            notes.append(
                "The share of ceiling is the mean correlation over the mean noise ceiling "
                f"({ceiling.mean():.3g}) of all units, none chosen: units that seem reliable by "
                "chance in these data would seem predictable in them, too."
            )
        else:
            notes.append(f"The mean noise ceiling is below {LEAST_CEILING}: no share is given.")
    groups = rows.coord("stimulus")
    columns = np.stack(list(weights.values()), axis=1)
    if by_run:  # conditions are too few to draw from; runs are what the score generalises over
        estimates = [mean_interval(v) for v in _of_sets(result, columns).T]
    else:
        estimates = resampled(rows.values, result, groups, columns, rng)
    metrics = dict(zip(weights, estimates, strict=True))
    metrics["two-versus-two"] = _pairs(rows.values, result, groups)
    metrics["two-versus-two chance"] = Estimate(0.5)
    return RunResult(metrics, arrays, tuple(notes))


def resampled(
    truth: np.ndarray,
    result: CrossValidated,
    groups: np.ndarray,
    columns: np.ndarray,
    rng: np.random.Generator,
    n_bootstrap: int = N_BOOTSTRAP,
) -> list[Estimate]:
    """Weighted sums over units of their correlation, each with an interval over stimuli.

    The correlation of a unit is the mean over test sets of that within each. Correlated over all
    test sets at once, a model that knows nothing would score below 0: what a weak model predicts
    is the stronger, the less the responses held out contradict the others.

    Parameters
    ----------
    truth : ndarray, shape (n_presentations, n_units[, n_times])
    result : CrossValidated
    groups : ndarray, shape (n_presentations,)
        What is drawn together, with replacement.
    columns : ndarray, shape (n_units * n_times, n_sums)
        Weights of units.
    rng : numpy.random.Generator
    n_bootstrap : int

    Returns
    -------
    list of Estimate
        One for each of ``columns``, with a 95 % percentile interval.
    """
    codes = np.unique(groups, return_inverse=True)[1]
    n = codes.max() + 1
    draws = rng.multinomial(n, np.full(n, 1 / n), size=n_bootstrap)[:, codes].astype(np.float64)
    draws = np.vstack([np.ones(len(codes)), draws])  # the first row is the data themselves
    y, p = (x.reshape(len(x), -1) for x in (truth, result.predictions))
    sets = [rows for k in np.unique(result.split) if (rows := result.split == k).sum() > 1]
    sums = np.zeros((len(draws), columns.shape[1]))
    for rows in sets:
        share = draws[:, rows] / np.maximum(draws[:, rows].sum(axis=1, keepdims=True), 1)
        for start in range(0, y.shape[1], UNITS):
            here = slice(start, start + UNITS)
            r = _weighted_correlation(share, y[rows, here], p[rows, here])
            sums += r @ columns[here] / len(sets)
    low, high = np.quantile(sums[1:], [0.025, 0.975], axis=0)
    return [
        Estimate(float(v), float(a), float(b)) for v, a, b in zip(sums[0], low, high, strict=True)
    ]


def _of_sets(result: CrossValidated, columns: np.ndarray) -> np.ndarray:
    """Weighted sums over units of the correlation in each test set that has one."""
    by_set = result.by_split.reshape(len(result.by_split), -1)
    return by_set[~np.isnan(by_set).any(axis=1)] @ columns


def _weighted_correlation(share: np.ndarray, y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Correlation of each unit under each row of weights, shape (n_draws, n_units).

    It is 0 where a unit, or its prediction, does not vary by more than float32 rounds.
    """
    y, p = _standard(y), _standard(p)
    mean_y, mean_p = share @ y, share @ p
    var_y, var_p = share @ y**2 - mean_y**2, share @ p**2 - mean_p**2
    varies = (var_y > 1e-9) & (var_p > 1e-9)
    norm = np.sqrt(np.where(varies, var_y * var_p, 1.0))
    return np.where(varies, (share @ (y * p) - mean_y * mean_p) / norm, 0.0)


def _standard(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    level = np.abs(values).max(axis=0)
    values -= values.mean(axis=0)
    spread = values.std(axis=0)
    varies = spread > 1e-6 * level
    return np.where(varies, values / np.where(varies, spread, 1.0), 0.0)


def _ceiling(recording: Recording, n_averaged: float | None) -> np.ndarray | None:
    try:
        count = None if n_averaged is None else max(1, round(n_averaged))
        return variance_ceiling(recording, n_averaged=count).correlation
    except DataError:  # no repeats: there is no ceiling, and the notes say so
        return None


def _pairs(truth: np.ndarray, result: CrossValidated, groups: np.ndarray) -> Estimate:
    """Two-versus-two within each test set, means removed, and its mean over them."""
    values = []
    for k in np.unique(result.split):
        rows = result.split == k
        if len(np.unique(groups[rows])) > 1:
            seen, predicted = _centred(truth[rows]), _centred(result.predictions[rows])
            values.append(two_versus_two(seen, predicted, groups[rows]))
    interval = mean_interval(values)
    return Estimate(interval.value, max(interval.low, 0.0), min(interval.high, 1.0))


def _centred(values: np.ndarray) -> np.ndarray:
    """Less the mean; a unit whose rest is what float32 rounds is set to 0."""
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    varies = np.abs(centred).max(axis=0) > 1e-6 * np.abs(values).max(axis=0)
    return np.where(varies, centred, 0.0)
