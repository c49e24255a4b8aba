"""Processes that share the seeds of claims."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress

from engramma.errors import ConfigError
from engramma.threads import limit_threads

#: What a claim measures with one seed, or why it cannot be tested with it.
Measured = tuple[float, float, float] | str


class SeedWorkers:
    """Processes that measure claims, a seed always in the same one.

    Claims of a system share what it trains, each process for its own seeds.

    Parameters
    ----------
    count : int
    threads : int
        Of each process.
    """

    def __init__(self, count: int, threads: int) -> None:
        if count < 1 or threads < 1:
            raise ConfigError(
                f"{count} processes of {threads} threads cannot work", mend="use one or more"
            )
        # Not forked: a copy of a process whose libraries run threads can hang.
        context = multiprocessing.get_context("spawn")
        self._pools = [ProcessPoolExecutor(1, context, initializer=_begin) for _ in range(count)]
        self._numbers = [pool.submit(os.getpid) for pool in self._pools]
        self._threads = threads

    def measure(self, slug: str, claim: str, seed: int) -> Future[Measured]:
        """Begin to measure a claim of a registered system."""
        return self._pools[seed % len(self._pools)].submit(
            _measure, slug, claim, seed, self._threads
        )

    def close(self, *, wait: bool) -> None:
        """End the processes; without waiting, what they do is given up."""
        for pool, number in zip(self._pools, self._numbers, strict=True):
            begun = number.done() and number.exception() is None  # else it does nothing
            pool.shutdown(wait=wait, cancel_futures=True)
            if begun and not wait:
                with suppress(ProcessLookupError):
                    os.kill(number.result(), signal.SIGTERM)


@contextmanager
def seed_workers(count: int, threads: int) -> Iterator[SeedWorkers | None]:
    """Start processes for the ``with`` block; yields None where one is asked for: this one."""
    if count == 1:
        yield None
        return
    workers = SeedWorkers(count, max(1, threads // count))
    try:
        yield workers
    except BaseException:
        workers.close(wait=False)
        raise
    workers.close(wait=True)


def _begin() -> None:
    # Ctrl-C reaches all processes of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _measure(slug: str, claim: str, seed: int, threads: int) -> Measured:
    from engramma.bench.claims import measure, select_claims

    with limit_threads(threads):
        return measure(select_claims([f"{slug}/{claim}"])[0][1], seed)
