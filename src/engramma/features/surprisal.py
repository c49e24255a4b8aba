"""How unexpected words are to a causal language model."""

from __future__ import annotations

import math

import torch


def token_surprisal(logits: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """How unexpected each token was given those before it, in bits.

    Parameters
    ----------
    logits : tensor, shape (n, n_tokens, n_vocabulary)
    tokens, mask : tensor, shape (n, n_tokens)

    Returns
    -------
    tensor, shape (n, n_tokens)
        -log2 p(token | tokens before it); 0 for the first token, which nothing precedes, and
        for padding.
    """
    bits = surprisal_nats(logits, tokens) / math.log(2)
    return torch.nn.functional.pad(bits * mask[:, 1:], (1, 0))


def surprisal_nats(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """How unexpected each token but the first was given those before it, nats.

    Parameters
    ----------
    logits : tensor, shape (n, n_tokens, n_vocabulary)
        Those behind the last token are not used, and may be left out.
    tokens : tensor, shape (n, n_tokens)

    Returns
    -------
    tensor, shape (n, n_tokens - 1)
    """
    predicted = logits[:, : tokens.shape[1] - 1].float()
    chosen = predicted.gather(2, tokens[:, 1:, None])[..., 0]
    return predicted.logsumexp(dim=-1) - chosen


def summarise(bits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean, sum and maximum over the tokens of a caption, shape (n, 3)."""
    count = (mask.sum(dim=1) - 1).clamp_min(1)
    return torch.stack([bits.sum(1) / count, bits.sum(1), bits.max(1).values], dim=1)
