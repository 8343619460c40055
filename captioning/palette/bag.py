"""Bags: compact patches on the trunk or beside it in a colour that neither clothes nor skin have."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from captioning.palette.cloth import SAME_CLOTH, Cloth
from captioning.palette.colours import colour_distance
from captioning.palette.description import NOTHING, Reading
from captioning.palette.dominant import dominant_colours
from captioning.palette.regions import Figure
from captioning.palette.skin import Skin
from captioning.palette.upper import Upper

# Least area in squared body heights, and least share of its bounding box that a bag fills.
_LEAST_BAG, _COMPACT = 0.006, 0.55
# Height of the body's parts: backpacks end above, handbags hang below.
_WAIST = 0.40
_FILLS = 0.5


def read_bag(
    figure: Figure, skin: Skin, half: float, upper: Upper, lower: Cloth | None, crown: np.ndarray | None
) -> tuple[Reading, Reading]:
    """Kind ("backpack", "bag") and colour of a bag; what hides the trunk down to the waist is a backpack unless hair."""
    patch = upper.hidden_by
    if patch is not None and patch.share > _FILLS and not _like(patch.lab, crown):
        return Reading("backpack", 0.5 + 0.4 * (patch.share - _FILLS)), Reading(
            patch.name.term, patch.name.confidence
        )
    cloth = upper.cloth
    if cloth is None or cloth.pattern is not None or cloth.share < 0.3:
        return NOTHING, NOTHING
    labels, areas = _foreign_patches(figure, skin, cloth, lower)
    for index in np.argsort(-areas) + 1:
        if areas[index - 1] < _LEAST_BAG:
            break
        inside = labels == index
        kind = _kind(figure, skin, inside, half)
        patches = dominant_colours(figure.lab, inside * figure.person, most=2) if kind else []
        if patches and patches[0].share > _FILLS and not _like(patches[0].lab, crown):
            return Reading(kind, 0.7), Reading(patches[0].name.term, patches[0].share)
    return NOTHING, NOTHING


def _like(lab: np.ndarray, crown: np.ndarray | None) -> bool:
    return crown is not None and bool(colour_distance(lab, crown) < SAME_CLOTH)


def _foreign_patches(
    figure: Figure, skin: Skin, upper: Cloth, lower: Cloth | None
) -> tuple[np.ndarray, np.ndarray]:
    """Connected patches around the trunk that are no garment: labels (H, W) from 1, and their areas (count,)."""
    foreign = (
        (figure.person > 0.4)
        & (skin.mask < 0.5)
        & (colour_distance(figure.lab, upper.lab) > 1.6 * SAME_CLOTH)
    )
    if lower is not None:
        foreign &= colour_distance(figure.lab, lower.lab) > 1.2 * SAME_CLOTH
    foreign &= ((figure.down > 0.21) & (figure.down < 0.62))[:, None] & (np.abs(figure.across) < 0.3)
    labels, count = ndimage.label(ndimage.binary_opening(foreign, np.ones((3, 3))))
    pixel = float(figure.across[0, 1] - figure.across[0, 0]) * float(figure.down[1] - figure.down[0])
    return labels, np.bincount(labels.ravel(), minlength=count + 1)[1:] * pixel


def _kind(figure: Figure, skin: Skin, inside: np.ndarray, half: float) -> str:
    """ "backpack" on the back or behind it, "bag" at the hip, "" for a logo, an open jacket or what is no box."""
    rows, columns = np.nonzero(inside)
    if len(rows) < _COMPACT * (np.ptp(rows) + 1) * (np.ptp(columns) + 1):
        return ""
    height = float(figure.down[rows].mean())
    beside = abs(float(figure.across[rows, columns].mean())) > 0.5 * half
    if height < _WAIST:
        return "backpack" if beside or not skin.face else ""
    return "bag" if beside else ""
