"""Questions with one right answer of one or more tokens, and how a model scores on them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engramma.errors import DataError, DataWarning
from engramma.probing.hooks import Edit
from engramma.probing.model import LanguageModel, pad


@dataclass(frozen=True)
class Items:
    """Prompts and their right answers, as tokens.

    Parameters
    ----------
    tokens : Tensor of int64, shape (item, token)
        Prompt and answer, padded on the right.
    at : Tensor of int64, shape (item, k)
        Positions that predict the tokens of the answer.
    targets : Tensor of int64, shape (item, k)
        Those tokens.
    scored : Tensor of bool, shape (item, k)
        False where an answer has fewer than k tokens.
    """

    tokens: Tensor
    at: Tensor
    targets: Tensor
    scored: Tensor

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Items:
        """Put prompts and answers, lists of token numbers, together.

        Raises
        ------
        DataError
            If there is none, or a prompt or an answer is empty.
        """
        if not prompts or not all(map(len, prompts)) or not all(map(len, answers)):
            raise DataError("each item needs a prompt and an answer of one token or more")
        tokens, _ = pad([[*p, *a] for p, a in zip(prompts, answers, strict=True)])
        targets, ends = pad(answers)
        steps = torch.arange(targets.shape[1])
        scored = steps <= ends[:, None]
        starts = torch.tensor([len(p) - 1 for p in prompts])
        at = starts[:, None] + torch.minimum(steps, ends[:, None])
        return cls(tokens, at, targets, scored)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: Any) -> Items:
        return Items(self.tokens[rows], self.at[rows], self.targets[rows], self.scored[rows])

    @property
    def prompts(self) -> list[list[int]]:
        """Tokens before each answer."""
        starts = (self.at[:, 0] + 1).tolist()
        return [row[:start] for row, start in zip(self.tokens.tolist(), starts, strict=True)]

    @property
    def answers(self) -> list[list[int]]:
        """Tokens of each answer."""
        lengths = self.scored.sum(dim=1).tolist()
        return [row[:n] for row, n in zip(self.targets.tolist(), lengths, strict=True)]

    def answered(self, answers: Sequence[Sequence[int]]) -> Items:
        """Return the same prompts with other answers."""
        return Items.of(self.prompts, answers)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Tokens, and weights that count the answers only; see `train_language_model`."""
        weights = torch.zeros(self.tokens.shape)
        return self.tokens, weights.scatter_add(1, self.at + 1, self.scored.float())


def text_items(model: LanguageModel, prompts: Sequence[str], answers: Sequence[str]) -> Items:
    """Tokenise prompts and answers; a line break ends each answer."""
    ends = [model.token_ids(f" {a}\n", special=False) for a in answers]
    return Items.of([model.token_ids(p) for p in prompts], ends)


@dataclass(frozen=True)
class Score:
    """Whether each item is right (item,); log probability of each token (item, k), or NaN."""

    correct: np.ndarray
    log_probability: np.ndarray

    @property
    def mean_log_probability(self) -> np.ndarray:
        """Of the whole answer, mean over its tokens (item,), nats."""
        return np.asarray(np.nanmean(self.log_probability, axis=1))


@torch.no_grad()
def score(
    model: LanguageModel,
    items: Items,
    *,
    edits: Iterable[Edit] = (),
    rows: int = 64,
    first_token_only: bool = False,
) -> Score:
    """Score the right answers of items.

    Greedy decoding gives an answer exactly if each of its tokens is the likeliest one after those
    before it, so that one run tells whether it does.

    Parameters
    ----------
    model : LanguageModel
    items : Items
    edits : iterable of Edit
    rows : int
        Items at a time.
    first_token_only : bool
        Whether to look at the first token of each answer alone; warns if some have more.
    """
    if first_token_only and bool(items.scored[:, 1:].any()):
        share = float(items.scored[:, 1:].any(dim=1).float().mean())
        warnings.warn(
            f"{share:.0%} of the answers have several tokens, and only the first is scored",
            DataWarning,
            stacklevel=2,
        )
    used = slice(0, 1) if first_token_only else slice(None)
    edits, right, values = list(edits), [], []
    for start in range(0, len(items), rows):
        part = items[start : start + rows]
        at, targets, scored = part.at[:, used], part.targets[:, used], part.scored[:, used]
        logits = model.logits(part.tokens, at=at, edits=edits).float()
        right.append(((logits.argmax(dim=-1) == targets) | ~scored).all(dim=1))
        chosen = logits.log_softmax(dim=-1).gather(2, targets[..., None])[..., 0]
        values.append(chosen.masked_fill(~scored, torch.nan))
    return Score(torch.cat(right).numpy(), torch.cat(values).numpy())


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson correlation; NaN where one of them is constant."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])
