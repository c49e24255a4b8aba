"""What Zhang et al. claim of priors, on ciphers whose best answers are known exactly.

The models are miniatures that were trained once (three seeds with noisy symbols, three without);
tuning is done when the claim is checked. Whether the model has learned the cipher at all is asked
first: in mode EXACT it must be right.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from engramma.contracts import Claim, Control

if TYPE_CHECKING:
    from engramma.probing.answers import Items
    from engramma.probing.model import LanguageModel
    from engramma.probing.priors import CipherWorld, Mode

PAPER = "Zhang, Veselovsky, McCoy & Griffiths 2025, arXiv:2504.12585"
LIKELY, RARE, TUNED = 40, 200, 60


@dataclass(frozen=True)
class Cipher:
    """A trained cipher and the answers it is asked for."""

    seed: int
    kind: str = "noisy"

    @cached_property
    def world(self) -> CipherWorld:
        """What it was trained on."""
        from engramma.systems.probing.prior_influence import miniature_world

        return miniature_world(self.kind, self.seed)

    @cached_property
    def model(self) -> LanguageModel:
        """Return the miniature."""
        from engramma.systems.probing.prior_influence import miniature

        return miniature(self.kind, self.seed)

    @property
    def every(self) -> np.ndarray:
        """All answers."""
        return np.arange(self.world.letters**2)

    @property
    def likely(self) -> np.ndarray:
        """The likeliest answers."""
        return self.world.by_prior[:LIKELY]

    @property
    def rare(self) -> np.ndarray:
        """The rarest answers, in random order."""
        return np.random.default_rng(self.seed).permutation(self.world.by_prior[-RARE:])

    def items(self, answers: np.ndarray, mode: Mode = "normal") -> Items:
        """Clean prompts."""
        from engramma.systems.probing.prior_influence import miniature_items

        return miniature_items(self.world, answers, mode)

    def correct(self, answers: np.ndarray, mode: Mode = "normal") -> np.ndarray:
        """Which answers the model gives (answer,)."""
        from engramma.probing.answers import score

        return score(self.model, self.items(answers, mode)).correct

    def accuracy(self, answers: np.ndarray, mode: Mode = "normal") -> float:
        """Share of answers that it gives."""
        return float(self.correct(answers, mode).mean())

    @cached_property
    def clean(self) -> Cipher:
        """Return the same cipher, learned from clean symbols."""
        return cipher(self.seed, "clean")

    def gap(self) -> float:
        """Accuracy on likely minus on rare answers."""
        return self.accuracy(self.likely) - self.accuracy(self.rare)

    def prior_correlation(self) -> float:
        """Correlation of being right with the log prior; 0 where all are right."""
        from engramma.probing.answers import correlation

        found = correlation(self.correct(self.every).astype(float), np.log(self.world.prior))
        return float(np.nan_to_num(found))

    # -- layers and tuning -------------------------------------------------------------------

    @cached_property
    def lens(self) -> np.ndarray:
        """Correlation of the lens on the second letter with its log prior (layer + 1,)."""
        return self.lens_with(self.world.conditional_log_prior[:, 1])

    def lens_with(self, log_prior: np.ndarray) -> np.ndarray:
        """Correlation of the lens with any log prior of the second letter (layer + 1,)."""
        from engramma.systems.probing.prior_influence import layer_prior_curve

        return layer_prior_curve(self.model, self.items(self.every), log_prior).correlation

    def shuffled_lens(self) -> float:
        """Rise of the lens with a prior that belongs to other answers."""
        rng = np.random.default_rng([self.seed, 1])
        curve = self.lens_with(rng.permutation(self.world.conditional_log_prior[:, 1]))
        return float(curve[-1] - curve[0])

    @cached_property
    def tuned(self) -> dict[int, Any]:
        """The model with one block (or the head, last) tuned on some rare answers."""
        return {layer: self._tuned(layer) for layer in range(5)}

    def _tuned(self, layer: int, shuffled: bool = False) -> Any:
        from engramma.systems.probing.prior_influence import PriorInfluence, miniature_neutral

        items = self.items(self.rare[:TUNED])
        if shuffled:
            order = np.random.default_rng([self.seed, 2]).permutation(TUNED)
            items = items.answered([items.answers[n] for n in order])
        probe = PriorInfluence(self.model, neutral=miniature_neutral(self.world), seed=self.seed)
        return probe.tune([layer], items)

    @property
    def heldout(self) -> Items:
        """Rare answers that are never tuned on."""
        return self.items(self.rare[TUNED:])

    @cached_property
    def gains(self) -> np.ndarray:
        """Gain on held-out rare answers for each tuned block, and the head (5,)."""
        before = self.accuracy(self.rare[TUNED:])
        return np.array([self.tuned[n].evaluate(self.heldout) for n in range(5)]) - before

    def tuned_accuracy(self, answers: np.ndarray) -> float:
        """Accuracy on answers after tuning the best block."""
        best = int(self.gains[:4].argmax())
        return float(self.tuned[best].evaluate(self.items(answers)))

    def shuffled_gain(self) -> float:
        """Gain of the best block when answers are tuned to the prompts of others."""
        tuned = self._tuned(int(self.gains[:4].argmax()), shuffled=True)
        return float(tuned.evaluate(self.heldout) - self.accuracy(self.rare[TUNED:]))

    def shuffled_likely(self) -> float:
        """Accuracy on likely answers after tuning with shuffled answers."""
        tuned = self._tuned(int(self.gains[:4].argmax()), shuffled=True)
        return float(tuned.evaluate(self.items(self.likely)))


@lru_cache
def cipher(seed: int, kind: str = "noisy") -> Cipher:
    """One cipher a seed, shared by the claims."""
    return Cipher(seed, kind)


def learned(task: Cipher) -> tuple[bool, str]:
    """Whether the cipher was learned at all."""
    exact = task.accuracy(task.every, "exact")
    return exact > 0.9, f"in mode EXACT {exact:.2f} of the answers are right"


CLAIMS = (
    Claim(
        name="prior-hurts",
        sentence="In mode NORMAL the 40 likeliest answers are right at least 25 points more often "
        "than the 200 rarest, on clean symbols",
        source=f"{PAPER}, main result (tasks with a deterministic answer)",
        metric="share of answers that are right, decoded greedily",
        prepare=cipher,
        system=lambda task: task.accuracy(task.likely),
        baseline=lambda task: task.accuracy(task.rare),
        baseline_name="the 200 rarest answers",
        margin=0.25,
        control=Control("a model trained on clean symbols", lambda task: task.clean.gap()),
        presupposes=learned,
        seeds=3,
    ),
    Claim(
        name="errors-follow-the-prior",
        sentence="Being right correlates with the log prior by at least 0.2 in mode NORMAL",
        source=f"{PAPER}, main result",
        metric="correlation over all 400 answers",
        prepare=cipher,
        system=lambda task: task.prior_correlation(),
        baseline=lambda task: 0.0,
        baseline_name="no correlation",
        margin=0.2,
        control=Control(
            "a model trained on clean symbols", lambda task: task.clean.prior_correlation()
        ),
        presupposes=learned,
        seeds=3,
    ),
    Claim(
        name="near-the-ideal-observer",
        sentence="Which of the answers are right in mode NORMAL is what Bayes' rule gives for a "
        "noise of 0.4: the two agree on at least 85 % of the 400 answers",
        source="exact calculation from prior and noise; not in the paper",
        metric="share of answers on which model and ideal observer are right or wrong together",
        prepare=cipher,
        system=lambda task: agreement(task, "normal"),
        baseline=lambda task: 0.0,
        baseline_name="no agreement",
        margin=0.85,
        control=Control("the same model in mode EXACT", lambda task: agreement(task, "exact")),
        presupposes=learned,
        seeds=3,
    ),
    Claim(
        name="information-is-there",
        sentence="The instruction (mode EXACT) brings the 200 rarest answers at least 25 points up",
        source=f"{PAPER}, prompting",
        metric="share of the 200 rarest answers that are right",
        prepare=cipher,
        system=lambda task: task.accuracy(task.rare, "exact"),
        baseline=lambda task: task.accuracy(task.rare),
        baseline_name="the same answers in mode NORMAL",
        margin=0.25,
        control=Control(
            "a model trained on clean symbols",
            lambda task: (
                task.clean.accuracy(task.clean.rare, "exact") - task.clean.accuracy(task.clean.rare)
            ),
        ),
        presupposes=learned,
        seeds=3,
    ),
    Claim(
        name="exact-on-rare-answers",
        sentence="In mode EXACT at most 5 % of the 200 rarest answers are wrong",
        source=f"{PAPER}, prompting",
        metric="share of the 200 rarest answers that are wrong",
        prepare=cipher,
        system=lambda task: 1 - task.accuracy(task.rare, "exact"),
        baseline=lambda task: 0.0,
        baseline_name="no error",
        margin=0.05,
        direction="below",
        control=Control("mode NORMAL", lambda task: 1 - task.accuracy(task.rare)),
        seeds=3,
    ),
    Claim(
        name="prior-rises-through-layers",
        sentence="The correlation of the logit lens with the conditional log prior is at least 0.4 "
        "higher after the last block than before the first",
        source=f"{PAPER}, localisation of the prior by layer",
        metric="correlation over all 400 answers, second letter",
        prepare=cipher,
        system=lambda task: float(task.lens[-1]),
        baseline=lambda task: float(task.lens[0]),
        baseline_name="the lens on the embeddings",
        margin=0.4,
        control=Control("the priors of other answers", lambda task: task.shuffled_lens()),
        presupposes=learned,
        seeds=3,
        tried="After the last block it is 0.86 to 0.87, over 0.6 as published, but before the "
        "first already 0.33 to 0.50, where under 0.2 is asked: the head reads from the "
        "first letter's embedding which second letters are frequent. One size of model was "
        "tried.",
    ),
    Claim(
        name="tuning-frees-rare-answers",
        sentence="Tuning the best single block on 60 rare answers for 60 steps lifts 140 rare "
        "answers that were never tuned on by at least 20 points",
        source=f"{PAPER}, tuning of prior layers",
        metric="share of held-out rare answers that are right in mode NORMAL",
        prepare=cipher,
        system=lambda task: task.tuned_accuracy(task.rare[TUNED:]),
        baseline=lambda task: task.accuracy(task.rare[TUNED:]),
        baseline_name="the model before tuning",
        margin=0.2,
        control=Control("tuned with shuffled answers", lambda task: task.shuffled_gain()),
        presupposes=learned,
        seeds=3,
    ),
    Claim(
        name="tuning-keeps-likely-answers",
        sentence="After that, over 90 % of the 40 likeliest answers are right",
        source=f"{PAPER}, tuning of prior layers",
        metric="share of the 40 likeliest answers that are right in mode NORMAL",
        prepare=cipher,
        system=lambda task: task.tuned_accuracy(task.likely),
        baseline=lambda task: 0.0,
        baseline_name="none right",
        margin=0.9,
        control=Control("tuned with shuffled answers", lambda task: task.shuffled_likely()),
        presupposes=learned,
        seeds=3,
    ),
    Claim(
        name="lens-finds-the-block-to-tune",
        sentence="The block after which the lens follows the prior best is the one whose tuning "
        "gains most: it gains more than the mean of the other blocks by at least 5 points",
        source=f"{PAPER}, tuning of prior layers",
        metric="gain on held-out rare answers",
        prepare=cipher,
        system=lambda task: float(task.gains[located(task)]),
        baseline=lambda task: float(np.delete(task.gains[:4], located(task)).mean()),
        baseline_name="mean gain of the other blocks",
        margin=0.05,
        control=Control("tuned with shuffled answers", lambda task: task.shuffled_gain()),
        presupposes=learned,
        seeds=3,
        tried="The lens is best after the last block, and the last block gains least (0.30 to "
        "0.38, the others 0.43 to 0.53 on average): where the prior can be read is not "
        "where tuning helps most. Nothing was changed.",
    ),
)


def agreement(task: Cipher, mode: Mode) -> float:
    """Share of answers on which model and ideal observer are right or wrong together."""
    ideal = task.world.bayes_answers(task.every) == task.every
    return float((task.correct(task.every, mode) == ideal).mean())


def located(task: Cipher) -> int:
    """Block after which the lens correlates most with the prior."""
    return int(task.lens[1:].argmax())
