"""Scores of attention heads over many runs, and the file format in which they are published."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engramma.contracts import Estimate
from engramma.errors import DataError, DataWarning
from engramma.probing.ablation import Head

#: Score from which on a head is called a retrieval head (Wu et al. 2024, section 3).
RETRIEVAL = 0.1


@dataclass(frozen=True)
class HeadScores:
    """Retrieval scores of all heads.

    Parameters
    ----------
    runs : ndarray, shape (run, layer, head)
        Successful runs only.
    n_prompts : int
        All runs.
    """

    runs: np.ndarray
    n_prompts: int

    @property
    def mean(self) -> np.ndarray:
        """Score of each head, layer x head."""
        return np.asarray(self.runs.mean(axis=0))

    @property
    def n_successful(self) -> int:
        """Runs in which the needle was found."""
        return len(self.runs)

    def top(self, k: int) -> list[Head]:
        """Return the ``k`` best heads as (layer, head), best first, of equals the lower one."""
        order = np.argsort(-self.mean, axis=None, kind="stable")[:k]
        return [self._head(i) for i in order]

    def heads(self, at_least: float = RETRIEVAL) -> list[Head]:
        """Heads with a score of at least this, best first."""
        return self.top(int((self.mean >= at_least).sum()))

    def share(self, at_least: float = RETRIEVAL) -> float:
        """Share of all heads with a score of at least this."""
        return float((self.mean >= at_least).mean())

    def share_interval(self, at_least: float, rng: np.random.Generator) -> Estimate:
        """Share of heads with a bootstrap interval over runs."""
        n = len(self.runs)
        draws = [self.runs[rng.integers(0, n, n)].mean(axis=0) for _ in range(1000)]
        low, high = np.quantile([(d >= at_least).mean() for d in draws], [0.025, 0.975])
        return Estimate(self.share(at_least), float(low), float(high))

    def _head(self, index: int) -> Head:
        layer, head = divmod(int(index), self.runs.shape[2])
        return layer, head


def read_head_scores(path: str | Path) -> HeadScores:
    """Read ``head_score/MODEL.json``: ``{"layer-head": [score of each successful run]}``.

    The released code counts a token that a needle holds twice each time it is copied; scores above
    1 are kept as they are, with a warning.

    Raises
    ------
    DataError
        If the file is not in this format, or heads differ in their number of runs.
    """
    try:
        rows = {
            tuple(int(part) for part in name.split("-")): np.asarray(scores, dtype=float)
            for name, scores in json.loads(Path(path).read_text("utf-8")).items()
        }
        layers, heads = (1 + max(index) for index in zip(*rows, strict=True))
        runs = np.stack([rows[x, h] for x in range(layers) for h in range(heads)], axis=1)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"these are no scores of heads ({type(error).__name__}: {error})",
            where=str(path),
            mend='give {"layer-head": [scores]} for all heads, with as many runs each',
        ) from error
    if not len(runs):
        raise DataError("no run succeeded, so that scores are undefined", where=str(path))
    if runs.max() > 1 + 1e-9:  # sums of shares end near 1
        warnings.warn(
            f"{path}: scores reach {runs.max():.3f}, as repeated tokens were counted twice",
            DataWarning,
            stacklevel=2,
        )
    return HeadScores(runs.reshape(len(runs), layers, heads), len(runs))


def write_head_scores(path: str | Path, scores: HeadScores) -> None:
    """Write scores in the published format; see `read_head_scores`."""
    _, layers, heads = scores.runs.shape
    rows = {f"{x}-{h}": scores.runs[:, x, h].tolist() for x in range(layers) for h in range(heads)}
    Path(path).write_text(json.dumps(rows))
