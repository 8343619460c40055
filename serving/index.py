"""An index folder as a search reads it: features in faiss, image tokens memory-mapped, and which image is which row.

    catalogue.sqlite   which image lies in which row, its file's size, modification time and digest, and where it is from
    vectors.faiss      the features that are searched; written last, so an index without it is not finished
    features.bin       (rows, F) float32, L2-normalised: what vectors.faiss is made and mended from
    tokens.bin         (rows, N, D) float16: what ITM re-ranking reads; absent where the model has no matching
    checkpoint.pth     the model that all of it was made with

`serving.indexing` writes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import UserError
from serving import vectors
from serving.catalogue import Catalogue

CATALOGUE, VECTORS, FEATURES, TOKENS, CHECKPOINT = (
    "catalogue.sqlite",
    "vectors.faiss",
    "features.bin",
    "tokens.bin",
    "checkpoint.pth",
)
FORMAT = 1


class RowFile:
    """A file of equal rows, read through a memory map and written with plain writes.

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


def row_files(directory: Path, header: dict[str, Any]) -> list[RowFile]:
    """The features of an index folder, and behind them the tokens where the index has them."""
    files = [RowFile(directory / FEATURES, (header["features"],), np.float32)]
    if header["tokens"] is not None:
        files.append(RowFile(directory / TOKENS, tuple(header["tokens"]), np.float16))
    return files


class SearchIndex:
    """A finished index, opened for searching. It stays as it was opened while another process changes the folder.

    Attributes: `header` says what it was made from; `root` is the image folder; `origins` says of rows where their images
    are from, where a table of crops does.

    Raises UserError for a folder that is no index, not finished, damaged or of another format.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        if not (directory / CATALOGUE).is_file():
            raise UserError(
                f"{directory} is no search index: make one with python search.py index --images DIR --checkpoint FILE "
                f"--out {directory}."
            )
        self._state = _state(directory)
        if self._state is None:
            raise UserError(
                f"The index {directory} is not finished: run the same python search.py index command again, it goes on."
            )
        self.vectors = vectors.read(directory / VECTORS)
        with Catalogue(directory / CATALOGUE, read_only=True) as catalogue:
            self.header = checked_header(catalogue.header(), directory)
            self._paths = catalogue.paths()
            origins = catalogue.origins()
        self.origins = {row: origins[path] for row, path in self._paths.items() if path in origins}
        self.root = Path(self.header["images"])
        features, *tokens = row_files(directory, self.header)
        try:
            self._features = features.map()
            self._tokens = tokens[0].map() if tokens else None
        except OSError as error:
            raise UserError(f"The index {directory} is not complete ({error}): make it anew.") from None

    def __len__(self) -> int:
        return self.vectors.ntotal

    @property
    def has_tokens(self) -> bool:
        """Whether images can be re-ranked: their tokens are there."""
        return self._tokens is not None

    def is_outdated(self) -> bool:
        """Whether another process has published a newer state of the folder since."""
        return _state(self.directory) not in (None, self._state)

    def image(self, row: int) -> str:
        """The path below `root` of the image in a row."""
        return self._paths[row]

    def holds(self, row: int, image: str) -> bool:
        """Whether a row still is this image's: rows of removed images are given to others."""
        return self._paths.get(row) == image

    def feature(self, row: int) -> np.ndarray:
        """The L2-normalised feature (F,) of the image in a row."""
        return np.array(self._features[row])

    def tokens(self, rows: np.ndarray) -> np.ndarray:
        """A copy of the tokens (B, N, D) float16 of these rows."""
        return self._tokens[rows]

    def nearest(
        self, feature: np.ndarray, count: int, among: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows and cosines, (<= count,) each, of the images most similar to a normalised feature (F,), best first.

        `among` are the rows to search; None means all.
        """
        chosen = None if among is None else np.asarray(among, np.int64)
        rows, cosines = vectors.nearest(
            self.vectors, feature, min(count, len(self)), lambda rows: self._features[rows], chosen
        )
        # A row may have been removed between the reading of the two files, while another process publishes.
        known = np.array([int(row) in self._paths for row in rows], dtype=bool)
        return rows[known], cosines[known]


def _state(directory: Path) -> tuple[int, int] | None:
    try:
        status = (directory / VECTORS).stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def checked_header(header: dict[str, Any] | None, directory: Path) -> dict[str, Any]:
    """The header of an index; UserError where it is missing or of another format."""
    if header is None or header.get("format") != FORMAT:
        raise UserError(f"The index {directory} was made by another version: make it anew in another folder.")
    return header
