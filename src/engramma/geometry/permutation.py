"""Permutation test of stimulus labels, for models of an RDM."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from engramma.errors import ConfigError
from engramma.geometry.compare import Similarity, prepare
from engramma.geometry.inference import checked_models
from engramma.geometry.pairs import checked_rdms, n_stimuli_of, pair_indices, to_square
from engramma.geometry.transforms import rank_transform
from engramma.progress import track


def permutation_test(
    data_rdms: np.ndarray,
    models: Mapping[str, np.ndarray],
    method: Similarity = "spearman",
    n_permutations: int = 1000,
    *,
    rng: np.random.Generator,
) -> dict[str, dict[str, float]]:
    """Test models against randomly relabelled stimuli.

    Rows and columns of the data are permuted together, so that the dependence between the
    dissimilarities of one stimulus stays in the null distribution.

    Parameters
    ----------
    data_rdms : ndarray, shape (n_subjects, n_pairs)
    models : mapping of str to ndarray, shape (n_pairs,)
    method : str
        See `engramma.geometry.compare.compare`. Kendall's tau-a takes about ten times longer than
        the others.
    n_permutations : int
    rng : numpy.random.Generator

    Returns
    -------
    mapping of str to mapping
        For each model ``value``; ``p``, one-sided; and ``p_max``, corrected over models by the
        distribution of the largest similarity among them. The smallest p is
        ``1 / (n_permutations + 1)``.
    """
    if n_permutations < 1:
        raise ConfigError("a permutation test needs at least one permutation")
    data = checked_rdms(data_rdms, "the RDMs")
    names, predictions = checked_models(models, data.shape[1])
    n = n_stimuli_of(data.shape[1])
    similarity = _mean_similarity(predictions, data, method)
    value = similarity(np.arange(n))
    null = np.stack(
        [similarity(rng.permutation(n)) for _ in track(range(n_permutations), "permutations")]
    )
    # Equal similarities, which ties make common, must not differ by rounding.
    reached = null >= value - 1e-10
    largest = null.max(axis=1)[:, None] >= value - 1e-10
    p = (1 + reached.sum(axis=0)) / (n_permutations + 1)
    p_max = (1 + largest.sum(axis=0)) / (n_permutations + 1)
    return {
        name: {"value": float(value[k]), "p": float(p[k]), "p_max": float(p_max[k])}
        for k, name in enumerate(names)
    }


def _mean_similarity(
    models: np.ndarray, data: np.ndarray, method: str
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from an order of stimuli to the mean similarity of each model."""
    n = n_stimuli_of(data.shape[1])
    first, second = pair_indices(n)
    if method not in ("pearson", "spearman", "rho-a", "cosine"):
        squares = to_square(data)

        def compared(order: np.ndarray) -> np.ndarray:
            permuted = squares[:, order[first], order[second]]
            return prepare(models, permuted, method)(np.ones((1, n)))[0].mean(axis=1)

        return compared

    # These are inner products, so that the mean over subjects can be taken first.
    left, right = _unit(models, method), _unit(data, method)
    mean = to_square(right.mean(axis=0))
    return lambda order: left @ mean[order[first], order[second]]


def _unit(rdms: np.ndarray, method: str) -> np.ndarray:
    """Vectors whose inner products are the similarities."""
    if method in ("spearman", "rho-a"):
        rdms = rank_transform(rdms)
    if method != "cosine":
        rdms = rdms - rdms.mean(axis=1, keepdims=True)
    n = rdms.shape[1]
    norm = np.linalg.norm(rdms, axis=1, keepdims=True)
    return rdms / (np.sqrt((n**3 - n) / 12) if method == "rho-a" else norm)
