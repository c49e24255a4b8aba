"""Many requests at once, each with an answer or an error of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, TypeVar

from engramma.agents.model import Completion, TextModel
from engramma.agents.request import Request
from engramma.errors import ConfigError
from engramma.progress import track

T = TypeVar("T")
R = TypeVar("R")


def complete_many(
    model: TextModel, requests: Sequence[Request], workers: int = 8
) -> list[Completion | Exception]:
    """Answer all requests, ``workers`` of them at a time.

    Parameters
    ----------
    model : TextModel
    requests : sequence of Request
    workers : int

    Returns
    -------
    list of Completion or Exception
        In the order of the requests. A request that failed has its exception in its place, so that
        one failure does not cost the other answers.
    """
    return map_many(lambda request: request.ask(model), requests, workers, "asking")


def map_many(
    function: Callable[[T], R], items: Sequence[T], workers: int, description: str
) -> list[R | Exception]:
    """Apply a function to all items in threads, keeping their order; exceptions are results.

    Ctrl-C drops what has not begun, waits for no answer, and is raised.

    Parameters
    ----------
    function : callable
    items : sequence
    workers : int
        With 1 no thread is started.
    description : str
        For the progress bar.
    """
    if workers < 1:
        raise ConfigError(f"{workers} workers cannot do anything", mend="give at least one")
    if workers == 1 or len(items) < 2:
        return [_outcome(function, item) for item in track(items, description)]
    todo, done, stopped = SimpleQueue[int](), SimpleQueue[tuple[int, Any]](), Event()
    for index in range(len(items)):
        todo.put(index)

    def work() -> None:
        with suppress(Empty):
            while not stopped.is_set():
                index = todo.get_nowait()
                try:
                    done.put((index, _outcome(function, items[index])))
                except BaseException as error:  # ends this thread, and then the caller
                    done.put((index, error))
                    return

    # Threads of an executor would be waited for when the interpreter ends, even after Ctrl-C.
    for _ in range(min(workers, len(items))):
        Thread(target=work, daemon=True, name=f"engramma {description}").start()
    outcomes: list[R | Exception] = [RuntimeError("not begun")] * len(items)
    try:
        for _ in track(range(len(items)), description):
            index, outcome = done.get()
            if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
                raise outcome
            outcomes[index] = outcome
    finally:
        stopped.set()
    return outcomes


def _outcome(function: Callable[[T], R], item: T) -> R | Exception:
    try:
        return function(item)
    except Exception as error:
        return error
