"""First-order linear recurrences h_t = a_t h_(t-1) + b_t, all t at once."""

from __future__ import annotations

import torch
from torch import Tensor


def decay_matrix(log_decay: Tensor) -> Tensor:
    r"""How much of what came in at i is left at t: :math:`L_{ti} = \prod_{j=i+1}^{t} a_j`.

    Parameters
    ----------
    log_decay : Tensor, shape (..., token)
        Logarithms of a; at most 0 for decay.

    Returns
    -------
    Tensor, shape (..., token, token)
        Lower triangular, ones on the diagonal. Computed from differences of cumulative logarithms:
        quotients of cumulative products underflow.
    """
    total = log_decay.cumsum(-1)
    difference = total.unsqueeze(-1) - total.unsqueeze(-2)
    later = torch.ones(difference.shape[-2:], dtype=torch.bool, device=difference.device).triu(1)
    return difference.masked_fill(later, float("-inf")).exp()


def scan(log_decay: Tensor, b: Tensor, start: Tensor | None = None, chunk: int = 64) -> Tensor:
    """All h_t of h_t = a_t h_(t-1) + b_t.

    Parameters
    ----------
    log_decay : Tensor, shape (batch..., token)
        Logarithms of a.
    b : Tensor, shape (batch..., token, channel)
    start : Tensor, shape (batch..., channel), optional
        h before the first token; zeros by default.
    chunk : int
        Tokens worked on at once; the result does not depend on it.

    Returns
    -------
    Tensor, shape (batch..., token, channel)
    """
    h = torch.zeros_like(b[..., 0, :]) if start is None else start
    outputs = []
    for first in range(0, b.shape[-2], chunk):
        log_a = log_decay[..., first : first + chunk]
        carried = log_a.cumsum(-1).exp().unsqueeze(-1) * h.unsqueeze(-2)
        part = decay_matrix(log_a) @ b[..., first : first + chunk, :] + carried
        outputs.append(part)
        h = part[..., -1, :]
    return torch.cat(outputs, -2) if outputs else b
