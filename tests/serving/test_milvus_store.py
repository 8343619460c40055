"""Galleries in Milvus, with its own client and milvus-lite: what is found, filtered, added, taken away and refused."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import sqlite3
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="needs pip install -r requirements-stores.txt")
pytest.importorskip("milvus_lite", reason="needs pip install -r requirements-stores.txt")

from data.errors import UserError
from data.folder import find_images
from serving import milvus_collection
from serving.catalogue import CATALOGUE, NEW, Catalogue, Entry, Stamp
from serving.crop_table import TABLE, Origin
from serving.faiss_store import FEATURES, TOKENS, VECTORS
from serving.index import SearchIndex
from serving.origins import Wanted
from serving.store import Summary
from serving.stores import named_store
from tests.serving.footage_files import write_table
from tests.serving.galleries import draw, draw_all, features_of, update


@pytest.fixture
def pictures(tmp_path) -> Path:
    return draw_all(tmp_path / "pictures", 24)


@pytest.fixture
def lite(tmp_path) -> dict[str, str]:
    return named_store(f"milvus:{tmp_path / 'gallery.db'}")


def found(index: SearchIndex, feature: np.ndarray, count: int = 10, wanted: Wanted | None = None) -> list:
    hits = index.nearest(feature, count, wanted or Wanted())
    return [(one.image, one.origin, round(cosine, 5)) for one, cosine in hits]


def origins_in(index: SearchIndex) -> dict[str, Origin | None]:
    return {one.image: one.origin for block, _ in index.everything() for one in block}


def check(directory: Path, pictures: Path) -> None:
    """What can be searched is what the folder holds, each picture once and with its own feature."""
    index = SearchIndex(directory)
    images = find_images(pictures, "no")
    features = dict(zip(images, features_of(pictures, images), strict=True))
    blocks = list(index.everything())
    assert sorted(one.image for block, _ in blocks for one in block) == images
    assert len(index) == len(images)
    for block, values in blocks:
        for one, value in zip(block, values, strict=True):
            np.testing.assert_allclose(value, features[one.image], atol=1e-6)
            assert index.holds(one.row, one.image)
            np.testing.assert_array_equal(index.feature(one.row), value)
    for feature in list(features.values())[::5]:
        cosines = {image: float(other @ feature) for image, other in features.items()}
        hits = index.nearest(feature, 5)
        assert [cosine for _, cosine in hits] == pytest.approx(sorted(cosines.values())[:-6:-1], abs=1e-5)
        for one, cosine in hits:
            assert cosine == pytest.approx(cosines[one.image], abs=1e-5)
    index.close()


def test_it_finds_what_faiss_finds_and_filters_alike(pictures, lite, tmp_path):
    write_images_as_jpeg(pictures)
    origins = write_table(pictures)
    update(tmp_path / "faiss", pictures)
    update(tmp_path / "milvus", pictures, lite)
    ours, theirs = SearchIndex(tmp_path / "milvus"), SearchIndex(tmp_path / "faiss")
    assert ours.summary == theirs.summary == Summary(24, ("door", "gate"), True)
    assert origins_in(ours) == origins_in(theirs) == {image: origins.get(image) for image in origins_in(ours)}
    queries = np.random.default_rng(0).standard_normal((4, 12)).astype(np.float32)
    for query in queries / np.linalg.norm(queries, axis=1, keepdims=True):
        for count in (1, 10, 1000):
            assert found(ours, query, count) == found(theirs, query, count)
        for wanted in (
            Wanted(("gate",)),
            Wanted(("gate", "door")),
            Wanted((), 100.0),
            Wanted((), None, 50.0),
            Wanted((), 0.0),
            Wanted(("door",), 30.5, 1e300),
            Wanted(("door",), 5000.0),
        ):
            assert found(ours, query, 10, wanted) == found(theirs, query, 10, wanted)
    for wanted in (Wanted(("roof",)), Wanted((), 2.0, 1.0)):
        told = []
        for index in (ours, theirs):
            with pytest.raises(UserError) as refused:
                found(index, queries[0], 10, wanted)
            told.append(str(refused.value))
        assert told[0] == told[1]


def write_images_as_jpeg(pictures: Path) -> None:
    for path in sorted(pictures.glob("*.png")):
        path.rename(path.with_suffix(".jpg"))  # the table of crops lists these; PIL looks at the content


def test_names_are_never_part_of_an_expression(pictures, lite, tmp_path):
    write_images_as_jpeg(pictures)
    write_table(pictures)
    odd = 'a"] or generation > 0 or source in ["\\ \'äß\u2028'
    table = (pictures / TABLE).read_text("utf-8")
    (pictures / TABLE).write_text(table.replace('"gate"', json.dumps(odd)), "utf-8")
    update(tmp_path / "index", pictures, lite)
    index = SearchIndex(tmp_path / "index")
    assert index.summary.sources == tuple(sorted([odd, "door"]))
    hits = found(index, np.ones(12, np.float32), 100, Wanted((odd,)))
    assert len(hits) == 11
    assert {origin.source for _, origin, _ in hits} == {odd}


def test_images_come_go_and_change(pictures, lite, tmp_path):
    index = tmp_path / "index"
    report, encoded = update(index, pictures, lite)
    assert (report.added, len(encoded)) == (24, 24)
    check(index, pictures)
    assert update(index, pictures, lite)[1] == []
    reader = SearchIndex(index)
    (pictures / "003.png").unlink()
    draw(pictures, "005.png", 500)
    draw(pictures, "new/100.png", 100)
    os.utime(pictures / "007.png", (1, 1))
    report, encoded = update(index, pictures)  # without --store: where they are
    assert (report.added, report.changed, report.removed) == (1, 1, 1)
    assert encoded == ["005.png", "new/100.png"]
    check(index, pictures)
    assert reader.is_outdated()
    assert "new/100.png" not in [image for image, *_ in found(reader, np.ones(12, np.float32), 100)]
    assert update(index, pictures, lite)[1] == []  # the changed time of 007.png has been noted
    assert not SearchIndex(index).is_outdated()


def test_nothing_but_the_list_lies_in_the_folder_and_a_new_folder_takes_what_is_there(
    pictures, lite, tmp_path
):
    update(tmp_path / "index", pictures, lite)
    assert not {FEATURES, VECTORS, TOKENS} & {path.name for path in (tmp_path / "index").iterdir()}
    shutil.rmtree(tmp_path / "index")
    draw(pictures, "100.png", 100)
    report, encoded = update(tmp_path / "other", pictures, lite)
    assert (report.added, encoded) == (1, ["100.png"])
    check(tmp_path / "other", pictures)


def test_a_dropped_collection_is_filled_again(pictures, lite, tmp_path):
    update(tmp_path / "index", pictures, lite)
    shutil.rmtree(tmp_path / "gallery.db")
    with pytest.raises(UserError, match="is not finished: run the same"):
        SearchIndex(tmp_path / "index")
    assert len(update(tmp_path / "index", pictures, lite)[1]) == 24
    check(tmp_path / "index", pictures)


def test_where_images_are_from_may_come_later_and_may_go(pictures, lite, tmp_path):
    write_images_as_jpeg(pictures)
    index = tmp_path / "index"
    update(index, pictures, lite)
    assert SearchIndex(index).summary == Summary(24)
    origins = write_table(pictures)
    assert update(index, pictures, lite)[1] == []
    assert {image: origin for image, origin in origins_in(SearchIndex(index)).items() if origin} == origins
    assert SearchIndex(index).summary == Summary(24, ("door", "gate"), True)
    (pictures / TABLE).write_text((pictures / TABLE).read_text("utf-8").replace("gate", "door"), "utf-8")
    update(index, pictures, lite)
    assert SearchIndex(index).summary == Summary(24, ("door",), True)
    (pictures / TABLE).unlink()
    update(index, pictures, lite)
    assert not any(origins_in(SearchIndex(index)).values())
    assert SearchIndex(index).summary == Summary(24)


def test_two_rows_of_a_changed_image_are_mended(pictures, lite, tmp_path):
    """As a run leaves it that was killed between publishing and deleting."""
    index = tmp_path / "index"
    update(index, pictures, lite)
    place = milvus_collection.place_of(lite["store"], lite["collection"])
    collection = milvus_collection.Collection(place)
    collection.load()
    fields = ["path", "size", "mtime", "digest", "source", "source_key", "seconds", "frame", "generation"]
    old = collection.rows([5], [*fields, "feature"])[5]
    stale = {**old, "row": 777, "mtime": 1, "digest": "old", "generation": 0, "box": []}
    stale["feature"] = np.asarray(old["feature"], np.float32)
    collection.upsert([stale])
    collection.close()
    assert update(index, pictures, lite)[1] == []
    check(index, pictures)


@pytest.mark.integration
def test_filling_publishing_and_going_on_take_little_memory(lite, tmp_path, monkeypatch):
    """milvus-lite makes Python's numbers, eight times as large, of every feature that is in its log yet: when it lists rows, and when
    it writes them to its files."""
    from serving import milvus_store
    from serving.milvus_store import MilvusStore

    count, width = 400, 1024
    values = np.random.default_rng(0).standard_normal((count, width)).astype(np.float32)
    features = values / np.linalg.norm(values, axis=1, keepdims=True)
    header = {"features": width, "checkpoint": "digest", "images": str(tmp_path)}
    place = milvus_collection.place_of(lite["store"], lite["collection"])

    def opened() -> MilvusStore:
        store = MilvusStore(tmp_path, header, place)
        store.claim(header, header)
        return store

    def most_of(action) -> int:
        tracemalloc.start()
        action()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    def fill(first: int) -> None:
        for start in range(0, count, 50):
            entries = [
                Entry(first + row, f"{first + row}.jpg", Stamp(1, 1), "") for row in range(start, start + 50)
            ]
            store.write(entries, features[start : start + 50], None, {})
            store.commit()

    monkeypatch.setattr(milvus_store, "_FLUSH_BYTES", features.nbytes // 4)
    store = opened()
    assert most_of(lambda: fill(0)) < 4 * features.nbytes
    store.close()  # as a run that is stopped before it publishes
    store = opened()
    with Catalogue(tmp_path / CATALOGUE) as catalogue:
        assert most_of(lambda: store.mirror(catalogue)) < 3 * features.nbytes
        assert catalogue.rows(NEW) == list(range(count))
    fill(count)
    rows = np.arange(1, 2 * count)
    assert most_of(lambda: store.publish(rows, Summary(len(rows)))) < 3 * features.nbytes
    store.close()
    collection = milvus_collection.Collection(place)
    collection.load()
    assert [one["row"] for block in collection.every("row >= 0", []) for one in block] == rows.tolist()
    collection.close()


def test_another_model_folder_or_width_is_refused_as_by_faiss(pictures, lite, tmp_path):
    update(tmp_path / "index", pictures, lite)
    update(tmp_path / "faiss", pictures)
    other = draw_all(tmp_path / "others", 2)
    for directory in (tmp_path / "index", tmp_path / "faiss"):
        with pytest.raises(UserError, match="was made with another checkpoint"):
            update(directory, pictures, None, "another")
        with pytest.raises(UserError, match="is of the images in"):
            update(directory, other)
    fresh = tmp_path / "fresh"
    with pytest.raises(
        UserError, match=r"The collection person_search in .*gallery.db was made with another checkpoint"
    ):
        update(fresh, pictures, lite, "another")
    with pytest.raises(UserError, match=r"holds features of 12 dimensions, and this model's have 7"):
        update(fresh, pictures, lite, "another", 7)
    with pytest.raises(UserError, match=r"is of the images in .* name another --collection"):
        update(fresh, other, lite)
    assert update(fresh, other, {**lite, "collection": "others"})[0].added == 2
    check(fresh, other)
    check(tmp_path / "index", pictures)


def test_a_folder_keeps_its_store(pictures, lite, tmp_path):
    update(tmp_path / "index", pictures, lite)
    with pytest.raises(UserError, match=r"keeps its features in milvus:.* not in its own files"):
        update(tmp_path / "index", pictures, {})
    with pytest.raises(UserError, match=r"collection person_search, not in .*collection b: name another"):
        update(tmp_path / "index", pictures, {**lite, "collection": "b"})
    update(tmp_path / "faiss", pictures)
    with pytest.raises(UserError, match="keeps its features in its own files, not in milvus"):
        update(tmp_path / "faiss", pictures, lite)
    (tmp_path / "gallery.db").rename(tmp_path / "moved.db")
    moved = named_store(f"milvus:{tmp_path / 'moved.db'}")
    assert update(tmp_path / "index", pictures, moved)[1] == []
    check(tmp_path / "index", pictures)


def test_a_collection_of_something_else_is_left_alone(pictures, lite, tmp_path):
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import MilvusClient

    client = MilvusClient(str(tmp_path / "gallery.db"))
    client.create_collection("person_search", dimension=12)
    client.close()
    server_manager_instance.release_server(str(tmp_path / "gallery.db"))
    with pytest.raises(UserError, match=r"is no index of search.py: name another --collection"):
        update(tmp_path / "index", pictures, lite)
    collection = milvus_collection.Collection(milvus_collection.place_of(lite["store"], "person_search"))
    assert collection.exists()
    collection.close()


def test_a_second_writer_is_noticed_when_it_publishes(pictures, lite, tmp_path, monkeypatch):
    update(tmp_path / "index", pictures, lite)
    draw(pictures, "100.png", 100)
    from serving.milvus_store import MilvusStore  # needs the packages

    plain = MilvusStore.commit

    def overtaken(store):
        monkeypatch.setattr(MilvusStore, "commit", plain)
        update(tmp_path / "other", pictures, lite)
        plain(store)

    monkeypatch.setattr(MilvusStore, "commit", overtaken)
    with pytest.raises(UserError, match=r"Another process has changed .* run the same command again"):
        update(tmp_path / "index", pictures, lite)
    update(tmp_path / "index", pictures, lite)
    check(tmp_path / "index", pictures)


def test_an_index_whose_collection_was_made_anew_with_another_model_is_told(pictures, lite, tmp_path):
    update(tmp_path / "index", pictures, lite)
    shutil.rmtree(tmp_path / "gallery.db")
    update(tmp_path / "other", pictures, lite, "another")
    with pytest.raises(UserError, match="are of another model than the index"):
        SearchIndex(tmp_path / "index")


@pytest.mark.parametrize(
    ("store", "collection", "words"),
    [
        ("milvus:gallery", "a", "names no store: give milvus:FILE.db"),
        ("milvus:.db", "a", "names no store"),
        ("milvus:ftp://host", "a", "no address of a Milvus server: give milvus:http://HOST:19530"),
        ("milvus:http://", "a", "no address of a Milvus server"),
        ("milvus:http://host:99999", "a", "no address of a Milvus server"),
        ("milvus:http://me:secret@host", "a", "Leave user and password out of --store"),
        ("qdrant:x", "a", "is no store: give faiss, milvus:FILE.db"),
        ("milvus:a.db", "1; drop", "is no name of a collection"),
    ],
)
def test_names_that_are_no_stores(store, collection, words):
    with pytest.raises(UserError, match=words) as refused:
        named_store(store, collection)
    assert "secret" not in str(refused.value)


def test_places_that_hold_something_else(pictures, tmp_path):
    (tmp_path / "file.db").write_text("a thesis")
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "folder.db" / "thesis.txt").write_text("years of work")
    for name, words in (
        ("file.db", "is a file, and milvus-lite keeps"),
        ("folder.db", "holds other files and no database"),
    ):
        with pytest.raises(UserError, match=words):
            update(tmp_path / "index", pictures, named_store(f"milvus:{tmp_path / name}"))
    assert update(tmp_path / "index", pictures, {})[0].added == 24  # nothing has been noted of these


def test_a_database_that_another_process_has_open(pictures, lite, tmp_path):
    update(tmp_path / "index", pictures, lite)
    with (tmp_path / "gallery.db" / "LOCK").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(
            UserError, match=r"Another process has .*gallery.db open, and milvus-lite lets in one"
        ):
            SearchIndex(tmp_path / "index")
    SearchIndex(tmp_path / "index").close()
    with (tmp_path / "gallery.db" / "LOCK").open("a") as lock:  # whoever has closed it lets others in
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_reader_that_closes_leaves_the_others_theirs(pictures, lite, tmp_path):
    update(tmp_path / "index", pictures, lite)
    first, second = SearchIndex(tmp_path / "index"), SearchIndex(tmp_path / "index")
    first.close()
    first.close()
    assert len(found(second, np.ones(12, np.float32))) == 10
    second.close()


@pytest.mark.parametrize("behaviour", ["nobody", "silence", "noise"])
def test_a_server_that_can_not_be_reached_is_told_and_may_be_named_otherwise(
    pictures, tmp_path, monkeypatch, behaviour
):
    monkeypatch.setattr(milvus_collection, "_CONNECT_SECONDS", 1.0)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if behaviour != "nobody":
            server.listen()
        if behaviour == "noise":

            def speak() -> None:
                with server.accept()[0] as connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

            threading.Thread(target=speak, daemon=True).start()
        store = named_store(f"milvus:http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(UserError, match=r"does not do what it is asked .* is Milvus running there"):
            update(tmp_path / "index", pictures, store)
    assert update(tmp_path / "index", pictures, {})[0].added == 24


def test_a_proxy_is_not_asked_for_a_database_in_this_process(pictures, lite, tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert update(tmp_path / "index", pictures, lite)[0].added == 24


def test_the_list_in_the_folder_is_only_a_copy(pictures, lite, tmp_path):
    """Whatever it says, the collection decides."""
    update(tmp_path / "index", pictures, lite)
    with sqlite3.connect(tmp_path / "index" / CATALOGUE) as database:
        database.execute("UPDATE images SET row = row + 1000, digest = 'x', state = 'new'")
        database.execute("DELETE FROM images WHERE path LIKE '00%'")
    database.close()
    assert update(tmp_path / "index", pictures, lite)[1] == []
    check(tmp_path / "index", pictures)


def test_stamps_larger_than_a_float_holds_are_kept(pictures, lite, tmp_path):
    time = 1_799_999_999_123_456_789  # nanoseconds
    os.utime(pictures / "000.png", ns=(time, time))
    update(tmp_path / "index", pictures, lite)
    place = milvus_collection.place_of(lite["store"], lite["collection"])
    collection = milvus_collection.Collection(place)
    collection.load()
    [entity] = [
        one for block in collection.every("row >= 0", ["path", "size", "mtime"]) for one in block
        if one["path"] == "000.png"
    ]  # fmt: skip
    assert Stamp(entity["size"], entity["mtime"]).mtime == time
    collection.close()
