"""What training and evaluation may see of a dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.records import PedesDataset, Record


class UnlabelledImages(Sequence[str]):
    """The image paths of a split and nothing else: the train view of the unsupervised methods.

    No record, caption or identity is kept, so none can be reached from here. An image that the annotation lists more
    than once comes once: neither the list nor its order depends on identities or captions.
    """

    __slots__ = ("image_root", "images")

    def __init__(self, dataset: PedesDataset, split: str = "train") -> None:
        self.image_root: Path = dataset.image_root
        self.images: tuple[str, ...] = tuple(dict.fromkeys(record.image for record in dataset.split(split)))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> str:
        return self.images[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.images)

    def paths(self) -> list[str]:
        """The files, in the same order."""
        return [os.path.join(self.image_root, image) for image in self.images]


class CaptionedImages:
    """The images of the train split that have captions, with these and nothing else: no identity is kept.

    `images` are paths, `captions` the sentences of each. An image that the annotation lists more than once comes once, with
    all its sentences.
    """

    __slots__ = ("captions", "images")

    def __init__(self, dataset: PedesDataset) -> None:
        found: dict[str, dict[str, None]] = {}
        for record in dataset.train:
            found.setdefault(record.image, {}).update(dict.fromkeys(record.captions))
        kept = {image: tuple(captions) for image, captions in found.items() if captions}
        self.images: tuple[str, ...] = tuple(kept)
        self.captions: tuple[tuple[str, ...], ...] = tuple(kept.values())


class LabelledPairs(Sequence[tuple[int, str, int]]):
    """Every caption of the records with its image and identity, for supervised training.

    Item i is `(image index, caption, identity)`; the image index counts the records. Also as columns:
    `image_indices` and `identities` (int64 arrays) and `captions` (a list), all of the same length.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self.captions: list[str] = [caption for record in records for caption in record.captions]
        counts = [len(record.captions) for record in records]
        self.image_indices: NDArray[np.int64] = np.repeat(np.arange(len(records), dtype=np.int64), counts)
        self.identities: NDArray[np.int64] = np.repeat(_identities(records), counts)

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> tuple[int, str, int]:
        return int(self.image_indices[index]), self.captions[index], int(self.identities[index])


def queries(records: Sequence[Record]) -> tuple[list[str], NDArray[np.int64]]:
    """All captions of the records with their identities (Q,): every caption is a query."""
    pairs = LabelledPairs(records)
    return pairs.captions, pairs.identities


def gallery(records: Sequence[Record]) -> tuple[list[str], NDArray[np.int64]]:
    """The image paths of the records (relative to the image folder) with their identities (N,)."""
    return [record.image for record in records], _identities(records)


def _identities(records: Sequence[Record]) -> NDArray[np.int64]:
    return np.fromiter((record.identity for record in records), dtype=np.int64, count=len(records))
