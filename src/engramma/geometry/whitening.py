"""Inner products of RDMs under the covariance of their entries.

Estimated dissimilarities that share a stimulus are correlated. With independent patterns of
variance ``s_i^2`` the covariance of the entries of an RDM is, up to a factor (Diedrichsen et al.
2020, arXiv 2007.02789: the squared inner products of pattern contrasts),

    V[ij, ij] = (s_i^2 + s_j^2)^2,   V[ij, ik] = s_i^4,   V[ij, kl] = 0.

That is a diagonal plus a matrix of rank ``n``: ``V = diag(2 s_i^2 s_j^2) + A diag(s_i^4) A.T``
with ``A`` saying which pair holds which stimulus. So ``V`` is inverted through an ``n x n``
system (Woodbury), and no pair x pair matrix is formed.
"""

from __future__ import annotations

import numpy as np

from engramma.errors import DataError
from engramma.geometry.pairs import n_stimuli_of, pair_indices, to_square


def inner_with_variances(rdms: np.ndarray, variances: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """``rdms @ inv(V) @ rdms.T`` for independent patterns.

    Parameters
    ----------
    rdms : ndarray, shape (n_rdms, n_pairs)
    variances : ndarray, shape (n_stimuli,)
        Positive.
    counts : ndarray, shape (n_stimuli,)
        How often each stimulus occurs. Copies are patterns of their own; the pairs between copies
        of one stimulus are missing. As copies have equal rows, the system stays ``n x n``.

    Returns
    -------
    ndarray, shape (n_rdms, n_rdms)
    """
    if not (variances > 0).all():
        raise DataError(
            "the variance of a pattern must be positive",
            where=f"stimulus {np.argmin(variances)}",
        )
    first, second = pair_indices(len(variances))
    weights = counts[first] * counts[second]
    scaled = rdms / (2 * variances[first] * variances[second])
    plain = (scaled * weights) @ rdms.T
    here = np.flatnonzero(counts)
    c, s = counts[here], variances[here]
    # b[r, i]: sum over the partners j of stimulus i, each counted c_j times.
    b = (to_square(scaled) @ counts)[:, here]
    between = 1 / (2 * np.outer(s, s))
    np.fill_diagonal(between, 0.0)
    root = np.sqrt(c)
    system = between * np.outer(root, root)
    system[np.diag_indices_from(system)] = 1 / s**2 + between @ c
    b = b * root
    return plain - b @ np.linalg.solve(system, b.T)


def inner_with_covariance(rdms: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """``rdms @ inv(V) @ rdms.T``, up to a factor, for patterns with any covariance.

    An RDM is a linear image of the inner products ``K`` of patterns taken relative to the first
    one; these follow a Wishart law with scale ``M``, the covariance of those differences. Under
    it the inner product of two RDMs is ``trace(inv(M) K1 inv(M) K2)``.

    Parameters
    ----------
    rdms : ndarray, shape (n_rdms, n_pairs)
    covariance : ndarray, shape (n_stimuli, n_stimuli)
        Of the pattern estimates.
    """
    square = to_square(rdms)
    n = n_stimuli_of(rdms.shape[1])
    to_first = square[:, 0, 1:]
    inner = (to_first[:, :, None] + to_first[:, None, :] - square[:, 1:, 1:]) / 2
    contrast = np.hstack([-np.ones((n - 1, 1)), np.eye(n - 1)])
    try:
        lower = np.linalg.cholesky(contrast @ covariance @ contrast.T)
    except np.linalg.LinAlgError as error:
        raise DataError("the covariance of the patterns is not positive definite") from error
    half = np.linalg.inv(lower)
    white = (half @ inner @ half.T).reshape(len(rdms), -1)
    return white @ white.T
