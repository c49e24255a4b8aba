"""Standard measures of representational likeness, for systems to be compared with."""

from __future__ import annotations

import numpy as np

from engramma.contracts import Estimate
from engramma.errors import DataError
from engramma.geometry.compare import Similarity
from engramma.geometry.compare import compare as compare_rdms
from engramma.geometry.dissimilarity import Method, rdm
from engramma.registry import system

TASKS = ("layer-identification",)


class RSA:
    """Representational similarity analysis: compare the RDMs of two representations.

    Parameters
    ----------
    dissimilarity : str
        See `engramma.geometry.dissimilarity.rdm`.
    similarity : str
        See `engramma.geometry.compare.compare`.
    n_bootstrap : int
        Resamplings of the stimuli for the interval; without them it is NaN.
    seed : int
        Of the resamplings.
    """

    def __init__(
        self,
        dissimilarity: Method = "correlation",
        similarity: Similarity = "spearman",
        n_bootstrap: int = 0,
        seed: int = 0,
    ) -> None:
        self.dissimilarity, self.similarity = dissimilarity, similarity
        self.n_bootstrap, self.seed = n_bootstrap, seed

    def compare(self, a: np.ndarray, b: np.ndarray) -> Estimate:
        """Compare two representations, stimulus x unit."""
        _check_paired(a, b)
        first, second = rdm(a, self.dissimilarity), rdm(b, self.dissimilarity)
        value = float(compare_rdms(first, second, self.similarity)[0, 0])
        if not self.n_bootstrap:
            return Estimate(value)
        rng = np.random.default_rng(self.seed)
        counts = rng.multinomial(len(a), np.full(len(a), 1 / len(a)), size=self.n_bootstrap)
        draws = compare_rdms(first, second, self.similarity, counts=counts).ravel()
        low, high = np.nanpercentile(draws, [2.5, 97.5])
        return Estimate(value, float(low), float(high))


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
def rank_rsa() -> RSA:
    """Compare by the ranks of Euclidean distances."""
    return RSA("euclidean", "spearman")


@system(
    "rsa-correlation",
    family="geometry",
    title="RSA: Pearson correlation of correlation-distance RDMs",
    contract="Comparison",
    paper=RSA_PAPER,
    tasks=TASKS,
    baseline=True,
)
def correlation_rsa() -> RSA:
    """Compare by correlation distances."""
    return RSA("correlation", "pearson")


def _check_paired(a: np.ndarray, b: np.ndarray) -> None:
    if len(a) != len(b):
        raise DataError(
            f"{len(a)} and {len(b)} stimuli cannot be compared",
            mend="give responses to the same stimuli, in the same order",
        )
