"""Program synthesis behind the interface of a text model, and tasks that it can solve.

`SynthesisModel` stands where a language model stands: it reads a module's specification from the
messages, searches the list language for a program that gives the values of its examples, and
answers with Python. It cannot plan: it hands out the plans it was given. One candidate that it
evaluates counts as one token, so that ``max_tokens`` is its budget.

`pipeline_task` draws tasks with known difficulty: m functions of d steps each, every one of which
needs all of its d steps on the examples shown. The plan shows the intermediate values; whoever
searches for the whole function has its input and final output only, and about b**(m d) programs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from engramma.agents.code_plan import Module, Plan, fenced
from engramma.agents.code_tasks import CodeTask
from engramma.agents.list_language import (
    CHAINABLE,
    OPERATIONS,
    Step,
    Values,
    evaluate,
    search,
    space,
    to_source,
)
from engramma.agents.model import Completion, Message
from engramma.agents.sandbox import Example
from engramma.errors import ConfigError, DataError

#: Beginnings of the names of those functions that are not called like their module (half of them).
WORDS = ("arrange", "derive", "filter_out", "gather", "measure", "refine", "shape", "trace_back")


@dataclass(frozen=True)
class PlannedTask:
    """A task, a plan for it, and sources that solve it.

    Parameters
    ----------
    task : CodeTask
    plan : Plan
    solutions : mapping of str to str
        Source of each module; ``$stage_1`` stands for the function of the module ``stage_1``.
    """

    task: CodeTask
    plan: Plan
    solutions: Mapping[str, str]


def request_of(messages: Sequence[Message]) -> dict[str, Any]:
    """Specification in the first message that carries one as a fenced JSON block.

    Raises
    ------
    DataError
        If none does.
    """
    for message in messages:
        block = fenced(message["content"], "json") if message["role"] == "user" else None
        if block:
            try:
                return dict(json.loads(block))
            except ValueError as error:
                raise DataError(f"the specification is no JSON ({error})") from error
    raise DataError("no message carries a specification", mend="write it as a fenced block of JSON")


def planned(request: Mapping[str, Any], plans: Mapping[str, Plan]) -> str:
    """Answer to a request for a plan: the one that is known for the task.

    Raises
    ------
    ConfigError
        If none is known.
    """
    name = request["task"]["id"]
    if name not in plans:
        raise ConfigError(f"no plan is known for the task {name!r}")
    return f"```json\n{json.dumps(plans[name].to_json())}\n```"


class SynthesisModel:
    """Exhaustive search in the list language, asked and answering like a text model.

    Parameters
    ----------
    tasks : iterable of PlannedTask
        Their plans are its answers when it is asked to plan.
    """

    def __init__(self, tasks: Iterable[PlannedTask] = ()) -> None:
        self.name = "enumerative-synthesis"
        self.plans = {planned.task.id: planned.plan for planned in tasks}

    def complete(
        self,
        messages: Sequence[Message],
        *,
        temperature: float = 0.0,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Completion:
        """Answer with a plan or with a module's source; ``max_tokens`` candidates at most."""
        request = request_of(messages)
        if "task" in request:
            return Completion(planned(request, self.plans))
        source, candidates = synthesise(request, max_tokens)
        text = "No program was found." if source is None else f"```python\n{source}```"
        return Completion(text, completion_tokens=candidates)


def synthesise(request: Mapping[str, Any], budget: int) -> tuple[str | None, int]:
    """Source of a module, or none, and the candidates evaluated.

    The search starts from the values of the dependencies' functions, where their interfaces show
    them for the module's own examples; else from the module's arguments.
    """
    plan = Plan.from_json({"modules": [dict(request["module"]) | {"depends": []}]})
    module, signature = plan.modules[0], plan.modules[0].signatures[0]
    examples = [e for e in module.examples if e.call == signature.name]
    if not examples:
        return None, 0
    leaves: dict[str, Values] = {}
    imports = []
    own = ", ".join(signature.parameters)
    for dependency in request["dependencies"]:
        known = {json.dumps(e["args"]): e for e in dependency["examples"]}
        found = [known.get(json.dumps(e.args)) for e in examples]
        values = tuple(e["expect"] for e in found if e is not None)
        if len(values) == len(examples):
            call = next(e["call"] for e in found if e is not None)
            leaves[f"{call}({own})"] = values
            imports.append(f"from {dependency['name']} import {call}")
    if not leaves:
        columns = zip(*(e.args for e in examples), strict=True)
        leaves = dict(zip(signature.parameters, columns, strict=True))
    result = search(list(leaves.values()), tuple(e.expect for e in examples), budget)
    if result.program is None:
        return None, result.candidates
    return _function(signature.text, to_source(result.program, list(leaves)), imports), (
        result.candidates
    )


def _function(signature: str, lines: Sequence[str], imports: Sequence[str]) -> str:
    head = "".join(f"{line}\n" for line in imports)
    body = "".join(f"    {line}\n" for line in lines)
    return f"{head}{chr(10) * 2 if head else ''}def {signature}:\n{body}"


# -- tasks of known difficulty --------------------------------------------------------------


def pipeline_task(
    rng: np.random.Generator,
    modules: int = 4,
    steps: int = 2,
    shape: Literal["chain", "tree", "apart"] = "chain",
    *,
    shown: int = 6,
    hidden: int = 20,
    name: str = "pipeline",
) -> PlannedTask:
    """Draw a task of several functions of lists.

    Parameters
    ----------
    rng : numpy.random.Generator
    modules : int
        Functions, one a module.
    steps : int
        Operations of each, none of which can be spared on the examples shown.
    shape : {"chain", "tree", "apart"}
        ``"chain"``: each works on the result of the one before. ``"tree"``: each but the first two
        joins the results of the two before it. ``"apart"``: none uses another, and only the last
        is called.
    shown, hidden : int
        Examples that programmers see, and those that decide.
    name : str
        Id of the task.

    Returns
    -------
    PlannedTask
    """
    inputs = tuple(
        rng.integers(-9, 10, int(rng.integers(4, 9))).tolist() for _ in range(shown + hidden)
    )
    values: list[Values] = []
    specs: list[Module] = []
    solutions: dict[str, str] = {}
    for index in range(modules):
        own = f"stage_{index + 1}"
        depends = _uses(index, shape)
        arguments = [values[i] for i in depends] or [inputs]
        program, result = _stage(rng, arguments, steps, shown)
        values.append(result)
        function = own if rng.random() < 0.5 else f"{rng.choice(WORDS)}_{index + 1}"
        signature = f"{function}(xs: list[int]) -> list[int]"
        names = tuple(f"stage_{i + 1}" for i in depends)
        lines = to_source(program, [f"${n}(xs)" for n in names] or ["xs"])
        solutions[own] = _function(
            f"${own}(xs: list[int]) -> list[int]", lines, [f"from {n} import ${n}" for n in names]
        )
        specs.append(
            Module(
                own,
                _kind(program),
                f"Stage {index + 1} of {modules}: {_words(program, names)}",
                (signature,),
                names,
                _calls(function, inputs[:shown], result[:shown]),
                cost=float(rng.uniform(0.5, 2.0)),
            )
        )
    last, signature = specs[-1], specs[-1].interface[0]
    task = CodeTask(
        name,
        f"Write {signature}. It works in {modules} stages.\n"
        + "\n".join(f"- {spec.name}: {spec.purpose}" for spec in specs),
        signature,
        acceptance=_calls(last.signatures[0].name, inputs[shown:], values[-1][shown:]),
        examples=last.examples,
        complexity=float(modules * steps),
    )
    return PlannedTask(task, Plan(tuple(specs), last.name), solutions)


def _uses(index: int, shape: str) -> tuple[int, ...]:
    if index == 0 or shape == "apart":
        return ()
    if shape == "chain":
        return (index - 1,)
    return () if index == 1 else (index - 2, index - 1)


def _calls(function: str, inputs: Values, outputs: Values) -> tuple[Example, ...]:
    pairs = zip(inputs, outputs, strict=True)
    return tuple(Example(function, (x,), y) for x, y in pairs)


def _stage(
    rng: np.random.Generator, arguments: Sequence[Values], steps: int, shown: int
) -> tuple[Step, Values]:
    """Draw a program that needs all its steps and whose values are neither empty nor all alike."""
    joins = [op for op in OPERATIONS if op.takes == ("list", "list")]
    seen = [values[:shown] for values in arguments]
    while True:
        program: Step | int = 0
        for step in range(steps):
            if step == 0 and len(arguments) == 2:
                program = Step(joins[rng.integers(len(joins))], (0, 1))
            else:
                program = Step(CHAINABLE[rng.integers(len(CHAINABLE))], (program,))
        assert isinstance(program, Step)
        values = evaluate(program, arguments)
        if values is None or sum(map(bool, values)) < 0.8 * len(values):
            continue
        wanted = values[:shown]
        if len(set(map(str, wanted))) < 0.8 * shown:
            continue
        smaller = space(steps - 1, lists=len(arguments))
        if search(seen, wanted, smaller).program is None:
            return program, values


def _chain(program: Step) -> list[Step]:
    first = program.inputs[0]
    return [*(_chain(first) if isinstance(first, Step) else []), program]


def _kind(program: Step) -> str:
    """Kind of the first operation."""
    return _chain(program)[0].operation.kind


def _words(program: Step, names: Sequence[str]) -> str:
    source = f"the result of {' and '.join(names)}" if names else "the list"
    return f"take {source}; {', then '.join(s.operation.name for s in _chain(program))}"
