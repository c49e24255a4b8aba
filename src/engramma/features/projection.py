"""Fewer dimensions: random projection, and principal components of the training stimuli.

A model that explains more of the brain may just have more dimensions. To compare models fairly,
bring them to one dimension with `match_dimensions` before fitting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from engramma.data.features import Features
from engramma.errors import ConfigError, DataError


def random_projection(
    n_features: int, dimensions: int, rng: np.random.Generator
) -> sparse.csc_array:
    """Draw a very sparse random projection, shape (n_features, dimensions).

    Entries are ±sqrt(s / dimensions), each with probability 1 / 2s, else 0, with
    s = sqrt(n_features). Squared distances are kept in expectation. It looks at no data, so that
    it may be applied before any split. Li, Hastie & Church 2006, KDD.
    """
    s = np.sqrt(n_features)
    counts = rng.binomial(n_features, 1 / s, size=dimensions)
    rows = np.concatenate([np.sort(rng.choice(n_features, c, replace=False)) for c in counts])
    signs = rng.choice(np.array([-1.0, 1.0], dtype=np.float32), size=len(rows))
    values = signs * np.float32(np.sqrt(s / dimensions))
    starts = np.concatenate([[0], np.cumsum(counts)])
    return sparse.csc_array((values, rows, starts), shape=(n_features, dimensions))


@dataclass(frozen=True)
class PrincipalComponents:
    """Principal components of the training stimuli.

    Parameters
    ----------
    mean : ndarray, shape (n_features,)
    axes : ndarray, shape (n_features, n_components)
        Orthonormal columns, by falling variance; the largest entry of each is positive.
    explained : ndarray, shape (n_components,)
        Share of the training variance that each explains.
    """

    mean: np.ndarray
    axes: np.ndarray
    explained: np.ndarray

    def transform(self, features: Features) -> Features:
        """Project features, which may include stimuli that the components never saw."""
        values = (features.values - self.mean) @ self.axes
        return replace(features, values=values.astype(np.float32))


def fit_pca(features: Features, dimensions: int, train: Iterable[str]) -> PrincipalComponents:
    """Fit principal components on the stimuli named in ``train``, and on no other.

    Raises
    ------
    ConfigError
        If ``dimensions`` exceeds what the training stimuli span.
    """
    train = list(dict.fromkeys(str(s) for s in train))
    rows = features.rows(train).astype(np.float64)
    most = min(len(rows) - 1, rows.shape[1])
    if not 1 <= dimensions <= most:
        raise ConfigError(
            f"{dimensions} principal components cannot be taken of features {features.name!r}",
            where=f"{len(rows)} training stimuli, {rows.shape[1]} features",
            mend=f"ask for 1 to {most}",
        )
    mean = rows.mean(axis=0)
    _, scales, axes = np.linalg.svd(rows - mean, full_matrices=False)
    variance = scales**2
    if variance[0] == 0:
        raise DataError(
            f"features {features.name!r} are the same for every training stimulus",
            mend="leave this feature space out",
        )
    kept = axes[:dimensions].T
    kept = kept * np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(dimensions)])
    return PrincipalComponents(
        mean.astype(np.float32),
        kept.astype(np.float32),
        (variance[:dimensions] / variance.sum()).astype(np.float32),
    )


def match_dimensions(
    features: Mapping[str, Features], train: Iterable[str], dimensions: int | None = None
) -> dict[str, Features]:
    """Bring feature spaces to one number of dimensions, by principal components.

    Parameters
    ----------
    features : mapping of str to Features
    train : iterable of str
        The stimuli that the components are fitted on.
    dimensions : int, optional
        By default the largest number that all spaces reach.

    Returns
    -------
    dict of str to Features
        Under the same names, each stimulus x dimensions.
    """
    train = list(dict.fromkeys(str(s) for s in train))
    if dimensions is None:
        dimensions = min(min(f.n_features, len(train) - 1) for f in features.values())
    return {n: fit_pca(f, dimensions, train).transform(f) for n, f in features.items()}
