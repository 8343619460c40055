"""A group of processes in the small: threads that gather as the processes of a run do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


class Member:
    """One of `size` threads; `gathered` counts its calls."""

    def __init__(self, rank: int, size: int, meeting: threading.Barrier, shared: list[Any]) -> None:
        self.rank, self.size, self.gathered = rank, size, 0
        self._meeting, self._shared = meeting, shared

    def gather(self, value: Any) -> list[Any]:
        self.gathered += 1
        self._shared[self.rank] = value
        self._meeting.wait(60)
        values = list(self._shared)
        self._meeting.wait(60)  # nobody may put the next value where another has not read this one
        return values


def together(size: int, work: Callable[[Member], Result]) -> list[Result]:
    """What `work` returns on each of `size` members; one that fails ends all, and its error is raised."""
    meeting, shared = threading.Barrier(size), [None] * size
    members = [Member(rank, size, meeting, shared) for rank in range(size)]

    def one(member: Member) -> Result:
        try:
            return work(member)
        except BaseException:
            meeting.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(one, member) for member in members]
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    assert len({member.gathered for member in members}) == 1, "not all members gathered as often"
    return [future.result() for future in futures]
