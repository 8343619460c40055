"""Work on many rows in portions that the device's memory holds: what does not fit is halved, with the same results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

Result = TypeVar("Result")

# How many rows of which kind fit, for as long as a model lives: the next call need not find out again, nor say it.
_FITTING: WeakKeyDictionary[nn.Module, dict[str, int]] = WeakKeyDictionary()


def in_portions(model: nn.Module, what: str, count: int, work: Callable[[slice], Result]) -> Iterator[Result]:
    """What `work` gives for rows 0 .. count, in order: in one call, or in several where memory runs out.

    Args:
        model: whose limit this is; `what` names the rows in messages and parts limits from each other ("images").
        work: called with the rows to do; called again with fewer where it ran out of memory.

    Raises the error where not even one row fits.
    """
    fitting, start = _FITTING.setdefault(model, {}), 0
    known, refused = what in fitting, 0
    while start < count:
        rows = slice(start, min(count, start + fitting.get(what, count)))
        size = rows.stop - rows.start
        fits, result = _attempt(work, rows)
        if not fits:
            torch.cuda.empty_cache()  # what is kept for large blocks is wanted for small ones now
            refused = max(refused, size)
            fitting[what] = size // 2
            continue
        if refused and not known:
            logging.getLogger("pspd").warning(
                "Memory does not hold %d %s at once: going on with %d at a time.", refused, what, size
            )
            known = True
        yield result
        start = rows.stop


def _attempt(work: Callable[[slice], Result], rows: slice) -> tuple[bool, Result | None]:
    """Whether memory sufficed, and the result; on return nothing of a failed attempt is held any more."""
    try:
        return True, work(rows)
    except (RuntimeError, MemoryError) as error:
        if rows.stop - rows.start == 1 or not _is_out_of_memory(error):
            raise
    return False, None


def _is_out_of_memory(error: Exception) -> bool:
    """Also on a CPU, where torch raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)
