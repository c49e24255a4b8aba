"""Maps of an RDM in two or three dimensions, for display."""

from __future__ import annotations

from typing import Literal

import numpy as np

from engramma.errors import ConfigError, DataError
from engramma.geometry.pairs import checked_rdms, n_stimuli_of, to_pairs, to_square


def mds(
    rdm: np.ndarray,
    n_components: int = 2,
    *,
    method: Literal["smacof", "classical"] = "smacof",
    squared: bool = False,
) -> np.ndarray:
    """Place stimuli so that their distances follow the dissimilarities.

    Parameters
    ----------
    rdm : ndarray, shape (n_pairs,)
        Negative values, which cross-validated distances have by chance, count as 0.
    n_components : int
    method : {"smacof", "classical"}
        ``"classical"``: the leading axes of the inner products that squared distances imply
        (Torgerson 1952). ``"smacof"``: start from these and minimise the stress; there are no
        random starts, so the map of an RDM is always the same.
    squared : bool
        Whether dissimilarities are squared distances (``"sqeuclidean"``, ``"mahalanobis"``,
        ``"crossnobis"``); their root is taken first.

    Returns
    -------
    ndarray, shape (n_stimuli, n_components)
        Centred.
    """
    values = np.maximum(checked_rdms(rdm, "the RDM")[0], 0.0)
    n = n_stimuli_of(len(values))
    if not 1 <= n_components < n:
        raise ConfigError(f"{n} stimuli have 1 to {n - 1} dimensions, not {n_components}")
    distances = to_square(np.sqrt(values) if squared else values)
    inner = distances**2
    inner = -(inner - inner.mean(axis=0) - inner.mean(axis=1, keepdims=True) + inner.mean()) / 2
    power, vectors = np.linalg.eigh(inner)
    leading = vectors[:, ::-1][:, :n_components]
    # The sign of an axis means nothing; the largest coordinate is made positive.
    leading = leading * np.sign(leading[np.abs(leading).argmax(axis=0), range(n_components)])
    positions = leading * np.sqrt(np.clip(power[::-1][:n_components], 0, None))
    if method == "classical":
        return positions
    if method != "smacof":
        raise ConfigError(f"there is no MDS method {method!r}", mend="use smacof or classical")
    return _smacof(distances, positions)


def _smacof(distances: np.ndarray, start: np.ndarray) -> np.ndarray:
    from sklearn.manifold import smacof

    positions, _ = smacof(
        distances, n_components=start.shape[1], init=start, n_init=1, max_iter=1000, eps=1e-9
    )
    return positions - positions.mean(axis=0)


def stress(rdm: np.ndarray, positions: np.ndarray, *, squared: bool = False) -> float:
    """Kruskal's stress-1 of a map: root of the squared error relative to the squared distances.

    0 is exact; above 0.2 a map should not be read closely (Kruskal 1964).
    """
    values = np.maximum(checked_rdms(rdm, "the RDM")[0], 0.0)
    wanted = np.sqrt(values) if squared else values
    difference = positions[:, None] - positions
    shown = to_pairs(np.sqrt((difference**2).sum(axis=-1)))
    return float(np.sqrt(((shown - wanted) ** 2).sum() / (shown**2).sum()))


def align_maps(reference: np.ndarray, positions: np.ndarray, *, scale: bool = True) -> np.ndarray:
    """Move, turn, mirror and scale one map onto another, so that both can be read side by side.

    Parameters
    ----------
    reference, positions : ndarray, shape (n_stimuli, n_components)
    scale : bool

    Returns
    -------
    ndarray, shape (n_stimuli, n_components)
        ``positions`` after the transform with the least squared distance to ``reference``.
    """
    if reference.shape != positions.shape:
        raise DataError(
            f"maps have shapes {reference.shape} and {positions.shape}",
            mend="map the same stimuli into as many dimensions",
        )
    centre = reference.mean(axis=0)
    fixed, moving = reference - centre, positions - positions.mean(axis=0)
    left, power, right = np.linalg.svd(moving.T @ fixed)
    factor = power.sum() / (moving**2).sum() if scale else 1.0
    return factor * moving @ (left @ right) + centre
