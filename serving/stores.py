"""Which store an index has: the folder's own files, or a collection in Milvus (`--store milvus:...`).

The index' header says it: without `store` it is the folder's files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import UserError
from serving.faiss_store import FaissStore, FaissView
from serving.store import Store, View

if TYPE_CHECKING:
    from serving.milvus_collection import Place

FAISS, MILVUS = "faiss", "milvus:"
COLLECTION = "person_search"


def named_store(store: str, collection: str = COLLECTION) -> dict[str, str]:
    """What the header of an index says of `--store` (faiss, milvus:FILE.db, milvus:http://HOST:19530) and `--collection`.

    Raises UserError for another name, and where a package is missing.
    """
    if store == FAISS:
        return {}
    if not store.startswith(MILVUS):
        raise UserError(f"{store} is no store: give faiss, milvus:FILE.db or milvus:http://HOST:19530.")
    place = _place(store, collection)
    return {"store": f"{MILVUS}{place.uri}", "collection": place.collection}


def _place(store: str, collection: str) -> Place:
    try:  # an extra, which whoever keeps features in the index folder does not need
        import pymilvus  # noqa: F401

        if "://" not in store:
            import milvus_lite  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in ("pymilvus", "milvus_lite"):
            raise
        raise UserError(
            f"Milvus needs {error.name.replace('_', '-')}, which is not installed: pip install -r requirements-stores.txt."
        ) from None
    from serving.milvus_collection import place_of

    return place_of(store, collection)


def checked_store(known: Mapping[str, Any], wanted: Mapping[str, str], directory: Path) -> dict[str, str]:
    """Where an index keeps its features from now on: where it did, or in an embedded database that has been moved.

    Raises UserError for another place.
    """
    before = {name: known[name] for name in ("store", "collection") if name in known}
    if before == wanted:
        return before
    old, new = (place.get("store", "") for place in (before, wanted))
    moved = all(name.startswith(MILVUS) and "://" not in name for name in (old, new))
    if (
        moved
        and before["collection"] == wanted["collection"]
        and not _database(old).exists()
        and _database(new).exists()
    ):
        return dict(wanted)
    raise UserError(
        f"The index {directory} keeps its features in {_told(before)}, not in {_told(wanted)}: name another --out."
    )


def _database(store: str) -> Path:
    return Path(store.removeprefix(MILVUS))


def _told(place: Mapping[str, str]) -> str:
    return f"{place['store']}, collection {place['collection']}" if place else "its own files"


def open_store(directory: Path, header: Mapping[str, Any]) -> Store:
    """The store of an index folder with this header, for changing it.

    Raises UserError where it can't be reached.
    """
    if "store" not in header:
        return FaissStore(directory, header)
    place = _place(header["store"], header["collection"])
    from serving.milvus_store import MilvusStore

    return MilvusStore(directory, header, place)


def open_view(directory: Path, header: Mapping[str, Any]) -> View:
    """The same for searching.

    Raises UserError for an index that is not finished or damaged, and where its store can't be reached.
    """
    if "store" not in header:
        return FaissView(directory, header)
    place = _place(header["store"], header["collection"])
    from serving.milvus_store import MilvusView

    return MilvusView(directory, header, place)
