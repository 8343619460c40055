"""Decoded and resized images in one memory-mapped file, made once and shared by all processes of a machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.decoding import Progress, write_images
from data.errors import UserError
from data.images import MEAN_COLOUR, Interpolation, check_interpolation, decoders, read_image, resize

_PIXEL_VERSION = 2  # raise it when the pixels or their order in the file change: old caches are then rebuilt


class Unreadable(NamedTuple):
    """An image that did not open: its row in the cache, its file, and why."""

    index: int
    path: str
    reason: str


def read_batch(
    paths: Sequence[str | os.PathLike[str]],
    image_size: tuple[int, int],
    *,
    interpolation: Interpolation = "bilinear",
    skip_unreadable: bool = False,
) -> NDArray[np.uint8]:
    """Decode and resize images from disk: (B, H, W, 3) uint8, bit by bit what the cache holds.

    Raises UserError for the first image that does not open, unless `skip_unreadable`: then it is the mean colour.
    """
    batch = np.empty((len(paths), *image_size, 3), dtype=np.uint8)
    for row, path in zip(batch, paths, strict=True):
        try:
            row[:] = resize(read_image(path), image_size, interpolation)
        except UserError:
            if not skip_unreadable:
                raise
            row[:] = MEAN_COLOUR
    return batch


@dataclass(frozen=True)
class ImageCache:
    """The images of a list of paths as `array`, a read-only uint8 memory map (N, H, W, 3), in the order of the list.

    In memory and in the file a picture's three colour planes follow each other, (N, 3, H, W), which is how an image encoder
    takes them: `array` is a view of that, and `array.transpose(0, 3, 1, 2)` copies nothing.

    `unreadable` names the images that did not open and are filled with the mean colour; `path` is the file.

    The file's name holds a digest of every path, size and modification time, and of the versions of the libraries that decode,
    which are named beside it; a finished file appears under that name at once (rename), so a changed image or a Pillow of another
    version can't meet old pixels, and neither a killed builder nor two builders at
    once leave a half-made cache behind. The lock only saves the second builder the work; it is the kernel's, so it
    ends with its owner.
    """

    array: NDArray[np.uint8]
    unreadable: tuple[Unreadable, ...]
    path: Path

    @classmethod
    def open(
        cls,
        paths: Sequence[str | os.PathLike[str]],
        image_size: tuple[int, int],
        directory: str | os.PathLike[str],
        *,
        interpolation: Interpolation = "bilinear",
        workers: int | None = None,
        skip_unreadable: bool = False,
        progress: Progress | None = None,
    ) -> ImageCache:
        """Open the cache of these images in `directory`, after making it if it is missing or out of date.

        image_size is (H, W). `workers` processes decode (None: as many as pay off); `progress(done, total)` is called
        along the way. A cache of the same list that is out of date is removed.
        Raises UserError if images do not open (how many, which first) unless `skip_unreadable`, and when the disk has no
        room; ValueError for an empty list or another interpolation than "bilinear" and "bicubic".
        """
        if not paths:
            raise ValueError("There are no images to cache: give at least one path.")
        files = [os.path.abspath(path) for path in paths]
        directory = Path(directory)
        key, digest = _key(files, image_size, interpolation), _digest(files)
        target = directory / f"{key}-{digest}.npy"
        cache = cls._read(target, len(files), image_size)
        if cache is None:
            with _writing(directory), _lock(directory / f"{key}.lock") as alone:
                cache = cls._read(target, len(files), image_size)
                if cache is None:
                    _remove_leftovers(directory, key, alone)
                    _build(files, image_size, interpolation, target, workers, progress)
                    cache = cls._read(target, len(files), image_size)
        if cache is None:
            raise UserError(f"{target} vanished while it was made: leave {directory} alone and start again.")
        if cache.unreadable and not skip_unreadable:
            raise UserError(_complaint(cache.unreadable, len(files)))
        return cache

    @classmethod
    def _read(cls, target: Path, count: int, image_size: tuple[int, int]) -> ImageCache | None:
        try:
            array = np.load(target, mmap_mode="r")
            notes = json.loads(_notes(target).read_text("utf-8"))
        except (OSError, ValueError, EOFError):
            return None
        if array.shape != (count, 3, *image_size) or array.dtype != np.uint8:
            return None
        return cls(
            array.transpose(0, 2, 3, 1), tuple(Unreadable(*note) for note in notes["unreadable"]), target
        )


def _key(files: list[str], image_size: tuple[int, int], interpolation: Interpolation) -> str:
    """Names the list of images, their size and, where it is not bilinear, how they are resized.

    It stays when an image changes, and begins no other key: what is out of date is found by it.
    """
    names = hashlib.blake2b("\0".join(files).encode("utf-8", "surrogatepass"), digest_size=8)
    check_interpolation(interpolation)  # a wrong one is told here and not by a process that decodes
    kind = "" if interpolation == "bilinear" else f"{interpolation}-"
    return f"images-{image_size[0]}x{image_size[1]}-{kind}{names.hexdigest()}"


def _digest(files: list[str]) -> str:
    """Names the state of the files, size and modification time of each, and what decodes them; a missing file has a state too."""
    digest = hashlib.blake2b(f"{_PIXEL_VERSION} {decoders()}".encode(), digest_size=8)
    for file in files:
        try:
            status = os.stat(file)
            state = f"{status.st_size} {status.st_mtime_ns}"
        except (OSError, ValueError):
            state = "missing"
        digest.update(f"\n{state}".encode())
    return digest.hexdigest()


def _notes(target: Path) -> Path:
    return target.with_suffix(".json")


def _build(
    files: list[str],
    image_size: tuple[int, int],
    interpolation: Interpolation,
    target: Path,
    workers: int | None,
    progress: Progress | None,
) -> None:
    shape = (len(files), 3, *image_size)
    needed, free = int(np.prod(shape, dtype=np.int64)), shutil.disk_usage(target.parent).free
    if needed > free:
        raise UserError(
            f"The image cache needs {needed / 1e9:.1f} GB in {target.parent}, where {free / 1e9:.1f} GB are free: "
            f"make room, choose another folder, or switch the cache off."
        )
    temporary = target.parent / f"{target.stem}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        offset = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape).offset
        bad = write_images(
            files,
            image_size,
            temporary,
            offset,
            interpolation=interpolation,
            workers=workers,
            progress=progress,
        )
        notes = {
            "unreadable": [[index, files[index], reason] for index, reason in bad],
            "decoders": decoders(),
        }
        written = temporary.with_suffix(".notes.tmp")
        written.write_text(json.dumps(notes), "utf-8")
        # The notes first: where the array is, they are.
        os.replace(written, _notes(target))
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Say in a sentence why the cache folder can't be written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(
            f"The image cache in {directory} can't be written ({error.strerror}): choose another folder or make room."
        ) from None


def _remove_leftovers(directory: Path, key: str, alone: bool) -> None:
    """Remove outdated caches of the same list and, if no one else can be building, what killed builders left."""
    for file in directory.glob(f"{key}-*"):
        if alone or file.suffix != ".tmp":
            file.unlink(missing_ok=True)


def _complaint(unreadable: tuple[Unreadable, ...], total: int) -> str:
    first = unreadable[0].reason.rstrip(".")
    return (
        f"{len(unreadable):,} of {total:,} images cannot be read. {first}. Replace them, remove their records, "
        f"or set dataset.skip_unreadable; `python -m data.validate` lists what is wrong with a dataset."
    )


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Hold a lock file; yields whether it is really held (some network file systems and Windows have no flock)."""
    try:
        import fcntl
    except ImportError:
        yield False
        return
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            held = True
        except OSError:
            held = False
        yield held
