"""Work divided over the processes of a run: who does which rows, and the results of all of them in order.

A piece is a batch or block of the undivided work, and pieces are dealt in turn. So every process computes what one
process alone would, in the same batches, and rounding does not depend on their number. In turn rather than in
stretches, because neighbours in a data set resemble each other (identity, camera, source), and so do the numbers of
candidates that they get.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class Processes(Protocol):
    """The processes of a run, `size` of them; this one is number `rank`, from 0."""

    rank: int
    size: int

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes in rank order, on each of them; all must call it, in the same order of calls."""


class OneProcess:
    """A run of one process."""

    rank, size = 0, 1

    def gather(self, value: Any) -> list[Any]:
        return [value]


ALONE = OneProcess()


@dataclass(frozen=True)
class Division:
    """`count` rows in pieces of `piece` rows (the last may be shorter), dealt to `processes` in turn.

    There may be fewer pieces than processes: some then have no row.
    """

    count: int
    piece: int = 1
    processes: Processes = ALONE

    def owners(self, rows: np.ndarray) -> np.ndarray:
        """Which process each of these rows (R,) belongs to."""
        return rows // self.piece % self.processes.size

    def rows(self) -> np.ndarray:
        """This process's rows, ascending, int64."""
        rows = np.arange(self.count)
        return rows[self.owners(rows) == self.processes.rank]

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Where each of these rows (R,) stands among those of its process, from 0."""
        return rows // self.piece // self.processes.size * self.piece + rows % self.piece

    def pieces(self) -> Iterator[slice]:
        """This process's pieces, ascending."""
        step = self.piece * self.processes.size
        for start in range(self.processes.rank * self.piece, self.count, step):
            yield slice(start, min(start + self.piece, self.count))

    def gather(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """All rows (count, ...) in order, of which `parts`, one after another, are this process's."""
        return assembled(self.processes, self.owners(np.arange(self.count)), parts)


def assembled(processes: Processes, owners: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Rows (R, ...) in order, of which process owners[r] (R,) has the r-th; `parts` are this process's, in order.

    A process without a row gives no parts: what a row looks like, the others know.
    """
    gathered = processes.gather(np.concatenate(parts) if len(parts) else None)
    known = [part for part in gathered if part is not None]
    rows = np.empty((len(owners), *known[0].shape[1:]), known[0].dtype)
    for rank, part in enumerate(gathered):
        if part is not None:
            rows[owners == rank] = part
    return rows
