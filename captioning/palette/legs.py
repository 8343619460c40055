"""Below the waist: trousers, shorts, skirts, bare legs and shoes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from captioning.palette.cloth import SAME_CLOTH, Cloth, cloth_pattern, plain_cloth, same_cloth
from captioning.palette.colours import colour_distance
from captioning.palette.description import NOTHING, Reading
from captioning.palette.dominant import dominant_colours
from captioning.palette.regions import Figure
from captioning.palette.skin import Skin

# Share of bare skin of the shins from which the legs are bare.
BARE = 0.12
# Width above the knee over width at the hip from which a garment flares like a skirt; hem over hip of a long skirt.
_FLARE, _LONG_SKIRT = 1.1, 0.95
# Ground in shade keeps its hue and between these shares of its lightness.
_SHADE = (0.5, 0.95)


@dataclass(frozen=True)
class Legs:
    """What is below the waist: kind and cloth of the garment, and what covers the shins under a short one."""

    kind: Reading
    cloth: Cloth | None
    bare: float
    below: Reading = NOTHING


def read_legs(figure: Figure, skin: Skin, upper: Cloth | None, hair: Reading) -> Legs:
    """Compare the hip with the shins: one cloth is trousers, cloth over skin is short, cloth over cloth a skirt."""
    cloth = 1 - skin.mask
    hip = plain_cloth(figure, figure.band(0.56, 0.65, 0.13) * cloth)
    shins = plain_cloth(figure, figure.band(0.75, 0.87, 0.25) * cloth)
    bare = _share(figure, skin, 0.76, 0.86)
    if hip is None:
        return Legs(NOTHING, shins, bare)
    pattern = cloth_pattern(figure, figure.person * cloth, 0.55, 0.66, 0.08)
    if pattern is not None:
        hip = Cloth(pattern.colours, pattern, hip.lab, hip.share)
    under_upper = upper is not None and same_cloth(hip, upper)
    if bare > BARE:
        if under_upper and hair.value != "short":
            return Legs(NOTHING, None, bare)
        return Legs(_short_garment(figure, hair), hip, bare)
    if shins is None:
        return Legs(Reading("trousers", 0.4), hip, bare)
    if under_upper and not same_cloth(hip, shins):
        return Legs(Reading("trousers", 0.5), shins, bare)
    if not same_cloth(hip, shins) and _flare(figure) > _FLARE:
        return Legs(Reading("skirt", 0.6), hip, bare, Reading(shins.colours[0].term, 0.6))
    whole = plain_cloth(figure, figure.band(0.56, 0.86, 0.2) * cloth) or hip
    if pattern is not None:
        whole = hip
    hem = _width(figure, 0.80, 0.86) / max(_width(figure, 0.54, 0.60), 1e-6)
    if hair.value == "long" and hem > _LONG_SKIRT and _filled(figure, 0.74, 0.86) > 0.97:
        return Legs(Reading("long skirt", 0.6), whole, bare)
    return Legs(Reading("trousers", 0.8), whole, bare)


def _short_garment(figure: Figure, hair: Reading) -> Reading:
    """Shorts or a skirt: a skirt widens downwards; long hair makes it likelier."""
    evidence = 4 * (_flare(figure) - _FLARE)
    evidence += {"long": 0.6, "short": -0.8}.get(hair.value, 0.0) * hair.confidence
    return Reading("skirt" if evidence > 0 else "shorts", 0.5 + min(0.45, abs(evidence)))


def _flare(figure: Figure) -> float:
    """How much wider the person is above the knee than at the hip."""
    return min(2.0, _width(figure, 0.62, 0.68) / max(_width(figure, 0.52, 0.57), 0.05))


def _filled(figure: Figure, top: float, bottom: float) -> float:
    """Share of person between the leftmost and the rightmost pixel of the person: 1 where the legs show no gap."""
    rows = (figure.down >= top) & (figure.down < bottom)
    inside = figure.person[rows] > 0.45
    outer = np.maximum.accumulate(inside, axis=1) & np.maximum.accumulate(inside[:, ::-1], axis=1)[:, ::-1]
    return float(inside.sum() / max(int(outer.sum()), 1))


def _share(figure: Figure, skin: Skin, top: float, bottom: float) -> float:
    """Share of bare skin in the person between two heights."""
    weights = figure.band(top, bottom, 0.25)
    return float((weights * skin.mask).sum() / max(float(weights.sum()), 1e-6))


def _width(figure: Figure, top: float, bottom: float) -> float:
    """Mean width of the person between two heights, in body heights."""
    rows = (figure.down >= top) & (figure.down < bottom)
    pixel = figure.across[0, 1] - figure.across[0, 0]
    return float((figure.person[rows] > 0.45).sum(axis=1).mean() * pixel) if rows.any() else 0.0


def read_shoes(figure: Figure, skin: Skin, legs: Legs) -> Reading:
    """The colour at the feet that is neither ground, its shadow, skin nor the trousers."""
    feet = figure.band(0.925, 0.99, 0.3) * (1 - skin.mask) * (1 - _shadow(figure))
    if legs.cloth is not None:
        other = colour_distance(figure.lab, legs.cloth.lab) > SAME_CLOTH
        # Shoes of the trousers' colour are left in.
        if float((feet * other).sum()) > 0.4 * float(feet.sum()):
            feet = feet * other
    feet = feet * (feet > 0.35)
    patches = dominant_colours(figure.lab, feet, most=2)
    if not patches:
        return NOTHING
    return Reading(patches[0].name.term, patches[0].share * patches[0].name.confidence)


def _shadow(figure: Figure) -> np.ndarray:
    """(H, W) 1 where a pixel looks like its row's border, only darker by up to a half: ground in shade."""
    ground = np.median(np.concatenate([figure.lab[:, :3], figure.lab[:, -3:]], axis=1), axis=1)[:, None]
    darker = figure.lab[..., 0] / np.maximum(ground[..., 0], 1.0)
    alike = np.hypot(*np.moveaxis(figure.lab[..., 1:] - ground[..., 1:], -1, 0)) < 7
    return (alike & (darker > _SHADE[0]) & (darker < _SHADE[1])).astype(np.float32)
