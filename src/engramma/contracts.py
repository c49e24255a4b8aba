"""The contracts that systems fulfil, and the vocabulary of tasks and claims.

Each contract is a small protocol. A system fulfils one (a few fulfil two), so that tasks,
leaderboards, claims and the command line work for a system that did not exist when they were
written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from engramma.data.features import Features
    from engramma.data.recording import Recording
    from engramma.data.stimuli import StimulusSet


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float = float("nan")
    high: float = float("nan")
    details: Mapping[str, Any] = field(default_factory=dict)


# -- contracts -----------------------------------------------------------------------------


@runtime_checkable
class Encoder(Protocol):
    """Features to responses."""

    def fit(self, features: Features, recording: Recording) -> Encoder:
        """Learn from the presentations of ``recording``."""
        ...

    def predict(self, features: Features) -> np.ndarray:
        """Predict responses, stimulus x unit."""
        ...


@runtime_checkable
class Decoder(Protocol):
    """Responses to features, images or words.

    Beside ``fit`` a decoder offers any of ``features``, ``retrieve``, ``classify``,
    ``reconstruct`` and ``caption``, each taking a recording.
    """

    def fit(self, recording: Recording, stimuli: StimulusSet) -> Decoder:
        """Learn from the presentations of ``recording``."""
        ...


@runtime_checkable
class Memory(Protocol):
    """A store that is written, read, consolidated and emptied."""

    def write(self, key: Any, value: Any) -> None:
        """Store a value."""
        ...

    def read(self, cue: Any) -> Any:
        """Return what the cue calls up."""
        ...

    def consolidate(self) -> None:
        """Reorganise what is stored."""
        ...

    def forget(self, which: Any) -> None:
        """Remove what is named."""
        ...

    def save(self, path: Path) -> None:
        """Write the memory to disk."""
        ...

    def load(self, path: Path) -> None:
        """Read the memory from disk."""
        ...


@runtime_checkable
class SequenceLayer(Protocol):
    """A layer with a memory, in a chunk-parallel and a step form that agree.

    States are flat mappings of names to tensors, batch first; they can be saved and taken up again
    in the middle of a stream. `engramma.memory.layer.MemoryLayer` is a base that checks shapes.
    """

    dim: int

    def initial_state(self, batch: int) -> Any:
        """State before the first token of ``batch`` sequences."""
        ...

    def forward(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        """Map a sequence (batch x token x dim) and a state to outputs and the next state."""
        ...

    def step(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        """Map one token (batch x dim) and a state to its output and the next state."""
        ...


@runtime_checkable
class Dynamics(Protocol):
    """A neuron, layer or simulator that is stepped through time."""

    def step(self, input: Any, state: Any) -> tuple[Any, Any]:
        """Advance by one time step."""
        ...

    def run(self, inputs: Any) -> Any:
        """Advance over a whole input."""
        ...


@runtime_checkable
class Learner(Protocol):
    """A continual learner."""

    def observe(self, batch: Any) -> None:
        """Learn from one batch."""
        ...

    def predict(self, x: Any) -> Any:
        """Predict for new inputs."""
        ...

    def end_of_task(self) -> None:
        """Be told that a task has ended."""
        ...


@runtime_checkable
class Probe(Protocol):
    """An analysis of a language model: where something is, and what happens without it."""

    def locate(self, model: Any, examples: Any) -> Any:
        """Score every place of the model."""
        ...

    def intervene(self, model: Any, where: Any) -> Any:
        """Return the model with these places changed."""
        ...


@runtime_checkable
class Comparison(Protocol):
    """How alike two representations are.

    ``a`` and ``b`` are stimulus x unit arrays over the same stimuli, in the same order.
    """

    def compare(self, a: np.ndarray, b: np.ndarray) -> Estimate:
        """Compare two representations."""
        ...


@runtime_checkable
class Codec(Protocol):
    """Lossless compression."""

    def encode(self, array: np.ndarray) -> bytes:
        """Array to bytes."""
        ...

    def decode(self, data: bytes) -> np.ndarray:
        """Bytes to array."""
        ...


@runtime_checkable
class Agent(Protocol):
    """An embodied agent."""

    def act(self, observation: Any, state: Any) -> tuple[Any, Any]:
        """Choose an action."""
        ...


@runtime_checkable
class Orchestrator(Protocol):
    """An arrangement of language models that works on a task."""

    def run(self, task: Any, llm: Any) -> Any:
        """Carry out the task."""
        ...


CONTRACTS: dict[str, type] = {
    c.__name__: c
    for c in (
        Encoder,
        Decoder,
        Memory,
        SequenceLayer,
        Dynamics,
        Learner,
        Probe,
        Comparison,
        Codec,
        Agent,
        Orchestrator,
    )
}


# -- tasks and claims ----------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """A score with what else a leaderboard shows.

    Parameters
    ----------
    value : float
        The score; larger is better.
    curve : mapping of number to float
        The score along the task's axis.
    details : mapping of str to float
        Further columns: parameters, numbers of state, tokens a second.
    """

    value: float
    curve: Mapping[float, float] = field(default_factory=dict)
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """Data, split, metric, ceiling and chance level, for every system of one contract.

    Parameters
    ----------
    name : str
        As in ``engramma bench NAME``.
    contract : str
        Name of the contract that contestants fulfil.
    description : str
        One sentence: what is asked.
    prepare : callable
        ``prepare(seed, **options) -> data``: generate or load the data and its split.
    score : callable
        ``score(system, data) -> float`` or `Scored`: fit on the training part, evaluate on the
        test part.
    metric : str
        Name and unit of the score; larger is better.
    chance : float
        Score of a system that knows nothing.
    ceiling : callable, optional
        ``ceiling(data) -> float``: the best score that the data allow.
    axis : str
        What the score is also given along, where ``score`` returns a curve ("length in tokens").
    """

    name: str
    contract: str
    description: str
    prepare: Callable[..., Any]
    score: Callable[[Any, Any], float | Scored]
    metric: str
    chance: float
    ceiling: Callable[[Any], float] | None = None
    axis: str = ""


@dataclass(frozen=True)
class Control:
    """A manipulation under which a claim must break.

    Parameters
    ----------
    sentence : str
        What is manipulated ("labels permuted within seed").
    measure : callable
        ``measure(task) -> float``, once a seed.
    expect : {"chance", "effect lost"}
        ``"chance"``: the number is the system's metric and must lie at ``chance`` within
        ``tolerance``. ``"effect lost"``: the number is the claim's effect (system minus baseline)
        under the manipulation, and must no longer lie beyond the margin.
    chance, tolerance : float
        For ``expect="chance"``.
    """

    sentence: str
    measure: Callable[[Any], float]
    expect: Literal["chance", "effect lost"] = "effect lost"
    chance: float = 0.0
    tolerance: float = 0.0


@dataclass(frozen=True)
class Claim:
    """What a published system is said to do, in a form that can be run.

    ``prepare`` is called once a seed; ``system``, ``baseline`` and the control's ``measure`` are
    then called with what it returns, so that all three are paired. The effect is
    ``system - baseline``. The claim holds when the interval of its mean lies beyond ``margin``
    (for ``direction="within"``: inside ± margin) *and* the control breaks it.

    Parameters
    ----------
    name : str
        Unique within its system; ``SLUG/NAME`` names it on the command line.
    sentence : str
        What is claimed.
    source : str
        Where (paper, section, figure).
    metric : str
        Name and unit of the number that system and baseline return.
    prepare : callable
        ``prepare(seed) -> task``.
    system, baseline : callable
        ``f(task) -> float``.
    baseline_name : str
        What the system is compared with.
    margin : float
        The effect must be larger than this ("above"), smaller ("below"), or its absolute value
        smaller ("within").
    control : Control
    presupposes : callable, optional
        ``presupposes(task) -> (bool, sentence)``, measured first: where it is false for any seed
        the claim is not testable.
    seeds : int
        Number of seeds, at least three.
    tried : str
        For a claim that fails: what was tried.
    """

    name: str
    sentence: str
    source: str
    metric: str
    prepare: Callable[[int], Any]
    system: Callable[[Any], float]
    baseline: Callable[[Any], float]
    baseline_name: str
    margin: float
    control: Control
    direction: Literal["above", "below", "within"] = "above"
    presupposes: Callable[[Any], tuple[bool, str]] | None = None
    seeds: int = 5
    tried: str = ""

    def __post_init__(self) -> None:
        if self.seeds < 3:
            raise ValueError(f"claim {self.name!r} needs at least three seeds, not {self.seeds}")


@dataclass(frozen=True)
class SystemCard:
    """What the registry knows of a system.

    Parameters
    ----------
    slug, family, title : str
    contract : tuple of str
        Names of the contracts it fulfils.
    factory : type
        The class; called without arguments it gives the published configuration at small scale.
    paper : str
        Reference, one line.
    bibtex : str
    claims : tuple of Claim
    tasks : tuple of str
        Tasks whose leaderboard it enters.
    run : callable, optional
        ``run(data, seed) -> RunResult`` where the contract's generic evaluation does not fit.
    baseline : bool
        Whether it is a baseline and no published system.
    """

    slug: str
    family: str
    title: str
    contract: tuple[str, ...]
    factory: Callable[..., Any]
    paper: str = ""
    bibtex: str = ""
    claims: tuple[Claim, ...] = ()
    tasks: tuple[str, ...] = ()
    run: Callable[..., RunResult] | None = None
    baseline: bool = False


@dataclass(frozen=True)
class RunResult:
    """What one run of a system on data gives.

    Parameters
    ----------
    metrics : mapping of str to Estimate
    arrays : mapping of str to ndarray
        Artefacts, saved beside the metrics.
    notes : tuple of str
        Sentences for the reader: what was done, warnings.
    """

    metrics: Mapping[str, Estimate]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
