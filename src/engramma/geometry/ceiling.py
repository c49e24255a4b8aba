"""The noise ceiling of RSA: how well the best possible model could do.

Following Nili et al. 2014 (PLoS Comput Biol): the *upper* bound compares each subject's RDM with
the mean over all subjects, its own included, which overfits; the *lower* bound with the mean over
the other subjects. Before they are averaged, RDMs are brought to the form in which the mean is
most similar to them: ranks for rank correlations, z-scores for Pearson, unit length for cosine.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engramma.errors import DataError
from engramma.geometry.compare import WeightedRanks, correlate, pair_weights, prepare
from engramma.geometry.pairs import checked_rdms, n_stimuli_of

RANKED = ("spearman", "kendall", "rho-a")


def noise_ceiling(rdms: np.ndarray, method: str = "spearman") -> tuple[float, float]:
    """Lower and upper bound of the mean similarity that a model can reach.

    Parameters
    ----------
    rdms : ndarray, shape (n_subjects, n_pairs)
        Two subjects at least; or sessions of one subject, for a ceiling over sessions.
    method : str
        See `engramma.geometry.compare.compare`. For Kendall's tau-a the mean of ranks is nearly,
        but not exactly, the best RDM.

    Returns
    -------
    lower, upper : float
    """
    rdms = checked_rdms(rdms, "the RDMs")
    if len(rdms) < 2:
        raise DataError(
            "a noise ceiling needs at least two RDMs",
            mend="give one RDM a subject, or one a session or run of one subject",
        )
    n = n_stimuli_of(rdms.shape[1])
    lower, upper = prepare_ceiling(rdms, method)(np.ones(n), np.ones((1, len(rdms))))[0]
    return float(lower), float(upper)


def prepare_ceiling(
    rdms: np.ndarray, method: str
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Do once what is the same for every bootstrap sample.

    Returns
    -------
    callable
        Takes how often each stimulus occurs, shape (n_stimuli,), and for each of some samples how
        often each subject occurs, shape (n_samples, n_subjects). Returns lower and upper bounds,
        shape (n_samples, 2). All copies of a subject are left out together; NaN where a sample
        holds one subject only.
    """
    ranks = WeightedRanks(rdms) if method in RANKED else None

    def bounds(counts: np.ndarray, subjects: np.ndarray) -> np.ndarray:
        weights = pair_weights(counts)
        form = ranks(weights) if ranks is not None else _unit(rdms, weights, method)
        out = np.full((len(subjects), 2), np.nan)
        for i, sample in enumerate(subjects):
            here = np.flatnonzero(sample)
            if len(here) < 2:
                continue
            times, held = sample[here], form[here]
            total = times @ held
            pools = np.vstack([total - times[:, None] * held, total])
            similarity = _to_subjects(pools, rdms[here], held, counts, weights, method)
            out[i] = np.diag(similarity) @ times, similarity[-1] @ times
            out[i] /= times.sum()
        return out

    return bounds


def _unit(rdms: np.ndarray, weights: np.ndarray, method: str) -> np.ndarray:
    """RDMs of mean zero (for correlations) and mean square one."""
    total = weights.sum()
    if method.endswith("pearson"):
        rdms = rdms - (rdms @ weights / total)[:, None]
    return rdms / np.sqrt(np.einsum("ij,ij,j->i", rdms, rdms, weights) / total)[:, None]


def _to_subjects(
    pools: np.ndarray,
    rdms: np.ndarray,
    form: np.ndarray,
    counts: np.ndarray,
    weights: np.ndarray,
    method: str,
) -> np.ndarray:
    """Similarity of pooled RDMs to subjects, shape (n_pools, n_subjects)."""
    if method == "spearman":  # the subjects' ranks are known already
        return correlate(WeightedRanks(pools)(weights), form, weights, centred=True)
    if method != "kendall":
        return prepare(pools, rdms, method)(counts[None])[0]
    # Only the entries that count are computed: each subject with the others, and with all.
    out = np.full((len(pools), len(rdms)), np.nan)
    for i, subject in enumerate(rdms):
        out[[i, -1], i] = prepare(pools[[i, -1]], subject[None], method)(counts[None])[0][:, 0]
    return out
