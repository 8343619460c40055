"""What a synthetic set would still take: every step measured on one batch in a folder that is thrown away."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from captioning.backends import Backend
from synthesis.generation import steps
from synthesis.generation.captions import caption, requests_for
from synthesis.generation.folder import SetFolder
from synthesis.generation.parts import Editor, Generator, PersonFilter
from synthesis.generation.recipe import Planned, Recipe, cropped_path, planned_edits


@dataclass(frozen=True)
class Parts:
    """What a set is made with; no finder: every image is kept."""

    generator: Generator
    finder: PersonFilter | None
    editor: Editor | None
    captioner: Backend
    confidence: float


@dataclass(frozen=True)
class Left:
    """How many images a step still has to make, and what one takes."""

    count: int
    seconds: float
    bytes: float


def estimate(folder: SetFolder, recipe: Recipe, images: Sequence[Planned], parts: Parts) -> str:
    """A table of the steps that are left: images, hours on one process, disk.

    A captioning backend that is asked over a network says itself what it takes; it is asked nothing.
    """
    with tempfile.TemporaryDirectory(prefix="gen_images-") as place:
        left = _measured(folder, SetFolder(Path(place)), recipe, images, parts)
    lines = [f"{folder.root}, on one process like this one:"]
    for step, work in left.items():
        lines.append(f"  {step:<10}{work.count:>10} images {_hours(work)} {_megabytes(work)}")
    total = [
        sum(work.seconds * work.count for work in left.values()),
        sum(w.bytes * w.count for w in left.values()),
    ]
    lines.append(f"  {'together':<17}       {_hours(Left(1, *total))} {_megabytes(Left(1, *total))}")
    asked = getattr(parts.captioner, "estimate", None)
    if asked is not None:
        with folder.manifest("captions") as store:
            known = [image.path for image in images]
            requests = requests_for(folder, known, store, recipe.captions, recipe.seed)
        lines.append(f"  captions of the {len(requests)} images without edits: {asked(requests)}")
    return "\n".join(lines)


def _measured(
    folder: SetFolder, trial: SetFolder, recipe: Recipe, images: Sequence[Planned], parts: Parts
) -> dict[str, Left]:
    sample = list(images[: recipe.batch_size])
    size = recipe.batch_size
    paths = [image.path for image in images]
    with folder.manifest("generated") as store:
        lacking = len(folder.lacking(store, paths))
    left = {
        "images": _timed(
            trial,
            "generated",
            lacking,
            lambda: steps.generate(trial, sample, parts.generator, batch_size=size),
        )
    }
    finder = parts.finder
    if finder is not None:
        with folder.manifest("people") as store:
            lacking = len(folder.lacking(store, [cropped_path(path) for path in paths]))
        left["filter"] = _timed(
            trial,
            "people",
            lacking,
            lambda: steps.keep_whole_people(
                trial, sample, finder, batch_size=size, confidence=parts.confidence
            ),
            len(sample),
        )
    kept = steps.kept_images(trial, sample, filtered=finder is not None)
    share = len(kept) / len(sample)
    editor, per_image = parts.editor, sum(recipe.edits.values())
    if editor is not None and kept:
        with folder.manifest("edited") as store:
            done = sum(record["status"] == "done" for record in store)
        edits = planned_edits(kept, sample, recipe.edits)[: max(size, per_image)]
        lacking = max(0, round(share * len(images)) * per_image - done)
        left["edits"] = _timed(
            trial, "edited", lacking, lambda: steps.edit(trial, edits, editor, batch_size=size)
        )
    if not hasattr(parts.captioner, "estimate") and kept:
        with folder.manifest("captions") as store:
            done = sum(record["status"] == "done" for record in store)
        lacking = max(0, round(share * len(images)) * (1 + per_image) - done)
        known = list(kept.values())
        work = lambda: caption(trial, known, parts.captioner, recipe.captions, recipe.seed)  # noqa: E731
        left["captions"] = _timed(trial, "captions", lacking, work, len(known))
    return left


def _timed(trial: SetFolder, step: str, count: int, work: Callable[[], None], made: int = 0) -> Left:
    """Do `work` on the sample once, and what an image of it took.

    Args:
        made: images that were worked on; 0: those that were written.
    """
    begun = time.perf_counter()
    work()
    seconds = time.perf_counter() - begun
    sizes = [path.stat().st_size for path in (trial.images / step).rglob("*.jpg")]
    made = made or len(sizes)
    return Left(count, seconds / max(1, made), sum(sizes) / max(1, made))


def _hours(work: Left) -> str:
    return f"{work.seconds * work.count / 3600:>9.2f} hours"


def _megabytes(work: Left) -> str:
    return f"{work.bytes * work.count / 1e6:>10.0f} MB"
