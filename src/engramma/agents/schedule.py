r"""Work with dependencies on a pool of workers: list scheduling, real or simulated.

Jobs form a directed acyclic graph. Whenever a worker is free it takes the ready job of highest
priority: the longest path of costs that remains from it to the end of the plan, then the larger
cost, then the name. No worker waits while a job is ready, so that Graham's bound holds for the time
:math:`C` until all is done (R. L. Graham 1969, "Bounds on multiprocessing timing anomalies"):

.. math:: \max(L, T/W) \;\le\; C^* \;\le\; C \;\le\; T/W + (1 - 1/W) L
          \;\le\; (2 - 1/W)\, C^*

with :math:`T` the sum of costs, :math:`L` the longest path, :math:`W` workers and :math:`C^*` the
best time possible. The same queue serves both forms: `execute` runs work on threads and measures
its times, `simulate` takes the costs for times.
"""

from __future__ import annotations

import graphlib
import heapq
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

from engramma.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Parameters
    ----------
    name : str
    cost : float
        Estimated time, above zero.
    depends : tuple of str
        Jobs that must end before this one starts.
    """

    name: str
    cost: float = 1.0
    depends: tuple[str, ...] = ()


@dataclass(frozen=True)
class Slot:
    """When and on which worker a job ran, in seconds or units of cost from the beginning."""

    job: str
    worker: int
    start: float
    end: float


@dataclass(frozen=True)
class Schedule:
    """The trace of a run, in the order of starting."""

    slots: tuple[Slot, ...]
    workers: int

    @property
    def makespan(self) -> float:
        """Time until the last job has ended."""
        return max((slot.end for slot in self.slots), default=0.0)

    @property
    def busy(self) -> float:
        """Share of the workers' time that was worked, 0 to 1."""
        worked = sum(slot.end - slot.start for slot in self.slots)
        return worked / (self.workers * self.makespan) if self.slots else 0.0


def topological_order(depends: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Names such that each stands behind what it depends on.

    Raises
    ------
    ConfigError
        If a name depends on something unknown, or the names depend on each other in a cycle, which
        is named.
    """
    for name, needed in depends.items():
        for other in needed:
            if other not in depends:
                raise ConfigError(
                    f"{name!r} depends on {other!r}, which does not exist",
                    mend=f"add it, or depend on one of {', '.join(depends)}",
                )
    try:
        return tuple(graphlib.TopologicalSorter(depends).static_order())
    except graphlib.CycleError as error:
        cycle = " -> ".join(reversed(error.args[1]))
        raise ConfigError(
            f"the dependencies form a cycle: {cycle} (an arrow means: depends on)",
            mend="remove one of its arrows",
        ) from None


def check_jobs(jobs: Sequence[Job]) -> tuple[str, ...]:
    """Topological order of jobs.

    Raises
    ------
    ConfigError
        If two jobs share a name, a cost is not above zero, or `topological_order` refuses.
    """
    names = [job.name for job in jobs]
    for job in jobs:
        if names.count(job.name) > 1:
            raise ConfigError(f"two jobs are called {job.name!r}", mend="rename one of them")
        if not 0 < job.cost < float("inf"):
            raise ConfigError(f"the cost of {job.name!r} is {job.cost}, not above zero")
    return topological_order({job.name: job.depends for job in jobs})


def remaining_paths(jobs: Sequence[Job]) -> dict[str, float]:
    """Cost of the longest path from each job, itself included, to the end of the plan."""
    after: dict[str, float] = {}
    by_name = {job.name: job for job in jobs}
    for name in reversed(check_jobs(jobs)):
        after[name] = by_name[name].cost + after.get(name, 0.0)
        for other in by_name[name].depends:
            after[other] = max(after.get(other, 0.0), after[name])
    return after


def critical_path(jobs: Sequence[Job]) -> tuple[float, tuple[str, ...]]:
    """Cost of the longest path of dependencies, and its jobs in order."""
    paths, chosen = remaining_paths(jobs), []
    candidates = [job for job in jobs if not job.depends]
    while candidates:
        chosen.append(max(candidates, key=lambda job: paths[job.name]).name)
        candidates = [job for job in jobs if chosen[-1] in job.depends]
    return max(paths.values(), default=0.0), tuple(chosen)


def lower_bound(jobs: Sequence[Job], workers: int) -> float:
    """No schedule is shorter: the critical path, or the work shared out evenly."""
    return max(critical_path(jobs)[0], sum(job.cost for job in jobs) / workers)


def graham_bound(jobs: Sequence[Job], workers: int) -> float:
    """No list schedule is longer: T/W + (1 - 1/W) L, at most 2 - 1/W times the optimum."""
    work = sum(job.cost for job in jobs)
    return work / workers + (1 - 1 / workers) * critical_path(jobs)[0]


class ReadyQueue:
    """Jobs whose dependencies have ended, highest priority first.

    Parameters
    ----------
    jobs : sequence of Job
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        paths = remaining_paths(jobs)
        self._rank = {job.name: (-paths[job.name], -job.cost, job.name) for job in jobs}
        self._sorter = graphlib.TopologicalSorter({job.name: job.depends for job in jobs})
        self._sorter.prepare()
        self._heap: list[tuple[float, float, str]] = []
        self._take_up()

    def __len__(self) -> int:
        return len(self._heap)

    def pop(self) -> str:
        """Take the job of highest priority."""
        return heapq.heappop(self._heap)[2]

    def done(self, name: str) -> None:
        """Note that a job has ended; what waited for it alone becomes ready."""
        self._sorter.done(name)
        self._take_up()

    def _take_up(self) -> None:
        for name in self._sorter.get_ready():
            heapq.heappush(self._heap, self._rank[name])


def simulate(jobs: Sequence[Job], workers: int) -> Schedule:
    """Schedule jobs that take exactly their costs.

    Raises
    ------
    ConfigError
        If there is no worker, or `check_jobs` refuses.
    """
    _check_workers(workers)
    queue, cost = ReadyQueue(jobs), {job.name: job.cost for job in jobs}
    idle, slots, now = list(range(workers)), [], 0.0
    running: list[tuple[float, int, str]] = []
    while queue or running:
        while queue and idle:
            worker, name = heapq.heappop(idle), queue.pop()
            slots.append(Slot(name, worker, now, now + cost[name]))
            heapq.heappush(running, (now + cost[name], worker, name))
        now = running[0][0]
        while running and running[0][0] == now:
            _, worker, name = heapq.heappop(running)
            heapq.heappush(idle, worker)
            queue.done(name)
    return Schedule(tuple(slots), workers)


def execute(
    jobs: Sequence[Job], workers: int, work: Callable[[str], T]
) -> tuple[dict[str, T], Schedule]:
    """Do the work of each job on a pool of threads.

    Parameters
    ----------
    jobs : sequence of Job
    workers : int
    work : callable
        ``work(name)``; called once a job, after all that it depends on have ended.

    Returns
    -------
    results : dict of str
        What ``work`` returned.
    schedule : Schedule
        In seconds.

    Raises
    ------
    ConfigError
        If there is no worker, or `check_jobs` refuses.
    Exception
        What ``work`` raises; no further job is started then.
    """
    _check_workers(workers)
    queue, results, slots = ReadyQueue(jobs), {}, []
    idle, begin = list(range(workers)), time.perf_counter()
    running: dict[Future[tuple[T, float]], tuple[str, int, float]] = {}

    def timed(name: str) -> tuple[T, float]:
        return work(name), time.perf_counter()

    with ThreadPoolExecutor(workers) as pool:
        while queue or running:
            while queue and idle:
                worker, name = heapq.heappop(idle), queue.pop()
                start = time.perf_counter() - begin
                running[pool.submit(timed, name)] = (name, worker, start)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name, worker, start = running.pop(future)
                results[name], end = future.result()
                slots.append(Slot(name, worker, start, end - begin))
                heapq.heappush(idle, worker)
                queue.done(name)
    slots.sort(key=lambda slot: (slot.start, slot.worker))
    return results, Schedule(tuple(slots), workers)


def _check_workers(workers: int) -> None:
    if workers < 1:
        raise ConfigError(f"a schedule needs at least one worker, not {workers}")
