"""Images that two splits or two data sets share, by their content."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.findings import Finding
from data.records import PedesDataset, Record

_SHOWN = 3


def check_overlap(dataset: PedesDataset, other: PedesDataset | None = None) -> list[Finding]:
    """Images of test that are byte for byte in train, of the same set or of `other`, which a model may be trained on.

    Files are read only where another one has the same size. A copy that was resized or encoded again is not found.
    """
    trained_on = dataset if other is None else other
    pairs = equal_images(_paths(trained_on, trained_on.train), _paths(dataset, dataset.test))
    if not pairs:
        return []
    first = ", ".join(f"{b.name} is {a.name}" for a, b in pairs[:_SHOWN])
    whose = "train" if other is None else f"the train split of {other.name}"
    effect = "a model trained there has seen them, so its results here are too good"
    text = f"{len(pairs):,} image(s) of test are also in {whose}, byte for byte: {effect}. First: {first}."
    return [Finding("warning", text)]


def equal_images(first: Iterable[Path], second: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Pairs of files with the same content: one of `first`, and each of `second` that equals it. Missing ones are skipped."""
    by_size = defaultdict(list)
    for path, size in _sized(first):
        by_size[size].append(path)
    digests: dict[int, dict[bytes, Path]] = {}
    pairs = []
    for path, size in _sized(second):
        if size not in by_size:
            continue
        if size not in digests:
            digests[size] = {_digest(one): one for one in reversed(by_size[size])}
        if (twin := digests[size].get(_digest(path))) is not None:
            pairs.append((twin, path))
    return pairs


def _paths(dataset: PedesDataset, records: Iterable[Record]) -> list[Path]:
    return [dataset.image_root / image for image in dict.fromkeys(record.image for record in records)]


def _sized(paths: Iterable[Path]) -> Iterator[tuple[Path, int]]:
    for path in paths:
        try:
            size = path.stat().st_size
        except (OSError, ValueError):
            continue
        if size:
            yield path, size


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
