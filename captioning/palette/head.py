"""Hair and hats: what covers the crown, and whether it hangs down beside the neck."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from captioning.palette.cloth import SAME_CLOTH, Cloth
from captioning.palette.colours import colour_distance
from captioning.palette.description import NOTHING, Reading, certainty
from captioning.palette.dominant import Patch, dominant_colours
from captioning.palette.regions import Figure
from captioning.palette.skin import Skin

# Width of the neck (body heights) beyond which hair hangs beside it, and the area of hair on the shoulders (squared).
_NECK = 0.133
_LONG_HAIR = 0.0018
# Evidence below this leaves the length of the hair open.
_LEAST_EVIDENCE = 0.65


@dataclass(frozen=True)
class Head:
    """Length and colour of the hair, colour of a hat, and the CIELAB colour (3,) of the crown."""

    hair: Reading = NOTHING
    hair_colour: Reading = NOTHING
    hat_colour: Reading = NOTHING
    crown: np.ndarray | None = None


def read_head(figure: Figure, skin: Skin, upper: Cloth | None) -> Head:
    """Read the crown: a natural hair colour is hair, any other a hat."""
    weights = figure.band(0.015, 0.055, 0.045)
    weights = weights * (1 - skin.mask * skin.face) * (weights > 0.3)
    crown = dominant_colours(figure.lab, weights, most=2)
    if not crown:
        return Head()
    top = crown[0]
    length = _hair_length(figure, skin, upper, top)
    colour = hair_colour(top.lab)
    if not colour:
        return Head(length, NOTHING, Reading(top.name.term, top.name.confidence * top.share), top.lab)
    return Head(length, Reading(colour, top.share), NOTHING, top.lab)


def _hair_length(figure: Figure, skin: Skin, upper: Cloth | None, crown: Patch) -> Reading:
    """Long hair hides the narrow neck, and puts the colour of the crown on the shoulders."""
    rows = (figure.down >= 0.135) & (figure.down < 0.185)
    pixel = figure.across[0, 1] - figure.across[0, 0]
    solid = (figure.person > 0.45) * (np.abs(figure.across) < 0.14)
    neck = float(solid[rows].sum(axis=1).min() * pixel) if rows.any() else _NECK
    evidence = float(np.clip((neck - _NECK) / 0.02, -1.5, 1.5))
    if upper is None or colour_distance(upper.lab, crown.lab) > 1.3 * SAME_CLOTH:
        alike = colour_distance(figure.lab, crown.lab) < SAME_CLOTH
        hanging = figure.band(0.14, 0.25, 0.13) * alike * (1 - skin.mask * skin.face)
        area = float(hanging.sum() * pixel**2)
        evidence += float(np.clip((area - _LONG_HAIR) / _LONG_HAIR, -1.0, 1.5))
    return Reading("long" if evidence > 0 else "short", certainty(1.3 * (abs(evidence) - _LEAST_EVIDENCE)))


def hair_colour(lab: np.ndarray) -> str:
    """Name of a natural hair colour, or "" for what hair does not have."""
    lightness, red_green, yellow_blue = (float(value) for value in lab)
    chroma = float(np.hypot(red_green, yellow_blue))
    hue = float(np.degrees(np.arctan2(yellow_blue, red_green)))
    if lightness < 24 and chroma < 12:
        return "black"
    if chroma < 9:
        return "grey" if lightness < 78 else ""
    if not 25 < hue < 95:
        return ""
    if lightness > 58:
        return "blond" if chroma > 14 else "grey"
    if chroma > 38 and hue < 62:
        return "red"
    return "brown" if chroma < 40 else ""
