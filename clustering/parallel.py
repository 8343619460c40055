"""Row ranges over threads: the compiled kernels release the GIL, so threads are enough."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def over_rows(work: Callable[[int, int], object], count: int, chunk: int) -> list:
    """[work(0, chunk), work(chunk, 2 chunk), ...] up to `count`, in order, on as many threads as torch uses."""
    ranges = [(start, min(start + chunk, count)) for start in range(0, count, chunk)]
    workers = min(torch.get_num_threads(), len(ranges))
    if workers <= 1:
        return [work(start, stop) for start, stop in ranges]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda bounds: work(*bounds), ranges))
