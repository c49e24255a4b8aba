r"""Networks whose weights are a memory: applied with weights from outside, gradients as factors.

Each is one or two linear maps, z = a W. The gradient of one token's objective by W is then the
outer product of what came in, a, and of the objective's slope by what came out, :math:`\delta`. So
gradients are kept as these two factors, and a token that reads through the weights
:math:`W_0 - \sum_i G_{ti} a_i^T \delta_i` computes :math:`a_t W_0 - \sum_i G_{ti} \langle a_t, a_i
\rangle \delta_i`: masked linear attention, without the weights ever being formed.

=========  ==================================================  =======================
network    output for x                                        weights
=========  ==================================================  =======================
`Vector`   :math:`w \odot x`                                   dim
`Matrix`   :math:`x W`                                         dim x dim
`MLP`      :math:`x + \mathrm{LN}(\mathrm{GELU}(x W_2) W_1)`   dim x 4 dim, 4 dim x dim
=========  ==================================================  =======================

Where weights cannot be negative, every map gets [a, -a] / sqrt(2), which is as long as a
(``paired``). Layer norm is without gain and bias.

Source: Behrouz et al. 2025, arXiv:2504.13173, section 5.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from engramma.errors import ConfigError

#: Inside the square root of layer norm.
EPSILON = 1e-5

#: ``f(layer, a) -> z``: a linear map with whatever weights.
Apply = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class Dense:
    """z = a W, with W (rows, in, out) and a (rows, token, in)."""

    n_in: int
    n_out: int
    paired: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weights."""
        return self.n_in * (1 + self.paired), self.n_out

    def apply(self, w: Tensor, a: Tensor) -> Tensor:
        """Map every token."""
        return a @ (both_signs(w) if self.paired else w)

    def back(self, w: Tensor, delta: Tensor) -> Tensor:
        """Slope by a from the slope by z."""
        return delta @ (both_signs(w) if self.paired else w).mT

    def recall(self, inner: Tensor, query: Tensor, key: Tensor, delta: Tensor) -> Tensor:
        """Read, with each query, the gradients that have these factors.

        Parameters
        ----------
        inner : Tensor, shape (rows, 1 or out, token, earlier token)
        query, key : Tensor, shape (rows, token, in)
        delta : Tensor, shape (rows, token, out)
        """
        scores = query @ key.mT
        return mixed(scores.unsqueeze(1) * inner, delta)

    def outer(self, key: Tensor, delta: Tensor) -> Tensor:
        """Sum over tokens of the gradients with these factors."""
        total = key.mT @ delta
        return for_both_signs(total) if self.paired else total


@dataclass(frozen=True)
class Diagonal:
    """z = w a element by element, with w (rows, 1, width); with ``paired`` w has two rows."""

    width: int
    paired: bool = False

    @property
    def n_out(self) -> int:
        """Channels that come out."""
        return self.width

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weights."""
        return 1 + self.paired, self.width

    def apply(self, w: Tensor, a: Tensor) -> Tensor:
        """Map every token."""
        return a * (both_signs(w) if self.paired else w)

    def back(self, w: Tensor, delta: Tensor) -> Tensor:
        """Slope by a from the slope by z."""
        return self.apply(w, delta)

    def recall(self, inner: Tensor, query: Tensor, key: Tensor, delta: Tensor) -> Tensor:
        """Read, with each query, the gradients that have these factors; as for `Dense`."""
        return query * mixed(inner, key * delta)

    def outer(self, key: Tensor, delta: Tensor) -> Tensor:
        """Sum over tokens of the gradients with these factors."""
        total = (key * delta).sum(-2, keepdim=True)
        return for_both_signs(total) if self.paired else total


def both_signs(w: Tensor) -> Tensor:
    """Weights of a that act as those of [a, -a] / sqrt(2) do."""
    positive, negative = w.chunk(2, -2)
    return (positive - negative) * 0.5**0.5


def for_both_signs(gradient: Tensor) -> Tensor:
    """Gradient by the weights of [a, -a] / sqrt(2) from that by weights of a."""
    half = gradient * 0.5**0.5
    return torch.cat([half, -half], -2)


def mixed(mixing: Tensor, x: Tensor) -> Tensor:
    """Mix tokens: (rows, 1 or channel, token, token) and (rows, token, channel)."""
    if mixing.shape[1] == 1:
        return mixing[:, 0] @ x
    return (mixing @ x.mT.unsqueeze(-1)).squeeze(-1).mT


Map = Dense | Diagonal


class FastNetwork:
    """Base: one linear map, whose output is the network's.

    Attributes
    ----------
    maps : sequence of Dense or Diagonal
    """

    #: Whether all-zero weights would never learn.
    deep = False

    def __init__(self, *maps: Map) -> None:
        self.maps: Sequence[Map] = maps

    def read(self, apply: Apply, x: Tensor) -> Tensor:
        """Output for x (rows, token, dim), each linear map done by ``apply``."""
        return apply(0, x)

    def gradients(
        self, weights: Sequence[Tensor], k: Tensor, slope: Callable[[Tensor], Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Factors of each token's gradient by the weights of each map.

        Parameters
        ----------
        weights : sequence of Tensor, shape (rows, in, out)
        k : Tensor, shape (rows, token, dim)
        slope : callable
            From outputs (rows, token, dim) to slopes of the objective.

        Returns
        -------
        inputs, deltas : list of Tensor, shapes (rows, token, in) and (rows, token, out)
        """
        return [k], [slope(self.maps[0].apply(weights[0], k))]

    def initial(self, heads: int) -> list[Tensor]:
        """Weights to start from, (heads, in, out): nothing is stored."""
        return [torch.zeros(heads, *m.shape) for m in self.maps]


class Vector(FastNetwork):
    """A weight for each channel."""

    def __init__(self, dim: int, paired: bool = False) -> None:
        super().__init__(Diagonal(dim, paired))


class Matrix(FastNetwork):
    """A matrix."""

    def __init__(self, dim: int, paired: bool = False) -> None:
        super().__init__(Dense(dim, dim, paired))


class MLP(FastNetwork):
    """Two layers with GELU between, layer norm and a residual connection.

    Parameters
    ----------
    dim : int
    paired : bool
    expansion : int
        Width of the hidden layer, as a multiple of ``dim``.
    """

    deep = True

    def __init__(self, dim: int, paired: bool = False, expansion: int = 4) -> None:
        super().__init__(Dense(dim, expansion * dim, paired), Dense(expansion * dim, dim, paired))

    def read(self, apply: Apply, x: Tensor) -> Tensor:
        """Output for x."""
        z = apply(1, F.gelu(apply(0, x)))
        return x + F.layer_norm(z, z.shape[-1:], eps=EPSILON)

    def gradients(
        self, weights: Sequence[Tensor], k: Tensor, slope: Callable[[Tensor], Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Backpropagate by hand: layer norm, the upper map, GELU."""
        z = self.maps[0].apply(weights[0], k)
        normal = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
        hidden = z * normal
        out = self.maps[1].apply(weights[1], hidden)
        centred = out - out.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + EPSILON).rsqrt()
        unit = centred * scale
        outer = slope(k + unit)
        upper = outer - outer.mean(-1, keepdim=True) - unit * (outer * unit).mean(-1, keepdim=True)
        upper = upper * scale
        derivative = normal + z * torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
        lower = self.maps[1].back(weights[1], upper) * derivative
        return [k, hidden], [lower, upper]

    def initial(self, heads: int) -> list[Tensor]:
        """Random weights, as those of zero would get no gradient."""
        return [torch.randn(heads, *m.shape) * m.shape[0] ** -0.5 for m in self.maps]


NETWORKS: dict[str, Callable[[int, bool], FastNetwork]] = {
    "vector": Vector,
    "matrix": Matrix,
    "mlp": MLP,
}


def network(name: str, dim: int, paired: bool = False) -> FastNetwork:
    """Build the network of this name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if name not in NETWORKS:
        raise ConfigError(
            f"there is no memory {name!r}", where="memory", mend=f"use one of {', '.join(NETWORKS)}"
        )
    return NETWORKS[name](dim, paired)
