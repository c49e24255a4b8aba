"""How many threads numerical libraries may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limit_threads(jobs: int = 0) -> Iterator[int]:
    """Let BLAS, OpenMP and torch use ``jobs`` threads inside the ``with`` block; 0 takes all."""
    import torch
    from threadpoolctl import threadpool_limits

    count = jobs or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else jobs or 1
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(limits=count):
            yield count
    finally:
        torch.set_num_threads(before)
