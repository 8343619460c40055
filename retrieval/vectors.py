"""The features of an index in faiss: exact below 100,000 images, by inverted lists from there on.

Scores are inner products of normalised features, that is cosines. A feature is known by the number of its row in the
index folder, so rows can be added and removed without touching the others. A graph (HNSW) would find as much in less
time, but takes 8 times as long to build, and rows can't be removed from it (docs/search.md has the measurement).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np

from data.errors import UserError

EXACT_BELOW = 100_000  # images: here an exact search takes a few milliseconds
LISTS_PER_ROOT = 1.0  # inverted lists per square root of the number of images
# The share of the lists that a search reads. A sentence lies apart from all images, so that its nearest ones are spread
# over many lists: a sixteenth of them, enough for queries among the images, found half of what the exact search does.
PROBED = 1 / 2
_TRAINING_PER_LIST = 64
_BLOCK = 1 << 16

Features = Callable[[np.ndarray], np.ndarray]  # rows (B,) -> their features (B, F) float32


def is_exact(index: faiss.Index) -> bool:
    """Whether a search reads every feature."""
    return isinstance(index, faiss.IndexIDMap)


def kind(index: faiss.Index) -> str:
    """How the index is searched, for a user: an adverb."""
    return "exactly" if is_exact(index) else f"approximately, in {index.nprobe} of {index.nlist} lists"


def rows_of(index: faiss.Index) -> np.ndarray:
    """The rows that an index holds, (N,) int64, in no particular order."""
    if isinstance(index, faiss.IndexIDMap):
        return faiss.vector_to_array(index.id_map).astype(np.int64)
    lists = index.invlists
    parts = [
        faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)).copy()
        for number in range(index.nlist)
        if lists.list_size(number)
    ]
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)


def brought_up_to(index: faiss.Index | None, rows: np.ndarray, features: Features, width: int) -> faiss.Index:
    """An index of exactly these rows (N,): the given one with what is missing added and the rest removed.

    A new one is built where there is none, where the number of images has crossed `EXACT_BELOW`, and where an
    approximate one has so many more or fewer images that its lists no longer fit. `width` is F.
    """
    if index is None or _is_outgrown(index, len(rows)):
        index = _new(rows, features, width)
    held = rows_of(index)
    gone = np.setdiff1d(held, rows)
    if len(gone):
        index.remove_ids(faiss.IDSelectorBatch(gone))
    missing = np.setdiff1d(rows, held)
    for start in range(0, len(missing), _BLOCK):
        block = missing[start : start + _BLOCK]
        index.add_with_ids(np.ascontiguousarray(features(block)), block)
    return index


def _is_outgrown(index: faiss.Index, count: int) -> bool:
    if is_exact(index) or count < EXACT_BELOW:
        return is_exact(index) != (count < EXACT_BELOW)
    return not 0.5 <= _list_count(count) / index.nlist <= 2.0


def _list_count(count: int) -> int:
    return max(1, round(LISTS_PER_ROOT * count**0.5))


def _new(rows: np.ndarray, features: Features, width: int) -> faiss.Index:
    """An empty index of the kind that suits the number of rows; inverted lists are learnt from a sample of them."""
    if len(rows) < EXACT_BELOW:
        return faiss.IndexIDMap(faiss.IndexFlatIP(width))
    lists = _list_count(len(rows))
    index = faiss.index_factory(width, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    size = min(len(rows), _TRAINING_PER_LIST * lists)
    sample = np.sort(np.random.default_rng(0).choice(rows, size, replace=False))
    index.train(np.ascontiguousarray(features(sample)))
    index.nprobe = max(1, round(PROBED * lists))
    return index


def nearest(index: faiss.Index, feature: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows and cosines, (<= count,) each, of the images most similar to a feature (F,), best first."""
    scores, rows = index.search(np.ascontiguousarray(feature[None], np.float32), count)
    found = rows[0] >= 0  # faiss fills up with -1 where it has fewer
    return rows[0][found], scores[0][found]


def write(index: faiss.Index, path: Path) -> None:
    """Writes an index under a temporary name and renames it; OSError where the disk has no room."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        faiss.write_index(index, str(temporary))
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except RuntimeError as error:  # what faiss raises for a file that it can't write
        raise OSError(f"faiss could not write {path.name}") from error
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> faiss.Index:
    """Reads an index that `write` wrote; UserError for a damaged file."""
    try:
        return faiss.read_index(str(path))
    except RuntimeError:
        raise UserError(
            f"{path} is damaged: delete this one file and run the same index command again; nothing is encoded anew."
        ) from None
