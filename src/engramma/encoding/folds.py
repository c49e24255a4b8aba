"""One cross-validation fold of a ridge as one small matrix per alpha.

Every alpha's held-out predictions of a fold are a fixed linear map of the training responses.
The maps are made once, for all units:

- Leaving rows out of a ridge whose principal axes are known is a low-rank downdate. With ``T``
  the scores of all rows, ``D`` the diagonal of shrinkages and ``T_f`` the rows of the fold,
  Woodbury's identity gives

      T_f (T_tr' T_tr + alpha)^-1 = (I - T_f D T_f')^-1 T_f D,

  so that one eigendecomposition serves all folds and alphas, and each needs a Cholesky factor
  as small as the fold. The intercept is a column of ones in ``T`` that alpha does not shrink,
  which centres each fold on its own training rows exactly.
- Where a fold has more rows than there are components, its rows are rotated (QR) into as many
  as there are components. Sums of squares over the fold stay what they were.
- Where the training rows are not all the others, or the features are standardised (which must
  then be learnt in each fold), the fold gets principal axes of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from engramma.encoding.linear import Axes, product

#: Multiplications per fold below which all alphas are downdated in one batch.
_AT_ONCE = 2e7
#: Where the inverse magnifies rounding errors more than this, the fold gets axes of its own.
_LARGEST_GAIN = 1e7

Score = Literal["r2", "correlation", "mse"]


@dataclass(frozen=True)
class HeldOut:
    """The responses of one fold, units x m, with what scoring needs to know of them.

    Parameters
    ----------
    truth : Tensor, shape (n_units, m)
        Responses, rotated where the fold is.
    mean, spread : Tensor, shape (n_units,)
        Mean, and sum of squares about it, over the fold's presentations.
    rest : Tensor, shape (n_units,)
        Sum of squares that the rotation left out: part of the error of every alpha.
    """

    truth: torch.Tensor
    mean: torch.Tensor
    spread: torch.Tensor
    rest: torch.Tensor


@dataclass(frozen=True)
class FoldMap:
    """From what a fold trains on to its held-out predictions, for every alpha.

    Parameters
    ----------
    train, test : Tensor of int
    source : {"total", "own", "presentations"}
        What ``maps`` multiply: the training rows' ``T'Y``, by subtraction of the fold from the
        total ("total") or projected on the fold's own axes ("own"), or their responses.
    maps : Tensor, shape (n_alphas, m, k)
    loadings : Tensor, shape (k, m) or (k, n_train)
        Takes responses to ``T'Y``: of the fold ("total") or of its training rows ("own").
    rotation : Tensor, shape (m, n_test), optional
        Rotates the fold's rows into fewer.
    ones : Tensor, shape (m,)
        What a row of ones becomes.
    """

    train: torch.Tensor
    test: torch.Tensor
    source: Literal["total", "own", "presentations"]
    maps: torch.Tensor
    loadings: torch.Tensor
    rotation: torch.Tensor | None
    ones: torch.Tensor

    def held_out(self, Y: torch.Tensor) -> HeldOut:
        """Take what is to be predicted from the responses of all rows (units x n)."""
        raw = Y[:, self.test]
        mean = raw.mean(dim=1)
        spread = (raw - mean[:, None]).square_().sum(dim=1)
        if self.rotation is None:
            return HeldOut(raw, mean, spread, torch.zeros_like(mean))
        truth = product(raw, self.rotation)
        rest = raw.square_().sum(dim=1) - truth.square().sum(dim=1)
        return HeldOut(truth, mean, spread, rest.clamp_(min=0))

    def training(self, Y: torch.Tensor, total: torch.Tensor, fold: torch.Tensor) -> torch.Tensor:
        """Return what ``maps`` multiply, units x k, given ``T'Y`` of all rows and of the fold."""
        if self.source == "total":
            return total - fold
        rows = Y[:, self.train]
        return rows if self.source == "presentations" else product(rows, self.loadings)

    def scores(self, held_out: HeldOut, training: torch.Tensor, score: Score) -> torch.Tensor:
        """Score every alpha on the fold, n_alphas x units; not finite where nothing varies."""
        n_alphas, m, _ = self.maps.shape
        n_units, n = len(training), len(self.test)
        out = training.new_empty(n_alphas, n_units)
        # So many alphas at a time that their predictions are scored while still in cache.
        together = max(1, 512 // m)
        for start in range(0, n_alphas, together):
            maps = self.maps[start : start + together]
            guess = product(training, maps.flatten(0, 1)).view(n_units, len(maps), m)
            here = out[start : start + together]
            if score == "correlation":
                guess -= (guess @ self.ones)[..., None] / n * self.ones
                truth = held_out.truth - held_out.mean[:, None] * self.ones
                power = guess.square().sum(dim=2) * held_out.spread[:, None]
                here[:] = (torch.einsum("uam,um->ua", guess, truth) / power.sqrt()).T
            else:
                guess -= held_out.truth[:, None]
                here[:] = torch.linalg.vector_norm(guess, dim=2).square_().T + held_out.rest
        if score == "r2":
            out = 1.0 - out / held_out.spread
        elif score == "mse":
            out = out / -n
        return out


def build_fold(
    X: torch.Tensor,
    axes: Axes | None,
    train: np.ndarray,
    test: np.ndarray,
    alphas: torch.Tensor,
    *,
    own_axes: Callable[[torch.Tensor], Axes],
    n_units: int,
) -> FoldMap:
    """Make the maps of one fold; see the module's description.

    Parameters
    ----------
    X : Tensor, shape (n, p)
    axes : Axes, optional
        Of all rows: given where the training rows are all rows but the fold's.
    own_axes : callable
        From the training rows to principal axes of their own, where these are needed.
    n_units : int
        How many units the maps will serve, which decides between the forms.
    """
    here = torch.from_numpy(train), torch.from_numpy(test)
    n_train, kind = len(train), X.dtype
    maps = None
    if axes is not None:
        trained, tested = axes.scores[here[0]], axes.scores[here[1]]
        rows, rotation, ones = _compress(tested)
        # More components than training rows: some are blind to the training rows, where the
        # downdate would only magnify rounding errors. There the maps take the responses.
        onto = trained if trained.shape[1] > n_train else None
        maps = _downdated(rows, axes.shrinkage(alphas), onto, kind)
        source, loadings = ("total", rows.T) if onto is None else ("presentations", rows[:0])
    if maps is None:
        own = own_axes(X[here[0]])
        trained, tested = own.scores, own.transform(X[here[1]])
        rows, rotation, ones = _compress(tested)
        maps = (rows * own.shrinkage(alphas)[:, None]).to(kind)
        source, loadings = "own", trained.T
        n_alphas, m, k = maps.shape
        if n_alphas * m * n_train * (1 + k / n_units) < n_alphas * m * k + k * n_train:
            maps = product(maps.flatten(0, 1), trained.to(kind)).view(n_alphas, m, n_train)
            source, loadings = "presentations", rows[:0]
    rotation = None if rotation is None else rotation.to(kind).contiguous()
    loadings = loadings.to(kind).contiguous()
    return FoldMap(*here, source, maps, loadings, rotation, ones.to(kind))  # type: ignore[arg-type]


def _downdated_at_once(
    rows: torch.Tensor,
    shrinkage: torch.Tensor,
    onto: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor | None:
    """`_downdated` of a small fold: all alphas in one batch, in double precision."""
    exact = rows.double()
    shrunk = exact * shrinkage.double()[:, None]
    identity = torch.eye(len(rows), dtype=torch.float64)
    factor, failed = torch.linalg.cholesky_ex(identity - shrunk @ exact.T)
    if failed.any():
        return None
    inverse = torch.cholesky_inverse(factor)
    if inverse.diagonal(dim1=1, dim2=2).max() > _LARGEST_GAIN:
        return None
    if onto is not None:
        shrunk = shrunk @ onto.double().T
    return (inverse @ shrunk).to(dtype)


def _compress(
    tested: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Rotate the rows of a fold into fewer, where there are more rows than components."""
    n, k = tested.shape
    ones = tested.new_ones(n, 1)
    if n <= 1.25 * (k + 1):
        return tested, None, ones[:, 0]
    q, _ = torch.linalg.qr(torch.cat([tested, ones], dim=1))
    return q.T @ tested, q.T, (q.T @ ones)[:, 0]


def _downdated(
    rows: torch.Tensor,
    shrinkage: torch.Tensor,
    onto: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor | None:
    """``(I - T_f D T_f')^-1 T_f D [T_tr']`` for every alpha; None where ill-conditioned."""
    if rows.numel() * len(rows) * len(shrinkage) < _AT_ONCE:
        return _downdated_at_once(rows, shrinkage, onto, dtype)
    width = rows.shape[1] if onto is None else len(onto)
    maps = rows.new_empty(len(shrinkage), len(rows), width, dtype=dtype)
    for shrink, out in zip(shrinkage, maps, strict=True):
        # The inverse multiplies rounding errors by its gain; a small gain can do with ``dtype``.
        for kind in (dtype, torch.float64):
            exact = rows.to(kind)
            shrunk = exact * shrink.to(kind)
            identity = torch.eye(len(rows), dtype=kind)
            factor, failed = torch.linalg.cholesky_ex(identity - product(shrunk, exact))
            inverse = torch.cholesky_inverse(factor)
            gain = inverse.diagonal().max()
            if not failed and gain < 20:
                break
        if failed or gain > _LARGEST_GAIN:
            return None
        if onto is not None:
            shrunk = product(shrunk, onto.to(kind))
        out[:] = product(inverse, shrunk.T.contiguous())
    return maps
