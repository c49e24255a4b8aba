r"""What a memory that learns while it reads keeps: retention between one token and the next.

The general step :math:`W_t = \arg\min_W \langle g_t, W \rangle + \mathrm{Ret}_t(W, W_{t-1})`,
with :math:`g_t` the gradient of the objective at :math:`W_{t-1}`, becomes for each retention a
linear recurrence of some coordinates S and a map from S to the weights W that are read. With a kept
share :math:`\alpha_t` and a step :math:`\eta_t`:

=============  ======================================================  =============================
name           S                                                       weights W
=============  ======================================================  =============================
`Keep`         :math:`S_t = S_{t-1} - \eta_t g_t`                      S
`Decay`        :math:`S_t = \alpha_t S_{t-1} - \eta_t g_t`             S
`NormPower`    the same                                                :math:`S / \|S\|_q^{q-2}`
`ElasticNet`   :math:`\lambda_t W_{t-1} - \eta_t\lambda_t g_t`         soft threshold of S
`Entropy`      :math:`\alpha_t \log W_{t-1} - \eta_t g_t`              c softmax(S)
`Bregman`      :math:`F'(W_{t-1}) - \eta_t g_t`                        :math:`(F')^{-1}(S)`
=============  ======================================================  =============================

The map is what cannot be unrolled. Where several tokens are worked on at once, it is applied once a
chunk: at the last token (``exact = "last"``; the tokens before it read S, scaled as it was at the
start), or at the first (``exact = "first"``; from there on W itself follows the linear recurrence
of `Decay`). With one token a chunk all of them are exact.

Weights are (..., in, out); what the literature calls a row of W is here what comes in at one
output.

Source: Behrouz et al. 2025, arXiv:2504.13173, sections 5.2-5.4. For `NormPower` the printed update
is followed; the minimiser of its objective would also raise each element of S to the power q - 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from engramma.errors import ConfigError

#: Smallest logarithm of a kept share: what is forgotten altogether is kept to 1e-12.
LOG_NOTHING = -27.6


@dataclass(frozen=True)
class Retention:
    """Base of all retentions; by itself that of `Keep`."""

    #: Whether it takes a kept share alpha for each token.
    gated: ClassVar[bool] = False
    #: At which token of a chunk the map from S to W is applied; None if they are the same.
    exact: ClassVar[Literal["first", "last"] | None] = None

    @property
    def paired(self) -> bool:
        """Whether weights cannot be negative, so that inputs are offered with both signs."""
        return False

    def gates(self, step: Tensor, log_keep: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Step, logarithm of the kept share and soft threshold of each token."""
        return step, torch.zeros_like(step) if log_keep is None else log_keep, None

    def weights(self, s: Tensor) -> Tensor:
        """Weights from coordinates, both (..., in, out)."""
        return s

    def coordinates(self, w: Tensor) -> Tensor:
        """Coordinates of weights that a chunk's linear recurrence may have led out of their set."""
        return w

    def settle(self, s: Tensor) -> Tensor:
        """Coordinates of the same weights that do not drift away."""
        return s

    def scale(self, s: Tensor) -> Tensor | None:
        """Factor (..., 1, 1) from S to W at the start of a chunk, for the tokens inside it."""
        return None

    def start(self, w: Tensor) -> Tensor:
        """Coordinates to start from, given weights as a network is initialised."""
        return w


@dataclass(frozen=True)
class Keep(Retention):
    """Everything is kept."""


@dataclass(frozen=True)
class Decay(Retention):
    """Squared distance to the last weights and squared size: weights decay."""

    gated: ClassVar[bool] = True


@dataclass(frozen=True)
class NormPower(Retention):
    """Squared q-norm of the weights, as in Moneta.

    Parameters
    ----------
    q : float
        More than 1; 4 in Moneta, and with 2 nothing differs from `Decay`.
    """

    gated: ClassVar[bool] = True
    exact: ClassVar[Literal["first", "last"] | None] = "last"
    q: float = 4.0

    def __post_init__(self) -> None:
        if not self.q > 1:
            raise ConfigError(
                f"the q-norm of retention needs q of more than 1, not {self.q}",
                where="NormPower(q=...)",
                mend="use 4 as Moneta does, or 2 for plain decay",
            )

    def weights(self, s: Tensor) -> Tensor:
        """S over a power of its norm; 0 where S is 0."""
        return s * self._factor(s)

    def scale(self, s: Tensor) -> Tensor:
        """Factor of the chunk's start; 1 before anything is stored."""
        return self._factor(s)

    def start(self, w: Tensor) -> Tensor:
        """Bring the norm to 1, where S and W are the same."""
        norm = self._norm(w)
        return w / torch.where(norm > 0, norm, 1.0)

    def _factor(self, s: Tensor) -> Tensor:
        norm = self._norm(s)
        return torch.where(norm > 0, norm, 1.0) ** (2 - self.q)

    def _norm(self, s: Tensor) -> Tensor:
        """q-norm over in and out, by way of the largest element, which cannot overflow."""
        largest = s.detach().abs().amax((-2, -1), keepdim=True)
        largest = torch.where(largest > 0, largest, 1.0)
        total = ((s / largest).abs() ** self.q).sum((-2, -1), keepdim=True)
        root = torch.where(total > 0, total, 1.0) ** (1 / self.q)
        return torch.where(total > 0, largest * root, 0.0)


@dataclass(frozen=True)
class ElasticNet(Retention):
    r"""Squared distance, squared size and absolute size: weights decay, and small ones vanish.

    :math:`W_t = \mathrm{soft}_{\gamma}(\lambda W_{t-1} - \eta\lambda g_t)` with :math:`\lambda =
    \beta / (\beta + \eta)` and :math:`\gamma = \eta\beta / (\alpha(\eta + \beta))`. In a chunk the
    thresholds add up, :math:`\Gamma_t = \lambda_t \Gamma_{t-1} + \gamma_t`, and are applied at its
    last token: the same as one by one for every weight that keeps its sign.

    Parameters
    ----------
    squared, absolute : float
        beta and alpha: the larger, the weaker the penalty of the squares and of the absolute
        values.
    """

    exact: ClassVar[Literal["first", "last"] | None] = "last"
    squared: float = 100.0
    absolute: float = 1000.0

    def __post_init__(self) -> None:
        if not (self.squared > 0 and self.absolute > 0):
            raise ConfigError(
                "both penalties of the elastic net are positive, not "
                f"{self.squared} and {self.absolute}",
                where="ElasticNet(squared=..., absolute=...)",
                mend="use infinity for a penalty that is not wanted",
            )

    def gates(self, step: Tensor, log_keep: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """All follow from the step."""
        log_keep = -torch.log1p(step / self.squared)
        shrunk = step * log_keep.exp()
        return shrunk, log_keep, shrunk / self.absolute


@dataclass(frozen=True)
class Entropy(Retention):
    r"""Kullback-Leibler divergence from the last weights and negative entropy, as in Memora.

    Weights are not negative, and those that come in at one output sum to the mass c. With inputs
    x offered as [x, -x] / sqrt(2) they can still hold values of either sign.

    Parameters
    ----------
    mass : float, optional
        The sum c; by default the number of weights that come in at an output, so that their mean
        is 1. Near equal weights a step of the logarithms then is one of gradient descent.
    signed : bool
        Whether inputs are offered with both signs (a choice; without, no value can be held that
        is not a mean of the inputs with positive weights).
    floor : float
        Weights that a chunk's linear recurrence has led below this share of the mean weight are
        taken for it when their logarithm is needed (a choice).
    """

    gated: ClassVar[bool] = True
    exact: ClassVar[Literal["first", "last"] | None] = "first"
    mass: float | None = None
    signed: bool = True
    floor: float = 1e-3

    def __post_init__(self) -> None:
        if self.mass is not None and not self.mass > 0:
            raise ConfigError(f"the mass of the weights is positive, not {self.mass}")
        if not 0 < self.floor < 1:
            raise ConfigError(f"the floor lies between 0 and 1, not {self.floor}")

    @property
    def paired(self) -> bool:
        """Whether inputs are offered with both signs."""
        return self.signed

    def weights(self, s: Tensor) -> Tensor:
        """Softmax over what comes in, times the mass."""
        return self._mass(s) * torch.softmax(s, -2)

    def coordinates(self, w: Tensor) -> Tensor:
        """Logarithms, of what is above the floor."""
        return w.clamp_min(self.floor * self._mass(w) / w.shape[-2]).log()

    def settle(self, s: Tensor) -> Tensor:
        """Logarithms of weights that sum to 1."""
        return s - torch.logsumexp(s, -2, keepdim=True)

    def _mass(self, w: Tensor) -> float:
        return float(w.shape[-2]) if self.mass is None else self.mass


@dataclass(frozen=True)
class Bregman(Retention):
    r"""Bregman divergence from the last weights.

    Parameters
    ----------
    potential : {"logistic", "tanh"}
        Which F: with :math:`F'(w) = \log(w / (1 - w))` weights lie between 0 and 1, with
        :math:`F'(w) = \mathrm{artanh}(w)` between -1 and 1. (:math:`F'(w) = w` is `Keep`.)
    floor : float
        How close to the ends of their interval weights are taken to be that a chunk's linear
        recurrence has led out of it (a choice).
    """

    exact: ClassVar[Literal["first", "last"] | None] = "first"
    potential: Literal["logistic", "tanh"] = "logistic"
    floor: float = 1e-3

    def __post_init__(self) -> None:
        if self.potential not in ("logistic", "tanh"):
            raise ConfigError(
                f"there is no potential {self.potential!r}", mend="use 'logistic' or 'tanh'"
            )
        if not 0 < self.floor < 0.5:
            raise ConfigError(f"the floor lies between 0 and 0.5, not {self.floor}")

    @property
    def paired(self) -> bool:
        """Weights of the logistic potential are positive."""
        return self.potential == "logistic"

    def weights(self, s: Tensor) -> Tensor:
        """Inverse of the derivative of F."""
        return torch.sigmoid(s) if self.potential == "logistic" else torch.tanh(s)

    def coordinates(self, w: Tensor) -> Tensor:
        """Return the derivative of F, inside the interval."""
        if self.potential == "logistic":
            return torch.logit(w.clamp(self.floor, 1 - self.floor))
        return torch.atanh(w.clamp(2 * self.floor - 1, 1 - 2 * self.floor))


def soft_threshold(x: Tensor, threshold: Tensor) -> Tensor:
    """Shrink towards 0 by the threshold, and no further."""
    return x.sign() * F.relu(x.abs() - threshold)


def log_share(share: float) -> float:
    """Logarithm of a kept share.

    Raises
    ------
    ConfigError
        If it is no share.
    """
    if not 0 <= share <= 1:
        raise ConfigError(
            f"the kept share alpha lies between 0 and 1, not {share}",
            where="keep",
            mend="use 1 to keep everything",
        )
    return max(math.log(share), LOG_NOTHING) if share else LOG_NOTHING


#: Retentions by name, in their default form.
RETENTIONS: dict[str, Retention] = {
    "none": Keep(),
    "l2": Decay(),
    "lq": NormPower(),
    "kl": Entropy(),
    "elastic-net": ElasticNet(),
    "bregman": Bregman(),
    "bregman-tanh": Bregman("tanh"),
}


def retention(what: str | Retention) -> Retention:
    """Return the retention of this name, or what is one already.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if isinstance(what, Retention):
        return what
    if what not in RETENTIONS:
        raise ConfigError(
            f"there is no retention {what!r}",
            where="retention",
            mend=f"use one of {', '.join(RETENTIONS)}, or a Retention with its own parameters",
        )
    return RETENTIONS[what]
