r"""What a memory that learns while it reads wants: inner objectives of a prediction and a value.

Each objective :math:`\ell(\hat v, v)` is used by its slope :math:`\partial \ell / \partial \hat v`
alone, with the error :math:`e = \hat v - v`:

=========  =================================================  ======================================
name       objective                                          slope
=========  =================================================  ======================================
`Dot`      :math:`-\langle \hat v, v \rangle`                 :math:`-v`
`Squared`  :math:`\tfrac12 \|e\|_2^2`                         :math:`e`
`Power`    :math:`\|e\|_p^p`                                  :math:`p\, s(e) \odot |e|^{p-1}`
`Huber`    Huber's function H of e, in three forms            see there
`Shift`    :math:`\max_{\|d\|\le\Delta} \tfrac12 \|e-d\|^2`   :math:`e + \Delta\, e / \|e\|_2`
=========  =================================================  ======================================

Signs and absolute values are smoothed where a later derivative must exist: :math:`s(e) =
\tanh(a e)`, :math:`|e| = \sqrt{e^2 + \varepsilon}`. At e = 0 every slope is 0 (but that of `Dot`)
and has a finite derivative.

Source: Behrouz et al. 2025, arXiv:2504.13173, equations 10-17.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from engramma.errors import ConfigError


@dataclass(frozen=True)
class Objective:
    """Base of all inner objectives."""

    #: Whether `slope` takes a threshold for each token.
    thresholded: ClassVar[bool] = False

    def slope(self, prediction: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        """Differentiate the objective by the prediction.

        Parameters
        ----------
        prediction, value : Tensor, shape (..., channel)
        threshold : Tensor, shape (..., 1) or (..., channel), optional
            Only for objectives that are ``thresholded``.

        Returns
        -------
        Tensor, shape (..., channel)
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Dot(Objective):
    """Dot-product similarity: each value is added, whatever is there (the Hebbian rule)."""

    def slope(self, prediction: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        """Return minus the value."""
        return -value


@dataclass(frozen=True)
class Squared(Objective):
    """Half the squared error: the delta rule."""

    def slope(self, prediction: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        """Return the error."""
        return prediction - value


@dataclass(frozen=True)
class Power(Objective):
    """The p-th power of the p-norm of the error.

    Parameters
    ----------
    p : float
        At least 1; 3 in Moneta. With 1 only signs are stored ("value-less").
    smooth : bool
        Whether sign and absolute value are smoothed.
    sharpness, epsilon : float
        Of the smooth sign (a) and the smooth absolute value.
    """

    p: float = 3.0
    smooth: bool = True
    sharpness: float = 10.0
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if not self.p >= 1:
            raise ConfigError(
                f"the p-norm of errors needs p of at least 1, not {self.p}",
                where="Power(p=...)",
                mend="use 1 for robustness, 2 for the delta rule, 3 as Moneta does",
            )
        if not (self.sharpness > 0 and self.epsilon > 0):
            raise ConfigError("sharpness and epsilon of the smooth sign are positive")

    def slope(self, prediction: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        """Return p times the sign times the (p - 1)-th power of the absolute error."""
        error = prediction - value
        if self.smooth:
            size = (error.square() + self.epsilon) ** ((self.p - 1) / 2)
            return self.p * smooth_sign(error, self.sharpness) * size
        # The power of 0 has no finite derivative for p < 2; the sign is 0 there.
        size = torch.where(error == 0, 1.0, error.abs()) ** (self.p - 1)
        return self.p * error.sign() * size


@dataclass(frozen=True)
class Huber(Objective):
    r"""Squared for small errors, linear for large ones, so that an outlier cannot do much harm.

    Parameters
    ----------
    form : {"switch", "norm", "coordinate"}
        With the threshold :math:`\delta` of each token:

        - ``"switch"`` (Yaad): e if :math:`\|e\|_2 \le \delta`, else :math:`\delta\, s(e)`, the
          slope of :math:`\delta \|e\|_1`. It jumps at the threshold.
        - ``"norm"``: :math:`e \min(1, \delta / \|e\|_2)`, continuous.
        - ``"coordinate"``: each coordinate of e is clipped to :math:`\pm\delta`.
    sharpness : float
        Of the smooth sign; 0 for the sign itself.
    """

    thresholded: ClassVar[bool] = True
    form: Literal["switch", "norm", "coordinate"] = "switch"
    sharpness: float = 10.0

    def __post_init__(self) -> None:
        if self.form not in ("switch", "norm", "coordinate"):
            raise ConfigError(
                f"Huber's objective has no form {self.form!r}",
                mend="use 'switch', 'norm' or 'coordinate'",
            )
        if self.sharpness < 0:
            raise ConfigError("the sharpness of the smooth sign is not negative")

    def slope(self, prediction: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        """Return the error, bounded."""
        if threshold is None:
            raise ConfigError("Huber's objective needs a threshold for each token")
        error = prediction - value
        if self.form == "coordinate":
            return torch.minimum(torch.maximum(error, -threshold), threshold)
        size = safe_norm(error)
        if self.form == "norm":
            return error * (threshold / size).clamp_max(1.0)
        sign = smooth_sign(error, self.sharpness) if self.sharpness else error.sign()
        return torch.where(size <= threshold, error, threshold * sign)


@dataclass(frozen=True)
class Shift(Objective):
    """Squared error under the worst shift of the value within a radius.

    Parameters
    ----------
    radius : float
    """

    radius: float = 0.1

    def __post_init__(self) -> None:
        if not self.radius >= 0:
            raise ConfigError(f"the radius of a shift is not negative; {self.radius} is")

    def slope(self, prediction: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        """Return the error, lengthened by the radius."""
        error = prediction - value
        return error * (1 + self.radius / safe_norm(error))


def smooth_sign(x: Tensor, sharpness: float) -> Tensor:
    """Sign that can be differentiated."""
    return torch.tanh(sharpness * x)


def safe_norm(x: Tensor) -> Tensor:
    """Euclidean norm over the last dimension, kept; 1 where x is 0, so that x / norm is 0."""
    square = x.square().sum(-1, keepdim=True)
    return torch.where(square > 0, square, 1.0).sqrt()


#: Objectives by name, in their default form.
OBJECTIVES: dict[str, Objective] = {
    "dot": Dot(),
    "l2": Squared(),
    "lp": Power(),
    "huber": Huber(),
    "huber-norm": Huber("norm"),
    "huber-coordinate": Huber("coordinate"),
    "shift": Shift(),
}


def objective(what: str | Objective) -> Objective:
    """Return the objective of this name, or what is one already.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if isinstance(what, Objective):
        return what
    if what not in OBJECTIVES:
        raise ConfigError(
            f"there is no inner objective {what!r}",
            where="bias",
            mend=f"use one of {', '.join(OBJECTIVES)}, or an Objective with its own parameters",
        )
    return OBJECTIVES[what]
