"""A file of equal rows in an index folder, read through a memory map and written with plain writes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


class RowFile:
    """A file of rows of one shape and type.

    Writing through the map would end the process where the disk is full; `os.pwrite` raises OSError.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        self.path, self.shape, self.dtype = path, tuple(shape), np.dtype(dtype)
        self.row_bytes = int(np.prod(self.shape)) * self.dtype.itemsize

    def map(self) -> np.ndarray:
        """(rows, *shape), read-only, as the file is now."""
        rows = self.path.stat().st_size // self.row_bytes
        if rows == 0:
            return np.empty((0, *self.shape), self.dtype)
        return np.memmap(self.path, self.dtype, "r", shape=(rows, *self.shape))

    def write(self, rows: Iterable[int], values: np.ndarray) -> None:
        """Writes values (B, *shape) into these rows (B,); `sync` waits until the disk has them."""
        values = np.ascontiguousarray(values, self.dtype)
        with _handle(self.path) as handle:
            for row, value in zip(rows, values, strict=True):
                written, content = 0, memoryview(value.reshape(-1).view(np.uint8))
                while written < self.row_bytes:
                    written += os.pwrite(handle, content[written:], row * self.row_bytes + written)

    def sync(self) -> None:
        """Waits until everything written is on the disk."""
        with _handle(self.path) as handle:
            os.fsync(handle)

    def wipe(self, rows: Iterable[int]) -> None:
        """Overwrites rows with zeros. The file never shrinks: a reader may have mapped its end."""
        zeros = np.zeros((1, *self.shape), self.dtype)
        for row in rows:
            self.write([row], zeros)
        self.sync()


@contextmanager
def _handle(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield handle
    finally:
        os.close(handle)
