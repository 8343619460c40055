"""The caption files that stages hand to each other, written atomically and read with clear errors.

`pre_captions.json` (stage A) is a list of `{"image", "base_caption", "styled_caption", "gender", "opening",
"prompts", "model"}`; `captions.json` (stage C) is a list of `{"image", "base_caption", "styled_caption", "upper",
"lower"}`; `fixed_captions.json` (stage A, for methods that ask for it) is a list of `{"image", "fixed_caption"}`. `image` is
the path relative to the dataset's image root, with forward slashes. None holds an identity or a caption written by a
person.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data.errors import UserError

PRE_CAPTIONS = "pre_captions.json"
CAPTIONS = "captions.json"
FIXED_CAPTIONS = "fixed_captions.json"


class CaptionFileError(UserError):
    """A caption file is missing or malformed; the message says where and what to do."""


@dataclass(frozen=True)
class PreCaption:
    """Stage A's captions of one image; `prompts` maps "base" and "styled" to what the model was asked."""

    image: str
    base_caption: str
    styled_caption: str
    gender: str = "unknown"
    opening: str = ""
    prompts: Mapping[str, str] = field(default_factory=dict)
    model: str = ""


@dataclass(frozen=True)
class Caption:
    """Stage C's captions of one image, with the styled caption's clothing words by where they are worn."""

    image: str
    base_caption: str
    styled_caption: str
    upper: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()


@dataclass(frozen=True)
class FixedCaption:
    """The text of one image in the fixed style."""

    image: str
    fixed_caption: str


def store_beside(path: str | Path) -> Path:
    """The caption store that belongs to a caption file: the same name with `.jsonl`."""
    return Path(path).with_suffix(".jsonl")


def write_pre_captions(path: str | Path, captions: Iterable[PreCaption]) -> int:
    """Write `pre_captions.json` (temporary name, then rename); returns the number of images."""
    return write_json(path, [asdict(caption) for caption in captions])


def write_captions(path: str | Path, captions: Iterable[Caption]) -> int:
    """Write `captions.json` (temporary name, then rename); returns the number of images."""
    return write_json(path, [asdict(caption) for caption in captions])


def write_fixed_captions(path: str | Path, captions: Iterable[FixedCaption]) -> int:
    """Write `fixed_captions.json` (temporary name, then rename); returns the number of images."""
    return write_json(path, [asdict(caption) for caption in captions])


def load_pre_captions(path: str | Path) -> dict[str, PreCaption]:
    """Read `pre_captions.json` as image -> `PreCaption`, in the file's order.

    Raises:
        CaptionFileError: the file is missing, is no such file, or a record lacks an image or a caption.
    """
    found: dict[str, PreCaption] = {}
    for position, record in enumerate(_read_list(path, "gen_pre_train_text.py")):
        texts = _texts(path, position, record, ("image", "base_caption", "styled_caption"))
        _add(path, found, texts["image"])
        found[texts["image"]] = PreCaption(
            **texts,
            gender=str(record.get("gender", "unknown")),
            opening=str(record.get("opening", "")),
            prompts=_prompts(path, position, record),
            model=str(record.get("model", "")),
        )
    return found


def load_captions(path: str | Path) -> dict[str, Caption]:
    """Read `captions.json` as image -> `Caption`, in the file's order.

    Raises:
        CaptionFileError: the file is missing, is no such file, or a record lacks an image or a caption.
    """
    found: dict[str, Caption] = {}
    for position, record in enumerate(_read_list(path, "gen_text.py")):
        texts = _texts(path, position, record, ("image", "base_caption", "styled_caption"))
        _add(path, found, texts["image"])
        groups = {name: _words(path, position, record, name) for name in ("upper", "lower")}
        found[texts["image"]] = Caption(**texts, **groups)
    return found


def load_fixed_captions(path: str | Path) -> dict[str, str]:
    """Read `fixed_captions.json` as image -> text, in the file's order.

    Raises:
        CaptionFileError: the file is missing, is no such file, or a record lacks an image or its text.
    """
    found: dict[str, str] = {}
    for position, record in enumerate(_read_list(path, "gen_pre_train_text.py")):
        texts = _texts(path, position, record, ("image", "fixed_caption"))
        _add(path, found, texts["image"])
        found[texts["image"]] = texts["fixed_caption"]
    return found


def both_captions(records: Mapping[str, PreCaption | Caption], images: Iterable[str]) -> list[str]:
    """The base and the styled caption of each image, one after the other: 2 N texts."""
    return [text for image in images for text in (records[image].base_caption, records[image].styled_caption)]


def write_json(path: str | Path, records: list[dict[str, Any]]) -> int:
    """Write a list of records to a temporary name, force it to disk, rename it; returns their number."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(records, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return len(records)


def _read_list(path: str | Path, maker: str) -> list[dict[str, Any]]:
    path = Path(path)
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CaptionFileError(f"There is no caption file {path}; {maker} makes it.") from None
    except OSError as error:
        raise CaptionFileError(f"Cannot read the caption file {path}: {error.strerror}.") from None
    except ValueError as error:
        raise CaptionFileError(f"{path} is not valid JSON ({error}); make it again with {maker}.") from None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise CaptionFileError(f"{path} should hold a list of records; make it again with {maker}.")
    return records


def _texts(path: str | Path, position: int, record: dict[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    texts = {}
    for name in names:
        value = record.get(name)
        if not isinstance(value, str) or not value.strip():
            raise CaptionFileError(
                f"Record {position} of {path} has no {name!r}; files of other projects are taken in by "
                "`python -m captioning.import_released`."
            )
        texts[name] = value
    return texts


def _words(path: str | Path, position: int, record: dict[str, Any], name: str) -> tuple[str, ...]:
    words = record.get(name, [])
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise CaptionFileError(f"{name!r} in record {position} of {path} should be a list of words.")
    return tuple(words)


def _prompts(path: str | Path, position: int, record: dict[str, Any]) -> dict[str, str]:
    prompts = record.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise CaptionFileError(
            f"'prompts' in record {position} of {path} should map names to what the model was asked."
        )
    return prompts


def _add(path: str | Path, found: Mapping[str, object], image: str) -> None:
    if image in found:
        raise CaptionFileError(f"{path} has two records of {image}; keep one.")
