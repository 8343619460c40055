"""Bare skin: where the person's own skin colour shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from captioning.palette.colours import colour_distance
from captioning.palette.regions import Figure

# Human skin of every tone lies between these hues (degrees in the a*b* plane) and chromas.
_HUES = (22.0, 82.0)
_CHROMAS = (8.0, 44.0)
_LIGHTNESS = (18.0, 92.0)
_SAME_SKIN = 13.0
_SAME_HEAD = 9.0
_LEAST_FACE = 0.22


@dataclass(frozen=True)
class Skin:
    """`tone` (3,) CIELAB of the person's face or None where no face is seen; `mask` (H, W) in {0, 1}."""

    tone: np.ndarray | None
    mask: np.ndarray

    @property
    def face(self) -> bool:
        """Whether the head shows skin: the person is seen from the front or the side."""
        return self.tone is not None


def find_skin(figure: Figure) -> Skin:
    """Learn the skin tone from the face, if there is one, and find it elsewhere on the person."""
    plausible = _plausible(figure.lab)
    head = figure.band(0.055, 0.13, 0.05)
    face = head * plausible
    if head.sum() > 0 and face.sum() > _LEAST_FACE * head.sum():
        chosen = face > 0.3 * face.max()
        tone = np.median(figure.lab[chosen], axis=0)
    else:
        tone = None
    if tone is not None and not _is_hair(figure, tone):
        return Skin(tone, (plausible & (colour_distance(figure.lab, tone) < _SAME_SKIN)).astype(np.float32))
    return Skin(None, plausible.astype(np.float32))


def passes_for_skin(lab: np.ndarray, tone: np.ndarray | None) -> bool:
    """Whether a colour (3,) could be skin: like the face, or like any skin where no face is seen."""
    if tone is not None:
        return bool(colour_distance(lab, tone) < _SAME_SKIN + 2)
    return bool(_plausible(lab))


def _is_hair(figure: Figure, tone: np.ndarray) -> bool:
    """Brown and blond hair pass for skin, but from behind the whole head is of one colour, the crown included."""
    crown = figure.band(0.005, 0.04, 0.04)
    chosen = crown > 0.5 * max(float(crown.max()), 1e-6)
    return bool(colour_distance(np.median(figure.lab[chosen], axis=0), tone) < _SAME_HEAD)


def _plausible(lab: np.ndarray) -> np.ndarray:
    lightness, red_green, yellow_blue = np.moveaxis(lab, -1, 0)
    chroma = np.hypot(red_green, yellow_blue)
    hue = np.degrees(np.arctan2(yellow_blue, red_green))
    return (
        (hue > _HUES[0])
        & (hue < _HUES[1])
        & (chroma > _CHROMAS[0])
        & (chroma < _CHROMAS[1])
        & (lightness > _LIGHTNESS[0])
        & (lightness < _LIGHTNESS[1])
    )
