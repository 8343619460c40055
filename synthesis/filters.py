"""Which synthetic images are kept: those of exactly one person who is there from head to feet, and of these the person's crop.

The rule is SynTBPR's (arXiv 2503.22171, released code): of COCO's key points at least one of each group is seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from synthesis.generation.parts import Person

CONFIDENCE = 0.5  # a point is seen above it
# COCO's points by number: nose, eyes, ears; shoulders, elbows, wrists; hips (11, 12, asked for by no group); knees, ankles.
GROUPS: Mapping[str, tuple[int, ...]] = {
    "head": (0, 1, 2, 3, 4),
    "upper": (5, 6, 7, 8, 9, 10),
    "lower": (13, 14, 15, 16),
}
# Why an image is left out, in one word: no person, several, or the first group of points of which none is seen.
REASONS = ("none", "several", *GROUPS)


def is_whole_person(keypoints: ArrayLike, confidence: float = CONFIDENCE) -> bool:
    """Whether a person is seen from head to feet.

    Args:
        keypoints: (17, 3), COCO's points as x, y and a confidence.
        confidence: a point counts as seen above it, not at it.

    Raises:
        ValueError: another shape.
    """
    return not missing(keypoints, confidence)


def missing(keypoints: ArrayLike, confidence: float = CONFIDENCE) -> str:
    """The first of `GROUPS`, from the head down, of which no point is seen; empty where there is none.

    Arguments and errors are those of `is_whole_person`.
    """
    points = np.asarray(keypoints, dtype=float)
    if points.shape != (17, 3):
        raise ValueError(f"A person has COCO's 17 key points with x, y and a confidence, not {points.shape}.")
    seen = points[:, 2] > confidence  # a confidence that is no number is above nothing
    return next((name for name, group in GROUPS.items() if not seen[list(group)].any()), "")


def reason_against(people: Sequence[Person], confidence: float = CONFIDENCE) -> str:
    """Why an image with these people is left out, one of `REASONS`; empty where it is kept."""
    if len(people) != 1:
        return "several" if people else "none"
    return missing(people[0].keypoints, confidence)


def crop(image: Image.Image, person: Person) -> Image.Image:
    """The person's box cut out of the image; parts of pixels are whole ones, what lies outside of the image is not there.

    Raises:
        ValueError: a box that has nothing of the image in it.
    """
    x0, y0, x1, y1 = person.box
    left, top = max(0, math.floor(x0)), max(0, math.floor(y0))
    right, bottom = min(image.width, math.ceil(x1)), min(image.height, math.ceil(y1))
    if left >= right or top >= bottom:
        raise ValueError(
            f"The box {person.box} has nothing of an image of {image.width} x {image.height} pixels in it."
        )
    return image.crop((left, top, right, bottom))
