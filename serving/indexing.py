"""Making an index folder and bringing it up to date: only what is new or changed is encoded.

An image counts as unchanged while its file's size and modification time stay; where they differ, the digest of its
bytes decides. Encoded images are noted every few seconds, so a run that is stopped or killed goes on from there. What
is searched changes at the very end, when the store publishes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.errors import UserError
from retrieval.encode import Progress, encode_gallery
from retrieval.verbs import RetrievalModel, device_of, inference
from serving.catalogue import CATALOGUE, DEAD, LIVE, NEW, Catalogue, Entry, Stamp
from serving.crop_table import Origin
from serving.index import FORMAT, checked_header
from serving.origins import find_origins
from serving.store import Store, Summary
from serving.stores import checked_store, open_store

# A file -> (3, H, W) float32 as the model takes it; UserError if it does not open.
Decode = Callable[[Path], Tensor]

SAVE_SECONDS = 10.0
_LOCK = "lock"


@dataclass(frozen=True)
class Report:
    """What an update did, in images; `unreadable` lists (path, reason) of all that are skipped."""

    indexed: int
    added: int
    changed: int
    removed: int
    unreadable: list[tuple[str, str]]


@dataclass
class Plan:
    """What there is to do.

    `keep` maps paths to rows that are right already, `todo` is to be encoded, `unreadable` maps paths that do not open
    to the reason, and `before` maps paths to rows as they are searched now. `origins` says of paths where their images are from.
    """

    keep: dict[str, int] = field(default_factory=dict)
    todo: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    before: dict[str, int] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)

    def report(self) -> Report:
        """The difference between before and now."""
        changed = [path for path, row in self.keep.items() if self.before.get(path, row) != row]
        return Report(
            indexed=len(self.keep),
            added=len(self.keep.keys() - self.before.keys()),
            changed=len(changed),
            removed=len(self.before.keys() - self.keep.keys()),
            unreadable=sorted(self.unreadable.items()),
        )

    def summary(self) -> Summary:
        """What is to be said of the index when the plan is done."""
        return Summary.of(len(self.keep), (self.origins[path] for path in self.keep if path in self.origins))


class IndexWriter:
    """An index folder, opened for changing by one process at a time.

    Raises UserError for a folder that holds something else, and while another process has it open.
    """

    def __init__(self, directory: Path) -> None:
        if directory.exists() and not directory.is_dir():
            raise UserError(f"{directory} is a file: name a folder for the index.")
        if directory.is_dir() and not (directory / CATALOGUE).exists() and any(directory.iterdir()):
            raise UserError(
                f"{directory} holds other files and no index: name a new or an empty folder, nothing is overwritten."
            )
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # The catalogue before the lock: a folder with nothing but a lock in it would not be known as an index.
            (directory / CATALOGUE).touch()
            self._lock = (directory / _LOCK).open("w")
        except OSError as error:
            raise UserError(
                f"The index {directory} can't be written ({error.strerror}): name another --out."
            ) from None
        self.directory = directory
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise UserError(
                f"Another process is changing the index {directory}: wait until it is done, then run this again."
            ) from None
        self.catalogue = Catalogue(directory / CATALOGUE)
        self.header: dict[str, Any] = {}
        self.store: Store | None = None  # from `claim` on

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self.store is not None:
            self.store.close()
        self.catalogue.__exit__()
        self._lock.close()

    def claim(
        self,
        model: RetrievalModel,
        image_size: tuple[int, int],
        checkpoint: str,
        root: Path,
        kept_in: Mapping[str, str] | None = None,
    ) -> None:
        """Says what the index is made from, or checks that it is made from the same.

        `checkpoint` is the digest of the model's file, `root` the image folder. `kept_in` is where features are kept, as
        `serving.stores.named_store` reads it; None leaves them where they are, a new index' in the folder's files.
        Raises UserError for another checkpoint, for another image folder while the first one is still there, and for a store that
        is another, can't be reached, or holds something else.
        """
        root = root.resolve()
        before = self.catalogue.header()
        header = _new_header(model, image_size, kept_in or {}) if before is None else dict(before)
        header = {"checkpoint": checkpoint, "images": str(root), **header}
        checked_header(header, self.directory)
        if header["checkpoint"] != checkpoint:
            raise UserError(
                f"The index {self.directory} was made with another checkpoint, and features of two models can't be "
                "compared: name another --out, or delete this index first."
            )
        if header["images"] != str(root):
            if Path(header["images"]).is_dir():
                raise UserError(
                    f"The index {self.directory} is of the images in {header['images']}, not of {root}: name another --out."
                )
            header["images"] = str(root)  # the folder has moved
        if kept_in is not None:
            header |= checked_store(header, kept_in, self.directory)
        # The store before the folder: one that can't be reached may be named otherwise by the next command.
        self.store = open_store(self.directory, header)
        self.store.claim(header, before or header)
        if header != before:
            self.catalogue.set_header(header)
        self.header = header
        self.store.mirror(self.catalogue)

    def note_kept(self, checkpoint: str) -> None:
        """Says which digest the checkpoint in the index has, where it is not that of the file that it was made from."""
        if self.header.get("kept") != checkpoint:
            self.header = {**self.header, "kept": checkpoint}
            self.catalogue.set_header(self.header)

    def plan(self, images: Sequence[str]) -> Plan:
        """Compares the folder's images (paths below the root) with what is encoded.

        Raises UserError for a damaged table of crops in the folder.
        """
        root = Path(self.header["images"])
        fresh, live = self.catalogue.entries(NEW), self.catalogue.entries(LIVE)
        known_bad = self.catalogue.unreadable()
        plan = Plan(
            before={path: entry.row for path, entry in live.items()}, origins=find_origins(root, images)
        )
        touched: dict[int, Stamp] = {}
        for image in images:
            stamp, entry = stamp_of(root / image), fresh.get(image) or live.get(image)
            if stamp is None:  # deleted since the folder was listed
                continue
            if image in known_bad and known_bad[image][0] == stamp:
                plan.unreadable[image] = known_bad[image][1]
            elif entry is None:
                plan.todo.append(image)
            elif entry.stamp == stamp:
                plan.keep[image] = entry.row
            elif entry.digest == digest_of(root / image):
                plan.keep[image] = entry.row
                touched[entry.row] = stamp
            else:
                plan.todo.append(image)
        # What an interrupted run encoded and what has changed since must not be taken for this run's.
        self.catalogue.set_state({fresh[image].row: DEAD for image in plan.todo if image in fresh})
        self.catalogue.forget_unreadable(known_bad.keys() - plan.unreadable.keys())
        self._amend(plan, touched)
        return plan

    def _amend(self, plan: Plan, touched: dict[int, Stamp]) -> None:
        """Notes what has changed about images that are encoded already, and where all are from."""
        known = self.catalogue.origins()
        moved = {
            row: plan.origins.get(path)
            for path, row in plan.keep.items()
            if known.get(path) != plan.origins.get(path)
        }
        self.store.amend(touched, moved)
        self.catalogue.touch(touched.items())
        if plan.origins != known:
            self.catalogue.set_origins(plan.origins)

    def encode(
        self,
        plan: Plan,
        model: RetrievalModel,
        decode: Decode,
        *,
        batch_size: int = 32,
        workers: int = 2,
        progress: Progress | None = None,
    ) -> None:
        """Encodes what the plan asks for and adds it to the plan's `keep`, or to its `unreadable`.

        `progress(done, total)` may raise to stop: what is done then is kept, and the next run goes on.
        Raises UserError where the disk has no room.
        """
        root = Path(self.header["images"])
        self._check_room(len(plan.todo))
        rows = _unused(set(self.catalogue.rows(NEW, LIVE, DEAD)))
        journal = _Journal(self.catalogue, self.store)
        done = 0
        try:
            for batch in _decoded(root, plan.todo, decode, batch_size, workers):
                good = [item for item in batch if item.pixels is not None]
                if good:
                    entries = [Entry(next(rows), item.path, item.stamp, item.digest) for item in good]
                    pixels = torch.stack([item.pixels for item in good])
                    encoded = _encoded(model, pixels, self.header["tokens"] is not None)
                    self.store.write(entries, *encoded, plan.origins)
                    journal.entries += entries
                    plan.keep.update({entry.path: entry.row for entry in entries})
                for item in batch:
                    if item.pixels is None:
                        journal.unreadable.append((item.path, item.stamp, item.reason))
                        plan.unreadable[item.path] = item.reason
                done += len(batch)
                journal.write_sometimes()
                if progress is not None:
                    progress(done, len(plan.todo))
        except OSError as error:
            raise UserError(self._no_room(error)) from None
        finally:
            journal.write()

    def publish(self, plan: Plan) -> Report:
        """Makes the plan's images what is searched, wipes what was removed, and returns the report.

        Raises UserError where no image is left, and where the disk has no room.
        """
        report = plan.report()
        if not plan.keep:
            reason = (
                f": none of {len(report.unreadable)} opens. {report.unreadable[0][1]}"
                if report.unreadable
                else "."
            )
            raise UserError(f"There is no image to index{reason}")
        rows = np.sort(np.fromiter(plan.keep.values(), np.int64, len(plan.keep)))
        kept = set(rows.tolist())
        states = {row: LIVE for row in self.catalogue.rows(NEW) if row in kept}
        states |= {row: DEAD for row in self.catalogue.rows(NEW, LIVE) if row not in kept}
        summary = plan.summary()
        if self.store.is_published(summary) and not states and not self.catalogue.rows(DEAD):
            return report
        try:
            self.store.publish(rows, summary)
            self.catalogue.set_state(states)
            dead = self.catalogue.rows(DEAD)
            self.store.wipe(dead)
        except OSError as error:
            raise UserError(self._no_room(error)) from None
        self.catalogue.free(dead)
        return report

    def _check_room(self, images: int) -> None:
        folder, needed = self.store.room_for(images)
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise UserError(
                f"The index needs {needed / 1e9:.1f} GB more in {folder}, where {free / 1e9:.1f} GB are free: "
                "make room or name another --out."
            )

    def _no_room(self, error: OSError) -> str:
        return (
            f"The index {self.directory} can't be written ({error.strerror or error}): make room and run the same "
            "command again, it goes on."
        )


@dataclass(frozen=True)
class _Decoded:
    path: str
    stamp: Stamp
    digest: str
    pixels: Tensor | None
    reason: str = ""


class _Journal:
    """Notes what is encoded every few seconds; each note is one transaction, after the store is sure of the rows."""

    def __init__(self, catalogue: Catalogue, store: Store) -> None:
        self.catalogue, self.store = catalogue, store
        self.entries: list[Entry] = []
        self.unreadable: list[tuple[str, Stamp, str]] = []
        self._written = time.monotonic()

    def write_sometimes(self) -> None:
        """Writes if the last time is long ago."""
        if time.monotonic() - self._written > SAVE_SECONDS:
            self.write()

    def write(self) -> None:
        """Writes what has come since the last time."""
        if self.entries:
            self.store.commit()
        self.catalogue.add(self.entries, self.unreadable)
        self.entries, self.unreadable = [], []
        self._written = time.monotonic()


def _new_header(
    model: RetrievalModel, image_size: tuple[int, int], kept_in: Mapping[str, str]
) -> dict[str, Any]:
    with inference(model) as device:
        tokens, features = model.encode_images(torch.zeros(1, 3, *image_size, device=device))
    # Tokens are kept in the folder's files alone: 300 kB each of a base model are no load for a database.
    shape = list(tokens.shape[1:]) if model.has_matching and not kept_in else None
    return {"format": FORMAT, "features": features.shape[1], "tokens": shape, **kept_in}


def stamp_of(path: Path) -> Stamp | None:
    """The state of a file; None where it is gone."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return Stamp(status.st_size, status.st_mtime_ns)


def digest_of(path: Path) -> str:
    """A digest of a file's bytes; empty where it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError:
        return ""


def _unused(rows: set[int]) -> Iterator[int]:
    row = 0
    while True:
        if row not in rows:
            yield row
        row += 1


def _decoded(
    root: Path, images: Sequence[str], decode: Decode, batch_size: int, workers: int
) -> Iterator[list[_Decoded]]:
    """Batches of decoded images, in order; the next one is decoded while one is used."""

    def read(image: str) -> _Decoded:
        path = root / image
        stamp = stamp_of(path) or Stamp(0, 0)  # before the file is read: a change meanwhile is seen next time
        try:
            return _Decoded(image, stamp, digest_of(path), decode(path))
        except ValueError as error:
            return _Decoded(image, stamp, "", None, str(error))

    pool = ThreadPoolExecutor(max(1, workers))
    try:
        waiting: list[Future[_Decoded]] = []
        for start in range(0, len(images) + batch_size, batch_size):
            upcoming = [pool.submit(read, image) for image in images[start : start + batch_size]]
            if waiting:
                yield [future.result() for future in waiting]
            waiting = upcoming
    finally:
        pool.shutdown(cancel_futures=True)


def _encoded(
    model: RetrievalModel, images: Tensor, with_tokens: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """What a store takes of a batch (B, 3, H, W), as evaluation encodes it: features (B, F), tokens (B, N, D) float16."""
    token_dtype = torch.float16 if with_tokens else None
    with encode_gallery(
        model, [images.to(device_of(model))], len(images), token_dtype=token_dtype
    ) as gallery:
        tokens = None
        if gallery.tokens is not None:
            tokens = gallery.tokens.read(np.arange(len(images))).numpy()
        return gallery.features.numpy(), tokens
