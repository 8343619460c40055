"""What an index needs of the place that keeps its features: `Store` for whoever changes it, `View` for whoever searches it.

`serving.faiss_store` keeps them in files of the index folder; `serving.stores` chooses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import UserError
from serving.catalogue import Catalogue, Entry, Stamp
from serving.crop_table import Origin
from serving.origins import Wanted


@dataclass(frozen=True)
class Indexed:
    """An image that is searched: its row, its path below the image folder, and where it is from, if anybody knows."""

    row: int
    image: str
    origin: Origin | None = None


@dataclass(frozen=True)
class Summary:
    """What can be said of an index as a whole: how many images, of which sources (in order), and whether any has a time."""

    images: int
    sources: tuple[str, ...] = ()
    timed: bool = False

    @classmethod
    def of(cls, images: int, origins: Iterable[Origin]) -> Summary:
        """Counts sources and times."""
        origins = list(origins)
        sources = tuple(sorted({origin.source for origin in origins}))
        return cls(images, sources, any(origin.seconds is not None for origin in origins))


class Store(ABC):
    """Where an index keeps the features of its images, opened for changing by one process.

    A row is what `serving.catalogue` knows an image by. Methods that write raise OSError where the disk has no room, and
    UserError with the remedy for whatever else a user can do something about.
    """

    @abstractmethod
    def claim(self, header: Mapping[str, Any], before: Mapping[str, Any]) -> None:
        """Says what the store is filled from, or checks that it is filled from the same.

        `header` is the index's now, `before` as it was until this run.
        """

    @abstractmethod
    def mirror(self, catalogue: Catalogue) -> None:
        """Makes the catalogue say what the store holds, where that is for the store to say."""

    @abstractmethod
    def room_for(self, images: int) -> tuple[Path, int]:
        """A folder, and the bytes that so many images take there."""

    @abstractmethod
    def write(
        self,
        entries: Sequence[Entry],
        features: np.ndarray,
        tokens: np.ndarray | None,
        origins: Mapping[str, Origin],
    ) -> None:
        """Takes encoded images: features (B, F) float32 and tokens (B, N, D) float16; `commit` makes sure of them."""

    @abstractmethod
    def commit(self) -> None:
        """Waits until everything written outlives this process."""

    @abstractmethod
    def amend(self, stamps: Mapping[int, Stamp], origins: Mapping[int, Origin | None]) -> None:
        """Notes another file time, and another origin, of rows whose images are the same."""

    @abstractmethod
    def is_published(self, summary: Summary) -> bool:
        """Whether there is something to search that this can be said of."""

    @abstractmethod
    def publish(self, rows: np.ndarray, summary: Summary) -> None:
        """Makes exactly these rows (N,) what is searched."""

    @abstractmethod
    def wipe(self, rows: Sequence[int]) -> None:
        """Forgets what these rows hold."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of what is open."""


class View(ABC):
    """What is searched, as it was when it was opened.

    Attributes: `summary`; `searched`, an adverb that says how.
    """

    summary: Summary
    searched: str
    has_tokens: bool

    @abstractmethod
    def is_outdated(self) -> bool:
        """Whether another process has published a newer state since."""

    @abstractmethod
    def nearest(self, feature: np.ndarray, count: int, wanted: Wanted) -> list[tuple[Indexed, float]]:
        """The images most similar to a normalised feature (F,), at most `count`, best first, with their cosines.

        Raises UserError for a filter that can't be used.
        """

    @abstractmethod
    def holds(self, row: int, image: str) -> bool:
        """Whether a row still is this image's: rows of removed images are given to others."""

    @abstractmethod
    def features(self, rows: np.ndarray) -> np.ndarray:
        """The L2-normalised features (B, F) float32 of these rows."""

    @abstractmethod
    def tokens(self, rows: np.ndarray) -> np.ndarray:
        """A copy of the tokens (B, N, D) float16 of these rows, where the index `has_tokens`."""

    @abstractmethod
    def everything(self) -> Iterator[tuple[list[Indexed], np.ndarray]]:
        """All images with their features (B, F), in blocks."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of what is open."""


def unfinished(directory: Path) -> UserError:
    """What to say of an index that nobody has finished."""
    return UserError(
        f"The index {directory} is not finished: run the same python search.py index command again, it goes on."
    )
