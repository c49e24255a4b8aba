"""What is claimed of PMI, in a form that can be run in a minute.

Models are 32 wide, with four heads and four applications, normalise first, and learn for 300 steps
without dropout: at this size no one gets far with pixels, so sort-of-CLEVR is asked about lists of
objects (its state description), and stories have two people, two objects and three places.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from engramma.contracts import Claim, Control
from engramma.nn.seed import seeded
from engramma.worlds.babi import Encoded, Vocabulary, make_babi, parse_babi
from engramma.worlds.sort_of_clevr import SortOfCLEVR, make_sort_of_clevr

if TYPE_CHECKING:
    from engramma.memory.layer import MemoryLayer
    from engramma.systems.sequence.pmi import PMI

PAPER = "Zeng et al. 2023"
DIM, STEPS = 32, 300
#: Questions of a batch.
SCENES, STORIES = 64, 32
#: A Transformer of four layers with this feed-forward width has as many parameters as PMI.
FFN_OF_BASELINE = 68


def small(seed: int, **options: Any) -> PMI:
    """Return PMI as these claims train it."""
    from engramma.systems.sequence.pmi import PMI

    with seeded(seed):
        return PMI(DIM, **{"norm": "pre", "dropout": 0.0, "seed": seed, **options})


# -- the merge, without training -----------------------------------------------------------


@dataclass
class Merges:
    """Long-term memory while 50 random sets are written, in float64."""

    seed: int
    n_merges: int = 50

    def follow(self, **options: Any) -> tuple[list[float], float]:
        """Relative size of what each merge adds, and the largest entry at the end."""
        from engramma.systems.sequence.pmi import DualMemory

        layer = small(self.seed, affine=False, **options).double()
        memory = cast(DualMemory, layer.get_submodule("blocks.0.memory"))
        state = layer.initial_state(1)
        working, long_term = state["working"][:, 0], state["long_term"][:, 0]
        sizes = []
        with torch.no_grad(), seeded(self.seed):
            for _ in range(self.n_merges):
                tokens = memory.inputs(torch.randn(1, 16, DIM, dtype=torch.float64))
                written, _ = memory.write(tokens, working)
                added = memory.merged(long_term, written)
                sizes.append(float(added.norm() / long_term.norm()))
                long_term = memory.merge(long_term, written)
                working = memory.gate(tokens, working, written)
        return sizes, float(long_term.abs().max())

    def later(self, **options: Any) -> float:
        """Logarithm of the largest relative size but of the first merge."""
        return float(np.log10(max(self.follow(**options)[0][1:])))

    def largest(self, **options: Any) -> float:
        """Logarithm of the largest entry after all merges."""
        return float(np.log10(self.follow(**options)[1]))


# -- questions about scenes ----------------------------------------------------------------


@dataclass
class Scenes:
    """Binary questions about 2000 scenes to learn from, and about 1000 others."""

    seed: int
    steps: int = STEPS

    @cached_property
    def train(self) -> SortOfCLEVR:
        """Scenes to learn from."""
        return make_sort_of_clevr(2000, rng=np.random.default_rng([self.seed, 0]))

    @cached_property
    def test(self) -> SortOfCLEVR:
        """Scenes to be asked about."""
        return make_sort_of_clevr(1000, rng=np.random.default_rng([self.seed, 1]))

    def accuracy(self, layer: MemoryLayer, answers: np.ndarray | None = None) -> float:
        """Train on the binary questions (with other answers, if given) and answer new ones."""
        from engramma.memory.questions import Viewer, correct, learn

        objects = torch.from_numpy(self.train.objects())
        questions = torch.from_numpy(self.train.questions["binary"])
        told = torch.from_numpy(self.train.answers["binary"] if answers is None else answers)

        def batch(rng: np.random.Generator) -> tuple[tuple[Tensor, ...], Tensor]:
            scene = torch.from_numpy(rng.integers(0, len(objects), SCENES))
            which = torch.from_numpy(rng.integers(0, told.shape[1], SCENES))
            return (objects[scene], questions[scene, which]), told[scene, which]

        with seeded(self.seed):
            model = Viewer(layer, objects.shape[-1])
        learn(model, batch, steps=self.steps, seed=self.seed)
        asked = torch.from_numpy(self.test.questions["binary"]).flatten(0, 1)
        seen = torch.from_numpy(self.test.objects()).repeat_interleave(told.shape[1], dim=0)
        right = torch.from_numpy(self.test.answers["binary"]).flatten()
        return float(correct(model, (seen, asked), right).mean())

    def pmi(self) -> float:
        """Accuracy of the system."""
        return self.accuracy(small(self.seed))

    def transformer(self, **options: Any) -> float:
        """Accuracy of the baseline."""
        from engramma.memory.questions import Transformer

        defaults = {"blocks": 4, "ffn": FFN_OF_BASELINE, "dropout": 0.0}
        with seeded(self.seed):
            layer = Transformer(DIM, **{**defaults, **options})
        return self.accuracy(layer)

    def shuffled(self) -> float:
        """Accuracy of the system after it learned from shuffled answers."""
        told = self.train.answers["binary"].ravel()
        told = np.random.default_rng([self.seed, 2]).permutation(told)
        return self.accuracy(small(self.seed), told.reshape(self.train.answers["binary"].shape))


# -- questions about stories ---------------------------------------------------------------


@dataclass(frozen=True)
class Stories:
    """Two-fact questions about short stories."""

    seed: int
    steps: int = STEPS

    def encoded(self) -> tuple[Vocabulary, Encoded, Encoded]:
        """Vocabulary, questions to learn from, and others to be asked."""
        return _stories(self.seed)

    def accuracy(self, exchanged: bool = False, **options: Any) -> float:
        """Accuracy of PMI with these options.

        With ``exchanged``, stories of the test get each other's long-term memory.
        """
        model, right = _reader(self.seed, self.steps, tuple(sorted(options.items())))
        if not exchanged:
            return right
        from engramma.memory.questions import correct

        merged = model.get_submodule("classify.layer.blocks.0.memory.norm_merged")
        handle = merged.register_forward_hook(lambda module, given, found: found.roll(1, dims=0))
        try:
            return float(correct(model, *_asked(self.encoded()[2])).mean())
        finally:
            handle.remove()

    def untaught(self) -> float:
        """Accuracy of the whole system after it learned from shuffled answers."""
        return _reader(self.seed, self.steps, (), True)[1]


@cache
def _stories(seed: int) -> tuple[Vocabulary, Encoded, Encoded]:
    small_cast = {"n_sentences": 6, "every": 6, "n_actors": 2, "n_places": 3, "n_objects": 2}
    train, test = (
        parse_babi(make_babi(2, n, rng=np.random.default_rng([seed, part]), **small_cast))
        for part, n in enumerate((4000, 1000))
    )
    vocabulary = Vocabulary.of(train)
    return vocabulary, vocabulary.encode(train), vocabulary.encode(test)


def _asked(encoded: Encoded) -> tuple[tuple[Tensor, Tensor], Tensor]:
    story, question = torch.from_numpy(encoded.story), torch.from_numpy(encoded.question)
    return (story, question), torch.from_numpy(encoded.answer)


@cache
def _reader(
    seed: int, steps: int, options: tuple[tuple[str, Any], ...], shuffled: bool = False
) -> tuple[nn.Module, float]:
    """Train a reader; claims share what they have in common."""
    from engramma.memory.questions import StoryReader, correct, learn

    vocabulary, train, test = _stories(seed)
    (story, question), answer = _asked(train)
    if shuffled:
        answer = answer[torch.from_numpy(np.random.default_rng(seed).permutation(len(answer)))]

    def batch(rng: np.random.Generator) -> tuple[tuple[Tensor, ...], Tensor]:
        chosen = torch.from_numpy(rng.integers(0, len(answer), STORIES))
        return (story[chosen], question[chosen]), answer[chosen]

    with seeded(seed):
        layer = small(seed, **dict(options))
        model = StoryReader(layer, vocabulary.n_words, vocabulary.width, vocabulary.n_answers)
    learn(model, batch, steps=steps, seed=seed, learning_rate=5e-3)
    return model, float(correct(model, *_asked(test)).mean())


TWO_FACTS = "two-fact questions about six sentences"


def ablation(name: str, mark: str, words: str, tried: str = "", **options: Any) -> Claim:
    """State that the whole system is no worse than one of which a part is left out."""
    return Claim(
        name=name,
        sentence=f"On {TWO_FACTS} PMI is at least as accurate as {words}, within 2 points",
        source=f"{PAPER}, ablation {mark}",
        metric="accuracy",
        prepare=Stories,
        system=lambda task: task.accuracy(),
        baseline=lambda task: task.accuracy(**options),
        baseline_name=words,
        margin=-0.02,
        control=Control(
            "the whole of PMI learns from shuffled answers",
            lambda task: task.untaught() - task.accuracy(**options),
        ),
        seeds=3,
        tried=tried,
    )


def outer_over_frozen(suffix: str, where: str, tried: str, **options: Any) -> Claim:
    """State that merging outer products into long-term memory pays."""

    def effect(task: Stories, exchanged: bool) -> float:
        return task.accuracy(exchanged, merge="outer", **options)

    return Claim(
        name="outer-over-frozen" + suffix,
        sentence=f"{where} merging outer products into it gains 2 points on {TWO_FACTS}",
        source=f"{PAPER}, long-term memory",
        metric="accuracy",
        prepare=Stories,
        system=lambda task: effect(task, False),
        baseline=lambda task: task.accuracy(merge="frozen", **options),
        baseline_name="long-term memory stays as it started",
        margin=0.02,
        control=Control(
            "tested with another story's long-term memory",
            lambda task: effect(task, True) - task.accuracy(merge="frozen", **options),
        ),
        seeds=3,
        tried=tried,
    )


def code_as_frozen(suffix: str, where: str, tried: str, **options: Any) -> Claim:
    """State that the program's merge makes no difference."""
    return Claim(
        name="code-as-frozen" + suffix,
        sentence=f"{where} the program's merge is within 2 points of none on {TWO_FACTS}",
        source="engramma: it adds nothing after the first merge until gains are learned",
        metric="accuracy",
        prepare=Stories,
        system=lambda task: task.accuracy(**options),
        baseline=lambda task: task.accuracy(merge="frozen", **options),
        baseline_name="long-term memory stays as it started",
        margin=0.02,
        direction="within",
        control=Control(
            "outer products are merged",
            lambda task: (
                task.accuracy(merge="outer", **options) - task.accuracy(merge="frozen", **options)
            ),
        ),
        seeds=3,
        tried=tried,
    )


WHOLE = "With long-term memory as a part of the whole,"
ALONE = "With long-term memory read alone,"

CLAIMS = (
    Claim(
        name="code-merge-vanishes",
        sentence="With affine-free normalisation the program's merge adds nothing after the first",
        source="engramma: every row of long-term memory then sums to zero",
        metric="logarithm of the largest relative size of what a merge adds, merges 2 to 50",
        prepare=Merges,
        system=lambda task: task.later(merge="code"),
        baseline=lambda task: float(np.log10(task.follow(merge="code")[0][0])),
        baseline_name="the first merge",
        margin=-6.0,
        direction="below",
        control=Control(
            "the outer product is merged",
            lambda task: (
                task.later(merge="outer") - float(np.log10(task.follow(merge="outer")[0][0]))
            ),
        ),
    ),
    Claim(
        name="long-term-memory-bounded",
        sentence="Normalised, no entry of long-term memory exceeds the root of the width after 50 "
        "merges",
        source="engramma: a normalised row has norm at most the root of its width",
        metric="logarithm of the largest entry",
        prepare=Merges,
        system=lambda task: task.largest(merge="outer"),
        baseline=lambda task: 0.5 * float(np.log10(DIM)),
        baseline_name="the root of the width",
        margin=0.0,
        direction="below",
        control=Control(
            "the merge is not normalised",
            lambda task: task.largest(merge="outer", normalise=False) - 0.5 * np.log10(DIM),
        ),
    ),
    Claim(
        name="over-transformer",
        sentence="After 2000 scenes PMI answers binary questions better than a Transformer of "
        "equal parameters, by 3 points or more",
        source=f"{PAPER}, sort-of-CLEVR",
        metric="accuracy",
        prepare=Scenes,
        system=lambda task: task.pmi(),
        baseline=lambda task: task.transformer(),
        baseline_name="four Transformer layers of the same width, heads and parameters",
        margin=0.03,
        control=Control(
            "PMI learns from shuffled answers",
            lambda task: task.shuffled(),
            expect="chance",
            # Shapes are a third of the answers each; nothing better can be learned.
            chance=1 / 3,
            tolerance=0.05,
        ),
        seeds=3,
        tried="Both learn about as much from 2000 scenes (0.67 to 0.70), far above the third that "
        "shapes alone give; the published 9800 scenes and 200 epochs do not fit a claim's time.",
    ),
    ablation(
        "sharing",
        "w/o1",
        "with blocks and memories of their own",
        tried="0.62, 0.61 and 0.64 against 0.69, 0.59 and 0.66: seeds differ by more.",
        shared=False,
    ),
    ablation("correction", "w/o2", "without correction by working memory", read="direct"),
    ablation(
        "working-memory",
        "w/o3",
        "from long-term memory alone",
        tried="A point better on average; the interval reaches 0.2 points beyond the margin.",
        read="long-term",
    ),
    outer_over_frozen(
        "",
        WHOLE,
        "A third of a point on average: where working memory is read too, long-term memory is "
        "hardly needed for stories of six sentences.",
    ),
    code_as_frozen(
        "",
        WHOLE,
        "One point below none, so within the margin; but its control, the outer product, is "
        "within it too (see outer-over-frozen).",
    ),
    outer_over_frozen(
        "-alone",
        ALONE,
        "The gain is there on each seed (25 to 29 points). The control takes it away, but its "
        "interval over three seeds reaches the margin.",
        read="long-term",
    ),
    code_as_frozen(
        "-alone",
        ALONE,
        "Expected to hold and does not: the program's normalisation has learned gains, with which "
        "rows no longer sum to zero, and its merge then does what outer products do.",
        read="long-term",
    ),
)
