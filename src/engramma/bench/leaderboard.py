"""Leaderboards: every system and baseline that fits a task, on the same seeds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from engramma.bench.claims import mean_interval
from engramma.contracts import Estimate, Task
from engramma.errors import ConfigError
from engramma.progress import track
from engramma.registry import systems, tasks


@dataclass(frozen=True)
class Entry:
    """One line of a leaderboard."""

    system: str
    title: str
    baseline: bool
    score: Estimate
    scores: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class Leaderboard:
    """Scores of all contestants of a task, best first.

    Parameters
    ----------
    task : Task
    entries : tuple of Entry
    ceiling : Estimate or None
        Best score that the data allow, over the same seeds.
    seeds : int
    """

    task: Task
    entries: tuple[Entry, ...]
    ceiling: Estimate | None
    seeds: int


def contestants(task: Task) -> list[str]:
    """Slugs of the systems and baselines that enter a task and fulfil its contract."""
    return [
        slug
        for slug, card in systems.all().items()
        if task.name in card.tasks and task.contract in card.contract
    ]


def bench(name: str, *, seeds: int = 3, only: Sequence[str] = ()) -> Leaderboard:
    """Run a task.

    Parameters
    ----------
    name : str
        Name of the task.
    seeds : int
        Number of seeds; each generates the data anew, and all contestants meet the same data.
    only : sequence of str
        Run these contestants only.

    Returns
    -------
    Leaderboard

    Raises
    ------
    ConfigError
        If nobody enters the task, or a name in ``only`` does not.
    """
    task = tasks.get(name)
    slugs = contestants(task)
    strangers = [slug for slug in only if slug not in slugs]
    if strangers or not slugs:
        raise ConfigError(
            f"{strangers[0]!r} does not enter task {name!r}" if strangers
            else f"nobody enters task {name!r}",
            mend=f"contestants are {', '.join(slugs)}" if slugs else "register one with tasks=",
        )
    slugs = [slug for slug in slugs if not only or slug in only]
    scores: dict[str, list[float]] = {slug: [] for slug in slugs}
    seconds = dict.fromkeys(slugs, 0.0)
    best: list[float] = []
    todo = [(seed, slug) for seed in range(seeds) for slug in slugs]
    data, prepared = None, -1
    for seed, slug in track(todo, name):
        if seed != prepared:
            data, prepared = task.prepare(seed), seed
            if task.ceiling is not None:
                best.append(float(task.ceiling(data)))
        start = time.perf_counter()
        scores[slug].append(float(task.score(systems.get(slug).factory(), data)))
        seconds[slug] += time.perf_counter() - start
    entries = [
        Entry(
            slug,
            systems.get(slug).title,
            systems.get(slug).baseline,
            mean_interval(scores[slug]),
            tuple(scores[slug]),
            round(seconds[slug], 2),
        )
        for slug in slugs
    ]
    entries.sort(key=lambda e: -e.score.value)
    return Leaderboard(task, tuple(entries), mean_interval(best) if best else None, seeds)
