"""Where systems, tasks, readers and worlds register and are found.

Everything registers by decorator, and is found by entry point: the groups ``engramma.systems``,
``engramma.tasks``, ``engramma.worlds`` and ``engramma.readers`` name packages, all of whose
modules are imported when something of that kind is first asked for. So a new file in a room is
found without being listed, and any installed package may add its own.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from engramma.contracts import CONTRACTS, Claim, SystemCard, Task
from engramma.errors import ConfigError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Registry(Generic[T]):
    """Named things of one kind, whose modules are imported at first use."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def add(self, name: str, item: T) -> None:
        """Register ``item``; a name taken by something else is an error."""
        if name in self._items:
            raise ConfigError(f"two {self.kind}s are called {name!r}", mend="rename one of them")
        self._items[name] = item

    def get(self, name: str) -> T:
        """Return the item called ``name``.

        Raises
        ------
        ConfigError
            If there is none; close names are suggested.
        """
        load_plugins(self.kind)
        if name not in self._items:
            close = difflib.get_close_matches(name, self._items, n=3)
            raise ConfigError(
                f"there is no {self.kind} called {name!r}",
                mend=f"did you mean {' or '.join(close)}?" if close else f"see {self.listing}",
            )
        return self._items[name]

    def all(self) -> Mapping[str, T]:
        """Return everything registered, sorted by name."""
        load_plugins(self.kind)
        return dict(sorted(self._items.items()))

    @property
    def listing(self) -> str:
        """The command that lists these."""
        return (
            "`engramma systems`" if self.kind == "system" else f"`engramma systems --{self.kind}s`"
        )


systems: Registry[SystemCard] = Registry("system")
tasks: Registry[Task] = Registry("task")
worlds: Registry[Callable[..., Any]] = Registry("world")
readers: Registry[Any] = Registry("reader")

_loaded: set[str] = set()


def family(name: str | None) -> list[SystemCard]:
    """Cards of the systems of one family; of all, where no family is named.

    Raises
    ------
    ConfigError
        If there is no such family; close names are suggested.
    """
    cards = list(systems.all().values())
    known = sorted({card.family for card in cards})
    if name is not None and name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        raise ConfigError(
            f"there is no family called {name!r}",
            mend=f"did you mean {' or '.join(close)}?" if close else f"use {', '.join(known)}",
        )
    return [card for card in cards if name in (None, card.family)]


def load_plugins(kind: str) -> None:
    """Import every module of the packages that the entry points of one kind name."""
    if kind in _loaded:
        return
    _loaded.add(kind)
    for entry in entry_points(group=f"engramma.{kind}s"):
        package = entry.load()
        search = getattr(package, "__path__", ())
        for module in pkgutil.walk_packages(search, prefix=package.__name__ + "."):
            importlib.import_module(module.name)


def system(
    slug: str,
    *,
    family: str,
    title: str,
    contract: str | Iterable[str],
    paper: str = "",
    bibtex: str = "",
    claims: Iterable[Claim] = (),
    tasks: Iterable[str] = (),
    run: Callable[..., Any] | None = None,
    baseline: bool = False,
) -> Callable[[F], F]:
    """Register the decorated class as a system (or, with ``baseline=True``, as a baseline)."""
    names = (contract,) if isinstance(contract, str) else tuple(contract)
    unknown = [n for n in names if n not in CONTRACTS]
    if unknown:
        raise ConfigError(
            f"system {slug!r} names an unknown contract {unknown[0]!r}",
            mend=f"use one of {', '.join(CONTRACTS)}",
        )

    def register(factory: F) -> F:
        card = SystemCard(
            slug=slug,
            family=family,
            title=title,
            contract=names,
            factory=factory,
            paper=paper,
            bibtex=bibtex,
            claims=tuple(claims),
            tasks=tuple(tasks),
            run=run,
            baseline=baseline,
        )
        systems.add(slug, card)
        return factory

    return register


def world(name: str) -> Callable[[F], F]:
    """Register the decorated ``f(seed=0, **options) -> Recording | Cohort | ...`` as a world."""

    def register(factory: F) -> F:
        worlds.add(name, factory)
        return factory

    return register


def add_task(task: Task) -> Task:
    """Register a task."""
    tasks.add(task.name, task)
    return task
