"""Processes: start-up, who writes files, and agreement between them (gathering itself is ``models.world``).

A world of one needs no process group: every function works without one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from models.world import DistributedWorld, World


def start(device: torch.device) -> World:
    """Join the process group that torchrun describes in the environment, if any, and return the world."""
    if process_count() <= 1:
        return World()
    if not dist.is_initialized():
        # The main process evaluates and clusters while the others wait: longer than the default timeout allows.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(hours=12))
    return DistributedWorld()


def stop() -> None:
    """Leave the process group; harmless where there is none."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def lost_another(error: RuntimeError) -> bool:
    """Whether this is gloo's or NCCL's complaint that another process has gone."""
    words = ("Connection closed by peer", "Connection reset by peer", "remote process exited", "Broken pipe")
    return dist.is_available() and dist.is_initialized() and any(word in str(error) for word in words)


def process_count() -> int:
    """How many processes torchrun has started for this run, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


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
