"""Every exchange with a model as a line of JSON, and a model that answers from such a file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from engramma.agents.errors import ModelError
from engramma.agents.model import Completion, Message, TextModel
from engramma.agents.request import Request
from engramma.errors import DataError, DataWarning, EngrammaError

_SETTINGS = ("messages", "temperature", "max_tokens", "stop", "seed")


class Recorded:
    """A model whose every exchange is written down as it happens.

    A line holds the model's name, messages and settings, and either text, tokens and seconds of the
    answer or the error. Each is on disk before the answer is handed on. Threads can share one
    recorder; an existing file is gone on with.

    Parameters
    ----------
    model : TextModel
    path : path
        JSON lines. It holds prompts and answers in the clear, and no key.
    """

    def __init__(self, model: TextModel, path: str | Path) -> None:
        self.model, self.path = model, Path(path)
        self.name = model.name
        self._lock = Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                if file.tell():  # a run that was killed may have left half a line
                    file.seek(-1, 2)
                    if file.read(1) != b"\n":
                        file.write(b"\n")
        except OSError as error:
            raise DataError(
                f"the transcript cannot be written ({error.strerror})", where=str(self.path)
            ) from error

    def complete(
        self,
        messages: Sequence[Message],
        *,
        temperature: float = 0.0,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Completion:
        """Have the model answer, and write the exchange down.

        Raises
        ------
        EngrammaError
            What the model raises; it is written down too.
        """
        request = Request(messages, temperature, max_tokens, stop, seed)
        try:
            answer = request.ask(self.model)
        except EngrammaError as error:
            self._write(request, {"error": str(error)})
            raise
        self._write(
            request,
            {
                "text": answer.text,
                "prompt_tokens": answer.prompt_tokens,
                "completion_tokens": answer.completion_tokens,
                "seconds": round(answer.seconds, 4),
                "cached": answer.cached,
            },
        )
        return answer

    def _write(self, request: Request, outcome: dict[str, Any]) -> None:
        line = json.dumps({"model": self.name, **request.as_json(), **outcome}, ensure_ascii=False)
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class Replay:
    """A model that answers from a transcript, and refuses what is not in it.

    Where the same request was made several times, its answers come in the order of the file, and
    then the last of them again. Errors are raised as they were.

    Parameters
    ----------
    path : path
        As `Recorded` wrote it.

    Raises
    ------
    DataError
        If there is no such file, or a line in it is no exchange, or it is of several models. A last
        line that was cut short is told of and left out.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._answers: dict[str, list[dict[str, Any]]] = {}
        self._next: dict[str, int] = {}
        self._lock = Lock()
        names = set()
        for exchange in _read(self.path):
            names.add(exchange["model"])
            request = Request(**{k: exchange[k] for k in _SETTINGS})
            self._answers.setdefault(request.key(exchange["model"]), []).append(exchange)
        if len(names) != 1:
            raise DataError(
                f"the transcript has exchanges with {', '.join(sorted(names)) or 'no model'}",
                where=str(self.path),
                mend="record each model in a file of its own",
            )
        self.name: str = names.pop()

    def complete(
        self,
        messages: Sequence[Message],
        *,
        temperature: float = 0.0,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Completion:
        """Answer as was recorded.

        Raises
        ------
        ModelError
            If this was never asked, or failed when it was.
        """
        request = Request(messages, temperature, max_tokens, stop, seed)
        key = request.key(self.name)
        with self._lock:
            answers = self._answers.get(key)
            if not answers:
                raise ModelError(
                    f"this was not asked: {request.messages[-1]['content'][:80]!r}",
                    where=str(self.path),
                    mend="replay with the settings of the recorded run, or record it again",
                )
            index = self._next.get(key, 0)
            self._next[key] = index + 1
        exchange = answers[min(index, len(answers) - 1)]
        if "error" in exchange:
            raise ModelError(exchange["error"])
        return Completion(
            exchange["text"],
            exchange["prompt_tokens"],
            exchange["completion_tokens"],
            exchange["seconds"],
            exchange["cached"],
        )


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the transcript cannot be read ({error})", where=str(path)) from error
    exchanges = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            exchange = json.loads(line)
            if not {"model", *_SETTINGS} <= set(exchange) or not {"text", "error"} & set(exchange):
                raise ValueError("fields are missing")
        except (ValueError, TypeError) as error:
            if number == len(lines):
                warnings.warn(
                    f"the last line was cut short and is left out: {path}",
                    DataWarning,
                    stacklevel=3,
                )
                break
            raise DataError(
                f"the line is no exchange ({error})",
                where=f"{path}, line {number}",
                mend="delete the line",
            ) from error
        exchanges.append(exchange)
    return exchanges
