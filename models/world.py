"""Where tensors of one process meet those of the others.

A global batch of B pairs is divided over `size` processes, B / size pairs each. Every loss keeps one convention: the MEAN
over processes of what each returns is the loss of the global batch, and averaging the processes' gradients gives its
gradient. So 1, 2 or 8 processes train alike up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import Tensor


class World:
    """One process that holds the whole batch: gathering is the identity, and no process group is needed."""

    rank: int = 0
    size: int = 1

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The processes' tensors (b, ...) one after another in rank order: (size · b, ...); differentiable.

        Every process must give the same shape. In the backward pass a process receives the SUM over processes of the
        gradients that reached its own rows.
        """
        return tensor

    def largest(self, value: int) -> int:
        """The largest of the processes' values, on the host."""
        return value


class DistributedWorld(World):
    """The processes of torch.distributed's default group, which must be initialised.

    Initialise with a backend for the CPU too (`"cpu:gloo,cuda:nccl"`): `largest` then exchanges its integer without
    waiting for the GPU.
    """

    def __init__(self) -> None:
        self.rank = torch.distributed.get_rank()
        self.size = torch.distributed.get_world_size()

    def all_gather(self, tensor: Tensor) -> Tensor:
        return _AllGather.apply(tensor)

    def largest(self, value: int) -> int:
        holder = torch.tensor(value)
        torch.distributed.all_reduce(holder, op=torch.distributed.ReduceOp.MAX)
        return int(holder)


class _AllGather(torch.autograd.Function):
    """torch.distributed.all_gather drops gradients; this one brings them back to where the rows came from."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.rows = len(tensor)
        parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(_size())]
        torch.distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # All-reduce and cut: every backend has it, on every device; reduce-scatter is missing from gloo.
        summed = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(summed)
        start = torch.distributed.get_rank() * ctx.rows
        return summed[start : start + ctx.rows]


def _size() -> int:
    return torch.distributed.get_world_size()
