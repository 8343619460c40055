"""A collection of Milvus' that holds one index: reached, made, checked, read and written through pymilvus' `MilvusClient`.

    row                 the primary key; an image's is 0 or more
    feature             F float32, L2-normalised; the index on it is FLAT with inner products: exact, cosines
    path, size, mtime, digest    the image below its folder, and its file as `serving.catalogue` knows it
    source, seconds, frame, box  where a crop is from; frame -1 where nobody knows, seconds -1 where nobody knows the time
    source_key          the source as a number, which filters name: a text in an expression would have to be quoted right
    generation          of the publication that the image came with: searches ask for those up to the last one

Row -1 says in `path` (JSON) what the collection is filled from and its last generation, so that one write publishes; rows from -2
down name the sources. Their generation is `HIDDEN`: no search finds them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import threading
import weakref
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from grpc import RpcError
from pymilvus import DataType, MilvusClient, MilvusException

from data.errors import UserError

PREFIX = "milvus:"
FORMAT = 1
HIDDEN = 1 << 62
ABOUT = -1  # the row of what the collection is filled from
SECONDS = 60.0  # that a request may take
# That one may take which waits for a disk, or for milvus-lite, which shares this process' interpreter.
FLUSH_SECONDS = 600.0
_CONNECT_SECONDS = 10.0
_BATCH = 1000  # rows in a request: 1 MB of 256-dimensional features
_READ = 10_000  # rows in an answer without features; Milvus gives 16,384 at most
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_LOCK_FILE = "LOCK"
_FLAT_INDEX = ".flat.idx"  # of a part of the rows, an array as numpy saves it

# What these log on an error, with tracebacks, is told in a sentence here.
for _noisy in ("pymilvus", "milvus_lite", "grpc._server"):
    logging.getLogger(_noisy).setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class Place:
    """Where a collection is: an embedded database (an absolute path that ends in .db) or a server's address, and its name."""

    uri: str
    collection: str

    @property
    def embedded(self) -> bool:
        """Whether milvus-lite keeps it, inside this process."""
        return "://" not in self.uri

    @property
    def reach(self) -> str:
        """What to do where it can't be reached."""
        return "" if self.embedded else "is Milvus running there, and does it want a token (MILVUS_TOKEN)?"

    def __str__(self) -> str:
        return f"the collection {self.collection} in {self.uri}"


_opened: Counter[str] = Counter()  # embedded databases of this process, which share one server each
_guard = threading.Lock()
# Connections that nobody has closed: garbage is collected anywhere, also amid the client's own work, where none can be ended.
_abandoned: deque[tuple[MilvusClient, Place]] = deque()


def place_of(store: str, collection: str) -> Place:
    """Reads `milvus:FILE.db`, or `milvus:http://HOST:19530` (https, and /DATABASE behind it, too).

    Raises UserError for anything else, and for a user or password in it, which would be kept in the index.
    """
    text = store.removeprefix(PREFIX)
    if not _NAME.fullmatch(collection):
        raise UserError(
            f"{collection!r} is no name of a collection: use letters, digits and underscores, no digit first."
        )
    if "://" not in text:
        if not text.endswith(".db") or text == ".db":
            raise UserError(
                f"{store} names no store: give milvus:FILE.db, or milvus:http://HOST:19530 for a server."
            )
        return Place(str(Path(text).resolve()), collection)
    try:
        address = urlsplit(text)
        usable = address.scheme in ("http", "https") and address.hostname and (address.port or 1)
    except ValueError:
        usable = False
    if not usable or address.query or address.fragment:
        raise UserError(f"{text} is no address of a Milvus server: give milvus:http://HOST:19530.")
    if address.username or address.password:
        raise UserError(
            "Leave user and password out of --store, which the index keeps: put USER:PASSWORD into MILVUS_TOKEN."
        )
    return Place(text.rstrip("/"), collection)


class Collection:
    """A connection to a collection, which need not exist yet.

    Raises UserError, as every method, where Milvus can't be reached or refuses.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._seconds = FLUSH_SECONDS if place.embedded else SECONDS
        while _abandoned:
            _close(*_abandoned.popleft())
        options: dict[str, Any] = {}
        if place.embedded:
            _check_database(Path(place.uri))
            options["grpc_options"] = {"grpc.enable_http_proxy": 0}  # its server is in this process
        elif os.environ.get("MILVUS_TOKEN"):
            options["token"] = os.environ["MILVUS_TOKEN"]
        with self._told(), _guard:
            self._client = MilvusClient(place.uri, timeout=_CONNECT_SECONDS, **options)
            if place.embedded:
                _opened[place.uri] += 1
        self._forgotten = weakref.finalize(self, _abandoned.append, (self._client, place))

    def close(self) -> None:
        """Ends the connection; the last one to an embedded database lets other processes have it."""
        if self._forgotten.detach() is not None:
            _close(self._client, self.place)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (MilvusException, RpcError) as error:  # the client passes a deadline on as gRPC says it
            told = error.message if isinstance(error, MilvusException) else error.details()
            reason = " ".join(str(told).split())[:300].rstrip(".")
            raise UserError(
                f"{self.place.uri} does not do what it is asked ({reason}): "
                f"{self.place.reach or 'make room there if the disk is full, and run the same command again'}"
            ) from None

    def exists(self) -> bool:
        """Whether there is such a collection."""
        with self._told():
            return self._client.has_collection(self.place.collection, timeout=self._seconds)

    def create(self, width: int) -> None:
        """Makes an empty one for features of this width."""
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row", DataType.INT64, is_primary=True)
        schema.add_field("feature", DataType.FLOAT_VECTOR, dim=width)
        for name in _TEXTS:
            schema.add_field(name, DataType.VARCHAR, max_length=65535)
        for name in _NUMBERS:
            schema.add_field(name, DataType.INT64)
        schema.add_field("seconds", DataType.DOUBLE)
        schema.add_field("box", DataType.ARRAY, element_type=DataType.INT64, max_capacity=4)
        indexes = MilvusClient.prepare_index_params()
        indexes.add_index("feature", index_type="FLAT", metric_type="IP")
        with self._told():
            self._client.create_collection(
                self.place.collection,
                schema=schema,
                index_params=indexes,
                consistency_level="Bounded",
                timeout=self._seconds,
            )

    def width(self) -> int | None:
        """F, of a collection with the fields of an index; None for another one."""
        with self._told():
            found = self._client.describe_collection(self.place.collection, timeout=self._seconds)
        fields = {field["name"]: field for field in found["fields"]}
        if fields.keys() != {"row", "feature", "seconds", "box", *_TEXTS, *_NUMBERS}:
            return None
        return int(fields["feature"]["params"].get("dim", 0))

    def load(self) -> None:
        """Makes sure that a server has it in memory; after a restart it may not."""
        with self._told():
            self._client.load_collection(self.place.collection, timeout=FLUSH_SECONDS)
        if self.place.embedded:
            self.flush()  # what a killed run has left in milvus-lite's log would make every read slow

    def about(self) -> dict[str, Any] | None:
        """What the collection is filled from; None where nobody has said."""
        found = self.rows([ABOUT], ["path"])
        return json.loads(found[ABOUT]["path"]) if found else None

    def set_about(self, content: Mapping[str, Any], width: int) -> None:
        """Says it, in one write."""
        self.upsert([hidden_row(ABOUT, width, path=json.dumps(content))])

    def _query(self, expression: str, fields: Sequence[str], **options: Any) -> list[dict[str, Any]]:
        with self._told():
            return self._client.query(
                self.place.collection,
                filter=expression,
                output_fields=list(fields),
                consistency_level="Strong",
                timeout=self._seconds,
                **options,
            )

    def any(self, expression: str) -> bool:
        """Whether there is a row that an expression is true of. Counting would have milvus-lite make all of them at once."""
        return bool(self._query(expression, ["row"], limit=1))

    def rows(self, rows: Sequence[int], fields: Sequence[str]) -> dict[int, dict[str, Any]]:
        """Fields of these rows; those that are not there are left out.

        milvus-lite looks only here for rows by their numbers; any other expression, `row == 3` too, it tries on all rows.
        """
        found: dict[int, dict[str, Any]] = {}
        for start in range(0, len(rows), _BATCH):
            chosen = ", ".join(str(int(row)) for row in rows[start : start + _BATCH])
            found |= {entity["row"]: entity for entity in self._query(f"row in [{chosen}]", ["row", *fields])}
        return found

    def every(
        self, expression: str, fields: Sequence[str], block: int = _READ
    ) -> Iterator[list[dict[str, Any]]]:
        """Fields of all rows that an expression is true of, in blocks."""
        with self._told():
            blocks = self._client.query_iterator(
                self.place.collection,
                batch_size=block,
                filter=expression,
                output_fields=["row", *fields],
                consistency_level="Strong",
                timeout=self._seconds,
            )
        try:
            while True:
                with self._told():
                    found = blocks.next()
                if not found:
                    return
                yield found
        finally:
            blocks.close()

    def upsert(self, entities: Sequence[Mapping[str, Any]]) -> None:
        """Writes rows, over those of the same numbers."""
        for start in range(0, len(entities), _BATCH):
            with self._told():
                self._client.upsert(
                    self.place.collection, list(entities[start : start + _BATCH]), timeout=self._seconds
                )

    def delete(self, rows: Sequence[int]) -> None:
        """Deletes rows; those that are not there are none."""
        for start in range(0, len(rows), _BATCH):
            ids = [int(row) for row in rows[start : start + _BATCH]]
            with self._told():
                self._client.delete(self.place.collection, ids=ids, timeout=self._seconds)

    def flush(self) -> None:
        """Waits until what was written is stored."""
        with self._told():
            self._client.flush(self.place.collection, timeout=FLUSH_SECONDS)

    def search(
        self, feature: np.ndarray, count: int, expression: str, fields: Sequence[str]
    ) -> list[dict[str, Any]]:
        """The rows with the largest inner products with a feature (F,), best first: `row`, `distance`, `entity`."""
        with self._told():
            found = self._client.search(
                self.place.collection,
                data=[np.asarray(feature, np.float32)],
                anns_field="feature",
                limit=count,
                filter=expression,
                output_fields=list(fields),
                search_params={"metric_type": "IP"},
                timeout=self._seconds,
            )
        return list(found[0])


_TEXTS = ("path", "digest", "source")
_NUMBERS = ("size", "mtime", "source_key", "frame", "generation")


def hidden_row(row: int, width: int, **texts: str) -> dict[str, Any]:
    """A row that no search finds, with these texts in it."""
    nothing = dict.fromkeys(_NUMBERS, 0) | dict.fromkeys(_TEXTS, "")
    feature = np.zeros(width, np.float32)
    return {
        **nothing,
        "row": row,
        "feature": feature,
        "seconds": -1.0,
        "frame": -1,
        "box": [],
        "generation": HIDDEN,
        **texts,
    }


def source_key(source: str) -> int:
    """A number for a source's name: 63 bits of its digest."""
    return int.from_bytes(hashlib.blake2b(source.encode(), digest_size=8).digest()) >> 1


def _check_database(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file, and milvus-lite keeps a database as a folder: name another one.")
    if path.is_dir() and any(path.iterdir()) and not (path / _LOCK_FILE).exists():
        raise UserError(f"{path} holds other files and no database of milvus-lite: name another one.")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} can't be made ({error.strerror}): name another place.") from None
    with _guard:
        if not _opened[str(path)] and _is_locked(path / _LOCK_FILE):
            raise UserError(
                f"Another process has {path} open, and milvus-lite lets in one at a time: end it first (search.py serve, for "
                "instance), or start `milvus-lite server` on the database and name it as milvus:http://127.0.0.1:19530."
            )
        if not _opened[str(path)]:
            _remove_torn_indexes(path)


def _remove_torn_indexes(path: Path) -> None:
    """Takes away what milvus-lite had half written when it was killed: it does not open such a database, and makes a missing
    index anew from the rows, which are safe."""
    for file in path.rglob(f"*{_FLAT_INDEX}"):
        try:
            np.load(file, mmap_mode="r")
        except (ValueError, EOFError):
            file.unlink()


def _is_locked(path: Path) -> bool:
    try:
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError as error:
        raise UserError(f"{path.parent} can't be written ({error.strerror}): name another place.") from None


def _close(client: MilvusClient, place: Place) -> None:
    with _guard:
        client.close()
        if place.embedded:
            from milvus_lite.server_manager import server_manager_instance

            _opened[place.uri] -= 1
            if not _opened[place.uri]:
                server_manager_instance.release_server(place.uri)
