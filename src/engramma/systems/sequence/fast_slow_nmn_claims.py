"""What is claimed of synthetic gradients in memory networks, on worlds small enough to check.

The paper's own margins could not be read; these were fixed before the claims' seeds were run.
Within a claim all variants start from the same weights and learn from the same episodes in the same
order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from engramma.contracts import Claim, Control
from engramma.memory.layer import State
from engramma.memory.synthetic_gradients import (
    SyntheticGradient,
    WindowTrainer,
    affine_gradient,
    cosines,
    true_gradients,
    windows,
)
from engramma.nn.seed import seeded
from engramma.worlds.few_shot import (
    DIGITS_TEST,
    DIGITS_TRAIN,
    DelayedCopy,
    EpisodeSource,
    FewShotEpisodes,
    ImageEpisodes,
    digits,
    split_classes,
    turned,
)

if TYPE_CHECKING:
    from engramma.systems.sequence.fast_slow_nmn import FastSlowLearner

PAPER = "Fernando et al. 2020"
TEST_EPISODES = 512


def learner(source: EpisodeSource, seed: int, **options: Any) -> FastSlowLearner:
    """Make a learner for episodes of one kind, not yet trained."""
    from engramma.systems.sequence.fast_slow_nmn import FastSlowLearner

    one = source.draw(np.random.default_rng(0), 1)
    shows = one.shown.shape[-1] > 0
    return FastSlowLearner(one.inputs.shape[-1], one.n_classes, shows=shows, seed=seed, **options)


def shuffled(seed: int) -> Callable[[State], State]:
    """Exchange predicted gradients between the sequences of a batch."""
    generator = torch.Generator().manual_seed(seed)

    def alter(predicted: State) -> State:
        batch = len(next(iter(predicted.values())))
        order = torch.randperm(batch, generator=generator)
        return {k: t[order] for k, t in predicted.items()}

    return alter


# -- exactness -----------------------------------------------------------------------------


class LinearMemory(nn.Module):
    """s = A s + B x, y = C s: fixed, and started from anywhere.

    Parameters
    ----------
    width, n_in, n_out : int
    gain : float
        Spectral norm of A.
    """

    def __init__(self, width: int = 8, n_in: int = 3, n_out: int = 4, gain: float = 0.95) -> None:
        super().__init__()
        orthogonal, _ = torch.linalg.qr(torch.randn(width, width))
        self.transition = nn.Parameter(gain * orthogonal)
        self.drive = nn.Parameter(torch.randn(width, n_in) / n_in**0.5)
        self.readout = nn.Parameter(torch.randn(n_out, width) / width**0.5)

    def initial_state(self, batch: int) -> State:
        """Draw states at random: with fixed inputs nothing else would differ."""
        return {"s": torch.randn(batch, len(self.transition)).to(self.transition)}

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map batch x token x n_in to batch x token x n_out."""
        s = (self.initial_state(len(x)) if state is None else state)["s"]
        out = []
        for u in (x @ self.drive.T).unbind(1):
            s = s @ self.transition.T + u
            out.append(s @ self.readout.T)
        return torch.stack(out, 1), {"s": s}


def summed_square(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error of every step, summed over values."""
    return (prediction - target).square().sum(-1)


@dataclass
class Linear:
    """A fixed linear memory, fixed inputs and targets, an affine predictor at every cut."""

    seed: int
    length: int = 12
    window: int = 3
    batch: int = 64
    steps: int = 400

    @cached_property
    def parts(self) -> tuple[LinearMemory, Tensor, Tensor]:
        """Memory, inputs (token x in) and targets (token x out)."""
        with seeded(self.seed):
            memory = LinearMemory()
            return memory, torch.randn(self.length, 3), torch.randn(self.length, 4)

    def predictors(self) -> list[SyntheticGradient]:
        """One affine predictor a cut, untrained."""
        cuts = len(list(windows(self.length, self.window))) - 1
        state = self.parts[0].initial_state(1)
        return [SyntheticGradient(state, hidden=0, learning_rate=0.03) for _ in range(cuts)]

    def trained(self, bootstrapped: bool = True) -> list[SyntheticGradient]:
        """Predictors after training beside the memory, whose weights stay."""
        memory, x, y = self.parts
        with seeded(self.seed + 1):
            predictors = self.predictors()
            still = torch.optim.SGD(memory.parameters(), lr=0.0)
            alter = None if bootstrapped else lambda p: {k: 0 * t for k, t in p.items()}
            trainer = WindowTrainer(
                memory,
                summed_square,
                still,
                window=self.window,
                predictor=predictors,
                alter=alter,
            )
            for step in range(self.steps):
                if step == self.steps // 2:
                    for predictor in predictors:
                        predictor.optimizer.param_groups[0]["lr"] /= 10
                trainer.sequence(x.expand(self.batch, -1, -1), y.expand(self.batch, -1, -1))
        return predictors

    def cosine(self, predict: Callable[[int, State], State]) -> float:
        """Mean cosine of ``predict(cut, state)`` to full backpropagation, on new states."""
        memory, x, y = self.parts
        with seeded(self.seed + 2):
            n = 256
            cuts = true_gradients(
                memory, summed_square, x.expand(n, -1, -1), y.expand(n, -1, -1), self.window
            )
        with torch.no_grad():
            found = [cosines(predict(cut, s), g) for cut, (s, g) in enumerate(cuts)]
        return float(torch.cat(found).mean())

    def learned(self, predictors: list[SyntheticGradient]) -> float:
        """Cosine of these predictors."""
        return self.cosine(lambda cut, state: predictors[cut](state))

    def closed_form(self) -> float:
        """Cosine of the gradient that was worked out by hand."""
        memory, x, y = self.parts

        def predict(cut: int, state: State) -> State:
            start = (cut + 1) * self.window
            with torch.no_grad():
                slope, offset = affine_gradient(
                    memory.transition, memory.readout, x[start:] @ memory.drive.T, y[start:]
                )
            return {"s": (state["s"] @ slope.T + offset) / self.length}

        return self.cosine(predict)

    def broken(self) -> float:
        """Effect of the better of an untrained predictor and one without bootstrapping."""
        untrained = self.learned(self.predictors())
        return max(untrained, self.learned(self.trained(bootstrapped=False))) - self.closed_form()


@dataclass
class WholeWindow:
    """Digits episodes, learned from with windows of several lengths."""

    seed: int
    steps: int = 4

    def weights(self, variant: str, window: int) -> Tensor:
        """All weights of the controllers after a few updates."""
        source = ImageEpisodes(digits().of(DIGITS_TRAIN), ways=3, length=12)
        net = learner(source, self.seed, variant=variant, window=window, dim=16, slots=4)
        observe(net, source, self.seed, self.steps, 8)
        return nn.utils.parameters_to_vector(net.model.parameters()).detach()

    def distance(self, variant: str, window: int) -> float:
        """Largest difference of a weight to full backpropagation."""
        return float((self.weights(variant, window) - self.weights("bptt", 12)).abs().max())


def observe(
    net: FastSlowLearner, source: EpisodeSource, seed: int, steps: int, batch: int
) -> FastSlowLearner:
    """Show a learner as many batches of new episodes."""
    from engramma.systems.sequence.fast_slow_nmn import train_learner

    return train_learner(net, source, steps=steps, batch=batch, seed=seed)


# -- credit across cuts --------------------------------------------------------------------

COPY = DelayedCopy(symbols=4, items=1, delay=8)
COPY_OPTIONS: dict[str, Any] = {"window": 2, "dim": 32, "learning_rate": 2e-3}
COPY_STEPS, COPY_BATCH = 300, 64


class PermutedLabels:
    """Delayed copy whose answers are those of other episodes."""

    def draw(self, rng: np.random.Generator, n: int) -> FewShotEpisodes:
        """Draw ``n`` episodes and exchange the answers between them."""
        episodes = COPY.draw(rng, n)
        order = rng.permutation(n)
        assert episodes.label is not None
        return FewShotEpisodes(
            episodes.inputs,
            episodes.shown,
            episodes.targets[order],
            episodes.scored,
            episodes.instance,
            episodes.n_classes,
            label=episodes.label[order],
        )


@lru_cache
def copied(seed: int, variant: str, how: str = "") -> float:
    """Accuracy of one variant on delayed copy; ``how`` may shuffle gradients or labels."""
    from engramma.systems.sequence.fast_slow_nmn import accuracy

    net = learner(COPY, seed, variant=variant, **COPY_OPTIONS)
    if how == "shuffled":
        net.trainer.alter = shuffled(seed)
    source: EpisodeSource = PermutedLabels() if how == "permuted" else COPY
    observe(net, source, seed, COPY_STEPS, COPY_BATCH)
    return accuracy(net, COPY.draw(np.random.default_rng([seed, 999_999]), TEST_EPISODES))


# -- rare data -----------------------------------------------------------------------------

RARE_OPTIONS: dict[str, Any] = {"window": 5, "dim": 64, "learning_rate": 5e-3}
RARE_STEPS, RARE_BATCH = 400, 32


@dataclass
class Rare:
    """Digits episodes, one of whose classes makes up a share of the steps."""

    seed: int
    share: float = 0.02
    ways: int = 3
    length: int = 15

    @cached_property
    def sources(self) -> tuple[ImageEpisodes, ImageEpisodes]:
        """Episodes to learn from, and of other classes to be tested with."""
        seen, unseen = split_classes(digits(), DIGITS_TRAIN, DIGITS_TEST)
        return tuple(
            ImageEpisodes(images, self.ways, self.length, rare=self.share)
            for images in (turned(seen), unseen)
        )  # type: ignore[return-value]

    @cached_property
    def tested(self) -> tuple[FewShotEpisodes, np.ndarray]:
        """Test episodes, and where the rarest class of an episode comes for the second time."""
        episodes = self.sources[1].draw(np.random.default_rng([self.seed, 999_999]), 4096)
        counts = np.stack([(episodes.targets == k).sum(1) for k in range(self.ways)], 1)
        rare = np.where(counts > 0, counts, self.length).argmin(1)
        return episodes, (episodes.instance == 2) & (episodes.targets == rare[:, None])

    def score(self, variant: str, how: str = "") -> float:
        """Accuracy at the second instance of the rare class, after as many updates."""
        net = learner(self.sources[0], self.seed, variant=variant, **RARE_OPTIONS)
        if how == "shuffled":
            net.trainer.alter = shuffled(self.seed)
        observe(net, self.sources[0], self.seed, RARE_STEPS, RARE_BATCH)
        episodes, asked = self.tested
        return float((net.predict(episodes).argmax(-1) == episodes.targets)[asked].mean())

    @cached_property
    def truncated(self) -> float:
        """Score without any gradient across cuts."""
        return self.score("tbptt")


# -- sharing -------------------------------------------------------------------------------

TEACH_STEPS, SHARE_STEPS, SHARE_EVERY, SHARE_BATCH = 60, 120, 10, 64
#: Episodes with as many labels as `COPY` has symbols, and as many steps.
UNRELATED = ImageEpisodes(digits().of(DIGITS_TRAIN), ways=4, length=9)


@dataclass
class Sharing:
    """A second network, with a predictor of its own or one that served another network.

    Both networks start from the same memory layer, so that their states mean alike, and learn from
    other episodes.
    """

    seed: int

    def taught(self, source: EpisodeSource) -> SyntheticGradient:
        """Return the predictor of a first network that learned from ``source``."""
        net = learner(source, self.seed, variant="sg", **COPY_OPTIONS)
        observe(net, source, self.seed + 500, TEACH_STEPS, SHARE_BATCH)
        assert net.predictor is not None
        return net.predictor

    def course(self, predictor: SyntheticGradient | None) -> np.ndarray:
        """Cosine of the second network's predictor as it learns: running mean of three looks."""
        options = {"variant": "sg"} if predictor is None else {"variant": "sg_shared"}
        net = learner(COPY, self.seed, predictor=predictor, **options, **COPY_OPTIONS)
        test = COPY.draw(np.random.default_rng([self.seed, 999_999]), 128)
        found = []
        for step in range(SHARE_STEPS):
            net.observe(COPY.draw(np.random.default_rng([self.seed, step]), SHARE_BATCH))
            if (step + 1) % SHARE_EVERY == 0:
                found.append(net.gradient_cosine(test))
        return np.convolve(np.nan_to_num(found), np.full(3, 1 / 3), mode="valid")

    @cached_property
    def own(self) -> np.ndarray:
        """Course of a predictor that starts from nothing."""
        return self.course(None)

    def share(self, source: EpisodeSource | None) -> float:
        """Count updates to the best level of ``own``, as a share of those that it took itself.

        Without a source: of ``own`` itself. A level that is not reached counts as one look more
        than there were.
        """
        course = self.own if source is None else self.course(self.taught(source))
        reached = np.flatnonzero(course >= self.own.max())
        first = reached[0] if len(reached) else len(course)
        return float((first + 3) / (self.own.argmax() + 3))


CLAIMS = (
    Claim(
        name="affine-is-exact",
        sentence="In a linear memory with quadratic loss an affine predictor at each cut finds the "
        "true gradient: its cosine comes within 0.02 of the closed form's",
        source="Jaderberg et al. 2017, section 2.1 (bootstrapped targets); derived in "
        "affine_gradient",
        metric="cosine between predicted and true gradient",
        prepare=Linear,
        system=lambda task: task.learned(task.trained()),
        baseline=lambda task: task.closed_form(),
        baseline_name="closed form H s + b",
        margin=0.02,
        direction="within",
        control=Control(
            "the better of an untrained predictor and one whose targets are not bootstrapped",
            lambda task: task.broken(),
        ),
        seeds=8,
    ),
    Claim(
        name="one-window-is-bptt",
        sentence="With a window as long as the episode synthetic gradients are full "
        "backpropagation, weight for weight",
        source="Jaderberg et al. 2017, section 2.1",
        metric="largest difference of a weight to full backpropagation",
        prepare=WholeWindow,
        system=lambda task: task.distance("sg", 12),
        baseline=lambda task: task.distance("bptt", 12),
        baseline_name="full backpropagation once more",
        margin=1e-9,
        direction="within",
        control=Control(
            "a window of half the episode",
            lambda task: task.distance("sg", 6) - task.distance("bptt", 12),
        ),
        seeds=3,
    ),
    Claim(
        name="credit-across-cuts",
        sentence="On delayed copy (8 steps, windows of 2) synthetic gradients beat truncation by "
        "at least 0.1 in accuracy",
        source=f"{PAPER}, abstract; Jaderberg et al. 2017, section 3.1 (copy)",
        metric="accuracy",
        prepare=lambda seed: seed,
        system=lambda seed: copied(seed, "sg"),
        baseline=lambda seed: copied(seed, "tbptt"),
        baseline_name="truncated backpropagation, same windows and updates",
        margin=0.1,
        control=Control(
            "predicted gradients shuffled between the sequences of a batch",
            lambda seed: copied(seed, "sg", "shuffled") - copied(seed, "tbptt"),
        ),
        seeds=5,
        tried="Truncation is not stopped by the cuts as assumed: one symbol survives 8 steps in an "
        "untrained recurrence, and a readout of it can be learned within a window. On pilot seeds "
        "1000 to 1002, with twice the batches, truncation reached 1.00, 0.70 and 1.00, synthetic "
        "gradients 0.76, 0.54 and 1.00. After 300 batches seed 1000 gave 0.48 against 0.24 (0.24 "
        "with shuffled predictions). Controller rates of 1e-3 and 5e-3, predictors of the same "
        "rate, and one predictor a cut were no better; a predictor that is not told the answer "
        "learned nothing in 500 batches. Shuffling does break what the predictions carry",
    ),
    Claim(
        name="bptt-is-the-limit",
        sentence="On delayed copy full backpropagation is no worse than synthetic gradients, from "
        "the same episodes (to within 0.02)",
        source="Jaderberg et al. 2017, section 3.1 (copy)",
        metric="accuracy",
        prepare=lambda seed: seed,
        system=lambda seed: copied(seed, "bptt"),
        baseline=lambda seed: copied(seed, "sg"),
        baseline_name="synthetic gradients (five updates an episode against one)",
        margin=-0.02,
        control=Control(
            "full backpropagation learns answers of other episodes",
            lambda seed: copied(seed, "bptt", "permuted") - copied(seed, "sg"),
        ),
        seeds=5,
    ),
    Claim(
        name="rare-data",
        sentence="Of a class that makes up 2 % of the steps, the second example is named more "
        "often, by at least 0.05, with synthetic gradients than with truncation",
        source=f"{PAPER}, abstract (rare data samples)",
        metric="accuracy at the second instance of the rare class",
        prepare=Rare,
        system=lambda task: task.score("sg"),
        baseline=lambda task: task.truncated,
        baseline_name="truncated backpropagation, same windows and updates",
        margin=0.05,
        control=Control(
            "predicted gradients shuffled between the sequences of a batch",
            lambda task: task.score("sg", "shuffled") - task.truncated,
        ),
        seeds=3,
        tried="Two of three seeds lie above the margin and one at zero, and for one the shuffled "
        "predictions do as well. 400 batches fill the time a claim may take, and leave both "
        "variants not far above the third that guessing gives. On pilots with 200 batches (30 "
        "steps): 0.31 against 0.47 at a rate of 2e-3 (seed 1000), 0.42 against 0.25 at 5e-3 (seed "
        "1001)",
    ),
    Claim(
        name="shared-predictor",
        sentence="A second network that takes over the first one's predictor reaches the best "
        "cosine of a predictor of its own in at most 70 % of the updates",
        source=f"{PAPER}, abstract (the feedback path can be shared among networks)",
        metric="updates to the level, as a share of those of a predictor from nothing",
        prepare=Sharing,
        system=lambda task: task.share(COPY),
        baseline=lambda task: task.share(None),
        baseline_name="a predictor of its own, from nothing",
        margin=-0.3,
        direction="below",
        control=Control(
            "the predictor comes from a network that learned to name digits",
            lambda task: task.share(UNRELATED) - task.share(None),
        ),
        seeds=4,
        tried="On one of four seeds half the updates are enough; on the others the level is not "
        "reached at all, as the second network changes faster than a predictor that starts where "
        "the first one's ended. A predictor that learned digits did better on two of them. On "
        "pilot seed 1000 the same start gave the level at the first look, and networks that start "
        "from other weights, whose states do not mean alike, never",
    ),
)
