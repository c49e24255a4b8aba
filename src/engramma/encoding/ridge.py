"""Ridge regression from features to very many units, each with its own alpha.

The cost of a cross-validated ridge to tens of thousands of units is that of predicting, for
every alpha, the responses of each fold: ``n_alphas x n x min(p, n_train) x n_units``
multiplications that cannot be avoided while every alpha is to be scored exactly. Everything
else is arranged to cost little beside them: one eigendecomposition serves all folds
(`engramma.encoding.folds`), weights and folds share one projection of the responses, scores are
taken while predictions are still in cache, and units pass in chunks. Alphas are those of
explicit refitting; nothing is interpolated or truncated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engramma.encoding.folds import FoldMap, HeldOut, Score, build_fold
from engramma.encoding.linear import (
    Axes,
    Folds,
    as_matrix,
    moments,
    product,
    resolve_folds,
    threads,
)
from engramma.errors import ConfigError, DataError
from engramma.progress import track

#: Ten alphas over the range in which standardised features of a few thousand stimuli matter.
ALPHAS = tuple(float(a) for a in np.logspace(0, 6, 10))

#: Bytes that the maps of all folds may take; beyond it they are made again for each chunk.
_KEEP = 384 * 2**20


@dataclass(frozen=True)
class Solution:
    """The ridge of some units.

    Parameters
    ----------
    choice : ndarray of int, shape (n_units,)
        Index of the chosen alpha.
    cv_scores : ndarray, shape (n_alphas, n_units), float64
        Cross-validated score, mean over folds.
    weights : ndarray, shape (n_units, n_components)
        On the principal axes of the features.
    mean : ndarray, shape (n_units,)
        Mean response (0 without centring).
    """

    choice: np.ndarray
    cv_scores: np.ndarray
    weights: np.ndarray
    mean: np.ndarray


class RidgeSolver:
    """Everything about a ridge that does not depend on the units, ready for chunks of them.

    Parameters
    ----------
    X : array, shape (n, p)
    alphas : sequence of float
        Candidates, positive.
    cv : int or iterable
        Number of contiguous folds, or (train, test) pairs.
    scoring : {"r2", "correlation", "mse"}
        Mean over folds; "mse" is the negative mean squared error. A fold of one presentation
        has no r2 or correlation and is left out of their mean; a fold in which a unit is
        constant scores 0.
    center : bool
        Fit an intercept, in each fold from its training presentations.
    standardize : bool
        Divide each feature by its standard deviation, in each fold over its training
        presentations.
    n_units : int
        How many units will be solved in all; a hint for choosing the cheapest form.
    dtype : {"float32", "float64"}
    bands : sequence of slice
        Columns of ``X`` that `weigh` weighs together; all columns weigh 1 at first.
    """

    def __init__(
        self,
        X: Any,
        *,
        alphas: Sequence[float] = ALPHAS,
        cv: Folds = 5,
        scoring: Score = "r2",
        center: bool = True,
        standardize: bool = False,
        n_units: int = 10_000,
        dtype: str = "float32",
        bands: Sequence[slice] = (),
    ) -> None:
        if scoring not in ("r2", "correlation", "mse"):
            raise ConfigError(
                f"scoring {scoring!r} is not known", mend="use 'r2', 'correlation' or 'mse'"
            )
        if dtype not in ("float32", "float64"):
            raise ConfigError(f"dtype {dtype!r} is not known", mend="use 'float32' or 'float64'")
        values = np.atleast_1d(np.asarray(alphas, dtype=np.float64))
        if values.ndim != 1 or not len(values) or not (np.isfinite(values) & (values > 0)).all():
            raise ConfigError(
                f"alphas must be positive numbers, not {alphas!r}",
                mend="for almost no shrinkage give a small one, such as 1e-6",
            )
        self.alphas, self.scoring, self.center, self.standardize = (
            values,
            scoring,
            center,
            standardize,
        )
        self.n_units = max(n_units, 1)
        self.dtype = getattr(torch, dtype)
        self.X = as_matrix(X, "X", self.dtype)
        self.n = len(self.X)
        self.folds = resolve_folds(cv, self.n)
        if scoring != "mse" and all(len(test) == 1 for _, test in self.folds):
            raise ConfigError(
                f"folds of one presentation have no {scoring}",
                mend="use larger folds, or scoring='mse'",
            )
        self.bands = tuple(bands)
        self._alphas = torch.from_numpy(values)
        self._moments = moments(self.X, center=center, standardize=standardize, bands=self.bands)
        tested = np.concatenate([test for _, test in self.folds])
        self._partition = len(tested) == self.n == len(np.unique(tested))
        self.weigh(None)

    def weigh(self, weights: np.ndarray | None) -> None:
        """Give each band of features a weight: its columns are multiplied by the root of it."""
        self._weights = weights
        self.axes = self._moments.axes(self.bands, weights)
        self._shrinkage = self.axes.shrinkage(self._alphas).to(self.dtype)
        self._loadings = self.axes.scores.T.to(self.dtype).contiguous()
        self._kept: dict[int, FoldMap] = {}
        self._room = _KEEP

    def _own_axes(self, rows: torch.Tensor) -> Axes:
        settings = {"center": self.center, "standardize": self.standardize}
        return moments(rows, bands=self.bands, **settings).axes(self.bands, self._weights)

    @property
    def units_per_chunk(self) -> int:
        """Units that keep the arithmetic units busy and a chunk within about 300 MB."""
        per_unit = 4 * (2 * self.n + (len(self.folds) + 2) * len(self._loadings))
        wanted = 2048 if self._all_kept() else 8192
        return int(np.clip(300 * 2**20 // per_unit, 128, wanted))

    def _all_kept(self) -> bool:
        width = min(len(self._loadings), self.n)
        rows = sum(min(len(test), width) for _, test in self.folds)
        return 4 * len(self.alphas) * rows * width <= _KEEP

    def _fold(self, number: int) -> FoldMap:
        if number in self._kept:
            return self._kept[number]
        train, test = self.folds[number]
        once = np.bincount(np.concatenate([train, test]), minlength=self.n)
        shared = not self.standardize and bool((once == 1).all())
        fold = build_fold(
            self.X,
            self.axes if shared else None,
            train,
            test,
            self._alphas,
            own_axes=self._own_axes,
            n_units=self.n_units,
        )
        size = fold.maps.nbytes + fold.loadings.nbytes
        if size <= self._room:
            self._kept[number] = fold
            self._room -= size
        return fold

    def solve(self, Y: np.ndarray, first: int = 0) -> Solution:
        """Choose alpha and fit, for the units in the columns of ``Y`` (n x units).

        Parameters
        ----------
        first : int
            Number of the first unit, for error messages.

        Raises
        ------
        DataError
            If a response is NaN or infinite (the unit is named), or the rows do not match.
        """
        rows, mean = self._rows(Y, first)
        level = (rows + mean[:, None]).abs_().amax(dim=1)
        cv_scores, total = self._cross_validate(rows, level)
        # Of equal scores the largest alpha wins: the simplest model that does as well.
        order = np.argsort(-self.alphas, kind="stable")
        choice = order[np.argmax(cv_scores.numpy()[order], axis=0)]
        weights = total.mul_(self._shrinkage[torch.from_numpy(choice)])
        return Solution(choice, cv_scores.numpy(), weights.numpy(), mean.numpy())

    def refit(self, Y: np.ndarray, choice: np.ndarray) -> torch.Tensor:
        """Weights on the components (units x k) for alphas already chosen."""
        rows, _ = self._rows(Y, 0)
        return product(rows, self._loadings).mul_(self._shrinkage[torch.from_numpy(choice)])

    def _rows(self, Y: np.ndarray, first: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Check responses and turn them, centred, to units x n; and their means."""
        if Y.ndim != 2 or len(Y) != self.n:
            raise DataError(
                f"responses have shape {Y.shape} for {self.n} rows of features",
                mend="give one row of features for each presentation",
            )
        kind = np.float64 if self.dtype == torch.float64 else np.float32
        rows = torch.from_numpy(np.array(np.asarray(Y).T, dtype=kind, order="C"))
        _check_finite(rows, first)
        if not self.center:
            return rows, torch.zeros(len(rows), dtype=self.dtype)
        mean = rows.mean(dim=1)
        rows -= mean[:, None]
        return rows, mean

    def _cross_validate(
        self, rows: torch.Tensor, level: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean score over folds (n_alphas x units, float64), and ``T'Y`` (units x k)."""
        total, parts = self._projections(rows)
        out = torch.zeros(len(self.alphas), len(rows), dtype=torch.float64)
        count = 0
        for number, (_, test) in enumerate(self.folds):
            if self.scoring != "mse" and len(test) == 1:
                continue
            fold = self._fold(number)
            held_out, part = parts.get(number) or self._part(fold, rows)
            scores = fold.scores(held_out, fold.training(rows, total, part), self.scoring)
            if self.scoring != "mse":
                noise = 4 * torch.finfo(self.dtype).eps * level
                constant = held_out.spread <= noise.square_() * len(test)
                scores = torch.where(constant | ~scores.isfinite(), 0.0, scores)
            out += scores
            count += 1
        return out / count, total

    def _projections(
        self, rows: torch.Tensor
    ) -> tuple[torch.Tensor, dict[int, tuple[HeldOut, torch.Tensor]]]:
        """``T'Y`` of all rows; where it is the sum over folds, also what each fold adds."""
        if not self._partition or not self._all_kept():
            return product(rows, self._loadings), {}
        folds = [self._fold(number) for number in range(len(self.folds))]
        parts = {number: self._part(fold, rows) for number, fold in enumerate(folds)}
        if any(fold.source != "total" for fold in folds):
            return product(rows, self._loadings), parts
        total = parts[0][1].clone()
        for number in range(1, len(folds)):
            total += parts[number][1]
        return total, parts

    @staticmethod
    def _part(fold: FoldMap, rows: torch.Tensor) -> tuple[HeldOut, torch.Tensor]:
        """Responses of a fold and, where it is to be subtracted, its ``T'Y``."""
        held_out = fold.held_out(rows)
        subtracted = fold.source == "total"
        return held_out, product(held_out.truth, fold.loadings) if subtracted else rows[:, :0]


class RidgeCV:
    """Ridge regression with an alpha per unit, chosen by cross-validation.

    Minimises ``||y - Xb - b0||^2 + alpha ||b||^2`` for each unit, with the alpha whose held-out
    score, averaged over folds, is best. A unit that does not vary scores 0 everywhere, gets the
    largest alpha, and is predicted by its mean.

    Parameters
    ----------
    alphas : sequence of float
        Candidates, positive.
    cv : int or iterable of (train, test)
        Number of contiguous folds, index pairs, or `data.splits.Split` objects.
    scoring : {"r2", "correlation", "mse"}
        See `RidgeSolver`.
    center : bool
        Fit an intercept, exactly, in each fold.
    standardize : bool
        Divide features by their standard deviation over the training presentations.
    units_per_chunk : int, optional
        Units solved at a time; results do not depend on it beyond rounding.
    jobs : int, optional
        Threads; by default as many as torch uses.
    dtype : {"float32", "float64"}

    Attributes
    ----------
    alphas_ : ndarray, shape (n_units,)
    cv_scores_ : ndarray, shape (n_alphas, n_units)
    best_scores_ : ndarray, shape (n_units,)
    coef_ : ndarray, shape (p, n_units)
        Computed when asked for.
    intercept_ : ndarray, shape (n_units,)
    """

    def __init__(
        self,
        alphas: Sequence[float] = ALPHAS,
        cv: Folds = 5,
        scoring: Score = "r2",
        center: bool = True,
        standardize: bool = False,
        units_per_chunk: int | None = None,
        jobs: int | None = None,
        dtype: str = "float32",
    ) -> None:
        self.alphas = alphas
        self.cv = cv
        self.scoring = scoring
        self.center = center
        self.standardize = standardize
        self.units_per_chunk = units_per_chunk
        self.jobs = jobs
        self.dtype = dtype

    def fit(self, X: Any, Y: Any) -> RidgeCV:
        """Choose an alpha for each unit and fit.

        Parameters
        ----------
        X : array, shape (n_presentations, n_features)
        Y : array, shape (n_presentations, n_units) or (n_presentations,)

        Raises
        ------
        DataError
            If shapes do not match or values are not finite (the column or unit is named).
        ConfigError
            If an option is unknown or folds are impossible.
        """
        Y = np.asarray(Y)
        self._single = Y.ndim == 1
        Y = Y[:, None] if self._single else Y
        n_units = Y.shape[1] if Y.ndim == 2 else 0
        if not n_units:
            raise DataError(f"Y has shape {Y.shape}", mend="give a presentation x unit matrix")
        X = as_matrix(X, "X", getattr(torch, self.dtype))
        work = float(len(Y)) * min(X.shape) * n_units * np.size(self.alphas)
        with threads(self.jobs, work):
            solver = RidgeSolver(
                X,
                alphas=self.alphas,
                cv=self.cv,
                scoring=self.scoring,
                center=self.center,
                standardize=self.standardize,
                n_units=n_units,
                dtype=self.dtype,
            )
            self._axes = solver.axes
            self._weights = np.empty((n_units, len(solver.axes.power)), self.dtype)
            self._mean = np.empty(n_units, self.dtype)
            self.cv_scores_ = np.empty((len(solver.alphas), n_units))
            choice = np.empty(n_units, dtype=np.int64)
            step = self.units_per_chunk or solver.units_per_chunk
            for start in track(range(0, n_units, step), "Ridge"):
                units = slice(start, start + step)
                part = solver.solve(Y[:, units], first=start)
                choice[units], self._mean[units] = part.choice, part.mean
                self.cv_scores_[:, units], self._weights[units] = part.cv_scores, part.weights
        self.alphas_ = solver.alphas[choice]
        self.best_scores_ = np.take_along_axis(self.cv_scores_, choice[None], axis=0)[0]
        self.n_features_in_ = solver.X.shape[1]
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predict responses, shape (n, n_units)."""
        X = as_matrix(X, "X", getattr(torch, self.dtype))
        if X.shape[1] != self.n_features_in_:
            raise DataError(
                f"{X.shape[1]} features, but the ridge was fitted to {self.n_features_in_}",
                mend="give the features that it was fitted with, in the same order",
            )
        with threads(self.jobs):
            scores = self._axes.transform(X).to(X.dtype)
            out = product(scores, torch.from_numpy(self._weights)).numpy()
        out += self._mean
        return out[:, 0] if self._single else out

    @property
    def coef_(self) -> np.ndarray:
        """Weights of the features, shape (p, n_units)."""
        with threads(self.jobs):
            coef = self._axes.coefficients(torch.from_numpy(self._weights)).numpy()
        return coef[:, 0] if self._single else coef

    @property
    def intercept_(self) -> np.ndarray:
        """Prediction for features that are all 0, shape (n_units,)."""
        zeros = np.zeros((1, self.n_features_in_), self.dtype)
        return np.asarray(self.predict(zeros)[0])


def _check_finite(rows: torch.Tensor, first: int) -> None:
    if torch.isfinite(rows.sum()):
        return
    bad = torch.nonzero(~torch.isfinite(rows).all(dim=1))[:, 0]
    if len(bad):
        presentation = torch.nonzero(~torch.isfinite(rows[bad[0]]))[0, 0]
        raise DataError(
            "responses hold NaN or infinity",
            where=f"unit {first + int(bad[0])}, presentation {int(presentation)} "
            f"({len(bad)} such units in this chunk)",
            mend="drop these units, or fill them, before fitting",
        )
