r"""Cohorts of functional connectivity with known effects of age, sex, site and hidden traits.

The correlation of two regions in a person, over which all are known, is

.. math:: C = B + a\, D_a + (a^2 - 1)\, D_{a^2} + s\, D_s + S_{site} + \sum_k z_k M_k

with age :math:`a` standardised, sex :math:`s = \pm 1/2` and traits :math:`z_k`. What is measured
is C with independent noise on each edge, or the correlations of time series drawn from C.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from engramma.errors import ConfigError
from engramma.registry import world

#: Mean and standard deviation of age, and its range, in years.
AGE, AGE_SPREAD, AGE_RANGE = 45.0, 15.0, (18.0, 80.0)
#: Least eigenvalue that a person's correlations must keep.
_LEAST = 1e-3


@dataclass(frozen=True, eq=False)
class ConnectivityTruth:
    """Every direction of connectivity that a cohort varies along.

    Parameters
    ----------
    base, age, age_squared, sex : ndarray of float64, shape (n_edges,)
        Per standard deviation of age, per square of it, and women against men.
    sites : ndarray of float64, shape (n_sites, n_edges)
        Sum to zero over sites.
    traits : ndarray of float64, shape (n_traits, n_edges)
    scores : ndarray of float64, shape (n_subjects, n_traits)
        How much each person has of each trait.
    clean : ndarray of float64, shape (n_subjects, n_edges)
        Correlations without noise.
    networks : ndarray of int, shape (n_regions,)
    """

    base: np.ndarray
    age: np.ndarray
    age_squared: np.ndarray
    sex: np.ndarray
    sites: np.ndarray
    traits: np.ndarray
    scores: np.ndarray
    clean: np.ndarray
    networks: np.ndarray


@dataclass(frozen=True, eq=False)
class ConnectivityCohort:
    """Functional connectivity of many people.

    Parameters
    ----------
    values : ndarray of float32, shape (n_subjects, n_edges)
        Correlations of regions, the upper triangle row by row.
    demographics : DataFrame
        One row a person: ``age`` (years), ``sex`` (``F`` or ``M``), ``site``, ``phenotype_a``
        (follows age only) and ``phenotype_b`` (follows the first trait).
    edges : ndarray of int, shape (n_edges, 2)
        Regions of each edge.
    series : ndarray of float32, shape (n_subjects, n_times, n_regions), or None
        Time series whose correlations ``values`` are.
    truth : ConnectivityTruth
    """

    values: np.ndarray
    demographics: pd.DataFrame
    edges: np.ndarray
    series: np.ndarray | None
    truth: ConnectivityTruth

    def matrices(self, vectors: np.ndarray | None = None, diagonal: float = 1.0) -> np.ndarray:
        """Return vectors of edges, by default ``values``, as symmetric matrices."""
        return _matrices(self.values if vectors is None else vectors, self.edges, diagonal)


@world("connectivity")
def connectivity(
    seed: int = 0,
    *,
    n_subjects: int = 400,
    n_regions: int = 30,
    n_networks: int = 5,
    n_sites: int = 3,
    n_traits: int = 3,
    age_effect: float = 0.025,
    curvature: float = 0.0,
    sex_effect: float = 0.04,
    site_effect: float = 0.02,
    trait_effect: float = 0.02,
    noise: float = 0.05,
    reliability: float = 0.7,
    n_times: int | None = None,
) -> ConnectivityCohort:
    """Draw a cohort.

    Parameters
    ----------
    seed : int
    n_subjects, n_regions, n_networks, n_sites, n_traits : int
    age_effect, sex_effect, site_effect, trait_effect : float
        Root mean square over edges of each direction, in units of correlation: a standard
        deviation of age or of a trait, women against men, a site. 0 leaves the effect out.
    curvature : float
        The same for the square of age: a confound that no linear residualisation removes.
    noise : float
        Standard deviation of the noise of each edge; of no effect with ``n_times``.
    reliability : float
        Square of the correlation of phenotypes with what they follow.
    n_times : int, optional
        Draw so many samples of every region from each person's correlations, and measure
        connectivity in them.

    Raises
    ------
    ConfigError
        If a number is out of range, or effects are so large that someone's correlations are not
        positive definite.
    """
    _check(n_subjects, n_regions, n_networks, n_sites, n_traits, reliability, noise, n_times)
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3)]
    effect_rng, people_rng, noise_rng = streams
    edges = np.stack(np.triu_indices(n_regions, 1), axis=1)
    networks = np.arange(n_regions) * n_networks // n_regions
    directions = _directions(networks, 3 + n_sites + n_traits, edges, effect_rng)
    sites = directions[3 : 3 + n_sites]
    sites = sites - sites.mean(axis=0)
    people, age, scores = _people(n_subjects, n_sites, n_traits, reliability, people_rng)
    effects = {
        "age": age_effect * directions[0],
        "age_squared": curvature * directions[1],
        "sex": sex_effect * directions[2],
        "sites": site_effect * sites,
        "traits": trait_effect * directions[3 + n_sites :],
    }
    base = _base(networks, edges, effect_rng)
    clean = (
        base
        + np.outer(age, effects["age"])
        + np.outer(age**2 - 1, effects["age_squared"])
        + np.outer(np.where(people["sex"] == "F", 0.5, -0.5), effects["sex"])
        + effects["sites"][people["site"].str[4:].astype(int).to_numpy() - 1]
        + scores @ effects["traits"]
    )
    truth = ConnectivityTruth(base=base, scores=scores, clean=clean, networks=networks, **effects)
    matrices = _matrices(clean, edges)
    least = np.linalg.eigvalsh(matrices)[:, 0]
    if least.min() < _LEAST:
        raise ConfigError(
            f"the correlations of {int((least < _LEAST).sum())} of {n_subjects} people would not "
            "be positive definite",
            where=f"least eigenvalue {least.min():.3f}",
            mend="lower the effects",
        )
    if n_times is None:
        values = clean + noise * noise_rng.standard_normal(clean.shape)
        if np.abs(values).max() >= 1:
            raise ConfigError("noise takes correlations beyond 1", mend="lower noise")
        return ConnectivityCohort(values.astype(np.float32), people, edges, None, truth)
    white = noise_rng.standard_normal((n_subjects, n_times, n_regions))
    series = white @ np.linalg.cholesky(matrices).transpose(0, 2, 1)
    measured = _correlations(series)[:, edges[:, 0], edges[:, 1]]
    return ConnectivityCohort(
        measured.astype(np.float32), people, edges, series.astype(np.float32), truth
    )


def _check(
    n_subjects: int,
    n_regions: int,
    n_networks: int,
    n_sites: int,
    n_traits: int,
    reliability: float,
    noise: float,
    n_times: int | None,
) -> None:
    if min(n_subjects, n_networks, n_sites, n_traits) < 1 or n_regions < 2 * n_networks:
        raise ConfigError(
            f"{n_subjects} people, {n_regions} regions, {n_networks} networks, {n_sites} sites and "
            f"{n_traits} traits make no cohort",
            mend="use at least one of each, and two regions a network",
        )
    if not 0 <= reliability <= 1 or noise < 0:
        raise ConfigError(
            "reliability is a share and noise a standard deviation",
            mend="use 0 <= reliability <= 1 and noise >= 0",
        )
    if n_times is not None and n_times < 4:
        raise ConfigError(f"{n_times} samples give no correlations", mend="use n_times >= 4")


def _people(
    n: int, n_sites: int, n_traits: int, reliability: float, rng: np.random.Generator
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Demographics, standardised age, and traits, which no demographic tells."""
    years = np.clip(AGE + AGE_SPREAD * rng.standard_normal(n), *AGE_RANGE).round(1)
    age = (years - AGE) / AGE_SPREAD
    scores = rng.standard_normal((n, n_traits))
    # Bounded, so that nobody's correlations are beyond what can be.
    scores = np.clip(scores, -2.5, 2.5)
    loose = rng.standard_normal((2, n)) * np.sqrt(1 - reliability)
    table = pd.DataFrame(
        {
            "age": years,
            "sex": np.where(rng.random(n) < 0.5, "F", "M"),
            "site": [f"site{i}" for i in rng.integers(1, n_sites + 1, n)],
            "phenotype_a": np.sqrt(reliability) * age + loose[0],
            "phenotype_b": np.sqrt(reliability) * scores[:, 0] + loose[1],
        },
        index=pd.Index([f"sub-{i:04d}" for i in range(1, n + 1)], dtype=object),
    )
    return table, age, scores


def _base(networks: np.ndarray, edges: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Correlations that all share: regions of a network go together, and networks a little.

    A factor model: region = network factor + a factor of all + own, so that no eigenvalue is
    below the share that is the region's own.
    """
    n_networks = int(networks.max()) + 1
    loadings = np.zeros((len(networks), n_networks + 1))
    loadings[np.arange(len(networks)), networks] = np.sqrt(rng.uniform(0.15, 0.3, len(networks)))
    loadings[:, -1] = rng.uniform(0.1, 0.3, len(networks))
    shared = loadings @ loadings.T
    return np.asarray(shared[edges[:, 0], edges[:, 1]])


def _directions(
    networks: np.ndarray, n: int, edges: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Directions of unit root mean square: half of it by pair of networks, half by edge."""
    n_networks = int(networks.max()) + 1
    blocks = rng.standard_normal((n, n_networks, n_networks))
    blocks = blocks + blocks.transpose(0, 2, 1)
    block = blocks[:, networks[edges[:, 0]], networks[edges[:, 1]]]
    directions = block / np.sqrt(2) + rng.standard_normal((n, len(edges)))
    return np.asarray(directions / np.sqrt((directions**2).mean(axis=1, keepdims=True)))


def _matrices(vectors: np.ndarray, edges: np.ndarray, diagonal: float = 1.0) -> np.ndarray:
    """Symmetric matrices (..., n_regions, n_regions) of vectors of edges."""
    n = int(edges.max()) + 1
    matrices = np.zeros((*vectors.shape[:-1], n, n), dtype=vectors.dtype)
    matrices[..., edges[:, 0], edges[:, 1]] = vectors
    matrices[..., edges[:, 1], edges[:, 0]] = vectors
    matrices[..., np.arange(n), np.arange(n)] = diagonal
    return matrices


def _correlations(series: np.ndarray) -> np.ndarray:
    """Correlations of regions, person by person."""
    centred = series - series.mean(axis=1, keepdims=True)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred.transpose(0, 2, 1) @ centred)
