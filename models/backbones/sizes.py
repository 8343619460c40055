"""A size by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Size = TypeVar("Size")


def size_named(size: str | Size, sizes: Mapping[str, Size]) -> Size:
    """`sizes[size]`; a size itself passes through, so that a test or a study may bring its own.

    Raises ValueError for a name that is none of them.
    """
    if not isinstance(size, str):
        return size
    if size not in sizes:
        raise ValueError(f"model size {size!r} is unknown: choose one of {', '.join(sizes)}")
    return sizes[size]
