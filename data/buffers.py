"""Memory for batches that is used again.

A batch of 48 images of 384 x 128 is an array of 28 MB. The C library takes arrays of that size from the kernel and gives
them back when they are freed, and the kernel clears every page anew at its first touch: more time than the image
pipeline's own work (docs/benchmarks.md).
"""

from __future__ import annotations

import math
import weakref

import torch
from torch import Tensor


class Buffers:
    """Float32 arrays on the CPU. One is handed out again when no tensor, view or slice looks at it any more.

    Args:
        pinned: page-locked memory, out of which a GPU fetches by itself while the CPU goes on. torch keeps such memory and
            hands it out again after the copies to the GPU that were begun from it (it notes an event with each).
    """

    def __init__(self, pinned: bool = False) -> None:
        self.pinned = pinned
        self._free: list[Tensor] = []

    def empty(self, *shape: int) -> Tensor:
        """An uninitialised contiguous tensor of this shape."""
        if self.pinned:
            return torch.empty(shape, pin_memory=True)
        size = math.prod(shape)
        memory = self._taken(size)
        # torch keeps this array, and nobody else does, for as long as a tensor looks at the memory.
        array = memory.numpy()[:size]
        weakref.finalize(array, self._free.append, memory).atexit = False
        return torch.from_numpy(array).view(shape)

    def _taken(self, size: int) -> Tensor:
        """A free buffer that is large enough, or a new one; smaller ones are let go."""
        while self._free:
            memory = self._free.pop()
            if memory.numel() >= size:
                return memory
        return torch.empty(size)
