"""Reading the three annotation formats, and every damage that users have met."""

from __future__ import annotations

import json
import os
import time

import pytest

from data import DATASETS, PedesDataset, Record, UserError, load_dataset
from data.annotation import image_path

NAMES = ("cuhk_pedes", "icfg_pedes", "rstpreid")


@pytest.mark.parametrize("name", NAMES)
def test_reads_every_record_as_a_plain_loop_does(name, write_dataset, items):
    root = write_dataset(name)
    dataset = load_dataset(name, root)
    assert isinstance(dataset, PedesDataset)
    assert dataset.name == name
    for split in ("train", "val", "test"):
        expected = []
        for item in items(name):
            if item["split"] == split:
                image = item["img_path" if name == "rstpreid" else "file_path"]
                expected.append((image, item["id"], tuple(item["captions"])))
        assert dataset.split(split) == getattr(dataset, split) == expected
    record = dataset.train[0]
    image, identity, captions = record
    assert record == Record(image, identity, captions)
    assert dataset.path(record).is_file()


@pytest.mark.parametrize("name", NAMES)
def test_root_may_be_the_dataset_folder_itself(name, write_dataset):
    root = write_dataset(name)
    folder = next(root.iterdir())
    assert load_dataset(name, folder).train == load_dataset(name, str(root)).train
    folder.rename(root / "mine")
    assert load_dataset(name, root / "mine").train


@pytest.mark.parametrize("spelling", ["cuhk-pedes", "CUHK_PEDES"])
def test_folder_name_in_other_spelling(write_dataset, spelling):
    root = write_dataset()
    (root / "CUHK-PEDES").rename(root / spelling)
    assert len(load_dataset("cuhk_pedes", root).train) == 3


@pytest.mark.parametrize("file", ["ICFG-PEDES.json", "ICFG_PEDES.json", "icfg-pedes.json"])
def test_both_names_of_the_icfg_annotation(write_dataset, file):
    root = write_dataset("icfg_pedes", file=file)
    assert load_dataset("icfg_pedes", root).annotation.name == file


@pytest.mark.parametrize("change", [str.upper, str.title, lambda split: f" {split} "])
def test_split_names_in_any_case(write_dataset, items, change):
    damaged = [{**item, "split": change(item["split"])} for item in items()]
    dataset = load_dataset("cuhk_pedes", write_dataset(items=damaged))
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [3, 3, 3]


def test_windows_separators_and_dots_become_posix(write_dataset, items):
    plain = load_dataset("cuhk_pedes", write_dataset()).train
    damaged = [{**item, "file_path": ".\\" + item["file_path"].replace("/", "\\")} for item in items()]
    assert load_dataset("cuhk_pedes", write_dataset(items=damaged)).train == plain


def test_identity_zero_text_ids_and_gaps_are_kept(write_dataset, items):
    damaged = items()
    damaged[0]["id"], damaged[1]["id"] = 0, "0012"
    dataset = load_dataset("cuhk_pedes", write_dataset(items=damaged, images=False))
    assert [record.identity for record in dataset.train] == [0, 12, 0]


def test_empty_captions_are_dropped_and_counted(write_dataset, items):
    damaged = items()
    damaged[0]["captions"] = ["", "  \n", "a man .", None]
    damaged[8]["captions"] = [""]
    damaged[7]["captions"] = []
    damaged[6]["captions"] = " one sentence "
    dataset = load_dataset("cuhk_pedes", write_dataset(items=damaged))
    assert dataset.train[0].captions == ("a man .",)
    assert [record.captions for record in dataset.test] == [("one sentence",), (), ()]
    assert dataset.left_out.empty_captions == 4
    assert dataset.left_out.uncaptioned == {"test": (damaged[7]["file_path"], damaged[8]["file_path"])}


def test_every_caption_is_kept_even_a_repeated_one(write_dataset, items):
    damaged = items()
    damaged[0]["captions"] = ["same", "same", "third", "fourth"]
    dataset = load_dataset("cuhk_pedes", write_dataset(items=damaged))
    assert dataset.train[0].captions == ("same", "same", "third", "fourth")


def test_duplicated_records_are_merged_and_conflicts_kept(write_dataset, items):
    damaged = items()
    damaged += [dict(damaged[0]), {**damaged[1], "captions": ["a new sentence"]}, {**damaged[2], "id": 99}]
    dataset = load_dataset("cuhk_pedes", write_dataset(items=damaged))
    assert len(dataset.train) == 4
    assert len(dataset.train[0].captions) == 2
    assert dataset.train[1].captions[-1] == "a new sentence"
    assert dataset.left_out.duplicates == 2
    assert dataset.left_out.conflicts == (damaged[2]["file_path"],)


def test_lone_surrogates_in_captions_can_be_written_as_utf8(write_dataset, items):
    damaged = items()
    damaged[0]["captions"] = ["a man \ud800 with a hat", "eine Frau in Weiß"]
    captions = load_dataset("cuhk_pedes", write_dataset(items=damaged)).train[0].captions
    assert captions == ("a man ? with a hat", "eine Frau in Weiß")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda items: items.__setitem__(3, "a text"),
            "1 record(s) with a text instead of an object, first record 3",
        ),
        (lambda items: items.__setitem__(3, None), "null instead of an object"),
        (lambda items: items[2].pop("captions"), "no key 'captions'"),
        (lambda items: items[2].pop("file_path"), "no key 'file_path'"),
        (
            lambda items: [item.pop("split") for item in items],
            "9 record(s) with no key 'split', first record 0",
        ),
        (lambda items: items[2].update(split="gallery"), "'gallery'"),
        (lambda items: items[2].update(split=1), "the split '1'"),
        (lambda items: items[2].update(id="p1"), "whole number"),
        (lambda items: items[2].update(id=-1), "whole number"),
        (lambda items: items[2].update(id=2**70), "whole number"),
        (lambda items: items[2].update(id=True), "whole number"),
        (lambda items: items[2].update(captions={"a": 1}), "not a list of sentences"),
        (lambda items: items[2].update(captions=[3]), "not a list of sentences"),
        (lambda items: items[2].update(file_path=None), "not a readable name"),
        (lambda items: items[2].update(file_path="a\0b.jpg"), "not a readable name"),
        (lambda items: items[2].update(file_path=" "), "empty image path"),
        (lambda items: items[2].update(file_path="/etc/passwd"), "leave the dataset root"),
        (lambda items: items[2].update(file_path="C:\\people\\1.jpg"), "leave the dataset root"),
        (lambda items: items[2].update(file_path="\\\\server\\1.jpg"), "leave the dataset root"),
        (lambda items: items[2].update(file_path="a/../../../secret.jpg"), "leave the dataset root"),
        (lambda items: items[2].update(file_path="..\\secret.jpg"), "leave the dataset root"),
    ],
)
def test_damaged_records_are_counted_in_one_sentence(write_dataset, items, change, words):
    damaged = items()
    change(damaged)
    root = write_dataset(items=damaged, images=False)
    with pytest.raises(UserError) as caught:
        load_dataset("cuhk_pedes", root)
    assert words in str(caught.value)
    assert "reid_raw.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"<html>no such page</html>", "is not JSON (line 1, column 1"),
        (b'[{"id": 1, "spl', "breaks off after 15 bytes"),
        (b'[{"id": 1},', "breaks off after 11 bytes"),
        (b'[{"id": 1} {"id": 2}, {"id": 3}]', "is not JSON"),
        (b'{"images": []}', "must hold a list of records, not an object"),
        (b"[]", "empty list"),
        (b'["caf\xe9"]', "is not UTF-8"),
        (b"[" * 100_000, "nesting"),
        (b"[" + b"1" * 5_000 + b"]", "number"),
    ],
)
def test_damaged_files_say_how(write_dataset, content, words):
    root = write_dataset()
    (root / "CUHK-PEDES" / "reid_raw.json").write_bytes(content)
    with pytest.raises(UserError, match=r"reid_raw\.json") as caught:
        load_dataset("cuhk_pedes", root)
    assert words in str(caught.value)


def test_byte_order_mark_is_no_damage(write_dataset):
    root = write_dataset()
    file = root / "CUHK-PEDES" / "reid_raw.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(load_dataset("cuhk_pedes", root).train) == 3


def test_missing_annotation_lists_tried_and_found_names(write_dataset):
    root = write_dataset("icfg_pedes", file="caption_all.json")
    folder = root / "ICFG-PEDES"
    (folder / "notes.json").write_text("{}")
    (folder / "nosplit.json").write_text(json.dumps([{"id": 1, "captions": [], "file_path": "a.jpg"}]))
    with pytest.raises(UserError) as caught:
        load_dataset("icfg_pedes", root)
    text = str(caught.value)
    assert "tried ICFG-PEDES.json and ICFG_PEDES.json" in text
    assert "caption_all.json (it has the right keys: rename it to ICFG-PEDES.json" in text
    assert "nosplit.json (not this annotation: its records have no split)" in text
    assert "notes.json (not an annotation)" in text
    assert "https://github.com/zifyloo/SSAN" in text


@pytest.mark.parametrize("name", NAMES)
def test_missing_folders_say_where_to_ask(name, tmp_path):
    with pytest.raises(UserError, match=r"does not exist.*https://"):
        load_dataset(name, tmp_path / "nowhere")
    (tmp_path / "OTHER").mkdir()
    with pytest.raises(UserError, match=r"found there: OTHER.*https://"):
        load_dataset(name, tmp_path)
    (tmp_path / DATASETS[name].folder / "imgs").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no json file at all.*https://"):
        load_dataset(name, tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file, not a folder"):
        load_dataset(name, tmp_path / "file")


def test_unknown_dataset_lists_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="cuhk_pedes, folder, icfg_pedes, rstpreid"):
        load_dataset("cuhk", tmp_path)


def test_folders_linked_to_the_outside_are_refused(write_dataset, tmp_path):
    root = write_dataset()
    images = root / "CUHK-PEDES" / "imgs"
    outside = tmp_path / "outside"
    (images / "cam_1").rename(outside)
    (images / "cam_1").symlink_to(outside)
    with pytest.raises(UserError, match="cam_1 is a link that leaves"):
        load_dataset("cuhk_pedes", root)


def test_a_linked_dataset_and_links_inside_are_fine_but_a_file_link_out_is_not(write_dataset, tmp_path):
    root = write_dataset()
    images = root / "CUHK-PEDES" / "imgs"
    images.rename(tmp_path / "elsewhere")
    images.symlink_to(tmp_path / "elsewhere")
    (images / "cam_0" / "0_0.png").unlink()
    (images / "cam_0" / "0_0.png").symlink_to(images / "cam_1" / "0_1.png")
    (tmp_path / "secret.png").write_bytes(b"x")
    (images / "cam_2" / "0_2.png").unlink()
    os.symlink(tmp_path / "secret.png", images / "cam_2" / "0_2.png")
    dataset = load_dataset("cuhk_pedes", root)
    assert dataset.path(dataset.train[0]).is_file()
    with pytest.raises(UserError, match="link to a file outside"):
        dataset.path(dataset.train[2])


def test_image_path_keeps_spaces_and_letters():
    assert image_path("Market//a b/ü.JPG") == "Market/a b/ü.JPG"
    with pytest.raises(ValueError, match="readable"):
        image_path("\ud800.jpg")


@pytest.mark.parametrize("name", NAMES)
def test_published_statistics_stand_in_the_docstring(name):
    dataset = DATASETS[name]
    for split in ("train", "val", "test"):
        counts = getattr(dataset.expected, split)
        for number in (counts.images, counts.identities, counts.captions):
            assert number == 0 or f"{number:,}" in dataset.__doc__


@pytest.mark.integration
def test_full_size_annotation_loads_in_two_seconds(tmp_path):
    captions = ["the man is wearing a long black coat, blue jeans and brown shoes while carrying a bag ."] * 2
    folders = ("cam_a", "cam_b", "CUHK01", "CUHK03", "Market", "test_query", "train_query")
    items = [
        {
            "split": "train" if number < 34_054 else "val" if number < 37_132 else "test",
            "captions": captions,
            "file_path": f"{folders[number % 7]}/{number:07}.jpg",
            "processed_tokens": [caption.split() for caption in captions],
            "id": number // 3,
        }
        for number in range(40_206)
    ]
    (tmp_path / "CUHK-PEDES").mkdir()
    (tmp_path / "CUHK-PEDES" / "reid_raw.json").write_text(json.dumps(items))
    seconds = []
    for _ in range(2):  # the better of two, in CPU time: the machine may be busy with other things
        start = time.process_time()
        dataset = load_dataset("cuhk_pedes", tmp_path)
        seconds.append(time.process_time() - start)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (34_054, 3_078, 3_074)
    assert sum(len(r.captions) for split in ("train", "val", "test") for r in dataset.split(split)) == 80_412
    assert min(seconds) < 2.0
