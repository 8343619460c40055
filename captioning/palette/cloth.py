"""Cloth: the colours and the pattern of one garment, and how alike two of them are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from captioning.palette.colours import ColourName, colour_distance
from captioning.palette.description import NOTHING, Reading
from captioning.palette.dominant import dominant_colours
from captioning.palette.patterns import Pattern, find_pattern
from captioning.palette.regions import Figure

# Difference (CIELAB, lightness weighing less) below which two patches are one cloth.
SAME_CLOTH = 15.0


@dataclass(frozen=True)
class Cloth:
    """A garment as seen: its colours by falling share, its pattern, and the CIELAB centre of the first colour."""

    colours: tuple[ColourName, ...]
    pattern: Pattern | None
    lab: np.ndarray
    share: float


def plain_cloth(figure: Figure, weights: np.ndarray) -> Cloth | None:
    """The strongest colour of a region as a cloth without pattern; None where the region is next to nothing."""
    patches = dominant_colours(figure.lab, weights, most=2)
    if not patches:
        return None
    return Cloth((patches[0].name,), None, patches[0].lab, patches[0].share)


def cloth_pattern(
    figure: Figure, covered: np.ndarray, top: float, bottom: float, half: float
) -> Pattern | None:
    """The pattern of the rectangle around the axis between two heights of the body."""
    rows = np.flatnonzero((figure.down >= top) & (figure.down < bottom))
    if len(rows) < 8:
        return None
    columns = np.flatnonzero(np.abs(figure.across[rows[len(rows) // 2]]) < half)
    if len(columns) < 6:
        return None
    window = np.ix_(rows, columns)
    return find_pattern(figure.lab[window], covered[window])


def pattern_reading(cloth: Cloth | None) -> Reading:
    """The pattern as an attribute; nothing where the cloth is plain."""
    pattern = cloth.pattern if cloth else None
    return Reading(pattern.kind, pattern.confidence) if pattern else NOTHING


def same_cloth(first: Cloth, second: Cloth) -> bool:
    """Whether two garments look like one piece: one colour, or one pattern with a colour in common."""
    if first.pattern is not None and second.pattern is not None:
        common = {colour.term for colour in first.colours} & {colour.term for colour in second.colours}
        return first.pattern.kind == second.pattern.kind and bool(common)
    return bool(colour_distance(first.lab, second.lab) < SAME_CLOTH)
