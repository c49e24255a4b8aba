"""Small language models that are trained in place, where a paper trains its own.

They are models of the transformers library, so that all that is done to a real model is done to
them with the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engramma.errors import ConfigError
from engramma.features.huggingface import transformers
from engramma.nn.seed import seeded
from engramma.nn.train import train

#: ``batch(rng) -> (tokens, weights)``: token numbers (sequence, token), and how much the prediction
#: of each token counts (same shape; the first column is not predicted).
Batch = Callable[[np.random.Generator], tuple[Tensor, Tensor]]


def learned_position_model(
    vocabulary: int,
    *,
    dim: int = 64,
    layers: int = 2,
    heads: int = 4,
    neurons: int | None = None,
    positions: int = 128,
    tied: bool = False,
    seed: int = 0,
) -> Any:
    """Build a small GPT-2: learned positions, GELU neurons without gate, random weights.

    `engramma.memory.language_model.small_language_model` builds a Llama: rotary positions, gated
    neurons.

    Raises
    ------
    ConfigError
        If the heads do not divide the width.
    """
    if dim % heads:
        raise ConfigError(f"{heads} heads do not divide a width of {dim}", where="dim")
    library = transformers()
    config = library.GPT2Config(
        vocab_size=vocabulary,
        n_embd=dim,
        n_layer=layers,
        n_head=heads,
        n_inner=neurons,
        n_positions=positions,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        # Keeps the scale of hidden states, where 0.02 is meant for a width of thousands.
        initializer_range=0.5 * dim**-0.5,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    with seeded(seed):
        return library.GPT2LMHeadModel(config).eval()


def next_token_loss(network: Any, tokens: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of the negative log likelihood of each token given those before it, nats."""
    logits = network(input_ids=tokens, use_cache=False).logits[:, :-1]
    errors = functional.cross_entropy(
        logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none"
    )
    counts = weights[:, 1:].flatten().to(errors.dtype)
    return (errors * counts).sum() / counts.sum()


def train_language_model(
    network: Any,
    batch: Batch,
    *,
    steps: int,
    rate: float = 1e-3,
    weight_decay: float = 0.01,
    warm_up: int = 100,
    decay: bool = True,
    parameters: list[nn.Parameter] | None = None,
    seed: int = 0,
    after_step: Callable[[int], None] | None = None,
    checkpoint: Path | None = None,
    description: str = "training a small language model",
) -> list[float]:
    """Train with AdamW, a warm-up and a cosine decay to a tenth.

    Parameters
    ----------
    network : PreTrainedModel
        Changed in place, left in evaluation mode.
    batch : callable
        See `Batch`; called with a generator of its own at each step.
    steps : int
    rate, weight_decay : float
    warm_up : int
        Steps over which the rate rises.
    decay : bool
        Whether the rate falls after that.
    parameters : list of Parameter, optional
        Those to train; all others stand still.
    seed : int
        Of the batches.
    after_step : callable, optional
        ``after_step(number)`` after each step, counted from 1.
    checkpoint : path, optional
        Written every 100 steps, and gone on from.
    description : str

    Returns
    -------
    list of float
        Mean loss of every 100 steps.
    """
    chosen = list(network.parameters()) if parameters is None else parameters
    optimizer = torch.optim.AdamW(chosen, lr=rate, betas=(0.9, 0.98), weight_decay=weight_decay)
    every = min(100, steps)
    epochs = -(-steps // every)

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / max(warm_up, 1))
        fall = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0)))
        return rise * (fall if decay else 1.0)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(epoch * every, min((epoch + 1) * every, steps)):
            if number and after_step is not None:
                after_step(number)
            for group in optimizer.param_groups:
                group["lr"] = rate * factor(number)
            yield batch(np.random.default_rng([seed, number]))

    frozen = _only(network, chosen)
    try:
        history = train(
            network,
            lambda model, data: next_token_loss(model, *data),
            batches,
            epochs=epochs,
            optimizer=optimizer,
            clip=1.0,
            checkpoint=checkpoint,
            description=description,
        )
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    if after_step is not None:
        after_step(steps)
    return history


def _only(network: Any, chosen: list[nn.Parameter]) -> list[nn.Parameter]:
    """Stop the gradient of all other parameters, and return those that had one."""
    wanted = {id(p) for p in chosen}
    others = [p for p in network.parameters() if id(p) not in wanted and p.requires_grad]
    for parameter in others:
        parameter.requires_grad_(False)
    return others
