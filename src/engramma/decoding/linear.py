"""Linear classifiers that are fitted to many times and many label permutations at once.

Every classifier here gives the same answer when the responses are rotated. So the training
responses are standardised and turned onto their principal axes once (`Space`), and what then
depends on the labels costs a few matrix products: that is what makes permutation tests of the
very classifier that is reported affordable.

Arrays carry two leading axes: ``times`` (1 where there is no time) for responses and
``permutations`` (1 for the true labels) for labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from engramma.errors import ConfigError

#: Ridge penalties, in multiples of the mean squared length of a training pattern.
RIDGE_PENALTIES = tuple(float(p) for p in np.logspace(-4, 2, 13))
#: Inverse penalties of the logistic classifier and the support vector machine.
INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


#: Units that are standardised in float64 at a time.
_UNITS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Space:
    """Training responses, standardised, on their principal axes.

    With more units than presentations the axes are never written out: each is a mixture of the
    training presentations, so memory grows with the responses by no more than a chunk of units.

    Parameters
    ----------
    responses : ndarray, shape (times, n_train, n_units)
        As they were given.
    mean, scale : ndarray, shape (times, 1, n_units)
        Of the training presentations; the scale of a constant unit is infinite.
    basis : ndarray, shape (times, n_units or n_train, d)
        The axes, orthonormal, ``d = min(n_train, n_units)``: as mixtures of units, or of
        training presentations where there are more units than these. A column is zero where the
        data do not vary.
    power : ndarray, shape (times, d)
        Sum of squares along each axis.
    train : ndarray, shape (times, n_train, d)
    """

    responses: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    basis: np.ndarray
    power: np.ndarray
    train: np.ndarray

    @classmethod
    def of(cls, responses: np.ndarray, *, scale: bool = True) -> Space:
        """Build from training responses, shape (times, n_train, n_units)."""
        _, n, p = responses.shape
        mean = responses.mean(axis=1, keepdims=True, dtype=np.float64)
        spread = responses.std(axis=1, keepdims=True, dtype=np.float64)
        tiny = 1e-7 * np.maximum(np.abs(mean), spread.max(axis=2, keepdims=True))
        divisor = np.where(spread <= tiny, np.inf, spread if scale else 1.0)
        if p <= n:
            x = (responses - mean) / divisor
            power, basis = np.linalg.eigh(np.swapaxes(x, 1, 2) @ x)
        else:
            power, basis = np.linalg.eigh(_gram(responses, responses, mean, divisor))
        real = power > 1e-10 * np.maximum(power[:, -1:], 1e-300)
        power = np.where(real, power, 0.0)
        basis = np.where(real[:, None, :], basis, 0.0)
        if p <= n:
            return cls(responses, mean, divisor, basis, power, x @ basis)
        root = np.sqrt(np.where(real, power, 1.0))[:, None, :]
        return cls(responses, mean, divisor, basis / root, power, basis * root)

    @property
    def n_units(self) -> int:
        """Number of units."""
        return int(self.responses.shape[2])

    def at(self, time: int) -> Space:
        """Return the space of one time alone."""
        one = slice(time, time + 1)
        return Space(*(getattr(self, f.name)[one] for f in fields(self)))

    def project(self, responses: np.ndarray) -> np.ndarray:
        """Turn new responses, shape (times, n, n_units), onto the axes of the training ones."""
        if self.basis.shape[1] == self.n_units:
            return ((responses - self.mean) / self.scale) @ self.basis
        return _gram(responses, self.responses, self.mean, self.scale) @ self.basis


def _gram(a: np.ndarray, b: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Inner products of standardised responses, shape (times, len(a), len(b))."""
    total: np.ndarray | float = 0.0
    for start in range(0, a.shape[2], _UNITS_AT_ONCE):
        units = np.s_[:, :, start : start + _UNITS_AT_ONCE]
        left, right = ((x[units] - mean[units]) / scale[units] for x in (a, b))
        total = total + left @ np.swapaxes(right, 1, 2)
    return np.asarray(total)


#: ``fit(space, onehot, groups) -> (weights, offsets)``, with onehot (permutations, n_train,
#: classes), weights (times, permutations, d, classes), offsets (times, permutations, classes).
Fit = Callable[[Space, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def lda(
    space: Space, onehot: np.ndarray, groups: np.ndarray, shrinkage: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Fit linear discriminants with shrunk covariance and equal priors.

    The pooled within-class covariance is shrunk towards a multiple of the identity, by the
    amount of Ledoit and Wolf (*J. Multivariate Analysis* 88, 2004) unless given. With the
    total covariance diagonal on the principal axes, the within-class covariance is a diagonal
    minus a matrix of rank ``classes``, which the Woodbury identity inverts.
    """
    n, count = onehot.shape[1], onehot.sum(axis=1)
    share = count / n
    means = _class_means(space, onehot)
    total = space.power[:, None, :] / n
    scaled = np.sqrt(share)[None, :, :, None] * means
    if shrinkage is None:
        amount, level = _ledoit_wolf(space, onehot, means, scaled, total)
    else:
        level = (total.sum(-1) - (scaled**2).sum((-1, -2))) / space.n_units
        amount = np.full(level.shape, float(shrinkage))
    # One pattern a class leaves no covariance to estimate: then distances are plain ones.
    none = level * space.n_units <= 1e-12 * total.sum(-1)
    amount, level = np.where(none, 1.0, amount), np.where(none, total.mean(-1), level)
    # Covariance = diagonal - rootᵀ root; without any shrinkage a trace of it keeps it regular.
    diagonal = (1 - amount)[..., None] * total + (np.maximum(amount, 1e-9) * level)[..., None]
    diagonal = np.maximum(diagonal, 1e-300)
    root = np.sqrt(1 - amount)[..., None, None] * scaled
    divided = root / diagonal[:, :, None, :]
    inner = np.eye(root.shape[2]) - divided @ np.swapaxes(root, -1, -2)
    # inverse(covariance) meansᵀ = diagonal⁻¹ meansᵀ + dividedᵀ inner⁻¹ (divided meansᵀ)
    plain = means / diagonal[:, :, None, :]
    correction = np.linalg.solve(inner, divided @ np.swapaxes(means, -1, -2))
    weights = np.swapaxes(plain, -1, -2) + np.swapaxes(divided, -1, -2) @ correction
    offsets = -0.5 * np.einsum("tpcd,tpdc->tpc", means, weights)
    return _without_absent(weights, offsets, count)


def _ledoit_wolf(
    space: Space, onehot: np.ndarray, means: np.ndarray, scaled: np.ndarray, total: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Amount of shrinkage and the mean variance shrunk towards, each (times, permutations)."""
    n, p = onehot.shape[1], space.n_units
    within = total.sum(-1) - (scaled**2).sum((-1, -2))
    level = within / p
    gram = scaled @ np.swapaxes(scaled, -1, -2)
    squares = (
        (total**2).sum(-1)
        - 2 * (total[:, :, None, :] * scaled**2).sum((-1, -2))
        + (gram**2).sum((-1, -2))
    )
    flat = means.reshape(len(means), -1, means.shape[-1])
    inner = (flat @ np.swapaxes(space.train, 1, 2)).reshape(*means.shape[:3], n)
    own = (inner * np.swapaxes(onehot, 1, 2)).sum(axis=2)
    norm = onehot @ (means**2).sum(-1)[..., None]
    length = (space.train**2).sum(-1)[:, None, :] - 2 * own + norm[..., 0]
    delta = (squares - within**2 / p) / p
    beta = ((length**2).sum(-1) / n - squares) / (n * p)
    amount = np.where(delta > 0, np.minimum(beta, delta) / np.where(delta > 0, delta, 1), 1.0)
    return np.clip(amount, 0.0, 1.0), level


def ridge(
    space: Space,
    onehot: np.ndarray,
    groups: np.ndarray,
    penalties: Sequence[float] = RIDGE_PENALTIES,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a ridge regression to class indicators.

    The penalty with the smallest squared error on left-out ``groups`` of the training
    presentations is taken, for each time and permutation; the error is exact, from the hat
    matrix.
    """
    x, n = space.train, onehot.shape[1]
    centre = onehot.mean(axis=1, keepdims=True)
    target = (onehot - centre)[None]
    moments = np.einsum("tnd,pnc->tpdc", x, onehot - centre, optimize=True)
    unit = np.maximum(space.power.sum(-1) / n, 1e-300)
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    best: np.ndarray | None = None
    weights = np.zeros_like(moments)
    for penalty in penalties:
        shrunk = 1 / (space.power + penalty * unit[:, None])
        candidate = shrunk[:, None, :, None] * moments
        residual = target - np.einsum("tnd,tpdc->tpnc", x, candidate, optimize=True)
        error = np.zeros(residual.shape[:2])
        for rows in members:
            part = x[:, rows]
            hat = (part * shrunk[:, None, :]) @ np.swapaxes(part, 1, 2) + 1 / n
            left = np.linalg.solve(np.eye(len(rows)) - hat[:, None], residual[:, :, rows])
            error += (left**2).sum((-1, -2))
        better = np.ones(error.shape, bool) if best is None else error < best
        best = error if best is None else np.where(better, error, best)
        weights[better] = candidate[better]
    offsets = np.broadcast_to(centre[:, 0], (len(x), len(onehot), onehot.shape[2])).copy()
    return _without_absent(weights, offsets, onehot.sum(axis=1))


def centroid(space: Space, onehot: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Assign to the class whose mean training pattern is nearest."""
    means = _class_means(space, onehot)
    offsets = -0.5 * (means**2).sum(-1)
    return _without_absent(np.swapaxes(means, -1, -2).copy(), offsets, onehot.sum(axis=1))


def logistic(space: Space, onehot: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit a multinomial logistic regression; its L2 penalty is chosen on left-out ``groups``."""
    from sklearn.linear_model import LogisticRegression

    return _with_sklearn(lambda c: LogisticRegression(C=c, max_iter=1000), space, onehot, groups)


def svm(space: Space, onehot: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit linear support vector machines, one class against the rest; penalty as `logistic`."""
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import SVC

    return _with_sklearn(
        lambda c: OneVsRestClassifier(SVC(C=c, kernel="linear")), space, onehot, groups
    )


CLASSIFIERS: dict[str, Fit] = {
    "lda": lda,
    "ridge": ridge,
    "centroid": centroid,
    "logistic": logistic,
    "svm": svm,
}


def classifier_named(name: str) -> Fit:
    """Return the classifier called ``name``.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if name not in CLASSIFIERS:
        raise ConfigError(
            f"there is no classifier {name!r}", mend=f"use one of {', '.join(CLASSIFIERS)}"
        )
    return CLASSIFIERS[name]


def scores(weights: np.ndarray, offsets: np.ndarray, projected: np.ndarray) -> np.ndarray:
    """Class scores, shape (times, permutations, n, classes), of projected responses."""
    times, permutations, d, classes = weights.shape
    planes = np.swapaxes(weights, 2, 3).reshape(times, permutations * classes, d)
    values = (planes @ np.swapaxes(projected, 1, 2)).reshape(times, permutations, classes, -1)
    return np.swapaxes(values + offsets[..., None], 2, 3)


def _class_means(space: Space, onehot: np.ndarray) -> np.ndarray:
    """Mean training pattern, shape (times, permutations, classes, d)."""
    weight = onehot / np.maximum(onehot.sum(axis=1, keepdims=True), 1)
    permutations, n, classes = onehot.shape
    flat = np.moveaxis(weight, 1, 2).reshape(permutations * classes, n)
    return (flat @ space.train).reshape(len(space.train), permutations, classes, -1)


def _without_absent(
    weights: np.ndarray, offsets: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Never predict a class that has no training presentation."""
    offsets = np.where(count[None] > 0, offsets, -np.inf)
    return np.where((count > 0)[None, :, None, :], weights, 0.0), offsets


def _with_sklearn(
    make: Callable[[float], Any], space: Space, onehot: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a scikit-learn classifier for each time and permutation, its penalty inside."""
    permutations, _, classes = onehot.shape
    times, _, d = space.train.shape
    weights = np.zeros((times, permutations, d, classes))
    offsets = np.full((times, permutations, classes), -np.inf)
    codes = onehot.argmax(axis=2)
    for t in range(times):
        x = space.train[t]
        for p in range(permutations):
            y = codes[p]
            model = make(_choose_penalty(make, x, y, groups)).fit(x, y)
            coef, intercept = model_plane(model)
            if len(coef) == 1:
                coef, intercept = np.vstack([-coef, coef]) / 2, np.r_[-intercept, intercept] / 2
            weights[t, p][:, model.classes_] = coef.T
            offsets[t, p, model.classes_] = intercept
    return weights, offsets


def model_plane(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and intercepts of a fitted linear classifier, one against the rest or not."""
    members = getattr(model, "estimators_", None)
    if members is None:
        return np.asarray(model.coef_), np.asarray(model.intercept_)
    return (
        np.vstack([m.coef_ for m in members]),
        np.concatenate([m.intercept_ for m in members]),
    )


def _choose_penalty(
    make: Callable[[float], Any], x: np.ndarray, y: np.ndarray, groups: np.ndarray
) -> float:
    """Inverse penalty with the most left-out presentations right; the strongest at a tie."""
    right = np.zeros(len(INVERSE_PENALTIES))
    for g in np.unique(groups):
        test = groups == g
        if len(np.unique(y[~test])) < 2:
            continue
        for i, c in enumerate(INVERSE_PENALTIES):
            right[i] += (make(c).fit(x[~test], y[~test]).predict(x[test]) == y[test]).sum()
    return INVERSE_PENALTIES[int(np.argmax(right))]
