"""Generated sets: their layout, what is read of it, and what is said where none is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from data import Record, UserError, load_dataset
from data.validate import main as validate

RECORDS = [
    {
        "split": "train",
        "file_path": f"plain/{number}.jpg",
        "id": number // 2,
        "captions": [f"a woman in a red blouse {number}"],
        "prompt": {"text": "a young woman", "seed": 7},
        "edit": None,
    }
    for number in range(4)
]


@pytest.fixture
def written(tmp_path):
    """written(records, folder) -> the folder of a set with these records and an image for each."""

    def write(records: object = RECORDS, folder: str = "mine") -> Path:
        root = tmp_path / folder
        root.mkdir(parents=True)
        (root / "synthetic.json").write_text(json.dumps(records), "utf-8")
        for record in RECORDS:
            path = root / "imgs" / record["file_path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (12, 24), "red").save(path)
        return root

    return write


def test_records_are_read_and_what_made_them_is_not(written):
    root = written()
    dataset = load_dataset("synthetic", root)
    assert dataset.train == [
        Record(f"plain/{number}.jpg", number // 2, (f"a woman in a red blouse {number}",))
        for number in range(4)
    ]
    assert (dataset.val, dataset.test, dataset.expected) == ([], [], None)
    assert all(dataset.path(record).is_file() for record in dataset.train)


def test_it_may_lie_in_a_folder_of_its_name(written, tmp_path):
    written(folder="sets/synthetic")
    assert load_dataset("synthetic", tmp_path / "sets").image_root == tmp_path / "sets" / "synthetic" / "imgs"


@pytest.mark.parametrize("root", ["absent", "empty"])
def test_where_there_is_none_it_says_what_makes_one(tmp_path, root):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"A synthetic set is made by gen_images\.py"):
        load_dataset("synthetic", tmp_path / root)


def test_images_without_their_records_are_told(written):
    root = written()
    (root / "synthetic.json").unlink()
    with pytest.raises(UserError, match=r"tried synthetic\.json.*it is made by gen_images\.py\.$"):
        load_dataset("synthetic", root)


@pytest.mark.parametrize("image", ["../out.jpg", "/etc/out.jpg"])
def test_no_record_leaves_the_folder(written, image):
    with pytest.raises(UserError, match="it would leave the dataset root"):
        load_dataset("synthetic", written([{**RECORDS[0], "file_path": image}]))


def test_the_validator_compares_it_with_nothing_published(written, capsys):
    root = written()
    assert validate(["--name", "synthetic", "--root", str(root)]) == 0
    said = capsys.readouterr().out
    assert "The dataset is ready." in said
    assert "bare folder" not in said
    assert "published" not in said
    (root / "imgs" / RECORDS[0]["file_path"]).unlink()
    assert validate(["--name", "synthetic", "--root", str(root)]) == 1
