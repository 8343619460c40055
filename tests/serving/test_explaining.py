"""Why an image was found: the pictures, the command that draws them, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from engine import checkpoints
from models import build_model
from models.backbones.clip.tokenizer import ClipTokenizer
from serving.explaining import word_maps
from serving.explanation_picture import STOP_WORDS, explanation_picture, overlaid
from serving.opening import decoder
from tests.serving.commands import run

SENTENCE = "a man in a red jacket"


@pytest.fixture(scope="module")
def index(demo, tmp_path_factory):
    directory = tmp_path_factory.mktemp("explained") / "index"
    assert run("index", "--images", demo.crops, "--checkpoint", demo.checkpoint, "--out", directory).code == 0
    return directory


def maps_of(words: list[str], grid: tuple[int, int] = (4, 2), explains: str = "match") -> SimpleNamespace:
    """As a model gives them: the map of word i is all at region i, the last one's is empty."""
    maps = np.zeros((len(words), *grid), np.float32)
    for number in range(len(words) - 1):
        maps[number].flat[number % maps[number].size] = 1
    effects = np.linspace(-1, 1, len(words))
    overall = np.full(grid, 1 / np.prod(grid), np.float32)
    return SimpleNamespace(
        words=tuple(words), maps=maps, overall=overall, effects=effects, explains=explains, score=1.5
    )


def redness(picture: Image.Image) -> np.ndarray:
    pixels = np.asarray(picture, np.float32)
    return pixels[..., 0] - pixels[..., 2]


@pytest.mark.parametrize("size", [(48, 106), (300, 100), (1, 200), (3000, 2900)])
def test_the_brightest_place_is_that_of_the_map(size):
    """Wherever the region lies, and whatever the crop's shape; a crop of which nothing speaks for the word has none."""
    crop = Image.new("RGB", size, (120, 120, 120))
    for place in ((0, 0), (3, 1), (1, 0)):
        values = np.zeros((4, 2), np.float32)
        values[place] = 0.3
        found = redness(overlaid(crop, values))
        height, width = found.shape
        row, column = np.unravel_index(found.argmax(), found.shape)
        assert (row * 4 // height, column * 2 // width) == place or width == 1
    assert redness(overlaid(crop, np.zeros((4, 2), np.float32))).max() < 0


def test_a_picture_of_many_and_of_odd_words_holds_all_of_them():
    crop = Image.new("RGB", (50, 110), (90, 30, 30))
    words = ["red"] * 70 + ["x" * 200, "漢字"]
    picture = explanation_picture(crop, "red " * 70 + "x" * 200, "a.jpg", maps_of(words))
    few = explanation_picture(crop, "red", "", maps_of(["red", "coat"], explains="cosine"))
    assert picture.width < 1000
    assert picture.height > 8 * few.height / 2
    none = explanation_picture(crop, "?", "b.jpg", maps_of([]))
    assert none.width >= 600


def test_words_that_say_nothing_are_drawn_pale():
    crop = Image.new("RGB", (96, 210), (40, 40, 40))
    found = maps_of(["red", "red", "red"])
    strong = explanation_picture(crop, "x", "", found, pale=())
    pale = explanation_picture(crop, "x", "", found, pale=("red",))
    assert np.asarray(pale).mean() > np.asarray(strong).mean() + 5
    assert {"a", "the", "wearing"} <= STOP_WORDS
    assert not STOP_WORDS & {"red", "long", "jacket", "man", "black"}


def test_the_model_sees_what_the_evaluation_gives_it(demo):
    model, content = checkpoints.load_retrieval_model(demo.checkpoint)
    path = demo.dataset.path(demo.records[0])
    images = decoder(tuple(content["image_size"]))(path)[None]
    expected = model.word_maps(images, [SENTENCE])[0]
    model.train()
    with Image.open(path) as picture:
        found = word_maps(model, f"  {SENTENCE} ", picture.convert("RGB"))
    assert model.training  # as it was
    assert found.words == expected.words == ("a", "man", "in", "a", "red", "jacket")
    assert torch.equal(found.maps, expected.maps)


@pytest.mark.integration
def test_a_query_draws_a_picture_for_each_image(index, tmp_path):
    folder = tmp_path / "new" / "why"
    asked = ("query", "--index", index, SENTENCE, "--top", 3, "--rerank", 8, "--json")
    plain = run(*asked).json()
    for _ in range(2):  # the second time over what the first has left
        answer = run(*asked, "--explain", folder).json()
    files = [hit.pop("explanation") for hit in answer["hits"]]
    assert answer == plain
    assert files == [str(folder / f"{place:03d}.jpg") for place in (1, 2, 3)]
    assert sorted(map(str, folder.iterdir())) == files
    for file in files:
        with Image.open(file) as picture:
            assert picture.format == "JPEG"
            assert picture.width > 600
    assert run(*asked[:-1], "--explain", folder).output == run(*asked[:-1]).output


@pytest.mark.integration
def test_an_image_that_is_gone_costs_no_other(demo, crops, tmp_path, messages):
    index, folder = tmp_path / "index", tmp_path / "why"
    run("index", "--images", crops, "--checkpoint", demo.checkpoint, "--out", index)
    asked = ("query", "--index", index, SENTENCE, "--top", 3, "--json")
    hits = run(*asked).json()["hits"]
    (crops / hits[1]["image"]).unlink()
    found = run(*asked, "--explain", folder).json()["hits"]
    assert [hit["explanation"] and hit["explanation"][-7:] for hit in found] == ["001.jpg", None, "003.jpg"]
    assert hits[1]["image"] in messages[-1]
    assert "can't be explained" in messages[-1]


@pytest.mark.integration
def test_a_folder_that_can_not_be_written(index, messages, tmp_path):
    (tmp_path / "file").write_text("")
    assert run("query", "--index", index, SENTENCE, "--explain", tmp_path / "file" / "why").code == 1
    assert "can't be written" in messages[-1]


@pytest.mark.integration
def test_a_model_that_compares_explains_too(demo, tmp_path):
    words = ClipTokenizer.train([SENTENCE] * 3, tmp_path, vocab_size=100)
    torch.manual_seed(0)
    model = build_model("irra", size="tiny", image_size=(48, 24), tokenizer=words)
    checkpoints.save(tmp_path / "best.pth", checkpoints.describe(model, "irra", "tiny"))
    arguments = ("--checkpoint", tmp_path / "best.pth", "--out", tmp_path / "index")
    assert run("index", "--images", demo.crops, *arguments).code == 0
    assert (
        run("query", "--index", tmp_path / "index", SENTENCE, "--top", 1, "--explain", tmp_path / "why").code
        == 0
    )
    assert [path.name for path in (tmp_path / "why").iterdir()] == ["001.jpg"]
