"""What every benchmark shares: time, peak memory, the machine, tables and JSON."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil


def timed(fn: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Return the shortest wall-clock time of ``repeats`` calls, in seconds, and the result."""
    best, result = float("inf"), None
    for _ in range(repeats):
        result = None  # the result before must not add to this one's memory
        start = time.perf_counter()
        result = fn()
        best = min(best, time.perf_counter() - start)
    return best, result


class PeakRSS:
    """Largest resident memory of a process inside a ``with`` block, sampled every 5 ms.

    ``peak`` and ``before`` are in bytes.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._process = psutil.Process(pid)
        self._stop = threading.Event()
        self.before = self.peak = 0

    def __enter__(self) -> PeakRSS:
        self.before = self.peak = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.peak = max(self.peak, self._process.memory_info().rss)


def peak_rss_of(fn: Callable[..., Any], *args: Any) -> tuple[int, Any]:
    """Call ``fn(*args)`` in a fresh process; return what it added to that process's memory.

    ``fn`` is a function at the top level of a module. It should load what is to be counted as
    input by itself and return small things: where it returns a dict with the key ``"baseline"``
    (bytes resident before the work proper began), that is subtracted, else the memory of the
    process before the call.

    Returns
    -------
    peak : int
        Bytes.
    result
    """
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_measured, args=(queue, fn, args))
    process.start()
    while process.is_alive() and queue.empty():
        time.sleep(0.05)
    if queue.empty():
        raise RuntimeError(f"the measured process ended with exit code {process.exitcode}")
    before, peak, result, error = queue.get()
    process.join()
    if error:
        raise RuntimeError(f"the measured call failed: {error}")
    if isinstance(result, dict) and "baseline" in result:
        before = result["baseline"]
    return peak - before, result


def _measured(queue: Any, fn: Callable[..., Any], args: Sequence[Any]) -> None:
    result, error = None, ""
    with PeakRSS() as memory:
        try:
            result = fn(*args)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
    queue.put((memory.before, memory.peak, result, error))


def rss() -> int:
    """Resident memory of this process, in bytes."""
    return int(psutil.Process().memory_info().rss)


def machine() -> dict[str, Any]:
    """Describe the processor, the threads and the versions that the numbers depend on."""
    import numpy
    import torch

    name = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [li for li in cpuinfo.read_text().splitlines() if li.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    return {
        "cpu": name,
        "vector_units": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "torch": torch.__version__,
        "OPENBLAS_CORETYPE": os.environ.get("OPENBLAS_CORETYPE", ""),
    }


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; floats with three significant digits."""
    from rich.console import Console
    from rich.table import Table

    out = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        out.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        out.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row))
    Console().print(out)


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every number here")
    parser.add_argument("--small", action="store_true", help="small sizes, to try it out")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    return parser


def write_json(path: Path | None, results: dict[str, Any]) -> None:
    """Write the results, with a description of the machine, where a path is given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": machine(), **results}, indent=2) + "\n")
