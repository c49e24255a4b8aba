r"""CortexCompile: multi-agent code synthesis (Ramachandran & Yang 2024, arXiv:2409.02938).

**What it does.** A task in words becomes a program of several files, written by four agents named
after cortical regions and run by an orchestrator.

1. *Prefrontal* agent: task to plan. A plan (`engramma.agents.code_plan`) has modules with kind,
   purpose, typed interface, dependencies and examples. Plans with duplicate names, unknown or
   cyclic dependencies are refused, and the agent is told why.
2. *Task orchestration*: a priority queue over modules whose dependencies are written, longest
   remaining path first, on W workers (`engramma.agents.schedule`). A module goes to the agent of
   its kind: *parietal* (data layout, spatial and state structure), *temporal* (text and sequences),
   *motor* (control flow, input and output).
3. An agent sees its module's specification and the interfaces of its dependencies, nothing else.
   What it writes is checked statically (it parses, defines what it must, takes the right number of
   arguments), then on the module's examples in a sandbox (`engramma.agents.sandbox`). A failure is
   told to the agent, at most r times. Modules that depend on a failed one are not asked for.
4. *Integration*: files in topological order, then the task's acceptance tests. If they fail, the
   modules on the failing path (the one an exception came from; else those that failed; else all
   behind the entry) are delegated once more, with the message.

`Monolith` is the baseline: one agent, the whole task, the same checks, retries and tokens. A budget
of tokens belongs to the task: each of m modules may use an m-th of it in each attempt.

**Where we deviate.** The paper's public text (abstract and introduction) names the agents and their
delegation but no plan format, retries or tests; those are choices made here. It reports gains over
GPT-4o on games, whose measure was user satisfaction; that is not reproduced. The sentences that
make an agent "parietal" are ours. Whether the *names* do anything is one of the claims.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engramma.agents.code_plan import KINDS, Module, Plan, PlanError, fenced
from engramma.agents.code_report import Cost, Report
from engramma.agents.code_tasks import CodeTask
from engramma.agents.model import Completion, Message, TextModel
from engramma.agents.programmer import Agent, Written
from engramma.agents.sandbox import Limits, Outcome, run
from engramma.agents.schedule import Schedule, execute
from engramma.agents.source_check import ALLOWED
from engramma.errors import ConfigError, DataError
from engramma.registry import system
from engramma.systems.probing.cortexcompile_claims import CLAIMS

BIBTEX = """@article{ramachandran2024cortexcompile,
  title = {CortexCompile: Harnessing Cortical-Inspired Architectures for Enhanced Multi-Agent NLP
           Code Synthesis},
  author = {Ramachandran, Gautham and Yang, Rick},
  journal = {arXiv preprint arXiv:2409.02938}, year = {2024}}"""

ROLES: Mapping[str, str] = {
    "prefrontal": "You are the prefrontal agent: you plan. Divide the task into small modules, "
    "each with one job, and answer with the plan as one fenced block of JSON.",
    "parietal": "You are the parietal agent: you write modules of data layout, spatial relations "
    "and state.",
    "temporal": "You are the temporal agent: you write modules of text, sequences and language.",
    "motor": "You are the motor agent: you write modules of control flow, input, output and "
    "execution.",
    "programmer": "You are a programmer: you write the whole program.",
}
PLAN_FORMAT = """Format of the plan:
{"entry": NAME, "modules": [{"name": NAME, "kind": "parietal" | "temporal" | "motor",
 "purpose": TEXT, "interface": ["function(parameter: type) -> type"], "depends": [NAME],
 "examples": [{"call": FUNCTION, "args": [...], "expect": VALUE}], "cost": NUMBER}]}
Module and function names are unique, dependencies have no cycle, and the entry module exports the
function that the task asks for."""


@system(
    "cortexcompile",
    family="probing",
    title="CortexCompile: multi-agent code synthesis with agents named after cortical regions",
    contract="Orchestrator",
    paper="Ramachandran & Yang 2024, arXiv:2409.02938",
    bibtex=BIBTEX,
    claims=CLAIMS,
)
class CortexCompile:
    """Orchestrator of the module's text.

    Parameters
    ----------
    workers : int
        Modules that are written at the same time.
    retries : int
        Further attempts of an agent at a module (and at a plan), r.
    repairs : int
        How often blamed modules are delegated again.
    tokens : int
        Most tokens that one attempt at all modules together may take.
    share_interfaces : bool
        Whether agents see the interfaces of their dependencies.
    assignment : mapping of str to str, optional
        Agent that gets each kind of module; by default the one of that kind.
    limits : Limits, optional
        Of each process of the sandbox.
    allowed : iterable of str
        Modules that programs may import.

    Raises
    ------
    ConfigError
        If a number is out of range, or a kind or an agent is unknown.
    """

    def __init__(
        self,
        *,
        workers: int = 4,
        retries: int = 2,
        repairs: int = 1,
        tokens: int = 4096,
        share_interfaces: bool = True,
        assignment: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        allowed: Iterable[str] = ALLOWED,
    ) -> None:
        least = {"workers": (workers, 1), "retries": (retries, 0), "repairs": (repairs, 0)}
        for name, (value, bound) in (least | {"tokens": (tokens, 1)}).items():
            if value < bound:
                raise ConfigError(f"{name} must be at least {bound}, not {value}")
        self.assignment = dict(zip(KINDS, KINDS, strict=True)) | dict(assignment or {})
        if set(self.assignment) != set(KINDS) or not set(self.assignment.values()) <= set(ROLES):
            raise ConfigError(
                f"the assignment {self.assignment} names an unknown kind or agent",
                mend=f"kinds are {', '.join(KINDS)}; agents are {', '.join(ROLES)}",
            )
        self.workers, self.retries, self.repairs, self.tokens = workers, retries, repairs, tokens
        self.share_interfaces, self.limits = share_interfaces, limits or Limits()
        self.allowed = allowed

    def run(self, task: CodeTask, llm: TextModel, plan: Plan | None = None) -> Report:
        """Plan, delegate, integrate, and repair once.

        Parameters
        ----------
        task : CodeTask
        llm : TextModel
        plan : Plan, optional
            Written by hand, for models that can write modules but no plan.

        Returns
        -------
        Report
            A task that cannot be planned gives a report that says so.

        Raises
        ------
        EngrammaError
            If the model gives no answer to the request for a plan.
        """
        start = time.perf_counter()
        planning: list[Completion] = []
        try:
            plan = plan or self.plan(task, llm, planning)
        except PlanError as error:
            cost = Cost.of((), planning, 0, time.perf_counter() - start)
            return Report(task.id, False, str(error), None, {}, {}, None, (), (), cost)
        written, schedule = self.delegate(plan, llm)
        outcome, runs = self.integrate(plan, written, task)
        schedules, spent = [schedule], list(written.values())
        repaired: tuple[str, ...] = ()
        for _ in range(self.repairs):
            if outcome.ok:
                break
            repaired = self.blame(plan, written, outcome)
            again, schedule = self.delegate(plan, llm, repaired, written, outcome.message)
            written = written | again
            spent += again.values()
            schedules.append(schedule)
            outcome, further = self.integrate(plan, written, task)
            runs += further
        cost = Cost.of(spent, planning, runs, time.perf_counter() - start)
        return self.report(task, plan, written, outcome, schedules, repaired, cost)

    def plan(
        self, task: CodeTask, llm: TextModel, completions: list[Completion] | None = None
    ) -> Plan:
        """Ask the prefrontal agent for a plan, and again while it is refused.

        Parameters
        ----------
        task : CodeTask
        llm : TextModel
        completions : list of Completion, optional
            The answers are appended to it.

        Raises
        ------
        PlanError
            If the last plan is refused: what is wrong, with the cycle if there is one.
        """
        shown = {
            "id": task.id,
            "prompt": task.prompt,
            "signature": task.signature,
            "examples": [vars(e) for e in task.examples],
        }
        ask = f"{PLAN_FORMAT}\n\nTask:\n```json\n{json.dumps({'task': shown})}\n```"
        messages: list[Message] = [
            {"role": "system", "content": ROLES["prefrontal"]},
            {"role": "user", "content": ask},
        ]
        attempt = 0
        while True:
            reply = llm.complete(messages, max_tokens=self.tokens, seed=attempt)
            if completions is not None:
                completions.append(reply)
            try:
                plan = Plan.from_json(fenced(reply.text, "json") or reply.text)
                if task.function not in {s.name for s in plan.by_name[plan.entry].signatures}:
                    raise DataError(f"the entry {plan.entry!r} does not export {task.function!r}")
                return plan
            except (DataError, ConfigError) as error:
                if attempt == self.retries:
                    raise PlanError(error.what, where=f"task {task.id}", mend=error.mend) from error
                attempt += 1
                mend = f"The plan is refused: {error}\nMend it."
                messages += [
                    {"role": "assistant", "content": reply.text},
                    {"role": "user", "content": mend},
                ]

    def delegate(
        self,
        plan: Plan,
        llm: TextModel,
        names: Sequence[str] | None = None,
        earlier: Mapping[str, Written] | None = None,
        complaint: str = "",
    ) -> tuple[dict[str, Written], Schedule]:
        """Have modules written, in parallel where their dependencies allow it.

        Parameters
        ----------
        plan : Plan
        llm : TextModel
        names : sequence of str, optional
            Modules to write; all by default.
        earlier : mapping of str to Written, optional
            Modules that stand already.
        complaint : str
            What the earlier versions did wrong.

        Returns
        -------
        written : dict of str to Written
            Of the modules asked for.
        schedule : Schedule
            In seconds.
        """
        standing = dict(earlier or {})

        def write(name: str) -> Written:
            module = plan.by_name[name]
            failed = [d for d in plan.behind(name)[:-1] if standing[d].problem]
            agent = self.assignment[module.kind]
            if failed:
                standing[name] = Written(name, agent, problem=f"not asked for: {failed[0]} failed")
                return standing[name]
            share = max(1, self.tokens // len(plan.modules))
            files = {d: standing[d].source for d in plan.behind(name)[:-1]}

            def check(source: str) -> Outcome:
                return run(
                    files | {name: source},
                    name,
                    module.examples,
                    limits=self.limits,
                    allowed=self.allowed,
                )

            shown = self._interfaces(plan, module)
            solver = Agent(agent, ROLES[agent], llm, self.retries, share)
            standing[name] = solver.solve(module, shown, check, complaint)
            return standing[name]

        return execute(plan.jobs(names), self.workers, write)

    def _interfaces(self, plan: Plan, module: Module) -> list[dict[str, Any]]:
        """Return what the agent of a module is shown of its dependencies."""
        kept = ("name", "purpose", "interface", "examples")
        specs = [plan.by_name[d].to_json() for d in module.depends if self.share_interfaces]
        return [{key: spec[key] for key in kept} for spec in specs]

    def integrate(
        self, plan: Plan, written: Mapping[str, Written], task: CodeTask
    ) -> tuple[Outcome, int]:
        """Assemble the files and run the acceptance tests.

        Returns
        -------
        outcome : Outcome
        runs : int
            Processes started in the sandbox.
        """
        for name in plan.order:
            if written[name].problem:
                return Outcome("failed", f"{name}: {written[name].problem}", name), 0
        files = {name: written[name].source for name in plan.order}
        options: dict[str, Any] = {"limits": self.limits, "allowed": self.allowed}
        outcome, runs = Outcome("passed"), 0
        if task.test:
            head = f"from {plan.entry} import {task.function}\n"
            tested = files | {"acceptance_test": head + task.test}
            outcome, runs = run(tested, "acceptance_test", **options), 1
        if task.acceptance and outcome.ok:
            outcome, runs = run(files, plan.entry, task.acceptance, **options), runs + 1
        return outcome, runs

    def blame(
        self, plan: Plan, written: Mapping[str, Written], outcome: Outcome
    ) -> tuple[str, ...]:
        """Modules on the failing path: unfinished ones, else the exception's, else all behind."""
        unfinished = tuple(name for name in plan.order if written[name].problem)
        if unfinished:
            return unfinished
        if outcome.module in plan.by_name:
            return (outcome.module,)
        return plan.behind(plan.entry)

    def report(
        self,
        task: CodeTask,
        plan: Plan,
        written: Mapping[str, Written],
        outcome: Outcome,
        schedules: Sequence[Schedule],
        repaired: Sequence[str],
        cost: Cost,
    ) -> Report:
        """Put files, tests, trace and cost together."""
        return Report(
            task.id,
            outcome.ok,
            outcome.message,
            plan,
            {f"{name}.py": written[name].source for name in plan.order},
            dict(written),
            outcome,
            tuple(schedules),
            tuple(repaired),
            cost,
        )


class Monolith(CortexCompile):
    """The baseline: one agent writes the whole task as one module.

    Parameters
    ----------
    **options
        As of `CortexCompile`; retries, repairs and tokens mean the same.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"assignment": dict.fromkeys(KINDS, "programmer")})

    def plan(
        self, task: CodeTask, llm: TextModel, completions: list[Completion] | None = None
    ) -> Plan:
        """One module, with the task for its purpose; the model is not asked."""
        module = Module("solution", "motor", task.prompt, (task.signature,), examples=task.examples)
        return Plan((module,), module.name)
