"""What Orhan claims of few-shot memories, on small models of bigram languages.

Models were pretrained once, three languages; study, tests and interference are done when a claim is
checked, and shared by the claims of a process.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from engramma.contracts import Claim, Control

if TYPE_CHECKING:
    from engramma.probing.bigrams import BigramLanguage
    from engramma.systems.probing.few_shot_memories import FewShotMemories, Retention

PAPER = "Orhan 2023, arXiv:2303.17557"
STUDIED, ROWS = 100, 4
#: Sets of foils that recognition is averaged over.
FOIL_SETS = 4
#: Rate of study: the better of 1e-3 and 2e-3 (the paper reports the best of its grid); and the one
#: at which strings of random words are compared.
RATE, SLOW_RATE = 2e-3, 3e-4
STEPS = (10, 30, 100)


@dataclass(frozen=True)
class Study:
    """One language, its pretrained model, and a study set of it.

    Parameters
    ----------
    seed : int
    rate : float
    kind : int
        Number of the experiment that study set and foils are made like.
    trained : bool
        Whether the model was pretrained.
    """

    seed: int
    rate: float = RATE
    kind: int = 1
    trained: bool = True

    @property
    def language(self) -> BigramLanguage:
        """What the model was pretrained on."""
        from engramma.probing.bigrams import BigramLanguage

        return BigramLanguage(seed=self.seed)

    @cached_property
    def studied(self) -> np.ndarray:
        """Study set."""
        from engramma.probing.bigrams import experiment

        rng = np.random.default_rng([self.seed, 1])
        return experiment(self.kind, self.language, STUDIED, rng=rng)[0]

    @cached_property
    def foils(self) -> list[np.ndarray]:
        """Sets of aligned foils."""
        from engramma.probing.bigrams import experiment, one_synonym

        rng, language = np.random.default_rng([self.seed, 4]), self.language
        if self.kind != 3:  # foils do not depend on the study set
            return [experiment(self.kind, language, STUDIED, rng=rng)[1] for _ in range(FOIL_SETS)]
        rows = self.studied.tolist()
        return [
            np.array([one_synonym(row, language.synonyms, rng=rng) for row in rows])
            for _ in range(FOIL_SETS)
        ]

    @cached_property
    def unstudied(self) -> np.ndarray:
        """Sentences that are neither studied nor foils."""
        return self.language.sample(STUDIED, rng=np.random.default_rng([self.seed, 2]))

    @cached_property
    def stream(self) -> np.ndarray:
        """Sentences that interfere."""
        n = ROWS * max(STEPS)
        return self.language.sample(n, rng=np.random.default_rng([self.seed, 3]))

    def memory(self, rate: float) -> FewShotMemories:
        """Return a memory that has studied nothing."""
        from engramma.systems.probing.few_shot_memories import FewShotMemories, miniature

        model = miniature(self.seed, trained=self.trained)
        return FewShotMemories(model, rate=rate, rows=ROWS, seed=self.seed)

    def after(self, exposures: int) -> FewShotMemories:
        """Return a memory after so many exposures."""
        return _after(self, exposures)

    def recognition(self, exposures: int) -> float:
        """Share of the study set that is recognised."""
        return self._preferred(self.studied, exposures)

    def recognition_of_unstudied(self, exposures: int) -> float:
        """Share of sentences never seen that are less surprising than the foils."""
        return self._preferred(self.unstudied, exposures)

    def _preferred(self, sentences: np.ndarray, exposures: int) -> float:
        memory = self.after(exposures)
        return float(np.mean([memory.recognise(sentences, foils) for foils in self.foils]))

    def recall(self, exposures: int) -> float:
        """Share of tokens of the second halves that are recalled in place."""
        return float(self.after(exposures).recalled(self.studied).matched.mean())

    @cached_property
    def retained(self) -> Retention:
        """Both tests over interference, after eight exposures."""
        return self._retention(self.studied)

    @cached_property
    def retained_of_unstudied(self) -> Retention:
        """The same of sentences that were not studied."""
        return self._retention(self.unstudied)

    def recall_of_unstudied(self, exposures: int) -> float:
        """Share of tokens of sentences never seen that are right in place."""
        return float(self.after(exposures).recalled(self.unstudied).matched.mean())

    def _retention(self, sentences: np.ndarray) -> Retention:
        from engramma.systems.probing.few_shot_memories import FewShotMemories

        memory = FewShotMemories(self.after(8).model, rate=self.rate, rows=ROWS, seed=self.seed)
        return memory.retention(sentences, self.foils[0], self.stream, STEPS)


@lru_cache
def study(seed: int, rate: float = RATE, kind: int = 1, trained: bool = True) -> Study:
    """One study a seed and setting, shared by the claims."""
    return Study(seed, rate, kind, trained)


@lru_cache
def _after(task: Study, exposures: int) -> Any:
    memory = task.memory(task.rate)
    if exposures:
        memory.write(task.studied, exposures)
    return memory


def unbiased(task: Study) -> tuple[bool, str]:
    """Whether study set and foils are alike before study."""
    share = task.recognition(0)
    return abs(share - 0.5) <= 0.1, f"before study {share:.2f} are preferred to their foils"


def knows_its_language(task: Study) -> tuple[bool, str]:
    """Whether pretraining has worked: sentences surprise it little more than they must."""
    surprisal = float(task.after(0).surprisal(task.unstudied).mean())
    entropy = float(-task.language.log_probability(task.unstudied).mean())
    good = surprisal < entropy + 0.5
    return good, f"surprisal {surprisal:.2f} nats a word, entropy {entropy:.2f}"


def early_loss(kept: Retention) -> float:
    """Recall that is lost in the first 30 updates."""
    return kept.recalled[0] - kept.recalled[2]


def half_of_loss(kept: Retention) -> float:
    """Half of the recall that is lost in all updates."""
    return (kept.recalled[0] - kept.recalled[-1]) / 2


def least_lead(recognised: list[float], recalled: list[float], chance: float) -> float:
    """Least lead of recognition over recall after interference, both as shares above chance."""
    leads = [
        (2 * seen - 1) - (kept - chance) / (1 - chance)
        for seen, kept in zip(recognised[1:], recalled[1:], strict=True)
    ]
    return min(leads)


def structure(seed: int, trained: bool = True) -> float:
    """Recall of sentences minus that of random strings, after eight exposures at a low rate."""
    sentences, strings = (study(seed, SLOW_RATE, kind, trained).recall(8) for kind in (1, 4))
    return sentences - strings


CLAIMS = (
    Claim(
        name="recognition-after-one-exposure",
        sentence="Sentences seen once are told from other sentences: 40 points more often than "
        "before study",
        source=f"{PAPER}, experiment 1",
        metric="share of studied sentences that surprise less than their foil",
        prepare=study,
        system=lambda task: task.recognition(1),
        baseline=lambda task: task.recognition(0),
        baseline_name="the same model before study",
        margin=0.4,
        control=Control(
            "sentences that were not studied stand in for those that were",
            lambda task: task.recognition_of_unstudied(1) - task.recognition_of_unstudied(0),
        ),
        presupposes=unbiased,
        seeds=3,
        tried="Rates of 1e-3 (0.86 to 0.88 after one exposure) and 2e-3 (0.90 to 0.93, used "
        "here); the effect is there in each language, its interval reaches just below the "
        "margin.",
    ),
    Claim(
        name="recognition-is-nearly-perfect",
        sentence="At most 10 % of sentences seen once are not recognised",
        source=f"{PAPER}, experiment 1",
        metric="share of studied sentences that surprise more than their foil",
        prepare=study,
        system=lambda task: 1 - task.recognition(1),
        baseline=lambda task: 0.0,
        baseline_name="no error",
        margin=0.1,
        direction="below",
        control=Control(
            "sentences that were not studied stand in for those that were",
            lambda task: 1 - task.recognition_of_unstudied(1),
        ),
        presupposes=unbiased,
        seeds=3,
        tried="Rates of 1e-3 (12 to 14 % missed) and 2e-3 (7 to 10 %, used here). The model is "
        "smaller than the one the margin comes from (d = 96 instead of 128).",
    ),
    Claim(
        name="recognition-beside-one-synonym",
        sentence="At most 10 % are not recognised beside themselves with one word replaced by its "
        "synonym",
        source=f"{PAPER}, experiment 3",
        metric="share of studied sentences that surprise more than their foil",
        prepare=lambda seed: study(seed, kind=3),
        system=lambda task: 1 - task.recognition(1),
        baseline=lambda task: 0.0,
        baseline_name="no error",
        margin=0.1,
        direction="below",
        control=Control("before study", lambda task: 1 - task.recognition(0)),
        presupposes=unbiased,
        seeds=3,
        tried="A rate of 1e-3 with one set of foils: not testable, as in one language 0.39 were "
        "preferred before study; hence four sets. A rate of 2e-3: 26 to 28 % are missed after "
        "one exposure. Here a synonym has the "
        "same neighbours as the word it stands for, so that only that one word tells the "
        "two apart.",
    ),
    Claim(
        name="recall-needs-repetition",
        sentence="Recall after eight exposures is at least 50 points above that after one",
        source=f"{PAPER}, recall (large models need three exposures)",
        metric="share of the second half's tokens in place, decoded greedily",
        prepare=study,
        system=lambda task: task.recall(8),
        baseline=lambda task: task.recall(1),
        baseline_name="one exposure",
        margin=0.5,
        control=Control(
            "sentences that were not studied",
            lambda task: task.recall_of_unstudied(8) - task.recall_of_unstudied(1),
        ),
        presupposes=knows_its_language,
        seeds=3,
    ),
    Claim(
        name="recall-after-one-exposure-is-poor",
        sentence="Where nearly all is recognised, after one exposure, less than 30 % is recalled",
        source=f"{PAPER}, recall",
        metric="share of the second half's tokens in place, decoded greedily",
        prepare=study,
        system=lambda task: task.recall(1),
        baseline=lambda task: 0.0,
        baseline_name="nothing recalled",
        margin=0.3,
        direction="below",
        control=Control("eight exposures", lambda task: task.recall(8)),
        presupposes=knows_its_language,
        seeds=3,
    ),
    Claim(
        name="forgetting-is-steep-first",
        sentence="Of the recall that 100 updates on other sentences destroy, the first 30 destroy "
        "more than half",
        source=f"{PAPER}, retention",
        metric="loss of recall (share of tokens)",
        prepare=study,
        system=lambda task: early_loss(task.retained),
        baseline=lambda task: half_of_loss(task.retained),
        baseline_name="half of the loss in 100 updates",
        margin=0.05,
        control=Control(
            "sentences that were not studied",
            lambda task: (
                early_loss(task.retained_of_unstudied) - half_of_loss(task.retained_of_unstudied)
            ),
        ),
        presupposes=lambda task: (
            task.recall(8) > 0.5,
            f"after eight exposures {task.recall(8):.2f} is recalled",
        ),
        seeds=3,
    ),
    Claim(
        name="recognition-outlasts-recall",
        sentence="After 10, 30 and 100 updates recognition lies further above chance than recall, "
        "by at least 5 points",
        source=f"{PAPER}, retention",
        metric="least lead over the steps (share above chance)",
        prepare=study,
        system=lambda task: least_lead(
            task.retained.recognised, task.retained.recalled, task.recall(0)
        ),
        baseline=lambda task: 0.0,
        baseline_name="no lead",
        margin=0.05,
        control=Control(
            "nothing was studied",
            lambda task: least_lead(
                [task.recognition_of_unstudied(0)] * 2, [task.recall(0)] * 2, task.recall(0)
            ),
        ),
        seeds=3,
        tried="The effect is far above the margin; the control is noisy, as languages differ in "
        "how much 100 sentences surprise beside their foils.",
    ),
    Claim(
        name="structure-helps-recall",
        sentence="Sentences of the language are recalled better than strings of random words, by "
        "at least 10 points",
        source=f"{PAPER}, experiments 1 and 4",
        metric="share of the second half's tokens in place, eight exposures at a rate of 3e-4",
        prepare=lambda seed: study(seed, SLOW_RATE),
        system=lambda task: task.recall(8),
        baseline=lambda task: study(task.seed, SLOW_RATE, 4).recall(8),
        baseline_name="strings of random words",
        margin=0.1,
        control=Control(
            "a model that was not pretrained", lambda task: structure(task.seed, trained=False)
        ),
        presupposes=knows_its_language,
        seeds=3,
        tried="After eight exposures at a rate of 3e-4 recall is 0.05 to 0.07 of sentences and "
        "0.01 of random strings: the ratio is as published, the level is too low for a "
        "difference of 10 points.",
    ),
)
