"""An index folder that follows its images: added, removed, changed, interrupted, killed, refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.cache import read_batch
from data.errors import UserError
from data.folder import find_images
from data.transforms import normalise
from engine import checkpoints
from serving.catalogue import CATALOGUE, Catalogue
from serving.faiss_store import VECTORS
from serving.index import SearchIndex
from serving.indexing import IndexWriter, digest_of
from serving.opening import decoder, open_searcher
from tests.serving.commands import CPU, ROOT, run

pytestmark = pytest.mark.integration


@pytest.fixture
def model(demo):
    return checkpoints.load_retrieval_model(demo.checkpoint)[0]


@pytest.fixture
def update(demo, crops, model, tmp_path):
    """update() -> (report, images that were encoded) after bringing the index up to date."""

    def bring_up_to_date(progress=None, batch_size=4, decode=None):
        encoded = []

        def watched(path: Path):
            encoded.append(path.relative_to(crops).as_posix())
            return (decode or decoder((48, 24)))(path)

        with IndexWriter(tmp_path / "index") as writer:
            writer.claim(model, (48, 24), digest_of(demo.checkpoint), crops)
            plan = writer.plan(find_images(crops, "no"))
            writer.encode(plan, model, watched, batch_size=batch_size, progress=progress)
            return writer.publish(plan), sorted(encoded)

    return bring_up_to_date


def check(directory, crops, model):
    """Everything in the index is what encoding the folder from nothing gives, and nothing else is in it."""
    index = SearchIndex(directory)
    images = {one.image: one.row for one, _ in index.nearest(np.ones(256, np.float32), 10_000)}
    good = [path for path in find_images(crops, "no") if opens(crops / path)]
    assert sorted(images) == good
    with torch.no_grad():
        for image, row in images.items():
            tokens, feature = model.encode_images(
                normalise(torch.from_numpy(read_batch([crops / image], (48, 24))))
            )
            feature = torch.nn.functional.normalize(feature, dim=1)[0].numpy()
            np.testing.assert_allclose(index.feature(row), feature, atol=1e-5)
            np.testing.assert_allclose(
                index.tokens(np.array([row]))[0], tokens[0].numpy(), atol=5e-3, rtol=2e-3
            )
            [(found, score)] = index.nearest(feature, 1)
            assert (index.feature(found.row) == index.feature(row)).all()
            assert score == pytest.approx(1.0, abs=1e-5)


def opens(path: Path) -> bool:
    try:
        decoder((48, 24))(path)
    except UserError:
        return False
    return True


def draw(path: Path, colour) -> None:
    Image.new("RGB", (20, 40), colour).save(path)


def test_a_second_run_encodes_nothing(update, crops, model, tmp_path):
    images = find_images(crops, "no")
    report, encoded = update()
    assert encoded == images
    assert (report.indexed, report.added, report.changed, report.removed) == (32, 32, 0, 0)
    before = (tmp_path / "index" / VECTORS).stat().st_mtime_ns
    report, encoded = update()
    assert (report.indexed, report.added, encoded) == (32, 0, [])
    assert (tmp_path / "index" / VECTORS).stat().st_mtime_ns == before
    check(tmp_path / "index", crops, model)


def test_added_removed_and_changed_images_are_noticed(update, crops, model, tmp_path):
    images = find_images(crops, "no")
    update()
    for gone in images[:3]:
        (crops / gone).unlink()
    draw(crops / images[5], "green")
    draw(crops / "new.png", "blue")
    report, encoded = update()
    assert encoded == sorted([images[5], "new.png"])
    assert (report.indexed, report.added, report.changed, report.removed) == (30, 1, 1, 3)
    check(tmp_path / "index", crops, model)
    size = (tmp_path / "index" / "tokens.bin").stat().st_size
    draw(crops / "newer.png", "white")
    draw(crops / images[0], "black")
    report, encoded = update()
    assert encoded == sorted(["newer.png", images[0]])
    check(tmp_path / "index", crops, model)
    assert (tmp_path / "index" / "tokens.bin").stat().st_size == size  # rows of removed images are used again


def test_where_the_time_differs_the_bytes_decide(update, crops, model, tmp_path):
    image = crops / "drawn.bmp"
    draw(image, "red")
    update()
    os.utime(image, (1, 1))
    report, encoded = update()
    assert (report.changed, encoded) == (0, [])
    draw(image, "blue")  # as many bytes as before
    report, encoded = update()
    assert (report.changed, encoded) == (1, ["drawn.bmp"])
    check(tmp_path / "index", crops, model)


def test_what_was_removed_is_wiped_from_the_disk(update, crops, tmp_path):
    image = find_images(crops, "no")[7]
    update()
    index = SearchIndex(tmp_path / "index")
    row = next(one.row for block, _ in index.everything() for one in block if one.image == image)
    assert index.tokens(np.array([row])).any()
    (crops / image).unlink()
    update()
    assert not index.tokens(np.array([row])).any()
    assert not index.feature(row).any()
    assert image not in (tmp_path / "index" / CATALOGUE).read_bytes().decode("latin-1")


def test_images_that_do_not_open_are_reported_skipped_and_not_tried_again(update, crops, model, tmp_path):
    images = find_images(crops, "no")
    whole = (crops / images[2]).read_bytes()
    (crops / images[2]).write_bytes(whole[: len(whole) // 2])
    (crops / "text.jpg").write_text("no image")
    report, _ = update()
    assert [path for path, _ in report.unreadable] == sorted([images[2], "text.jpg"])
    assert "not an image" in dict(report.unreadable)["text.jpg"]
    assert report.indexed == 31
    check(tmp_path / "index", crops, model)
    report, encoded = update()
    assert (len(report.unreadable), encoded) == (2, [])
    (crops / images[2]).write_bytes(whole)
    (crops / "text.jpg").unlink()
    report, encoded = update()
    assert (report.unreadable, report.added, encoded) == ([], 1, [images[2]])
    check(tmp_path / "index", crops, model)


def test_an_image_that_becomes_unreadable_leaves_the_index(update, crops, model, tmp_path):
    image = find_images(crops, "no")[0]
    update()
    (crops / image).write_bytes(b"")
    report, _ = update()
    assert (report.removed, report.indexed) == (1, 31)
    check(tmp_path / "index", crops, model)


class Stopped(Exception):
    pass


def test_a_stopped_run_keeps_what_it_has_and_is_not_searched_yet(update, crops, model, tmp_path):
    def stop(done, total):
        if done >= 12:
            raise Stopped

    with pytest.raises(Stopped):
        update(stop)
    with pytest.raises(UserError, match="is not finished: run the same"):
        SearchIndex(tmp_path / "index")
    report, encoded = update()
    assert len(encoded) == 32 - 12
    assert (report.indexed, report.added) == (32, 32)
    check(tmp_path / "index", crops, model)


def test_files_that_change_while_a_run_is_interrupted(update, crops, model, tmp_path):
    images = find_images(crops, "no")

    def stop(done, total):
        if done >= 12:
            raise Stopped

    with pytest.raises(Stopped):
        update(stop)
    (crops / images[0]).unlink()
    draw(crops / images[1], "yellow")
    _, encoded = update()
    assert encoded == [images[1], *images[12:]]
    check(tmp_path / "index", crops, model)


@pytest.mark.parametrize("place", ["set_state", "free"])
def test_killed_while_publishing_the_next_run_makes_it_right(
    update, crops, model, tmp_path, monkeypatch, place
):
    images = find_images(crops, "no")
    update()
    draw(crops / images[3], "pink")
    (crops / images[4]).unlink()
    plain = getattr(Catalogue, place)

    def killed(self, states):
        if states:
            raise Stopped
        plain(self, states)

    monkeypatch.setattr(Catalogue, place, killed)
    with pytest.raises(Stopped):
        update()
    monkeypatch.undo()
    SearchIndex(tmp_path / "index")  # what is there can be searched
    draw(crops / images[3], "cyan")
    draw(crops / images[4], "brown")
    update()
    check(tmp_path / "index", crops, model)


def test_a_reader_keeps_its_view_until_it_opens_the_index_anew(update, crops, tmp_path):
    update()
    index = SearchIndex(tmp_path / "index")
    assert not index.is_outdated()
    draw(crops / "new.png", "blue")
    update()
    assert index.is_outdated()
    assert (len(index), len(SearchIndex(tmp_path / "index"))) == (32, 33)


def test_a_second_writer_is_refused(tmp_path):
    with IndexWriter(tmp_path / "index"), pytest.raises(UserError, match="Another process is changing"):
        IndexWriter(tmp_path / "index")
    IndexWriter(tmp_path / "index").__exit__()


def test_lost_vectors_are_made_again_without_encoding(update, crops, model, tmp_path):
    update()
    (tmp_path / "index" / VECTORS).write_bytes(b"damaged")
    draw(crops / "new.png", "blue")
    assert update()[1] == ["new.png"]
    (tmp_path / "index" / VECTORS).unlink()
    assert update()[1] == []
    check(tmp_path / "index", crops, model)


def test_a_disk_without_room_is_told_before_anything_is_encoded(update, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(UserError, match=r"needs 0\.\d GB more .* make room"):
        update()


def test_another_checkpoint_or_folder_is_refused(update, crops, demo, model, tmp_path):
    update()
    with IndexWriter(tmp_path / "index") as writer:
        with pytest.raises(UserError, match="made with another checkpoint"):
            writer.claim(model, (48, 24), "0123", crops)
        with pytest.raises(UserError, match="is of the images in"):
            writer.claim(model, (48, 24), digest_of(demo.checkpoint), demo.crops)
    crops.rename(tmp_path / "moved")
    with IndexWriter(tmp_path / "index") as writer:
        writer.claim(model, (48, 24), digest_of(demo.checkpoint), tmp_path / "moved")
        assert writer.plan(find_images(tmp_path / "moved", "no")).todo == []


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds other files and no index"):
        IndexWriter(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        IndexWriter(tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_command_that_is_ended_goes_on_where_it_was(demo, crops, tmp_path, number, code):
    for copy in range(60):  # more than is encoded while the signal is on its way
        shutil.copytree(demo.crops, crops / f"copy-{copy}")
    command = ["index", "--images", crops, "--checkpoint", demo.checkpoint, "--out", tmp_path / "index"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "search.py"), *map(str, command), "--batch-size", "4"],
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
    )
    tokens = tmp_path / "index" / "tokens.bin"
    deadline = time.monotonic() + 60
    while not (tokens.exists() and tokens.stat().st_size > 100_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    if code > 0:
        assert "The same command goes on from here." in said
        with Catalogue(tmp_path / "index" / CATALOGUE, read_only=True) as catalogue:
            assert 0 < len(catalogue.entries("new")) < 1952
    assert run(*command).output.endswith("1952 images can be searched (1952 added, 0 changed, 0 removed).\n")
    searcher = open_searcher(tmp_path / "index", CPU)
    hits = searcher.by_sentence("a man in red", 200)
    originals = {hit.image.split("/", 1)[1] if hit.image.startswith("copy-") else hit.image for hit in hits}
    assert len(originals) == 4  # 61 copies of an image have one feature: no row holds another image's
