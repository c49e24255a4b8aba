"""Standard measures of representational likeness, for systems to be compared with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engramma.contracts import Estimate
from engramma.geometry.alignment import checked_pair, linear_cka, procrustes_distance, svcca
from engramma.geometry.comparisons import RSAComparison
from engramma.registry import system

TASKS = ("layer-identification",)


RSA_PAPER = (
    "Kriegeskorte N, Mur M, Bandettini P (2008). Representational similarity analysis: connecting "
    "the branches of systems neuroscience. Frontiers in Systems Neuroscience 2:4"
)


@system(
    "rsa-rank",
    family="geometry",
    title="RSA: Spearman correlation of Euclidean RDMs",
    contract="Comparison",
    paper=RSA_PAPER,
    tasks=TASKS,
    baseline=True,
)
def rank_rsa() -> RSAComparison:
    """Compare by the ranks of Euclidean distances."""
    return RSAComparison("euclidean", "spearman", n_bootstrap=0)


@system(
    "rsa-correlation",
    family="geometry",
    title="RSA: Pearson correlation of correlation-distance RDMs",
    contract="Comparison",
    paper=RSA_PAPER,
    tasks=TASKS,
    baseline=True,
)
def correlation_rsa() -> RSAComparison:
    """Compare by correlation distances."""
    return RSAComparison("correlation", "pearson", n_bootstrap=0)


class Alignment:
    """A measure of alignment between patterns, without a detour over RDMs.

    Parameters
    ----------
    measure : callable
        ``measure(a, b) -> float``, larger for more alike.
    interval : bool
        Whether to give the interval of the jackknife over stimuli. (Resampling with replacement
        would put copies of stimuli side by side, which align by themselves.)
    """

    def __init__(
        self, measure: Callable[[np.ndarray, np.ndarray], float], interval: bool = False
    ) -> None:
        self.measure, self.interval = measure, interval

    def compare(self, a: np.ndarray, b: np.ndarray) -> Estimate:
        """Compare two representations, stimulus x unit."""
        a, b = checked_pair(a, b)
        value = self.measure(a, b)
        if not self.interval:
            return Estimate(value)
        n = len(a)
        kept = (np.delete(np.arange(n), i) for i in range(n))
        without = np.array([self.measure(a[rows], b[rows]) for rows in kept])
        error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
        return Estimate(value, float(value - 1.96 * error), float(value + 1.96 * error))


@system(
    "cka",
    family="geometry",
    title="CKA, linear kernel, debiased",
    contract="Comparison",
    paper=(
        "Kornblith S, Norouzi M, Lee H, Hinton G (2019). Similarity of neural network "
        "representations revisited. ICML"
    ),
    tasks=TASKS,
    baseline=True,
)
def cka() -> Alignment:
    """Compare by centred kernel alignment."""
    return Alignment(linear_cka)


@system(
    "procrustes",
    family="geometry",
    title="Procrustes: angle that the best rotation leaves",
    contract="Comparison",
    paper=(
        "Williams AH, Kunz E, Kornblith S, Linderman SW (2021). Generalized shape metrics on "
        "neural representations. NeurIPS"
    ),
    tasks=TASKS,
    baseline=True,
)
def procrustes() -> Alignment:
    """Compare by the cosine that goes with the Procrustes distance ``d``: ``1 - d^2 / 2``."""
    return Alignment(lambda a, b: 1 - procrustes_distance(a, b) ** 2 / 2)


@system(
    "svcca",
    family="geometry",
    title="SVCCA, ten components",
    contract="Comparison",
    paper=(
        "Raghu M, Gilmer J, Yosinski J, Sohl-Dickstein J (2017). SVCCA: singular vector canonical "
        "correlation analysis for deep learning dynamics and interpretability. NeurIPS"
    ),
    tasks=TASKS,
    baseline=True,
)
def singular_vectors() -> Alignment:
    """Compare by canonical correlations of leading components."""
    return Alignment(lambda a, b: svcca(a, b, n_components=10))
