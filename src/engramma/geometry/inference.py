"""Which model explains the geometry, and how sure one can be.

Models are compared with each subject's RDM; the mean similarity is the result. Bootstrapping
stimuli and subjects gives its variance, from which intervals and t tests follow, as in Nili et
al. 2014 (PLoS Comput Biol) and Schütt et al. 2023 (eLife).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.stats import t as student

from engramma.contracts import Estimate
from engramma.data.rdms import RDMs
from engramma.errors import ConfigError, DataError
from engramma.geometry.bootstrap import BOTH, bootstrap
from engramma.geometry.ceiling import noise_ceiling
from engramma.geometry.compare import Similarity, compare
from engramma.geometry.corrections import false_discovery, holm
from engramma.geometry.pairs import checked_rdms, n_stimuli_of

Factor = Literal["stimuli", "subjects"]


@dataclass(frozen=True)
class ModelEvaluation:
    """How well models explain RDMs.

    Parameters
    ----------
    estimates : mapping of str to Estimate
        Mean similarity over subjects with its 95 % interval. ``details``: ``se``; ``p_zero``, one
        sided, against no similarity; ``p_ceiling``, two sided, against the lower bound of the
        ceiling; both also corrected over models (``p_zero_holm``, ``p_zero_fdr``, ...); and
        ``percentiles``, the 95 % range of the bootstrap samples.
    ceiling : (float, float) or None
        Lower and upper bound of the noise ceiling.
    similarities : ndarray, shape (n_models, n_subjects)
    pairwise : pandas.DataFrame
        One row a pair of models: ``model_a``, ``model_b``, ``difference`` (a - b), ``low``,
        ``high``, ``p`` (two sided), ``p_holm``, ``p_fdr``.
    samples : ndarray, shape (n_bootstrap, n_models)
        Bootstrap samples of the mean similarity (of both factors together, where there are two).
    method : str
    over : tuple of str
        What was bootstrapped.
    notes : tuple of str
        What a reader must know: what the ceiling is over, what could not be done.
    """

    estimates: Mapping[str, Estimate]
    ceiling: tuple[float, float] | None
    similarities: np.ndarray
    pairwise: pd.DataFrame
    samples: np.ndarray
    method: str
    over: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> str:
        """Name of the model with the largest mean similarity."""
        return max(self.estimates, key=lambda name: self.estimates[name].value)

    def table(self) -> pd.DataFrame:
        """One row a model, best first."""
        rows = [
            {"model": name, "value": e.value, "low": e.low, "high": e.high, **e.details}
            for name, e in self.estimates.items()
        ]
        return pd.DataFrame(rows).sort_values("value", ascending=False, ignore_index=True)


def evaluate_models(
    data_rdms: np.ndarray,
    models: Mapping[str, np.ndarray],
    method: Similarity = "spearman",
    n_bootstrap: int = 1000,
    over: Sequence[Factor] = ("stimuli", "subjects"),
    *,
    rng: np.random.Generator,
    corrected: bool = True,
    rows: str = "subjects",
) -> ModelEvaluation:
    """Compare models with measured RDMs.

    Parameters
    ----------
    data_rdms : ndarray, shape (n_subjects, n_pairs)
        With one RDM there is no noise ceiling, and stimuli only are bootstrapped.
    models : mapping of str to ndarray, shape (n_pairs,)
    method : str
        See `engramma.geometry.compare.compare`. ``"rho-a"`` or ``"kendall"`` where some models
        predict tied dissimilarities (categories) and are compared with others.
    n_bootstrap : int
    over : sequence of {"stimuli", "subjects"}
        What the results shall generalise to.
    rng : numpy.random.Generator
    corrected : bool
        Where stimuli and subjects are both bootstrapped: estimate the variance from the
        bootstraps of each factor and of both (Schütt et al. 2023), as that of both alone
        is about three times too large when the noise of measurement dominates.
    rows : str
        What the RDMs are of (``"sessions"``, ``"runs"`` of one subject), said in the notes.

    Returns
    -------
    ModelEvaluation

    Raises
    ------
    DataError
        If RDMs differ in size, hold NaN or do not vary, or there are fewer than three stimuli.
    ConfigError
        If there is no model, or nothing to bootstrap.
    """
    data = checked_rdms(data_rdms, f"the RDMs of {rows}")
    names, predictions = checked_models(models, data.shape[1])
    factors, notes = _factors(over, len(data), rows)
    similarities = compare(predictions, data, method)
    ceiling = noise_ceiling(data, method) if len(data) > 1 else None
    boot = bootstrap(data, predictions, method, n_bootstrap, factors, rng=rng, single=corrected)
    unusable = int(np.isnan(boot[factors][:, : len(names)]).any(axis=1).sum())
    if unusable:
        notes.append(
            f"In {unusable} of {n_bootstrap} bootstrap samples a model did not vary; "
            "they were left out of its interval."
        )
    n_stimuli = n_stimuli_of(data.shape[1])
    sizes = {"stimuli": n_stimuli, "subjects": len(data)}
    dof = min(sizes[f] for f in factors) - 1
    variances = _Variances(boot, sizes, corrected)
    samples = boot[factors]
    return ModelEvaluation(
        estimates=_estimates(names, similarities, ceiling, variances, samples, dof),
        ceiling=ceiling,
        similarities=similarities,
        pairwise=_pairwise(names, similarities.mean(axis=1), variances, dof),
        samples=samples[:, : len(names)],
        method=method,
        over=factors,
        notes=tuple(notes),
    )


def evaluate_rdms(
    rdms: RDMs, models: Mapping[str, np.ndarray], method: Similarity = "spearman", **options: Any
) -> ModelEvaluation:
    """Compare models with the RDMs of subjects, or of the sessions of one subject.

    Sessions of a subject are averaged first where there are several subjects. Further
    parameters are those of `evaluate_models`.
    """
    if len(set(rdms.subject)) > 1:
        rdms = rdms.by_subject()
        return evaluate_models(rdms.dissimilarities, models, method, **options)
    return evaluate_models(rdms.dissimilarities, models, method, **{"rows": "sessions"} | options)


# -- from bootstrap samples to intervals and tests -----------------------------------------


@dataclass(frozen=True)
class _Variances:
    """Variances of what is computed from bootstrap samples of models and ceiling."""

    samples: Mapping[tuple[str, ...], np.ndarray]
    sizes: Mapping[str, int]
    corrected: bool

    def of(self, statistic: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Variance of each column that ``statistic`` makes of samples (n_bootstrap, n_columns)."""
        by_factor = {f: np.nanvar(statistic(s), axis=0, ddof=1) for f, s in self.samples.items()}
        small = {f: n / (n - 1) for f, n in self.sizes.items() if n > 1}
        if len(by_factor) == 1 and BOTH not in by_factor:
            (factor,), variance = next(iter(by_factor.items()))
            return variance * small[factor]
        both = by_factor[BOTH]
        if not self.corrected:
            return both * max(small.values())
        stimuli, subjects = by_factor[("stimuli",)], by_factor[("subjects",)]
        # The noise of single measurements is in all three; take out what is counted twice.
        twice = (both - stimuli - subjects) * small["stimuli"] * small["subjects"]
        stimuli, subjects = stimuli * small["stimuli"], subjects * small["subjects"]
        variance = np.maximum(stimuli + subjects - twice, np.maximum(stimuli, subjects))
        return np.minimum(variance, both)


def _estimates(
    names: list[str],
    similarities: np.ndarray,
    ceiling: tuple[float, float] | None,
    variances: _Variances,
    samples: np.ndarray,
    dof: int,
) -> dict[str, Estimate]:
    """Means with intervals, and tests against zero and the lower bound of the ceiling."""
    k, mean = len(names), similarities.mean(axis=1)
    se = _root(variances.of(lambda s: s[:, :k]))
    half = student.ppf(0.975, dof) * se
    tests = {"zero": student.sf(mean / se, dof)}
    if ceiling is not None:
        se_below = _root(variances.of(lambda s: s[:, :k] - s[:, [k]]))
        tests["ceiling"] = 2 * student.sf(np.abs(mean - ceiling[0]) / se_below, dof)
    details: dict[str, np.ndarray] = {"se": se}
    for name, p in tests.items():
        details |= {f"p_{name}": p, f"p_{name}_holm": holm(p), f"p_{name}_fdr": false_discovery(p)}
    percentiles = np.nanpercentile(samples[:, :k], [2.5, 97.5], axis=0).T
    return {
        name: Estimate(
            float(mean[i]),
            # No similarity lies beyond 1, however wide the interval of few stimuli or subjects.
            float(max(mean[i] - half[i], -1.0)),
            float(min(mean[i] + half[i], 1.0)),
            {d: float(v[i]) for d, v in details.items()}
            | {"percentiles": tuple(map(float, percentiles[i]))},
        )
        for i, name in enumerate(names)
    }


def _pairwise(names: list[str], mean: np.ndarray, variances: _Variances, dof: int) -> pd.DataFrame:
    """Differences between models."""
    a, b = np.triu_indices(len(names), k=1)
    se = _root(variances.of(lambda s: s[:, a] - s[:, b]))
    difference, half = mean[a] - mean[b], student.ppf(0.975, dof) * se
    p = 2 * student.sf(np.abs(difference) / se, dof)
    return pd.DataFrame(
        {
            "model_a": [names[i] for i in a],
            "model_b": [names[i] for i in b],
            "difference": difference,
            "low": difference - half,
            "high": difference + half,
            "p": p,
            "p_holm": holm(p),
            "p_fdr": false_discovery(p),
        }
    )


def _root(variance: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(variance, np.finfo(float).eps))


# -- checks --------------------------------------------------------------------------------


def checked_models(models: Mapping[str, np.ndarray], n_pairs: int) -> tuple[list[str], np.ndarray]:
    """Return names and values of models that can be compared with RDMs of ``n_pairs`` pairs."""
    if not models:
        raise ConfigError("there is no model to evaluate")
    for name, model in models.items():
        if np.shape(model) != (n_pairs,):
            raise DataError(
                f"model {name!r} has shape {np.shape(model)}, the measured RDMs {n_pairs} pairs",
                mend="build it over the same stimuli, in the same order",
            )
        values = checked_rdms(model, f"model {name!r}")
        if np.ptp(values) == 0:
            raise DataError(
                f"model {name!r} predicts one dissimilarity for all pairs",
                mend="leave it out, or check the labels it was made from",
            )
    return list(models), np.stack([np.asarray(m, dtype=np.float64) for m in models.values()])


def _factors(
    over: Sequence[Factor], n_rows: int, rows: str
) -> tuple[tuple[Factor, ...], list[str]]:
    """Say what can be bootstrapped, and what a reader must know about it."""
    unknown = set(over) - {"stimuli", "subjects"}
    if unknown or not over:
        raise ConfigError(
            f"cannot bootstrap over {', '.join(map(str, over)) or 'nothing'}",
            mend='use over=("stimuli",), ("subjects",) or both',
        )
    factors: tuple[Factor, ...] = tuple(f for f in BOTH if f in over)  # type: ignore[misc]
    if n_rows == 1:
        if factors == ("subjects",):
            raise ConfigError("one RDM cannot be bootstrapped over", mend='use over=("stimuli",)')
        return ("stimuli",), ["There is one RDM only: no noise ceiling, no spread over subjects."]
    if rows == "subjects":
        return factors, [f"The noise ceiling is over {n_rows} subjects."]
    return factors, [
        f"The noise ceiling is over {n_rows} {rows} of one subject: it tells what "
        "repeated measurement allows, and nothing of other subjects."
    ]
