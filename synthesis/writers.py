"""The three benchmark formats: folder names, image paths and annotation records as their authors release them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from synthesis.drawn.captions import LONG, SHORT, tokens


@dataclass(frozen=True)
class Entry:
    """One image of the set: path below `imgs/`, identity, split ("train", "val", "test") and captions."""

    path: str
    identity: int
    split: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Format:
    """How a benchmark is laid out on disk.

    `path(identity, camera, index)` is the image's path below `imgs/`; `record(entry)` its annotation; `like` the number
    of identities per split and of images per identity that come close to the real set.
    """

    folder: str
    annotation: str
    captions: int
    words: tuple[int, int]
    first_identity: int
    has_val: bool
    path: Callable[[int, str, int], str]
    record: Callable[[Entry], dict]
    like: dict[str, int]


def _tokenised_record(entry: Entry) -> dict:
    return {
        "split": entry.split,
        "captions": list(entry.captions),
        "file_path": entry.path,
        "processed_tokens": [tokens(caption) for caption in entry.captions],
        "id": entry.identity,
    }


def _rstp_record(entry: Entry) -> dict:
    return {
        "id": entry.identity,
        "img_path": entry.path,
        "captions": list(entry.captions),
        "split": entry.split,
    }


def _icfg_path(identity: int, camera: str, index: int) -> str:
    # In ICFG-PEDES `train/` and `test/` are the storage of MSMT17 and say nothing about the split; nor do they here.
    storage = "test" if identity % 3 == 0 else "train"
    return f"{storage}/{identity:05d}/{identity:05d}_{index:03d}_{camera[-1]}.jpg"


FORMATS: dict[str, Format] = {
    "cuhk_pedes": Format(
        folder="CUHK-PEDES",
        annotation="reid_raw.json",
        captions=2,
        words=SHORT,
        first_identity=1,
        has_val=True,
        path=lambda identity, camera, index: f"{camera}/{identity:05d}_{index:02d}.jpg",
        record=_tokenised_record,
        like={"train": 11003, "val": 1000, "test": 1000, "images": 3},
    ),
    "icfg_pedes": Format(
        folder="ICFG-PEDES",
        annotation="ICFG-PEDES.json",
        captions=1,
        words=LONG,
        first_identity=0,
        has_val=False,
        path=_icfg_path,
        record=_tokenised_record,
        like={"train": 3102, "val": 0, "test": 1000, "images": 13},
    ),
    "rstpreid": Format(
        folder="RSTPReid",
        annotation="data_captions.json",
        captions=2,
        words=SHORT,
        first_identity=0,
        has_val=True,
        path=lambda identity, camera, index: f"{identity:05d}_{camera[-1]}_{index:02d}.jpg",
        record=_rstp_record,
        like={"train": 3701, "val": 200, "test": 200, "images": 5},
    ),
}
