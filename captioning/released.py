"""Caption files that authors have released, read into records of our own.

| file | a list of records with keys |
|---|---|
| PSPD stage A (`cuhk_gen_pre_caption.json`, ...) | `image_path gen_base_caption gen_caption caption id` |
| PSPD stage C (`cuhk_gen_caption.json`, ...) | the same and `gpt_gen_caption`: "Upper: ... Lower: ..." |
| TSN train (`cuhk_qwen_gen_captions.json`, ...) | `id image_path captions generated_text` |
| TSN test (`cuhk_test_qwen_gen_captions.json`, ...) | `split id image_path img_gen_text captions generated_text` |

`caption`, `captions` (written by people) and `id` are never looked at: nothing of them can reach a training run.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captioning import attributes, prompts
from captioning.gender import gender_of
from captioning.replies import is_refusal, tidy
from data.errors import UserError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}


@dataclass(frozen=True)
class Kind:
    """A released format: how it is recognised (`key`), and the file of ours that it becomes (`stem`)."""

    title: str
    key: str
    stem: str


# The first whose key is in the records: each format has the keys of the ones below it, or none of theirs.
KINDS = (
    Kind("PSPD stage C", "gpt_gen_caption", "captions"),
    Kind("PSPD stage A", "gen_base_caption", "pre_captions"),
    Kind("TSN test (gallery images and queries in one fixed style)", "img_gen_text", "fixed_gallery"),
    Kind("TSN train (one fixed style)", "generated_text", "fixed_captions"),
)


@dataclass
class Imported:
    """A released file beside the images on disk.

    Attributes:
        records: image -> fields for the store (captions of the kind's own format).
        unmatched: image paths of the file that name no image on disk.
        ambiguous: image paths that name several.
        unusable: images whose record has no caption, or a refusal.
        repeated: records of an image that had one already.
        without: images on disk that got no caption, sorted.
    """

    kind: Kind
    total: int = 0
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    repeated: int = 0
    without: list[str] = field(default_factory=list)


class ImageIndex:
    """The images below a folder, found by the paths other machines gave them."""

    def __init__(self, image_root: Path) -> None:
        self.images = sorted(_images_below(image_root))
        if not self.images:
            raise UserError(f"There are no images below {image_root}; name the dataset's imgs/ folder.")
        self._known = set(self.images)
        self._by_name: dict[str, list[str]] = {}
        for image in self.images:
            self._by_name.setdefault(image.rpartition("/")[2], []).append(image)

    def find(self, path: str) -> list[str]:
        """The images that `path` may mean: one if it is clear, none or several if not.

        The longest suffix of `path` that is a path below the folder. Failing that, the images whose own path ends
        with the whole of `path` (a file that leaves the camera folder out).
        """
        parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
        for start in range(len(parts)):
            suffix = "/".join(parts[start:])
            if suffix in self._known:
                return [suffix]
        whole = "/".join(parts)
        same_name = self._by_name.get(parts[-1], []) if parts else []
        return [image for image in same_name if image.endswith(f"/{whole}")]


def read_released(path: str | Path, image_root: str | Path) -> Imported:
    """Read a released caption file and match it with the images below `image_root`.

    Raises:
        UserError: the file is missing or of no known format, there are no images, or no path matches any.
    """
    raw = _read(Path(path))
    kind = _kind_of(raw, Path(path))
    index = ImageIndex(Path(image_root))
    imported = Imported(kind, total=len(raw))
    for record in raw:
        _take(record, index, imported)
    if not imported.records and not imported.unusable:
        example = imported.unmatched[0] if imported.unmatched else "none"
        raise UserError(
            f"No image path of {path} (such as {example!r}) matches an image below {image_root} (such as "
            f"{index.images[0]!r}): is it the file of another dataset?"
        )
    imported.without = [image for image in index.images if image not in imported.records]
    return imported


def _take(record: Mapping[str, Any], index: ImageIndex, imported: Imported) -> None:
    path = record.get("image_path")
    path = path if isinstance(path, str) else ""
    found = index.find(path)
    if len(found) != 1:
        (imported.ambiguous if found else imported.unmatched).append(path)
        return
    if found[0] in imported.records:
        imported.repeated += 1
        return
    fields = _fields(record, imported.kind)
    if fields is None:
        imported.unusable.append(found[0])
    else:
        imported.records[found[0]] = fields


def _fields(record: Mapping[str, Any], kind: Kind) -> dict[str, Any] | None:
    """The record's generated texts as fields of our formats, or None if one is missing or a refusal."""
    if kind.stem in ("pre_captions", "captions"):
        base, styled = _text(record.get("gen_base_caption")), _text(record.get("gen_caption"))
        if not base or not styled:
            return None
        texts: dict[str, Any] = {"base_caption": base, "styled_caption": styled}
        if kind.stem == "pre_captions":
            return {**texts, "gender": gender_of(base), "opening": opening_of(styled), "prompts": {}}
        return {**texts, **_groups(styled, record.get("gpt_gen_caption"))}
    fixed = _text(record.get("img_gen_text" if kind.stem == "fixed_gallery" else "generated_text"))
    if not fixed:
        return None
    fields: dict[str, Any] = {"fixed_caption": fixed}
    if kind.stem == "fixed_gallery":
        # By position: the n-th belongs to the image's n-th query, so that an unusable one keeps its place as "".
        rewritten = record.get("generated_text")
        fields["queries"] = [_text(text) for text in rewritten] if isinstance(rewritten, list) else []
    return fields


def _groups(caption: str, reply: object) -> dict[str, list[str]]:
    """Upper and lower words from the released grouping, by rules where there is none or a malformed one."""
    parsed = attributes.parse_reply(reply) if isinstance(reply, str) else None
    upper, lower = parsed if parsed is not None and any(parsed) else attributes.group(caption)
    return {"upper": list(upper), "lower": list(lower)}


_OPENING = re.compile(
    r"^(?:[\w'-]+ ){1,5}?(?:wearing|wears|has on|has|dressed in|clad in|in|with)\b", re.IGNORECASE
)


def opening_of(caption: str) -> str:
    """The words a styled caption opens with, up to its first "wearing", "wears", "in", ...; "" without one."""
    known = [opening for group in prompts.OPENINGS_STAGE_A.values() for opening in group]
    for opening in sorted(known, key=len, reverse=True):
        if caption.lower().startswith(opening + " "):
            return opening
    found = _OPENING.match(caption)
    return found[0].lower() if found else ""


def _text(value: object) -> str:
    if not isinstance(value, str) or is_refusal(value):
        return ""
    return tidy(value)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        records = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): fetch it again.") from None
    if (
        not isinstance(records, list)
        or not records
        or not all(isinstance(record, dict) for record in records)
    ):
        raise UserError(f"{path} holds no list of records, as every released caption file does.")
    return records


def _kind_of(records: Iterable[Mapping[str, Any]], path: Path) -> Kind:
    keys = {key for record in records for key in record}
    for kind in KINDS:
        if kind.key in keys:
            return kind
    raise UserError(
        f"{path} is no released caption file that is known here: its records have the keys "
        f"{', '.join(sorted(keys))}, and none of {', '.join(kind.key for kind in KINDS)}."
    )


def _images_below(root: Path) -> Iterable[str]:
    if not root.is_dir():
        raise UserError(f"There is no image folder {root}.")
    for folder, _, files in os.walk(root, followlinks=True):
        for name in files:
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(folder, name).relative_to(root).as_posix()
