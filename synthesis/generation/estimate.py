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
from synthesis.generation.folder import Manifest, SetFolder
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
    size, per_image = recipe.batch_size, sum(recipe.edits.values())
    sample, paths = list(images[:size]), [image.path for image in images]
    finder, editor, captioner = parts.finder, parts.editor, parts.captioner
    left = {}

    def measure(name: str, step: Manifest, count: int, work: Callable[[], None], made: int = 0) -> None:
        left[name] = _timed(trial, step, count, work, made)

    lacking = _lacking(folder, "generated", paths)
    measure("images", "generated", lacking, lambda: steps.generate(trial, sample, parts.generator, batch_size=size))  # fmt: skip
    if finder is not None:
        lacking = _lacking(folder, "people", [cropped_path(path) for path in paths])
        options = {"batch_size": size, "confidence": parts.confidence}
        measure("filter", "people", lacking, lambda: steps.keep_whole_people(trial, sample, finder, **options), len(sample))  # fmt: skip
    kept = steps.kept_images(trial, sample, filtered=finder is not None)
    expected = round(len(kept) / len(sample) * len(images))
    if editor is not None and kept:
        lacking = max(0, expected * per_image - _done(folder, "edited"))
        edits = planned_edits(kept, sample, recipe.edits)[: max(size, per_image)]
        measure("edits", "edited", lacking, lambda: steps.edit(trial, edits, editor, batch_size=size))
    if not hasattr(captioner, "estimate") and kept:
        lacking = max(0, expected * (1 + per_image) - _done(folder, "captions"))
        known = list(kept.values())
        measure("captions", "captions", lacking, lambda: caption(trial, known, captioner, recipe.captions, recipe.seed), len(known))  # fmt: skip
    return left


def _lacking(folder: SetFolder, step: Manifest, paths: Sequence[str]) -> int:
    with folder.manifest(step) as store:
        return len(folder.lacking(store, list(paths)))


def _done(folder: SetFolder, step: Manifest) -> int:
    with folder.manifest(step) as store:
        return sum(record["status"] == "done" for record in store)


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
