"""What a synthetic set is like: what the filter kept and why not, near duplicates, captions and their vocabulary."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from captioning.files import write_json
from synthesis.generation.export import Entry
from synthesis.generation.folder import SetFolder
from synthesis.generation.recipe import Planned, cropped_path

REPORT = "report.json"
# Two images are near duplicates if at most ALIKE_BITS of their 128 signs of brightness differ and their small colour pictures by
# at most ALIKE_LEVELS grey levels on average.
ALIKE_BITS, ALIKE_LEVELS = 7, 8.0
_BANDS = ALIKE_BITS + 1  # of 16 bits: two hashes that differ in so few bits agree in one of them
_CHUNK = 2048


def quality_report(
    folder: SetFolder,
    images: Sequence[Planned],
    kept: Mapping[str, str],
    entries: Sequence[Entry],
    *,
    filtered: bool,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """The report as JSON can say it.

    Args:
        images: all that were to be generated; `kept` those of them that are in the set (`kept_images`).
        entries: all images of the set with their edits.
        filtered: whether there was a filter.
    """
    with folder.manifest("people") as people, folder.manifest("captions") as captions:
        refused = Counter(
            record["reason"]
            for image in images
            if filtered and (record := people.get(cropped_path(image.path))) and record["status"] == "refused"
        )
        texts = [
            record["text"]
            for entry in entries
            if (record := captions.get(entry.path)) and record["status"] == "done"
        ]
        summary = captions.summary()
    pairs = near_duplicates(folder, list(kept.values()), progress)
    words = Counter(word for text in texts for word in re.findall(r"[a-z]+(?:[-'][a-z]+)*", text.lower()))
    return {
        "prompts": len({image.prompt.number for image in images}),
        "generated": len(images),
        "kept": len(kept),
        "left out": dict(sorted(refused.items())),
        "near duplicates": {"pairs": len(pairs), "first": [list(pair) for pair in pairs[:10]]},
        "images": len(entries),
        "edits": dict(sorted(Counter(entry.edit for entry in entries if entry.edit).items())),
        "captions": len(texts),
        "captions refused or empty": summary.refused + summary.empty + summary.failed,
        "distinct captions": len(set(texts)),
        "words per caption": _spread([len(text.split()) for text in texts]),
        "vocabulary": len(words),
        "most frequent words": [word for word, _ in words.most_common(20)],
    }


def write_report(folder: SetFolder, report: dict[str, Any]) -> None:
    """Write `report.json` beside the set."""
    write_json(folder.root / REPORT, [report])


def told(report: Mapping[str, Any]) -> str:
    """The report for people."""
    left_out = ", ".join(f"{count} {reason}" for reason, count in report["left out"].items())
    length = report["words per caption"]
    return "\n".join(
        [
            f"{report['prompts']} prompts, {report['generated']} images, {report['kept']} kept"
            + (f" (left out: {left_out})" if left_out else ""),
            f"{report['near duplicates']['pairs']} pairs of them look nearly alike",
            f"{report['images']} images with {sum(report['edits'].values())} edits, {report['captions']} captioned "
            f"({report['captions refused or empty']} refused or empty), {report['distinct captions']} distinct captions",
            f"words per caption {length['min']}/{length['mean']}/{length['max']} (min/mean/max), vocabulary {report['vocabulary']}",
        ]
    )


def near_duplicates(
    folder: SetFolder, images: Sequence[str], progress: Callable[[str, int, int], None] | None = None
) -> list[tuple[str, str]]:
    """Pairs of images that look nearly alike (`ALIKE_BITS`, `ALIKE_LEVELS`), in the order of the list."""
    hashes = np.zeros((len(images), 16), np.uint8)
    thumbnails = np.zeros((len(images), 17 * 8 * 3), np.uint8)
    for number, image in enumerate(images):
        small = folder.open_image(image).resize((8, 17), Image.Resampling.BOX)
        thumbnails[number] = np.asarray(small).reshape(-1)
        grey = np.asarray(small.convert("L"), dtype=np.int16)
        hashes[number] = np.packbits(grey[1:] > grey[:-1])
        if progress:
            progress("report", number + 1, len(images))
    found = set()
    for first, second in _candidates(hashes):
        bits = np.unpackbits(hashes[first] ^ hashes[second], axis=1).sum(axis=1)
        near = bits <= ALIKE_BITS
        for a, b in zip(first[near].tolist(), second[near].tolist(), strict=True):
            difference = np.abs(thumbnails[a].astype(np.int16) - thumbnails[b]).mean()
            if difference <= ALIKE_LEVELS:
                found.add((a, b))
    return [(images[a], images[b]) for a, b in sorted(found)]


def _candidates(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (a < b) that agree in one band of their hashes, in portions; some come more than once."""
    for band in range(_BANDS):
        keys = hashes[:, 2 * band].astype(np.int32) * 256 + hashes[:, 2 * band + 1]
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
        for group in np.split(order, starts[1:]):
            for start in range(0, len(group), _CHUNK):
                part = group[start : start + _CHUNK]
                for other in range(start, len(group), _CHUNK):
                    first, second = np.meshgrid(part, group[other : other + _CHUNK], indexing="ij")
                    below = first < second
                    yield first[below], second[below]


def _spread(lengths: Sequence[int]) -> dict[str, float]:
    if not lengths:
        return {"min": 0, "mean": 0, "max": 0}
    return {"min": min(lengths), "mean": round(sum(lengths) / len(lengths), 1), "max": max(lengths)}
