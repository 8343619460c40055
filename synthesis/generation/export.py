"""The data set that a folder of manifests makes: `synthetic.json`, read by `data.synthetic`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from captioning.files import write_json
from synthesis.generation.folder import SetFolder
from synthesis.generation.recipe import Planned, PlannedEdit, Recipe


@dataclass(frozen=True)
class Entry:
    """An image of the set: its path, what it was generated from, and the edit that it went through, if any."""

    path: str
    origin: Planned
    edit: str = ""


def entries_of(kept: dict[str, str], images: Sequence[Planned], edits: Sequence[PlannedEdit]) -> list[Entry]:
    """All images of the set: each kept one, followed by its edits."""
    edited: dict[str, list[Entry]] = {}
    for entry in edits:
        edited.setdefault(entry.origin.path, []).append(Entry(entry.path, entry.origin, str(entry.edit)))
    found = []
    for image in images:
        if image.path in kept:
            found += [Entry(kept[image.path], image), *edited.get(image.path, [])]
    return found


def write_annotation(folder: SetFolder, entries: Sequence[Entry], recipe: Recipe) -> int:
    """Write `synthetic.json`; returns the number of images that have a caption and are in it.

    Identities count from 0 in the order of the images: one for each generated image or for each prompt, its edits included.
    """
    identities: dict[object, int] = {}
    records = []
    with folder.manifest("captions") as captions, folder.manifest("generated") as generated:
        for entry in entries:
            prompt = entry.origin.prompt
            owner = entry.origin.path if recipe.identity == "image" else prompt.number
            identity = identities.setdefault(owner, len(identities))
            found = captions.get(entry.path)
            if not found or found["status"] != "done":
                continue
            records.append(
                {
                    "split": "train",
                    "file_path": entry.path,
                    "id": identity,
                    "captions": [found["text"]],
                    "generator": generated.get(entry.origin.path)["generator"],
                    "prompt": prompt.text,
                    "edit": entry.edit,
                }
            )
    return write_json(folder.annotation, records) if records else 0
