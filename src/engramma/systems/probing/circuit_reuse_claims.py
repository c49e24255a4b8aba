"""What Merullo et al. claim of circuits in two tasks, in a form that can be run.

For three seeds, two small models come with engramma (``scripts/train_circuit_reuse.py``): one that
learned both tasks, and one that is on the plateau on which coloured objects are answered with any
of the three colours.
The same is asked of SmolLM2, whose seeds are other prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from engramma.contracts import Claim, Control
from engramma.errors import NotTestableError
from engramma.probing.ablation import Head, random_heads, sweep_heads
from engramma.probing.head_edits import without_heads
from engramma.probing.model import LanguageModel
from engramma.probing.paired_prompts import PairedPrompts
from engramma.probing.paired_tasks import coloured_objects, docstrings, indirect_objects
from engramma.probing.paired_tokens import VOCABULARY, colour_tokens, identification_tokens
from engramma.probing.patching import Patching
from engramma.probing.places import Place
from engramma.probing.training import learned_position_model
from engramma.systems.probing.circuit_reuse_examination import shuffled_correlations

if TYPE_CHECKING:
    from engramma.systems.probing.circuit_reuse import Circuit

PAPER = "Merullo et al. 2024"
#: Prompts of a small model's tasks to search with, and to test with.
SEARCHED, TESTED = 128, 300
SHUFFLES, RANDOM_SETS = 1000, 8
#: Prompts of SmolLM2 to search with, and as many to test with.
PROMPTS = 12


@lru_cache
def small_model(seed: int, state: str = "") -> LanguageModel:
    """Return a shipped model; ``state`` is empty or ``"_plateau"``."""
    if seed > 2:
        raise NotTestableError("models are shipped for the seeds 0, 1 and 2")
    return LanguageModel.load(f"circuit_reuse_{seed}{state}")


@lru_cache
def smollm2() -> LanguageModel:
    """Return SmolLM2-135M-Instruct."""
    return LanguageModel.load("smollm2")


def right(model: LanguageModel, prompts: PairedPrompts) -> float:
    """Share of right answers."""
    return float(prompts.right(model.logits(prompts.clean, at=prompts.last)).float().mean())


def interchange(model: LanguageModel, prompts: PairedPrompts) -> Tensor:
    """Effect of each head's corrupted output at all positions, layer x head; 1 is all of it."""
    places = [Place("heads", layer) for layer in range(model.anatomy.n_layers)]
    other = model.run(prompts.corrupted, keep=places, at=prompts.last)
    clean = prompts.difference(model.logits(prompts.clean, at=prompts.last)).mean()
    changed = sweep_heads(
        model,
        prompts.clean,
        prompts.difference,
        at=prompts.last,
        mode="resample",
        reference=other.values,
        rows=16 * len(prompts),
    )
    return (changed.mean(-1) - clean) / (prompts.difference(other.logits).mean() - clean)


# -- path patching ---------------------------------------------------------------------------


@dataclass
class Frozen:
    """A model of random weights, and a path in it."""

    seed: int

    @cached_property
    def patching(self) -> Patching:
        """Two layers of two heads, with large weights."""
        network = learned_position_model(VOCABULARY, dim=16, layers=2, heads=2, seed=self.seed)
        with torch.no_grad():
            for block in network.transformer.h:
                block.attn.c_attn.weight.mul_(4)
        rng = np.random.default_rng(self.seed)
        return Patching(LanguageModel(network), identification_tokens(16, rng=rng))

    def whole_prompts(self, frozen: bool = True) -> Tensor:
        """Logit differences with head 0.1 corrupted at the last token, by whole prompts."""
        from engramma.probing.hooks import Edit

        patching, model = self.patching, self.patching.model
        prompts, places = patching.prompts, [Place("heads", layer) for layer in range(2)]
        clean = model.run(prompts.clean, keep=places, at=0).values
        sent = clean[places[0]].clone()
        sent[:, -1, 1] = model.run(prompts.corrupted, keep=places, at=0)[places[0]][:, -1, 1]
        edits = [Edit(places[0], lambda _: sent)]
        if frozen:
            edits.append(Edit(places[1], lambda _: clean[places[1]]))
        return prompts.difference(model.logits(prompts.clean, at=prompts.last, edits=edits))

    def distance(self, frozen: bool = True) -> float:
        """Distance of path patching with one token a sender, relative to both changes."""
        clean = self.patching.clean
        found = self.patching.path_patch("residual", senders=[(0, 1)])[0, 1]
        whole = self.whole_prompts(frozen)
        changes = (whole - clean).norm() + (found - clean).norm()
        return float((found - whole).norm() / changes)


# -- small models ----------------------------------------------------------------------------


@dataclass
class Trained:
    """A shipped model with prompts of both tasks."""

    seed: int

    @cached_property
    def model(self) -> LanguageModel:
        """Return the trained model."""
        return small_model(self.seed)

    @cached_property
    def names(self) -> PairedPrompts:
        """Return prompts of indirect objects."""
        return identification_tokens(SEARCHED, rng=np.random.default_rng([self.seed, 1]))

    @cached_property
    def colours(self) -> PairedPrompts:
        """Return prompts of coloured objects, the first of which are searched with."""
        return colour_tokens(SEARCHED + TESTED, rng=np.random.default_rng([self.seed, 2]))

    def able(self) -> tuple[bool, str]:
        """Whether the model does both tasks."""
        names, colours = right(self.model, self.names), right(self.model, self.colours)
        return names > 0.9 and colours > 0.8, (
            f"{names:.0%} of indirect and {colours:.0%} of coloured objects are right"
        )

    def correlation(self, other: LanguageModel | None = None) -> float:
        """Rank correlation of effects in the two tasks."""
        return self._correlations(other)[0]

    def shuffled(self, other: LanguageModel | None = None) -> float:
        """95th percentile of it, with heads shuffled within layers."""
        return self._correlations(other)[1]

    def _correlations(self, other: LanguageModel | None) -> tuple[float, float]:
        from scipy.stats import spearmanr

        a = interchange(self.model, self.names).numpy()
        b = interchange(other or self.model, self.colours[:SEARCHED]).numpy()
        rng = np.random.default_rng([self.seed, 3])
        shuffled = list(shuffled_correlations(a, b, rng, SHUFFLES))
        return float(spearmanr(a.ravel(), b.ravel())[0]), float(np.percentile(shuffled, 95))

    @cached_property
    def circuit(self) -> Circuit:
        """Return the circuit of coloured objects."""
        from engramma.systems.probing.circuit_reuse import CircuitReuse

        return CircuitReuse().circuit(self.model, self.colours[:SEARCHED])

    def without(self, heads: Sequence[Head]) -> float:
        """Right answers to new prompts with heads at their mean."""
        with without_heads(self.model, heads, self.colours[:SEARCHED]) as model:
            return right(model, self.colours[SEARCHED:])

    def without_random(self, first: int = 0) -> float:
        """Mean of that over random sets of as many heads, in the same layers where possible."""
        rng = np.random.default_rng([self.seed, 4, first])
        heads = self.circuit.heads
        free = self.model.anatomy.n_layers * self.model.anatomy.n_heads - len(heads)
        sets = [
            random_heads(self.model, heads[: min(len(heads), free)], rng, exclude=heads)
            for _ in range(RANDOM_SETS)
        ]
        return float(np.mean([self.without(s) for s in sets]))

    def cost(self, left: float) -> float:
        """Loss of right answers when ``left`` are right."""
        return right(self.model, self.colours[SEARCHED:]) - left


@dataclass
class Plateau:
    """A shipped model that names any of the three colours, or SmolLM2, which does so too."""

    seed: int
    real: bool = False

    @cached_property
    def model(self) -> LanguageModel:
        """Return the model."""
        return smollm2() if self.real else small_model(self.seed, "_plateau")

    @cached_property
    def prompts(self) -> tuple[PairedPrompts, PairedPrompts]:
        """Return coloured objects to choose heads with, and to test them with."""
        rng = np.random.default_rng([self.seed, 5])
        if self.real:
            both = coloured_objects(self.model, 2 * PROMPTS, rng=rng)
            return both[:PROMPTS], both[PROMPTS:]
        both = colour_tokens(SEARCHED + TESTED, rng=rng)
        return both[:SEARCHED], both[SEARCHED:]

    @cached_property
    def heads(self) -> list[Head]:
        """Return the best four heads for the prompts to choose with."""
        from engramma.systems.probing.circuit_reuse import CircuitReuse

        return CircuitReuse().best_repair(self.model, self.prompts[0])

    @cached_property
    def patching(self) -> Patching:
        """Return the prompts to test with."""
        return Patching(self.model, self.prompts[1])

    @property
    def before(self) -> float:
        """Return the share of right answers."""
        return float(self.patching.clean_right.float().mean())

    def able(self) -> tuple[bool, str]:
        """Whether there is something to repair, and heads that do it where they are chosen."""
        chosen_on = Patching(self.model, self.prompts[0])
        before = float(chosen_on.clean_right.float().mean())
        gain = float(chosen_on.overwrite([self.heads], self.prompts[0].marked).accuracy) - before
        return self.before < 0.7 and gain > 0.15, (
            f"{self.before:.0%} are right, and the best four heads gain {gain:.0%} where they are "
            "chosen"
        )

    def repaired(self) -> float:
        """Right answers with the attention of the best heads led to the wrong colours."""
        return float(self.patching.overwrite([self.heads], self.prompts[1].marked).accuracy)

    def random(self) -> float:
        """Mean gain with four heads drawn from all."""
        rng = np.random.default_rng([self.seed, 6])
        left = [head for head in self.patching.heads if head not in self.heads]
        sets = [[left[i] for i in rng.permutation(len(left))[:4]] for _ in range(RANDOM_SETS)]
        found = self.patching.overwrite(sets, self.prompts[1].marked).accuracy
        return float(found.mean()) - self.before


# -- SmolLM2 ---------------------------------------------------------------------------------


@dataclass
class Real:
    """SmolLM2 with prompts of indirect objects; docstrings as the second task."""

    seed: int

    @cached_property
    def names(self) -> tuple[PairedPrompts, PairedPrompts]:
        """Return prompts to search with, and to test with."""
        rng = np.random.default_rng([self.seed, 7])
        both = indirect_objects(smollm2(), 2 * PROMPTS, rng=rng)
        return both[:PROMPTS], both[PROMPTS:]

    def able(self) -> tuple[bool, str]:
        """Whether the model tells an indirect object from a subject."""
        share = right(smollm2(), self.names[1])
        return share > 0.8, f"{share:.0%} of indirect objects are right"

    @cached_property
    def circuit(self) -> Circuit:
        """Return the circuit, searched for two steps back."""
        from engramma.systems.probing.circuit_reuse import CircuitReuse

        return CircuitReuse(steps=2).circuit(smollm2(), self.names[0])

    @cached_property
    def shares(self) -> Tensor:
        """Exchange the circuit's heads, and random ones, on new prompts; 1 is the whole change."""
        rng = np.random.default_rng([self.seed, 8])
        heads = self.circuit.heads
        patching = Patching(smollm2(), self.names[1])
        drawn = [random_heads(smollm2(), heads, rng) for _ in range(RANDOM_SETS)]
        return patching.score(patching.exchange([heads, *drawn]).difference)

    @cached_property
    def effects(self) -> tuple[np.ndarray, np.ndarray]:
        """Effects of each head's last output in both tasks, layer x head."""
        from engramma.systems.probing.circuit_reuse import CircuitReuse

        rng = np.random.default_rng([self.seed, 9])
        tasks = (self.names[0], docstrings(smollm2(), PROMPTS, rng=rng))
        names, words = (CircuitReuse().locate(smollm2(), prompts).numpy() for prompts in tasks)
        return names, words

    def correlation(self, shuffle: bool = False) -> float:
        """Rank correlation of the effects beyond the 95th percentile of shuffled heads."""
        from scipy.stats import spearmanr

        a, b = self.effects
        rng = np.random.default_rng([self.seed, 10])
        if shuffle:
            b = rng.permuted(b, axis=1)
        bar = np.percentile(list(shuffled_correlations(a, b, rng, SHUFFLES)), 95)
        return float(spearmanr(a.ravel(), b.ravel())[0] - bar)


PRACTISED = (
    "Not testable at first: trained with one question a sequence, seed 1 did not learn coloured "
    "objects in 12,000 steps. Practice with several questions was added after trials on the seeds "
    "10 to 12, and all models were trained anew."
)

CLAIMS = (
    Claim(
        name="one-token-a-sender",
        sentence="Path patching that runs one token a sender gives what whole prompts give with "
        "all other heads frozen",
        source=f"{PAPER}, section 3; Wang et al. 2022, appendix B",
        metric="relative distance of logit differences",
        prepare=Frozen,
        system=lambda task: task.distance(),
        baseline=lambda task: 0.0,
        baseline_name="no distance",
        margin=1e-3,
        direction="below",
        control=Control(
            "later heads are not frozen in the whole prompts",
            lambda task: task.distance(frozen=False),
        ),
        tried="A first measure, relative to the clean logit difference, was undecided, as "
        "that difference is near zero in some models; it was bounded after this.",
    ),
    Claim(
        name="reuse",
        sentence="The heads that matter for indirect objects matter for coloured objects, beyond "
        "what their layers explain",
        source=f"{PAPER}, section 4",
        metric="rank correlation of interchange effects over 12 heads",
        prepare=Trained,
        system=Trained.correlation,
        baseline=Trained.shuffled,
        baseline_name="95th percentile of 1000 shuffles of heads within layers",
        margin=0.0,
        control=Control(
            "coloured objects in another trained model",
            lambda task: (
                task.correlation(small_model((task.seed + 1) % 3))
                - task.shuffled(small_model((task.seed + 1) % 3))
            ),
        ),
        presupposes=Trained.able,
        seeds=3,
        tried=f"{PRACTISED} The correlations are 0.18, 0.56 and -0.35.",
    ),
    Claim(
        name="circuit-is-causal",
        sentence="With the circuit of coloured objects at its mean, right answers to new prompts "
        "fall to a third, within 8 points",
        source=f"{PAPER}, section 4 (the circuit carries the task)",
        metric="share of right answers",
        prepare=Trained,
        system=lambda task: task.without(task.circuit.heads),
        baseline=lambda task: 1 / 3,
        baseline_name="any of the three colours",
        margin=0.08,
        direction="within",
        control=Control(
            "as many heads outside the circuit, where there are as many, at their mean",
            lambda task: task.without_random() - 1 / 3,
        ),
        presupposes=Trained.able,
        seeds=3,
        tried=f"{PRACTISED} Without the heads that are found, all in layer 1, 33, 43 and 34 % are "
        "right; for seed 1 the fourth head of that layer is not found.",
    ),
    Claim(
        name="random-heads-cost-less",
        sentence="Random heads outside the circuit cost less than half of what the circuit costs",
        source=f"{PAPER}, section 4 (the circuit carries the task)",
        metric="loss of right answers",
        prepare=Trained,
        system=lambda task: task.cost(task.without_random()),
        baseline=lambda task: task.cost(task.without(task.circuit.heads)) / 2,
        baseline_name="half of the circuit's cost",
        margin=0.0,
        direction="below",
        control=Control(
            "the circuit itself in place of random heads",
            lambda task: task.cost(task.without(task.circuit.heads)) / 2,
        ),
        presupposes=Trained.able,
        seeds=3,
        tried=PRACTISED,
    ),
    Claim(
        name="repair",
        sentence="On the plateau, leading the attention of the best four heads to the wrong "
        "colours gains 15 points on new prompts",
        source=f"{PAPER}, section 5 (49.6 % to 93.7 % in GPT2-medium)",
        metric="share of right answers",
        prepare=Plateau,
        system=Plateau.repaired,
        baseline=lambda task: task.before,
        baseline_name="without repair",
        margin=0.15,
        control=Control("four random heads", Plateau.random),
        presupposes=Plateau.able,
        seeds=3,
    ),
    Claim(
        name="smollm2-circuit-is-causal",
        sentence="In SmolLM2-135M, exchanging the circuit's heads at the last token moves the "
        "answer by half of the way more than as many random heads of the same layers",
        source="Wang et al. 2022, section 4; here on another model",
        metric="share of the change of the logit difference",
        prepare=Real,
        system=lambda task: float(task.shares[0]),
        baseline=lambda task: float(task.shares[1:].mean()),
        baseline_name="random heads of the same layers, mean of eight sets",
        margin=0.5,
        control=Control(
            "one random set against the others",
            lambda task: float(task.shares[1] - task.shares[2:].mean()),
        ),
        presupposes=Real.able,
        seeds=3,
    ),
    Claim(
        name="smollm2-reuse",
        sentence="In SmolLM2-135M, heads that matter for indirect objects matter for docstrings, "
        "beyond what their layers explain",
        source=f"{PAPER}, section 4; docstrings, as SmolLM2 does not do coloured objects",
        metric="rank correlation of interchange effects over 270 heads",
        prepare=Real,
        system=Real.correlation,
        baseline=lambda task: 0.0,
        baseline_name="95th percentile of 1000 shuffles of heads within layers",
        margin=0.0,
        control=Control(
            "heads of one task shuffled within layers",
            lambda task: task.correlation(shuffle=True),
        ),
        presupposes=Real.able,
        seeds=3,
        tried="Docstrings stand where coloured objects are not answered. A third to a half of the "
        "heads of both circuits are shared, but over all heads the effects are not ranked "
        "alike beyond their layers.",
    ),
    Claim(
        name="smollm2-repair",
        sentence="In SmolLM2-135M, leading the attention of the best four heads to the wrong "
        "colours gains 15 points on new prompts",
        source=f"{PAPER}, section 5",
        metric="share of right answers",
        prepare=lambda seed: Plateau(seed, real=True),
        system=Plateau.repaired,
        baseline=lambda task: task.before,
        baseline_name="without repair",
        margin=0.15,
        control=Control("four random heads", Plateau.random),
        presupposes=Plateau.able,
        seeds=3,
    ),
)
