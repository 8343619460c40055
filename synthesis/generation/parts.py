"""What the steps of the pipeline hand to each other, and what a generator, an editor and a person filter offer.

One that is named in the configuration is looked up in `synthesis.generation.registry` and made with its options there; its
constructor also gets `device` (a torch device), `half` (whether to compute in half precision), `scenario` (whose look it has
learned: "none", "few" or "all") and `read_weights` (weights by name, `engine.detector_weights`) where it has parameters of
these names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from PIL import Image

# The edits of SynTBPR (arXiv 2503.22171), by kind, in the order in which an image gets them: 19 in all.
EDITS: Mapping[str, tuple[str, ...]] = {
    "background": ("forest", "desert", "beach", "airport", "farm", "lake"),
    "weather": ("snowy", "rainy", "foggy"),
    "style": ("oil painting", "anime", "street photography", "van Gogh", "pointillism"),
    "posture": ("sitting", "raising hands", "thumb up", "running", "walking"),
}


@dataclass(frozen=True)
class Prompt:
    """A description of a person, from which images are made.

    Attributes:
        number: its place among the prompts of a run, from 0.
        text: what a text-to-image model reads.
        attributes: slot -> word, what `text` was put together from ("gender": "woman", "upper": "hoodie"); empty where a
            text model wrote it.
        family: "plain", or the kind of text that a text model wrote ("appearance", "profession", "location", "state").
        seed: of everything random about this prompt.
    """

    number: int
    text: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    family: str = "plain"
    seed: int = 0


@dataclass(frozen=True)
class Edit:
    """A change that leaves the person who they are: `kind` is a key of `EDITS` and `name` one of its values."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"


@dataclass(frozen=True)
class Person:
    """A person that a filter found.

    Attributes:
        box: x0, y0, x1, y1 in pixels.
        score: of the detection, 0 to 1.
        keypoints: (17, 3), COCO's points as x and y in pixels and a confidence.
    """

    box: tuple[float, float, float, float]
    score: float
    keypoints: np.ndarray


class Generator(Protocol):
    """Makes images from prompts."""

    name: str

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Image.Image]:
        """One RGB image for each pair of a prompt and a seed.

        An image depends on its own prompt and seed alone: equal pairs give equal bytes, in whatever batch they are.
        """
        ...


class Editor(Protocol):
    """Changes the scene, the weather, the style or the posture, and keeps the person."""

    name: str

    def edit(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[Prompt],
        edits: Sequence[Edit],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        """One RGB image for each entry, of the size of the image that it comes from.

        Args:
            images: what the generator (and the filter) made.
            prompts: what each was made from.
            edits: what is to be changed in each.
            seeds: of the edits; equal entries give equal bytes, in whatever batch they are.
        """
        ...


class PersonFilter(Protocol):
    """Finds people with their key points; `synthesis.filters.is_whole_person` judges what it finds."""

    name: str

    def people(self, images: Sequence[Image.Image]) -> list[list[Person]]:
        """The people in each image, the surest first; an image without any has an empty list."""
        ...
