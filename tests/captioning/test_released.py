"""Released caption files of PSPD and TSN into our own, without what people wrote and who the people are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from captioning import attributes
from captioning.files import load_captions, load_fixed_captions, load_pre_captions
from captioning.import_released import main
from captioning.pipeline import group_captions
from captioning.released import ImageIndex, opening_of, read_released
from captioning.store import CaptionStore
from data.errors import UserError

IMAGES = [
    "cam_a/0001.jpg",
    "cam_a/0002.jpg",
    "cam_b/0001.jpg",
    "CUHK03/1_0001.png",
    "Market/query/0001.jpg",
    "alone.jpg",
]
HUMAN = "HUMAN WORDS about a person"
BASE = "The woman is wearing a white T-shirt and black shorts."
STYLED = "A woman in a white T-shirt and black shorts with pink shoes"


@pytest.fixture
def dataset(tmp_path):
    for image in IMAGES:
        path = tmp_path / "datasets" / "CUHK-PEDES" / "imgs" / image
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"never opened")
    (tmp_path / "datasets" / "CUHK-PEDES" / "imgs" / "Thumbs.db").write_bytes(b"")
    config = "dataset: {name: cuhk_pedes, tag: cuhk, root: %s}\npre_gen_data: %s\n"
    (tmp_path / "c.yaml").write_text(config % (tmp_path / "datasets", tmp_path / "out"))
    return tmp_path


def save(folder: Path, records: object, name: str = "released.json") -> str:
    (folder / name).write_text(json.dumps(records))
    return str(folder / name)


def stage_a(path: str, **fields: object) -> dict:
    texts = {"gen_base_caption": BASE, "gen_caption": STYLED, "caption": HUMAN, "id": 98765}
    return {"image_path": path, **texts, **fields}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("cam_a/0001.jpg", ["cam_a/0001.jpg"]),
        ("imgs/cam_b/0001.jpg", ["cam_b/0001.jpg"]),
        ("/data/someone/CUHK-PEDES/imgs/cam_a/0002.jpg", ["cam_a/0002.jpg"]),
        ("E:\\reid\\CUHK-PEDES\\imgs\\CUHK03\\1_0001.png", ["CUHK03/1_0001.png"]),
        ("./Market/query/0001.jpg", ["Market/query/0001.jpg"]),
        ("query/0001.jpg", ["Market/query/0001.jpg"]),
        ("1_0001.png", ["CUHK03/1_0001.png"]),
        ("/elsewhere/alone.jpg", ["alone.jpg"]),
        # Three cameras have a 0001.jpg; an image of a camera that is not on disk must not become another one's.
        ("0001.jpg", ["cam_a/0001.jpg", "cam_b/0001.jpg", "Market/query/0001.jpg"]),
        ("/data/imgs/cam_c/0002.jpg", []),
        ("m_a/0001.jpg", []),
        ("", []),
    ],
)
def test_paths_match_by_their_longest_suffix(dataset, path, expected):
    index = ImageIndex(dataset / "datasets" / "CUHK-PEDES" / "imgs")
    assert sorted(index.find(path)) == sorted(expected)


def test_stage_a_file_becomes_pre_captions(dataset, capsys):
    file = save(
        dataset,
        [
            stage_a("/gpu7/CUHK-PEDES/imgs/cam_a/0001.jpg"),
            stage_a("/gpu7/CUHK-PEDES/imgs/cam_a/0001.jpg", gen_caption="a second one"),
            stage_a(
                "cam_b/0001.jpg",
                gen_base_caption="The man wears leather.",
                gen_caption="he is wearing a coat",
            ),
            stage_a("cam_a/0002.jpg", gen_caption=""),
            stage_a("alone.jpg", gen_base_caption="I'm sorry, I can't help with that."),
            stage_a("/gpu7/CUHK-PEDES/imgs/cam_z/0009.jpg"),
            stage_a("0001.jpg"),
            {"id": 3},
        ],
    )
    assert main([file, "--config", str(dataset / "c.yaml"), "--model", "qwen-vl-max"]) == 0
    captions = load_pre_captions(dataset / "out" / "pre_captions.json")
    assert list(captions) == ["cam_a/0001.jpg", "cam_b/0001.jpg"]
    first, second = captions.values()
    assert (first.base_caption, first.styled_caption) == (BASE, STYLED)
    assert (first.gender, first.opening, first.model) == ("female", "a woman in", "qwen-vl-max")
    assert (second.gender, second.opening) == ("male", "he is wearing")
    said = capsys.readouterr().out
    for words in (
        "PSPD stage A: 8 records, 5 matched an image, 2 did not (/gpu7/CUHK-PEDES/imgs/cam_z/0009.jpg",
        "1 could be several images (0001.jpg)",
        "2 have no usable caption (cam_a/0002.jpg, alone.jpg)",
        "1 repeat an image",
        "4 images of the folder, whatever their split, have no caption",
    ):
        assert words in said
    without = (dataset / "out" / "pre_captions.without.txt").read_text().split()
    assert without == sorted(set(IMAGES) - set(captions))


GROUPS = [
    (
        "Upper: white T-shirt Lower: black shorts, pink shoes",
        ("white", "t-shirt"),
        ("black", "shorts", "pink", "shoes"),
    ),
    ("upper: white T-shirt\nlower: black shorts", ("white", "t-shirt"), ("black", "shorts")),
    ("nothing of the kind", *attributes.group(STYLED)),
    (None, *attributes.group(STYLED)),
]


def test_stage_c_file_becomes_captions_with_the_released_groups(dataset):
    records = [
        stage_a(f"/x/imgs/{image}", gpt_gen_caption=group[0])
        for image, group in zip(IMAGES, GROUPS, strict=False)
    ]
    assert main([save(dataset, records), "--config", str(dataset / "c.yaml")]) == 0
    captions = load_captions(dataset / "out" / "captions.json")
    for image, (_, upper, lower) in zip(IMAGES, GROUPS, strict=False):
        assert captions[image].base_caption == BASE
        assert (captions[image].upper, captions[image].lower) == (upper, lower)

    class Unasked:
        name = model = "unasked"

        def answer(self, requests):
            raise AssertionError("the released grouping should do")

    with CaptionStore(dataset / "out" / "attributes.jsonl") as store:
        styled = {image: caption.styled_caption for image, caption in captions.items()}
        groups = group_captions(styled, Unasked(), store)
    assert groups == {image: (caption.upper, caption.lower) for image, caption in captions.items()}


def test_tsn_files_become_captions_in_one_style(dataset):
    fixed = "The woman is wearing white T-shirt, black shorts and pink shoes."
    train = [{"id": 98765, "image_path": IMAGES[0], "captions": [HUMAN], "generated_text": fixed}]
    test = [
        {
            "split": "test",
            "id": 98765,
            "image_path": IMAGES[1],
            "img_gen_text": fixed,
            "captions": [HUMAN, HUMAN + " again"],
            "generated_text": ["The woman is wearing white T-shirt.", "I'm sorry, I can't."],
        },
        {"image_path": IMAGES[2], "img_gen_text": fixed, "captions": [HUMAN], "generated_text": []},
    ]
    files = [save(dataset, train, "train.json"), save(dataset, test, "test.json")]
    assert main([*files, "--config", str(dataset / "c.yaml")]) == 0
    assert load_fixed_captions(dataset / "out" / "fixed_captions.json") == {IMAGES[0]: fixed}
    gallery = json.loads((dataset / "out" / "fixed_gallery.json").read_text())
    assert {record["image"]: record["fixed_caption"] for record in gallery} == dict.fromkeys(
        IMAGES[1:3], fixed
    )
    queries = {record["image"]: record["queries"] for record in gallery}
    assert queries == {IMAGES[1]: ["The woman is wearing white T-shirt.", ""], IMAGES[2]: []}


@pytest.mark.parametrize("kind", ["stage_a", "stage_c", "tsn_train", "tsn_test"])
def test_no_human_caption_and_no_identity_is_written(dataset, kind):
    text = {"stage_a": {}, "stage_c": {"gpt_gen_caption": "Upper: red coat Lower: jeans"}}
    records = {
        "tsn_train": {"id": 98765, "captions": [HUMAN], "generated_text": BASE},
        "tsn_test": {"id": 98765, "captions": [HUMAN], "generated_text": [BASE], "img_gen_text": BASE},
    }
    record = (
        {"image_path": IMAGES[0], **records[kind]} if kind in records else stage_a(IMAGES[0], **text[kind])
    )
    assert main([save(dataset, [record]), "--config", str(dataset / "c.yaml")]) == 0
    written = [path.read_text() for path in (dataset / "out").iterdir()]
    assert any("white T-shirt" in content for content in written)
    assert not any("HUMAN" in content or "98765" in content for content in written)


def test_own_captions_are_kept_and_importing_twice_changes_nothing(dataset):
    out = dataset / "out"
    with CaptionStore(out / "pre_captions.jsonl") as store:
        store.put(IMAGES[0], base_caption="my own", styled_caption="mine too", model="mine")
        store.put(IMAGES[1], status="refused")
    file = save(dataset, [stage_a(image) for image in IMAGES[:3]])
    arguments = [file, "--images", str(dataset / "datasets" / "CUHK-PEDES" / "imgs"), "--out", str(out)]
    assert main(arguments) == 0
    once = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main(arguments) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == once
    captions = load_pre_captions(out / "pre_captions.json")
    assert [caption.base_caption for caption in captions.values()] == ["my own", BASE, BASE]
    assert captions[IMAGES[1]].model == "released: released.json"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "There is no file"),
        ("{", "not valid JSON"),
        ("{}", "no list of records"),
        ("[]", "no list of records"),
        ('[{"split": "train", "captions": []}]', "keys captions, split, and none of gpt_gen_caption"),
        (json.dumps([stage_a("other/9.jpg")]), "is it the file of another dataset"),
    ],
)
def test_wrong_files_are_one_sentence(dataset, capsys, content, words):
    file = dataset / "released.json"
    if content is not None:
        file.write_text(content)
    assert main([str(file), "--config", str(dataset / "c.yaml")]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_wrong_places_are_one_sentence(dataset, capsys):
    file = save(dataset, [stage_a(IMAGES[0])])
    (dataset / "bad.yaml").write_text("dataset: [")
    (dataset / "none.yaml").write_text("dataset: {name: rstpreid, root: nowhere}")
    for arguments, words in [
        ([file], "Say where the images are"),
        ([file, "--images", str(dataset)], "Say where the captions go"),
        ([file, "--config", "none.yaml"], "no configuration none.yaml"),
        ([file, "--config", str(dataset / "bad.yaml")], "not readable as YAML"),
        ([file, "--config", str(dataset / "none.yaml")], "tried nowhere/RSTPReid/imgs and nowhere/imgs"),
        ([file, "--images", str(dataset / "nowhere"), "--out", "x"], "no image folder"),
    ]:
        assert main(arguments) == 1
        assert words in capsys.readouterr().err
    (dataset / "empty").mkdir()
    with pytest.raises(UserError, match="no images below"):
        read_released(file, dataset / "empty")


def test_openings_are_found_in_free_captions():
    assert opening_of("The boy has a red shirt") == "the boy has"
    assert opening_of("A tall gentleman is wearing a hat") == "a tall gentleman is wearing"
    assert opening_of("Red coat, blue jeans") == ""
