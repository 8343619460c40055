"""What a synthetic set is made of, and from it the list of all images: the same in every process and every run."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from captioning.store import CaptionStore
from synthesis.generation.families import make_prompts
from synthesis.generation.parts import EDITS, Edit, Prompt
from synthesis.generation.prompts import identified, seed_of

CaptionKind = Literal["constant", "variable"]


@dataclass(frozen=True)
class Recipe:
    """The numbers of a set.

    Attributes:
        prompts, per_prompt: how many prompts, and images of each.
        families: share of each family of prompts, by weight.
        seed: of everything.
        identity: "image": every generated image is an identity of its own; "prompt": all images of a prompt are one.
        edits: kind -> how many edits of that kind an image gets, at most those of `EDITS`.
        captions: their kind (`captioning.prompts`).
        colours: whether plain prompts name colours.
        identifier: how a personalised generator calls its person ("sks person"); empty: as the prompt does.
        batch_size: images that a generator, filter or editor gets at once; no image depends on it.
    """

    prompts: int
    per_prompt: int = 5
    families: Mapping[str, float] = field(default_factory=lambda: {"plain": 1.0})
    seed: int = 0
    identity: Literal["image", "prompt"] = "image"
    edits: Mapping[str, int] = field(default_factory=dict)
    captions: CaptionKind = "variable"
    colours: bool = False
    identifier: str = ""
    batch_size: int = 16

    def all_prompts(self, texts: CaptionStore | None = None) -> list[Prompt]:
        """The prompts, in order; `texts` has those that a text model wrote."""
        found = make_prompts(self.families, self.prompts, self.seed, texts, colours=self.colours)
        if not self.identifier:
            return found
        return [
            Prompt(p.number, identified(p.text, self.identifier), p.attributes, p.family, p.seed)
            for p in found
        ]


@dataclass(frozen=True)
class Planned:
    """An image to be generated: where, from what, and from which seed."""

    path: str
    prompt: Prompt
    seed: int


@dataclass(frozen=True)
class PlannedEdit:
    """An edited image to be made from the image at `source`."""

    path: str
    source: str
    origin: Planned
    edit: Edit


def planned_images(prompts: Iterable[Prompt], per_prompt: int) -> list[Planned]:
    """All images of the prompts; each has its own seed."""
    return [
        Planned(f"generated/{_stem(prompt, index)}.jpg", prompt, seed_of(prompt.seed, index))
        for prompt in prompts
        for index in range(per_prompt)
    ]


def planned_edits(
    kept: Mapping[str, str], images: Iterable[Planned], edits: Mapping[str, int]
) -> list[PlannedEdit]:
    """The edits of all images that are kept.

    Args:
        kept: generated path -> path of what the filter kept of it.
        images: all generated ones, in order.
        edits: how many of each kind; where that is not all, an image's own lot decides which.
    """
    return [
        PlannedEdit(_edited_path(image.path, edit), kept[image.path], image, edit)
        for image in images
        if image.path in kept
        for edit in edits_of(image.seed, edits)
    ]


def edits_of(seed: int, counts: Mapping[str, int]) -> list[Edit]:
    """The edits that an image with this seed gets; more of a kind adds to those that fewer give."""
    chosen = []
    for kind, names in EDITS.items():
        order = random.Random(seed_of(seed, "edits", kind)).sample(names, len(names))[: counts.get(kind, 0)]
        chosen += [Edit(kind, name) for name in names if name in order]
    return chosen


def cropped_path(generated: str) -> str:
    """Where the person that the filter cut out of a generated image lies."""
    return generated.replace("generated/", "people/", 1)


def _stem(prompt: Prompt, index: int) -> str:
    """A folder for a thousand prompts: file systems and their users dislike 100,000 files in one."""
    return f"{prompt.number // 1000:03d}/{prompt.number:06d}_{index}"


def _edited_path(generated: str, edit: Edit) -> str:
    stem = generated.removesuffix(".jpg").replace("generated/", "edited/", 1)
    return f"{stem}_{edit.kind}-{edit.name.replace(' ', '-')}.jpg"
