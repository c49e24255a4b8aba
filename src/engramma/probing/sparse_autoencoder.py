r"""A sparse autoencoder: few of many features add up to a vector.

.. math:: c = \mathrm{ReLU}(W_e x + b_e), \quad \hat x = W_d c + b_d

with a loss of squared error and :math:`\lambda` times the mean of :math:`|c|` (Cunningham et al.
2023; Bricken et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from engramma.errors import ConfigError, DataError
from engramma.nn.seed import seeded
from engramma.nn.train import train


class SparseAutoencoder(nn.Module):
    """A sparse autoencoder of one hidden layer.

    Parameters
    ----------
    dim : int
        Length d of the vectors.
    features : int
        F, of which each vector is to use a few.
    seed : int
        Of the weights. The encoder starts as the transpose of the decoder, whose features have
        length 1.

    Raises
    ------
    ConfigError
        If a size is below one.
    """

    def __init__(self, dim: int, features: int = 300, *, seed: int = 0) -> None:
        super().__init__()
        if min(dim, features) < 1:
            raise ConfigError(
                f"{features} features of {dim} numbers are no autoencoder",
                where="SparseAutoencoder",
                mend="both are at least 1",
            )
        with seeded(seed):
            directions = functional.normalize(torch.randn(features, dim), dim=1)
        self.encoder, self.decoder = nn.Linear(dim, features), nn.Linear(features, dim)
        with torch.no_grad():
            self.encoder.weight.copy_(directions)
            self.decoder.weight.copy_(directions.T)
            self.encoder.bias.zero_()
            self.decoder.bias.zero_()

    def encode(self, x: Tensor) -> Tensor:
        """Features (..., F) of vectors (..., d)."""
        features: Tensor = self.encoder(x).relu()
        return features

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction (..., d) and features (..., F) of vectors (..., d)."""
        features = self.encode(x)
        return self.decoder(features), features


def fit_sparse_autoencoder(
    model: SparseAutoencoder,
    x: Tensor,
    *,
    sparsity: float = 0.02,
    rate: float = 1e-3,
    steps: int = 500,
    penalty: Callable[[Tensor], Tensor] | None = None,
) -> list[float]:
    """Train on all vectors at once, with Adam.

    Parameters
    ----------
    model : SparseAutoencoder
        Changed in place.
    x : Tensor, shape (..., d)
    sparsity : float
        Lambda.
    rate : float
    steps : int
    penalty : callable, optional
        ``penalty(features) -> scalar``, added to the loss; features are (..., F).

    Returns
    -------
    list of float
        Loss of each step.

    Raises
    ------
    DataError
        If values are not finite.
    """
    if not bool(torch.isfinite(x).all()):
        raise DataError(
            "values are not finite", where="x", mend="look for overflow where they were taken"
        )

    def loss(network: nn.Module, batch: Tensor) -> Tensor:
        reconstruction, features = network(batch)
        value = functional.mse_loss(reconstruction, batch) + sparsity * features.abs().mean()
        return value if penalty is None else value + penalty(features)

    return train(
        model,
        loss,
        lambda _: [x],
        epochs=steps,
        optimizer=torch.optim.Adam(model.parameters(), lr=rate),
        description="sparse autoencoder",
    )
