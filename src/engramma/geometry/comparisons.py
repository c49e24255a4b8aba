"""Baselines that fulfil the contract Comparison: RSA and CKA with intervals over stimuli."""

from __future__ import annotations

import numpy as np

from engramma.contracts import Estimate
from engramma.errors import ConfigError
from engramma.geometry.alignment import checked_pair, cka, gaussian_kernel, linear_kernel
from engramma.geometry.bootstrap import FEWEST, draw
from engramma.geometry.compare import Similarity, compare
from engramma.geometry.dissimilarity import Method, rdm


class RSAComparison:
    """Similarity of the RDMs of two representations, bootstrapped over stimuli.

    Parameters
    ----------
    dissimilarity : str
        Of patterns, see `rdm`.
    similarity : str
        Of RDMs, see `compare`.
    n_bootstrap : int
        0 leaves the interval out, which leaderboards of thousands of comparisons do without.
    seed : int
        Of the bootstrap.
    """

    def __init__(
        self,
        dissimilarity: Method = "correlation",
        similarity: Similarity = "spearman",
        n_bootstrap: int = 1000,
        seed: int = 0,
    ) -> None:
        if dissimilarity in ("mahalanobis", "crossnobis"):
            raise ConfigError(
                f"{dissimilarity} distances need repeats, which one pattern a stimulus lacks",
                mend="use rdm_from_recording and compare",
            )
        self.dissimilarity = dissimilarity
        self.similarity = similarity
        self.n_bootstrap = n_bootstrap
        self.seed = seed

    def compare(self, a: np.ndarray, b: np.ndarray) -> Estimate:
        """Compare two stimulus x unit arrays; the interval holds 95 % of bootstrap samples."""
        a, b = checked_pair(a, b)
        first, second = rdm(a, self.dissimilarity), rdm(b, self.dissimilarity)
        value = float(compare(first, second, self.similarity)[0, 0])
        if not self.n_bootstrap:
            return Estimate(value)
        counts = draw(len(a), self.n_bootstrap, np.random.default_rng(self.seed))
        counts = counts[(counts > 0).sum(axis=1) >= FEWEST]
        samples = compare(first, second, self.similarity, counts=counts)[:, 0, 0]
        low, high = np.nanpercentile(samples, [2.5, 97.5])
        se = float(np.nanstd(samples, ddof=1))
        return Estimate(value, float(low), float(high), {"se": se, "n_stimuli": len(a)})


class CKAComparison:
    """Centred kernel alignment of two representations, with an interval over stimuli.

    The kernels of a bootstrap sample hold copies of stimuli, which are perfectly similar in both
    and push the alignment up. So the spread is taken from random halves of the stimuli instead,
    drawn without replacement: their variance is that of the whole sample (the delete-half
    jackknife; Shao & Wu 1989, Ann Stat).

    Parameters
    ----------
    kernel : {"linear", "gaussian"}
    debiased : bool
        See `linear_cka`.
    bandwidth : float
        Of the Gaussian kernel, see `kernel_cka`.
    n_halves, seed : int
    """

    def __init__(
        self,
        kernel: str = "linear",
        debiased: bool = True,
        bandwidth: float = 0.5,
        n_halves: int = 500,
        seed: int = 0,
    ) -> None:
        if kernel not in ("linear", "gaussian"):
            raise ConfigError(f"there is no kernel {kernel!r}", mend="use linear or gaussian")
        self.kernel = kernel
        self.debiased = debiased
        self.bandwidth = bandwidth
        self.n_halves = n_halves
        self.seed = seed

    def compare(self, a: np.ndarray, b: np.ndarray) -> Estimate:
        """Compare two stimulus x unit arrays over eight stimuli or more; the interval is 95 %."""
        a, b = checked_pair(a, b)
        n = len(a)
        if n < 8:
            raise ConfigError(f"{n} stimuli have no halves to align", mend="give eight or more")
        k, l = (self._kernel(x) for x in (a, b))  # noqa: E741
        value = cka(k, l, debiased=self.debiased)
        rng = np.random.default_rng(self.seed)
        samples = []
        for _ in range(self.n_halves):
            half = np.ix_(*[rng.permutation(n)[: n // 2]] * 2)
            samples.append(cka(k[half], l[half], debiased=self.debiased))
        # Exact for even n; with n odd the halves are a little less than one.
        se = float(np.std(samples, ddof=1) * np.sqrt((n // 2) / (n - n // 2)))
        return Estimate(value, value - 1.96 * se, value + 1.96 * se, {"se": se, "n_stimuli": n})

    def _kernel(self, x: np.ndarray) -> np.ndarray:
        return linear_kernel(x) if self.kernel == "linear" else gaussian_kernel(x, self.bandwidth)
