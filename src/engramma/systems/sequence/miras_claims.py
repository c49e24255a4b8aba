"""What is claimed of Miras: its identities, its robustness, and what it cannot do.

Nothing is trained: keys, values and gates are drawn, and the memory alone is run, in its recurrent
form (one token a chunk) unless said otherwise. All rules compared have the same state and no
parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engramma.contracts import Claim, Control
from engramma.memory import delta
from engramma.memory.neural_memory import Gates, NeuralMemory
from engramma.memory.objectives import Huber, Objective, Power
from engramma.memory.online import OnlineMemory, Writing
from engramma.memory.retention import Decay, Entropy, NormPower, Retention

PAPER = "Behrouz et al. 2025"
NOTHING = "0 (exact agreement)"

# -- identities -----------------------------------------------------------------------------


@dataclass
class Tokens:
    """Random queries, keys, values and gates: 2 sequences, 2 heads, 50 tokens, 8 channels."""

    seed: int

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)

        def draw(*shape: int) -> Tensor:
            return torch.as_tensor(rng.standard_normal((2, 2, 50, *shape)))

        # Values of length 1, for cubed errors of long ones diverge.
        self.q, self.k, self.v = (F.normalize(draw(8), dim=-1) for _ in "qkv")
        #: Steps of at most a half, so that twice a step is still a stable delta rule.
        self.step = 0.5 * torch.sigmoid(draw(1))
        self.keep, self.momentum = F.logsigmoid(draw(1) + 3), F.logsigmoid(draw(1))

    def miras(
        self,
        bias: str | Objective,
        retained: str | Retention = "none",
        *,
        chunk: int = 1,
        momentum: bool = False,
        keep: Tensor | None = None,
    ) -> Tensor:
        """Read with a matrix memory at this point of the grid."""
        memory = OnlineMemory(2, 8, "matrix", bias, retained, momentum=momentum, chunk=chunk)
        writing = Writing(self.step, keep, self.momentum if momentum else None)
        return memory(self.q, self.k, self.v, writing, memory.initial_state(2, self.q))[0]

    def reference(self, rule: str, factor: float = 1.0) -> Tensor:
        """Read with linear attention or the delta rule, by its own exact chunk form."""
        run = {"add": delta.linear_attention, "delta": delta.delta_rule}[rule]
        empty = self.q.new_zeros(2, 2, 8, 8)
        step = factor * self.step[..., 0]
        return run(self.q, self.k, self.v, step, torch.zeros_like(step), empty)[0]

    def titans(self) -> Tensor:
        """Read with the matrix memory of Titans in chunks of 16, from empty weights."""
        memory = NeuralMemory(2, 8, depth=1, chunk=16).double()
        state = {n: torch.zeros_like(t) for n, t in memory.initial_state(2).items()}
        # Titans' objective is the whole squared error, so half the step goes the same way.
        gates = Gates(self.keep[..., 0], self.momentum[..., 0], 0.5 * self.step[..., 0])
        return memory(self.q, self.k, self.v, gates, state)[0].detach()


def far(a: Tensor, b: Tensor) -> float:
    """Largest difference, as a share of the largest number."""
    return float((a - b).abs().max() / b.abs().max())


def moneta(task: Tokens, p: float, q: float) -> Tensor:
    """Read with Moneta, nothing smoothed and everything kept."""
    keep = torch.zeros_like(task.step)
    return task.miras(Power(p, smooth=False), NormPower(q), keep=keep)


def identity(
    name: str,
    sentence: str,
    system: Callable[[Tokens], float],
    control: str,
    broken: Callable[[Tokens], float],
) -> Claim:
    """Make a claim that two programs read the same numbers."""
    return Claim(
        name=name,
        sentence=sentence,
        source=f"{PAPER}, table 1 and section 5",
        metric="largest difference of what is read, as a share of the largest number",
        prepare=Tokens,
        system=system,
        baseline=lambda task: 0.0,
        baseline_name=NOTHING,
        margin=1e-6,
        direction="below",
        control=Control(control, broken),
    )


# -- outliers -------------------------------------------------------------------------------

STREAMS, KEYS, WIDTH, WRITES, STEP, THRESHOLD, SIZE = 16, 16, 32, 320, 0.3, 0.5, 20.0
#: Steps that the squared error may choose from.
STEPS = (0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)

#: Rules by name: objective, retention.
RULES: dict[str, tuple[str | Objective, str | Retention]] = {
    "squared": ("l2", "l2"),
    "yaad": (Huber("switch"), "l2"),
    "huber": (Huber("norm"), "l2"),
    "moneta": (Power(3.0), NormPower(4.0)),
}


@dataclass
class Outliers:
    """Streams in which a share of the values is noise of twenty times their length.

    16 streams a seed: in each, 16 random keys of unit length with values of unit length are
    written 20 times on average, in random order. What should be read is the clean value.
    """

    seed: int
    share: float = 0.05

    @cached_property
    def clean(self) -> Outliers:
        """The same streams without outliers."""
        return Outliers(self.seed, 0.0)

    @cached_property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Keys and values, then keys and values as written: (stream, 1, token, channel)."""
        rng = np.random.default_rng(self.seed)

        def draw(n: int) -> Tensor:
            return F.normalize(torch.as_tensor(rng.standard_normal((STREAMS, n, WIDTH))), dim=-1)

        keys, values, noise = draw(KEYS), draw(KEYS), SIZE * draw(WRITES)
        which = torch.as_tensor(rng.integers(KEYS, size=(STREAMS, WRITES)))
        outlier = torch.as_tensor(rng.random((STREAMS, WRITES)) < self.share)
        rows = torch.arange(STREAMS)[:, None]
        written = torch.where(outlier[..., None], noise, values[rows, which])
        return tuple(t.unsqueeze(1) for t in (keys, values, keys[rows, which], written))  # type: ignore[return-value]

    def read(self, rule: str, threshold: float = THRESHOLD, step: float = STEP) -> Tensor:
        """Read with each key in the end; everything is kept."""
        keys, _, k, v = self.tensors
        memory = OnlineMemory(1, WIDTH, "matrix", *RULES[rule], chunk=1)
        one = k.new_ones(STREAMS, 1, WRITES, 1)
        limit = threshold * one if memory.objective.thresholded else None
        writing = Writing(step * one, 0 * one, None, limit)
        with torch.no_grad():
            _, state = memory(k, k, v, writing, memory.initial_state(STREAMS, k))
            return memory.read(keys, state)

    def error(self, rule: str, threshold: float = THRESHOLD, step: float = STEP) -> float:
        """Length of the error over that of the clean values, mean over streams."""
        values = self.tensors[1]
        error = self.read(rule, threshold, step) - values
        return float((error.norm(dim=(-2, -1)) / values.norm(dim=(-2, -1))).mean())

    @cached_property
    def best_squared(self) -> float:
        """Smallest error of the squared error's rule over several steps, chosen in hindsight."""
        return min(self.error("squared", step=s) for s in STEPS)

    def cosine(self, rule: str) -> float:
        """Cosine with the clean values, mean over keys and streams."""
        return float(F.cosine_similarity(self.read(rule), self.tensors[1], dim=-1).mean())


@lru_cache
def outliers(seed: int) -> Outliers:
    """Share streams between claims."""
    return Outliers(seed)


ROBUSTNESS = f"{PAPER}, section 5.1 (robust attentional biases)"
RELATIVE = "relative error of what clean keys read"


def smaller_error(name: str, rule: str, words: str) -> Claim:
    """Make the claim that a rule is hurt less than the squared error is."""
    return Claim(
        name=name,
        sentence=f"With 5 % outliers {words} retrieves clean values with an error smaller by at "
        "least 1 than squared error, and without outliers they differ by less than 0.1",
        source=ROBUSTNESS,
        metric=RELATIVE,
        prepare=outliers,
        system=lambda task: task.error(rule),
        baseline=lambda task: task.error("squared"),
        baseline_name="squared error with the same step (gated delta rule)",
        margin=-1.0,
        direction="below",
        control=Control(
            "no outliers: the difference of the errors",
            lambda task: task.clean.error(rule) - task.clean.error("squared"),
            expect="chance",
            chance=0.0,
            tolerance=0.1,
        ),
    )


def bounded_error(name: str, rule: str, words: str) -> Claim:
    """Make the claim that a rule's error stays within a bound."""
    return Claim(
        name=name,
        sentence=f"With 5 % outliers the relative error of {words} stays below 0.5",
        source=ROBUSTNESS,
        metric=RELATIVE,
        prepare=outliers,
        system=lambda task: task.error(rule),
        baseline=lambda task: 0.0,
        baseline_name="0 (every value as it was)",
        margin=0.5,
        direction="below",
        control=Control(
            "a threshold no error reaches (1e6)", lambda task: task.error(rule, threshold=1e6)
        ),
    )


# -- Memora's simplex -----------------------------------------------------------------------

MANY = 10_000


class Unnormalised(Entropy):
    """Memora without its softmax: weights are plain exponentials."""

    def weights(self, s: Tensor) -> Tensor:
        """Exponentials that start with the right mass."""
        return self._mass(s) / s.shape[-2] * s.exp()

    def settle(self, s: Tensor) -> Tensor:
        """Leave them as they are."""
        return s


def off_simplex(seed: int, retained: Retention, chunk: int) -> float:
    """How far weights are from being positive with the right sums, after many writes.

    The larger of the most negative weight and the largest deviation of a sum from the mass, both
    as shares of the mass. With chunks it is measured at the full step that opens the next one.
    """
    rng = np.random.default_rng(seed)
    n = MANY + (chunk > 1)
    k, v = (torch.as_tensor(rng.standard_normal((1, 1, n, 16)), dtype=torch.float32) for _ in "kv")
    k, v = F.normalize(k, dim=-1), F.normalize(v, dim=-1)
    one = torch.ones(1, 1, n, 1)
    memory = OnlineMemory(1, 16, "matrix", "l2", retained, chunk=chunk)
    with torch.no_grad():
        writing = Writing(STEP * one, np.log(0.999) * one)
        _, state = memory(k, k, v, writing, memory.initial_state(1))
    (w,) = (t.double() for t in memory.weights(state))
    mass = 32.0
    return max(float((w.sum(-2) / mass - 1).abs().max()), float(-w.min() / mass))


# -- stale gradients ------------------------------------------------------------------------


def gap(task: Tokens, chunk: int, bias: str) -> float:
    """How far what is read in chunks is from what the recurrence reads."""
    in_chunks, one_by_one = (task.miras(bias, "l2", chunk=n, keep=task.keep) for n in (chunk, 1))
    return float((in_chunks - one_by_one).norm() / one_by_one.norm())


CLAIMS = (
    identity(
        "is-linear-attention",
        "Dot product without retention is linear attention, in chunks of 16",
        lambda task: far(task.miras("dot", chunk=16), task.reference("add")),
        "squared error instead of the dot product",
        lambda task: far(task.miras("l2", chunk=16), task.reference("add")),
    ),
    identity(
        "is-deltanet",
        "Squared error without retention is DeltaNet",
        lambda task: far(task.miras("l2"), task.reference("delta")),
        "another p: the cubed error",
        lambda task: far(task.miras(Power(3.0, smooth=False)), task.reference("delta")),
    ),
    identity(
        "moneta-is-delta-rule",
        "Moneta with p = q = 2, all kept and nothing smoothed is the delta rule at twice the step",
        lambda task: far(moneta(task, 2.0, 2.0), task.reference("delta", 2.0)),
        "another p or another q: the smaller difference of p = 3 and of q = 4",
        lambda task: min(
            far(moneta(task, *pq), task.reference("delta", 2.0)) for pq in ((3.0, 2.0), (2.0, 4.0))
        ),
    ),
    identity(
        "is-titans",
        "Squared error, decay and momentum are the memory of Titans with half the step, in chunks "
        "of 16",
        lambda task: far(
            task.miras("l2", Decay(), chunk=16, momentum=True, keep=task.keep), task.titans()
        ),
        "no momentum",
        lambda task: far(task.miras("l2", Decay(), chunk=16, keep=task.keep), task.titans()),
    ),
    smaller_error("yaad-is-robust", "yaad", "Yaad (switching at 0.5)"),
    smaller_error("huber-is-robust", "huber", "Huber's objective (clipped at a norm of 0.5)"),
    bounded_error("yaad-stays-close", "yaad", "Yaad"),
    bounded_error("huber-stays-close", "huber", "Huber's objective"),
    Claim(
        name="yaad-over-best-step",
        sentence="With 5 % outliers Yaad with its step of 0.3 has an error smaller by at least 0.3 "
        "than the squared error with the best of seven steps",
        source=ROBUSTNESS,
        metric=RELATIVE,
        prepare=outliers,
        system=lambda task: task.error("yaad"),
        baseline=lambda task: task.best_squared,
        baseline_name="squared error with the step that is best for these very streams",
        margin=-0.3,
        direction="below",
        control=Control(
            "no outliers", lambda task: task.clean.error("yaad") - task.clean.best_squared
        ),
    ),
    Claim(
        name="squared-error-breaks",
        sentence="With 5 % outliers the relative error of the squared error is at least 1.5",
        source=ROBUSTNESS,
        metric=RELATIVE,
        prepare=outliers,
        system=lambda task: task.error("squared"),
        baseline=lambda task: 0.0,
        baseline_name="0 (every value as it was)",
        margin=1.5,
        control=Control("no outliers", lambda task: task.clean.error("squared")),
    ),
    Claim(
        name="moneta-collapses",
        sentence="An expected negative: with 5 % outliers Moneta (p = 3, q = 4) loses what it "
        "stored, the cosine with clean values falls below 0.2",
        source="no claim of the paper: cubed errors amplify outliers",
        metric="cosine of what clean keys read with the clean values",
        prepare=outliers,
        system=lambda task: task.cosine("moneta"),
        baseline=lambda task: 0.0,
        baseline_name="0 (nothing stored)",
        margin=0.2,
        direction="below",
        control=Control("no outliers", lambda task: task.clean.cosine("moneta")),
    ),
    Claim(
        name="memora-stays-on-simplex",
        sentence="After 10 000 writes Memora's weights are not negative and sum to c within 1e-6 "
        "of c, in float32, one token a chunk and in chunks of 16",
        source=f"{PAPER}, equations 18-21 and 27",
        metric="most negative weight or largest deviation of a sum, as shares of c",
        prepare=lambda seed: seed,
        system=lambda seed: max(off_simplex(seed, Entropy(), n) for n in (1, 16)),
        baseline=lambda seed: 0.0,
        baseline_name="0 (on the simplex)",
        margin=1e-6,
        direction="below",
        control=Control(
            "the softmax is skipped", lambda seed: off_simplex(seed, Unnormalised(), 1)
        ),
        seeds=3,
    ),
    Claim(
        name="gradients-go-stale",
        sentence="Chunks of 16 are farther from the recurrence than chunks of 4 (random keys and "
        "steps up to a half, squared error)",
        source=f"{PAPER}, section 5.4: what the parallel form costs",
        metric="norm of the difference to the recurrence over the norm of what is read",
        prepare=Tokens,
        system=lambda task: gap(task, 16, "l2"),
        baseline=lambda task: gap(task, 4, "l2"),
        baseline_name="chunks of 4",
        margin=0.1,
        control=Control(
            "the dot product, whose gradient does not depend on the weights",
            lambda task: gap(task, 16, "dot") - gap(task, 4, "dot"),
        ),
    ),
)
