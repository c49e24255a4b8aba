"""A programmer whose answers are known: right sources, with failures at given rates.

It stands where a language model stands, so that what an orchestration makes of failures can be
computed in advance. It knows how to write each module, but not what the others' functions are
called: that it takes from the interfaces in its message, and without them it guesses that a
function is called like its module.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from string import Template
from typing import Any

import numpy as np

from engramma.agents.code_plan import KINDS, Plan, Signature
from engramma.agents.model import Completion, Message
from engramma.agents.synthesis import PlannedTask, planned, request_of
from engramma.errors import ConfigError

#: What a failing answer looks like: no code, broken code, a wrong value, the wrong number of
#: arguments, no end, a forbidden import.
FAILURES: Mapping[str, str] = {
    "silent": "I am sorry, I cannot help with that.",
    "syntax": "```python\ndef $name(:\n```",
    "value": "```python\ndef $name(xs):\n    return None\n```",
    "arity": "```python\ndef $name():\n    return []\n```",
    "hang": "```python\ndef $name(xs):\n    while True:\n        pass\n```",
    "import": "```python\nimport os\ndef $name(xs):\n    return os.getcwd()\n```",
}


class ScriptedCoder:
    """Right answers, and failures at given rates.

    Parameters
    ----------
    tasks : iterable of PlannedTask
    failures : mapping of str to float
        Probability of each way to fail (`FAILURES`), in each answer.
    mismatch : float
        Additional probability of a wrong value where the agent that is asked (its kind stands in
        the system message) is not of the module's kind. At 0 the programmer does not care who it
        is said to be.
    seed : int
        The draw of a failure depends on this, the call's own seed and the messages, without the
        system message.

    Raises
    ------
    ConfigError
        If a way to fail is unknown or the probabilities exceed 1.
    """

    def __init__(
        self,
        tasks: Iterable[PlannedTask],
        failures: Mapping[str, float] | None = None,
        *,
        mismatch: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.name = "scripted"
        self.plans: dict[str, Plan] = {}
        self.solutions: dict[str, str] = {}
        for each in tasks:
            self.plans[each.task.id] = each.plan
            for module in each.plan.modules:
                self.solutions[_key(module.to_json())] = each.solutions[module.name]
        self.failures, self.mismatch, self.seed = dict(failures or {}), mismatch, seed
        unknown = set(self.failures) - set(FAILURES)
        if unknown:
            raise ConfigError(
                f"there is no way to fail called {min(unknown)!r}",
                mend=f"use {', '.join(FAILURES)}",
            )
        if not 0 <= sum(self.failures.values()) + mismatch <= 1:
            raise ConfigError("the probabilities of failure must lie between 0 and 1 in all")

    def complete(
        self,
        messages: Sequence[Message],
        *,
        temperature: float = 0.0,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Completion:
        """Answer with a plan, a module's source, or a failure."""
        request = request_of(messages)
        if "task" in request:
            return Completion(planned(request, self.plans))
        text = self._answer(request, messages, seed)
        prompt = sum(len(m["content"].split()) for m in messages)
        return Completion(text, prompt, len(text.split()))

    def _answer(
        self, request: Mapping[str, Any], messages: Sequence[Message], seed: int | None
    ) -> str:
        module = request["module"]
        name = Signature.of(module["interface"][0]).name
        said = [m["content"] for m in messages if m["role"] != "system"]
        digest = hashlib.blake2b(repr((self.seed, seed, said)).encode(), digest_size=8).digest()
        rng = np.random.default_rng(int.from_bytes(digest))
        wrong = self.mismatch * (_role(messages) not in (module["kind"], ""))
        ways = [*self.failures, "value", ""]
        rates = [*self.failures.values(), wrong]
        way = ways[rng.choice(len(ways), p=[*rates, max(0.0, 1 - sum(rates))])]
        if way:
            return Template(FAILURES[way]).substitute(name=name)
        functions = {other: other for other in module["depends"]}
        for dependency in request["dependencies"]:
            signature = Signature.of(dependency["interface"][0])
            functions[dependency["name"]] = signature.name
        source = self.solutions.get(_key(module))
        if source is None:
            return FAILURES["silent"]
        filled = Template(source).substitute(functions | {module["name"]: name})
        return f"```python\n{filled}```"


def _key(module: Mapping[str, Any]) -> str:
    return json.dumps(module, sort_keys=True)


def _role(messages: Sequence[Message]) -> str:
    """Kind of the agent that the system message speaks to; empty if it names none."""
    said = " ".join(m["content"] for m in messages if m["role"] == "system")
    return next((kind for kind in KINDS if kind in said), "")
