"""The store that is a collection in Milvus (`serving.milvus_collection`): milvus-lite inside this process, or a cluster.

It holds features and everything that is known of an image, and it decides: every run begins by reading from it which images it has.
So a run that was killed anywhere goes on with what reached Milvus, another machine's index folder can be made on the same
collection, and a search needs nothing of its own folder but the model. Image tokens are not kept: re-ranking encodes its images
anew (`serving.searcher`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import UserError
from serving.catalogue import DEAD, LIVE, NEW, Catalogue, Entry, Stamp
from serving.crop_table import Origin
from serving.milvus_collection import FORMAT, HIDDEN, Collection, Place, hidden_row, source_key
from serving.origins import Wanted
from serving.store import Indexed, Store, Summary, View, unfinished

_ORIGIN = ("source", "seconds", "frame", "box")
_FILE = ("path", "size", "mtime", "digest")
_BLOCK = 2000  # images whose features are read at once
# Of features that milvus-lite may have in its log: it makes Python's numbers of all of them, eight times as large, when it writes its
# files and whenever it lists rows. Its own limit is 128 MiB.
_FLUSH_BYTES = 16 << 20


class MilvusStore(Store):
    """A collection, for filling it. One process at a time: a second one is noticed when it publishes."""

    def __init__(self, directory: Path, header: Mapping[str, Any], place: Place) -> None:
        self.directory, self.width, self.place = directory, header["features"], place
        self.collection = Collection(place)
        self._about: dict[str, Any] = {}
        self._waiting: list[dict[str, Any]] = []
        self._unflushed = 0  # bytes of features
        self._unpublished: set[int] = set()  # rows that are there and that no publication has reached

    def claim(self, header: Mapping[str, Any], before: Mapping[str, Any]) -> None:
        """Makes the collection, or checks that it is of this model and these images."""
        mine = {"format": FORMAT, "checkpoint": header["checkpoint"], "images": header["images"]}
        if not self.collection.exists():
            self.collection.create(self.width)
            known = None
        else:
            self._check_width()
            self.collection.load()
            known = self.collection.about()
            if known is None and self.collection.any("row >= 0"):
                raise self._not_ours()
        if known is None:
            known = {**mine, "generation": 0, "count": 0, "timed": False, "sources": 0}
            self.collection.set_about(known, self.width)
        if known.get("format") != FORMAT:
            raise UserError(f"{self._title} was made by another version: name another --collection.")
        if known["checkpoint"] != mine["checkpoint"]:
            raise UserError(
                f"{self._title} was made with another checkpoint, and features of two models can't be compared: name another "
                "--collection, or drop this one first."
            )
        if known["images"] not in (header["images"], before["images"]):
            raise UserError(
                f"{self._title} is of the images in {known['images']}, not of {header['images']}: name another --collection."
            )
        self._about = known
        self._images = header["images"]

    @property
    def _title(self) -> str:
        return str(self.place).replace("the", "The", 1)

    def _check_width(self) -> None:
        width = self.collection.width()
        if width is None:
            raise self._not_ours()
        if width != self.width:
            raise UserError(
                f"{self._title} holds features of {width} dimensions, and this model's have {self.width}: name another --collection."
            )

    def _not_ours(self) -> UserError:
        return UserError(f"{self._title} is no index of search.py: name another --collection.")

    @property
    def _generation(self) -> int:
        return self._about["generation"]

    def mirror(self, catalogue: Catalogue) -> None:
        """The catalogue gets what the collection holds, also what a killed run has put there."""
        entries: list[tuple[Entry, str]] = []
        origins: dict[str, Origin] = {}
        newest: dict[tuple[str, str], tuple[int, int]] = {}
        for block in self.collection.every("row >= 0", [*_FILE, *_ORIGIN, "generation"]):
            for entity in block:
                path, row = entity["path"], entity["row"]
                state = LIVE if entity["generation"] <= self._generation else NEW
                entry = Entry(row, path, Stamp(entity["size"], entity["mtime"]), entity["digest"])
                entries.append((entry, state))
                if state == NEW:
                    self._unpublished.add(row)
                mark = (entity["generation"], row)
                newest[state, path] = max(mark, newest.get((state, path), mark))
                origin = _origin(entity)
                if origin is not None:
                    origins[path] = origin
        # A run that was killed between publishing and deleting leaves two rows of a changed image.
        kept = {row for _, row in newest.values()}
        catalogue.mirror(((entry, state if entry.row in kept else DEAD) for entry, state in entries), origins)

    def room_for(self, images: int) -> tuple[Path, int]:
        """An embedded database takes its features twice, and once more until they leave its log."""
        if self.place.embedded:
            return Path(self.place.uri), images * self.width * 4 * 3
        return self.directory, 0

    def write(
        self,
        entries: Sequence[Entry],
        features: np.ndarray,
        tokens: np.ndarray | None,
        origins: Mapping[str, Origin],
    ) -> None:
        """Keeps them for `commit`: few large requests instead of many small ones."""
        for entry, feature in zip(entries, features, strict=True):
            self._waiting.append(
                {
                    "row": entry.row,
                    "feature": np.array(feature, np.float32),
                    "path": entry.path,
                    "size": entry.stamp.size,
                    "mtime": entry.stamp.mtime,
                    "digest": entry.digest,
                    "generation": self._generation + 1,
                    **_fields(origins.get(entry.path)),
                }
            )

    def commit(self) -> None:
        """Sends what was written; Milvus answers when its log has it."""
        self._unpublished.update(one["row"] for one in self._waiting)
        self.collection.upsert(self._waiting)
        self._unflushed += len(self._waiting) * self.width * 4
        self._waiting = []
        if self.place.embedded and self._unflushed >= _FLUSH_BYTES:
            self.collection.flush()
            self._unflushed = 0

    def amend(self, stamps: Mapping[int, Stamp], origins: Mapping[int, Origin | None]) -> None:
        """Writes these rows anew with other times and origins."""
        rows = sorted({*stamps, *origins})
        fields = [*_FILE, *_ORIGIN, "feature", "source_key", "generation"]
        for start in range(0, len(rows), _BLOCK):
            found = self.collection.rows(rows[start : start + _BLOCK], fields)
            for row, entity in found.items():
                entity["feature"] = np.asarray(entity["feature"], np.float32)
                entity["box"] = list(entity["box"])
                if row in stamps:
                    entity |= {"size": stamps[row].size, "mtime": stamps[row].mtime}
                if row in origins:
                    entity |= _fields(origins[row])
            self.collection.upsert(list(found.values()))

    def is_published(self, summary: Summary) -> bool:
        """Whether the collection says the same of itself already."""
        return (
            self._generation > 0
            and self._about["images"] == self._images
            and _summary(self.collection, self._about) == summary
        )

    def publish(self, rows: np.ndarray, summary: Summary) -> None:
        """Raises the generation: new images are found from then on. What nobody wants is deleted before.

        Raises UserError where another process has published since this one began.
        """
        self.collection.delete(sorted(self._pending() - set(rows.tolist())))
        self._write_sources(summary)
        self.collection.flush()
        now = self.collection.about()
        if now is None or now["generation"] != self._generation:
            raise UserError(
                f"Another process has changed {self.place} meanwhile: run the same command again when it is done."
            )
        self._about = {
            **now,
            "images": self._images,
            "generation": self._generation + 1,
            "count": summary.images,
            "timed": summary.timed,
            "sources": len(summary.sources),
        }
        self.collection.set_about(self._about, self.width)
        self._unpublished = set()

    def _pending(self) -> set[int]:
        """The rows that the next publication would bring: in an embedded database those of this store's own knowledge, as it is
        alone there and milvus-lite takes long to list rows; on a server another process may have added some."""
        if self.place.embedded:
            return self._unpublished
        blocks = self.collection.every(f"row >= 0 and generation > {self._generation}", [])
        return {one["row"] for block in blocks for one in block}

    def _write_sources(self, summary: Summary) -> None:
        self.collection.upsert(
            [
                hidden_row(-2 - place, self.width, source=source)
                for place, source in enumerate(summary.sources)
            ]
        )
        unneeded = range(len(summary.sources), self._about["sources"])
        self.collection.delete([-2 - place for place in unneeded])

    def wipe(self, rows: Sequence[int]) -> None:
        """Deletes them; Milvus takes them off the disk when it compacts its segments."""
        self.collection.delete(rows)

    def close(self) -> None:
        """Ends the connection."""
        self.collection.close()


class MilvusView(View):
    """A collection, for searching it.

    Raises UserError where it can't be reached, is not finished, or was made anew with another model.
    """

    has_tokens = False
    searched = "by Milvus"

    def __init__(self, directory: Path, header: Mapping[str, Any], place: Place) -> None:
        self.place = place
        self._collection = Collection(place)
        try:
            if not self._collection.exists():
                raise unfinished(directory)
            self._collection.load()
            self._about = self._collection.about()
            if self._about is None or not self._about["generation"]:
                raise unfinished(directory)
            if self._about["checkpoint"] != header["checkpoint"]:
                raise UserError(
                    f"Features in {place} are of another model than the index {directory} by now: make an index of it in "
                    "another folder."
                )
            self.summary = _summary(self._collection, self._about)
        except BaseException:
            self._collection.close()
            raise

    def is_outdated(self) -> bool:
        """Whether there is another generation by now."""
        return self._collection.about() not in (None, self._about)

    def nearest(self, feature: np.ndarray, count: int, wanted: Wanted) -> list[tuple[Indexed, float]]:
        """As `View` says; Milvus filters."""
        expression = f"generation <= {self._about['generation']}"
        if wanted:
            wanted.check(self.summary.sources, self.summary.timed)
            expression += _filter(wanted)
        found = self._collection.search(feature, count, expression, ["path", *_ORIGIN])
        return [(_indexed(hit["row"], hit["entity"]), float(hit["distance"])) for hit in found]

    def holds(self, row: int, image: str) -> bool:
        """As `View` says."""
        found = self._collection.rows([row], ["path"])
        return row in found and found[row]["path"] == image

    def features(self, rows: np.ndarray) -> np.ndarray:
        """As `View` says; UserError where one has been deleted meanwhile."""
        found = self._collection.rows(rows.tolist(), ["feature"])
        if len(found) < len(set(rows.tolist())):
            raise UserError("An image has left the index meanwhile: search again.")
        return np.array([found[row]["feature"] for row in rows.tolist()], np.float32)

    def tokens(self, rows: np.ndarray) -> np.ndarray:
        """Nobody keeps them."""
        raise NotImplementedError("an index in Milvus has no tokens")

    def everything(self) -> Iterator[tuple[list[Indexed], np.ndarray]]:
        """As `View` says, in the order of rows."""
        expression = f"generation <= {self._about['generation']}"
        for block in self._collection.every(expression, ["path", *_ORIGIN, "feature"], _BLOCK):
            features = np.array([entity["feature"] for entity in block], np.float32)
            yield [_indexed(entity["row"], entity) for entity in block], features

    def close(self) -> None:
        """Ends the connection."""
        self._collection.close()


def _summary(collection: Collection, about: Mapping[str, Any]) -> Summary:
    named: dict[int, str] = {}
    if about["sources"]:
        for block in collection.every(f"row < -1 and generation == {HIDDEN}", ["source"]):
            named |= {entity["row"]: entity["source"] for entity in block}
    sources = tuple(named[-2 - place] for place in range(about["sources"]) if -2 - place in named)
    return Summary(about["count"], sources, about["timed"])


def _filter(wanted: Wanted) -> str:
    """What `Wanted.includes` says, for Milvus."""
    conditions = ""
    if wanted.sources:
        keys = ", ".join(str(source_key(source)) for source in wanted.sources)
        conditions += f" and source_key in [{keys}]"
    if wanted.after is not None or wanted.before is not None:
        conditions += f" and seconds >= {max(0.0, wanted.after or 0.0)!r}"
    if wanted.before is not None:
        conditions += f" and seconds <= {float(wanted.before)!r}"
    return conditions


def _indexed(row: int, entity: Mapping[str, Any]) -> Indexed:
    return Indexed(row, entity["path"], _origin(entity))


def _origin(entity: Mapping[str, Any]) -> Origin | None:
    if entity["frame"] < 0:
        return None
    seconds = None if entity["seconds"] < 0 else entity["seconds"]
    left, top, wide, high = (int(value) for value in entity["box"])
    return Origin(entity["source"], seconds, entity["frame"], (left, top, wide, high))


def _fields(origin: Origin | None) -> dict[str, Any]:
    """An origin as the collection has it."""
    if origin is None:
        return {"source": "", "source_key": 0, "seconds": -1.0, "frame": -1, "box": []}
    seconds = -1.0 if origin.seconds is None else origin.seconds
    return {
        "source": origin.source,
        "source_key": source_key(origin.source),
        "seconds": seconds,
        "frame": origin.frame,
        "box": list(origin.box),
    }
