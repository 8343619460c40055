"""Frames of a video file or of a folder of images, one after the other, each with its number and time.

Videos are decoded from their beginning, also when work goes on in the middle: seeking lands on another frame in some
containers, and a frame that has another number the second time would be cropped twice. Only frames that are asked for
are converted to pixels.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from data.errors import UserError
from data.folder import SUFFIXES, find_images
from data.images import read_image

MOST_PIXELS = 64_000_000  # of a frame: twice an 8K one, 192 MB as RGB
_ENDS = 1 << 20  # bytes at each end of a video that tell it from another one
_ADDRESS = re.compile(r"([a-z]{2,}:)/+(.*)")  # a Path has made one stroke of two
_MISSING = 0.02  # share of a video's announced frames that may be missing before it is said: containers guess


@dataclass(frozen=True)
class Frame:
    """One frame: its number from 0, seconds from the beginning (None where nobody knows), RGB pixels (H, W, 3) uint8.

    `pixels` is None where an image of a folder does not open; `problem` says why. `image` is its name in a folder.
    """

    number: int
    seconds: float | None
    pixels: np.ndarray | None
    image: str = ""
    problem: str = ""


class Video:
    """A video file.

    `length` is the number of frames that the file announces, 0 where it announces none, and at the end of `frames` how many it has. Raises UserError for what is no
    video that can be decoded here, and for frames beyond `MOST_PIXELS`.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.identity: dict[str, Any] = {
            "kind": "video",
            "bytes": path.stat().st_size,
            "digest": _digest(path),
        }
        capture = self._open()
        self.length = _announced(capture)
        capture.release()
        self.problem = ""  # what was wrong with the end, once it is reached

    def _open(self) -> Any:
        cv2 = opencv("Videos are read by OpenCV")
        if not self.identity["bytes"]:
            raise UserError(f"The video {self.path} is empty (0 bytes): copy it again.")
        # FFmpeg reads play lists, too: one that is called .mp4 must not lead to the network.
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "protocol_whitelist;file"
        capture = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            capture.release()
            raise UserError(
                f"{self.path} is no video that can be decoded here: check that it plays, or convert it "
                "(ffmpeg -i FILE -c:v libx264 NEW.mp4), or name a folder of its frames."
            )
        wide, high = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        if wide * high > MOST_PIXELS:
            capture.release()
            raise UserError(
                f"The frames of {self.path} have {wide:.0f} x {high:.0f} px: scale it to at most {MOST_PIXELS:,} pixels."
            )
        return capture

    def frames(self, every: int, start: int) -> Iterator[Frame]:
        """Every n-th frame from number `start`, which is a multiple of n. Raises UserError where not one can be decoded."""
        import cv2

        capture, number, problem = self._open(), 0, ""
        rate = capture.get(cv2.CAP_PROP_FPS)
        try:
            while capture.grab():
                if number >= start and number % every == 0:
                    seconds = _seconds(capture.get(cv2.CAP_PROP_POS_MSEC), number, rate)
                    decoded, pixels = capture.retrieve()
                    if not decoded or pixels is None:
                        problem = f"frame {number} of {self.path} does not decode"
                    yield Frame(number, seconds, _rgb(pixels) if decoded else None, problem=problem)
                number, problem = number + 1, ""
        except cv2.error as error:
            self.problem = f"frame {number} does not decode ({error.err})"
        finally:
            capture.release()
        if not number:
            raise UserError(f"No frame of {self.path} can be decoded: check that it plays, or convert it.")
        if number < self.length * (1 - _MISSING) and not self.problem:
            self.problem = f"it ends after {number:,} of {self.length:,} announced frames"
        self.length = number


def _announced(capture: Any) -> int:
    import cv2

    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if math.isfinite(count) and 0 < count < 1e12 else 0


def _seconds(milliseconds: float, number: int, rate: float) -> float | None:
    """A frame's own time stamp; where the container has none, its number over the rate."""
    if math.isfinite(milliseconds) and milliseconds > 0:
        return round(milliseconds / 1000, 3)
    if number == 0:
        return 0.0
    return round(number / rate, 3) if math.isfinite(rate) and rate > 0 else None


def _rgb(pixels: np.ndarray) -> np.ndarray:
    """OpenCV's (H, W, 3) in blue, green, red, or (H, W) in grey -> RGB."""
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, ::-1])


class Frames:
    """A folder of images that are the frames of one camera, in the order of their names (2 before 10).

    `rate` is in frames per second; without it nobody knows a frame's time. Frames may be added behind the last one.
    """

    problem = ""

    def __init__(self, folder: Path, name: str, images: list[str], rate: float | None) -> None:
        self.path, self.name, self.images, self.rate = folder, name, sorted(images, key=_natural), rate
        self.identity: dict[str, Any] = {"kind": "frames", "fps": rate}
        self.length = len(images)

    def frames(self, every: int, start: int) -> Iterator[Frame]:
        """Every n-th frame from number `start`; one that does not open comes without pixels."""
        for number in range(start, self.length, every):
            image = self.images[number]
            seconds = None if self.rate is None else round(number / self.rate, 3)
            try:
                yield Frame(number, seconds, _read(self.path / image), image)
            except UserError as error:
                yield Frame(number, seconds, None, image, str(error))


def _read(path: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = image.width * image.height
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        pixels = 0  # read_image says it better
    if pixels > MOST_PIXELS:
        raise UserError(f"The frame {path} has {pixels:,} pixels: scale it to at most {MOST_PIXELS:,}.")
    return np.asarray(read_image(path))


def _natural(name: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.findall(r"[0-9]+|[^0-9]+", name)]


Source = Video | Frames


def sources_of(path: Path, name: str = "", rate: float | None = None) -> list[Source]:
    """What is to be cropped: a video, or one source for every folder with images in it at or below `path`.

    Args:
        path: a video file or a folder.
        name: what the source is called; the name of the file or folder where it is empty. Folders below get theirs behind it.
        rate: of a folder's frames, per second.

    Raises:
        UserError: nothing is there, it is no video, or a name that can't be a folder's.
    """
    _refuse_others(path)
    name = _checked_name(name or os.path.basename(os.path.realpath(path)))
    if path.is_file():
        if path.suffix.lower() in SUFFIXES:
            raise UserError(f"{path} is one image: name the folder that it lies in, or a video.")
        return [Video(path, name)]
    folders: dict[str, list[str]] = {}
    for image in find_images(path, "name a video or a folder of its frames behind --from"):
        folder, _, file = image.rpartition("/")
        folders.setdefault(folder, []).append(file)
    return [
        Frames(path / folder, f"{name}/{folder}" if folder else name, images, rate)
        for folder, images in sorted(folders.items())
    ]


def _refuse_others(path: Path) -> None:
    """Raises UserError for what is neither a file nor a folder, or has a name that OpenCV can't be given."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"The name {str(path)!r} is not UTF-8 text: rename it.") from None
    if path.is_file() or path.is_dir():
        return
    if path.exists():
        raise UserError(f"{path} is neither a file nor a folder: save the video to a file and name that.")
    address = _ADDRESS.match(str(path))
    if address:
        raise UserError(
            f"{address[1]}//{address[2]} is an address, and only files are read: save it to a file first "
            "(ffmpeg -i ADDRESS -c copy FILE.mkv)."
        )
    raise UserError(f"There is no {path}: name a video or a folder of its frames behind --from.")


def _checked_name(name: str) -> str:
    if not name or name.startswith(".") or "/" in name or not name.isprintable() or len(name.encode()) > 200:
        raise UserError(f"{name!r} can't name a source: give a plain name by --source NAME.")
    return name


def opencv(what: str) -> ModuleType:
    """OpenCV, which training machines do without; UserError, which begins with `what`, where it is not installed."""
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = (
        "-8"  # AV_LOG_QUIET: what is wrong with a video is said in a sentence
    )
    try:
        import cv2
    except ModuleNotFoundError as error:
        if error.name != "cv2":
            raise
        raise UserError(f"{what}, which is not installed: pip install -r requirements-search.txt.") from None
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def _digest(path: Path) -> str:
    """Of both ends of a file: enough to tell videos apart, and no wait for a long one."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        digest.update(file.read(_ENDS))
        file.seek(max(0, path.stat().st_size - _ENDS))
        digest.update(file.read(_ENDS))
    return digest.hexdigest()
