"""What a dataset is once it is read: records in three splits, and the numbers its authors published."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from data.errors import UserError

SPLITS = ("train", "val", "test")
NO_IDENTITY = -1


class Record(NamedTuple):
    """One image of a person.

    `image` is a posix path relative to the dataset's `image_root`; `identity` is the annotation's own number
    (not contiguous, 0 is allowed, -1 where there is none); `captions` are sentences, stripped, never empty strings.
    """

    image: str
    identity: int
    captions: tuple[str, ...]


@dataclass(frozen=True)
class SplitStatistics:
    """Counts of one split; `captions` counts every sentence, since every sentence is a query."""

    images: int
    identities: int
    captions: int


@dataclass(frozen=True)
class Statistics:
    """The published counts of a dataset; a split that the dataset does not have is all zero."""

    train: SplitStatistics
    val: SplitStatistics
    test: SplitStatistics
    words_per_caption: float


@dataclass(frozen=True)
class LeftOut:
    """What reading an annotation left out or found twice, as counts and image paths.

    `empty_captions`: sentences without a word, dropped. `uncaptioned`: per split the images without any sentence
    (they stay: training without captions and the gallery need them). `duplicates`: records merged into an earlier
    record of the same image, identity and split. `conflicts`: images that come with two identities or in two splits
    (all their records stay).
    """

    empty_captions: int = 0
    uncaptioned: dict[str, tuple[str, ...]] = field(default_factory=dict)
    duplicates: int = 0
    conflicts: tuple[str, ...] = ()


@dataclass(frozen=True)
class PedesDataset:
    """A person search dataset: records of the train, val and test split below one image folder.

    `expected` holds the published statistics (None for a bare folder), `annotation` the file that was read.
    """

    name: str
    image_root: Path
    train: list[Record]
    val: list[Record]
    test: list[Record]
    expected: Statistics | None = None
    annotation: Path | None = None
    left_out: LeftOut = field(default_factory=LeftOut)

    def split(self, name: str) -> list[Record]:
        """The records of `train`, `val` or `test`; ValueError for any other name."""
        if name not in SPLITS:
            raise ValueError(f"There is no split {name!r}: choose one of {', '.join(SPLITS)}.")
        return getattr(self, name)

    def path(self, record: Record | str) -> Path:
        """Where the image of a record (or a relative image path) lies.

        Raises UserError for a path or a link that leaves the image folder, so that no annotation or archive can
        make a run read other files. Existence is not checked here.
        """
        image = record if isinstance(record, str) else record.image
        path = self.image_root / image
        if os.path.islink(path) and leaves(path, self.image_root):
            raise UserError(
                f"{path} is a link to a file outside {self.image_root}: put a copy (or a hard link) there instead."
            )
        return path


def leaves(path: str | os.PathLike[str], root: str | os.PathLike[str]) -> bool:
    """Whether `path`, with all links followed, lies outside `root`."""
    real, base = os.path.realpath(path), os.path.realpath(root)
    return real != base and not real.startswith(base.rstrip(os.sep) + os.sep)


def split_statistics(records: list[Record]) -> SplitStatistics:
    """Count the images, identities and captions of a list of records."""
    return SplitStatistics(
        images=len({record.image for record in records}),
        identities=len({record.identity for record in records} - {NO_IDENTITY}),
        captions=sum(len(record.captions) for record in records),
    )
