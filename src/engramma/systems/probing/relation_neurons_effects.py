"""What the neurons of relations detect and what is lost without them, and how to report it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engramma.contracts import Estimate
from engramma.encoding.scores import bootstrap_interval
from engramma.errors import ConfigError
from engramma.probing.ablation import Neuron
from engramma.probing.facts import FactPrompts
from engramma.probing.findings import Finding, Panel, Table
from engramma.probing.neurons import average_precision
from engramma.probing.scores import mean_interval


@dataclass(frozen=True)
class Expertise:
    """How well each neuron alone detects each relation.

    Parameters
    ----------
    precision : ndarray, shape (relation, layer, neuron)
        Average precision.
    names : tuple of str
    chance : float
        Average precision of a neuron that knows nothing: the share of positives.
    """

    precision: np.ndarray
    names: tuple[str, ...]
    chance: float

    def select(self, relation: int, k: int) -> list[Neuron]:
        """Return the k best neurons of a relation, as (layer, neuron), best first.

        Raises
        ------
        ConfigError
            If there are not so many.
        """
        scores = self.precision[relation]
        if not 1 <= k <= scores.size:
            raise ConfigError(f"{k} of {scores.size} neurons cannot be chosen", where="k")
        best = np.argsort(-scores, axis=None, kind="stable")[:k]
        return [
            (int(x), int(j)) for x, j in zip(*np.unravel_index(best, scores.shape), strict=True)
        ]

    def overlap(self, k: int) -> np.ndarray:
        """Jaccard index of the k best neurons of each pair of relations."""
        sets = [set(self.select(i, k)) for i in range(len(self.names))]
        return np.array([[len(a & b) / len(a | b) for b in sets] for a in sets])


@dataclass(frozen=True)
class Effects:
    """What switching neurons off does to each prompt.

    Parameters
    ----------
    right : ndarray, shape (set, prompt)
        Whether the answer is right without each set; of several draws of sets, in which share.
    gain : ndarray, shape (set, prompt)
        Change of the log probability of the answer, nats.
    before : ndarray of bool, shape (prompt,)
    relation : ndarray of int, shape (prompt,)
    """

    right: np.ndarray
    gain: np.ndarray
    before: np.ndarray
    relation: np.ndarray

    @classmethod
    def of_draws(cls, draws: Sequence[Effects]) -> Effects:
        """Average what several draws of random sets do to the same prompts.

        A single draw says little: where it happens to hold a neuron that everything rests on, it
        costs more than any relation's own.
        """
        return cls(
            np.mean([d.right for d in draws], axis=0),
            np.mean([d.gain for d in draws], axis=0),
            draws[0].before,
            draws[0].relation,
        )

    @property
    def lost(self) -> np.ndarray:
        """Points of accuracy lost at each prompt, set x prompt: -100 to 100."""
        return 100.0 * (self.before.astype(float) - self.right)

    def matrix(self) -> np.ndarray:
        """Drop of accuracy, set x relation, in points of 100."""
        return self._by_relation(self.lost)

    def gains(self) -> np.ndarray:
        """Mean change of the log probability of the answer, set x relation."""
        return self._by_relation(self.gain)

    def _by_relation(self, values: np.ndarray) -> np.ndarray:
        n = int(self.relation.max()) + 1
        return np.stack([values[:, self.relation == r].mean(axis=1) for r in range(n)], axis=1)


# -- report --------------------------------------------------------------------------------------


def detection(
    expertise: Expertise,
    detectors: np.ndarray,
    relation: np.ndarray,
    own: Effects,
    drawn: Effects,
    k: int,
    rng: np.random.Generator,
) -> list[Finding]:
    """Report, for each relation, its best neuron on other subjects, and what its neurons carry.

    Parameters
    ----------
    expertise : Expertise
    detectors : ndarray, shape (prompt, relation)
        Responses of each relation's best neuron to held-out prompts.
    relation : ndarray of int, shape (prompt,)
    own, drawn : Effects
        Without the neurons of each relation, and without random ones.
    k : int
    rng : numpy.random.Generator
    """
    findings = []
    for r, name in enumerate(expertise.names):
        precision = _precision(detectors[:, r], relation == r, rng)
        mine = own.relation == r
        findings.append(
            Finding(
                f"neurons of “{name}”",
                f"One neuron tells prompts of “{name}” from others with an average precision of "
                f"{precision.value:.2f}, for subjects it was not found with.",
                precision,
                "average precision",
                float((relation == r).mean()),
                caused=mean_interval(own.lost[r, mine], rng=rng),
                control=mean_interval(drawn.lost[r, mine], rng=rng),
                intervention=f"the {k} best neurons set to zero: points of accuracy lost; control: "
                "as many random neurons of the same layers, mean of several draws",
            )
        )
    return findings


def specificity(own: Effects, drawn: Effects, k: int, rng: np.random.Generator) -> Finding:
    """Report how many more points of own than of other facts are lost."""
    mine = own.relation[None] == np.arange(len(own.right))[:, None]
    # What each prompt loses without its own neurons, less what it loses without those of others.
    others = np.where(mine, np.nan, own.lost)
    difference = own.lost[mine.argmax(axis=0), np.arange(mine.shape[1])] - np.nanmean(
        others, axis=0
    )
    return Finding(
        "specificity",
        f"Without the neurons of their own relation facts lose {difference.mean():.0f} points of "
        "accuracy more than without those of another.",
        mean_interval(difference, rng=rng),
        "percentage points",
        0.0,
        caused=mean_interval(own.lost[mine], rng=rng),
        control=mean_interval(drawn.lost[mine], rng=rng),
        intervention=f"{k} neurons of the own relation, and as many random ones (mean of several "
        "draws), set to zero",
    )


def matrices(expertise: Expertise, own: Effects, k: int) -> list[Panel]:
    """Draw what is lost without whose neurons, and which relations share neurons."""
    names = expertise.names
    return [
        Panel(
            "matrix",
            "Accuracy lost without the neurons of a relation",
            own.matrix(),
            rows=names,
            columns=names,
            caption="Rows: whose neurons are off. Columns: which facts are asked for.",
            unit="points",
        ),
        Panel(
            "matrix",
            "Neurons that two relations share",
            expertise.overlap(k),
            rows=names,
            columns=names,
            caption=f"Jaccard index of the {k} best neurons.",
            unit="Jaccard index",
        ),
    ]


def facts_known(prompts: FactPrompts, known: np.ndarray, used: Sequence[str]) -> Table:
    """Count the prompts of each relation that a model answers rightly."""
    right = np.bincount(prompts.relation[known], minlength=len(prompts.names))
    rows = [
        [name, str(int(a)), str(int(b)), "yes" if name in used else "no"]
        for name, a, b in zip(prompts.names, right, prompts.counts(), strict=True)
    ]
    return Table("Facts the model knows", ["relation", "known", "prompts", "used"], rows)


def _precision(scores: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Estimate:
    """Average precision with a bootstrap interval over prompts."""

    def score(rows: np.ndarray) -> float:
        if not 0 < labels[rows].sum() < len(rows):
            return float("nan")
        return float(average_precision(scores[rows, None], labels[rows])[0])

    return bootstrap_interval(score, len(scores), rng=rng, n_resamples=500)
