"""The features of an index in faiss: exact below 100,000 images, from there on in half precision with the best compared exactly.

Scores are inner products of normalised features, that is cosines. A feature is known by the number of its row in the
index folder, so rows can be added and removed without touching the others. Every search reads all features: a sentence
lies apart from all images, so indexes that read a part of them miss its nearest ones (docs/search.md has the measurement).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np

from data.errors import UserError

EXACT_BELOW = 100_000  # images: here an exact search takes a few milliseconds
# How many of the best in half precision are compared exactly: at least so many, and at least so many times what is asked for.
COMPARED, COMPARED_TIMES = 100, 2
_BLOCK = 1 << 16

Features = Callable[[np.ndarray], np.ndarray]  # rows (B,) -> their features (B, F) float32


def is_exact(index: faiss.IndexIDMap) -> bool:
    """Whether the index itself holds the features in full precision."""
    return isinstance(faiss.downcast_index(index.index), faiss.IndexFlat)


def kind(index: faiss.IndexIDMap) -> str:
    """How the index is searched, for a user: an adverb."""
    return "exactly" if is_exact(index) else "in half precision, the best exactly"


def rows_of(index: faiss.IndexIDMap) -> np.ndarray:
    """The rows that an index holds, (N,) int64, in no particular order."""
    return faiss.vector_to_array(index.id_map).astype(np.int64)


def brought_up_to(
    index: faiss.IndexIDMap | None, rows: np.ndarray, features: Features, width: int
) -> faiss.IndexIDMap:
    """An index of exactly these rows (N,): the given one with what is missing added and the rest removed.

    A new one is built where there is none, and where the number of images has crossed `EXACT_BELOW`. `width` is F.
    """
    if index is None or is_exact(index) != (len(rows) < EXACT_BELOW):
        index = _new(len(rows), width)
    held = rows_of(index)
    gone = np.setdiff1d(held, rows)
    if len(gone):
        index.remove_ids(faiss.IDSelectorBatch(gone))
    missing = np.setdiff1d(rows, held)
    for start in range(0, len(missing), _BLOCK):
        block = missing[start : start + _BLOCK]
        index.add_with_ids(np.ascontiguousarray(features(block)), block)
    return index


def _new(count: int, width: int) -> faiss.IndexIDMap:
    """An empty index of the kind that suits the number of rows. Neither kind has anything to learn."""
    if count < EXACT_BELOW:
        return faiss.IndexIDMap(faiss.IndexFlatIP(width))
    half = faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexIDMap(half)


def nearest(
    index: faiss.IndexIDMap,
    feature: np.ndarray,
    count: int,
    features: Features,
    among: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The rows and cosines, (<= count,) each, of the images most similar to a feature (F,), best first.

    `features` gives the rows' features in full precision; an exact index does not ask for them. `among` are the rows (M,) int64 to
    search; None means all.
    """
    selected = None
    if among is not None:
        selected = faiss.SearchParameters(sel=faiss.IDSelectorBatch(among))
    query = np.ascontiguousarray(feature[None], np.float32)
    exact = is_exact(index)
    scores, rows = index.search(
        query, count if exact else max(COMPARED, COMPARED_TIMES * count), params=selected
    )
    found = rows[0] >= 0  # faiss fills up with -1 where it has fewer
    rows, scores = rows[0][found], scores[0][found]
    if exact:
        return rows, scores
    cosines = np.asarray(features(rows)) @ query[0]
    order = np.argsort(-cosines, kind="stable")[:count]
    return rows[order], cosines[order]


def write(index: faiss.IndexIDMap, path: Path) -> None:
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


def read(path: Path) -> faiss.IndexIDMap:
    """Reads an index that `write` wrote; UserError for a damaged file and for one of another kind."""
    try:
        index = faiss.read_index(str(path))
    except RuntimeError:
        index = None
    if not isinstance(index, faiss.IndexIDMap):
        raise UserError(
            f"{path} is damaged: delete this one file and run the same index command again; nothing is encoded anew."
        )
    return index
