"""The image cache: same pixels as reading from disk, never stale, never half made."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from data import UserError
from data.cache import ImageCache, read_batch
from data.decoding import check_images, default_workers
from data.images import MEAN_COLOUR

SIZE = (24, 12)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def crops(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for number in range(10):
        path = tmp_path / "crops" / f"{number}.{('jpg', 'png')[number % 2]}"
        path.parent.mkdir(exist_ok=True)
        noise = rng.integers(0, 256, (40 + number, 20, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((20, 60), Image.Resampling.BICUBIC).save(path)
        paths.append(str(path))
    return paths


def touch_again(path, image):
    before = os.stat(path).st_mtime_ns
    image.save(path)
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("workers", [0, 2])
def test_cache_equals_the_plain_path_bit_by_bit(crops, tmp_path, workers, interpolation):
    seen = []
    cache = ImageCache.open(
        crops,
        SIZE,
        tmp_path / "cache",
        interpolation=interpolation,
        workers=workers,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert cache.array.shape == (10, *SIZE, 3)
    assert cache.array.dtype == np.uint8
    assert isinstance(cache.array, np.memmap)
    assert not cache.array.flags.writeable
    assert cache.array.transpose(0, 3, 1, 2).flags.c_contiguous
    assert cache.unreadable == ()
    assert seen[-1] == (10, 10)
    assert (cache.array == read_batch(crops, SIZE, interpolation=interpolation)).all()
    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    for row, path in zip(cache.array, crops, strict=True):
        with Image.open(path) as image:
            theirs = np.asarray(image.convert("RGB").resize((12, 24), method))
            assert np.abs(row.astype(int) - theirs).max() <= 1  # by another rounding in some versions


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_many_images_in_processes_keep_their_order(crops, tmp_path, interpolation):
    paths = [crops[i % 10] for i in np.random.default_rng(1).integers(0, 10, 200)]
    cache = ImageCache.open(paths, SIZE, tmp_path, interpolation=interpolation, workers=3)
    assert (cache.array == read_batch(paths, SIZE, interpolation=interpolation)).all()


def test_each_interpolation_has_a_cache_of_its_own_and_bilinear_ones_keep_their_names(crops, tmp_path):
    plain = ImageCache.open(crops, SIZE, tmp_path)
    names = hashlib.blake2b("\0".join(crops).encode(), digest_size=8).hexdigest()
    assert plain.path.name.startswith(f"images-24x12-{names}-")
    cubic = ImageCache.open(crops, SIZE, tmp_path, interpolation="bicubic")
    assert (cubic.array != plain.array).any()
    # What is out of date of the one is removed, and nothing of the other.
    touch_again(crops[3], Image.new("RGB", (20, 60), (1, 2, 3)))
    for interpolation, other in (("bilinear", cubic), ("bicubic", None)):
        fresh = ImageCache.open(crops, SIZE, tmp_path, interpolation=interpolation)
        assert (fresh.array[3] == (1, 2, 3)).all()
        assert other is None or other.path.exists()
    assert len(list(tmp_path.glob("*.npy"))) == 2
    with pytest.raises(ValueError, match="no interpolation"):
        ImageCache.open(crops, SIZE, tmp_path, interpolation="nearest")


def test_second_open_reads_and_other_lists_and_sizes_are_other_files(crops, tmp_path):
    directory = tmp_path / "cache"
    first = ImageCache.open(crops, SIZE, directory)
    before = os.stat(first.path).st_mtime_ns

    def no_build(done, total):
        raise AssertionError("built again")

    again = ImageCache.open([Path(path) for path in crops], SIZE, directory, progress=no_build)
    assert again.path == first.path
    assert os.stat(again.path).st_mtime_ns == before
    assert ImageCache.open(crops[::-1], SIZE, directory).path != first.path
    assert ImageCache.open(crops, (12, 24), directory).array.shape == (10, 12, 24, 3)
    assert (ImageCache.open(crops, SIZE, directory, progress=no_build).array == first.array).all()


def test_a_changed_image_is_seen_and_the_old_cache_removed(crops, tmp_path):
    directory = tmp_path / "cache"
    old = ImageCache.open(crops, SIZE, directory)
    touch_again(crops[3], Image.new("RGB", (20, 60), (1, 2, 3)))
    new = ImageCache.open(crops, SIZE, directory)
    assert (new.array[3] == (1, 2, 3)).all()
    assert (
        np.delete(new.array, 3, 0) == np.delete(old.array, 3, 0)
    ).all()  # the old map still works for its owner
    assert sorted(path.suffix for path in directory.iterdir()) == [".json", ".lock", ".npy"]


def test_another_decoder_makes_another_cache(crops, tmp_path, monkeypatch):
    old = ImageCache.open(crops, SIZE, tmp_path)
    noted = json.loads(old.path.with_suffix(".json").read_text("utf-8"))["decoders"]
    assert noted["pillow"] == PIL.__version__
    monkeypatch.setattr("data.cache.decoders", lambda: noted | {"pillow": "99.0"})
    new = ImageCache.open(crops, SIZE, tmp_path)
    assert new.path != old.path
    assert not old.path.exists()
    assert json.loads(new.path.with_suffix(".json").read_text("utf-8"))["decoders"]["pillow"] == "99.0"


def test_unreadable_images_are_counted_or_filled_with_the_mean(crops, tmp_path):
    Path(crops[2]).write_bytes(b"no image")
    Path(crops[5]).unlink()
    with pytest.raises(UserError, match=r"2 of 10 images cannot be read\. The image .*2\.jpg does not open"):
        ImageCache.open(crops, SIZE, tmp_path / "cache")
    cache = ImageCache.open(crops, SIZE, tmp_path / "cache", skip_unreadable=True)
    assert [(bad.index, bad.path) for bad in cache.unreadable] == [(2, crops[2]), (5, crops[5])]
    assert "no such file" in cache.unreadable[1].reason
    assert (cache.array[[2, 5]] == MEAN_COLOUR).all()
    with pytest.raises(UserError, match="2 of 10"):
        ImageCache.open(crops, SIZE, tmp_path / "cache")
    with pytest.raises(UserError, match=r"2\.jpg does not open"):
        read_batch(crops, SIZE)
    assert (read_batch(crops, SIZE, skip_unreadable=True) == cache.array).all()
    Image.new("RGB", (20, 60), "red").save(crops[2])
    Image.new("RGB", (20, 60), "red").save(crops[5])
    assert (ImageCache.open(crops, SIZE, tmp_path / "cache").array[5] == (255, 0, 0)).all()


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None])
def test_a_damaged_cache_file_is_made_again(crops, tmp_path, damage):
    cache = ImageCache.open(crops, SIZE, tmp_path)
    expected = np.array(cache.array)
    if damage is None:
        cache.path.with_suffix(".json").unlink()
    else:
        cache.path.write_bytes(damage)
    assert (ImageCache.open(crops, SIZE, tmp_path).array == expected).all()


def test_what_killed_builders_left_is_no_hindrance(crops, tmp_path):
    cache = ImageCache.open(crops, SIZE, tmp_path)
    key = cache.path.name.rsplit("-", 1)[0]
    cache.path.unlink()
    (tmp_path / f"{key}-0000.abcd.tmp").write_bytes(b"half")
    assert (tmp_path / f"{key}.lock").exists()
    ImageCache.open(crops, SIZE, tmp_path)
    assert not list(tmp_path.glob("*.tmp"))


BUILDER = """
import sys, time
from pathlib import Path
from data.cache import ImageCache
def progress(done, total):
    print(done, flush=True)
    time.sleep(float(sys.argv[3]))
cache = ImageCache.open(sorted(map(str, Path(sys.argv[1]).iterdir())) * 30, (24, 12), sys.argv[2], workers=2, progress=progress)
print("sum", int(cache.array.sum(dtype="int64")), flush=True)
"""


def start_builder(crops, directory, pause):
    command = [sys.executable, "-c", BUILDER, os.path.dirname(crops[0]), str(directory), str(pause)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.integration
def test_two_builders_at_once_build_once(crops, tmp_path):
    builders = [start_builder(crops, tmp_path / "cache", 0.1) for _ in range(2)]
    outputs = [builder.communicate(timeout=60)[0].split("\n") for builder in builders]
    sums = [line for output in outputs for line in output if line.startswith("sum")]
    assert len(sums) == 2
    assert sums[0] == sums[1]
    assert sorted(len(output) > 2 for output in outputs) == [False, True]  # one counted along, one waited


@pytest.mark.integration
def test_a_killed_builder_leaves_neither_lock_nor_half_a_cache(crops, tmp_path):
    builder = start_builder(crops, tmp_path / "cache", 30)
    assert builder.stdout.readline()
    children = Path(f"/proc/{builder.pid}/task/{builder.pid}/children")
    workers = [int(pid) for pid in children.read_text().split()] if children.exists() else []
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    builder.stdout.close()
    start = time.perf_counter()
    paths = sorted(str(path) for path in Path(crops[0]).parent.iterdir()) * 30
    cache = ImageCache.open(paths, SIZE, tmp_path / "cache", workers=0)
    assert time.perf_counter() - start < 10
    assert (cache.array == read_batch(paths, SIZE)).all()
    assert not list((tmp_path / "cache").glob("*.tmp"))
    deadline = time.time() + 10
    while any(running(pid) for pid in workers) and time.time() < deadline:
        time.sleep(0.05)
    assert not any(running(pid) for pid in workers)


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_no_room_no_folder_no_images(crops, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="at least one"):
        ImageCache.open([], SIZE, tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="can't be written"):
        ImageCache.open(crops, SIZE, tmp_path / "file" / "cache")
    monkeypatch.setattr("data.cache.shutil.disk_usage", lambda path: type("Usage", (), {"free": 100})())
    with pytest.raises(UserError, match="make room"):
        ImageCache.open(crops, SIZE, tmp_path / "full")


def test_a_decoding_process_that_dies_is_reported(crops, monkeypatch):
    monkeypatch.setattr("data.decoding.sys.executable", "/bin/false")
    with pytest.raises(UserError, match="fewer workers"):
        check_images(crops, deep=True, workers=2)


def test_deep_and_header_checks(crops):
    content = Path(crops[1]).read_bytes()
    Path(crops[1]).write_bytes(content[: len(content) // 2])
    Path(crops[4]).write_bytes(b"")
    assert [index for index, _ in check_images(crops, deep=False)] == [4]
    assert [index for index, _ in check_images(crops, deep=True)] == [1, 4]
    assert check_images(crops, deep=True, workers=2) == check_images(crops, deep=True, workers=0)
    assert default_workers(10) == 0
    assert default_workers(100_000) <= 16
