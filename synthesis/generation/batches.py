"""Batches of equal shape, so that what comes out for one entry does not depend on the others, nor on how many there are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

import torch

from data.errors import UserError

Result = TypeVar("Result")


def in_batches(
    keys: Sequence[Hashable], size: int, compute: Callable[[list[int]], Sequence[Result]], *, remedy: str
) -> list[Result]:
    """One result per entry, from batches of exactly `size` entries with equal keys; halved where the GPU's memory runs out.

    A matrix product of another shape adds in another order. So a batch that is too small is filled up with its first entry,
    whose further results are dropped: an entry alone is computed as it is among others, and gives the same bytes.

    Args:
        keys: of the entries; what is computed together has to be alike (the size of an image).
        size: of a batch.
        compute: the results of the entries with these numbers, in that order.
        remedy: what to do where even one entry does not fit into the memory.

    Raises:
        UserError: one entry does not fit.
    """
    results: dict[int, Result] = {}
    for batch in _alike(keys, size):
        while True:
            try:
                for start in range(0, len(batch), size):
                    part = batch[start : start + size]
                    filled = part + part[:1] * (size - len(part))
                    results.update(zip(part, compute(filled), strict=False))
                break
            except torch.OutOfMemoryError:
                pass  # go on outside: in here the error still holds what filled the memory
            if size == 1:
                raise UserError(f"The GPU's memory does not hold a single image: {remedy}.")
            size //= 2
            torch.cuda.empty_cache()
    return [results[number] for number in range(len(keys))]


def _alike(keys: Sequence[Hashable], size: int) -> Iterator[list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for number, key in enumerate(keys):
        groups.setdefault(key, []).append(number)
    for group in groups.values():
        yield from (group[start : start + size] for start in range(0, len(group), size))
