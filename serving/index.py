"""An index folder as a search reads it.

    catalogue.sqlite   what the index was made from, which image lies in which row, its file's size, modification time and
                       digest, and where it is from
    checkpoint.pth     the model that all of it was made with
    ...                what the store keeps there (`serving.faiss_store`)

`serving.indexing` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import UserError
from serving.catalogue import CATALOGUE, Catalogue
from serving.origins import EVERYTHING, Wanted
from serving.store import Indexed, Summary, unfinished
from serving.stores import open_view

CHECKPOINT = "checkpoint.pth"
FORMAT = 1


class SearchIndex:
    """A finished index, opened for searching. It stays as it was opened while another process changes it.

    Attributes: `header` says what it was made from; `root` is the image folder; `summary` counts what is in it.

    Raises UserError for a folder that is no index, not finished, damaged or of another format.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        if not (directory / CATALOGUE).is_file():
            raise UserError(
                f"{directory} is no search index: make one with python search.py index --images DIR --checkpoint FILE "
                f"--out {directory}."
            )
        self.header = _header(directory)
        self.root = Path(self.header["images"])
        self._view = open_view(directory, self.header)
        self.summary: Summary = self._view.summary

    def __len__(self) -> int:
        return self.summary.images

    @property
    def searched(self) -> str:
        """How it is searched, for a user: an adverb."""
        return self._view.searched

    @property
    def has_tokens(self) -> bool:
        """Whether the images' tokens are kept, which re-ranking reads."""
        return self._view.has_tokens

    def is_outdated(self) -> bool:
        """Whether another process has published a newer state since."""
        return self._view.is_outdated()

    def holds(self, row: int, image: str) -> bool:
        """Whether a row still is this image's: rows of removed images are given to others."""
        return self._view.holds(row, image)

    def feature(self, row: int) -> np.ndarray:
        """The L2-normalised feature (F,) of the image in a row."""
        return self.features(np.array([row]))[0]

    def features(self, rows: np.ndarray) -> np.ndarray:
        """The L2-normalised features (B, F) float32 of these rows."""
        return self._view.features(rows)

    def tokens(self, rows: np.ndarray) -> np.ndarray:
        """A copy of the tokens (B, N, D) float16 of these rows, where the index `has_tokens`."""
        return self._view.tokens(rows)

    def nearest(
        self, feature: np.ndarray, count: int, wanted: Wanted = EVERYTHING
    ) -> list[tuple[Indexed, float]]:
        """The images most similar to a normalised feature (F,), at most `count`, best first, with their cosines.

        Raises UserError for a filter that can't be used.
        """
        return self._view.nearest(feature, count, wanted)

    def everything(self) -> Iterator[tuple[list[Indexed], np.ndarray]]:
        """All images with their features (B, F) float32, in blocks."""
        return self._view.everything()

    def close(self) -> None:
        """Lets go of what is open."""
        self._view.close()


def _header(directory: Path) -> dict[str, Any]:
    if (directory / CATALOGUE).stat().st_size == 0:  # a run that was killed at its very beginning
        raise unfinished(directory)
    with Catalogue(directory / CATALOGUE, read_only=True) as catalogue:
        header = catalogue.header()
    if header is None:
        raise unfinished(directory)
    return checked_header(header, directory)


def checked_header(header: dict[str, Any], directory: Path) -> dict[str, Any]:
    """The header of an index; UserError where it is of another format."""
    if header.get("format") != FORMAT:
        raise UserError(f"The index {directory} was made by another version: make it anew in another folder.")
    return header
