"""Explained variance shared out between the feature spaces of a banded ridge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engramma.encoding.banded import BandedRidgeCV, Spaces
from engramma.errors import ConfigError

_UNITS = 4096


@dataclass(frozen=True)
class VariancePartition:
    """Explained variance of held-out responses, shared out between feature spaces.

    Parameters
    ----------
    spaces : tuple of str
    joint : ndarray, shape (n_units,)
        r2 of the model of all spaces.
    product : ndarray, shape (n_spaces, n_units)
        Product measure: contributions that, with ``offset``, sum to ``joint``.
    offset : ndarray, shape (n_units,)
        What is lost because the test mean is not the training mean; never positive.
    unique : ndarray, shape (n_spaces, n_units), or None
        ``joint`` minus the r2 of a model fitted without the space.
    """

    spaces: tuple[str, ...]
    joint: np.ndarray
    product: np.ndarray
    offset: np.ndarray
    unique: np.ndarray | None = None


def product_measure(
    truth: np.ndarray, parts: np.ndarray, mean: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Share r2 out between predictions that add up to the joint one.

    With ``e = truth - mean`` the share of part i is ``sum(p_i (2 e - p)) / SST``, where p is the
    sum of the parts (Dupré la Tour et al. 2022, section 2.5).

    Parameters
    ----------
    truth : ndarray, shape (n, n_units)
    parts : ndarray, shape (n_parts, n, n_units)
    mean : ndarray, shape (n_units,) or 0
        What the joint prediction adds to the parts.

    Returns
    -------
    shares : ndarray, shape (n_parts, n_units)
    offset : ndarray, shape (n_units,)
        ``joint r2 - shares.sum(axis=0)``: ``-n (test mean - mean)^2 / SST``.
        Units that do not vary get zeros.
    """
    error = truth.astype(np.float64) - mean
    spread = ((error - error.mean(axis=0)) ** 2).sum(axis=0)
    varies = spread > 1e-12 * np.abs(truth).max(axis=0).astype(np.float64) ** 2 * len(truth)
    safe = np.where(varies, spread, 1.0)
    toward = 2 * error - parts.sum(axis=0, dtype=np.float64)
    shares = np.stack([(part * toward).sum(axis=0) / safe for part in parts])
    offset = -len(truth) * error.mean(axis=0) ** 2 / safe
    return np.where(varies, shares, 0.0), np.where(varies, offset, 0.0)


def variance_partition(
    model: BandedRidgeCV,
    spaces: Spaces,
    Y: Any,
    test_spaces: Spaces,
    test_Y: Any,
    *,
    unique: bool = True,
) -> VariancePartition:
    """Fit ``model`` and share out what it explains of held-out responses.

    Parameters
    ----------
    model : BandedRidgeCV
        Fitted here. For unique variance it is fitted again without each space in turn, with
        the same candidates less that space.
    spaces, test_spaces : mapping of str to array
    Y, test_Y : array, shape (n_train, n_units), (n_test, n_units)

    Raises
    ------
    ConfigError
        If unique variance is asked for a single space.
    """
    if unique and len(spaces) < 2:
        raise ConfigError(
            "unique variance needs at least two feature spaces", mend="pass unique=False"
        )
    Y, test_Y = np.asarray(Y), np.asarray(test_Y)
    gammas = model.weightings(len(spaces))
    full = _again(model, gammas).fit(spaces, Y)
    model.__dict__.update(full.__dict__)
    n_units = Y.shape[1]
    shares, offset = np.empty((len(spaces), n_units)), np.empty(n_units)
    for start in range(0, n_units, _UNITS):
        units = slice(start, start + _UNITS)
        parts = np.stack(list(full.predict_by_space(test_spaces, units).values()))
        shares[:, units], offset[units] = product_measure(
            test_Y[:, units], parts, full.mean_[units].astype(np.float64)
        )
    joint = shares.sum(axis=0) + offset
    if not unique:
        return VariancePartition(full.spaces_, joint, shares, offset)
    alone = np.empty_like(shares)
    for number, name in enumerate(full.spaces_):
        rest = {k: v for k, v in spaces.items() if k != name}
        reduced = _again(model, _without(gammas, number)).fit(rest, Y)
        for start in range(0, n_units, _UNITS):
            units = slice(start, start + _UNITS)
            guess = reduced.predict(test_spaces, units)[None] - reduced.mean_[units]
            share, lost = product_measure(
                test_Y[:, units], guess, reduced.mean_[units].astype(np.float64)
            )
            alone[number, units] = joint[units] - share[0] - lost
    return VariancePartition(full.spaces_, joint, shares, offset, alone)


def _without(gammas: np.ndarray, number: int) -> np.ndarray:
    """Candidates less one space, back on the simplex; those of that space alone are dropped."""
    rest = np.delete(gammas, number, axis=1)
    total = rest.sum(axis=1, keepdims=True)
    return np.asarray((rest / np.where(total > 0, total, 1.0))[total[:, 0] > 1e-12])


def _again(model: BandedRidgeCV, gammas: np.ndarray) -> BandedRidgeCV:
    """Return an unfitted model with the same options and these candidates."""
    return BandedRidgeCV(
        alphas=model.alphas,
        candidates=gammas,
        cv=model.cv,
        scoring=model.scoring,
        center=model.center,
        standardize=model.standardize,
        units_per_chunk=model.units_per_chunk,
        jobs=model.jobs,
        dtype=model.dtype,
    )
