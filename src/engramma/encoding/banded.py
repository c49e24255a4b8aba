"""Banded ridge: several feature spaces, each unit with its own weight for each of them.

Dupré la Tour, Eickenberg, Nunez-Elizalde & Gallant (2022), *Feature-space selection with banded
ridge regression*, NeuroImage 264:119728. Minimises
``||y - sum_i X_i b_i||^2 + sum_i (alpha / gamma_i) ||b_i||^2`` with gamma on the simplex: every
candidate gamma is an ordinary ridge on features scaled by ``sqrt(gamma_i)``, tried with all
alphas, and each unit keeps the candidate and alpha whose cross-validated score is best.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from engramma.encoding.folds import Score
from engramma.encoding.linear import Folds, as_matrix, product, threads
from engramma.encoding.ridge import ALPHAS, RidgeSolver
from engramma.errors import ConfigError, DataError
from engramma.progress import track

Spaces = Mapping[str, Any]


def simplex_candidates(
    n_spaces: int,
    n_candidates: int,
    *,
    rng: np.random.Generator,
    concentration: Sequence[float] = (0.1, 1.0),
) -> np.ndarray:
    """Draw weights of feature spaces from Dirichlet distributions.

    Parameters
    ----------
    n_spaces, n_candidates : int
    rng : numpy.random.Generator
    concentration : sequence of float
        Used in turn: 0.1 favours few spaces, 1.0 is uniform on the simplex.

    Returns
    -------
    ndarray, shape (n_candidates, n_spaces)
        Rows sum to one; the first gives all spaces the same weight.
    """
    rows = [
        rng.dirichlet(np.full(n_spaces, concentration[i % len(concentration)]))
        for i in range(n_candidates)
    ]
    rows[0] = np.full(n_spaces, 1.0 / n_spaces)
    return np.asarray(rows)


class BandedRidgeCV:
    """Ridge with per-unit weights of feature spaces, by random search on the simplex.

    Parameters
    ----------
    alphas : sequence of float
    n_candidates : int
        Weightings tried, the first of them equal weights.
    candidates : array, shape (n_candidates, n_spaces), optional
        Weightings to try instead of random ones; non-negative, in the order of the spaces.
    concentration : sequence of float
        See `simplex_candidates`.
    cv, scoring, center, standardize, units_per_chunk, jobs, dtype
        As in `engramma.encoding.ridge.RidgeCV`.
    rng : numpy.random.Generator, optional
        Required unless ``candidates`` are given.

    Attributes
    ----------
    alphas_ : ndarray, shape (n_units,)
    gammas_ : ndarray, shape (n_spaces, n_units)
        Weight of each space, rows in the order of ``spaces_``.
    spaces_ : tuple of str
    cv_scores_ : ndarray, shape (n_candidates, n_units)
        Of the best alpha under each weighting.
    best_scores_ : ndarray, shape (n_units,)
    mean_ : ndarray, shape (n_units,)
        Mean training response: what is predicted beside the contributions of the spaces.
    """

    def __init__(
        self,
        alphas: Sequence[float] = ALPHAS,
        n_candidates: int = 30,
        candidates: Any = None,
        concentration: Sequence[float] = (0.1, 1.0),
        cv: Folds = 5,
        scoring: Score = "r2",
        center: bool = True,
        standardize: bool = False,
        units_per_chunk: int | None = None,
        jobs: int | None = None,
        dtype: str = "float32",
        rng: np.random.Generator | None = None,
    ) -> None:
        self.alphas = alphas
        self.n_candidates = n_candidates
        self.candidates = candidates
        self.concentration = concentration
        self.cv = cv if isinstance(cv, int) else list(cv)
        self.scoring = scoring
        self.center = center
        self.standardize = standardize
        self.units_per_chunk = units_per_chunk
        self.jobs = jobs
        self.dtype = dtype
        self.rng = rng

    def fit(self, spaces: Spaces, Y: Any) -> BandedRidgeCV:
        """Choose weights and alpha for each unit and fit.

        Parameters
        ----------
        spaces : mapping of str to array, shape (n_presentations, n_features)
        Y : array, shape (n_presentations, n_units)

        Raises
        ------
        ConfigError
            If there is no space, or candidates do not fit the spaces.
        DataError
            If shapes do not match or values are not finite.
        """
        Y = np.asarray(Y)
        if Y.ndim != 2 or not Y.shape[1]:
            raise DataError(f"Y has shape {Y.shape}", mend="give a presentation x unit matrix")
        X, self._bands = self._stack(spaces)
        self.spaces_ = tuple(spaces)
        gammas = self.weightings(len(self.spaces_))
        work = float(len(Y)) * min(X.shape) * Y.shape[1] * np.size(self.alphas)
        with threads(self.jobs, work):
            solver = RidgeSolver(
                X,
                alphas=self.alphas,
                cv=self.cv,
                scoring=self.scoring,
                center=self.center,
                standardize=self.standardize,
                n_units=Y.shape[1],
                dtype=self.dtype,
                bands=self._bands,
            )
            self._search(solver, gammas, Y)
            self._refit(solver, gammas, Y)
        self.gammas_ = gammas[self._best].T
        self.alphas_ = solver.alphas[self._choice]
        return self

    def weightings(self, n_spaces: int) -> np.ndarray:
        """Return the weightings to try, candidates x spaces: those given, or a random draw."""
        if self.candidates is not None:
            given = np.asarray(self.candidates, dtype=np.float64)
            if given.ndim != 2 or given.shape[1] != n_spaces or not len(given):
                raise ConfigError(
                    f"candidates have shape {given.shape} for {n_spaces} feature spaces",
                    mend="give one row per weighting and one column per space",
                )
            if (given < 0).any() or not np.isfinite(given).all() or not given.any(axis=1).all():
                raise ConfigError("candidates must be non-negative and not all zero")
            return given
        if self.rng is None:
            raise ConfigError(
                "a random search needs a random state",
                mend="pass rng=numpy.random.default_rng(seed), or candidates=",
            )
        return simplex_candidates(
            n_spaces, self.n_candidates, rng=self.rng, concentration=self.concentration
        )

    def _chunks(self, solver: RidgeSolver, n_units: int) -> Iterator[slice]:
        step = self.units_per_chunk or solver.units_per_chunk
        return (slice(start, min(start + step, n_units)) for start in range(0, n_units, step))

    def _search(self, solver: RidgeSolver, gammas: np.ndarray, Y: np.ndarray) -> None:
        """Find each unit's best candidate and alpha."""
        n_units = Y.shape[1]
        self.cv_scores_ = np.empty((len(gammas), n_units))
        self.best_scores_ = np.full(n_units, -np.inf)
        self._best = np.zeros(n_units, dtype=np.int64)
        self._choice = np.zeros(n_units, dtype=np.int64)
        # A later candidate must be better by more than the rounding of single precision.
        least = np.finfo(np.float32).eps
        for number, gamma in enumerate(track(list(gammas), "Banded ridge")):
            solver.weigh(gamma)
            for units in self._chunks(solver, n_units):
                part = solver.solve(Y[:, units], first=units.start)
                scores = np.take_along_axis(part.cv_scores, part.choice[None], axis=0)[0]
                self.cv_scores_[number, units] = scores
                better = np.flatnonzero(scores > self.best_scores_[units] + least) + units.start
                self.best_scores_[better] = scores[better - units.start]
                self._best[better] = number
                self._choice[better] = part.choice[better - units.start]

    def _refit(self, solver: RidgeSolver, gammas: np.ndarray, Y: np.ndarray) -> None:
        """Fit every unit with its choice; keep weights on features, or on rows if fewer."""
        n_units = Y.shape[1]
        self._rows = None if solver.X.shape[1] <= solver.n else solver.X
        width = solver.X.shape[1] if self._rows is None else solver.n
        self._weights = np.empty((n_units, width), self.dtype)
        self.mean_ = np.empty(n_units, self.dtype)
        if self.center:
            for units in self._chunks(solver, n_units):
                self.mean_[units] = Y[:, units].mean(axis=0, dtype=np.float64)
        else:
            self.mean_[:] = 0
        for number in np.unique(self._best):
            solver.weigh(gammas[number])
            chosen = np.flatnonzero(self._best == number)
            for part in self._chunks(solver, len(chosen)):
                here = chosen[part]
                weights = solver.refit(Y[:, here], self._choice[here])
                if self._rows is None:
                    self._weights[here] = solver.axes.coefficients(weights).T.numpy()
                else:
                    self._weights[here] = solver.axes.duals(weights).numpy()
        solver.weigh(None)
        self._offset, self._scale = solver.axes.mean, solver.axes.scale

    # -- prediction ------------------------------------------------------------------------

    def predict(self, spaces: Spaces, units: slice = slice(None)) -> np.ndarray:
        """Predict responses, shape (n, n_units)."""
        parts = self.predict_by_space(spaces, units)
        out = self.mean_[units] + np.zeros((len(next(iter(parts.values()))), 1), self.dtype)
        for part in parts.values():
            out += part
        return np.asarray(out)

    def predict_by_space(self, spaces: Spaces, units: slice = slice(None)) -> dict[str, np.ndarray]:
        """Predict what each space contributes, without the mean; they add up to `predict`.

        Returns
        -------
        dict of str to ndarray, shape (n, n_units)
        """
        missing = [name for name in self.spaces_ if name not in spaces]
        if missing:
            raise DataError(
                f"feature space {missing[0]!r} is missing",
                where=f"given: {', '.join(spaces)}",
                mend="give every space that the ridge was fitted with",
            )
        X, bands = self._stack({name: spaces[name] for name in self.spaces_})
        if bands != self._bands:
            raise DataError(
                "feature spaces have other widths than those the ridge was fitted to",
                where=", ".join(
                    f"{n}: {b.stop - b.start}" for n, b in zip(self.spaces_, bands, strict=True)
                ),
                mend="give the same features in the same order",
            )
        weights = torch.from_numpy(self._weights[units])
        with threads(self.jobs):
            return {
                name: self._predict_band(X, band, gamma[units], weights)
                for name, band, gamma in zip(self.spaces_, bands, self.gammas_, strict=True)
            }

    def _predict_band(
        self, X: torch.Tensor, band: slice, gamma: np.ndarray, weights: torch.Tensor
    ) -> np.ndarray:
        new = X[:, band].double() - self._offset[band]
        if self._rows is None:
            return product(new.to(X.dtype), weights[:, band].contiguous()).numpy()
        # By way of the training rows: gamma_i K_i(new, training) times the dual weights.
        old = (self._rows[:, band].double() - self._offset[band]) / self._scale[band] ** 2
        kernel = (new @ old.T).to(X.dtype)
        return np.asarray(product(kernel, weights).numpy() * gamma.astype(self.dtype))

    def _stack(self, spaces: Spaces) -> tuple[torch.Tensor, list[slice]]:
        if not spaces:
            raise ConfigError("banded ridge needs at least one feature space")
        parts = [
            as_matrix(v, f"feature space {k!r}", getattr(torch, self.dtype))
            for k, v in spaces.items()
        ]
        lengths = {len(p) for p in parts}
        if len(lengths) > 1:
            raise DataError(
                f"feature spaces have different numbers of rows: {sorted(lengths)}",
                mend="give each space one row per presentation",
            )
        edges = np.cumsum([0] + [p.shape[1] for p in parts])
        return torch.cat(parts, dim=1), [slice(int(a), int(b)) for a, b in pairwise(edges)]
