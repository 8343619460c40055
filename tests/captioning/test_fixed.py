"""Texts in one fixed style: asked once, kept by image or by query, written and read again."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from captioning import prompts
from captioning.backends import make_backend
from captioning.files import CaptionFileError, FixedCaption, load_fixed_captions, write_fixed_captions
from captioning.fixed import (
    caption_images,
    export,
    fixed_texts,
    image_requests,
    released_queries,
    rewrite_queries,
)
from captioning.store import CaptionStore
from tests.captioning.test_pipeline import MadeUp

IMAGES = [f"cam/{index}.jpg" for index in range(6)]


@pytest.fixture
def store(tmp_path):
    with CaptionStore(tmp_path / "fixed_captions.jsonl") as opened:
        yield opened


def answer(request):
    assert prompts.kind_of(request.prompt) == "fixed"
    if request.image is None:
        return f"The person is wearing {prompts.payload_of(request.prompt).upper()}."
    return {"2.jpg": ("refused", ""), "3.jpg": ""}.get(
        request.image.name, f"The man is {request.image.stem}."
    )


def test_images_are_asked_about_once_and_refusals_again_on_request_only(store, tmp_path):
    backend = MadeUp(answer)
    assert len(image_requests(IMAGES, tmp_path, store)) == 6
    caption_images([*IMAGES[:3], IMAGES[0]], tmp_path, backend, store)
    assert sorted(request.key for request in backend.asked) == IMAGES[:3]
    caption_images(IMAGES, tmp_path, backend, store)
    assert len(backend.asked) == 6
    assert fixed_texts(IMAGES, store) == [
        "The man is 0.",
        "The man is 1.",
        "",
        "",
        "The man is 4.",
        "The man is 5.",
    ]
    assert image_requests(IMAGES, tmp_path, store) == []
    again = MadeUp(lambda request: "The woman is here.")
    caption_images(IMAGES, tmp_path, again, store, retry_refused=True)
    assert fixed_texts(IMAGES[2:4], store) == ["The woman is here."] * 2


def test_processes_share_the_images(store, tmp_path):
    asked = []
    for rank in range(2):
        backend = MadeUp(answer)
        caption_images(IMAGES, tmp_path, backend, store, rank=rank, world_size=2)
        asked.append(sorted(request.key for request in backend.asked))
    assert asked == [IMAGES[0::2], IMAGES[1::2]]


def test_the_same_query_is_rewritten_once_whatever_the_order(store):
    backend = MadeUp(answer)
    rewrite_queries(["red coat", "blue hat", "red coat"], backend, store)
    rewrite_queries(["blue hat", "green bag", "red coat"], backend, store)
    assert sorted(request.key for request in backend.asked) == ["blue hat", "green bag", "red coat"]
    assert all(request.image is None for request in backend.asked)
    assert fixed_texts(["red coat", "never asked"], store) == ["The person is wearing RED COAT.", ""]


def test_imported_rewritings_count_for_as_many_queries_only(store):
    store.put(IMAGES[0], fixed_caption="The man.", queries=["one", ""])
    store.put(IMAGES[1], fixed_caption="The man.")
    assert released_queries(IMAGES[0], 2, store) == ["one", ""]
    assert released_queries(IMAGES[0], 3, store) is None
    assert released_queries(IMAGES[1], 1, store) is None
    assert released_queries(IMAGES[2], 1, store) is None


def test_the_file_has_the_images_that_have_a_text(store, tmp_path):
    caption_images(IMAGES, tmp_path, MadeUp(answer), store)
    path = tmp_path / "fixed_captions.json"
    assert export(store, path, [*IMAGES, "never/asked.jpg"]) == 4
    assert load_fixed_captions(path) == {
        image: f"The man is {image[4]}." for image in IMAGES if image[4] not in "23"
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "gen_pre_train_text.py makes it"),
        ("[", "not valid JSON"),
        ('[{"image": "a.jpg"}]', "has no 'fixed_caption'"),
        (json.dumps([{"image": "a.jpg", "fixed_caption": "x"}] * 2), "two records of a.jpg"),
    ],
)
def test_a_damaged_file_is_told(tmp_path, content, words):
    path = tmp_path / "fixed_captions.json"
    if content is not None:
        path.write_text(content, "utf-8")
    with pytest.raises(CaptionFileError, match=words):
        load_fixed_captions(path)


def test_what_is_written_is_read(tmp_path):
    captions = [FixedCaption(image, f"The woman {image}") for image in IMAGES]
    assert write_fixed_captions(tmp_path / "f.json", captions) == 6
    assert load_fixed_captions(tmp_path / "f.json") == {c.image: c.fixed_caption for c in captions}


def test_palette_fills_the_slots_of_an_image_and_of_a_query(store, tmp_path):
    picture = Image.new("RGB", (60, 160), (120, 160, 120))
    picture.paste((200, 160, 140), (22, 8, 38, 30))
    picture.paste((200, 20, 20), (14, 30, 46, 85))
    picture.paste((20, 30, 150), (16, 85, 44, 150))
    picture.save(tmp_path / "a.png")
    backend = make_backend("palette")
    caption_images(["a.png"], tmp_path, backend, store)
    rewrite_queries(["She walks in a red coat with a black backpack."], backend, store)
    (image,) = fixed_texts(["a.png"], store)
    assert image.startswith("The ")
    assert "red" in image
    (query,) = fixed_texts(["She walks in a red coat with a black backpack."], store)
    assert query == "The woman is wearing red coat. The woman carries black backpack."
