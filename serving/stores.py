"""Which store an index has: a folder's own files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.faiss_store import FaissStore, FaissView
from serving.store import Store, View


def open_store(directory: Path, header: Mapping[str, Any]) -> Store:
    """The store of an index folder with this header, for changing it."""
    return FaissStore(directory, header)


def open_view(directory: Path, header: Mapping[str, Any]) -> View:
    """The same for searching.

    Raises UserError for an index that is not finished or damaged.
    """
    return FaissView(directory, header)
