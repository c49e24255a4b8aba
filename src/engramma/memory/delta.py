r"""Linear associative memories: gated linear attention and the gated delta rule.

Both keep a matrix S (key x value) for each head and read it by :math:`y_t = S_t^T q_t`:

- gated linear attention: :math:`S_t = \gamma_t S_{t-1} + \beta_t k_t v_t^T`,
- gated delta rule: :math:`S_t = \gamma_t S_{t-1} + \beta_t k_t (v_t - \gamma_t S_{t-1}^T k_t)^T`.

Each has a step form and a chunk form. The chunk form solves the dependence of the corrections
inside a chunk by one triangular system: with :math:`L_{ti} = \prod_{j=i+1}^t \gamma_j`,
:math:`\Gamma_t = \prod_{j \le t} \gamma_j` and A the strict lower triangle of
:math:`\beta_t (K K^T)_{ti} L_{ti}`,

.. math:: U = (I + A)^{-1} \mathrm{diag}(\beta)(V - \Gamma \odot K S_0), \quad
          Y = \Gamma \odot Q S_0 + (Q K^T \odot L) U, \quad
          S_C = \Gamma_C S_0 + K^T (L_{C\cdot} \odot U).

Both are exact: nothing depends on the size of a chunk but the time it takes. The delta rule
brings its own gradient, which passes over the data less often than automatic differentiation and
keeps less for it.

Sources: Schlag et al. 2021 (delta rule), Yang et al. 2024 (its chunk form, arXiv:2406.06484),
Yang et al. 2025 (the gated one, arXiv:2412.06464).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from engramma.memory.scan import decay_matrix

#: Tokens of a chunk: about where the cost inside a chunk equals that between chunks.
CHUNK = 64


def linear_attention_step(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """One token of gated linear attention.

    Parameters
    ----------
    q, k : Tensor, shape (batch, head, key)
    v : Tensor, shape (batch, head, value)
    beta, log_decay : Tensor, shape (batch, head)
        How much is written, and the logarithm of how much is kept.
    memory : Tensor, shape (batch, head, key, value)

    Returns
    -------
    y : Tensor, shape (batch, head, value)
    memory : Tensor
    """
    memory = log_decay.exp()[..., None, None] * memory
    memory = memory + k.unsqueeze(-1) * (beta.unsqueeze(-1) * v).unsqueeze(-2)
    return (q.unsqueeze(-2) @ memory).squeeze(-2), memory


def delta_rule_step(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """One token of the gated delta rule; parameters as `linear_attention_step`."""
    memory = log_decay.exp()[..., None, None] * memory
    error = v - (k.unsqueeze(-2) @ memory).squeeze(-2)
    memory = memory + k.unsqueeze(-1) * (beta.unsqueeze(-1) * error).unsqueeze(-2)
    return (q.unsqueeze(-2) @ memory).squeeze(-2), memory


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor,
    memory: Tensor,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """Gated linear attention over a piece of a sequence.

    Parameters
    ----------
    q, k : Tensor, shape (batch, head, token, key)
    v : Tensor, shape (batch, head, token, value)
    beta, log_decay : Tensor, shape (batch, head, token)
    memory : Tensor, shape (batch, head, key, value)
        Before the first token.
    chunk : int
        Tokens a chunk.

    Returns
    -------
    y : Tensor, shape (batch, head, token, value)
    memory : Tensor
        After the last token.
    """
    length = q.shape[-2]
    q, k, v, beta, log_decay = _split(q, k, v, beta, log_decay, chunk)
    left, kept = _decays(log_decay)
    written = beta.unsqueeze(-1) * v
    added = (left[..., -1, :].unsqueeze(-1) * k).mT @ written
    last = kept[..., -1:, :]
    before = []
    for n in range(q.shape[2]):
        before.append(memory)
        memory = last[:, :, n] * memory + added[:, :, n]
    y = ((q @ k.mT) * left) @ written + (kept * q) @ torch.stack(before, 2)
    return y.flatten(2, 3)[..., :length, :], memory


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor,
    memory: Tensor,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """Gated delta rule over a piece of a sequence; parameters as `linear_attention`.

    It can be differentiated once, not twice.
    """
    length = q.shape[-2]
    y, memory = _DeltaRule.apply(*_split(q, k, v, beta, log_decay, chunk), memory)
    return y.flatten(2, 3)[..., :length, :], memory


def _split(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, chunk: int
) -> tuple[Tensor, ...]:
    """Cut the tokens into chunks: batch x head x chunk x token of the chunk (x channel)."""
    length = q.shape[-2]
    chunk = min(chunk, length)
    missing = -length % chunk
    # Tokens that fill up the last chunk write nothing (k = v = 0) and keep all (log decay 0).
    if missing:
        q, k, v = (F.pad(t, (0, 0, 0, missing)) for t in (q, k, v))
        beta, log_decay = (F.pad(t, (0, missing)) for t in (beta, log_decay))
    # Heads split off a last dimension lie apart; each product would put them together anew.
    return tuple(t.unflatten(2, (-1, chunk)).contiguous() for t in (q, k, v, beta, log_decay))


def _decays(log_decay: Tensor) -> tuple[Tensor, Tensor]:
    """L of each chunk (token x token), and Gamma (token x 1)."""
    return decay_matrix(log_decay), log_decay.cumsum(-1).exp().unsqueeze(-1)


class _DeltaRule(torch.autograd.Function):
    r"""Chunk form of the gated delta rule, with its gradient.

    Forward. With a = strict lower triangle of :math:`K K^T \odot L` and
    P = :math:`Q K^T \odot L`, what a token finds wrong is E, and what it writes is U:

    .. math:: E = (I + a\,\mathrm{diag}(\beta))^{-1} (V - \Gamma \odot K S), \quad
              U = \beta \odot E, \quad Y = \Gamma \odot Q S + P U.

    Only S and E pass through the loop over chunks.

    Backward. In the order of the code, where dS belongs to the memory after a chunk
    (D = :math:`L_C \odot K`):

    .. math:: dU = P^T dY + D\,dS, \quad
              dV = (I + a\,\mathrm{diag}(\beta))^{-T} (\beta \odot dU), \quad
              d\beta = \textstyle\sum E \odot (dU - a^T dV), \quad
              dS \leftarrow \Gamma_C dS + (\Gamma \odot Q)^T dY - (\Gamma \odot K)^T dV.

    A key stands in two places, where it is read with and where it is written to. The logarithm of
    a decay multiplies what is read with by its exponential and what is written to by the inverse,
    so that its gradient is :math:`q \cdot dq + k \cdot dk_{read} - k \cdot dk_{write}`, summed
    over all later tokens.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, memory: Tensor
    ) -> tuple[Tensor, Tensor]:
        left, kept = _decays(log_decay)
        rate = beta.unsqueeze(-1)
        scores = (q @ k.mT).mul_(left)
        within = (k @ k.mT).mul_(left)
        within.diagonal(dim1=-2, dim2=-1).zero_()
        eye = torch.eye(k.shape[-2], dtype=k.dtype, device=k.device).expand_as(within)
        inverse = torch.linalg.solve_triangular(
            within * rate.mT, eye, upper=False, unitriangular=True
        )
        both = inverse @ torch.cat([v, kept * k], -1)
        error, old = both.split([v.shape[-1], k.shape[-1]], -1)
        keys = (left[..., -1, :].unsqueeze(-1) * rate * k).mT
        last = kept[..., -1:, :]
        before = []
        for n in range(q.shape[2]):
            before.append(memory)
            error[:, :, n] -= old[:, :, n] @ memory
            memory = torch.addcmul(keys[:, :, n] @ error[:, :, n], last[:, :, n], memory)
        states = torch.stack(before, 2)
        error = error.contiguous()
        y = scores @ (rate * error)
        y += (kept * q) @ states
        ctx.save_for_backward(
            q, k, beta, log_decay, scores, within, inverse, old, error, states, memory
        )
        return y, memory

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dmemory: Tensor) -> tuple[Tensor, ...]:
        q, k, beta, log_decay, scores, within, inverse, old, error, states, memory = (
            ctx.saved_tensors
        )
        left, kept = _decays(log_decay)
        rate = beta.unsqueeze(-1)
        ending = left[..., -1, :].unsqueeze(-1)
        keys, reads = ending * k, rate * old
        last = kept[..., -1:, :]
        passed = (kept * q).mT @ dy
        dwritten = scores.mT @ dy
        after = torch.empty_like(states)
        for n in reversed(range(q.shape[2])):
            after[:, :, n] = dmemory
            dwritten[:, :, n] += keys[:, :, n] @ dmemory
            dmemory = torch.addcmul(passed[:, :, n], last[:, :, n], dmemory)
            dmemory -= reads[:, :, n].mT @ dwritten[:, :, n]
        dv = inverse.mT @ (rate * dwritten)
        dbeta = ((dwritten - within.mT @ dv) * error).sum(-1)
        written = rate * error
        dscores = (dy @ written.mT).mul_(left)
        dwithin = (dv @ written.mT).mul_(left).neg_()
        dwithin.diagonal(dim1=-2, dim2=-1).zero_()
        dq = (dy @ states.mT).mul_(kept).add_(dscores @ k)
        dread = (dwithin @ k).sub_((dv @ states.mT).mul_(kept))
        dwrite = (written @ after.mT).mul_(ending).add_(dscores.mT @ q).add_(dwithin.mT @ k)
        dtotal = (q * dq).sum(-1) + (k * (dread - dwrite)).sum(-1)
        # All that a chunk hands on decays with all its tokens.
        end = torch.cat([states[:, :, 1:], memory.unsqueeze(2)], 2)
        dtotal[..., -1] += (end * after).sum((-1, -2))
        ddecay = dtotal.flip(-1).cumsum(-1).flip(-1)
        return dq, dread.add_(dwrite), dv, dbeta, ddecay, dmemory
