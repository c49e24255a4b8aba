"""How unexpected words are to a causal language model."""

from __future__ import annotations

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
    predicted = torch.log_softmax(logits[:, :-1].float(), dim=-1)
    log_p = predicted.gather(2, tokens[:, 1:, None])[..., 0]
    bits = -log_p / torch.log(torch.tensor(2.0))
    return torch.nn.functional.pad(bits * mask[:, 1:], (1, 0))


def summarise(bits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean, sum and maximum over the tokens of a caption, shape (n, 3)."""
    count = (mask.sum(dim=1) - 1).clamp_min(1)
    return torch.stack([bits.sum(1) / count, bits.sum(1), bits.max(1).values], dim=1)
