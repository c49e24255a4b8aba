"""Model RDMs: from categories, from features, and weighted sums of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from engramma.data.features import Features
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError, DataError
from engramma.geometry.dissimilarity import Method, rdm
from engramma.geometry.pairs import checked_rdms, n_stimuli_of, pair_indices


def category_model(labels: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Predict 0 within a category and 1 between categories.

    Parameters
    ----------
    labels : sequence, length n_stimuli
        Any values that compare as equal within a category.

    Returns
    -------
    ndarray, shape (n_pairs,)

    Raises
    ------
    DataError
        If a label is missing, there is one category only, or each stimulus is one of its own.
    """
    codes, levels = pd.factorize(np.asarray(labels))
    if (codes < 0).any():
        raise DataError(
            "a stimulus has no category",
            where=f"stimulus {np.flatnonzero(codes < 0)[0]}",
            mend="label every stimulus, or leave it out",
        )
    if len(levels) < 2 or len(levels) == len(codes):
        what = "one category only" if len(levels) < 2 else "a category of its own for each stimulus"
        raise DataError(
            f"the labels give {what}, which predicts one dissimilarity for all pairs",
            mend="use labels that group some of the stimuli",
        )
    first, second = pair_indices(len(codes))
    return (codes[first] != codes[second]).astype(np.float64)


def category_models(
    stimuli: StimulusSet, columns: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """One category model a column of the stimulus table.

    Parameters
    ----------
    stimuli : StimulusSet
        In the order of the RDMs.
    columns : sequence of str, optional
        All columns that group the stimuli by default.
    """
    columns = stimuli.categorical() if columns is None else columns
    for name in columns:
        if name not in stimuli.table:
            raise DataError(
                f"the stimulus table has no column {name!r}",
                where=f"it has {', '.join(map(str, stimuli.table.columns)) or 'none'}",
            )
    return {name: category_model(stimuli.table[name].to_numpy()) for name in columns}


def feature_model(
    features: Features, stimuli: Sequence[str], method: Method = "correlation"
) -> np.ndarray:
    """RDM of the features of some stimuli, shape (n_pairs,); see `rdm` for the methods."""
    return rdm(features.rows(stimuli), method, stimuli=list(stimuli))


@dataclass(frozen=True, eq=False)
class WeightedModel:
    """A sum of component RDMs with non-negative weights, fitted to data.

    Distances add: if units of several kinds form a representation, its squared distances are the
    weighted sum of the squared distances of the kinds (Khaligh-Razavi & Kriegeskorte 2014,
    PLoS Comput Biol). So components should be squared Euclidean or correlation distances.

    Parameters
    ----------
    components : mapping of str to ndarray, shape (n_pairs,)
    intercept : bool
        Fit a free constant too, as fits the correlations; without it, as fits the cosine.
    """

    components: Mapping[str, np.ndarray]
    intercept: bool = True

    def __post_init__(self) -> None:
        if not self.components:
            raise ConfigError("a weighted model needs at least one component")
        sizes = {np.shape(c) for c in self.components.values()}
        if len(sizes) > 1:
            raise DataError("components differ in their number of pairs", where=str(sorted(sizes)))
        checked_rdms(self._matrix, "the components")

    @property
    def _matrix(self) -> np.ndarray:
        return np.stack([np.asarray(c, dtype=np.float64) for c in self.components.values()])

    def fit(self, data_rdms: np.ndarray) -> dict[str, float]:
        """Weights that fit the mean of ``data_rdms``, shape (n_subjects, n_pairs), best."""
        data = self._mean(data_rdms)
        weights = self._weights(data, np.ones(len(data), dtype=bool))
        return dict(zip(self.components, map(float, weights), strict=True))

    def cross_validated(
        self, data_rdms: np.ndarray, n_folds: int = 6, *, rng: np.random.Generator
    ) -> np.ndarray:
        """Predict each dissimilarity with weights that neither of its stimuli has touched.

        Stimuli are dealt to folds. The pairs between two folds (or within one) are predicted with
        weights fitted to the pairs of all other stimuli. The result can be evaluated like any
        fixed model. Its subjects are the same, so it generalises over stimuli alone.

        Parameters
        ----------
        data_rdms : ndarray, shape (n_subjects, n_pairs)
        n_folds : int
            Three at least, each of two stimuli at least.
        rng : numpy.random.Generator

        Returns
        -------
        ndarray, shape (n_pairs,)
        """
        data = self._mean(data_rdms)
        n = n_stimuli_of(len(data))
        if not 3 <= n_folds <= n // 2:
            raise ConfigError(
                f"{n_folds} folds cannot be made of {n} stimuli",
                mend=f"use between 3 and {n // 2} folds",
            )
        fold = rng.permutation(np.arange(n) % n_folds)
        first, second = pair_indices(n)
        low, high = np.minimum(fold[first], fold[second]), np.maximum(fold[first], fold[second])
        matrix, prediction = self._matrix, np.empty(len(data))
        for f in range(n_folds):
            for g in range(f, n_folds):
                held_out = np.isin(fold, (f, g))
                train = ~held_out[first] & ~held_out[second]
                test = (low == f) & (high == g)
                weights = self._weights(data, train)
                offset = (data[train] - weights @ matrix[:, train]).mean() * self.intercept
                prediction[test] = weights @ matrix[:, test] + offset
        return prediction

    def _mean(self, data_rdms: np.ndarray) -> np.ndarray:
        data = checked_rdms(data_rdms, "the RDMs")
        if data.shape[1] != self._matrix.shape[1]:
            raise DataError(
                f"components have {self._matrix.shape[1]} pairs, the RDMs {data.shape[1]}",
                mend="build both over the same stimuli, in the same order",
            )
        return data.mean(axis=0)

    def _weights(self, data: np.ndarray, train: np.ndarray) -> np.ndarray:
        x, y = self._matrix[:, train], data[train]
        if self.intercept:
            x, y = x - x.mean(axis=1, keepdims=True), y - y.mean()
        scale = np.sqrt((x**2).mean(axis=1, keepdims=True))
        scale[scale == 0] = 1.0  # a component that is constant here gets no weight
        return nnls((x / scale).T, y)[0] / scale[:, 0]
