"""Small datasets in the three formats, made from solid-colour crops."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

FORMATS = {
    "cuhk_pedes": ("CUHK-PEDES", "reid_raw.json", "file_path"),
    "icfg_pedes": ("ICFG-PEDES", "ICFG-PEDES.json", "file_path"),
    "rstpreid": ("RSTPReid", "data_captions.json", "img_path"),
}


def annotation_items(image_key: str) -> list[dict]:
    """Nine records: three identities (0, 7, 70) in three splits, two captions each."""
    items = []
    for number, split in enumerate(("train", "val", "test")):
        for view in range(3):
            items.append(
                {
                    "id": (0, 7, 70)[number],
                    "split": split,
                    "captions": [f"a man in shirt {number}.", f"the man of view {view} wears jeans."],
                    image_key: f"cam_{view}/{number}_{view}.png",
                    "processed_tokens": [["a", "man"]],
                }
            )
    return items


@pytest.fixture
def write_dataset(tmp_path):
    """write_dataset(name, items=None, images=True) -> the root that holds the dataset's folder."""

    def write(
        name: str = "cuhk_pedes", items: object = None, images: bool = True, file: str | None = None
    ) -> Path:
        folder, standard, key = FORMATS[name]
        items = annotation_items(key) if items is None else items
        directory = tmp_path / "datasets" / folder
        directory.mkdir(parents=True, exist_ok=True)
        (directory / (file or standard)).write_text(json.dumps(items), "utf-8")
        for item in items if images else ():
            path = directory / "imgs" / item[key].replace("\\", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (12, 24), (item["id"] * 3 % 256, 40, 90)).save(path)
        return tmp_path / "datasets"

    return write


@pytest.fixture
def items():
    """items(name) -> the records that write_dataset writes, to be damaged."""
    return lambda name="cuhk_pedes": annotation_items(FORMATS[name][2])
