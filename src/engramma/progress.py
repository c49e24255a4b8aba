"""Progress of long work: silent in a library, a bar where the command line asks for one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
_display: ContextVar[Progress | None] = ContextVar("engramma_progress", default=None)


@contextmanager
def show_progress(enabled: bool = True) -> Iterator[None]:
    """Show a bar on standard error for everything tracked inside the ``with`` block."""
    if not enabled:
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:g}/{task.total:g}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        token = _display.set(display)
        try:
            yield
        finally:
            _display.reset(token)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items``, advancing a progress bar if one is shown."""
    display = _display.get()
    if display is None:
        yield from items
        return
    if total is None and isinstance(items, Sequence):
        total = len(items)
    task = display.add_task(description, total=total)
    try:
        for item in items:
            yield item
            display.advance(task)
    finally:
        display.remove_task(task)
