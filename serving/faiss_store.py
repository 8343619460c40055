"""The store that is a part of the index folder: features in faiss, image tokens memory-mapped.

    vectors.faiss      the features that are searched; written last, so an index without it is not finished
    features.bin       (rows, F) float32, L2-normalised: what vectors.faiss is made and mended from
    tokens.bin         (rows, N, D) float16: what ITM re-ranking reads; absent where the model has no matching

Which image is which row says the catalogue beside them (`serving.catalogue`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import UserError
from serving import vectors
from serving.catalogue import CATALOGUE, Catalogue, Entry, Stamp
from serving.crop_table import Origin
from serving.origins import Wanted
from serving.row_file import RowFile
from serving.store import Indexed, Store, Summary, View, unfinished

VECTORS, FEATURES, TOKENS = "vectors.faiss", "features.bin", "tokens.bin"
_BLOCK = 4096  # images


def row_files(directory: Path, header: Mapping[str, Any]) -> list[RowFile]:
    """The features of an index folder, and behind them the tokens where the index has them."""
    files = [RowFile(directory / FEATURES, (header["features"],), np.float32)]
    if header["tokens"] is not None:
        files.append(RowFile(directory / TOKENS, tuple(header["tokens"]), np.float16))
    return files


class FaissStore(Store):
    """The files of an index folder, for changing them."""

    def __init__(self, directory: Path, header: Mapping[str, Any]) -> None:
        self.directory, self.width = directory, header["features"]
        self.files = row_files(directory, header)

    def claim(self, header: Mapping[str, Any], before: Mapping[str, Any]) -> None:
        """Nothing: the folder's header has been checked, and the files are the folder's own."""

    def mirror(self, catalogue: Catalogue) -> None:
        """Nothing: the catalogue says what the files hold."""

    def room_for(self, images: int) -> tuple[Path, int]:
        """The index folder, and the bytes of so many rows."""
        return self.directory, images * sum(file.row_bytes for file in self.files)

    def write(
        self,
        entries: Sequence[Entry],
        features: np.ndarray,
        tokens: np.ndarray | None,
        origins: Mapping[str, Origin],
    ) -> None:
        """Writes features and tokens into their rows; where images are from is for the catalogue."""
        for file, values in zip(self.files, (features, tokens), strict=False):
            file.write([entry.row for entry in entries], values)

    def commit(self) -> None:
        """Waits for the disk."""
        for file in self.files:
            file.sync()

    def amend(self, stamps: Mapping[int, Stamp], origins: Mapping[int, Origin | None]) -> None:
        """Nothing: both are for the catalogue."""

    def is_published(self, summary: Summary) -> bool:
        """Whether there is a `vectors.faiss`; the rest is read from the catalogue."""
        return (self.directory / VECTORS).exists()

    def publish(self, rows: np.ndarray, summary: Summary) -> None:
        """Renames a new `vectors.faiss` over the old one."""
        path, features = self.directory / VECTORS, self.files[0].map()
        try:
            index = vectors.read(path) if path.exists() else None
        except ValueError:
            index = None  # damaged: all of it can be made from features.bin
        index = vectors.brought_up_to(index, rows, lambda chosen: features[chosen], self.width)
        vectors.write(index, path)

    def wipe(self, rows: Sequence[int]) -> None:
        """Overwrites rows with zeros."""
        for file in self.files:
            file.wipe(rows)

    def close(self) -> None:
        """Nothing: files are open only while they are written."""


class FaissView(View):
    """The files of a finished index folder, for searching them.

    Raises UserError for a folder that is not finished or damaged.
    """

    def __init__(self, directory: Path, header: Mapping[str, Any]) -> None:
        self.directory = directory
        self._state = _state(directory)
        if self._state is None:
            raise unfinished(directory)
        self._vectors = vectors.read(directory / VECTORS)
        with Catalogue(directory / CATALOGUE, read_only=True) as catalogue:
            self._paths = catalogue.paths()
            origins = catalogue.origins()
        self._origins = {row: origins[path] for row, path in self._paths.items() if path in origins}
        self.summary = Summary.of(self._vectors.ntotal, self._origins.values())
        self.searched = vectors.kind(self._vectors)
        features, *tokens = row_files(directory, header)
        try:
            self._features = features.map()
            self._tokens = tokens[0].map() if tokens else None
        except OSError as error:
            raise UserError(f"The index {directory} is not complete ({error}): make it anew.") from None
        self.has_tokens = self._tokens is not None

    def is_outdated(self) -> bool:
        """Whether there is another `vectors.faiss` by now."""
        return _state(self.directory) not in (None, self._state)

    def nearest(self, feature: np.ndarray, count: int, wanted: Wanted) -> list[tuple[Indexed, float]]:
        """As `View` says."""
        among = np.asarray(wanted.rows(self._origins), np.int64) if wanted else None
        rows, cosines = vectors.nearest(
            self._vectors, feature, min(count, self.summary.images), lambda rows: self._features[rows], among
        )
        # A row may have been removed between the reading of the two files, while another process publishes.
        return [
            (self._indexed(row), cosine)
            for row, cosine in zip(rows.tolist(), cosines.tolist(), strict=True)
            if row in self._paths
        ]

    def _indexed(self, row: int) -> Indexed:
        return Indexed(row, self._paths[row], self._origins.get(row))

    def holds(self, row: int, image: str) -> bool:
        """As `View` says."""
        return self._paths.get(row) == image

    def features(self, rows: np.ndarray) -> np.ndarray:
        """As `View` says."""
        return np.array(self._features[rows])

    def tokens(self, rows: np.ndarray) -> np.ndarray:
        """As `View` says."""
        return self._tokens[rows]

    def everything(self) -> Iterator[tuple[list[Indexed], np.ndarray]]:
        """As `View` says, in the order of rows."""
        rows = np.array(sorted(row for row in vectors.rows_of(self._vectors).tolist() if row in self._paths))
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            yield [self._indexed(row) for row in block.tolist()], self.features(block)

    def close(self) -> None:
        """Nothing: what is mapped goes with this object."""


def _state(directory: Path) -> tuple[int, int] | None:
    try:
        status = (directory / VECTORS).stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
