"""Answers on disk, found again by what was asked: a run that is repeated costs nothing."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engramma.agents.model import Completion, Message, TextModel
from engramma.agents.request import Request, digest
from engramma.errors import DataError, DataWarning


class Cached:
    """A model whose answers are kept in a folder.

    An answer is found by the model's name, the messages and all settings, the seed among them.
    Entries are written whole or not at all, so that threads and processes can share a folder; one
    that was damaged is told of, asked anew and replaced. Failures are not kept.

    Parameters
    ----------
    model : TextModel
    folder : path
        Made where it is absent. It holds the prompts and answers in the clear.

    Raises
    ------
    DataError
        If the folder cannot be written to.
    """

    def __init__(self, model: TextModel, folder: str | Path) -> None:
        self.model, self.folder = model, Path(folder)
        self.name = model.name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise DataError(
                f"answers cannot be kept ({error.strerror})",
                where=str(self.folder),
                mend="name a folder that can be written to",
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
        """Answer from disk, or ask the model and keep what it says.

        Raises
        ------
        EngrammaError
            What the model raises; DataError if the answer cannot be written.
        """
        request = Request(messages, temperature, max_tokens, stop, seed)
        key = request.key(self.name)
        path = self.folder / key[:2] / f"{key}.json"
        kept = _read(path)
        if kept is not None:
            return kept
        answer = request.ask(self.model)
        _write(path, {"model": self.name, **request.as_json()}, answer)
        return answer


def _read(path: Path) -> Completion | None:
    try:
        entry = json.loads(path.read_text("utf-8"))
        answer = entry["answer"]
        if entry["checksum"] != digest(answer):
            raise ValueError("the checksum differs")
        return Completion(**answer, cached=True)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(
            f"a kept answer is damaged and asked for again ({error}): {path}",
            DataWarning,
            stacklevel=4,
        )
        return None


def _write(path: Path, request: dict[str, Any], answer: Completion) -> None:
    kept = {
        "text": answer.text,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "seconds": answer.seconds,
    }
    entry = json.dumps({"request": request, "answer": kept, "checksum": digest(kept)}, indent=1)
    work = ""
    try:
        path.parent.mkdir(exist_ok=True)
        handle, work = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(entry)
        Path(work).replace(path)
    except OSError as error:
        raise DataError(
            f"an answer cannot be kept ({error.strerror})",
            where=str(path),
            mend="free some space, or name another folder",
        ) from error
    finally:
        if work:
            Path(work).unlink(missing_ok=True)
