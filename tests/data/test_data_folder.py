"""Bare folders of crops."""

from __future__ import annotations

import os

import pytest
from PIL import Image

from data import UserError, load_dataset


def put(path, size=(8, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def test_all_images_of_the_tree_are_train_without_identity(tmp_path):
    names = ["b/2.PNG", "a.jpg", "b/c/3.webp", "b/1.bmp", "z é/4.jpeg"]
    for name in names:
        put(tmp_path / name)
    for debris in (".hidden.jpg", ".thumbs/a.jpg", "__MACOSX/a.jpg", "@eaDir/a.jpg"):
        put(tmp_path / debris)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "folder.jpg").mkdir()
    dataset = load_dataset("folder", tmp_path)
    assert [record.image for record in dataset.train] == sorted(names)
    assert {(record.identity, record.captions) for record in dataset.train} == {(-1, ())}
    assert dataset.val == dataset.test == []
    assert dataset.expected is None
    assert all(dataset.path(record).is_file() for record in dataset.train)


def test_missing_empty_and_wrong_roots(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_dataset("folder", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no image below .*\.jpg"):
        load_dataset("folder", tmp_path)
    put(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="is a file"):
        load_dataset("folder", tmp_path / "a.jpg")


def test_links(tmp_path):
    crops, outside = tmp_path / "crops", tmp_path / "outside"
    put(crops / "a.jpg")
    put(outside / "b.jpg")
    (crops / "again.jpg").symlink_to(crops / "a.jpg")
    (crops / "broken.jpg").symlink_to(crops / "gone.jpg")
    (crops / "loop").symlink_to(crops)
    (crops / "linked").symlink_to(outside)
    assert [record.image for record in load_dataset("folder", crops).train] == ["a.jpg", "again.jpg"]
    (tmp_path / "link").symlink_to(crops)
    assert len(load_dataset("folder", tmp_path / "link").train) == 2
    (crops / "b.jpg").symlink_to(outside / "b.jpg")
    with pytest.raises(UserError, match=r"1 image\(s\) .* links that leave it, first b.jpg"):
        load_dataset("folder", crops)


def test_names_that_are_no_text_are_refused(tmp_path):
    try:
        put(tmp_path / os.fsdecode(b"\xff.jpg"))
    except (OSError, UnicodeError):
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(UserError, match="rename the file"):
        load_dataset("folder", tmp_path)
