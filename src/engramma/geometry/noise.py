"""Noise covariance over units, and inner products of patterns weighted by its inverse.

A covariance estimated from ``r`` residuals and shrunk towards a diagonal is a diagonal plus a
matrix of rank ``r``. With more units than residuals (a brain) its inverse is applied through the
Woodbury identity, and no unit x unit matrix is ever formed; otherwise it is inverted outright.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from engramma.errors import ConfigError, DataError

NoiseMethod = Literal["diagonal", "ledoit-wolf", "shrinkage-diagonal", "full"]

#: Units that are multiplied at a time: large enough for BLAS, small enough to stay in memory.
CHUNK = 2048


@dataclass(frozen=True, eq=False)
class Noise:
    """The inverse of a noise covariance, in the form in which it is cheapest to apply.

    Made by `estimate_noise`, `Noise.from_covariance` or `Noise.from_precision`.

    Parameters
    ----------
    scale : ndarray, shape (n_units,)
        Patterns are divided by it first.
    whitener : ndarray, shape (n_units, n_units), optional
        Applied after the scale: the precision is ``whitener @ whitener.T``.
    factors, lower : ndarray, shape (r, n_units) and (r, r), optional
        After the scale the covariance is ``I + factors.T @ factors``, and ``lower`` is the
        Cholesky factor of ``I + factors @ factors.T``.
    shrinkage : float
        Weight of the shrinkage target, 0 ... 1.
    """

    scale: np.ndarray
    whitener: np.ndarray | None = None
    factors: np.ndarray | None = None
    lower: np.ndarray | None = None
    shrinkage: float = 0.0

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.scale)

    @classmethod
    def from_covariance(cls, covariance: np.ndarray, shrinkage: float = 0.0) -> Noise:
        """Take a covariance matrix, shape (n_units, n_units).

        Raises
        ------
        DataError
            If it is not symmetric and positive definite.
        """
        covariance = np.asarray(covariance, dtype=np.float64)
        _check_symmetric(covariance)
        scale = np.sqrt(np.clip(np.diag(covariance), 1e-300, None))
        try:
            lower = cholesky(covariance / np.outer(scale, scale), lower=True)
        except np.linalg.LinAlgError as error:
            raise DataError(
                "the noise covariance is not positive definite",
                mend="estimate it with shrinkage, or from more residuals than there are units",
            ) from error
        whitener = solve_triangular(lower, np.eye(len(scale)), lower=True).T
        return cls(scale, whitener=whitener, shrinkage=shrinkage)

    @classmethod
    def from_precision(cls, precision: np.ndarray) -> Noise:
        """Take the inverse of a covariance matrix, shape (n_units, n_units)."""
        precision = np.asarray(precision, dtype=np.float64)
        _check_symmetric(precision)
        try:
            whitener = cholesky(precision, lower=True)
        except np.linalg.LinAlgError as error:
            raise DataError("the noise precision is not positive definite") from error
        return cls(np.ones(len(precision)), whitener=whitener)

    def inner(self, a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
        """Inner products ``a @ precision @ b.T`` of patterns whose mean pattern is removed.

        Parameters
        ----------
        a, b : ndarray, shape (n_stimuli, n_units)
            ``b`` is ``a`` by default.

        Returns
        -------
        ndarray of float64, shape (n_stimuli, n_stimuli)
        """
        white_a, low_a = self._whiten(a)
        white_b, low_b = (white_a, low_a) if b is None else self._whiten(b)
        return gram(white_a, white_b) - low_a.T @ low_b

    def _whiten(self, patterns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whitened patterns, and the part of their inner product to subtract (Woodbury)."""
        if patterns.shape[1] != self.n_units:
            raise DataError(
                f"the noise covariance has {self.n_units} units, the patterns {patterns.shape[1]}",
                mend="estimate the noise over the units of the patterns",
            )
        dtype = patterns.dtype
        white = (patterns - patterns.mean(axis=0)) / self.scale.astype(dtype)
        if self.whitener is not None:
            return white @ self.whitener.astype(dtype), np.zeros((1, len(white)))
        if self.factors is None or self.lower is None:
            return white, np.zeros((1, len(white)))
        cross = gram(self.factors.astype(dtype, copy=False), white)
        return white, solve_triangular(self.lower, cross, lower=True)


def estimate_noise(
    residuals: np.ndarray, *, dof: int | None = None, method: NoiseMethod = "ledoit-wolf"
) -> Noise:
    """Estimate the noise covariance over units from residuals.

    Parameters
    ----------
    residuals : ndarray, shape (n_residuals, n_units)
        Deviations of presentations from the mean of their stimulus.
    dof : int, optional
        Degrees of freedom, that is presentations minus stimuli; ``n_residuals - 1`` by default.
    method : {"diagonal", "ledoit-wolf", "shrinkage-diagonal", "full"}
        ``"diagonal"`` keeps the variances only. ``"ledoit-wolf"`` shrinks towards a multiple of
        the identity (Ledoit & Wolf 2004, J Multivar Anal), ``"shrinkage-diagonal"`` towards the
        variances (Schäfer & Strimmer 2005, Stat Appl Genet Mol Biol). ``"full"`` does not shrink.

    Raises
    ------
    DataError
        If there are too few residuals, a unit does not vary, or the covariance is singular.
    """
    residuals = np.asarray(residuals)
    if residuals.dtype != np.float64:
        residuals = residuals.astype(np.float32, copy=False)
    n, n_units = residuals.shape
    dof = n - 1 if dof is None else dof
    if dof < 1 or n < 2:
        raise DataError(
            f"the noise cannot be estimated from {n} residuals with {max(dof, 0)} degrees of "
            "freedom",
            mend="present stimuli repeatedly, or use noise=None",
        )
    squares = np.einsum("ij,ij->j", residuals, residuals, dtype=np.float64)
    if not np.isfinite(squares).all():
        raise DataError("the residuals hold NaN or infinity", mend="mask the units concerned")
    variance = squares / dof
    flat = np.flatnonzero(variance <= 0)
    if len(flat) and (method != "ledoit-wolf" or len(flat) == n_units):
        raise DataError(
            f"{len(flat)} units do not vary between repeats",
            where=f"unit {flat[0]}",
            mend='leave flat units out, or use noise="ledoit-wolf"',
        )
    if method == "diagonal":
        return Noise(np.sqrt(variance), shrinkage=1.0)
    if method == "full":
        return Noise.from_covariance(_outer(residuals) / dof)
    if method == "ledoit-wolf":
        weight = _ledoit_wolf_weight(residuals, float(squares.sum()))
        target = np.full(n_units, variance.mean())
    elif method == "shrinkage-diagonal":
        weight = _schaefer_strimmer_weight(residuals, np.sqrt(variance), dof)
        target = variance
    else:
        raise ConfigError(
            f"there is no noise estimate {method!r}",
            mend="use diagonal, ledoit-wolf, shrinkage-diagonal or full",
        )
    return _shrunk(residuals, dof, target, weight)


def gram(a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """Inner products of rows in the precision of ``a``, summed over chunks of units in float64."""
    b = a if b is None else b
    total = np.zeros((len(a), len(b)))
    for start in range(0, a.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        # One and the same array on both sides lets BLAS compute half of a symmetric product.
        left = np.ascontiguousarray(a[:, part])
        total += left @ (left if b is a else b[:, part]).T
    return total


def _shrunk(residuals: np.ndarray, dof: int, target: np.ndarray, weight: float) -> Noise:
    """Form ``weight * diag(target) + (1 - weight) * sample covariance``, ready to be inverted."""
    n, n_units = residuals.shape
    if weight >= 1:
        return Noise(np.sqrt(target), shrinkage=1.0)
    if n >= n_units or weight <= 0:
        covariance = (1 - weight) * _outer(residuals) / dof
        covariance[np.diag_indices(n_units)] += weight * target
        return Noise.from_covariance(covariance, shrinkage=weight)
    scale = np.sqrt(weight * target)
    factors = residuals * (np.sqrt((1 - weight) / dof) / scale).astype(residuals.dtype)
    lower = cholesky(gram(factors) + np.eye(n), lower=True)
    return Noise(scale, factors=factors, lower=lower, shrinkage=weight)


def _outer(residuals: np.ndarray) -> np.ndarray:
    """Sum of squares and products over residuals, shape (n_units, n_units)."""
    wide = residuals.astype(np.float64)
    return wide.T @ wide


def _squared_norm(residuals: np.ndarray) -> float:
    """Squared Frobenius norm of ``residuals.T @ residuals``, through its smaller side."""
    few = len(residuals) <= residuals.shape[1]
    return float((gram(residuals) ** 2).sum() if few else (_outer(residuals) ** 2).sum())


def _ledoit_wolf_weight(residuals: np.ndarray, total: float) -> float:
    """Shrinkage weight of Ledoit & Wolf 2004, their b² / d²."""
    n, n_units = residuals.shape
    squared = _squared_norm(residuals) / n**2
    mean = total / n / n_units
    d2 = squared - n_units * mean**2
    row = np.einsum("ij,ij->i", residuals, residuals, dtype=np.float64)
    b2 = ((row**2).sum() / n - squared) / n
    return float(np.clip(b2 / d2, 0.0, 1.0)) if d2 > 0 else 1.0


def _schaefer_strimmer_weight(residuals: np.ndarray, std: np.ndarray, dof: int) -> float:
    """Shrinkage weight of Schäfer & Strimmer 2005 for correlations.

    Sums over pairs of different units are those over all pairs minus those of each unit with
    itself, so that no unit x unit matrix is needed.
    """
    n, n_units = residuals.shape
    z = residuals / std.astype(residuals.dtype)
    z2 = z * z
    row, fourth = z2.sum(axis=1, dtype=np.float64), (z2 * z2).sum(dtype=np.float64)
    second = ((row**2).sum() - fourth) / (n - 1)
    first = (_squared_norm(z) - n_units * float(dof) ** 2) / (n - 1) ** 2
    if first <= 0:
        return 1.0
    return float(np.clip(n / dof**2 * (second - first) / first, 0.0, 1.0))


def _check_symmetric(matrix: np.ndarray) -> None:
    if matrix.ndim != 2 or not np.allclose(matrix, matrix.T, rtol=1e-4, equal_nan=False):
        raise DataError(
            "a noise matrix must be square, symmetric and finite", where=f"shape {matrix.shape}"
        )
