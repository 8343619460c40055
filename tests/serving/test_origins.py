"""Source and time of crops in an index: kept, shown, filtered by; and indexes that know none."""

from __future__ import annotations

import json
import shutil
import sqlite3

import faiss
import numpy as np
import pytest

from data.errors import UserError
from serving import vectors
from serving.catalogue import CATALOGUE
from serving.clock import clock, seconds_of
from serving.crop_table import TABLE, Origin
from serving.index import SearchIndex
from serving.opening import open_searcher
from serving.origins import Wanted, find_origins, told
from serving.store import Summary
from tests.serving.commands import CPU, run
from tests.serving.footage_files import write_table

SENTENCE = "a man in a red jacket"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("75.5", 75.5),
        ("1:15.5", 75.5),
        ("00:01:15", 75),
        ("10:00:00", 36000),
        ("  7 ", 7),
        ("90", 90),
    ],
)
def test_times_as_people_write_them(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1:2:3:4", "1:75", "1:60:00", "nan", "inf", "1e3", "1:", ":1", "\u0661", "1" * 40]
)
def test_what_is_no_time(text):
    with pytest.raises(ValueError, match="is no time: write seconds or HH:MM:SS"):
        seconds_of(text)


def test_a_clock_is_read_back():
    for tenths in (0, 1, 599, 600, 35999, 36000, 999_999):
        assert seconds_of(clock(tenths / 10)) == pytest.approx(tenths / 10)
    assert clock(3675.57) == "01:01:15.5"


def test_a_filter_is_what_it_says():
    timed, untimed = Origin("a", 10.0, 5, (0, 0, 1, 1)), Origin("b", None, 5, (0, 0, 1, 1))
    origins = {1: timed, 2: untimed, 3: Origin("b", 20.0, 9, (0, 0, 1, 1))}
    assert not Wanted()
    assert Wanted(("a",)).rows(origins) == [1]
    assert Wanted(("a", "b")).rows(origins) == [1, 2, 3]
    assert Wanted(after=10.0).rows(origins) == [1, 3]
    assert Wanted(before=10.0).rows(origins) == [1]
    assert Wanted(("b",), 0.0, 19.0).rows(origins) == []
    for wanted, known, words in (
        (Wanted(("a",)), {}, "knows no source and time"),
        (Wanted(("c",)), origins, "nothing of the source c: it has a, b."),
        (Wanted((), 2.0, 1.0), origins, "--after is later than --before"),
        (Wanted((), 2.0), {2: untimed}, "knows no time of its images"),
    ):
        with pytest.raises(UserError, match=words):
            wanted.rows(known)
    assert (told(timed), told(untimed), told(None)) == ("a 00:00:10.0", "b", "")


@pytest.mark.parametrize("half", [False, True])
def test_a_search_among_some_rows_is_a_search_of_these_alone(half):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((500, 16)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    kind = faiss.IndexFlatIP(16)
    if half:
        kind = faiss.IndexScalarQuantizer(16, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index = faiss.IndexIDMap(kind)
    ids = rng.permutation(1000)[:500].astype(np.int64)  # rows are no positions
    index.add_with_ids(features, ids)
    place = {row: number for number, row in enumerate(ids.tolist())}

    def of(rows: np.ndarray) -> np.ndarray:
        return features[[place[row] for row in rows.tolist()]]

    for count in (0, 1, 7, 300):
        among = rng.choice(ids, count, replace=False)
        rows, cosines = vectors.nearest(index, features[3], 10, of, among)
        expected = np.sort(of(among) @ features[3])[::-1][:10] if count else np.empty(0)
        np.testing.assert_allclose(cosines, expected, atol=1e-6)
        assert set(rows.tolist()) <= set(among.tolist())


def origins_in(index: SearchIndex) -> dict[str, Origin]:
    found = [one for block, _ in index.everything() for one in block]
    origins = {one.image: one.origin for one in found if one.origin is not None}
    assert index.summary == Summary.of(len(found), origins.values())
    return origins


@pytest.fixture
def indexed(demo, crops, tmp_path):
    """(index folder, origins) of the demo's crops with a table beside them."""
    origins = write_table(crops)
    assert (
        run("index", "--images", crops, "--checkpoint", demo.checkpoint, "--out", tmp_path / "index").code
        == 0
    )
    return tmp_path / "index", origins


@pytest.mark.integration
def test_the_index_keeps_what_the_table_says(indexed):
    directory, origins = indexed
    assert origins_in(SearchIndex(directory)) == origins
    hits = run("query", "--index", directory, SENTENCE, "--top", 32, "--json").json()["hits"]
    assert len(hits) == 32
    for hit in hits:
        known = origins.get(hit["image"])
        assert hit.get("source") == (known and known.source)
        if known:
            assert (hit["seconds"], hit["frame"], tuple(hit["box"])) == (
                known.seconds,
                known.frame,
                known.box,
            )
    lines = run("query", "--index", directory, SENTENCE, "--top", 32).output.splitlines()
    assert lines[0].endswith("(source, time)")
    for image, origin in origins.items():
        assert any(image in line and f"({origin.source} {clock(origin.seconds)})" in line for line in lines)


@pytest.mark.integration
def test_filters_leave_the_order_and_the_scores_alone(indexed):
    directory, origins = indexed
    everything = run("query", "--index", directory, SENTENCE, "--top", 32, "--json").json()["hits"]

    def asked(*filters: object) -> list[dict]:
        return run("query", "--index", directory, SENTENCE, "--top", 32, "--json", *filters).json()["hits"]

    for filters, wanted in (
        (["--source", "gate"], lambda o: o.source == "gate"),
        (["--source", "gate", "--source", "door"], lambda o: True),
        (["--after", "00:01:40"], lambda o: o.seconds >= 100),
        (
            ["--after", "50", "--before", "1:40", "--source", "door"],
            lambda o: o.source == "door" and 50 <= o.seconds <= 100,
        ),
    ):
        expected = [hit for hit in everything if hit["image"] in origins and wanted(origins[hit["image"]])]
        found = asked(*filters)
        assert [hit["image"] for hit in found] == [hit["image"] for hit in expected]
        assert [hit["score"] for hit in found] == pytest.approx([hit["score"] for hit in expected], abs=1e-5)
    reranked = asked("--source", "gate", "--rerank", 4)
    assert [hit["reranked"] for hit in reranked[:5]] == [True] * 4 + [False]
    assert {hit["source"] for hit in reranked} == {"gate"}
    assert asked("--after", "9999") == []


@pytest.mark.integration
def test_more_like_an_image_of_the_same_source(indexed):
    directory, _ = indexed
    searcher = open_searcher(directory, CPU)
    hit = searcher.by_sentence(SENTENCE, 1)[0]
    everything = [other.image for other in searcher.like(hit, 31)]
    found = searcher.like(hit, 31, Wanted(("gate",)))
    assert {other.origin.source for other in found} == {"gate"}
    assert [other.image for other in found] == [
        i for i in everything if i in {other.image for other in found}
    ]


@pytest.mark.integration
def test_filters_that_can_not_be_used(indexed, messages, capsys):
    directory, _ = indexed
    assert run("query", "--index", directory, SENTENCE, "--source", "roof").code == 1
    assert messages[-1] == "The index has nothing of the source roof: it has door, gate."
    assert run("query", "--index", directory, SENTENCE, "--after", "noon").code == 2
    assert "is no time: write seconds or HH:MM:SS" in capsys.readouterr().err


@pytest.mark.integration
def test_the_table_may_come_later_and_may_go(demo, crops, tmp_path):
    def update() -> SearchIndex:
        command = ["index", "--images", crops, "--checkpoint", demo.checkpoint, "--out", tmp_path / "index"]
        assert run(*command).code == 0
        return SearchIndex(tmp_path / "index")

    assert origins_in(update()) == {}
    origins = write_table(crops)
    assert origins_in(update()) == origins
    (crops / TABLE).unlink()
    assert origins_in(update()) == {}


@pytest.mark.integration
def test_an_index_of_an_earlier_version_is_read_and_brought_up_to_date(demo, crops, tmp_path, messages):
    directory = tmp_path / "index"
    command = ["index", "--images", crops, "--checkpoint", demo.checkpoint, "--out", directory]
    assert run(*command).code == 0
    with sqlite3.connect(directory / CATALOGUE) as database:
        database.execute("DROP TABLE origins")
    database.close()
    assert len(run("query", "--index", directory, SENTENCE, "--json").json()["hits"]) == 10
    assert run("query", "--index", directory, SENTENCE, "--source", "door").code == 1
    assert "knows no source and time of its images" in messages[-1]
    write_table(crops)
    assert run(*command).output.endswith("(0 added, 0 changed, 0 removed).\n")
    assert origins_in(SearchIndex(directory))


@pytest.mark.integration
def test_a_damaged_table_is_told(demo, crops, tmp_path, messages):
    (crops / TABLE).write_text("no table\n", "utf-8")
    command = ["index", "--images", crops, "--checkpoint", demo.checkpoint, "--out", tmp_path / "index"]
    assert run(*command).code == 1
    assert f"Line 1 of {crops / TABLE} is no line of a table of crops" in messages[-1]


def test_tables_in_folders_below_and_above_are_found(tmp_path):
    for folder in ("a", "b/c"):
        (tmp_path / folder / "cam").mkdir(parents=True)
        person = {"file": "cam/1.jpg", "box": [1, 2, 3, 4]}
        line = {"source": folder, "frame": 7, "seconds": None, "persons": [person, {"box": [0, 0, 1, 1]}]}
        (tmp_path / folder / TABLE).write_text(json.dumps(line) + '\n{"half', "utf-8")
    found = find_origins(tmp_path, ["a/cam/1.jpg", "b/c/cam/1.jpg", "a/cam/2.jpg", "top.jpg"])
    assert found == {
        "a/cam/1.jpg": Origin("a", None, 7, (1, 2, 3, 4)),
        "b/c/cam/1.jpg": Origin("b/c", None, 7, (1, 2, 3, 4)),
    }
    shutil.rmtree(tmp_path / "a")
    assert list(find_origins(tmp_path, ["b/c/cam/1.jpg"])) == ["b/c/cam/1.jpg"]
