"""How well one representation can be brought onto another.

All measures take two stimulus x unit arrays over the same stimuli, in the same order. What each
ignores: CKA and Procrustes ignore rotations and (normalised) overall scale; CCA ignores every
invertible linear map; ridge predictivity asks for any linear map from the first to the second.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engramma.errors import ConfigError, DataError
from engramma.geometry.dissimilarity import rdm
from engramma.geometry.noise import gram
from engramma.geometry.pairs import to_square


def linear_cka(x: np.ndarray, y: np.ndarray, *, debiased: bool = True) -> float:
    """Centred kernel alignment with a linear kernel (Kornblith et al. 2019, ICML).

    Parameters
    ----------
    x, y : ndarray, shape (n_stimuli, n_units_x) and (n_stimuli, n_units_y)
    debiased : bool
        Use the unbiased estimator of the Hilbert-Schmidt independence criterion (Song et al.
        2012, JMLR). The biased one approaches 1 for unrelated data with more units than stimuli.

    Returns
    -------
    float
        0 ... 1 (debiased: can be slightly negative).

    Raises
    ------
    DataError
        If shapes do not fit, values are not finite, or there are fewer than four stimuli.
    """
    x, y = checked_pair(x, y)
    return cka(linear_kernel(x), linear_kernel(y), debiased=debiased)


def kernel_cka(
    x: np.ndarray, y: np.ndarray, *, bandwidth: float = 0.5, debiased: bool = True
) -> float:
    """Centred kernel alignment with a Gaussian kernel.

    Parameters
    ----------
    x, y : ndarray, shape (n_stimuli, n_units)
    bandwidth : float
        Standard deviation of the kernel, as a fraction of the median distance.
    debiased : bool
        See `linear_cka`.
    """
    x, y = checked_pair(x, y)
    return cka(gaussian_kernel(x, bandwidth), gaussian_kernel(y, bandwidth), debiased=debiased)


def cka(k: np.ndarray, l: np.ndarray, *, debiased: bool = True) -> float:  # noqa: E741
    """Centred kernel alignment of two kernel matrices, shape (n_stimuli, n_stimuli)."""
    independence = _hsic_unbiased if debiased else _hsic_biased
    norm = independence(k, k) * independence(l, l)
    if norm <= 0:
        raise DataError("a representation is the same for every stimulus, so nothing aligns")
    return float(independence(k, l) / np.sqrt(norm))


def linear_kernel(x: np.ndarray) -> np.ndarray:
    """Inner products of patterns whose mean pattern is removed."""
    return gram(x - x.mean(axis=0))


def gaussian_kernel(x: np.ndarray, bandwidth: float = 0.5) -> np.ndarray:
    """Similarities ``exp(-d^2 / (2 s^2))``, where ``s`` is ``bandwidth`` median distances."""
    if bandwidth <= 0:
        raise ConfigError(f"a bandwidth must be positive, not {bandwidth:g}")
    squared = rdm(x, "sqeuclidean")
    width = bandwidth**2 * np.median(squared)
    if width <= 0:
        raise DataError("most stimuli have the same pattern, so distances set no scale")
    return np.exp(-to_square(squared) / (2 * width))


def _hsic_biased(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    centred = k - k.mean(axis=0) - k.mean(axis=1, keepdims=True) + k.mean()
    return float((centred * l).sum())


def _hsic_unbiased(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """Song et al. 2012, the estimator without diagonal, up to a factor of the sample size."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    row_k, row_l = k.sum(axis=1), l.sum(axis=1)
    product = row_k.sum() * row_l.sum() / ((n - 1) * (n - 2))
    return float((k * l).sum() + product - 2 * (row_k @ row_l) / (n - 2))


def procrustes_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Distance that the best rotation leaves between representations of unit size.

    Centred patterns are scaled to Frobenius norm 1; the distance is ``sqrt(2 - 2 nuclear norm
    of x'y)``: a metric, 0 for representations that are rotations of each other, at most
    ``sqrt(2)`` (Williams et al. 2021, NeurIPS). Unit counts may differ.

    Parameters
    ----------
    x, y : ndarray, shape (n_stimuli, n_units)
    """
    x, y = checked_pair(x, y)
    x, y = _principal(x), _principal(y)
    scale = np.linalg.norm(x) * np.linalg.norm(y)
    nuclear = np.linalg.svd(x.T @ y, compute_uv=False).sum() / scale
    return float(np.sqrt(max(0.0, 2 - 2 * nuclear)))


def canonical_correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlations between the best matched directions of two representations, largest first.

    Raises
    ------
    DataError
        If either has as many dimensions as there are stimuli, where every correlation is 1.
    """
    x, y = checked_pair(x, y)
    x, y = _principal(x), _principal(y)
    if x.shape[1] + y.shape[1] >= len(x):
        raise DataError(
            f"{x.shape[1]} and {y.shape[1]} dimensions over {len(x)} stimuli: some canonical "
            "correlations are 1 whatever the data",
            mend="keep fewer dimensions (svcca with n_components), or use CKA",
        )
    x, y = x / np.linalg.norm(x, axis=0), y / np.linalg.norm(y, axis=0)
    return np.clip(np.linalg.svd(x.T @ y, compute_uv=False), 0.0, 1.0)


def cca_similarity(x: np.ndarray, y: np.ndarray) -> float:
    """Mean canonical correlation, 0 ... 1."""
    return float(canonical_correlations(x, y).mean())


def svcca(
    x: np.ndarray, y: np.ndarray, *, variance: float = 0.99, n_components: int | None = None
) -> float:
    """Mean canonical correlation of leading principal components (Raghu et al. 2017, NeurIPS).

    Parameters
    ----------
    x, y : ndarray, shape (n_stimuli, n_units)
    variance : float
        Keep the components that explain this share of the variance.
    n_components : int, optional
        Keep at most so many.
    """
    if not 0 < variance <= 1:
        raise ConfigError(f"a share of variance lies in 0 ... 1, not at {variance:g}")
    kept = []
    for values in checked_pair(x, y):
        scores = _principal(values)
        share = np.cumsum((scores**2).sum(axis=0)) / (scores**2).sum()
        n = int(np.searchsorted(share, variance - 1e-12)) + 1
        kept.append(scores[:, : min(n, n_components or n)])
    return cca_similarity(*kept)


def linear_predictivity(
    x: np.ndarray,
    y: np.ndarray,
    *,
    n_folds: int = 5,
    alphas: Sequence[float] = tuple(np.logspace(-2, 5, 15)),
    rng: np.random.Generator,
) -> np.ndarray:
    """How well a ridge from ``x`` predicts each unit of ``y`` for stimuli it was not fitted to.

    Features are standardised, and the alpha of each unit is chosen, within the training stimuli
    of each fold; predictions of all folds are then correlated with the responses.

    Parameters
    ----------
    x, y : ndarray, shape (n_stimuli, n_units_x) and (n_stimuli, n_units_y)
    n_folds : int
    alphas : sequence of float
    rng : numpy.random.Generator
        Deals stimuli to folds.

    Returns
    -------
    ndarray, shape (n_units_y,)
        Pearson correlation of each unit; 0 for a unit that does not vary.
    """
    from engramma.encoding.ridge import RidgeCV
    from engramma.encoding.scores import correlation

    x, y = checked_pair(x, y)
    n = len(x)
    if not 2 <= n_folds <= n // 2:
        raise ConfigError(
            f"{n_folds} folds cannot be made of {n} stimuli",
            mend=f"use between 2 and {n // 2} folds",
        )
    fold = rng.permutation(np.arange(n) % n_folds)
    prediction = np.empty(y.shape, dtype=np.float32)
    for f in range(n_folds):
        train = fold != f
        inner = min(5, int(train.sum()))
        model = RidgeCV(alphas=alphas, cv=inner, standardize=True).fit(x[train], y[train])
        prediction[~train] = model.predict(x[~train])
    return correlation(y, prediction)


def checked_pair(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two stimulus x unit arrays as floats.

    Raises
    ------
    DataError
        If they differ in stimuli, have fewer than four, or hold NaN.
    """
    checked = []
    for name, values in (("first", x), ("second", y)):
        values = np.asarray(values)
        values = values if values.dtype == np.float64 else values.astype(np.float32, copy=False)
        if values.ndim != 2 or 0 in values.shape:
            raise DataError(
                f"the {name} representation has shape {values.shape}",
                mend="give a stimulus x unit array",
            )
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            raise DataError(
                f"the {name} representation holds NaN or infinity", where=f"stimulus {bad[0]}"
            )
        checked.append(values)
    if len(checked[0]) != len(checked[1]):
        raise DataError(
            f"representations of {len(checked[0])} and {len(checked[1])} stimuli",
            mend="give the same stimuli in the same order",
        )
    if len(checked[0]) < 4:
        raise DataError(f"{len(checked[0])} stimuli are too few to align", mend="give four or more")
    return checked[0], checked[1]


def _principal(values: np.ndarray) -> np.ndarray:
    """Scores on principal components that have variance, shape (n_stimuli, rank), float64."""
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    if centred.shape[1] > len(centred):  # the smaller side gives the same scores
        power, vectors = np.linalg.eigh(gram(centred))
        power = np.sqrt(np.clip(power[::-1], 0, None))
        scores = vectors[:, ::-1] * power
    else:
        left, power, _ = np.linalg.svd(centred, full_matrices=False)
        scores = left * power
    if not power[0] > 0:
        raise DataError("a representation is the same for every stimulus, so nothing aligns")
    # Squaring halves the digits that eigenvalues of a Gram matrix keep.
    return scores[:, power > 1e-7 * power[0]]
