"""The caption store: an append-only file that a killed run goes on from.

One JSON Lines file per stage and dataset. Captioning a dataset takes hours and, with a paid endpoint, money, so
every answer is on disk before the next question is counted as free: a run that is killed at any moment loses at
most the requests in flight.

How that holds:

- A record is one line, written by one `os.write` to a file opened with O_APPEND, under `flock`. Several processes
  (the ranks of one run) append to one file.
- A JSON object is self-delimiting: no proper prefix of it is valid JSON. A line torn by a kill therefore never
  parses, is counted (`torn`) and ignored, and the next append begins on a new line. Nothing is ever cut away.
- Data is forced to disk (fsync) at most once a second and on `close`: a killed process loses nothing of what was
  written, a power failure at most the last second.
- The last record of a key wins, so a retried answer replaces the refusal before it.
"""

from __future__ import annotations

import fcntl
import json
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from data.errors import UserError

Status = Literal["done", "refused", "empty", "failed"]
STATUSES: tuple[str, ...] = get_args(Status)
CAPTION_FIELDS = ("text", "base_caption", "styled_caption", "fixed_caption")

Record = dict[str, Any]


class StoreError(UserError):
    """The store cannot be read or written; the message says which file and what to do."""


@dataclass(frozen=True)
class CaptionStatistics:
    """Captions of one field: their number, how many differ, and their words (minimum, mean, maximum)."""

    captions: int
    distinct: int
    words_min: int
    words_mean: float
    words_max: int
    characters_mean: float


@dataclass(frozen=True)
class StoreSummary:
    """What a store holds.

    `done` to `failed` count images (records that are not single steps towards one), `steps` counts the answers to
    single questions that stage A keeps, `duplicates` counts keys answered again although they were done, `torn`
    counts unreadable lines, `models` counts the images each model captioned.
    """

    done: int = 0
    refused: int = 0
    empty: int = 0
    failed: int = 0
    steps: int = 0
    duplicates: int = 0
    torn: int = 0
    models: dict[str, int] = field(default_factory=dict)
    captions: dict[str, CaptionStatistics] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"{self.done} done, {self.refused} refused, {self.empty} empty, {self.failed} failed; "
            f"{self.duplicates} answered twice, {self.torn} unreadable lines ignored"
        ]
        if self.models:
            lines.append("models: " + ", ".join(f"{name} ({count})" for name, count in self.models.items()))
        for name, found in self.captions.items():
            lines.append(
                f"{name}: {found.captions} captions, {found.distinct} distinct, words per caption "
                f"{found.words_min}/{found.words_mean:.1f}/{found.words_max} (min/mean/max), "
                f"{found.characters_mean:.0f} characters on average"
            )
        return "\n".join(lines)


class CaptionStore:
    """Append-only JSONL records by key; see the module for what it promises.

    Args:
        path: the file; it and its folder are made with the first record.
        sync_seconds: how often written records are forced to disk.

    Iterating yields the current record of every key (a dict with at least "key" and "status"), `len` counts keys.

    Raises:
        StoreError: the path is a folder or cannot be read.
    """

    def __init__(self, path: str | Path, *, sync_seconds: float = 1.0) -> None:
        self.path = Path(path)
        self._sync_seconds = sync_seconds
        self._records: dict[str, Record] = {}
        self._duplicates = 0
        self._garbage = 0
        self._tail_is_torn = False
        self._offset = 0
        self._descriptor: int | None = None
        self._synced_at = time.monotonic()
        self._lock = threading.Lock()
        if self.path.is_dir():
            raise StoreError(f"The caption store {self.path} is a folder; name a .jsonl file.")
        self.refresh()

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(list(self._records.values()))

    def __contains__(self, key: object) -> bool:
        return key in self._records

    def __enter__(self) -> CaptionStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def torn(self) -> int:
        """Lines that were not a whole record and were ignored (a kill in the middle of a write leaves one)."""
        return self._garbage + self._tail_is_torn

    @property
    def duplicates(self) -> int:
        """How often a key that was already done was answered again."""
        return self._duplicates

    def get(self, key: str) -> Record | None:
        """The current record of `key`, or None."""
        return self._records.get(key)

    def status(self, key: str) -> str | None:
        """The status of `key`, or None if it was never answered."""
        record = self._records.get(key)
        return record["status"] if record else None

    def missing(self, keys: Iterable[str], *, retry_refused: bool = False) -> list[str]:
        """The keys still to be asked, in order and once each.

        Those without a record and those that failed (no answer could be had); with `retry_refused` also those that
        were refused or came back empty.
        """
        settled = {"done"} if retry_refused else {"done", "refused", "empty"}
        return [key for key in dict.fromkeys(keys) if self.status(key) not in settled]

    def put(self, key: str, *, status: Status = "done", **fields: Any) -> None:
        """Append one record; it has left the process when this returns.

        Args:
            key: what was captioned, usually the image path relative to the dataset's image root.
            status: one of "done", "refused", "empty", "failed".
            fields: anything JSON can say.

        Raises:
            StoreError: the disk is full or the file cannot be written; nothing half-written is left behind.
            ValueError: an unknown status.
        """
        if status not in STATUSES:
            raise ValueError(f"Unknown caption status {status!r}; choose one of {', '.join(STATUSES)}.")
        record = {"key": key, "status": status, **fields}
        # ASCII with escapes: file names that are no valid UTF-8 (lone surrogates) survive the round trip.
        line = json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"
        with self._lock:
            self._append(line)

    def refresh(self) -> None:
        """Read what other processes have appended since."""
        with self._lock:
            try:
                with self.path.open("rb") as file:
                    # Shared lock: no writer is half-way, so an incomplete last line has no one to finish it.
                    fcntl.flock(file, fcntl.LOCK_SH)
                    self._read_new(file.fileno())
            except FileNotFoundError:
                return
            except OSError as error:
                raise StoreError(f"Cannot read the caption store {self.path}: {error.strerror}.") from error

    def flush(self) -> None:
        """Force everything written so far to disk."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)
            self._synced_at = time.monotonic()

    def close(self) -> None:
        """Force everything to disk and close the file; a later `put` opens it again."""
        if self._descriptor is not None:
            self.flush()
            os.close(self._descriptor)
            self._descriptor = None

    def summary(self, fields: Iterable[str] = CAPTION_FIELDS) -> StoreSummary:
        """Counts by status, and statistics of the caption `fields` of the records that are done."""
        finals = [record for record in self._records.values() if "step" not in record]
        done = [record for record in finals if record["status"] == "done"]
        counts = Counter(record["status"] for record in finals)
        texts = {name: [r[name] for r in done if isinstance(r.get(name), str) and r[name]] for name in fields}
        return StoreSummary(
            **{status: counts[status] for status in STATUSES},
            steps=len(self._records) - len(finals),
            duplicates=self._duplicates,
            torn=self.torn,
            models=dict(Counter(str(record["model"]) for record in done if "model" in record).most_common()),
            captions={name: _statistics(found) for name, found in texts.items() if found},
        )

    def _append(self, line: bytes) -> None:
        try:
            descriptor = self._open()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                self._read_new(descriptor)
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    line = b"\n" + line
                written = os.write(descriptor, line)
                if written != len(line):
                    os.ftruncate(descriptor, size)
                    raise StoreError(
                        f"The disk is full: could not append to {self.path}. Free space and run again."
                    )
                self._read_new(descriptor)
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        except OSError as error:
            raise StoreError(f"Cannot write the caption store {self.path}: {error.strerror}.") from error
        if time.monotonic() - self._synced_at >= self._sync_seconds:
            self.flush()

    def _open(self) -> int:
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        return self._descriptor

    def _read_new(self, descriptor: int) -> None:
        """Take in everything from the last offset on; a torn tail stays unread until a new line follows it."""
        size = os.fstat(descriptor).st_size
        if size < self._offset:
            raise StoreError(f"The caption store {self.path} has shrunk while in use; start the run again.")
        # One pread returns at most 2 GiB.
        blocks, position = [], self._offset
        while position < size and (block := os.pread(descriptor, size - position, position)):
            blocks.append(block)
            position += len(block)
        *lines, tail = b"".join(blocks).split(b"\n")
        for line in lines:
            if line.strip():
                self._take(line)
        # A tail that parses is a whole record that lacks its newline only.
        whole_tail = bool(tail.strip()) and _parse(tail) is not None
        if whole_tail:
            self._take(tail)
        self._tail_is_torn = bool(tail.strip()) and not whole_tail
        self._offset = position - (len(tail) if self._tail_is_torn else 0)

    def _take(self, line: bytes) -> None:
        record = _parse(line)
        if record is None:
            self._garbage += 1
            return
        if record["status"] == "done" and self.status(record["key"]) == "done":
            self._duplicates += 1
        self._records[record["key"]] = record


def _parse(line: bytes) -> Record | None:
    """The record of a line, or None if the line is not a whole one."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("key"), str):
        return None
    return record if record.get("status") in STATUSES else None


def _statistics(captions: list[str]) -> CaptionStatistics:
    words = [len(caption.split()) for caption in captions]
    return CaptionStatistics(
        captions=len(captions),
        distinct=len(set(captions)),
        words_min=min(words),
        words_mean=statistics.fmean(words),
        words_max=max(words),
        characters_mean=statistics.fmean(len(caption) for caption in captions),
    )
