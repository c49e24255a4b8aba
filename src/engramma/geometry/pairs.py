"""How a dissimilarity matrix is written as a vector of pairs, and the checks that all share.

An RDM over ``n`` stimuli is kept as its upper triangle, row by row, as
`scipy.spatial.distance.squareform` orders it: ``n (n - 1) / 2`` pairs.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from engramma.errors import DataError


def n_stimuli_of(n_pairs: int) -> int:
    """Return the number of stimuli that make ``n_pairs`` pairs.

    Raises
    ------
    DataError
        If no number of stimuli does.
    """
    n = (1 + int(np.sqrt(1 + 8 * n_pairs) + 0.5)) // 2
    if n < 2 or n * (n - 1) // 2 != n_pairs:
        raise DataError(
            f"{n_pairs} values are not the upper triangle of an RDM",
            mend="give n (n - 1) / 2 dissimilarities for n stimuli, without the diagonal",
        )
    return n


@lru_cache(maxsize=8)
def pair_indices(n_stimuli: int) -> tuple[np.ndarray, np.ndarray]:
    """First and second stimulus of each pair, in the order of an RDM vector (read-only)."""
    first, second = np.triu_indices(n_stimuli, k=1)
    first.flags.writeable = second.flags.writeable = False
    return first, second


def to_square(rdm: np.ndarray) -> np.ndarray:
    """RDM vectors as symmetric matrices with a zero diagonal.

    Parameters
    ----------
    rdm : ndarray, shape (..., n_pairs)

    Returns
    -------
    ndarray, shape (..., n_stimuli, n_stimuli)
    """
    rdm = np.asarray(rdm)
    n = n_stimuli_of(rdm.shape[-1])
    first, second = pair_indices(n)
    square = np.zeros((*rdm.shape[:-1], n, n), dtype=rdm.dtype)
    square[..., first, second] = rdm
    square[..., second, first] = rdm
    return square


def to_pairs(square: np.ndarray) -> np.ndarray:
    """Upper triangles of square matrices, shape (..., n_pairs)."""
    square = np.asarray(square)
    return square[(..., *pair_indices(square.shape[-1]))]


def checked_rdms(rdms: np.ndarray, name: str, min_stimuli: int = 3) -> np.ndarray:
    """Return RDM vectors as float64, shape (n_rdms, n_pairs).

    Raises
    ------
    DataError
        If they are no upper triangles, hold NaN or infinity, or have fewer than
        ``min_stimuli`` stimuli.
    """
    rdms = np.atleast_2d(np.asarray(rdms, dtype=np.float64))
    if rdms.ndim != 2 or 0 in rdms.shape:
        raise DataError(
            f"{name} have shape {rdms.shape}",
            mend="give RDM vectors, one a row (see to_pairs for square matrices)",
        )
    n = n_stimuli_of(rdms.shape[1])
    if n < min_stimuli:
        raise DataError(
            f"{name} have {n} stimuli only, and {min_stimuli} are needed",
            mend="use more stimuli",
        )
    bad = np.argwhere(~np.isfinite(rdms))
    if len(bad):
        row, pair = map(int, bad[0])
        first, second = pair_indices(n)
        raise DataError(
            f"{name} hold NaN or infinity ({len(bad)} values)",
            where=f"RDM {row}, stimuli {first[pair]} and {second[pair]}",
            mend="drop the stimuli or RDMs concerned",
        )
    return rdms
