"""``search.py crop`` as a user meets it: crops, their table, going on, and what can't be cropped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2", reason="videos are read by OpenCV: pip install -r requirements-search.txt")

from serving import footage
from serving.crop_table import TABLE, CropTable, origins_of
from serving.footage import Video
from serving.tracks import overlap
from tests.serving.commands import ROOT, run
from tests.serving.footage_files import Stands, frame, walk, write_detector, write_frames, write_video

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def walking():
    return walk()


@pytest.fixture(scope="module")
def video(tmp_path_factory, walking) -> Path:
    return write_video(tmp_path_factory.mktemp("footage") / "door.avi", walking)


def crop(source: Path, out: Path, *more: object):
    return run("crop", "--from", source, "--out", out, "--every", 2, "--device", "cpu", *more)


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".crops.lock"
    }


def table(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / TABLE).read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def cropped(video, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cropped") / "crops"
    assert crop(video, folder).code == 0
    return folder


def test_people_are_cut_out_once_and_again_when_they_have_turned(cropped, walking, video):
    origins = origins_of(cropped / TABLE)
    assert set(content(cropped)) == {TABLE, *origins}
    frames = sorted(origin.frame for origin in origins.values())
    # Frames 0, 2: standing; 4, 6: turned round; 8, 10: another one comes.
    assert frames[0] == 0
    assert any(4 <= number <= 6 for number in frames)
    assert any(number >= 8 for number in frames)
    seen = sum(len(line.get("persons", ())) for line in table(cropped))
    assert len(origins) < seen  # something was thinned out
    for file, origin in origins.items():
        assert origin.source == "door.avi"
        assert origin.seconds == pytest.approx(origin.frame / 25, abs=1e-3)
        left, top, wide, high = origin.box
        assert file.startswith(
            f"door.avi/f{origin.frame:07d}_t{origin.seconds:.3f}_x{left}_y{top}_w{wide}_h{high}.jpg"
        )
        with Image.open(cropped / file) as picture:
            assert picture.size == (wide, high)
            difference = np.abs(
                np.asarray(picture, int) - walking[origin.frame][top : top + high, left : left + wide]
            )
        assert difference.mean() < 8  # two times JPEG
    late = [origin for origin in origins.values() if origin.frame >= 8]
    assert any(overlap(origin.box, Stands(10, 300).box) > 0.4 for origin in late)


def test_the_same_command_again_does_nothing(cropped, video, monkeypatch):
    before = content(cropped)
    monkeypatch.setattr(Video, "frames", None)  # a finished video is not decoded again
    assert "crops of door.avi" in crop(video, cropped).output
    assert content(cropped) == before


@pytest.mark.parametrize("codec", ["mp4v", "MJPG"])
def test_other_containers_and_frames_give_the_same_persons(walking, tmp_path, codec):
    path = write_video(tmp_path / ("a.mp4" if codec == "mp4v" else "a.avi"), walking, codec)
    assert crop(path, tmp_path / "crops").code == 0
    assert {0} < {origin.frame for origin in origins_of(tmp_path / "crops" / TABLE).values()}


def test_a_folder_of_frames_in_the_order_of_their_numbers(walking, tmp_path):
    write_frames(tmp_path / "cam" / "left", walking)  # frame10.png comes after frame9.png
    assert crop(tmp_path / "cam", tmp_path / "crops", "--fps", 25).code == 0
    lines = [line for line in table(tmp_path / "crops") if "frame" in line]
    assert [line["image"] for line in lines] == [f"frame{number}.png" for number in range(0, 12, 2)]
    assert [line["seconds"] for line in lines] == [round(number / 25, 3) for number in range(0, 12, 2)]
    assert {line["source"] for line in lines} == {"cam/left"}
    for line in lines:
        boxes = [person["box"] for person in line["persons"]]
        left = 20 + 4 * min(
            line["frame"], 7
        )  # who is there from the beginning stops when the other one comes
        assert max(overlap(tuple(box), Stands(4, left).box) for box in boxes) > 0.6
        assert len(boxes) >= (2 if line["frame"] >= 8 else 1)


def test_frames_that_are_added_are_cropped_next_time_without_a_time(walking, tmp_path):
    folder = write_frames(tmp_path / "cam", walking[:5])
    assert crop(folder, tmp_path / "crops").code == 0
    write_frames(folder, walking[5:], first=5)
    assert crop(folder, tmp_path / "crops").code == 0
    whole = write_frames(tmp_path / "other" / "cam", walking)
    assert crop(whole, tmp_path / "at-once").code == 0
    assert content(tmp_path / "crops") == content(tmp_path / "at-once")
    assert all(origin.seconds is None for origin in origins_of(tmp_path / "crops" / TABLE).values())
    assert not [file for file in content(tmp_path / "crops") if "_t" in file]


def test_torchvisions_detector_goes_through_the_same(walking, tmp_path):
    weights = write_detector(tmp_path / "mobilenet_320.pth")
    folder = write_frames(tmp_path / "cam", walking[:3])
    options = [
        "--detector",
        f"torchvision:{weights}",
        "--detect-size",
        96,
        "--score",
        0.05,
        "--min-height",
        160,
    ]
    assert crop(folder, tmp_path / "crops", *options).code == 0
    boxes = [person["box"] for line in table(tmp_path / "crops") for person in line.get("persons", ())]
    assert boxes
    assert min(box[3] for box in boxes) >= 160
    more = [*options[:-1], 1]
    assert crop(folder, tmp_path / "more", *more).code == 0
    everybody = [person["box"] for line in table(tmp_path / "more") for person in line.get("persons", ())]
    assert sorted(box for box in everybody if box[3] >= 160) == sorted(boxes)
    assert len(everybody) > len(boxes)


def test_a_half_written_line_and_crops_without_a_line_are_done_again(cropped, video, tmp_path):
    whole = (cropped / TABLE).read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in (len(whole) - 3, sum(map(len, lines[:3])) + 20, len(lines[0]) + 1, 5, 0):
        folder = Path(shutil.copytree(cropped, tmp_path / str(cut)))
        (folder / TABLE).write_bytes(whole[:cut])
        assert crop(video, folder).code == 0
        assert content(folder) == content(cropped)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_or_killed_command_goes_on_to_the_same_end(walking, tmp_path, number, code):
    long = write_video(tmp_path / "door.avi", walking * 4)
    out = tmp_path / "crops"
    command = [
        sys.executable,
        "search.py",
        "crop",
        "--from",
        long,
        "--out",
        out,
        "--every",
        "2",
        "--device",
        "cpu",
    ]
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 120
    while not (out / TABLE).exists() or (out / TABLE).read_bytes().count(b"\n") < 4:
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    frames = [line["frame"] for line in table(out)[1:-1]]
    assert frames == list(range(0, 2 * len(frames), 2))
    assert 0 < len(frames) < 24
    if code > 0:
        assert "The same command goes on from here." in said
    assert crop(long, out).code == 0
    assert crop(long, tmp_path / "at-once").code == 0
    assert content(out) == content(tmp_path / "at-once")


def test_what_does_not_fit_what_is_there_is_refused(cropped, video, walking, tmp_path, messages):
    folder = Path(shutil.copytree(cropped, tmp_path / "crops"))
    before = content(folder)

    def refused(source: Path, *more: object) -> str:
        assert crop(source, folder, *more).code == 1
        assert content(folder) == before
        return messages[-1]

    assert "were begun with every 2: give the same" in refused(video, "--every", 3)
    assert "were begun with detector opencv, 1280 px, score 0.5" in refused(video, "--score", 0.6)
    other = write_video(tmp_path / "door.avi", walking[:5])
    assert "another name by --source NAME" in refused(other)
    assert "another name by --source NAME" in refused(
        write_frames(tmp_path / "f", walking[:2]), "--source", "door.avi"
    )
    for name in ("../up", ".hidden", "a/b", "x" * 300, "a\nb"):
        assert "can't name a source" in refused(video, "--source", name)
    with CropTable(folder):
        assert "Another process is adding crops" in refused(video)
    assert crop(other, folder, "--source", "second").code == 0
    assert {origin.source for origin in origins_of(folder / TABLE).values()} == {"door.avi", "second"}


def test_other_frames_under_the_same_name_are_refused(walking, tmp_path, messages):
    folder = write_frames(tmp_path / "cam", walking[:5])
    assert crop(folder, tmp_path / "crops").code == 0
    (folder / "frame4.png").rename(folder / "elsewhere.png")
    assert crop(folder, tmp_path / "crops").code == 1
    assert "are others than those" in messages[-1]


def test_a_damaged_table_is_told_with_its_line(cropped, video, tmp_path, messages):
    folder = Path(shutil.copytree(cropped, tmp_path / "crops"))
    lines = (folder / TABLE).read_text("utf-8").splitlines(keepends=True)
    for bad in ("no json\n", "[1]\n", '{"source": "door.avi", "frame": 1}\n', '{"source": "x", "ends": 1}\n'):
        (folder / TABLE).write_text("".join([lines[0], bad, *lines[1:]]), "utf-8")
        assert crop(video, folder).code == 1
        assert f"Line 2 of {folder / TABLE} is no line" in messages[-1]


def cut(source: Path, target: Path, start: int, stop: int | None) -> Path:
    target.write_bytes(source.read_bytes()[start:stop])
    return target


def test_broken_footage_ends_in_one_sentence(video, walking, tmp_path, messages, capfd):
    size = video.stat().st_size
    mp4 = write_video(tmp_path / "whole.mp4", walking, "mp4v")
    files = {
        "empty.mp4": b"",
        "text.mp4": b"this is no video\n" * 50,
        "list.mp4": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
        "zeros.avi": bytes(10_000),
        "noise.mp4": np.random.default_rng(0).bytes(100_000),
    }
    paths = [tmp_path / name for name in files]
    for path in paths:
        path.write_bytes(files[path.name])
    paths += [
        cut(video, tmp_path / "head.avi", 0, 300),
        cut(mp4, tmp_path / "no-moov.mp4", 0, mp4.stat().st_size // 2),
        cut(video, tmp_path / "tail.avi", size // 2, None),
    ]
    wrong = bytearray(video.read_bytes())
    wrong = wrong.replace(b"MJPG", b"ZZZZ").replace(b"mjpg", b"ZZZZ")
    (tmp_path / "codec.avi").write_bytes(wrong)
    paths.append(tmp_path / "codec.avi")
    for path in paths:
        messages.clear()
        assert crop(path, tmp_path / "out").code == 1, path
        assert len(messages) == 1, (path, messages)
        assert path.name in messages[0]
    assert "is empty (0 bytes)" in failing(tmp_path / "empty.mp4", tmp_path, messages)
    assert "is no video that can be decoded here" in failing(tmp_path / "text.mp4", tmp_path, messages)
    whole = Path(shutil.copy(video, tmp_path / "head.avi"))  # fetched again, under the same name
    assert crop(whole, tmp_path / "out").code == 0
    told = capfd.readouterr()
    assert told.err == ""  # neither FFmpeg nor OpenCV speaks for itself


def failing(path: Path, tmp_path: Path, messages: list[str]) -> str:
    assert crop(path, tmp_path / "out").code == 1
    return messages[-1]


def test_what_is_no_footage_at_all(tmp_path, messages, video):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").write_text("x")
    Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
    assert "There is no image below" in failing(tmp_path / "none", tmp_path, messages)
    assert "There is no " in failing(tmp_path / "nowhere", tmp_path, messages)
    assert "is one image: name the folder" in failing(tmp_path / "one.png", tmp_path, messages)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    assert crop(video, tmp_path / "full").code == 1
    assert "nothing is overwritten" in messages[-1]
    assert crop(video, tmp_path / "one.png").code == 1
    assert "is a file: name a folder for the crops" in messages[-1]


def test_links_that_lead_nowhere_and_names_that_are_no_text(walking, video, tmp_path, messages):
    """OpenCV ends the whole process where a path is no UTF-8."""
    (tmp_path / "a.mp4").symlink_to("b.mp4")
    (tmp_path / "b.mp4").symlink_to("a.mp4")
    assert "There is no " in failing(tmp_path / "a.mp4", tmp_path, messages)
    folder = write_frames(tmp_path / "cam", walking[:1])
    (folder / "frame1.png").symlink_to("frame1.png")
    (folder / "again").symlink_to(".")
    assert crop(folder, tmp_path / "crops").code == 0
    assert [line["image"] for line in table(tmp_path / "crops") if "frame" in line] == ["frame0.png"]
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.avi"))
    shutil.copy(video, odd)
    assert crop(odd, tmp_path / "out", "--source", "plain").code == 1
    assert "is not UTF-8 text: rename it" in messages[-1]
    messages[-1].encode()  # can be printed


def test_what_is_there_but_no_file(tmp_path, messages):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", Path("/dev/zero")):
        assert "is neither a file nor a folder: save the video" in failing(path, tmp_path, messages)
    for address in ("rtsp://camera/1", "https://example.org/a.mp4"):
        said = failing(address, tmp_path, messages)
        assert said.startswith(f"{address} is an address")
        assert "save it to a file first (ffmpeg -i ADDRESS -c copy FILE.mkv)" in said


def test_crops_below_the_frames_are_refused(walking, tmp_path, messages):
    """They would be frames the next time."""
    folder = write_frames(tmp_path / "cam", walking[:1])
    (tmp_path / "link").symlink_to(folder)
    before = content(folder)
    for out in (folder, folder / "crops", tmp_path / "link" / "crops"):
        assert crop(folder, out).code == 1
        assert "would be taken for frames: name a folder outside of it behind --out" in messages[-1]
    assert content(folder) == before
    assert crop(folder, tmp_path / "cam-crops").code == 0


def test_frames_of_which_not_one_opens_are_tried_again_once_they_are_copied_anew(walking, tmp_path, messages):
    folder = tmp_path / "cam"
    folder.mkdir()
    for number in range(4):
        (folder / f"frame{number}.png").write_text("no image")
    for _ in range(2):
        assert crop(folder, tmp_path / "crops").code == 1
        assert "Not one of 2 frames of cam opens" in messages[-1]
        assert messages[-1].endswith("mend them or copy them again, then run the same command.")
    write_frames(folder, walking[1:4], first=1)
    assert crop(folder, tmp_path / "crops").code == 0
    write_frames(folder, walking[:1])
    lines = [line for line in table(tmp_path / "crops") if "frame" in line]
    assert [(line["frame"], "problem" in line) for line in lines] == [(0, True), (2, False)]
    assert lines[1]["persons"]


def test_other_cameras_do_not_wait_for_one_whose_frames_do_not_open(walking, tmp_path, messages):
    for name in ("a", "b", "c"):
        write_frames(tmp_path / "cams" / name, walking[:1])
    (tmp_path / "cams" / "b" / "frame0.png").write_text("no image")
    ended = crop(tmp_path / "cams", tmp_path / "crops")
    assert ended.code == 1
    assert "Not one of 1 frames of cams/b opens" in messages[-1]
    assert {origin.source for origin in origins_of(tmp_path / "crops" / TABLE).values()} == {
        "cams/a",
        "cams/c",
    }
    assert [line.split(" of ")[1].split(" ")[0] for line in ended.output.splitlines()] == ["cams/a", "cams/c"]


def test_a_video_that_breaks_off_is_cropped_as_far_as_it_goes(walking, tmp_path, messages):
    whole = write_video(tmp_path / "whole.avi", walking * 3)
    broken = cut(whole, tmp_path / "broken.avi", 0, whole.stat().st_size // 2)
    assert crop(broken, tmp_path / "crops").code == 0
    assert any("broken.avi is damaged: " in said for said in messages)
    frames = [line["frame"] for line in table(tmp_path / "crops") if "frame" in line]
    assert 5 < len(frames) < 18
    messages.clear()
    assert crop(broken, tmp_path / "crops").code == 0


def test_damage_in_the_middle_of_a_video_never_ends_in_a_traceback(video, tmp_path):
    rng = np.random.default_rng(3)
    for number in range(12):
        damaged = bytearray(video.read_bytes())
        for place in rng.integers(0, len(damaged), 40):
            damaged[place] = rng.integers(0, 256)
        path = tmp_path / f"damaged{number}.avi"
        path.write_bytes(damaged)
        assert run("crop", "--from", path, "--out", tmp_path / "crops", "--every", 6).code in (0, 1)


def test_frames_that_do_not_open_are_named_and_left_out(walking, tmp_path, messages):
    folder = write_frames(tmp_path / "cam", walking[:6])
    (folder / "frame2.png").write_text("no image")
    assert crop(folder, tmp_path / "crops").code == 0
    assert "A frame does not open" in messages[0]
    assert "1 frames of cam do not open and are left out." in messages[1]
    frames = [line["frame"] for line in table(tmp_path / "crops") if "frame" in line]
    assert frames == [0, 2, 4]


def test_huge_frames_are_refused(walking, video, tmp_path, messages, monkeypatch):
    monkeypatch.setattr(footage, "MOST_PIXELS", 480 * 360 - 1)
    assert "have 480 x 360 px: scale it" in failing(video, tmp_path, messages)
    folder = write_frames(tmp_path / "cam", walking[:1])
    assert crop(folder, tmp_path / "crops").code == 1
    assert "has 172,800 pixels: scale it to at most 172,799" in messages[-1]


def test_without_opencv_videos_name_what_to_install(video, tmp_path, messages, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert crop(video, tmp_path / "crops").code == 1
    assert (
        messages[-1]
        == "Videos are read by OpenCV, which is not installed: pip install -r requirements-search.txt."
    )


@pytest.mark.parametrize(
    "option",
    [
        ["--every", "0"],
        ["--every", "²"],
        ["--fps", "0"],
        ["--fps", "nan"],
        ["--difference", "65"],
        ["--difference", "²"],
        ["--min-height", "-1"],
        ["--score", "nan"],
        ["--score", "high"],
    ],
)
def test_numbers_that_can_not_be_used(video, tmp_path, option, capsys):
    assert crop(video, tmp_path / "crops", *option).code == 2
    told = capsys.readouterr().err
    assert option[0] in told
    assert f"{option[1]!r} is" in told  # in words, not by a function's name
    assert not (tmp_path / "crops").exists()


@pytest.mark.parametrize("option", ["--from", "--out"])
def test_a_name_that_is_empty_is_not_this_folder(video, tmp_path, option, capsys, monkeypatch):
    """As of a variable of the shell that nobody has set."""
    monkeypatch.chdir(write_frames(tmp_path / "cam", [frame()]))
    names = {"--from": str(video), "--out": str(tmp_path / "crops"), option: ""}
    assert run("crop", *[word for pair in names.items() for word in pair]).code == 2
    assert f"argument {option}: an empty name" in capsys.readouterr().err
    assert not (tmp_path / "crops").exists()


def test_a_full_disk_is_told_and_the_command_goes_on_afterwards(
    video, cropped, tmp_path, messages, monkeypatch
):
    saved = Image.Image.save

    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Image.Image, "save", full)
    assert "can't be written (No space left on device): make room" in failing(video, tmp_path, messages)
    monkeypatch.setattr(Image.Image, "save", saved)
    assert crop(video, tmp_path / "out").code == 0
    assert content(tmp_path / "out") == content(cropped)


def test_nobody_is_found_in_an_empty_street(tmp_path):
    path = write_video(tmp_path / "street.avi", [frame()] * 4)
    assert crop(path, tmp_path / "crops").code == 0
    assert not origins_of(tmp_path / "crops" / TABLE)
