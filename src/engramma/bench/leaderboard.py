"""Leaderboards: every system and baseline that fits a task, on the same seeds."""

from __future__ import annotations

import difflib
import inspect
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engramma.bench.claims import mean_interval
from engramma.contracts import Estimate, Scored, Task
from engramma.errors import ConfigError, DataError, EngrammaError
from engramma.progress import track
from engramma.registry import systems, tasks
from engramma.versions import versions

SCORES = "scores.json"


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
    curve : mapping of number to Estimate
        The score along the task's axis, where it has one.
    details : mapping of str to float
        What else the task measures, means over seeds.
    """

    system: str
    title: str
    baseline: bool
    score: Estimate
    scores: tuple[float, ...]
    seconds: float
    problem: str = ""
    curve: Mapping[float, Estimate] = field(default_factory=dict)
    details: Mapping[str, float] = field(default_factory=dict)


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


def bench(
    name: str,
    *,
    seeds: int = 3,
    only: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    fresh: bool = False,
) -> Leaderboard:
    """Run a task.

    Parameters
    ----------
    name : str
        Name of the task.
    seeds : int
        Number of seeds; each generates the data anew, and all contestants meet the same data.
    only : sequence of str
        Run these contestants only.
    options : mapping, optional
        Of the task's ``prepare``.
    folder : path, optional
        Keep every score here as soon as it is there (``scores.json``), and do not measure again
        what is kept there for the same options and versions.
    fresh : bool
        Forget what is kept.

    Returns
    -------
    Leaderboard

    Raises
    ------
    ConfigError
        If nobody enters the task, a name in ``only`` does not, the task knows no such option, or
        there is no seed.
    DataError
        If the scores kept in ``folder`` are damaged.

    Notes
    -----
    A contestant that raises an `EngrammaError` (a package is missing, a method is not offered)
    is listed last with what it said, and does not keep the others from being ranked.
    """
    if seeds < 1:
        raise ConfigError(f"a leaderboard needs at least one seed, not {seeds}")
    task = tasks.get(name)
    slugs = _chosen(task, only)
    options = _checked(task, dict(options or {}))
    kept = _Kept.open(folder, {"task": name, "options": options, "versions": versions()}, fresh)
    problems: dict[str, str] = {}
    best: list[float] = []
    data, prepared = None, -1
    for seed, slug in track([(seed, slug) for seed in range(seeds) for slug in slugs], name):
        known = kept.get(slug, seed) is not None
        if seed != prepared and not (known and task.ceiling is None):
            data, prepared = task.prepare(seed, **options), seed
            if task.ceiling is not None:
                best.append(float(task.ceiling(data)))
        if known or slug in problems:
            continue
        start = time.perf_counter()
        try:
            scored = task.score(systems.get(slug).factory(), data)
        except EngrammaError as error:
            problems[slug] = str(error)
            continue
        if not isinstance(scored, Scored):
            scored = Scored(float(scored))
        kept.add(slug, seed, scored, time.perf_counter() - start)
    entries = [
        _entry(slug, [kept.get(slug, seed) for seed in range(seeds)], problems.get(slug, ""))
        for slug in slugs
    ]
    entries.sort(key=lambda e: (e.score.value != e.score.value, -e.score.value))  # NaN last
    return Leaderboard(task, tuple(entries), mean_interval(best) if best else None, seeds)


def _chosen(task: Task, only: Sequence[str]) -> list[str]:
    """Slugs of those who are to be run."""
    slugs = contestants(task)
    if not slugs:
        raise ConfigError(f"nobody enters task {task.name!r}", mend="register a system with tasks=")
    strangers = [slug for slug in only if slug not in slugs]
    if strangers:
        close = difflib.get_close_matches(strangers[0], slugs, n=3)
        raise ConfigError(
            f"{strangers[0]!r} does not enter task {task.name!r}",
            mend=f"did you mean {' or '.join(close)}?"
            if close
            else f"contestants are {', '.join(slugs)}",
        )
    return [slug for slug in slugs if not only or slug in only]


def _checked(task: Task, options: dict[str, Any]) -> dict[str, Any]:
    """Refuse options that the task does not take, before any work."""
    known = [p for p in inspect.signature(task.prepare).parameters.values()][1:]
    names = [p.name for p in known if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for name in options:
        if name not in names:
            raise ConfigError(
                f"task {task.name!r} has no option {name!r}",
                mend=f"its options are {', '.join(names)}" if names else "it takes none",
            )
    return options


class _Kept:
    """Scores by contestant and seed, written after each one where there is a folder."""

    def __init__(self, path: Path | None, about: Mapping[str, Any], scores: dict[str, Any]) -> None:
        self.path, self.about, self.scores = path, about, scores

    @classmethod
    def open(cls, folder: str | Path | None, about: Mapping[str, Any], fresh: bool) -> _Kept:
        """Take up what is kept for the same task, options and versions."""
        if folder is None:
            return cls(None, about, {})
        path = Path(folder) / SCORES
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            before = json.loads(path.read_text()) if path.exists() and not fresh else {}
            same = all(before.get(k) == v for k, v in json.loads(json.dumps(about)).items())
            return cls(path, about, dict(before["scores"]) if same and before else {})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"the scores kept here cannot be used ({error})",
                where=str(path),
                mend="name another folder, or start anew with --fresh",
            ) from error

    def get(self, slug: str, seed: int) -> tuple[Scored, float] | None:
        """Return a score and the seconds it took, if it is there."""
        kept = self.scores.get(f"{slug}/{seed}")
        if kept is None:
            return None
        curve = {float(place): value for place, value in kept["curve"]}
        return Scored(kept["value"], curve, kept["details"]), kept["seconds"]

    def add(self, slug: str, seed: int, scored: Scored, seconds: float) -> None:
        """Keep a score."""
        self.scores[f"{slug}/{seed}"] = {
            "value": scored.value,
            "curve": [[float(place), value] for place, value in scored.curve.items()],
            "details": dict(scored.details),
            "seconds": seconds,
        }
        if self.path is not None:
            work = self.path.with_name(self.path.name + ".part")
            work.write_text(json.dumps({**self.about, "scores": self.scores}, indent=1))
            work.replace(self.path)


def _entry(slug: str, kept: Sequence[tuple[Scored, float] | None], problem: str) -> Entry:
    card = systems.get(slug)
    scored = [k[0] for k in kept if k is not None]
    curve = {
        place: mean_interval([s.curve[place] for s in scored])
        for place in (scored[0].curve if scored else ())
    }
    details = {
        name: float(np.mean([s.details[name] for s in scored]))
        for name in (scored[0].details if scored else ())
    }
    return Entry(
        system=slug,
        title=card.title,
        baseline=card.baseline,
        score=Estimate(float("nan")) if problem else mean_interval([s.value for s in scored]),
        scores=tuple(s.value for s in scored),
        seconds=round(sum(k[1] for k in kept if k is not None), 2),
        problem=problem,
        curve=curve,
        details=details,
    )


def as_json(board: Leaderboard) -> dict[str, Any]:
    """Everything a leaderboard holds, for JSON."""
    entries = []
    for entry in board.entries:
        fields = asdict(entry)
        fields["curve"] = [{board.task.axis: k, **asdict(e)} for k, e in entry.curve.items()]
        entries.append(fields)
    return {
        "task": board.task.name,
        "metric": board.task.metric,
        "chance": board.task.chance,
        "ceiling": None if board.ceiling is None else asdict(board.ceiling),
        "seeds": board.seeds,
        "entries": entries,
    }
