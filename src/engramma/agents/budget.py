"""A limit to what a model may cost, held before the call that would exceed it."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from engramma.agents.errors import BudgetError
from engramma.agents.model import Completion, Message, TextModel
from engramma.agents.request import Request
from engramma.errors import ConfigError

#: Tokens that a chat template puts around a message, at most.
_AROUND_A_MESSAGE = 16


class Budgeted:
    """A model that stops before it costs more than was granted; safe between threads.

    What a call costs is known only after it. So each call first sets aside the most that it can
    cost, one token a byte of its messages, a few around each, and ``max_tokens`` for the answer,
    and afterwards gives back what it did not use. The limit is never exceeded; the last call or two
    that would have fitted may be refused. Answers that were cached cost nothing (to have them when
    the budget is spent, put the cache around it: ``Cached(Budgeted(model, ...), folder)``); a call
    that failed counts as a call; where a model does not say what an answer cost, bytes are counted.

    Parameters
    ----------
    model : TextModel
    max_calls, max_tokens : int, optional
        Of all calls together, prompts and answers. At least one of the two is given.
    """

    def __init__(
        self, model: TextModel, *, max_calls: int | None = None, max_tokens: int | None = None
    ) -> None:
        if max_calls is None and max_tokens is None:
            raise ConfigError("a budget has a limit", mend="give max_calls, max_tokens or both")
        if min(max_calls or 0, max_tokens or 0) < 0:
            raise ConfigError("a budget cannot be negative", where="Budgeted")
        self.model, self.max_calls, self.max_tokens = model, max_calls, max_tokens
        self.name = model.name
        #: What has been spent, and set aside for calls under way.
        self.calls, self.tokens = 0, 0
        self._lock = Lock()

    def complete(
        self,
        messages: Sequence[Message],
        *,
        temperature: float = 0.0,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Completion:
        """Answer, if the most that it can cost is left.

        Raises
        ------
        BudgetError
            If it is not.
        """
        request = Request(messages, temperature, max_tokens, stop, seed)
        most = request.prompt_bytes + _AROUND_A_MESSAGE * len(messages) + max_tokens
        self._set_aside(most)
        try:
            answer = request.ask(self.model)
        except BaseException:
            self._settle(-most)
            raise
        used = answer.prompt_tokens + answer.completion_tokens
        used = used or request.prompt_bytes + len(answer.text.encode())
        if answer.cached:
            self._settle(-most, calls=-1)
        else:
            self._settle(used - most)
        return answer

    def _set_aside(self, tokens: int) -> None:
        with self._lock:
            if self.max_calls is not None and self.calls + 1 > self.max_calls:
                raise BudgetError(
                    f"the budget of {self.max_calls} calls is spent",
                    where=f"model {self.name!r}",
                    mend="raise max_calls",
                )
            if self.max_tokens is not None and self.tokens + tokens > self.max_tokens:
                raise BudgetError(
                    f"the next call may cost {tokens} tokens, and {self.max_tokens - self.tokens} "
                    f"of {self.max_tokens} are left",
                    where=f"model {self.name!r}",
                    mend="raise max_tokens of the budget, or lower max_tokens of the answer",
                )
            self.calls += 1
            self.tokens += tokens

    def _settle(self, tokens: int, calls: int = 0) -> None:
        with self._lock:
            self.calls += calls
            self.tokens += tokens
