"""What came of a programming task: files, tests, schedule and cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engramma.agents.code_plan import Plan
from engramma.agents.model import Completion
from engramma.agents.programmer import Written
from engramma.agents.sandbox import Outcome
from engramma.agents.schedule import Schedule


@dataclass(frozen=True)
class Cost:
    """What a task cost: calls and tokens of the model, processes of the sandbox, seconds."""

    calls: int
    prompt_tokens: int
    completion_tokens: int
    runs: int
    seconds: float

    @classmethod
    def of(
        cls,
        written: Iterable[Written],
        planning: Sequence[Completion],
        runs: int,
        seconds: float,
    ) -> Cost:
        """Add up modules, answers to the request for a plan, and ``runs`` of acceptance tests."""
        written = list(written)
        completions = [*planning, *(c for w in written for c in w.completions)]
        return cls(
            len(completions),
            sum(c.prompt_tokens for c in completions),
            sum(c.completion_tokens for c in completions),
            runs + sum(w.runs for w in written),
            seconds,
        )


@dataclass(frozen=True)
class Report:
    """What came of a task.

    Parameters
    ----------
    task : str
    passed : bool
        Whether all acceptance tests passed.
    message : str
        What went wrong, if it did not pass.
    plan : Plan, optional
        None where no valid plan was made.
    files : mapping of str to str
        Sources by file name, in topological order.
    modules : mapping of str to Written
        The last version of each.
    outcome : Outcome, optional
        Of the acceptance tests.
    schedules : tuple of Schedule
        Trace of the first delegation and of repeated ones, in seconds.
    repaired : tuple of str
        Modules that were delegated again.
    cost : Cost
    """

    task: str
    passed: bool
    message: str
    plan: Plan | None
    files: Mapping[str, str]
    modules: Mapping[str, Written]
    outcome: Outcome | None
    schedules: tuple[Schedule, ...]
    repaired: tuple[str, ...]
    cost: Cost

    def to_json(self) -> dict[str, Any]:
        """Everything but the completions, for a file."""
        return {
            "task": self.task,
            "passed": self.passed,
            "message": self.message,
            "plan": self.plan.to_json() if self.plan else None,
            "files": dict(self.files),
            "tests": {
                name: {"problem": w.problem, "attempts": w.attempts, "agent": w.agent}
                for name, w in self.modules.items()
            },
            "acceptance": vars(self.outcome) if self.outcome else None,
            "schedule": [[vars(slot) for slot in s.slots] for s in self.schedules],
            "repaired": list(self.repaired),
            "cost": vars(self.cost),
        }
