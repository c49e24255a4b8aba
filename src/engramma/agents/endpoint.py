"""Language models behind an OpenAI-compatible ``/v1/chat/completions``.

OpenAI, Azure, vLLM, llama.cpp, Ollama, LM Studio and our own `engramma.agents.server` speak this
protocol. Where the endpoint is, and its key, come from the environment, so that neither ends up in
a script: ``ENGRAMMA_LLM_BASE_URL``, ``ENGRAMMA_LLM_API_KEY`` and ``ENGRAMMA_LLM_MODEL``; the first
two fall back to ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY``. No endpoint is called that was not
named: a key alone does not send anybody's data to a default host.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Literal

from engramma.agents.errors import ModelError
from engramma.agents.model import Completion, Message
from engramma.agents.request import check_messages
from engramma.errors import ConfigError, DataError, EngrammaError, MissingPackageError

INSTALL = "pip install 'engramma[agents]'"


def _openai() -> Any:
    try:
        import openai
    except ImportError as error:
        raise MissingPackageError("the package openai is not installed", mend=INSTALL) from error
    return openai


class Endpoint:
    """A language model behind an OpenAI-compatible endpoint.

    The openai client repeats calls that fail for want of a connection, by time-out, or with 408,
    409, 429 or 5xx: after 0.5, 1, 2, 4, 8, 8 ... seconds (less up to a quarter, at random), or
    after as long as the server asks.

    Parameters
    ----------
    model : str, optional
        Its name; ``ENGRAMMA_LLM_MODEL`` by default.
    base_url : str, optional
        Up to and including ``/v1``; from the environment by default.
    key : str, optional
        From the environment by default; servers of one's own mostly need none.
    timeout : float
        Seconds after which one attempt is given up.
    retries : int
        Attempts after the first.
    token_limit : {"max_tokens", "max_completion_tokens"}
        What the endpoint calls the most tokens of an answer; OpenAI's reasoning models know only
        the second.

    Raises
    ------
    ConfigError
        If no endpoint or no model is named.
    MissingPackageError
        If the package openai is not installed.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        base_url: str | None = None,
        key: str | None = None,
        timeout: float = 120.0,
        retries: int = 6,
        token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens",
    ) -> None:
        if timeout <= 0 or retries < 0:
            raise ConfigError(
                f"a time-out of {timeout} s and {retries} retries cannot be carried out",
                mend="timeout is above 0, retries at least 0",
            )
        url = base_url or _environment("ENGRAMMA_LLM_BASE_URL", "OPENAI_BASE_URL")
        if not url:
            raise ConfigError(
                "no endpoint is named",
                mend="set ENGRAMMA_LLM_BASE_URL, for example to http://127.0.0.1:8080/v1 where "
                "`engramma serve smollm2` runs, or to https://api.openai.com/v1",
            )
        name = model or os.environ.get("ENGRAMMA_LLM_MODEL")
        if not name:
            raise ConfigError("no model is named", where=url, mend="set ENGRAMMA_LLM_MODEL")
        self.name, self.url, self._token_limit = name, url, token_limit
        secret = key or _environment("ENGRAMMA_LLM_API_KEY", "OPENAI_API_KEY")
        self._client = _openai().OpenAI(
            base_url=url,
            api_key=secret or "none",  # the client insists on one
            timeout=timeout,
            max_retries=retries,
        )

    def __repr__(self) -> str:
        return f"Endpoint({self.name!r}, base_url={self.url!r})"

    def models(self) -> list[str]:
        """Names of the models that the endpoint offers."""
        try:
            return sorted(m.id for m in self._client.models.list())
        except (_openai().OpenAIError, ValueError, AttributeError, TypeError) as error:
            raise self._explain(error) from error

    def complete(
        self,
        messages: Sequence[Message],
        *,
        temperature: float = 0.0,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Completion:
        """Answer the last message; see `engramma.agents.model.TextModel.complete`.

        Raises
        ------
        ConfigError
            If the key is refused or there is no such model.
        DataError
            If the endpoint refuses the messages or settings.
        ModelError
            If no answer could be had after all retries, or it is empty.
        """
        check_messages(messages)
        options: dict[str, Any] = {self._token_limit: max_tokens}
        if stop:
            options["stop"] = list(stop)
        if seed is not None:
            options["seed"] = seed
        start = time.perf_counter()
        try:
            answer = self._client.chat.completions.create(
                model=self.name,
                messages=[dict(m) for m in messages],
                temperature=temperature,
                **options,
            )
        except (_openai().OpenAIError, ValueError) as error:  # ValueError: a body that is no JSON
            raise self._explain(error) from error
        seconds = time.perf_counter() - start
        usage = getattr(answer, "usage", None)
        return Completion(
            self._text(answer, max_tokens),
            prompt_tokens=getattr(usage, "prompt_tokens", None) or 0,
            completion_tokens=getattr(usage, "completion_tokens", None) or 0,
            seconds=seconds,
        )

    def _text(self, answer: Any, max_tokens: int) -> str:
        try:
            choice = answer.choices[0]
            text, reason = choice.message.content, choice.finish_reason
        except (AttributeError, IndexError, TypeError) as error:
            raise ModelError(
                "what came back is no chat completion",
                where=self._place,
                mend="check that the address ends where the API starts, mostly in /v1",
            ) from error
        if not isinstance(text, str) or not text.strip():
            cut = reason == "length"
            raise ModelError(
                f"the answer is empty (finish_reason: {reason})",
                where=self._place,
                mend=f"raise max_tokens above {max_tokens}"
                if cut
                else "ask anew, or in other words",
            )
        return text

    @property
    def _place(self) -> str:
        return f"model {self.name!r} at {self.url}"

    def _explain(self, error: Exception) -> EngrammaError:
        """Say what an error of the client means, and how to mend it."""
        openai = _openai()
        said = str(error).strip() or type(error).__name__
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return ConfigError(
                f"the key is refused ({error.status_code})",
                where=self._place,
                mend="set ENGRAMMA_LLM_API_KEY to a key of this endpoint",
            )
        if isinstance(error, openai.NotFoundError):
            return ConfigError(
                f"there is no such model, or no API at this address ({said})",
                where=self._place,
                mend="check the name (Endpoint.models() lists them) and that the address ends in "
                "/v1",
            )
        if isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError):
            return DataError(f"the request is refused ({said})", where=self._place)
        if isinstance(error, openai.APITimeoutError):
            return ModelError(
                "no answer in time", where=self._place, mend="raise timeout, or lower max_tokens"
            )
        if isinstance(error, openai.APIConnectionError):
            return ModelError(
                f"the endpoint cannot be reached ({error.__cause__ or said})",
                where=self._place,
                mend="check the address, and that the server runs",
            )
        if isinstance(error, openai.RateLimitError):
            return ModelError(
                f"the endpoint wants fewer calls ({said})",
                where=self._place,
                mend="lower workers, raise retries, or look into the account's limits",
            )
        if isinstance(error, openai.APIStatusError):
            return ModelError(f"the endpoint fails ({said})", where=self._place, mend="try later")
        return ModelError(f"what came back cannot be read ({said})", where=self._place)


def _environment(*names: str) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)
