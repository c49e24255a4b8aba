"""A model that says what it was told to say: for tests, simulations and examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from threading import Lock

from engramma.agents.errors import ModelError
from engramma.agents.model import Completion, Message
from engramma.agents.request import check_messages


class Scripted:
    """Answers given in advance, one after the other, or by a function of the messages.

    Parameters
    ----------
    answers : iterable of str or Exception, or callable
        An exception is raised in its turn. A callable is given the messages, and returns a text or
        raises.
    name : str

    Notes
    -----
    Tokens are counted as words.
    """

    def __init__(
        self,
        answers: Iterable[str | Exception] | Callable[[Sequence[Message]], str],
        name: str = "scripted",
    ) -> None:
        self.name = name
        self._function = answers if callable(answers) else None
        self._answers = iter(() if callable(answers) else answers)
        self._lock = Lock()
        #: Calls so far.
        self.calls = 0

    def complete(
        self,
        messages: Sequence[Message],
        *,
        temperature: float = 0.0,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Completion:
        """Give the next answer; settings change nothing.

        Raises
        ------
        ModelError
            If the answers have run out.
        """
        check_messages(messages)
        with self._lock:
            self.calls += 1
            answer = None if self._function else next(self._answers, None)
        if self._function:
            answer = self._function(messages)
        if answer is None:
            raise ModelError(
                f"no answer is left for call {self.calls}", where=f"model {self.name!r}"
            )
        if isinstance(answer, Exception):
            raise answer
        words = sum(len(m["content"].split()) for m in messages)
        return Completion(answer, words, len(answer.split()))
