"""What Fountas et al. claim of EM-LLM, in a form that can be run.

Segmentation is checked on streams of keys and surprise whose events are known
(`engramma.worlds.event_streams.event_stream`); retrieval on facts that lie beyond the window of a
language model: a miniature that comes along, and SmolLM2. All baselines attend to as many tokens as
the system, and cut as many events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from engramma.contracts import Claim, Control
from engramma.errors import ConfigError
from engramma.memory.segmentation import (
    Measure,
    boundary_f1,
    limit_sizes,
    refine,
    similarity,
    similarity_gap,
    surprise_cuts,
)
from engramma.worlds.event_streams import (
    ASK,
    N_KEYS,
    N_VALUES,
    EventStream,
    event_stream,
    themed_stream,
)

if TYPE_CHECKING:
    from engramma.systems.sequence.em_llm import EMLLM

PAPER = "Fountas et al. 2025"

# -- segmentation --------------------------------------------------------------------------

#: Blocks of 128 tokens are judged by the 512 before; events of 8 to 128 tokens, as published.
BLOCK, WINDOW = 128, 512
SIZES = (8, 128)


@dataclass
class Segmented:
    """A stream of events, and segmentations of it."""

    seed: int

    @cached_property
    def world(self) -> EventStream:
        """Keys, surprise and true boundaries."""
        return event_stream(np.random.default_rng([self.seed, 17]))

    @property
    def n_tokens(self) -> int:
        """Tokens of the stream."""
        return len(self.world.surprise)

    def by_surprise(self, surprise: np.ndarray) -> np.ndarray:
        """First tokens of events, without the first of all."""
        cuts = surprise_cuts(surprise, block=BLOCK, window=WINDOW)
        return limit_sizes(cuts, self.n_tokens, *SIZES)[1:]

    @cached_property
    def surprise(self) -> np.ndarray:
        """Boundaries at surprises."""
        return self.by_surprise(self.world.surprise)

    @cached_property
    def shuffled(self) -> np.ndarray:
        """Boundaries at surprises, after these were shuffled over tokens."""
        rng = np.random.default_rng([self.seed, 18])
        return self.by_surprise(rng.permutation(self.world.surprise))

    def random(self, like: np.ndarray) -> np.ndarray:
        """As many boundaries, between events of the same lengths in random order."""
        lengths = np.diff([0, *like, self.n_tokens])
        return np.random.default_rng([self.seed, 19]).permutation(lengths).cumsum()[:-1]

    def fixed(self, like: np.ndarray) -> np.ndarray:
        """As many boundaries, evenly spaced; from where they lie best, which no one could know."""
        spacing = self.n_tokens / (len(like) + 1)
        first = np.arange(1, max(2, int(spacing)))
        tried = ((f + spacing * np.arange(len(like))).round().astype(int) for f in first)
        return max(tried, key=lambda cuts: self.f1(cuts, 4))

    @cached_property
    def graph(self) -> np.ndarray:
        """Similarities of all keys."""
        return similarity(self.world.keys)

    @cached_property
    def wrong_graph(self) -> np.ndarray:
        """Similarities of keys that were shuffled over tokens."""
        rng = np.random.default_rng([self.seed, 20])
        return similarity(rng.permutation(self.world.keys))

    def refined(self, cuts: np.ndarray, measure: Measure, graph: np.ndarray) -> np.ndarray:
        """Boundaries after refinement."""
        return refine(cuts, graph, measure=measure, smallest=SIZES[0])

    def f1(self, cuts: np.ndarray, tolerance: int) -> float:
        """F1 of boundaries."""
        return boundary_f1(cuts, self.world.boundaries, tolerance)

    def gap(self, cuts: np.ndarray) -> float:
        """Mean cosine of pairs of keys within events minus across."""
        return similarity_gap(self.world.keys, np.array([0, *cuts]))


def _segmentation(name: str, words: str, margin: float, rival: str, how: str) -> Claim:
    def other(task: Segmented, like: np.ndarray) -> float:
        return task.f1(getattr(task, rival)(like), 4)

    return Claim(
        name=name,
        sentence=f"Boundaries at surprises lie nearer to those of events than {words}",
        source=f"{PAPER}, section 3.2 and Table 2 (segmentation against humans, random and fixed)",
        metric="F1 of boundaries within 4 tokens",
        prepare=Segmented,
        system=lambda task: task.f1(task.surprise, 4),
        baseline=lambda task: other(task, task.surprise),
        baseline_name=f"as many {words}, {how}",
        margin=margin,
        control=Control(
            "surprise shuffled over tokens",
            lambda task: task.f1(task.shuffled, 4) - other(task, task.shuffled),
        ),
        seeds=20,
    )


def _refinement(measure: Measure, metric: str, margin: float) -> Claim:
    def score(task: Segmented, cuts: np.ndarray) -> float:
        return task.f1(cuts, 1) if metric == "f1" else task.gap(cuts)

    def gain(task: Segmented) -> float:
        wrong = task.refined(task.surprise, measure, task.wrong_graph)
        return score(task, wrong) - score(task, task.surprise)

    better = "lie nearer to those of events" if metric == "f1" else "part unlike keys better"
    return Claim(
        name=f"refinement-{metric}-{measure}",
        sentence=f"Refined by {measure}, boundaries at surprises {better}",
        source=f"{PAPER}, section 3.3 and Table 2 (refined segmentation)",
        metric="F1 of boundaries within 1 token"
        if metric == "f1"
        else "mean cosine within events minus across",
        prepare=Segmented,
        system=lambda task: score(task, task.refined(task.surprise, measure, task.graph)),
        baseline=lambda task: score(task, task.surprise),
        baseline_name="the same boundaries, not refined",
        margin=margin,
        control=Control("the graph is that of keys shuffled over tokens", gain),
        seeds=20,
    )


def refined_surprise(task: Segmented) -> float:
    """F1 of refined boundaries at surprises."""
    return task.f1(task.refined(task.surprise, "modularity", task.graph), 4)


def refined_fixed(task: Segmented) -> float:
    """F1 of as many evenly spaced boundaries, refined."""
    return task.f1(task.refined(task.fixed(task.surprise), "modularity", task.graph), 4)


# -- the same as full attention ------------------------------------------------------------


@dataclass
class Exact:
    """A language model with random weights, and a text ten windows long."""

    seed: int

    @cached_property
    def model(self) -> Any:
        """Llama of two layers."""
        from engramma.memory.language_model import small_language_model

        return small_language_model(97, seed=self.seed)

    def error(self, n_mem: int) -> float:
        """Largest difference of logits to full attention, relative to the largest logit."""
        import torch

        from engramma.memory.attention_tap import whole_attention
        from engramma.systems.sequence.em_llm import EMLLM

        memory = EMLLM(self.model, n_mem=n_mem)
        tokens = torch.from_numpy(np.random.default_rng(self.seed).integers(0, 97, 640))
        full = memory.tap.logits(tokens, whole_attention(memory.tap, memory.n_local))
        pieces = []
        for piece in tokens.split(memory.block):
            pieces.append(memory.tap.logits(piece, memory.attend))
            memory.keep(piece, pieces[-1])
        return float((torch.cat(pieces) - full).abs().max() / full.abs().max())


# -- facts beyond the window ---------------------------------------------------------------


@lru_cache(maxsize=1)
def miniature() -> EMLLM:
    """EM-LLM around its miniature, with as many tokens called up as in the window."""
    from engramma.systems.sequence.em_llm import EMLLM

    return EMLLM(n_mem=64)


class Facts:
    """A stream with facts, what a memory answers to questions about them.

    ``question`` and ``answer`` are tokens; an answer is one of ``candidates``.
    """

    questions: list[tuple[list[int], int]]
    candidates: list[int]
    stream: list[int]
    facts: list[int]

    @property
    def memory(self) -> EMLLM:
        """The system, with nothing in it."""
        raise NotImplementedError

    @cached_property
    def system(self) -> EMLLM:
        """The system, after it read the stream."""
        memory = self.memory.like()
        memory.write("stream", self.stream)
        return memory

    def accuracy(self, memory: EMLLM) -> float:
        """Share of questions whose answer gets the largest probability of all candidates."""
        choices = [[c] for c in self.candidates]
        named = [
            self.candidates[int(memory.score(question, choices).argmax())]
            for question, _ in self.questions
        ]
        return float(np.mean([n == a for n, (_, a) in zip(named, self.questions, strict=True)]))

    @cached_property
    def remembered(self) -> float:
        """Accuracy of the system."""
        return self.accuracy(self.system)

    @cached_property
    def attended(self) -> int:
        """Tokens that the system attends to beside the first ones."""
        return self.memory.n_local + self.memory.n_mem

    @cached_property
    def window(self) -> float:
        """Accuracy with first tokens and a window as large as the system's and what it calls up."""
        memory = self.memory.like(retrieval="none", n_local=self.attended)
        memory.write("stream", self.stream)
        return self.accuracy(memory)

    @cached_property
    def truncated(self) -> float:
        """Accuracy of the plain language model that is given as many tokens from the end."""
        return self._plain(self.stream[-self.attended - self.memory.n_init :])

    @cached_property
    def random(self) -> float:
        """Accuracy of the system where questions call up events at random."""
        memory = self.system
        memory.retrieval = "random"
        try:
            return self.accuracy(memory)
        finally:
            memory.retrieval = "similarity"

    @cached_property
    def within(self) -> float:
        """Accuracy of the plain language model right behind the facts, which it sees all."""
        return self._plain(self.facts)

    def _plain(self, tokens: list[int]) -> float:
        # All tokens and the question lie in the window: this is the model as it is.
        memory = self.memory.like(retrieval="none", n_local=len(tokens) + 64, block=64)
        memory.write("tokens", tokens)
        return self.accuracy(memory)

    def able(self) -> tuple[bool, str]:
        """Whether the model can answer at all."""
        return self.within >= 0.3, f"with all facts in view it names {self.within:.2f} of answers"


class MiniatureFacts(Facts):
    """Facts in themed events, of which the last lie well within the window.

    All facts are stated in the first part of the stream; the rest has none.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 23])
        first = themed_stream(rng, 240, n_facts=12, facts=0.8)
        rest = themed_stream(rng, 160, n_facts=1, facts=0.0)
        self.facts = first.tokens.tolist()
        self.stream = [*self.facts, *rest.tokens.tolist()]
        self.candidates = list(range(1 + N_KEYS, 1 + N_KEYS + N_VALUES))
        self.questions = [([ASK, key], value) for key, value in first.facts.items()]

    @property
    def memory(self) -> EMLLM:
        """EM-LLM around the miniature."""
        return miniature()


NAMES = ("Alice", "Robert", "Martha", "Oscar", "Helen", "Victor", "Julia", "Simon", "Clara")
WORDS = ("lantern", "river", "copper", "violin", "garden", "rocket", "pepper", "castle", "thunder")
WHO = ("A farmer", "A sailor", "The baker", "An old painter", "The teacher", "The postman")
DID = (
    "walked slowly to",
    "stood quietly near",
    "slept all day behind",
    "sold apples in front of",
    "talked about the weather at",
    "drew a picture of",
)
WHERE = ("market", "harbour", "library", "station", "bridge", "museum", "theatre", "orchard")
WHEN = (
    "in the morning",
    "after lunch",
    "before the rain came",
    "with a small dog",
    "without saying a word",
    "on a cold day",
)


class WrittenFacts(Facts):
    """English sentences among which each of six people is given a secret word.

    All candidates are words of the text, so that having seen them is not enough.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 29])
        names, words = (rng.permutation(list(x))[:6] for x in (NAMES, WORDS))

        def filler(n: int) -> list[str]:
            parts = ((rng.choice(x) for x in (WHO, DID, WHERE, WHEN)) for _ in range(n))
            return [f"{who} {did} the {where} {when}." for who, did, where, when in parts]

        facts = []
        for name, word in zip(names, words, strict=True):
            fact = f"The secret word of {name} is {word}. Remember it: {word} is the secret word"
            facts += [f"{fact} of {name}.", *filler(1)]
        self.facts = self._tokens(" ".join(facts))
        self.stream = [*self.facts, *self._tokens(" " + " ".join(filler(34)))]
        order = rng.permutation(len(names))
        self.candidates = [self._tokens(" " + word)[0] for word in words]
        self.questions = [
            (self._tokens(f" The secret word of {names[n]} is"), self.candidates[n]) for n in order
        ]

    @property
    def memory(self) -> EMLLM:
        """EM-LLM around SmolLM2."""
        return smollm2()

    def _tokens(self, text: str) -> list[int]:
        return list(self.memory.tokens_of(text).tolist())


@lru_cache(maxsize=1)
def smollm2() -> EMLLM:
    """EM-LLM around SmolLM2-135M, with a short window."""
    from engramma.errors import NotTestableError
    from engramma.systems.sequence.em_llm import EMLLM

    try:
        memory = EMLLM(
            "smollm2", n_local=128, n_mem=256, block=64, smallest=8, largest=32, n_init=4
        )
        memory.tap  # noqa: B018 - loads it
    except ConfigError as error:
        raise NotTestableError(f"SmolLM2 is not here: {error}") from error
    return memory


@lru_cache(maxsize=16)
def miniature_facts(seed: int) -> MiniatureFacts:
    """Facts for the miniature; claims share what was computed for them."""
    return MiniatureFacts(seed)


@lru_cache(maxsize=16)
def written_facts(seed: int) -> WrittenFacts:
    """Facts for SmolLM2; claims share what was computed for them."""
    return WrittenFacts(seed)


FEW = (
    "Six questions a seed leave a wide interval, and more do not fit a claim's time. On pilot "
    "seeds 1000 to 1002 the system gave 0.67, 0.50 and 0.50 against 0.17, where the plain model "
    "with all facts in view gave 0.33, 0.67 and 0.83: it names few more itself. With facts that "
    "are stated once (pilot seed 1001) 128 tokens called up gave 0.17, and 256 gave 0.50, as all "
    "of the text did; 1 or 16 representative tokens instead of 4 raised 0.17 to 0.33."
)


def _needle(
    name: str,
    prepare: Callable[[int], Facts],
    model: str,
    rival: str,
    words: str,
    seeds: int,
    tried: str = "",
) -> Claim:
    return Claim(
        name=name,
        sentence=f"{model} answers questions about facts beyond its window by what it calls up",
        source=f"{PAPER}, section 4 (passkey retrieval and retrieval tasks)",
        metric="accuracy",
        prepare=prepare,
        system=lambda task: task.remembered,
        baseline=lambda task: float(getattr(task, rival)),
        baseline_name=words,
        margin=0.3,
        control=Control(
            "as many tokens of events drawn at random",
            lambda task: task.random - getattr(task, rival),
        ),
        presupposes=lambda task: task.able(),
        seeds=seeds,
        tried=tried,
    )


# -- neighbours in time --------------------------------------------------------------------


@dataclass
class Neighbours:
    """Events of random keys, with cues whose answers lie in the event after.

    Each of 40 events has eight tokens, whose keys scatter about a mean. A question is the mean of
    an event, of which four others are near-copies, and the sign of its answer: one token of the
    event after carries that sign and the answer, one of 16 codes, as its value. It is none of the
    representative tokens, as nobody attended to it yet.
    """

    seed: int
    dim: int = 64

    def answers(self, contiguity: float, shuffled: bool = False) -> float:
        """Share of questions answered rightly by attention to what is retrieved.

        With ``shuffled`` events are written in random order.
        """
        import torch

        from engramma.memory.event_store import Event, EventStore

        rng = np.random.default_rng([self.seed, 31])
        n_events, size, n_codes, n_asked = 40, 8, 16, 12
        topics = rng.standard_normal((8, self.dim))
        means = topics[rng.integers(0, 8, n_events)]
        means = means + 0.5 * rng.standard_normal((n_events, self.dim))
        keys = means[:, None] + 0.9 * rng.standard_normal((n_events, size, self.dim))
        codes = rng.integers(0, n_codes, (n_events, size))
        received = rng.random((n_events, size))
        cues = rng.permutation(np.arange(0, n_events - 1, 2))[:n_asked]
        signs = rng.standard_normal((n_asked, self.dim))
        keys[cues + 1, 0] = 2 * signs
        received[cues + 1, 0] = 0.0
        order = rng.permutation(n_events) if shuffled else np.arange(n_events)
        store = EventStore(1, budget=10 * size, contiguity=contiguity)
        values = np.eye(n_codes)[codes]
        for place, n in enumerate(order):
            event = Event(place * size, tuple(range(size)))
            arrays = (keys[n][None], values[n][None], received[n][None])
            store.add(event, *([torch.from_numpy(a)] for a in arrays))
        right = []
        for cue, sign in zip(cues, signs, strict=True):
            query = torch.from_numpy(means[cue] + sign)
            k, v = store.gather(0, store.retrieve(0, query))
            weights = (k[0] @ query / self.dim**0.5).softmax(0)
            right.append(int((weights @ v[0]).argmax()) == codes[cue + 1, 0])
        return float(np.mean(right))


CLAIMS = (
    _segmentation(
        "surprise-over-random",
        "random cuts",
        0.1,
        "random",
        "between events of the same lengths in random order",
    ),
    _segmentation(
        "surprise-over-fixed", "fixed cuts", 0.08, "fixed", "evenly spaced from the best place"
    ),
    _refinement("modularity", "f1", 0.15),
    _refinement("conductance", "f1", 0.15),
    _refinement("modularity", "gap", 0.03),
    _refinement("conductance", "gap", 0.03),
    Claim(
        name="refinement-levels-surprise",
        sentence="Once refined, cuts at surprises are ahead of fixed cuts by less than 0.05: "
        "refinement makes up for what surprise adds",
        source=f"{PAPER}, section 3.3 (an ablation that the paper leaves out)",
        metric="F1 of boundaries within 4 tokens",
        prepare=Segmented,
        system=refined_surprise,
        baseline=refined_fixed,
        baseline_name="as many fixed cuts, refined",
        margin=0.05,
        direction="below",
        control=Control(
            "neither is refined",
            lambda task: task.f1(task.surprise, 4) - task.f1(task.fixed(task.surprise), 4),
        ),
        seeds=20,
    ),
    Claim(
        name="full-attention",
        sentence="With room for all events, outputs are those of full attention in which no "
        "distance counts as more than the window",
        source=f"{PAPER}, section 3.1 (what is attended to)",
        metric="largest difference of logits, relative to the largest logit",
        prepare=Exact,
        system=lambda task: task.error(10_000),
        baseline=lambda task: 0.0,
        baseline_name="full attention under the same position scheme",
        margin=1e-5,
        direction="below",
        control=Control("room for 5 % of the text", lambda task: task.error(32)),
    ),
    _needle(
        "needle-over-window",
        miniature_facts,
        "The miniature",
        "window",
        "first tokens and a window of as many tokens as the system attends to",
        10,
    ),
    _needle(
        "smollm2-over-window",
        written_facts,
        "SmolLM2",
        "window",
        "first tokens and a window of as many tokens as the system attends to",
        5,
        FEW,
    ),
    _needle(
        "smollm2-over-truncation",
        written_facts,
        "SmolLM2",
        "truncated",
        "the plain model, given as many tokens from the end of the text",
        5,
        FEW,
    ),
    Claim(
        name="contiguity",
        sentence="Neighbours in time help where the answer lies in the event after the cue",
        source=f"{PAPER}, section 3.4 and Figure 4 (contiguity buffer)",
        metric="accuracy",
        prepare=Neighbours,
        system=lambda task: task.answers(0.3),
        baseline=lambda task: task.answers(0.0),
        baseline_name="the whole budget for events like the cue",
        margin=0.1,
        control=Control(
            "events written in random order",
            lambda task: task.answers(0.3, shuffled=True) - task.answers(0.0, shuffled=True),
        ),
        seeds=10,
    ),
)
