"""The steps that make images: generate, keep whole people, edit. Each goes on where it stopped and takes a process's share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from PIL import Image

from captioning.pipeline import Progress, share
from captioning.store import CaptionStore
from synthesis.filters import CONFIDENCE, crop, reason_against
from synthesis.generation.folder import SetFolder
from synthesis.generation.parts import Editor, Generator, PersonFilter
from synthesis.generation.recipe import Planned, PlannedEdit, cropped_path

Item = TypeVar("Item", Planned, PlannedEdit)


def generate(
    folder: SetFolder,
    images: Sequence[Planned],
    generator: Generator,
    *,
    batch_size: int,
    progress: Progress | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Make the images that the folder lacks.

    Args:
        images: all of them, in every process.
        progress: called as ("images", made, to be made) after every batch, when that is on disk.
        rank, world_size: this process's share.
    """

    def make(batch: Sequence[Planned]) -> list[Image.Image]:
        return generator.generate([entry.prompt for entry in batch], [entry.seed for entry in batch])

    def record(entry: Planned) -> dict:
        return {"prompt": entry.prompt.number, "seed": entry.seed, "generator": generator.name}

    with folder.manifest("generated") as store:
        mine = share(images, rank, world_size)
        _make(folder, store, mine, make, record, batch_size, progress, "images")


def edit(
    folder: SetFolder,
    edits: Sequence[PlannedEdit],
    editor: Editor,
    *,
    batch_size: int,
    progress: Progress | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Make the edited images that the folder lacks; arguments as `generate`.

    Raises:
        ValueError: an editor that changes the size of an image.
    """

    def make(batch: Sequence[PlannedEdit]) -> list[Image.Image]:
        sources = [folder.open_image(entry.source) for entry in batch]
        pictures = editor.edit(
            sources,
            [entry.origin.prompt for entry in batch],
            [entry.edit for entry in batch],
            [entry.origin.seed for entry in batch],
        )
        for entry, source, picture in zip(batch, sources, pictures, strict=True):
            if picture.size != source.size:
                raise ValueError(
                    f"The editor '{editor.name}' made {entry.path} {picture.size} of an image of {source.size} pixels."
                )
        return pictures

    def record(entry: PlannedEdit) -> dict:
        return {"source": entry.source, "edit": str(entry.edit), "editor": editor.name}

    with folder.manifest("edited") as store:
        mine = share(edits, rank, world_size)
        _make(folder, store, mine, make, record, batch_size, progress, "edits")


def keep_whole_people(
    folder: SetFolder,
    images: Sequence[Planned],
    finder: PersonFilter,
    *,
    confidence: float = CONFIDENCE,
    batch_size: int,
    progress: Progress | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Cut the person out of every image that shows exactly one, and a whole one; say of the others why not.

    Args:
        confidence: a key point counts as seen above it; other arguments as `generate`.
    """
    with folder.manifest("people") as store:
        mine = [cropped_path(image.path) for image in share(images, rank, world_size)]
        origin = {cropped_path(image.path): image.path for image in images}
        for batch in _batches(folder.lacking(store, mine), batch_size, progress, "filter"):
            pictures = [folder.open_image(origin[path]) for path in batch]
            for path, picture, people in zip(batch, pictures, finder.people(pictures), strict=True):
                reason = reason_against(people, confidence)
                if reason:
                    store.put(path, status="refused", reason=reason, people=len(people))
                    continue
                folder.save_image(path, crop(picture, people[0]))
                store.put(path, box=[round(float(edge), 1) for edge in people[0].box])


def crops_of(folder: SetFolder, images: Sequence[Planned]) -> list[str]:
    """Where the people of all images go that were generated."""
    with folder.manifest("generated") as store:
        return [cropped_path(image.path) for image in images if store.status(image.path) == "done"]


def kept_images(folder: SetFolder, images: Sequence[Planned], *, filtered: bool) -> dict[str, str]:
    """Generated path -> path of what the set has of it, in order.

    Args:
        filtered: whether there is a filter, whose crops are in the set; else the images as they are.
    """
    with folder.manifest("generated") as generated, folder.manifest("people") as people:
        made = [image.path for image in images if generated.status(image.path) == "done"]
        if not filtered:
            return {path: path for path in made}
        return {path: crop for path in made if people.status(crop := cropped_path(path)) == "done"}


def _make(
    folder: SetFolder,
    store: CaptionStore,
    entries: Sequence[Item],
    make: Callable[[Sequence[Item]], list[Image.Image]],
    record: Callable[[Item], dict],
    batch_size: int,
    progress: Progress | None,
    step: str,
) -> None:
    known = {entry.path: entry for entry in entries}
    todo = [known[path] for path in folder.lacking(store, list(known))]
    for batch in _batches(todo, batch_size, progress, step):
        for entry, picture in zip(batch, make(batch), strict=True):
            folder.save_image(entry.path, picture)
            store.put(entry.path, size=list(picture.size), **record(entry))


def _batches(items: Sequence, size: int, progress: Progress | None, step: str) -> Iterator[Sequence]:
    """The items, so many at a time; progress hears of a batch when the next one is asked for, since it is on disk by then."""
    for start in range(0, len(items), size):
        batch = items[start : start + size]
        yield batch
        if progress:
            progress(step, start + len(batch), len(items))
