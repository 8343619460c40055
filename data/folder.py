"""A bare folder of person crops: no annotation, no captions, no identities."""

from __future__ import annotations

import os
from pathlib import Path

from data.errors import UserError
from data.records import NO_IDENTITY, PedesDataset, Record, leaves

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_DEBRIS = ("__MACOSX", "@eaDir")


class Folder:
    """Any directory tree of person crops (jpg, jpeg, png, webp, bmp in any case), the case unsupervised methods are for.

    All images are `.train` with identity -1 and no captions, sorted by path; `.val` and `.test` are empty. Hidden files
    and folders and what macOS and NAS boxes leave behind are skipped. Linked folders are not followed.
    """

    name = "folder"

    @classmethod
    def load(cls, root: str | os.PathLike[str]) -> PedesDataset:
        """Read the folder; UserError if it does not exist, holds no image, or holds links that leave it."""
        directory = Path(root)
        images = find_images(directory, "set dataset.root to your folder of person crops")
        train = [Record(image, NO_IDENTITY, ()) for image in images]
        return PedesDataset(name=cls.name, image_root=directory, train=train, val=[], test=[])


def find_images(directory: Path, remedy: str) -> list[str]:
    """The posix paths of all images below a folder, sorted.

    Raises UserError, which ends with the `remedy`, for a folder that is not there or holds no image; and for links to
    images outside of it.
    """
    if not directory.is_dir():
        problem = "is a file, not a folder" if directory.exists() else "does not exist"
        raise UserError(f"The image folder {directory} {problem}: {remedy}.")
    images, outside = _scan(directory)
    if outside:
        raise UserError(
            f"{len(outside):,} image(s) in {directory} are links that leave it, first {outside[0]}: put copies "
            f"(or hard links) there instead."
        )
    if not images:
        raise UserError(f"There is no image below {directory} (looked for {', '.join(SUFFIXES)}): {remedy}.")
    return sorted(images)


def _scan(directory: Path) -> tuple[list[str], list[str]]:
    """The posix paths of all images below `directory`, and those that are links to the outside."""
    images, outside, waiting = [], [], [""]
    while waiting:
        prefix = waiting.pop()
        try:
            entries = list(os.scandir(directory / prefix))
        except OSError as error:
            raise UserError(
                f"{directory / prefix} cannot be listed ({error.strerror}): check its permissions."
            ) from None
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _DEBRIS:
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(f"{prefix}{entry.name}/")
            elif entry.name.lower().endswith(SUFFIXES) and _is_file(entry):
                image = prefix + entry.name
                _refuse_unwritable_name(directory, image)
                (outside if entry.is_symlink() and leaves(entry.path, directory) else images).append(image)
    return images, sorted(outside)


def _is_file(entry: os.DirEntry[str]) -> bool:
    """As `entry.is_file()`, which takes a link to nowhere for none and raises for one that leads round in circles."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _refuse_unwritable_name(directory: Path, image: str) -> None:
    """Captions are stored by image path as UTF-8 text: a name that is no text would fail hours later."""
    try:
        image.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(
            f"An image name in {directory} is not UTF-8 text ({image!r}): rename the file."
        ) from None
