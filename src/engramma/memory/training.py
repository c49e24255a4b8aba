"""Train a sequence model on batches made as they are needed, and score its answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engramma.nn.seed import seeded
from engramma.nn.train import train
from engramma.worlds.streams import IGNORED, TokenStream

#: ``f(rng) -> TokenStream``.
Generator = Callable[[np.random.Generator], TokenStream]


def fit(
    model: nn.Module,
    make: Generator,
    *,
    steps: int,
    seed: int,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.1,
    warmup: float = 0.1,
    clip: float = 1.0,
    auxiliary: Callable[[nn.Module], Tensor] | None = None,
    description: str = "training",
) -> list[float]:
    """Train on cross-entropy of the answers, with AdamW, warm-up and a cosine.

    Parameters
    ----------
    model : nn.Module
        ``model(tokens) -> (logits, state)``.
    make : callable
        ``make(rng) -> TokenStream``: one batch. Its generator is seeded with ``seed`` and the
        number of the step.
    steps : int
    seed : int
    learning_rate, weight_decay : float
        Matrices decay; vectors (gates' biases, norms) do not.
    warmup : float
        Share of the steps over which the rate rises.
    clip : float
    auxiliary : callable, optional
        ``auxiliary(model) -> scalar tensor`` is added to the loss after each forward pass.
    description : str

    Returns
    -------
    list of float
        Mean loss of each twentieth of the steps.
    """
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95))
    rate = [cosine(step, steps, warmup) for step in range(steps)]
    epochs = min(20, steps)
    edges = np.linspace(0, steps, epochs + 1).astype(int)

    def batches(epoch: int) -> Iterator[TokenStream]:
        for step in range(edges[epoch], edges[epoch + 1]):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * rate[step]
            yield make(np.random.default_rng([seed, step]))

    def loss(model: nn.Module, batch: TokenStream) -> Tensor:
        logits, _ = model(torch.as_tensor(batch.tokens))
        value = answer_loss(logits, torch.as_tensor(batch.targets))
        return value if auxiliary is None else value + auxiliary(model)

    with seeded(seed):
        return train(
            model,
            loss,
            batches,
            epochs=epochs,
            optimizer=optimizer,
            clip=clip,
            description=description,
        )


def cosine(step: int, steps: int, warmup: float) -> float:
    """Rate as a share of its peak: a linear rise, then half a cosine down to a tenth."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def answer_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over the positions that ask for something."""
    asked = targets != IGNORED
    return F.cross_entropy(logits[asked], targets[asked])


@torch.no_grad()
def answers(model: nn.Module, batch: TokenStream, piece: int | None = None) -> np.ndarray:
    """Say whether each answer is right.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    batch : TokenStream
    piece : int, optional
        Feed so many tokens at once; all by default.

    Returns
    -------
    ndarray of bool, shape (answers,)
        In the order of ``batch.targets[batch.targets != IGNORED]``. Only the possible answers
        compete.
    """
    tokens = torch.as_tensor(batch.tokens)
    targets = torch.as_tensor(batch.targets)
    low, high = batch.answers
    state, right = None, torch.zeros_like(targets, dtype=torch.bool)
    width = piece or tokens.shape[1]
    for start in range(0, tokens.shape[1], width):
        logits, state = model(tokens[:, start : start + width], state)
        said = low + logits[..., low:high].argmax(-1)
        right[:, start : start + width] = said == targets[:, start : start + width]
    return right[targets != IGNORED].numpy()


def accuracy(model: nn.Module, batches: Sequence[TokenStream], piece: int | None = None) -> float:
    """Share of the answers that are right, over several batches."""
    return float(np.concatenate([answers(model, b, piece) for b in batches]).mean())
