"""``search.py`` as a user meets it: what it prints, draws and refuses."""

from __future__ import annotations

import sys

import pytest
import torch
from PIL import Image

from models.backbones.blip.retrieval import BlipRetrieval
from serving.indexing import IndexWriter
from serving.searcher import QUERY_LENGTH
from tests.serving.commands import run

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def index(demo, tmp_path_factory):
    directory = tmp_path_factory.mktemp("commands") / "index"
    assert run("index", "--images", demo.crops, "--checkpoint", demo.checkpoint, "--out", directory).code == 0
    return directory


def test_json_lists_images_with_their_places_and_scores(demo, index):
    found = run("query", "--index", index, "a man  in a red jacket", "--top", 5, "--json").json()
    assert found["query"] == "a man  in a red jacket"
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3, 4, 5]
    scores = [hit["score"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True)
    for hit in found["hits"]:
        assert (demo.crops / hit["image"]).samefile(hit["path"])
        assert (hit["reranked"], hit["score"]) == (False, hit["cosine"])


def test_re_ranked_images_stand_before_the_others(index):
    sentence = "a woman in a dress"
    plain = run("query", "--index", index, sentence, "--top", 12, "--json").json()["hits"]
    hits = run("query", "--index", index, sentence, "--top", 12, "--rerank", 6, "--json").json()["hits"]
    assert [hit["reranked"] for hit in hits] == [True] * 6 + [False] * 6
    assert {hit["image"] for hit in hits[:6]} == {hit["image"] for hit in plain[:6]}
    assert [hit["image"] for hit in hits[6:]] == [hit["image"] for hit in plain[6:]]
    scores = [hit["score"] for hit in hits[:6]]
    assert scores == sorted(scores, reverse=True)
    cosines = {hit["image"]: hit["cosine"] for hit in plain}
    assert all(hit["cosine"] == pytest.approx(cosines[hit["image"]], abs=1e-5) for hit in hits)


def test_more_is_asked_for_than_there_is(index):
    assert (
        len(run("query", "--index", index, "a man", "--top", 1000, "--rerank", 1000, "--json").json()["hits"])
        == 32
    )


def test_the_table_names_every_image(index):
    lines = run("query", "--index", index, "a man", "--top", 3).output.splitlines()
    assert lines[0].split() == ["rank", "score", "cosine", "image"]
    assert len(lines) == 4


def test_an_index_made_in_portions_finds_the_same(demo, index, tmp_path, monkeypatch, messages):
    asked = ("a man in a red jacket", "--rerank", 8, "--json")
    expected = run("query", "--index", index, *asked).json()["hits"]

    def limited(name, most):
        verb = getattr(BlipRetrieval, name)

        def call(model, rows, *rest):
            if len(rows) > most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return verb(model, rows, *rest)

        monkeypatch.setattr(BlipRetrieval, name, call)

    limited("encode_images", 3)
    limited("match", 2)
    other = tmp_path / "index"
    made = run(
        "index", "--images", demo.crops, "--checkpoint", demo.checkpoint, "--out", other, "--batch-size", 8
    )
    assert made.code == 0
    assert [said for said in messages if "images at once" in said] == [
        "Memory does not hold 8 images at once: going on with 2 at a time."
    ]
    found = run("query", "--index", other, *asked).json()["hits"]
    assert [hit["image"] for hit in found] == [hit["image"] for hit in expected]
    assert [hit["score"] for hit in found] == pytest.approx([hit["score"] for hit in expected], abs=1e-5)


def test_a_sheet_is_drawn_even_where_an_image_is_gone(demo, crops, tmp_path):
    index, sheet = tmp_path / "index", tmp_path / "new" / "sheet.jpg"
    run("index", "--images", crops, "--checkpoint", demo.checkpoint, "--out", index)
    hits = run("query", "--index", index, "a man", "--json").json()["hits"]
    (crops / hits[0]["image"]).unlink()
    (crops / hits[1]["image"]).write_text("damaged")
    assert run("query", "--index", index, "a man " * 60, "--sheet", sheet).code == 0
    with Image.open(sheet) as picture:
        assert picture.format == "JPEG"
        assert picture.width > 500
        assert len(picture.convert("L").resize((40, 40)).getcolors(1600)) > 30  # there is something on it


def test_an_index_stands_on_its_own(demo, crops, tmp_path):
    checkpoint = tmp_path / "best.pth"
    checkpoint.write_bytes(demo.checkpoint.read_bytes())
    run("index", "--images", crops, "--checkpoint", checkpoint, "--out", tmp_path / "index")
    checkpoint.unlink()
    (tmp_path / "index").rename(tmp_path / "elsewhere")
    assert run("query", "--index", tmp_path / "elsewhere", "a man").code == 0


def test_unreadable_images_are_told_by_name(demo, crops, tmp_path, messages):
    for number in range(7):
        (crops / f"bad-{number}.jpg").write_text("no image")
    ended = run("index", "--images", crops, "--checkpoint", demo.checkpoint, "--out", tmp_path / "index")
    assert ended.code == 0
    assert "32 images can be searched" in ended.output
    assert "7 images do not open and are left out:" in messages
    assert any("bad-4.jpg does not open (not an image)" in message for message in messages)
    assert messages[-1].strip() == "and 2 more"


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("", "no word in it"),
        (" ?! , ", "no word in it"),
        ("a" * (QUERY_LENGTH + 1), f"use at most {QUERY_LENGTH}"),
    ],
)
def test_sentences_that_can_not_be_used(index, messages, sentence, words):
    assert run("query", "--index", index, sentence).code == 1
    assert words in messages[-1]


@pytest.mark.parametrize(
    "sentence", ["穿红色外套的女人", "woman'); DROP TABLE images;--", "\x00 man \U0001f600", "../../etc"]
)
def test_odd_sentences_are_searched_like_others(index, sentence):
    assert len(run("query", "--index", index, sentence, "--json").json()["hits"]) == 10


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--top", "0", "top is 0: give a number from 1 to 1000"),
        ("--top", "100000", "top is 100000"),
        ("--rerank", "-1", "number of re-ranked images is -1"),
        ("--device", "gpu9", "is none: use auto, cpu or cuda"),
    ],
)
def test_numbers_and_names_that_can_not_be_used(index, messages, option, value, words):
    assert run("query", "--index", index, "a man", f"{option}={value}").code == 1
    assert words in messages[-1]


def test_what_is_not_there_is_named(demo, tmp_path, messages):
    def fails(*arguments) -> str:
        assert run(*arguments).code == 1
        return messages[-1]

    (tmp_path / "empty").mkdir()
    known = ["--checkpoint", demo.checkpoint, "--out", tmp_path / "index"]
    assert "does not exist: name your folder" in fails("index", "--images", tmp_path / "no", *known)
    assert "There is no image below" in fails("index", "--images", tmp_path / "empty", *known)
    assert "There is no checkpoint" in fails(
        "index", "--images", demo.crops, "--checkpoint", tmp_path / "no", "--out", tmp_path / "index"
    )
    assert "is no search index: make one with python search.py index" in fails(
        "query", "--index", tmp_path, "a man"
    )
    (tmp_path / "file").write_text("")
    assert "can't be written" in fails(
        "index", "--images", demo.crops, "--checkpoint", demo.checkpoint, "--out", tmp_path / "file" / "index"
    )
    assert not (tmp_path / "index").exists()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_text("no image")
    assert "There is no image to index: none of 1 opens." in fails(
        "index", "--images", tmp_path / "bad", *known
    )


def test_a_sheet_that_can_not_be_written(index, messages, tmp_path):
    (tmp_path / "file").write_text("")
    assert run("query", "--index", index, "a man", "--sheet", tmp_path / "file" / "sheet.jpg").code == 1
    assert "can't be written" in messages[-1]


def test_another_checkpoint_in_the_index_is_noticed(demo, crops, tmp_path, messages):
    run("index", "--images", crops, "--checkpoint", demo.checkpoint, "--out", tmp_path / "index")
    (tmp_path / "index" / "checkpoint.pth").unlink()
    (tmp_path / "index" / "checkpoint.pth").write_bytes(demo.checkpoint.read_bytes() + b"x")
    assert run("query", "--index", tmp_path / "index", "a man").code == 1
    assert "is not the model that the index was made with" in messages[-1]


def test_without_gradio_the_page_says_what_to_install(index, messages, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "serving.page", raising=False)
    assert run("serve", "--index", index).code == 1
    assert messages[-1].endswith("pip install -r requirements-search.txt.")


def test_a_second_index_command_at_the_same_time_is_refused(demo, crops, tmp_path, messages):
    with IndexWriter(tmp_path / "index"):
        assert (
            run("index", "--images", crops, "--checkpoint", demo.checkpoint, "--out", tmp_path / "index").code
            == 1
        )
    assert "Another process is changing the index" in messages[-1]
