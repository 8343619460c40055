"""``search.py`` and its page with a gallery in Milvus, beside one in faiss."""

from __future__ import annotations

import shutil

import pytest

from serving.opening import open_searcher
from tests.serving.commands import CPU, run
from tests.serving.footage_files import write_table

pytest.importorskip("milvus_lite", reason="needs pip install -r requirements-stores.txt")
pytestmark = pytest.mark.integration

SENTENCE = "a man in a red jacket"


@pytest.fixture
def indexed(demo, crops, tmp_path):
    """index(name) brings an index of the demo's crops up to date, in `faiss` or `milvus`; both are made."""
    write_table(crops)
    stores = {"faiss": "faiss", "milvus": f"milvus:{tmp_path / 'gallery.db'}"}

    def index(name: str):
        command = ["--images", crops, "--checkpoint", demo.checkpoint, "--out", tmp_path / name]
        assert run("index", *command, "--store", stores[name]).code == 0
        return tmp_path / name

    for name in stores:
        index(name)
    return index


def test_the_same_is_found_filtered_and_re_ranked(indexed, crops, tmp_path, messages):
    def asked(name: str, *options: object) -> list[dict]:
        return run("query", "--index", tmp_path / name, SENTENCE, "--json", *options).json()["hits"]

    for options in (["--top", 32], ["--rerank", 6], ["--source", "gate", "--after", "0:30", "--rerank", 3]):
        ours, theirs = asked("milvus", *options), asked("faiss", *options)
        for hit, other in zip(ours, theirs, strict=True):
            assert hit["score"] == pytest.approx(
                other["score"], abs=2e-3
            )  # kept tokens are in half precision
            assert {**hit, "score": 0, "cosine": 0} == {**other, "score": 0, "cosine": 0}
    gone = asked("milvus", "--rerank", 4)[0]
    (crops / gone["image"]).unlink()
    hits = asked("milvus", "--rerank", 4)
    assert [hit["reranked"] for hit in hits[:4]] == [True] * 3 + [False]
    assert hits[3]["image"] == gone["image"]
    assert any(message.startswith("Not re-ranked:") for message in messages)


def test_the_page_filters_and_follows_its_index(indexed, crops, tmp_path):
    page_room = pytest.importorskip("serving.page")
    page = page_room.Page(open_searcher(tmp_path / "milvus", CPU))
    _, hits, *_ = page.find("a man", 32, True, ["gate"], "0:30", "")
    assert hits
    assert {hit.origin.source for hit in hits} == {"gate"}
    assert hits[0].match is not None
    assert len(page.find("a man", 100, False)[1]) == 32
    shutil.copytree(crops / "cam_a", crops / "more")
    indexed("milvus")
    assert len(page.find("a man", 100, False)[1]) == 48
    alike = page.more(hits[0], 5, ["door"], "", None)[1]
    assert {hit.origin.source for hit in alike} == {"door"}
