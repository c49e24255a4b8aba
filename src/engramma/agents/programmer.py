"""An agent that writes one module of a program, and mends it until its checks pass."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engramma.agents.code_plan import Module, fenced
from engramma.agents.model import Completion, Message, TextModel
from engramma.agents.sandbox import Outcome
from engramma.errors import EngrammaError

WRITE = """Write this Python module. Import what it depends on by module name, and nothing beside
it but Python's own modules that only compute. Answer with one fenced block of Python."""


@dataclass(frozen=True)
class Written:
    """What came of one module.

    Parameters
    ----------
    module, agent : str
    source : str
        The last that was written; empty if there is none.
    problem : str
        Why it failed; empty if it passed its checks.
    attempts : int
    outcome : Outcome, optional
        Of the unit examples.
    completions : tuple of Completion
    runs : int
        Processes started in the sandbox.
    """

    module: str
    agent: str
    source: str = ""
    problem: str = ""
    attempts: int = 0
    outcome: Outcome | None = None
    completions: tuple[Completion, ...] = ()
    runs: int = 0


class Agent:
    """One agent: it writes a module, and mends it while a check finds something wrong.

    Parameters
    ----------
    name : str
    role : str
        System message: who it is said to be.
    llm : TextModel
    retries : int
        Further attempts after the first.
    tokens : int
        Most tokens of one attempt.
    """

    def __init__(self, name: str, role: str, llm: TextModel, retries: int, tokens: int) -> None:
        self.name, self.role, self.llm = name, role, llm
        self.retries, self.tokens = retries, tokens

    def solve(
        self,
        spec: Module,
        dependencies: Sequence[Mapping[str, Any]],
        check: Callable[[str], Outcome],
        complaint: str = "",
    ) -> Written:
        """Write one module.

        Parameters
        ----------
        spec : Module
        dependencies : sequence of mapping
            Interfaces that the agent is shown.
        check : callable
            ``check(source)``: outcome of the unit examples.
        complaint : str
            What an earlier version did wrong in the assembled program.

        Returns
        -------
        Written
            Its ``problem`` says why all attempts failed; a back-end that gives no answer is one.
        """
        request = {"module": spec.to_json(), "dependencies": list(dependencies)}
        ask = f"{WRITE}\n```json\n{json.dumps(request)}\n```"
        if complaint:
            ask += f"\nAn earlier version failed in the assembled program: {complaint}"
        messages: list[Message] = [
            {"role": "system", "content": self.role},
            {"role": "user", "content": ask},
        ]
        written = Written(spec.name, self.name)
        for attempt in range(1 + self.retries):
            try:
                reply = self.llm.complete(
                    messages,
                    temperature=0.7 if attempt else 0.0,
                    max_tokens=self.tokens,
                    seed=attempt,
                )
            except EngrammaError as error:
                return replace(written, problem=f"the model gave no answer: {error}")
            source = fenced(reply.text, "python")
            outcome, problem = None, "the answer has no fenced block of Python"
            if reply.completion_tokens >= self.tokens:
                problem = f"the answer was cut off after {self.tokens} tokens: write less"
            if source is not None:
                problem = spec.check(source)
                if not problem:
                    outcome = check(source)
                    problem = outcome.message
            written = Written(
                spec.name,
                self.name,
                source or "",
                problem,
                attempt + 1,
                outcome,
                (*written.completions, reply),
                written.runs + (outcome is not None),
            )
            if not problem:
                break
            messages += [
                {"role": "assistant", "content": reply.text},
                {"role": "user", "content": f"That failed: {problem}\nMend the module."},
            ]
        return written
