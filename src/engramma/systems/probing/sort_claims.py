"""What Pink et al. claim of memory for order, in a form that can be run.

A transformer of two layers that learns to answer questions about order in place, a store of
passages, the builder of questions, and the real SmolLM2-135M-Instruct.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from engramma.contracts import Claim, Control
from engramma.memory.language_model import small_language_model
from engramma.probing.model import LanguageModel
from engramma.probing.order_questions import OrderItem, build_order_questions
from engramma.probing.order_streams import (
    N_TOKENS,
    WORDS,
    OrderStreams,
    order_streams,
)
from engramma.probing.training import train_language_model
from engramma.worlds.stories import stories

if TYPE_CHECKING:
    from engramma.systems.probing.sort import Context, SequenceOrderRecall

PAPER = "Pink et al. 2024"
#: Streams whose answers are scored.
STREAMS = 500
#: Distances that are near, at most, and far, at least.
NEAR, FAR = 2, 6
#: Texts that are learned by heart: excerpts of ten tokens, no token in two of them.
LEARNED = (WORDS[1] - WORDS[0]) // 10


def probe() -> SequenceOrderRecall:
    """Return the system; it imports this module, hence not at the top."""
    from engramma.systems.probing.sort import SequenceOrderRecall

    return SequenceOrderRecall()


@cache
def trained(seed: int) -> Any:
    """Network that has learned to answer, with the excerpt before it."""
    network = small_language_model(N_TOKENS, dim=64, layers=2, heads=4, seed=seed)

    def batch(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        streams = order_streams(rng, 48)
        return streams.tokens, streams.weights()

    train_language_model(
        network, batch, steps=1000, rate=5e-3, warm_up=30, seed=seed, description="order"
    )
    return network.requires_grad_(False)


@torch.no_grad()
def answers(network: Any, streams: OrderStreams) -> np.ndarray:
    """Whether, of the two that are asked for, the right one is likelier; stream x question."""
    logits = network(input_ids=streams.tokens, use_cache=False).logits[:, streams.places - 1]
    a, b, answer = (streams.tokens[:, streams.places - back, None] for back in (3, 2, 0))
    likelier = torch.where(logits.gather(2, a) >= logits.gather(2, b), a, b)
    right: np.ndarray = (likelier == answer)[..., 0].numpy()
    return right


@dataclass
class Order:
    """A network that answers questions about order, and new streams."""

    seed: int

    def streams(self, hide: bool = False) -> OrderStreams:
        """Return new streams, with the excerpt or another one before the questions."""
        return order_streams(np.random.default_rng([self.seed, 1]), STREAMS, hide=hide)

    def accuracy(self, hide: bool = False) -> float:
        """Share of right answers."""
        return float(answers(trained(self.seed), self.streams(hide)).mean())

    def at(self, near: bool, hide: bool = False) -> float:
        """Share of right answers about near or far tokens."""
        streams = self.streams(hide)
        distance = streams.distance.numpy()
        chosen = distance <= NEAR if near else distance >= FAR
        return float(answers(trained(self.seed), streams)[chosen].mean())

    @cached_property
    def texts(self) -> np.ndarray:
        """Texts to be learned by heart."""
        rng = np.random.default_rng([self.seed, 2])
        return rng.permutation(np.arange(*WORDS)).reshape(LEARNED, -1)

    @cached_property
    def reader(self) -> Any:
        """Return the network after it has learned the texts by heart.

        Questions about other excerpts are mixed in, as in the paper, so that it goes on answering.
        """
        network = copy.deepcopy(trained(self.seed)).requires_grad_(True)
        texts = torch.from_numpy(self.texts).repeat(6, 1)

        def batch(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
            streams = order_streams(rng, 24)
            room = (0, streams.tokens.shape[1] - texts.shape[1])
            plain, counts = pad(texts, room), pad(torch.ones(texts.shape), room)
            return torch.cat([plain, streams.tokens]), torch.cat([counts, streams.weights()])

        train_language_model(
            network,
            batch,
            steps=150,
            rate=1e-3,
            warm_up=10,
            seed=self.seed,
            description="reading",
        )
        return network.requires_grad_(False)

    def by_heart(self) -> tuple[bool, str]:
        """Whether each token of the texts is predicted from those before it."""
        tokens, reader = torch.from_numpy(self.texts), self.reader
        with torch.no_grad():
            named = reader(input_ids=tokens).logits[:, :-1].argmax(-1)
        share = float((named == tokens[:, 1:]).float().mean())
        return share >= 0.9, f"{share:.0%} of the texts were learned by heart, and not 90 %"

    def after_reading(self, hide: bool) -> float:
        """Share of right answers about the texts learned by heart."""
        rng = np.random.default_rng([self.seed, 3])
        excerpts = self.texts[rng.integers(0, LEARNED, STREAMS)]
        streams = order_streams(rng, STREAMS, excerpts=excerpts, hide=hide)
        return float(answers(self.reader, streams).mean())


@dataclass
class InStory:
    """Questions about a generated story."""

    seed: int

    @cached_property
    def questions(self) -> Any:
        """Return questions from 20 excerpts of 250 words."""
        text = stories(self.seed, n_sentences=600).text
        return build_order_questions(
            {"a story": text}, n=20, rng=np.random.default_rng([self.seed, 4])
        )

    def looked_up(self, positions: bool) -> float:
        """Accuracy of a store of passages."""
        system = probe()
        store = system.remember(self.questions, positions=positions)
        return float(system.ask(store, self.questions.items())["correct"].mean())

    def imbalance(self, flips: bool = False) -> float:
        """Largest distance from one half of the share that is shown first, over bins."""
        table = self.questions.segments.assign()
        if flips:
            rng = np.random.default_rng([self.seed, 5])
            table["present_seg1_first"] = rng.integers(0, 2, len(table))
        share = table.groupby("distance_bin")["present_seg1_first"].mean()
        return float((share - 0.5).abs().max())

    # -- SmolLM2 ---------------------------------------------------------------------------

    def smollm2(
        self,
        context: Context,
        change: Callable[[OrderItem, np.random.Generator], OrderItem] | None = None,
    ) -> float:
        """Accuracy of SmolLM2 in twelve questions, about three of the excerpts."""
        rng = np.random.default_rng([self.seed, 6])
        items = self.questions.items(0, 3)
        items = items if change is None else [change(item, rng) for item in items]
        return float(probe().ask(_smollm2(), items, context)["correct"].mean())

    def in_another_order(self) -> float:
        """Accuracy of SmolLM2 when the sentences of the excerpt are shuffled."""
        from engramma.systems.probing.sort import shuffled

        return self.smollm2("excerpt", shuffled)

    @cached_property
    def without_text(self) -> float:
        """Accuracy of SmolLM2 from the segments alone."""
        return self.smollm2("none")


@cache
def _smollm2() -> LanguageModel:
    return LanguageModel.load("smollm2")


CLAIMS = (
    Claim(
        name="in-context",
        sentence="With the excerpt before it, a transformer of two layers answers at least 95 % of "
        "questions about order",
        source=f"{PAPER}, section 4 (in-context memory)",
        metric="share of right answers",
        prepare=Order,
        system=lambda task: task.accuracy(),
        baseline=lambda task: 0.0,
        baseline_name="none",
        margin=0.95,
        control=Control(
            "another excerpt before the questions",
            lambda task: task.accuracy(hide=True),
            expect="chance",
            chance=0.5,
            tolerance=0.05,
        ),
        seeds=3,
        tried="Learned too slowly for certainty: after 1000 steps at a rate of 5e-3 95, 96 and "
        "94 % are right (92 % after 700; at 3e-3 73 % after 250).",
    ),
    Claim(
        name="near-is-harder",
        sentence="Tokens that are one or two apart are answered at least 1 point worse than those "
        "six or more apart",
        source=f"{PAPER}, section 4 (distance between segments)",
        metric="share of right answers",
        prepare=Order,
        system=lambda task: task.at(near=True),
        baseline=lambda task: task.at(near=False),
        baseline_name="distant tokens",
        margin=-0.01,
        direction="below",
        control=Control(
            "another excerpt before the questions: far is no easier then",
            lambda task: task.at(near=True, hide=True) - task.at(near=False, hide=True),
        ),
        seeds=3,
        tried="Near tokens are answered 11 to 15 points worse (distant ones all rightly); without "
        "the excerpt the difference is 1 point, with an interval of 7 to either side.",
    ),
    Claim(
        name="not-from-reading-alone",
        sentence="Texts learned by heart, without any question about them, do not answer questions "
        "about their order: at most 60 % are right without the excerpt",
        source=f"{PAPER}, section 4 (parametric memory stays near chance)",
        metric="share of right answers",
        prepare=Order,
        system=lambda task: task.after_reading(hide=True),
        baseline=lambda task: 0.0,
        baseline_name="none",
        margin=0.6,
        direction="below",
        control=Control(
            "the same network with the excerpt before the questions",
            lambda task: task.after_reading(hide=False),
        ),
        presupposes=Order.by_heart,
        seeds=3,
        tried="At first the network forgot how to answer while it read (0.24 without the "
        "excerpt, its control 0.33), and the claim failed; since then questions about "
        "other excerpts are mixed in, as the paper mixes in instructions.",
    ),
    Claim(
        name="store-with-positions",
        sentence="A store of passages with their positions answers everything",
        source=f"{PAPER}, section 4 (retrieval, order of passages kept)",
        metric="share of right answers",
        prepare=InStory,
        system=lambda task: task.looked_up(positions=True),
        baseline=lambda task: 1.0,
        baseline_name="all right",
        margin=1e-9,
        direction="within",
        control=Control("positions dropped", lambda task: task.looked_up(positions=False) - 1.0),
        seeds=3,
    ),
    Claim(
        name="store-without-positions",
        sentence="Without positions the same store answers exactly half",
        source=f"{PAPER}, section 4 (retrieval)",
        metric="share of right answers",
        prepare=InStory,
        system=lambda task: task.looked_up(positions=False),
        baseline=lambda task: 0.5,
        baseline_name="chance",
        margin=1e-9,
        direction="within",
        control=Control("positions kept", lambda task: task.looked_up(positions=True) - 0.5),
        seeds=3,
    ),
    Claim(
        name="balanced",
        sentence="In each bin exactly half of the first segments are shown first",
        source=f"{PAPER}, section 3",
        metric="largest distance of the share from one half",
        prepare=InStory,
        system=InStory.imbalance,
        baseline=lambda task: 0.0,
        baseline_name="exact balance",
        margin=1e-9,
        direction="below",
        control=Control("coins are flipped instead", lambda task: task.imbalance(flips=True)),
    ),
    Claim(
        name="smollm2-in-context",
        sentence="SmolLM2-135M answers at least 10 points more questions with the excerpt than "
        "without",
        source=f"{PAPER}, section 4, in a model of 135 million parameters",
        metric="share of right answers",
        prepare=InStory,
        system=lambda task: task.smollm2("excerpt"),
        baseline=lambda task: task.without_text,
        baseline_name="the segments alone",
        margin=0.1,
        control=Control(
            "sentences of the excerpt in another order",
            lambda task: task.in_another_order() - task.without_text,
        ),
        seeds=3,
        tried="Of 36 questions 61 % are answered rightly in context and 50 % without text, but "
        "also 61 % when the sentences of the excerpt are shuffled: nothing speaks for memory of "
        "order in a model of this size. More questions do not fit into the time of a claim.",
    ),
)
