"""What is claimed of Synaptic Resonance: exactness, bounds, recall, and what relevance adds.

The trained claims share one task and one set of models. Two topics appear one after the other, each
in a burst in which its two keys recur with their values; fillers lie between, and a share of all
these tokens is replaced by fillers. Then each key is asked for, so late that neither the window of
the layer nor that of the equal-state baseline reaches back through both blocks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from engramma.contracts import Claim, Control
from engramma.nn.seed import seeded
from engramma.worlds.streams import IGNORED, TokenStream

if TYPE_CHECKING:
    from engramma.memory.model import SequenceModel
    from engramma.systems.sequence.synaptic_resonance import SynapticResonance

PAPER = "Applegarth et al. 2025, abstract; the method is a reconstruction"
NOTHING = "0 (exact agreement)"

# -- exactness and growth --------------------------------------------------------------------


def random_layer(seed: int, **options: Any) -> SynapticResonance:
    """Two heads of 8 with random weights, in float64."""
    from engramma.systems.sequence.synaptic_resonance import SynapticResonance

    with seeded(seed):
        layer = SynapticResonance(16, 2, **options).double().eval()
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.4)
    return layer


def draws(seed: int, length: int) -> Tensor:
    """Two sequences of independent tokens."""
    return torch.as_tensor(np.random.default_rng(seed).standard_normal((2, length, 16)))


@torch.no_grad()
def disagreement(
    seed: int, change: Callable[[SynapticResonance], Any] = lambda layer: layer
) -> float:
    """Largest difference of the step form from one pass, chunks and splits, by either rule."""
    errors, x = [], draws(seed, 75)
    for rule in ("hebb", "oja"):
        layer = random_layer(seed, rule=rule)
        steps, _ = layer.run(x)
        other = random_layer(seed, rule=rule, chunk=7)
        change(other)
        first, state = other(x[:, :22])
        second, _ = other(x[:, 22:], state)
        for y in (other(x)[0], torch.cat([first, second], 1)):
            errors.append(float((y - steps).abs().max()))
    return max(errors)


def sees_itself(layer: SynapticResonance) -> None:
    """Judge a token by the context that holds it already."""
    contexts = layer._contexts

    def later(k: Tensor, state: Any) -> tuple[Tensor, Tensor]:
        before, last = contexts(k, state)
        return torch.cat([before[:, :, 1:], last.unsqueeze(2)], 2), last

    layer._contexts = later  # type: ignore[method-assign]


@torch.no_grad()
def growth(seed: int, rule: str) -> float:
    """Size of S after 100,000 tokens over that after 1000, when nothing decays."""
    layer = random_layer(seed, rule=rule, decay=1 - 1e-12)
    x, state, sizes = draws(seed, 1000), None, []
    for piece in range(100):
        _, state = layer(x.roll(piece, 1), state)
        sizes.append(float(state["memory"].flatten(1).norm(dim=1).max()))
    return sizes[-1] / sizes[0]


# -- a task that comes in bursts -------------------------------------------------------------

N_KEYS, N_VALUES, N_FILLERS = 8, 8, 8
#: Share of corrupted tokens in training, up to.
CORRUPTION = 0.3


def burst_stream(
    rng: np.random.Generator, batch: int, corruption: float, *, pairs: int = 3, gap: int = 24
) -> TokenStream:
    """Two topics in bursts, fillers between, and a query for each of their four keys."""
    rows = np.arange(batch)[:, None]
    keys = np.argsort(rng.random((batch, N_KEYS)), axis=1)[:, :4]
    values = N_KEYS + rng.integers(N_VALUES, size=(batch, 4))

    def fillers(n: int) -> np.ndarray:
        return N_KEYS + N_VALUES + rng.integers(N_FILLERS, size=(batch, n))

    parts = []
    for topic in (0, 2):
        # Both keys once, then either of them again; in random order.
        which = np.concatenate(
            [np.tile([0, 1], (batch, 1)), rng.integers(2, size=(batch, pairs - 2))], axis=1
        )
        which = topic + rng.permuted(which, axis=1)
        burst = np.stack([keys[rows, which], values[rows, which]], axis=2).reshape(batch, -1)
        parts += [burst, fillers(8 if topic == 0 else gap)]
    body = np.concatenate(parts, axis=1)
    spoilt = rng.random(body.shape) < corruption
    body = np.where(spoilt, fillers(body.shape[1]), body)
    asked = np.argsort(rng.random((batch, 4)), axis=1)
    tail = np.stack([keys[rows, asked], values[rows, asked]], axis=2).reshape(batch, -1)
    tokens = np.concatenate([body, tail], axis=1)
    targets = np.full_like(tokens, IGNORED)
    where = body.shape[1] + 2 * np.arange(4)
    targets[:, where] = values[rows, asked]
    distance = np.where(targets == IGNORED, -1, gap)  # at least
    vocabulary = N_KEYS + N_VALUES + N_FILLERS
    return TokenStream(tokens, targets, distance, vocabulary, (N_KEYS, N_KEYS + N_VALUES))


def training_batch(rng: np.random.Generator) -> TokenStream:
    """32 sequences of one strength of corruption, 0 to 30 %."""
    return burst_stream(rng, 32, rng.uniform(0, CORRUPTION))


@dataclass
class Trained:
    """Models of two blocks trained on the same batches."""

    seed: int

    @cached_property
    def system(self) -> SequenceModel:
        """The layer, with the relevance it learned."""
        return trained(self.seed, "system")

    @cached_property
    def constant(self) -> SequenceModel:
        """Each block's relevance is the mean of the system's, for all tokens."""
        return trained(self.seed, "constant")

    @cached_property
    def window(self) -> SequenceModel:
        """Window attention with as large a state."""
        return trained(self.seed, "window")

    @cached_property
    def silent(self) -> SequenceModel:
        """The layer with a rate of 0."""
        return trained(self.seed, "silent")

    @cached_property
    def exchanged(self) -> SequenceModel:
        """The trained system, with the relevance of another sequence at each token."""
        model = copy.deepcopy(self.system)
        for block in model.blocks:
            own = block.layer._relevance  # type: ignore[union-attr]
            block.layer._relevance = lambda k, c, own=own: own(k, c).roll(1, 0)  # type: ignore[union-attr]
        return model

    def accuracy(self, model: SequenceModel, corruption: float) -> float:
        """On 768 new sequences."""
        from engramma.memory.training import accuracy

        rng = np.random.default_rng([self.seed, 1])
        return accuracy(model, [burst_stream(rng, 256, corruption) for _ in range(3)])

    def drop(self, model: SequenceModel) -> float:
        """How much accuracy 20 % of corrupted tokens cost."""
        return self.accuracy(model, 0.0) - self.accuracy(model, 0.2)


@lru_cache(maxsize=24)
def trained(seed: int, variant: str) -> SequenceModel:
    """Train one variant."""
    from engramma.memory.attention import WindowAttention
    from engramma.memory.model import SequenceModel
    from engramma.memory.training import fit
    from engramma.systems.sequence.synaptic_resonance import SynapticResonance

    resonance = partial(SynapticResonance, 32, 2, window=4)
    if variant == "window":
        # 12 tokens: 2 x 2 x 11 x 16 numbers, against 2 x 16 x 16 + 2 x 16 of S and c and 2 x 2 x
        # 3 x 16 of a window of 4. A wider feed-forward network makes up for the parameters.
        model = SequenceModel(lambda: WindowAttention(32, 2, 12), 24, expansion=5, seed=seed)
    elif variant == "silent":
        model = SequenceModel(partial(resonance, rate=0.0), 24, seed=seed)
    elif variant == "constant":
        means = iter(mean_relevance(trained(seed, "system"), seed))
        model = SequenceModel(lambda: resonance(fixed_relevance=next(means)), 24, seed=seed)
    else:
        model = SequenceModel(resonance, 24, seed=seed)
    fit(
        model,
        training_batch,
        steps=STEPS,
        seed=seed,
        learning_rate=1e-2,
        weight_decay=0.01,
        description=variant,
    )
    return model


STEPS = 300


@torch.no_grad()
def mean_relevance(model: SequenceModel, seed: int) -> list[float]:
    """Mean of r in each block, over tokens of training data."""
    batch = training_batch(np.random.default_rng([seed, 2]))
    x, means = model.embed(torch.as_tensor(batch.tokens)), []
    for block in model.blocks:
        means.append(float(block.layer.relevance(block.before(x)).mean()))  # type: ignore[union-attr, operator]
        x, _ = block(x, None)
    return means


CLAIMS = (
    Claim(
        name="parallel-equals-recurrent",
        sentence="The parallel form, whole, in chunks or split, equals the recurrence to 1e-10",
        source=PAPER,
        metric="largest difference of outputs, float64",
        prepare=lambda seed: seed,
        system=disagreement,
        baseline=lambda seed: 0.0,
        baseline_name=NOTHING,
        margin=1e-10,
        direction="below",
        control=Control(
            "the parallel form judges a token by the context that holds it already",
            lambda seed: disagreement(seed, sees_itself),
        ),
    ),
    Claim(
        name="oja-is-bounded",
        sentence="Without any decay, associations written by the error do not double between 1000 "
        "and 100,000 tokens",
        source=PAPER,
        metric="size of S after 100,000 tokens over that after 1000",
        prepare=lambda seed: seed,
        system=lambda seed: growth(seed, "oja"),
        baseline=lambda seed: 1.0,
        baseline_name="1 (no growth)",
        margin=1.0,
        direction="below",
        control=Control(
            "values are added, not errors (hebb)", lambda seed: growth(seed, "hebb") - 1.0
        ),
    ),
    Claim(
        name="recall-beyond-the-window",
        sentence="Recall beyond the window is at least 20 points above that of window attention "
        "with an equal state and as many parameters",
        source=PAPER,
        metric="accuracy",
        prepare=Trained,
        system=lambda task: task.accuracy(task.system, 0.0),
        baseline=lambda task: task.accuracy(task.window, 0.0),
        baseline_name="window attention of equal state (12 tokens) and parameters",
        margin=0.2,
        control=Control(
            "the rate of writing is 0",
            lambda task: task.accuracy(task.silent, 0.0) - task.accuracy(task.window, 0.0),
        ),
        seeds=3,
    ),
    Claim(
        name="relevance-matters",
        sentence="With 20 % of the tokens corrupted, learned relevance is at least 3 points above "
        "a constant equal to its mean, with the same decay",
        source=PAPER,
        metric="accuracy at 20 % corruption",
        prepare=Trained,
        system=lambda task: task.accuracy(task.system, 0.2),
        baseline=lambda task: task.accuracy(task.constant, 0.2),
        baseline_name="constant relevance (gated linear attention beside the window)",
        margin=0.03,
        control=Control(
            "each token gets the relevance of a token of another sequence",
            lambda task: task.accuracy(task.exchanged, 0.2) - task.accuracy(task.constant, 0.2),
        ),
        seeds=3,
        tried="On pilot seed 1000 learned and constant relevance gave 0.475 and 0.478 after 250 "
        "steps, 0.537 and 0.538 after 400; on pairs with fillers strewn among them (no bursts) "
        "0.61 and 0.60 after 300. r does leave its initial values, but giving each token that of "
        "another sequence costs nothing: what is written is decided by keys and values alone.",
    ),
    Claim(
        name="relevance-resists-noise",
        sentence="20 % of corrupted tokens cost at most 0.7 of what they cost a constant relevance",
        source=PAPER,
        metric="accuracy lost from 0 to 20 % corruption",
        prepare=Trained,
        system=lambda task: task.drop(task.system),
        baseline=lambda task: 0.7 * task.drop(task.constant),
        baseline_name="0.7 of the loss with constant relevance",
        margin=0.0,
        direction="below",
        control=Control(
            "each token gets the relevance of a token of another sequence",
            lambda task: task.drop(task.exchanged) - 0.7 * task.drop(task.constant),
        ),
        seeds=3,
        tried="On pilot seed 1000 20 % of corrupted tokens cost 0.018 with learned and 0.009 with "
        "constant relevance after 250 steps, 0.020 and 0.028 after 400: both losses are small, as "
        "keys recur in a burst and training has seen corruption, and differ by chance.",
    ),
)
