"""A language model without attention: LSTM layers, to stand beside transformers.

What it knows of a list must pass through a state of fixed size (Hochreiter & Schmidhuber 1997,
Neural Computation 9; as a language model Merity, Keskar & Socher 2018).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from engramma.errors import DataError
from engramma.features.surprisal import surprisal_nats
from engramma.nn.seed import seeded
from engramma.nn.weights import Shipped

#: Hidden and cell state of all layers, each layer x sequence x hidden.
RecurrentState = tuple[Tensor, Tensor]


class RecurrentOutput(NamedTuple):
    """Logits (sequence x token x vocabulary), and the state after the last token."""

    logits: Tensor
    state: RecurrentState


class RecurrentModel(Shipped):
    """Embedding, LSTM layers, projection to the vocabulary.

    It has what probes of surprisal need of a `engramma.probing.model.LanguageModel`:
    ``surprisal``, ``context`` and ``name``; and it can be trained with
    `engramma.probing.training.train_language_model`.

    Parameters
    ----------
    vocabulary : int
    dim : int
        Width of the embedding.
    hidden : int
        Width of the state.
    layers : int
    seed : int
        Of the weights.
    """

    def __init__(
        self,
        *,
        vocabulary: int = 64,
        dim: int = 48,
        hidden: int = 96,
        layers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.remember(locals())
        self.name, self.context = f"LSTM {layers} x {hidden}", 1 << 30
        with seeded(seed):
            self.embedding = nn.Embedding(vocabulary, dim)
            self.lstm = nn.LSTM(dim, hidden, layers, batch_first=True)
            self.head = nn.Linear(hidden, vocabulary)

    def forward(
        self, input_ids: Tensor, state: RecurrentState | None = None, use_cache: bool = True
    ) -> RecurrentOutput:
        """Read tokens (sequence x token), from a state on where one is given.

        ``use_cache`` is there for the interface of transformers; the state is always returned.
        """
        hidden, state = self.lstm(self.embedding(input_ids), state)
        return RecurrentOutput(self.head(hidden), state)

    @torch.no_grad()
    def surprisal(self, tokens: Tensor) -> Tensor:
        """Surprisal of each token given those before it, nats, NaN for the first.

        Parameters
        ----------
        tokens : Tensor of int64, shape (sequence, token)

        Raises
        ------
        DataError
            If a token is not in the vocabulary.
        """
        size = self.embedding.num_embeddings
        if tokens.ndim != 2 or not (int(tokens.min()) >= 0 and int(tokens.max()) < size):
            raise DataError(
                "these are no sequences of its tokens",
                where=self.name,
                mend=f"give integers from 0 to {size - 1}, sequence x token",
            )
        found = surprisal_nats(self(tokens[:, :-1]).logits, tokens)
        return functional.pad(found, (1, 0), value=torch.nan)
