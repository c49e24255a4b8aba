"""What Wu et al. claim of retrieval heads, in a form that can be run.

Miniatures of four layers of eight heads, trained on streams with repeated lists, and the real
SmolLM2-135M-Instruct. Heads are always found with other prompts than those they are judged by.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import stats

from engramma.contracts import Claim, Control
from engramma.memory.language_model import small_language_model
from engramma.probing.ablation import Head, ablate_heads, random_heads
from engramma.probing.head_scores import RETRIEVAL, HeadScores
from engramma.probing.list_streams import (
    FILLER,
    N_TOKENS,
    ListPairs,
    list_pairs,
    stream_transformer,
    training_batch,
)
from engramma.probing.model import LanguageModel
from engramma.probing.needles import (
    NEEDLES,
    NeedlePrompt,
    needle_prompts,
    story_haystack,
    stream_needles,
)
from engramma.probing.training import train_language_model

if TYPE_CHECKING:
    from engramma.systems.probing.retrieval_heads import RetrievalHeads

PAPER = "Wu et al. 2024"
#: Heads that are removed from a miniature, and draws of others to compare with.
REMOVED, DRAWS = 3, 10


def probe(n_new: int = 12) -> RetrievalHeads:
    """Return the system; it imports this module, hence not at the top."""
    from engramma.systems.probing.retrieval_heads import RetrievalHeads

    return RetrievalHeads(n_new=n_new)


def scores_of(model: LanguageModel, seed: int, successful_only: bool = True) -> HeadScores:
    """Score heads on 48 streams."""
    prompts = stream_needles(np.random.default_rng([seed, 0]), 48)
    return probe().score_heads(model, prompts, successful_only=successful_only)


@cache
def trained_scores(seed: int) -> HeadScores:
    """Scores of the trained miniature of a seed; seeds beyond 2 look at the same three models."""
    return scores_of(stream_transformer("four_layers", seed % 3), seed)


@dataclass
class Copying:
    """A miniature that copies lists, and new streams to judge it by."""

    seed: int

    @property
    def model(self) -> LanguageModel:
        """Return the miniature."""
        return stream_transformer("four_layers", self.seed % 3)

    @property
    def scores(self) -> HeadScores:
        """Its retrieval scores."""
        return trained_scores(self.seed)

    @cached_property
    def pairs(self) -> ListPairs:
        """New streams with lists of six."""
        return list_pairs(np.random.default_rng([self.seed, 1]), 64, nouns=6)

    @cached_property
    def others(self) -> list[list[Head]]:
        """Random heads, as many and in the same layers as those removed."""
        rng = np.random.default_rng([self.seed, 2])
        top = self.scores.top(REMOVED)
        return [random_heads(self.model, top, rng) for _ in range(DRAWS)]

    def accuracy(self, heads: Sequence[Head] = ()) -> float:
        """Share of the second list's tokens that are predicted, without some heads."""
        tokens = torch.from_numpy(self.pairs.tokens)
        edits = ablate_heads(self.model, heads)
        places = torch.from_numpy(self.pairs.second)
        logits = self.model.logits(tokens, at=places - 1, edits=edits)
        return float((logits.argmax(dim=2) == tokens.gather(1, places)).float().mean())

    def loss_of_copying(self, heads: Sequence[Head]) -> float:
        """Drop of the accuracy when heads are zeroed."""
        return self.accuracy() - self.accuracy(heads)

    def loss_without_others(self) -> float:
        """Mean drop when other heads are zeroed."""
        return float(np.mean([self.loss_of_copying(heads) for heads in self.others]))

    def surprisal(self, which: str, heads: Sequence[Head] = ()) -> float:
        """Mean surprisal of filler behind filler, or of the second list."""
        tokens = torch.from_numpy(self.pairs.tokens)
        values = self.model.surprisal(tokens, edits=ablate_heads(self.model, heads))
        if which == "list":
            return float(values.gather(1, torch.from_numpy(self.pairs.second)).mean())
        filler = (tokens >= FILLER[0]) & (tokens < FILLER[1])
        filler[:, 1:] &= filler[:, :-1].clone()
        filler[:, 0] = False
        return float(values[filler].mean())

    def change(self, which: str) -> float:
        """Relative change of the surprisal when the best heads are zeroed."""
        return self.surprisal(which, self.scores.top(REMOVED)) / self.surprisal(which) - 1

    def copies(self) -> tuple[bool, str]:
        """Whether the model does what is to be explained."""
        found = self.accuracy()
        return found >= 0.8, f"the miniature predicts {found:.0%} of repeated lists, and not 80 %"

    def attended_anywhere(self) -> float:
        """Share of heads if any token counted that a head looks at, copied or not."""
        prompts = stream_needles(np.random.default_rng([self.seed, 0]), 48)
        attended = probe().answer(self.model, prompts, record=True).attended
        starts, stops = (
            np.array([getattr(p, name) for p in prompts])[:, None, None, None]
            for name in ("start", "stop")
        )
        kinds = [
            ((attended == starts + i) & (attended < stops)).any(axis=1) for i in range(6)
        ]  # by token of the needle: prompt x layer x head
        return float((np.mean(kinds, axis=(0, 1)) >= RETRIEVAL).mean())

    def untrained(self) -> float:
        """Score of the best head of a network with random weights, all runs counted."""
        network = small_language_model(N_TOKENS, 64, 4, 8, seed=self.seed)
        scores = scores_of(LanguageModel(network), self.seed, successful_only=False)
        return float(scores.mean.max())

    @cached_property
    def extended(self) -> HeadScores:
        """Scores after training went on with streams twice as long."""
        network = copy.deepcopy(self.model.network).requires_grad_(True)
        train_language_model(
            network,
            lambda rng: training_batch(rng, 8, length=128),
            steps=100,
            rate=1e-3,
            warm_up=10,
            seed=self.seed,
            description="longer streams",
        )
        return scores_of(LanguageModel(network), self.seed)

    def agreement(self, other: HeadScores) -> float:
        """Rank correlation of head scores."""
        return float(stats.spearmanr(self.scores.mean.ravel(), other.mean.ravel()).statistic)


# -- SmolLM2 -------------------------------------------------------------------------------


@dataclass
class InSmol:
    """Needles in stories of 128 tokens, three to find heads and three others to judge them."""

    seed: int
    blocked: int = 10

    @cached_property
    def model(self) -> LanguageModel:
        """Return the real model."""
        return _smollm2()

    def prompts(self, which: slice) -> list[NeedlePrompt]:
        """Return needles in a random order of this seed, each at two depths."""
        order = np.random.default_rng(self.seed).permutation(len(NEEDLES))[which]
        return needle_prompts(
            self.model,
            story_haystack(self.seed, n_sentences=60),
            [NEEDLES[i] for i in order],
            lengths=[128],
            depths=[0.2, 0.7],
        )

    @cached_property
    def scores(self) -> HeadScores:
        """Scores from three needles."""
        return probe(n_new=24).score_heads(self.model, self.prompts(slice(0, 3)))

    def recall(self, heads: Sequence[Head]) -> float:
        """Recall of the other three without some heads."""
        system = probe(n_new=24)
        edits = system.block(self.model, heads)
        table = system.needle_eval(self.model, self.prompts(slice(3, 6)), edits)
        return float(table["recall"].mean())

    @cached_property
    def random(self) -> float:
        """Recall without random heads of the same layers that do not retrieve."""
        rng = np.random.default_rng([self.seed, 1])
        best = self.scores.top(self.blocked)
        return self.recall(
            random_heads(self.model, best, rng, exclude=self.scores.heads(RETRIEVAL))
        )

    def worst(self) -> list[Head]:
        """Return as many heads that copy nothing, the first in each of the same layers."""
        free = [(int(x), int(h)) for x, h in np.argwhere(self.scores.mean == 0)]
        found: list[Head] = []
        for layer, _ in self.scores.top(self.blocked):
            left = [head for head in free if head not in found]
            found.append(min(left, key=lambda head: (abs(head[0] - layer), head[1])))
        return found


@cache
def _smollm2() -> LanguageModel:
    return LanguageModel.load("smollm2")


CLAIMS = (
    Claim(
        name="sparse",
        sentence="At most a quarter of 32 heads have a retrieval score of 0.1 or more",
        source=f"{PAPER}, section 3 (fewer than 5 % of heads of models with a thousand)",
        metric="share of heads",
        prepare=Copying,
        system=lambda task: task.scores.share(RETRIEVAL),
        baseline=lambda task: 0.0,
        baseline_name="no head",
        margin=0.25,
        direction="below",
        control=Control(
            "a token counts wherever in the needle a head looks, copied or not",
            Copying.attended_anywhere,
        ),
        presupposes=Copying.copies,
        seeds=3,
        tried="72, 59 and 66 % of 32 heads copy. A network of this size that has learned nothing "
        "but copying spreads it over three of its four layers; in SmolLM2, with 270 heads and all "
        "of language to do, it is 6 %.",
    ),
    Claim(
        name="learned",
        sentence="The best head has a score at least 0.3 above that of the median head",
        source=f"{PAPER}, section 2",
        metric="retrieval score",
        prepare=Copying,
        system=lambda task: float(task.scores.mean.max()),
        baseline=lambda task: float(np.median(task.scores.mean)),
        baseline_name="the median head",
        margin=0.3,
        control=Control(
            "the best head of a network with random weights",
            Copying.untrained,
            expect="chance",
            chance=0.0,
            tolerance=0.1,
        ),
        presupposes=Copying.copies,
        seeds=3,
    ),
    Claim(
        name="causal",
        sentence="Zeroing the three best heads cuts the accuracy of copying by 50 points or more",
        source=f"{PAPER}, section 4.1",
        metric="share of the repeated list that is predicted",
        prepare=Copying,
        system=lambda task: task.accuracy(),
        baseline=lambda task: task.accuracy(task.scores.top(REMOVED)),
        baseline_name="the same model without its three best heads",
        margin=0.5,
        control=Control(
            "loss without three other heads of the same layers, mean of ten draws",
            Copying.loss_without_others,
            expect="chance",
            chance=0.0,
            tolerance=0.15,
        ),
        presupposes=Copying.copies,
        seeds=3,
        tried="Accuracy falls by 16 points, and by 6 without others: with two thirds of the heads "
        "copying, three are easily replaced. In SmolLM2 ten heads carry most of it (claim "
        "smollm2-causal).",
    ),
    Claim(
        name="specific",
        sentence="Without them, the surprisal of filler, which is known from the weights, changes "
        "by less than a tenth",
        source=f"{PAPER}, section 4.3 (knowledge in the weights is left)",
        metric="relative change of surprisal",
        prepare=Copying,
        system=lambda task: task.change("filler"),
        baseline=lambda task: 0.0,
        baseline_name="no change",
        margin=0.1,
        direction="within",
        control=Control("the repeated list instead", lambda task: task.change("list")),
        presupposes=Copying.copies,
        seeds=3,
    ),
    Claim(
        name="intrinsic",
        sentence="Scores before and after training went on with streams twice as long are ranked "
        "alike: Spearman above 0.7",
        source=f"{PAPER}, section 3 (the same heads in models of one family)",
        metric="Spearman correlation of head scores",
        prepare=Copying,
        system=lambda task: task.agreement(task.extended),
        baseline=lambda task: 0.0,
        baseline_name="no agreement",
        margin=0.7,
        control=Control(
            "a model that was trained independently",
            lambda task: task.agreement(trained_scores((task.seed + 1) % 3)),
        ),
        presupposes=Copying.copies,
        seeds=3,
        tried="0.97 to 0.99 before and after longer streams, and 0.65, 0.77 and 0.90 between "
        "networks trained independently: which layers copy is much the same in all, and alone "
        "ranks most heads.",
    ),
    Claim(
        name="smollm2-causal",
        sentence="SmolLM2-135M gives at least 30 points less of hidden answers without its 10 best "
        "heads (of 270) than without 10 random ones of the same layers",
        source=f"{PAPER}, section 4.1, in a model of 135 million parameters",
        metric="ROUGE-1 recall of the answer",
        prepare=InSmol,
        system=lambda task: task.recall(task.scores.top(task.blocked)),
        baseline=lambda task: task.random,
        baseline_name="10 random heads that do not retrieve",
        margin=-0.3,
        direction="below",
        control=Control(
            "10 heads that never copy, in the same layers, instead of the best",
            lambda task: task.recall(task.worst()) - task.random,
        ),
        presupposes=lambda task: (
            task.recall([]) >= 0.5,
            f"SmolLM2 gives {task.recall([]):.0%} of hidden answers, and not half",
        ),
        seeds=3,
        tried="Without its best heads the model gives 6, 12 and 6 % of the answers, without random "
        "ones 63, 41 and 45 %: the effect is there on each seed, but three seeds of six prompts "
        "leave too wide an interval around it and around the control. More do not fit into the "
        "time of a claim.",
    ),
)
