r"""Circuit Component Reuse Across Tasks in Transformer Language Models (Merullo et al. 2024).

**What it does.** A model and two tasks with clean and corrupted prompts give a circuit of attention
heads each, how far the two are made of the same heads, and a repair: where the second task fails,
some heads are made to attend as they do in the first.

**Prompts.** A clean prompt x, a corrupted x' of equal length, an answer a and a foil b. The logit
difference is :math:`LD = \mathrm{logit}(a) - \mathrm{logit}(b)` at the last token
(`engramma.probing.paired_prompts`): indirect objects, and coloured objects.

**Path patching** of a sender head h into receivers R. Outputs of all heads for x and x' are kept.
x is run with the sender's output at a position taken from x', and every other head's output kept at
that of x; feed-forward networks are recomputed, or frozen on request. What R get in that run is put
into another, clean run. The score is

.. math:: s(h \to R) = \frac{LD_{patched} - LD(x)}{LD(x') - LD(x)},

0 where nothing has changed, 1 where the answer is that to x'. `engramma.probing.patching` runs one
token a sender.

**Search**, backwards. Step 1: R is the final residual stream; senders with s > 0 are *movers*, with
s < 0 *negative movers*. Step 2: R are the queries of the movers, at the last token. Step 3: R are
keys and values of the heads of step 2, at the token in which x' differs. A step keeps the best 2 %
of all heads by :math:`|s|`, and all with :math:`|s| > 0.1`: the first is the paper's rule, the
second serves models of a dozen heads.

**Overlap** of circuits A and B: :math:`|A \cap B| / |B|`. What the paper divides by is not stated
in what we have read; the share of A and the Jaccard index are given too, with the overlap of heads
drawn at random in the same layers.

**Repair.** In coloured objects GPT2-medium names some colour of the three, since its inhibition
heads do not attend to the wrong ones. At the last token, attention of three
inhibition heads and one negative mover is set to 0.5 on each wrong colour; all that follows is
recomputed. In another model such heads are chosen on some prompts (`best_repair`) and tried on
others.

**Deviations.** Weights are not folded or centred, which changes no logit difference. Heads other
than the sender are frozen at the patched position, and so are all others, as none of them can
change before the receivers. The published code leaves out the repair; it follows the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from engramma.errors import ConfigError
from engramma.probing.ablation import Head
from engramma.probing.findings import Examination
from engramma.probing.head_edits import attend_to, without_heads
from engramma.probing.hooks import Edit
from engramma.probing.model import LanguageModel
from engramma.probing.paired_prompts import PairedPrompts
from engramma.probing.patching import Outcome, Patching, Receiver
from engramma.registry import system
from engramma.systems.probing.circuit_reuse_claims import CLAIMS

BIBTEX = """@inproceedings{merullo2024circuit,
  title = {Circuit Component Reuse Across Tasks in Transformer Language Models},
  author = {Merullo, Jack and Eickhoff, Carsten and Pavlick, Ellie},
  booktitle = {ICLR}, year = {2024}}"""

#: Names of the parts of a circuit, in the order in which they are found.
ROLES = ("movers", "negative movers", "query writers", "key and value writers")


@dataclass(frozen=True)
class Circuit:
    """Heads that carry a task.

    Parameters
    ----------
    task : str
    roles : mapping of str to mapping of (layer, head) to float
        Scores of the heads in each role; see `ROLES`.
    scores : tuple of Tensor, each of shape (layer, head)
        Path patching scores of every head in each step, NaN for those that were no sender.
    """

    task: str
    roles: Mapping[str, Mapping[Head, float]]
    scores: tuple[Tensor, ...]

    @property
    def heads(self) -> list[Head]:
        """All heads of the circuit, by layer."""
        return sorted({head for found in self.roles.values() for head in found})


@dataclass(frozen=True)
class Overlap:
    """How far two circuits are made of the same heads.

    Parameters
    ----------
    shared : list of (layer, head)
    share, share_of_first, jaccard : float
        Shared heads over those of the second circuit, of the first, of both together.
    chance : float
        ``share`` of heads drawn at random, as many in each layer as the circuits have.
    by_role : mapping of str to float
        Share of the second circuit's heads of a role that have it in the first.
    """

    shared: list[Head]
    share: float
    share_of_first: float
    jaccard: float
    chance: float
    by_role: Mapping[str, float]


@system(
    "circuit-reuse",
    family="probing",
    title="Circuit reuse: the same heads in two tasks",
    contract="Probe",
    paper="Merullo, Eickhoff & Pavlick 2024, ICLR, arXiv:2310.08744",
    bibtex=BIBTEX,
    claims=CLAIMS,
)
class CircuitReuse:
    """Circuits by path patching, their overlap, and the repair.

    Parameters
    ----------
    share : float
        Of all heads, kept in each step of the search.
    threshold : float
        Absolute score beyond which a head is kept anyway.
    steps : {1, 2, 3}
        How far back the search goes. The third runs whole prompts once for each head.
    freeze_mlps : bool
        Whether paths may not lead through feed-forward networks.

    Raises
    ------
    ConfigError
        If an option is out of range.
    """

    def __init__(
        self,
        *,
        share: float = 0.02,
        threshold: float = 0.1,
        steps: Literal[1, 2, 3] = 3,
        freeze_mlps: bool = False,
    ) -> None:
        if not 0 <= share <= 1 or threshold <= 0 or steps not in (1, 2, 3):
            raise ConfigError(
                f"share {share}, threshold {threshold} and steps {steps} do not describe a search",
                where="CircuitReuse",
                mend="share is between 0 and 1, threshold above 0, steps 1, 2 or 3",
            )
        self.share, self.threshold, self.steps = share, threshold, steps
        self.freeze_mlps = freeze_mlps

    # -- the Probe contract --------------------------------------------------------------------

    def locate(self, model: LanguageModel, examples: PairedPrompts) -> Tensor:
        """Effect of exchanging each head's output at the last token for the corrupted one.

        Returns
        -------
        Tensor, shape (layer, head)
            Scores: 0 for no change, 1 for the answer to the corrupted prompt.
        """
        patching = Patching(model, examples)
        found = patching.exchange([[head] for head in patching.heads])
        return patching.score(found.difference).view(model.anatomy.n_layers, -1)

    def intervene(
        self, model: LanguageModel, where: Iterable[Head], examples: PairedPrompts | None = None
    ) -> AbstractContextManager[LanguageModel]:
        """Keep heads at their mean over the prompts of ``examples``, or at zero without them."""
        return without_heads(model, where, examples)

    # -- circuits ------------------------------------------------------------------------------

    def path_patch(
        self,
        model: LanguageModel,
        prompts: PairedPrompts,
        receivers: Literal["residual"] | Sequence[Receiver] = "residual",
        *,
        at: Tensor | None = None,
    ) -> Tensor:
        """Score of each head as a sender, layer x head; see `Patching.path_patch`."""
        patching = Patching(model, prompts, freeze_mlps=self.freeze_mlps)
        return patching.score(patching.path_patch(receivers, at=at))

    def circuit(self, model: LanguageModel, prompts: PairedPrompts) -> Circuit:
        """Search a task's circuit, backwards from the answer.

        Raises
        ------
        DataError
            If clean and corrupted prompts are answered alike.
        """
        patching = Patching(model, prompts, freeze_mlps=self.freeze_mlps)
        scores = [patching.score(patching.path_patch("residual"))]
        first = self._keep(scores[0])
        movers = {head: s for head, s in first.items() if s > 0}
        negative = {head: s for head, s in first.items() if s < 0}
        writers: dict[Head, float] = {}
        before: dict[Head, float] = {}
        if self.steps > 1 and movers:
            queries = [Receiver("query", *head) for head in movers]
            scores.append(patching.score(patching.path_patch(queries)))
            writers = self._keep(scores[1])
        if self.steps > 2 and writers:
            kinds: tuple[Literal["key", "value"], ...] = ("key", "value")
            goals = [Receiver(kind, *head) for head in writers for kind in kinds]
            scores.append(patching.score(patching.path_patch(goals, at=prompts.changed)))
            before = self._keep(scores[2])
        found = (movers, negative, writers, before)
        return Circuit(prompts.name, dict(zip(ROLES, found, strict=True)), tuple(scores))

    def _keep(self, scores: Tensor) -> dict[Head, float]:
        size = scores.abs().nan_to_num()
        best = size.flatten().sort(descending=True).values
        n = round(self.share * size.numel())
        bar = min(self.threshold, float(best[n - 1])) if n else self.threshold
        chosen = (size >= bar) & (size > 0)
        return {(int(x), int(h)): float(scores[x, h]) for x, h in chosen.nonzero()}

    def overlap(self, model: LanguageModel, a: Circuit, b: Circuit) -> Overlap:
        """How far circuit ``b`` is made of the heads of ``a``.

        Raises
        ------
        ConfigError
            If a circuit has no head.
        """
        first, second = set(a.heads), set(b.heads)
        if not first or not second:
            empty = a if not first else b
            raise ConfigError(
                f"the circuit of {empty.task} has no head",
                where="overlap",
                mend="lower the threshold, or keep a larger share",
            )
        shared = first & second
        in_layer = [
            np.bincount([layer for layer, _ in c.heads], minlength=model.anatomy.n_layers)
            for c in (a, b)
        ]
        expected = float(in_layer[0] @ in_layer[1]) / model.anatomy.n_heads
        return Overlap(
            shared=sorted(shared),
            share=len(shared) / len(second),
            share_of_first=len(shared) / len(first),
            jaccard=len(shared) / len(first | second),
            chance=expected / len(second),
            by_role={
                role: len({*a.roles[role]} & {*b.roles[role]}) / len(b.roles[role])
                for role in ROLES
                if b.roles[role]
            },
        )

    # -- repair --------------------------------------------------------------------------------

    def repair(self, heads: Iterable[Head], prompts: PairedPrompts) -> list[Edit]:
        """Edits that make heads attend to the wrong answers of ``prompts``, evenly.

        They fit a run of ``prompts.clean``, row for row: ``model.logits(prompts.clean,
        at=prompts.last, edits=...)``.
        """
        return attend_to(heads, prompts.marked, prompts.last)

    def best_repair(
        self,
        model: LanguageModel,
        prompts: PairedPrompts,
        n: int = 4,
        *,
        among: Sequence[Head] | None = None,
        shortlist: int = 12,
    ) -> list[Head]:
        """Choose heads whose attention, led to the wrong answers, helps most; one after another.

        Parameters
        ----------
        model : LanguageModel
        prompts : PairedPrompts
            On which they are chosen. The repair is to be judged on others.
        n : int
        among : sequence of (layer, head), optional
            All heads by default.
        shortlist : int
            Heads, the best alone, that are tried together.

        Returns
        -------
        list of (layer, head)
            By what raises accuracy most, and among equals the logit difference.
        """
        patching = Patching(model, prompts)
        left = list(patching.heads if among is None else among)
        if not 1 <= n <= len(left):
            raise ConfigError(
                f"{n} of {len(left)} heads are wanted", where="n", mend="ask for fewer"
            )
        alone = _benefit(patching.overwrite([[head] for head in left], prompts.marked))
        left = [left[int(i)] for i in alone.argsort(descending=True)[: max(n, shortlist)]]
        chosen: list[Head] = []
        for _ in range(n):
            outcome = patching.overwrite([[*chosen, head] for head in left], prompts.marked)
            chosen.append(left.pop(int(_benefit(outcome).argmax())))
        return chosen

    # -- a model of one's own ------------------------------------------------------------------

    def examine(self, model: LanguageModel, *, seed: int = 0, quick: bool = False) -> Examination:
        """Look for the circuits of both tasks, their overlap, and a repair; see `Examiner`.

        Raises
        ------
        NotTestableError
            If the model does not tell an indirect object from a subject.
        """
        from engramma.systems.probing.circuit_reuse_examination import examine

        return examine(model, seed=seed, quick=quick)


def _benefit(outcome: Outcome) -> Tensor:
    """Accuracy, and where that is equal the logit difference; one number a change."""
    return outcome.accuracy + 1e-3 * torch.tanh(outcome.difference.mean(dim=1) / 10)
