"""How well a model's next token is what was wanted, and how a small share of it is chosen."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from engramma.contracts import Estimate
from engramma.encoding.scores import bootstrap_interval


def logit_difference(logits: Tensor, answers: Tensor, foils: Tensor) -> Tensor:
    """Logit of the answer minus that of the foil.

    Parameters
    ----------
    logits : Tensor, shape (prompt, vocabulary)
    answers, foils : Tensor of int64, shape (prompt,)

    Returns
    -------
    Tensor, shape (prompt,)
    """
    return (
        logits.gather(1, answers[:, None])[:, 0] - logits.gather(1, foils[:, None])[:, 0]
    ).float()


def log_probability(logits: Tensor, answers: Tensor) -> Tensor:
    """Log probability of the answers (prompt,), nats."""
    return logits.float().log_softmax(dim=-1).gather(1, answers[:, None])[:, 0]


def mean_interval(values: np.ndarray | Tensor, *, rng: np.random.Generator) -> Estimate:
    """Mean over prompts with a bootstrap interval; NaN are left out, none left gives NaN.

    Parameters
    ----------
    values : array, shape (n,)
        One number an independent prompt, fact or list.
    rng : numpy.random.Generator
    """
    x = np.asarray(values, dtype=float)
    x = x[np.isfinite(x)]
    if len(x) < 2:
        return Estimate(float(x.mean()) if len(x) else float("nan"))
    return bootstrap_interval(lambda rows: float(x[rows].mean()), len(x), rng=rng)
