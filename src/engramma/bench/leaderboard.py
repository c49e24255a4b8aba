"""Leaderboards: every system and baseline that fits a task, on the same seeds."""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from engramma.bench.claims import mean_interval
from engramma.contracts import Estimate, Task
from engramma.errors import ConfigError, EngrammaError
from engramma.progress import track
from engramma.registry import systems, tasks


@dataclass(frozen=True)
class Entry:
    """One line of a leaderboard.

    Parameters
    ----------
    system, title : str
    baseline : bool
    score : Estimate
        Mean over seeds, with its interval; NaN where the system could not do the task.
    scores : tuple of float
        One a seed.
    seconds : float
        Fitting and scoring, all seeds together.
    problem : str
        Why the system could not do the task; empty where it could.
    """

    system: str
    title: str
    baseline: bool
    score: Estimate
    scores: tuple[float, ...]
    seconds: float
    problem: str = ""


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
        If nobody enters the task, a name in ``only`` does not, or there is no seed.

    Notes
    -----
    A contestant that raises an `EngrammaError` (a package is missing, a method is not offered)
    is listed last with what it said, and does not keep the others from being ranked.
    """
    if seeds < 1:
        raise ConfigError(f"a leaderboard needs at least one seed, not {seeds}")
    task = tasks.get(name)
    slugs = contestants(task)
    if not slugs:
        raise ConfigError(f"nobody enters task {name!r}", mend="register a system with tasks=")
    strangers = [slug for slug in only if slug not in slugs]
    if strangers:
        close = difflib.get_close_matches(strangers[0], slugs, n=3)
        raise ConfigError(
            f"{strangers[0]!r} does not enter task {name!r}",
            mend=f"did you mean {' or '.join(close)}?"
            if close
            else f"contestants are {', '.join(slugs)}",
        )
    slugs = [slug for slug in slugs if not only or slug in only]
    scores: dict[str, list[float]] = {slug: [] for slug in slugs}
    seconds = dict.fromkeys(slugs, 0.0)
    problems: dict[str, str] = {}
    best: list[float] = []
    data, prepared = None, -1
    todo = [(seed, slug) for seed in range(seeds) for slug in slugs]
    for seed, slug in track(todo, name):
        if seed != prepared:
            data, prepared = task.prepare(seed), seed
            if task.ceiling is not None:
                best.append(float(task.ceiling(data)))
        if slug in problems:
            continue
        start = time.perf_counter()
        try:
            scores[slug].append(float(task.score(systems.get(slug).factory(), data)))
        except EngrammaError as error:
            problems[slug] = str(error)
        seconds[slug] += time.perf_counter() - start
    entries = [_entry(slug, scores[slug], seconds[slug], problems.get(slug, "")) for slug in slugs]
    entries.sort(key=lambda e: (e.score.value != e.score.value, -e.score.value))  # NaN last
    return Leaderboard(task, tuple(entries), mean_interval(best) if best else None, seeds)


def _entry(slug: str, scores: list[float], seconds: float, problem: str) -> Entry:
    card = systems.get(slug)
    score = Estimate(float("nan")) if problem else mean_interval(scores)
    return Entry(slug, card.title, card.baseline, score, tuple(scores), round(seconds, 2), problem)
