"""Convergent learning: do different networks learn the same representations? (Li et al. 2016).

**Question.** Two networks differ only in the seed they were trained from. Do their units
correspond: one to one, one to few, or only group to group? Three alignments answer, from local to
distributed.

1. **Statistics.** Both networks see the same stimuli. A unit of a convolutional layer is a map;
   every position of every image is one sample. Means, standard deviations, the correlations
   ``C^n``, ``C^m`` within the networks and ``C^{n,m}`` between them are gathered in one pass, in
   float64. Mutual information (ten percentile bins, bias removed) checks for nonlinear relations.
2. **One to one.** *Semi-matching* gives each unit of n the unit of m with the largest
   ``C^{n,m}_{ij}``, repeats allowed. *Bipartite matching* maximises the sum over pairs, no repeats.
   A unit that does well in the first and badly in the second is present in both networks, but in
   different numbers.
3. **One to few.** Standardised units of n predict each standardised unit of m by a 1 x 1
   convolution ``W`` with an L1 penalty: minimise ``1/2 E|y - W x|^2 + penalty |W|_1`` a target.
   0.5 is the loss of predicting the mean. The exact minimum is found from the correlations;
   `sparse_map_by_descent` is the published stochastic descent. (The released solver averages its
   loss over targets too, so its ``weight_decay`` times the number of targets is the penalty here.)
4. **Group to group.** Spectral clustering of ``|C^{n,m}|`` between the two layers (or of the joint
   matrix with ``C^n`` and ``C^m``), with as many blocks as the largest gap between eigenvalues
   says, repeated inside each block.
5. **Controls.** Untrained networks, shuffled samples (the largest of many correlations is
   positive even then), and a copy of one network with permuted units. Where positions are samples,
   shuffling stimuli alone is no such control: maps that prefer the same places still correlate. It
   tells how much of a correspondence is about where, not what.

Units that do not vary (dead) have no correlation; they are dropped and listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from engramma.contracts import Estimate, RunResult
from engramma.errors import ConfigError, DataError
from engramma.geometry.matching import (
    Blocks,
    Kind,
    Matching,
    bipartite_affinity,
    hierarchical_blocks,
    joint_affinity,
    match_units,
    sparse_map,
    spectral_blocks,
)
from engramma.geometry.regions import patterns_by_region
from engramma.geometry.unit_correlations import Correlations, correlate, standardised
from engramma.nn.statistics import mutual_information, positions_as_samples
from engramma.registry import system
from engramma.systems.geometry.convergent_learning_claims import CLAIMS


@dataclass(frozen=True)
class SparseMap:
    """Prediction of each unit of the second network from few units of the first.

    Parameters
    ----------
    weights : ndarray, shape (n_first, n_second)
        For standardised live units.
    loss : ndarray, shape (n_second,)
        Half the mean squared error of each target; 0.5 is that of its mean.
    n_inputs : ndarray of int, shape (n_second,)
        Weights above the threshold.
    penalty : float
    """

    weights: np.ndarray
    loss: np.ndarray
    n_inputs: np.ndarray
    penalty: float


class ConvergentLearning:
    """Alignment of the units of two networks.

    Parameters
    ----------
    kind : {"bipartite", "semi"}
        Matching that `compare` reports.
    n_bootstrap : int
        Resamplings of the samples for the interval of `compare`; without them it is NaN.
    seed : int
        Of the resamplings and of K-means.
    """

    def __init__(self, kind: Kind = "bipartite", n_bootstrap: int = 0, seed: int = 0) -> None:
        if kind not in ("bipartite", "semi"):
            raise ConfigError(f"there is no matching {kind!r}", mend="choose bipartite or semi")
        self.kind: Kind = kind
        self.n_bootstrap, self.seed = n_bootstrap, seed

    def correlate(self, a: np.ndarray, b: np.ndarray) -> Correlations:
        """Gather the statistics of step 1; see `engramma.geometry.unit_correlations.correlate`."""
        return correlate(a, b)

    def match(self, a: np.ndarray, b: np.ndarray, kind: Kind | None = None) -> Matching:
        """Match units by correlation (step 2); positions are those in ``a`` and ``b``."""
        found = self.correlate(a, b)
        pairs = match_units(found.between, kind or self.kind)
        return Matching(
            found.live_first[pairs.first], found.live_second[pairs.second], pairs.similarity
        )

    def information(self, a: np.ndarray, b: np.ndarray, n_bins: int = 10) -> np.ndarray:
        """Mutual information between all units in nats, shape (n_first, n_second)."""
        return mutual_information(positions_as_samples(a), positions_as_samples(b), n_bins)

    def compare(self, a: np.ndarray, b: np.ndarray) -> Estimate:
        """Mean correlation of matched units.

        ``details`` hold the pairs. The interval, if asked for, resamples stimuli and matches
        anew each time.
        """
        pairs = self.match(a, b)
        details = {"first": pairs.first, "second": pairs.second, "correlation": pairs.similarity}
        if not self.n_bootstrap:
            return Estimate(pairs.mean, details=details)
        rng = np.random.default_rng(self.seed)
        draws = []
        for _ in range(self.n_bootstrap):
            rows = rng.integers(len(a), size=len(a))
            draws.append(self.match(a[rows], b[rows]).mean)
        low, high = np.percentile(draws, [2.5, 97.5])
        return Estimate(pairs.mean, float(low), float(high), details)

    def sparse_map(
        self,
        a: np.ndarray,
        b: np.ndarray,
        penalty: float,
        *,
        test: tuple[np.ndarray, np.ndarray] | None = None,
        threshold: float = 1e-3,
    ) -> SparseMap:
        """Predict units of ``b`` from few units of ``a`` (step 3).

        Parameters
        ----------
        a, b : ndarray
            As for `correlate`; the weights are fitted here.
        penalty : float
        test : pair of ndarray, optional
            Activations for other stimuli, where the loss is measured; standardised by the means
            and deviations of ``a`` and ``b``.
        threshold : float
            Weights of a smaller size are not counted as inputs.
        """
        found = self.correlate(a, b)
        x, y = standardised(a, b, found, test)
        weights = sparse_map(found.within_first, found.between, penalty)
        return _measured(weights, x, y, penalty, threshold)

    def sweep(
        self, a: np.ndarray, b: np.ndarray, penalties: Sequence[float], **options: Any
    ) -> list[SparseMap]:
        """Solve `sparse_map` for several penalties."""
        return [self.sparse_map(a, b, penalty, **options) for penalty in penalties]

    def cluster(
        self,
        a: np.ndarray,
        b: np.ndarray,
        n_blocks: int | None = None,
        affinity: Literal["between", "joint"] = "between",
    ) -> tuple[Blocks, np.ndarray]:
        """Group the units of both networks (step 4).

        Parameters
        ----------
        n_blocks : int, optional
            By default from the largest gap between eigenvalues.
        affinity : {"between", "joint"}
            Whether correlations within the networks count too.

        Returns
        -------
        blocks : Blocks
            Labels of the live units of ``a``, then of those of ``b``.
        levels : ndarray of int, shape (n_levels, n_units)
            The blocks, and their repeated splits.
        """
        found = self.correlate(a, b)
        if affinity == "between":
            matrix = bipartite_affinity(found.between)
        elif affinity == "joint":
            matrix = joint_affinity(found.within_first, found.within_second, found.between)
        else:
            raise ConfigError(f"there is no affinity {affinity!r}", mend="choose between or joint")
        blocks = spectral_blocks(matrix, n_blocks, rng=np.random.default_rng(self.seed))
        levels = hierarchical_blocks(matrix, rng=np.random.default_rng(self.seed))
        return blocks, levels

    def report(self, a: np.ndarray, b: np.ndarray) -> RunResult:
        """Align two networks at all three levels, beside shuffled samples.

        The sparse map is fitted on one half of the stimuli and measured on the other.
        """
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(len(a))
        half = np.array_split(order, 2)
        found = self.correlate(a, b)
        pairs = match_units(found.between, "bipartite")
        semi = match_units(found.between, "semi")
        x, y = positions_as_samples(a), positions_as_samples(b)
        shuffled = (x, y[rng.permutation(len(y))])
        maps = self.sweep(
            a[half[0]], b[half[0]], (0.0, 0.01, 0.03, 0.1, 0.3), test=(a[half[1]], b[half[1]])
        )
        blocks, levels = self.cluster(a, b)
        metrics = {
            "bipartite correlation": Estimate(pairs.mean),
            "semi-matching correlation": Estimate(semi.mean),
            "bipartite correlation, samples shuffled": Estimate(
                self.match(*shuffled, "bipartite").mean
            ),
            "semi-matching correlation, samples shuffled": Estimate(
                self.match(*shuffled, "semi").mean
            ),
            "bipartite correlation, stimuli shuffled": Estimate(
                self.match(a, b[order], "bipartite").mean
            ),
            "blocks": Estimate(blocks.n_blocks),
        }
        for fitted in maps:
            name = f"loss at penalty {fitted.penalty:g}"
            metrics[name] = Estimate(float(fitted.loss.mean()))
            metrics[f"inputs at penalty {fitted.penalty:g}"] = Estimate(
                float(fitted.n_inputs.mean())
            )
        notes = [
            f"{len(found.live_first)} units of the first and {len(found.live_second)} of the "
            "second network vary and were aligned."
        ]
        if len(found.dead_first) or len(found.dead_second):
            notes.append(
                f"Units that never vary were dropped: {found.dead_first.tolist()} of the first, "
                f"{found.dead_second.tolist()} of the second network."
            )
        arrays = {
            "first": found.live_first[pairs.first],
            "second": found.live_second[pairs.second],
            "correlation": pairs.similarity,
            "semi_second": found.live_second[semi.second],
            "semi_correlation": semi.similarity,
            "blocks": levels,
            "eigenvalues": blocks.eigenvalues,
        }
        return RunResult(metrics, arrays, tuple(notes))


def sparse_map_by_descent(
    a: np.ndarray,
    b: np.ndarray,
    penalty: float,
    *,
    rng: np.random.Generator,
    learning_rate: float = 1e-3,
    momentum: float = 0.98,
    iterations: int = 4500,
    halve_every: int = 1500,
    batch: int = 32,
    threshold: float = 1e-3,
) -> SparseMap:
    """Fit the sparse map as published: stochastic descent on batches of stimuli.

    The penalty enters as ``penalty * sign(W)`` in the gradient, so that weights hover around zero
    instead of reaching it, and are counted by a threshold. The steps are those of a loss averaged
    over samples and summed over targets.

    Parameters
    ----------
    a, b : ndarray
        As for `ConvergentLearning.correlate`.
    penalty : float
    rng : numpy.random.Generator
        Draws the initial weights (standard deviation 0.01) and the batches.
    learning_rate, momentum, iterations, halve_every, batch
        Of the published solver.
    threshold : float

    Returns
    -------
    SparseMap
        With the loss on ``a`` and ``b``.
    """
    found = correlate(a, b)
    x, y = standardised(a, b, found, None)
    positions = len(x) // len(a)
    weights = 0.01 * rng.standard_normal(found.between.shape)
    velocity = np.zeros_like(weights)
    for iteration in range(iterations):
        stimuli = rng.integers(len(a), size=batch)
        rows = (stimuli[:, None] * positions + np.arange(positions)).ravel()
        error = x[rows] @ weights - y[rows]
        gradient = x[rows].T @ error / len(rows) + penalty * np.sign(weights)
        rate = learning_rate * 0.5 ** (iteration // halve_every)
        velocity = momentum * velocity - rate * gradient
        weights += velocity
    return _measured(weights, x, y, penalty, threshold)


def _measured(
    weights: np.ndarray, x: np.ndarray, y: np.ndarray, penalty: float, threshold: float
) -> SparseMap:
    loss = 0.5 * ((y - x @ weights) ** 2).mean(axis=0)
    return SparseMap(weights, loss, (np.abs(weights) > threshold).sum(axis=0), penalty)


# -- registration --------------------------------------------------------------------------


def run(data: Any, *, seed: int = 0) -> RunResult:
    """Align every pair of subjects, region by region.

    Parameters
    ----------
    data : Cohort or Recording
        At least two subjects (networks) with responses to the same stimuli.
    seed : int
        Of the shuffling that gives the chance level.
    """
    patterns, stimuli = patterns_by_region(data)
    subjects = sorted({subject for subject, _ in patterns})
    if len(subjects) < 2:
        raise DataError(
            "one subject has nothing to be aligned with", mend="give at least two subjects"
        )
    metrics, arrays, dead = {}, {}, 0
    method = ConvergentLearning(seed=seed)
    order = np.random.default_rng(seed).permutation(len(stimuli))
    for region in sorted({region for _, region in patterns}):
        values = []
        for i, one in enumerate(subjects):
            for two in subjects[i + 1 :]:
                if (one, region) not in patterns or (two, region) not in patterns:
                    continue
                a, b = patterns[one, region], patterns[two, region]
                found = method.correlate(a, b)
                dead += len(found.dead_first) + len(found.dead_second)
                values.append(
                    [
                        match_units(found.between, "bipartite").mean,
                        match_units(found.between, "semi").mean,
                        method.match(a, b[order], "bipartite").mean,
                    ]
                )
        if values:
            names = ("bipartite", "semi-matching", "bipartite, stimuli shuffled")
            for name, value in zip(names, np.mean(values, axis=0), strict=True):
                metrics[f"{region}: {name} correlation"] = Estimate(float(value))
            arrays[f"{region}"] = np.array(values)
    notes = (
        f"Units of {len(subjects)} subjects were matched over {len(stimuli)} stimuli; values are "
        "means over pairs of subjects, which are not independent of each other.",
        f"{dead} units (counted once a pair) never vary and were dropped.",
    )
    return RunResult(metrics, arrays, notes)


system(
    "convergent-learning",
    family="geometry",
    title="Convergent Learning: Do different neural networks learn the same representations?",
    contract="Comparison",
    paper=(
        "Li Y, Yosinski J, Clune J, Lipson H, Hopcroft J (2016). Convergent learning: Do "
        "different neural networks learn the same representations? ICLR. arXiv:1511.07543"
    ),
    bibtex="""@inproceedings{li2016convergent,
  author = {Li, Yixuan and Yosinski, Jason and Clune, Jeff and Lipson, Hod and Hopcroft, John},
  title = {Convergent Learning: Do different neural networks learn the same representations?},
  booktitle = {International Conference on Learning Representations},
  year = {2016},
  note = {arXiv:1511.07543}
}""",
    claims=CLAIMS,
    tasks=("layer-identification",),
    run=run,
)(ConvergentLearning)
