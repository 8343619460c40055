"""Reading an annotation file: find it, parse it, and refuse what is damaged with one sentence.

The three datasets share this reader; what differs (names, keys, published counts) is in one class per dataset.
Nothing here touches an image file: checking 40,000 of them belongs to `data.validate`.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, ClassVar

from data.errors import UserError
from data.records import SPLITS, LeftOut, PedesDataset, Record, Statistics, leaves

_SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_DRIVE = re.compile(r"[A-Za-z]:")
_LARGEST_IDENTITY = 2**63 - 1


class Annotation:
    """An annotation format; subclasses fill in the class attributes.

    `folder` is the dataset's directory, `files` the accepted names of its json in the order they are tried,
    `image_key` the record key that holds the image path, `source` where to ask for the data, `terms` under which it is given.
    """

    name: ClassVar[str]
    folder: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    image_key: ClassVar[str]
    source: ClassVar[str]
    terms: ClassVar[str]
    expected: ClassVar[Statistics | None]  # None: nobody published any
    images: ClassVar[str] = "imgs"

    @classmethod
    def load(cls, root: str | os.PathLike[str]) -> PedesDataset:
        """Read the dataset below `root` (the folder that holds `cls.folder`, or that folder itself).

        Raises UserError when the folder or the json is missing or named otherwise, when the json is damaged, and when
        an image path leaves the image folder.
        """
        directory = cls.find_folder(Path(root))
        annotation = cls.find_annotation(directory)
        items = read_json_list(annotation)
        image_root = directory / cls.images
        reader = _RecordReader(annotation, cls.image_key)
        for position, item in enumerate(items):
            reader.add(position, item)
        splits, left_out = reader.finish()
        _refuse_linked_folders(splits, image_root)
        return PedesDataset(
            name=cls.name,
            image_root=image_root,
            expected=cls.expected,
            annotation=annotation,
            left_out=left_out,
            **splits,
        )

    @classmethod
    def find_folder(cls, root: Path) -> Path:
        """The dataset folder: `root/FOLDER` (any case, - or _), or `root` itself if it holds the json or the images."""
        if not root.is_dir():
            problem = "is a file, not a folder" if root.exists() else "does not exist"
            raise UserError(f"The dataset root {root} {problem}. {cls._remedy(root)}")
        if any((root / name).is_file() for name in cls.files):
            return root
        entries = _listing(root)
        inside = next((entry for entry in entries if entry.is_dir() and _same(entry.name, cls.folder)), None)
        if inside is not None:
            return inside
        if _same(root.resolve().name, cls.folder) or (root / cls.images).is_dir():
            return root
        found = ", ".join(entry.name for entry in entries[:8]) or "nothing"
        raise UserError(
            f"There is no folder {cls.folder} in {root} (found there: {found}). {cls._remedy(root)}"
        )

    @classmethod
    def find_annotation(cls, directory: Path) -> Path:
        """The json of the dataset; UserError lists the names that were tried and the json files that are there."""
        for name in cls.files:
            if (directory / name).is_file():
                return directory / name
        entries = [
            entry for entry in _listing(directory) if entry.suffix.lower() == ".json" and entry.is_file()
        ]
        for entry in entries:
            if entry.name.lower() in {name.lower() for name in cls.files}:
                return entry
        found = "; ".join(cls._describe(entry) for entry in entries[:5]) or "no json file at all"
        raise UserError(
            f"The annotation of {cls.folder} is missing in {directory}: tried {' and '.join(cls.files)}, found {found}. "
            f"It comes with the images: {cls._how_to_get_it()}."
        )

    @classmethod
    def _describe(cls, candidate: Path) -> str:
        """Tell whether a json of another name is this annotation, so that the user knows whether to rename it."""
        needed = {"id", "split", "captions", cls.image_key}
        try:
            items = read_json_list(candidate)
        except UserError:
            return f"{candidate.name} (not an annotation)"
        lacking = sorted(needed - set(items[0])) if isinstance(items[0], dict) else sorted(needed)
        if lacking:
            return f"{candidate.name} (not this annotation: its records have no {', '.join(lacking)})"
        return (
            f"{candidate.name} (it has the right keys: rename it to {cls.files[0]} if it is the annotation)"
        )

    @classmethod
    def _how_to_get_it(cls) -> str:
        return f"ask for the data at {cls.source}"

    @classmethod
    def _remedy(cls, root: Path) -> str:
        layout = f"{cls.folder}/{cls.files[0]} and {cls.folder}/{cls.images}/"
        return (
            f"Ask for the data at {cls.source} and put {layout} there, or set dataset.root to where they lie."
        )


def read_json_list(path: Path) -> list[Any]:
    """Parse a json file that must hold a list with at least one element; UserError says what is wrong with it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): check the file and its permissions."
        ) from None
    again = "Copy or download it again."
    try:
        items = json.loads(content)
    except json.JSONDecodeError as error:
        broken_off = error.pos >= len(error.doc.rstrip()) - 1 or error.msg.startswith("Unterminated string")
        if not content.strip():
            problem = "is empty"
        elif broken_off:
            problem = f"breaks off after {len(content):,} bytes"
        else:
            problem = f"is not JSON (line {error.lineno}, column {error.colno}: {error.msg})"
        raise UserError(f"{path} {problem}. {again}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start:,}). {again}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} holds a number or a nesting that no annotation has. {again}") from None
    if not isinstance(items, list):
        raise UserError(f"{path} must hold a list of records, not {_kind(items)}: is it the right file?")
    if not items:
        raise UserError(f"{path} holds an empty list. {again}")
    return items


def image_path(text: object) -> str:
    """A record's image path as a posix path below the image folder.

    Windows separators become slashes, `.` parts and doubled slashes go. Raises ValueError for what is no path, and for
    absolute paths and `..`, which could leave the image folder.
    """
    if not isinstance(text, str) or not text.strip().isprintable():
        raise ValueError("an image path that is not a readable name")
    posix = text.strip().replace("\\", "/")
    if posix.startswith("/") or _DRIVE.match(posix):
        raise ValueError("an absolute image path (it would leave the dataset root)")
    parts = [part for part in posix.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError("an image path with '..' (it would leave the dataset root)")
    if not parts:
        raise ValueError("an empty image path")
    return "/".join(parts)


class _RecordReader:
    """Turns json objects into records; collects damage, so that one sentence can say how much there is of it."""

    def __init__(self, annotation: Path, image_key: str) -> None:
        self.annotation = annotation
        self.image_key = image_key
        self.problems: dict[str, list[int]] = defaultdict(list)
        self.merged: dict[tuple[str, int, str], tuple[str, ...]] = {}
        self.empty_captions = 0
        self.duplicates = 0

    def add(self, position: int, item: object) -> None:
        """Read one element of the json list."""
        try:
            split, image, identity, captions = self._parse(item)
        except ValueError as error:
            self.problems[str(error)].append(position)
            return
        key = (image, identity, split)
        if key in self.merged:
            # The file lists the image twice, or has one record per sentence: keep each sentence once.
            self.duplicates += 1
            known = self.merged[key]
            captions = known + tuple(caption for caption in captions if caption not in known)
        self.merged[key] = captions

    def _parse(self, item: object) -> tuple[str, str, int, tuple[str, ...]]:
        if not isinstance(item, dict):
            raise ValueError(f"{_kind(item)} instead of an object")
        lacking = [key for key in ("id", "split", "captions", self.image_key) if key not in item]
        if lacking:
            raise ValueError(f"no key {' and '.join(repr(key) for key in lacking)}")
        name = item["split"]
        split = _SPLIT_NAMES.get(name.strip().lower()) if isinstance(name, str) else None
        if split is None:
            raise ValueError(f"the split {str(name)[:40]!r} (known are {', '.join(SPLITS)})")
        return (
            split,
            image_path(item[self.image_key]),
            _identity(item["id"]),
            self._captions(item["captions"]),
        )

    def _captions(self, value: object) -> tuple[str, ...]:
        sentences = [value] if isinstance(value, str) or value is None else value
        if not isinstance(sentences, list) or not all(isinstance(s, str) or s is None for s in sentences):
            raise ValueError("captions that are not a list of sentences")
        kept = tuple(text for text in map(_sentence, sentences) if text)
        self.empty_captions += len(sentences) - len(kept)
        return kept

    def finish(self) -> tuple[dict[str, list[Record]], LeftOut]:
        """The records per split, in the order of the file; UserError if any element was damaged."""
        if self.problems:
            raise UserError(
                f"{self.annotation} is damaged: {self._damage()}. Mend these records, or get the file again."
            )
        splits: dict[str, list[Record]] = {name: [] for name in SPLITS}
        seen: dict[str, int] = defaultdict(int)
        for (image, identity, split), captions in self.merged.items():
            splits[split].append(Record(image, identity, captions))
            seen[image] += 1
        bare = {name: tuple(r.image for r in records if not r.captions) for name, records in splits.items()}
        left_out = LeftOut(
            empty_captions=self.empty_captions,
            uncaptioned={name: images for name, images in bare.items() if images},
            duplicates=self.duplicates,
            conflicts=tuple(image for image, count in seen.items() if count > 1),
        )
        return splits, left_out

    def _damage(self) -> str:
        parts = []
        for problem, positions in sorted(self.problems.items(), key=lambda pair: -len(pair[1]))[:3]:
            where = f"record {positions[0]}"
            parts.append(f"{len(positions):,} record(s) with {problem}, first {where} (counting from 0)")
        more = len(self.problems) - len(parts)
        return "; ".join(parts) + (f"; and {more} more kinds of damage" if more else "")


def _identity(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,19}\s*", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST_IDENTITY:
        raise ValueError("an id that is not a whole number from 0 on")
    return value


def _sentence(text: str | None) -> str:
    """Stripped; lone surrogates (legal in json, not in UTF-8) become question marks so that results can be written."""
    stripped = (text or "").strip()
    return stripped if stripped.isascii() else stripped.encode("utf-8", "replace").decode("utf-8")


def _kind(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true/false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")


def _same(name: str, folder: str) -> bool:
    return name.lower().replace("_", "-") == folder.lower()


def _listing(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError as error:
        raise UserError(f"{directory} cannot be listed ({error.strerror}): check its permissions.") from None


def _refuse_linked_folders(splits: dict[str, list[Record]], image_root: Path) -> None:
    """Refuse folders below `image_root` that are links to the outside; one look per folder, none per file."""
    folders = {record.image.rpartition("/")[0] for records in splits.values() for record in records}
    for folder in sorted(folders):
        try:
            outside = leaves(image_root / folder, image_root)
        except (OSError, ValueError):
            outside = False  # a name that the file system does not take: the validator reports it as missing
        if outside:
            raise UserError(
                f"{image_root / folder} is a link that leaves {image_root}: move the images there, or link the whole "
                f"{image_root.name} folder instead."
            )
