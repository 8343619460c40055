"""Processes: start-up, who writes files, work that they share outside the training steps, and agreement between them.

What the losses gather is ``models.world``.

A world of one needs no process group: every function works without one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from models.world import DistributedWorld, World
from retrieval.division import ALONE, Processes


class Interrupted(Exception):
    """The user or the scheduler asked to stop, and everything needed to go on has been saved."""


class Group:
    """The processes of the default group, as those that share work know each other (``retrieval.division.Processes``).

    Values travel from host to host, through gloo. While they work on their shares nobody may just leave: the others would
    wait for its part. So a process that was asked to stop says so where its part is expected, and all of them end there;
    a notice in the store brings those that are still at work there sooner.
    """

    _NOTICE = "pspd/stop"

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self._store = dist.TCPStore(*address, is_master=False, wait_for_workers=False)

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes in rank order, on each of them.

        Raises:
            Interrupted: one of them stops.
        """
        return self._exchange(value, False)

    def stop(self) -> NoReturn:
        """Raise ``Interrupted`` here and on all others, between two gathers."""
        self._store.set(self._NOTICE, "")
        self._exchange(None, True)
        raise AssertionError("not reached: a process that stops stops all")

    def is_stopping(self) -> bool:
        """Whether one of them stops."""
        return self._store.check([self._NOTICE])

    def _exchange(self, value: Any, stopping: bool) -> list[Any]:
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, (stopping, value))
        if any(stops for stops, _ in gathered):
            raise Interrupted(STOPPED)
        return [value for _, value in gathered]


STOPPED = "Stopped between two saves."
_group: Group | None = None  # of this process, from ``start`` to ``stop``


def start(device: torch.device) -> World:
    """Join the process group that torchrun describes in the environment, if any, and return the world."""
    global _group
    if process_count() <= 1:
        return World()
    if not dist.is_initialized():
        # The main process clusters and corrects while the others wait: longer than the default timeout allows.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(hours=12))
        _group = Group()
    return DistributedWorld()


def stop() -> None:
    """Leave the process group; harmless where there is none."""
    global _group
    _group = None
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def lost_another(error: RuntimeError) -> bool:
    """Whether this is gloo's, NCCL's or the store's complaint that another process has gone."""
    words = ("Connection closed by peer", "Connection reset by peer", "remote process exited", "Broken pipe")
    said = isinstance(error, dist.DistNetworkError) or any(word in str(error) for word in words)
    return dist.is_initialized() and said


def process_count() -> int:
    """How many processes torchrun has started for this run, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def processes() -> Processes:
    """Those that work can be divided over."""
    return _group or ALONE


def stop_all_if(asked: bool) -> None:
    """For loops over a share of divided work, whose results are gathered next: end on all processes if one was asked to.

    Raises:
        Interrupted: this process or another one was asked to stop.
    """
    if _group is not None and (asked or _group.is_stopping()):
        _group.stop()
    if asked:
        raise Interrupted(STOPPED)


@contextlib.contextmanager
def all_threads() -> Iterator[None]:
    """One process computes while the others of its machine wait: with the threads of all of them."""
    own = torch.get_num_threads()
    torch.set_num_threads(own * int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    try:
        yield
    finally:
        torch.set_num_threads(own)


def local_rank() -> int:
    """This process's number on its machine: the GPU it should use."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main() -> bool:
    """True on the one process that writes shared files."""
    return not dist.is_initialized() or dist.get_rank() == 0


def barrier() -> None:
    """Wait for all processes."""
    if dist.is_initialized():
        dist.barrier()


def any_rank(flag: bool, device: torch.device) -> bool:
    """True on every rank as soon as it is true on one (a stop signal must be obeyed by all in the same step)."""
    if not dist.is_initialized():
        return flag
    value = torch.tensor([float(flag)], device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes, without gradient."""
    if dist.is_initialized():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """The main process runs the block before the others do: for files that one makes and all read."""
    if not is_main():
        barrier()
    try:
        yield
    finally:
        if is_main():
            barrier()
