"""Topological representational similarity analysis (Lin & Kriegeskorte 2024).

**Question.** How much of a representation's identity survives when its geometry is bent but its
topology, who is a neighbour of whom, is kept? A representation is summarised by its RDM ``d``, the
distances between the responses to all pairs of stimuli. A family of transforms with two
parameters, ``l`` and ``u``, slides from the geometry of an RDM to its topology:

1. ``d`` is ranked and scaled to 0 ... 1: the *rank RDM*.
2. **RGTM**, the geo-topological matrix: with ``t_l`` and ``t_u`` the ``l`` and ``u`` quantiles of
   the ranks, ``g = clip((d - t_l) / (t_u - t_l), 0, 1)``. Distances below ``t_l`` (noise) become
   alike, and so do those above ``t_u`` (merely far). ``l = 0, u = 1`` is the rank RDM, ``l = u`` a
   graph. The smooth form is ``1 / (1 + exp(-10 (d - 0.5)))``.
3. **RGDM**, the geodesic matrix: stimuli with ``g < 1`` are joined by edges of length ``g``, the
   shortest paths along them replace the distances, and are ranked. The graph can also keep the
   ``p`` shortest edges, or those to the ``k`` nearest neighbours.
4. **Identification**: regions (or layers) are identified by the nearest mean matrix of the other
   subjects (or seeds), in Euclidean distance; accuracy says what a summary keeps.
5. **Inference**: subjects and stimuli are resampled together; pairs of two copies of one stimulus
   are dropped. ``l`` and ``u`` are chosen on the other subjects only.

Differences from the released code (doerlbh/TopologicalRSA): a graph that falls apart is refused or
capped, where the code computes a cap and discards it; edges of length zero stay edges, where the
code loses them on the way through a dense matrix; neighbours join two stimuli if either is near
the other, where the code asks one of the two only; whole subjects are resampled, not sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from scipy import stats

from engramma.contracts import Estimate, RunResult
from engramma.errors import ConfigError, DataError
from engramma.geometry.alignment import checked_pair
from engramma.geometry.compare import compare as correlate_rdms
from engramma.geometry.dissimilarity import rdm as compute_rdm
from engramma.geometry.identification import Identification, nearest_centroid
from engramma.geometry.pairs import checked_rdms, n_stimuli_of, pair_indices, to_square
from engramma.geometry.regions import patterns_by_region
from engramma.geometry.transforms import (
    clip_transform,
    geodesic,
    min_max,
    nearest_edges,
    rank_transform,
    shortest_edges,
    sigmoid_transform,
)
from engramma.progress import track
from engramma.registry import system
from engramma.systems.geometry.trsa_claims import CLAIMS

Kind = Literal["raw", "rank", "rgtm", "sigmoid", "rgdm", "p-shortest", "p-nearest", "k-nearest"]
#: One label an RDM.
Labels = Sequence[Any] | np.ndarray
Region = Literal["local", "global", "geometry", "topology", "intermediate"]


# -- the plane of (l, u) -------------------------------------------------------------------


def region_of(l: float, u: float) -> Region:  # noqa: E741
    """Name the part of the (l, u) plane that a pair lies in, as the paper divides it."""
    slack = 1e-3
    if (l + u) / 2 <= 0.2 + slack:
        return "local"
    if (l + u) / 2 >= 0.8 - slack:
        return "global"
    if u - l >= 0.8 - slack:
        return "geometry"
    if l >= 0.4 - slack and u <= 0.6 + slack:
        return "topology"
    return "intermediate"


def grid(step: float = 0.05) -> list[tuple[float, float]]:
    """All pairs ``l < u`` on a grid, and none that sets everything to one value."""
    ticks = np.round(np.arange(0, 1 + step / 2, step), 10)
    return [(float(l), float(u)) for i, l in enumerate(ticks) for u in ticks[i + 1 :]]  # noqa: E741


def draw(region: Region, n: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Draw ``n`` random pairs from one region of the plane."""
    if region not in get_args(Region):
        raise ConfigError(
            f"there is no region {region!r}", mend=f"choose one of {', '.join(get_args(Region))}"
        )
    pairs: list[tuple[float, float]] = []
    while len(pairs) < n:
        l, u = np.sort(rng.random(2))  # noqa: E741
        if region_of(l, u) == region:
            pairs.append((float(l), float(u)))
    return pairs


# -- the method ----------------------------------------------------------------------------


class TopologicalRSA:
    """The transforms, and what they keep.

    Parameters
    ----------
    l, u : float
        Quantiles of RGTM and RGDM; the defaults are those of the released code.
    kind : {"rgtm", "rgdm", "rank", "sigmoid", "raw", "p-shortest", "p-nearest", "k-nearest"}
    neighbours : float
        ``p`` (a fraction of the edges, or of the stimuli) or ``k`` of the last three kinds.
    disconnected : {"raise", "cap"}
        What to do where a graph falls apart; "cap" warns.
    n_bootstrap : int
        Resamplings of the stimuli for the interval of `compare`; without them it is NaN.
    seed : int
        Of the resamplings.
    """

    def __init__(
        self,
        l: float = 0.2,  # noqa: E741
        u: float = 0.8,
        kind: Kind = "rgtm",
        neighbours: float = 0.05,
        disconnected: Literal["raise", "cap"] = "raise",
        n_bootstrap: int = 0,
        seed: int = 0,
    ) -> None:
        if kind not in get_args(Kind):
            raise ConfigError(
                f"there is no transform {kind!r}", mend=f"choose one of {', '.join(get_args(Kind))}"
            )
        if not 0 <= l <= u <= 1:
            raise ConfigError(
                f"l = {l:g} and u = {u:g} are not two quantiles in order",
                mend="choose 0 <= l <= u <= 1",
            )
        self.l, self.u, self.kind, self.neighbours = l, u, kind, neighbours
        self.disconnected: Literal["raise", "cap"] = disconnected
        self.n_bootstrap, self.seed = n_bootstrap, seed

    def transform(
        self,
        rdm: np.ndarray,
        l: float | None = None,  # noqa: E741
        u: float | None = None,
        kind: Kind | None = None,
    ) -> np.ndarray:
        """Apply steps 1 to 3.

        Parameters
        ----------
        rdm : ndarray, shape (n_pairs,) or (n_rdms, n_pairs)
        l, u, kind : optional
            In place of those of the instance.

        Returns
        -------
        ndarray of float64, of the same shape

        Raises
        ------
        ConfigError
            If ``l > u``.
        DataError
            If there are fewer than four stimuli, or a graph falls apart.
        """
        kind = kind or self.kind
        l = self.l if l is None else l  # noqa: E741
        u = self.u if u is None else u
        rdms = checked_rdms(rdm, "RDMs", min_stimuli=4)
        if kind != "raw":
            rdms = min_max(rank_transform(rdms))
        if kind == "rgtm":
            rdms = clip_transform(rdms, l, u)
        elif kind == "sigmoid":
            rdms = sigmoid_transform(rdms)
        elif kind == "rgdm":
            rdms = self._shortest_paths(clip_transform(rdms, l, u))
        elif kind in ("p-shortest", "p-nearest", "k-nearest"):
            rdms = self._shortest_paths(rdms, [self._edges(row, kind) for row in rdms])
        return rdms.reshape(np.shape(rdm))

    def _edges(self, ranks: np.ndarray, kind: Kind) -> np.ndarray:
        """Which stimuli are joined, where that does not follow from l and u."""
        if kind == "p-shortest":
            return shortest_edges(ranks, self.neighbours)
        n = n_stimuli_of(len(ranks))
        k = int(self.neighbours * n) if kind == "p-nearest" else int(self.neighbours)
        return nearest_edges(ranks, k)

    def _shortest_paths(
        self, rdms: np.ndarray, edges: Sequence[np.ndarray] | None = None
    ) -> np.ndarray:
        paths = [
            geodesic(row, None if edges is None else edges[i], disconnected=self.disconnected)
            for i, row in enumerate(rdms)
        ]
        flat = [i for i, path in enumerate(paths) if np.ptp(path) == 0]
        if flat:
            raise DataError(
                "all shortest paths have one length, so they order nothing",
                where=f"RDM {flat[0]} ({len(flat)} in all)",
                mend="lower l: pairs below it have distance zero, and they join all stimuli",
            )
        return rank_transform(np.stack(paths))

    def compare(self, a: np.ndarray, b: np.ndarray) -> Estimate:
        """Correlate the transformed Euclidean RDMs of two representations.

        Parameters
        ----------
        a, b : ndarray, shape (n_stimuli, n_units)
            The same stimuli in the same order; numbers of units may differ.
        """
        pair = checked_pair(a, b)
        first, second = (self.transform(compute_rdm(x, "euclidean")) for x in pair)
        value = float(correlate_rdms(first, second, "pearson")[0, 0])
        if not self.n_bootstrap:
            return Estimate(value)
        rng = np.random.default_rng(self.seed)
        counts = rng.multinomial(len(a), np.full(len(a), 1 / len(a)), size=self.n_bootstrap)
        draws = correlate_rdms(first, second, "pearson", counts=counts).ravel()
        low, high = np.nanpercentile(draws, [2.5, 97.5])
        return Estimate(value, float(low), float(high))

    def identify(self, rdms: np.ndarray, subject: Labels, region: Labels) -> Identification:
        """Identify the region of every RDM from the RDMs of the other subjects.

        Parameters
        ----------
        rdms : ndarray, shape (n_rdms, n_pairs)
        subject, region : sequence, length n_rdms
            Subject (or seed) and region (or layer) of each RDM.

        Raises
        ------
        DataError
            If there is one subject or region only, or a region is missing from the others.
        """
        return nearest_centroid(self.transform(rdms), np.asarray(subject), np.asarray(region))

    def bootstrap(
        self,
        rdms: np.ndarray,
        subject: Labels,
        region: Labels,
        *,
        rng: np.random.Generator,
        n_bootstrap: int = 1000,
        against: TopologicalRSA | None = None,
    ) -> Estimate:
        """Accuracy of identification, with an interval over subjects and stimuli.

        Parameters
        ----------
        rdms, subject, region
            As for `identify`.
        rng : numpy.random.Generator
        n_bootstrap : int
        against : TopologicalRSA, optional
            Give the difference in accuracy from this one, on the same resamplings; ``details``
            then hold ``t`` and ``p`` of the paired t test of the paper, whose standard error is
            the spread of the resampled differences.

        Returns
        -------
        Estimate
            ``details["draws"]`` holds the resampled values. They lie below the accuracy itself,
            since a resampling learns from fewer different subjects and stimuli; the interval of
            an accuracy is therefore their spread about their own mean, laid around it.
        """
        subject, region = np.asarray(subject), np.asarray(region)
        methods = [self] if against is None else [self, against]
        matrices = [m.transform(rdms) for m in methods]
        values = [nearest_centroid(x, subject, region).accuracy for x in matrices]
        n_stimuli, people = n_stimuli_of(matrices[0].shape[1]), np.unique(subject)
        draws = np.empty((n_bootstrap, len(methods)))
        for i in track(range(n_bootstrap), "bootstrap", total=n_bootstrap):
            chosen = rng.choice(people, len(people))
            while len(np.unique(chosen)) < 2:  # nobody would be left to learn from
                chosen = rng.choice(people, len(people))
            rows = np.concatenate([np.flatnonzero(subject == s) for s in chosen])
            pairs = resampled_pairs(n_stimuli, rng)
            for j, x in enumerate(matrices):
                sample = x[np.ix_(rows, pairs)]
                draws[i, j] = nearest_centroid(sample, subject[rows], region[rows]).accuracy
        if against is None:
            spread = np.percentile(draws[:, 0], [2.5, 97.5]) - draws[:, 0].mean()
            low, high = np.clip(values[0] + spread, 0.0, 1.0)
            return Estimate(values[0], float(low), float(high), {"draws": draws[:, 0]})
        differences = draws[:, 0] - draws[:, 1]
        effect = values[0] - values[1]
        low, high = np.percentile(differences, [2.5, 97.5])
        spread = differences.std(ddof=1)
        t = float(effect / spread) if spread > 0 else float("nan")
        p = float(2 * stats.t.sf(abs(t), len(people) - 1))
        details = {"draws": differences, "t": t, "p": p, "df": len(people) - 1}
        return Estimate(effect, float(low), float(high), details)

    def choose(
        self,
        rdms: np.ndarray,
        subject: Labels,
        region: Labels,
        pairs: Iterable[tuple[float, float]] | None = None,
    ) -> tuple[Identification, dict[Any, tuple[float, float]]]:
        """Identify with the ``l`` and ``u`` that serve best among the other subjects.

        Parameters
        ----------
        rdms, subject, region
            As for `identify`.
        pairs : iterable of (l, u), optional
            Candidates; by default the `grid` in steps of 0.05.

        Returns
        -------
        identification : Identification
        chosen : dict
            The pair chosen for each left-out subject, from the others.
        """
        subject, region = np.asarray(subject), np.asarray(region)
        people = np.unique(subject)
        if len(people) < 3:
            raise DataError(
                f"{len(people)} subjects are too few to choose l and u without the one left out",
                mend="use at least three subjects, or fix l and u beforehand",
            )
        best = {s: -1.0 for s in people.tolist()}
        chosen: dict[Any, tuple[float, float]] = {}
        predicted = np.empty_like(region)
        for pair in track(list(pairs or grid()), "choosing l and u"):
            matrices = self.transform(rdms, *pair)
            everyone = nearest_centroid(matrices, subject, region).predicted
            for person in best:
                rest = subject != person
                score = nearest_centroid(matrices[rest], subject[rest], region[rest]).accuracy
                if score > best[person]:
                    best[person], chosen[person] = score, pair
                    predicted[~rest] = everyone[~rest]
        accuracy = float((predicted == region).mean())
        return Identification(accuracy, predicted, region, 1 / len(np.unique(region))), chosen


def resampled_pairs(n_stimuli: int, rng: np.random.Generator) -> np.ndarray:
    """Draw stimuli with replacement; positions in the RDM of all pairs of different ones."""
    first, second = pair_indices(n_stimuli)
    position = to_square(np.arange(len(first)))
    drawn = rng.integers(n_stimuli, size=n_stimuli)
    a, b = drawn[first], drawn[second]
    return np.asarray(position[a[a != b], b[a != b]])


def add_noise(rdms: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Disturb RDMs as in the paper's simulation.

    Gaussian noise, whose standard deviation is ``level`` times that of all dissimilarities, is
    added, and what falls below zero is set to zero.
    """
    rdms = np.asarray(rdms, dtype=np.float64)
    return np.maximum(rdms + level * rdms.std() * rng.standard_normal(rdms.shape), 0.0)


def embed(rdms: np.ndarray, n_dimensions: int = 2, *, rng: np.random.Generator) -> np.ndarray:
    """Place stimuli by multidimensional scaling, each RDM turned to lie on the first.

    Parameters
    ----------
    rdms : ndarray, shape (n_rdms, n_pairs)

    Returns
    -------
    ndarray, shape (n_rdms, n_stimuli, n_dimensions)
        Centred; RDMs after the first are rotated, reflected and scaled (Procrustes).
    """
    from scipy.spatial import procrustes
    from sklearn.manifold import MDS

    placed: list[np.ndarray] = []
    for row in checked_rdms(rdms, "RDMs", min_stimuli=4):
        scaling = MDS(
            n_dimensions,
            dissimilarity="precomputed",
            n_init=4,
            normalized_stress=False,
            random_state=int(rng.integers(2**31)),
        )
        points = scaling.fit_transform(to_square(row))
        reference = placed[0] if placed else points
        placed.append(procrustes(reference, points)[1])
    return np.stack(placed)


#: Summaries from geometry to topology, and those beside them.
SUMMARIES = {
    "raw": TopologicalRSA(kind="raw"),
    "rank": TopologicalRSA(kind="rank"),
    "local": TopologicalRSA(0.0, 0.3),
    "topology": TopologicalRSA(0.4, 0.6),
    "geodesic": TopologicalRSA(0.0, 0.2, kind="rgdm", disconnected="cap"),
}

PAPER = (
    "Lin B, Kriegeskorte N (2024). The topology and geometry of neural representations. "
    "PNAS 121(42), e2317881121. arXiv:2309.11028"
)
BIBTEX = """@article{lin2024topology,
  author = {Lin, Baihan and Kriegeskorte, Nikolaus},
  title = {The topology and geometry of neural representations},
  journal = {Proceedings of the National Academy of Sciences},
  volume = {121},
  number = {42},
  pages = {e2317881121},
  year = {2024},
  note = {arXiv:2309.11028}
}"""


# -- registration --------------------------------------------------------------------------


def run(data: Any, *, seed: int = 0) -> RunResult:
    """Identify the regions of a cohort, with four summaries of their RDMs.

    Parameters
    ----------
    data : Cohort or Recording
        At least two subjects with at least two regions (coordinate ``roi``) that all share.
    seed : int
        Of the bootstrap.
    """
    patterns, stimuli = patterns_by_region(data)
    subject, region = (np.array(x) for x in zip(*patterns, strict=True))
    rdms = np.stack([compute_rdm(x, "euclidean") for x in patterns.values()])
    summaries = {
        "rank RDM": SUMMARIES["rank"],
        "local": SUMMARIES["local"],
        "topology": SUMMARIES["topology"],
        "default": TopologicalRSA(),
    }
    metrics = {}
    for name, method in summaries.items():
        rng = np.random.default_rng(seed)
        label = f"accuracy ({name})"
        metrics[label] = method.bootstrap(rdms, subject, region, rng=rng, n_bootstrap=200)
    taken = TopologicalRSA().identify(rdms, subject, region)
    notes = (
        f"{len(np.unique(region))} regions of {len(np.unique(subject))} subjects were identified "
        f"from Euclidean RDMs over {len(stimuli)} stimuli by the nearest mean of the other "
        f"subjects; chance is {taken.chance:.3g}.",
        "Intervals resample subjects and stimuli 200 times.",
    )
    arrays = {"rdms": rdms, "subject": subject, "region": region, "predicted": taken.predicted}
    return RunResult(metrics, arrays, notes)


_CARD: dict[str, Any] = {
    "family": "geometry",
    "contract": "Comparison",
    "paper": PAPER,
    "bibtex": BIBTEX,
    "tasks": ("layer-identification",),
    "run": run,
}
system("trsa", title="The Topology and Geometry of Neural Representations", claims=CLAIMS, **_CARD)(
    TopologicalRSA
)


@system("trsa-local", title="Topological RSA, local: RGTM(0, 0.3)", **_CARD)
def local() -> TopologicalRSA:
    """RGTM that keeps small distances."""
    return TopologicalRSA(0.0, 0.3)


@system("trsa-topology", title="Topological RSA, topology: RGTM(0.4, 0.6)", **_CARD)
def topology() -> TopologicalRSA:
    """RGTM that is nearly a graph."""
    return TopologicalRSA(0.4, 0.6)


@system("trsa-geodesic", title="Topological RSA, geodesic: RGDM(0, 0.2)", **_CARD)
def geodesic_paths() -> TopologicalRSA:
    """RGDM over the closest fifth of the pairs."""
    return TopologicalRSA(0.0, 0.2, kind="rgdm", disconnected="cap")
