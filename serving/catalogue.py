"""Which image lies in which row of an index folder: a small SQLite file, changed in transactions.

An entry goes through three states: `new` (encoded, not searched yet), `live` (searched), `dead` (removed or
replaced; its row is wiped and then free for another image). The states are what lets an interrupted run go on and lets a
reader work while another process adds images.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import UserError
from serving.crop_table import Origin

CATALOGUE = "catalogue.sqlite"  # its name in an index folder
NEW, LIVE, DEAD = "new", "live", "dead"

_TABLES = """
CREATE TABLE IF NOT EXISTS header (content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    row INTEGER PRIMARY KEY, path TEXT NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL,
    digest TEXT NOT NULL, state TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS unreadable (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, reason TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS origins (
    path TEXT PRIMARY KEY, source TEXT NOT NULL, seconds REAL, frame INTEGER NOT NULL, box TEXT NOT NULL
);
"""


@dataclass(frozen=True)
class Stamp:
    """What tells a changed file from an unchanged one without reading it: bytes, and nanoseconds of its last change."""

    size: int
    mtime: int


@dataclass(frozen=True)
class Entry:
    """An encoded image: its row, its path below the image folder, its file's state and the digest of its bytes."""

    row: int
    path: str
    stamp: Stamp
    digest: str


class Catalogue:
    """The list of images of an index folder.

    `read_only` neither makes the file nor changes it. Raises UserError for a file that is no catalogue.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        name = f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        try:
            self._database = sqlite3.connect(name, uri=True, timeout=30.0, check_same_thread=False)
            if not read_only:
                self._database.executescript(_TABLES)
            self._database.execute("SELECT row, path, size, mtime, digest, state FROM images LIMIT 1")
        except sqlite3.Error as error:
            raise UserError(f"{path} can't be read as the list of an index ({error}).") from None

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside happens or nothing; UserError where the disk has no room."""
        try:
            with self._database as transaction:
                yield transaction
        except sqlite3.Error as error:
            raise UserError(
                f"{self.path} can't be written ({error}): make room and run the same command again, it goes on."
            ) from None

    def header(self) -> dict[str, Any] | None:
        """What the folder was made from; None as long as nobody has said."""
        found = self._database.execute("SELECT content FROM header").fetchone()
        return None if found is None else json.loads(found[0])

    def set_header(self, content: dict[str, Any]) -> None:
        """Says what the folder is made from."""
        with self._transaction() as transaction:
            transaction.execute("DELETE FROM header")
            transaction.execute("INSERT INTO header VALUES (?)", [json.dumps(content)])

    def entries(self, state: str) -> dict[str, Entry]:
        """The entries of a state by path."""
        found = self._database.execute(
            "SELECT row, path, size, mtime, digest FROM images WHERE state = ?", [state]
        )
        return {
            path: Entry(row, path, Stamp(size, mtime), digest) for row, path, size, mtime, digest in found
        }

    def paths(self) -> dict[int, str]:
        """The path of every row that is not dead."""
        return dict(self._database.execute("SELECT row, path FROM images WHERE state != ?", [DEAD]))

    def rows(self, *states: str) -> list[int]:
        """All rows of these states, in order."""
        marks = ", ".join("?" * len(states))
        return [
            row
            for (row,) in self._database.execute(
                f"SELECT row FROM images WHERE state IN ({marks}) ORDER BY row", states
            )
        ]

    def unreadable(self) -> dict[str, tuple[Stamp, str]]:
        """The files that did not open: by path, their state and the reason."""
        found = self._database.execute("SELECT path, size, mtime, reason FROM unreadable ORDER BY path")
        return {path: (Stamp(size, mtime), reason) for path, size, mtime, reason in found}

    def origins(self) -> dict[str, Origin]:
        """Where the images that a table of crops lists are from, by path."""
        try:
            found = self._database.execute("SELECT path, source, seconds, frame, box FROM origins").fetchall()
        except sqlite3.OperationalError:  # an index of an earlier version, opened for reading
            return {}
        return {
            path: Origin(source, seconds, frame, tuple(json.loads(box)))
            for path, source, seconds, frame, box in found
        }

    def set_origins(self, origins: Mapping[str, Origin]) -> None:
        """Replaces what is known about where images are from."""
        with self._transaction() as transaction:
            _replace_origins(transaction, origins)

    def add(self, entries: Iterable[Entry], unreadable: Iterable[tuple[str, Stamp, str]]) -> None:
        """Notes freshly encoded images, and files that did not open."""
        with self._transaction() as transaction:
            transaction.executemany(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?)",
                [(e.row, e.path, e.stamp.size, e.stamp.mtime, e.digest, NEW) for e in entries],
            )
            transaction.executemany(
                "INSERT OR REPLACE INTO unreadable VALUES (?, ?, ?, ?)",
                [(path, stamp.size, stamp.mtime, reason) for path, stamp, reason in unreadable],
            )

    def mirror(self, entries: Iterable[tuple[Entry, str]], origins: Mapping[str, Origin]) -> None:
        """Replaces all images, with their states, and all origins: what a store says that keeps them itself."""
        with self._transaction() as transaction:
            transaction.execute("DELETE FROM images")
            transaction.executemany(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?)",
                ((e.row, e.path, e.stamp.size, e.stamp.mtime, e.digest, state) for e, state in entries),
            )
            _replace_origins(transaction, origins)

    def touch(self, entries: Iterable[tuple[int, Stamp]]) -> None:
        """Notes another modification time of files whose bytes are the same."""
        with self._transaction() as transaction:
            transaction.executemany(
                "UPDATE images SET size = ?, mtime = ? WHERE row = ?",
                [(stamp.size, stamp.mtime, row) for row, stamp in entries],
            )

    def set_state(self, states: dict[int, str]) -> None:
        """Gives rows another state, all at once."""
        with self._transaction() as transaction:
            transaction.executemany(
                "UPDATE images SET state = ? WHERE row = ?", [(state, row) for row, state in states.items()]
            )

    def forget_unreadable(self, paths: Iterable[str]) -> None:
        """Drops files that are gone or have opened since."""
        with self._transaction() as transaction:
            transaction.executemany("DELETE FROM unreadable WHERE path = ?", [(path,) for path in paths])

    def free(self, rows: Iterable[int]) -> None:
        """Deletes entries: their rows may hold other images from now on."""
        with self._transaction() as transaction:
            transaction.executemany("DELETE FROM images WHERE row = ?", [(row,) for row in rows])


def _replace_origins(transaction: sqlite3.Connection, origins: Mapping[str, Origin]) -> None:
    transaction.execute("DELETE FROM origins")
    transaction.executemany(
        "INSERT INTO origins VALUES (?, ?, ?, ?, ?)",
        [(path, o.source, o.seconds, o.frame, json.dumps(o.box)) for path, o in origins.items()],
    )
