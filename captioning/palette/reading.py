"""From the regions of a figure to a description: one function for each attribute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from captioning.palette.colours import ColourName, colour_distance
from captioning.palette.description import NOTHING, Description, Reading
from captioning.palette.dominant import Patch, dominant_colours
from captioning.palette.patterns import Pattern, find_pattern
from captioning.palette.regions import Figure
from captioning.palette.skin import Skin, find_skin, passes_for_skin

# Below this mean difference from the border there is no telling a person from the background.
LEAST_CONTRAST = 4.0
_SAME_CLOTH = 15.0
# A bag may fill one zone entirely; the garment shows in several.
_ZONE_CAP = 0.6
# Shares and widths (in body heights) that decide; see each use.
_BARE = 0.12
_LEAST_BAG = 0.006
_BARE_ARM = 0.4
_ARM_WIDTH = 0.018
_FLARE = 1.1
_LONG_SKIRT = 0.95
# Width of the neck beyond which hair hangs beside it, and the area of hair on the shoulders.
_UNDECIDED = 1.1
_LEAST_EVIDENCE = 0.65
_NECK = 0.133
_LONG_HAIR = 0.0018


@dataclass(frozen=True)
class Cloth:
    """A garment as seen: its colours by falling share, its pattern, and the CIELAB centre of the first colour."""

    colours: tuple[ColourName, ...]
    pattern: Pattern | None
    lab: np.ndarray
    share: float


def read_description(figure: Figure) -> Description:
    """All attributes of the figure; what cannot be told is left out."""
    if figure.contrast < LEAST_CONTRAST:
        return Description()
    skin = find_skin(figure)
    half = torso_half_width(figure)
    upper, inner = read_upper(figure, skin, half)
    hair, hair_colour, hat_colour = read_head(figure, skin, upper)
    legs = read_legs(figure, skin, upper, hair)
    bag, bag_colour = read_bag(figure, skin, half, upper, legs.cloth)
    sleeves = read_sleeves(figure, skin, upper)
    return Description(
        gender=read_gender(hair, legs),
        upper=upper_kind(sleeves, legs, inner, skin),
        upper_colours=upper.colours if upper else (),
        upper_pattern=_pattern_reading(upper),
        inner_colour=Reading(inner.term, inner.confidence) if inner else NOTHING,
        sleeves=sleeves,
        lower=legs.kind,
        lower_colours=legs.cloth.colours if legs.cloth else (),
        lower_pattern=_pattern_reading(legs.cloth),
        legs_colour=legs.below,
        shoe_colour=read_shoes(figure, skin, legs),
        hair=hair,
        hair_colour=hair_colour,
        hat_colour=hat_colour,
        bag=bag,
        bag_colour=bag_colour,
    )


def _pattern_reading(cloth: Cloth | None) -> Reading:
    pattern = cloth.pattern if cloth else None
    return Reading(pattern.kind, pattern.confidence) if pattern else NOTHING


def torso_half_width(figure: Figure) -> float:
    """Half the width of the torso in body heights: 0.06 from the side to 0.16 from the front."""
    rows = (figure.down > 0.24) & (figure.down < 0.44)
    solid = (figure.person > 0.45) & rows[:, None]
    pixel = figure.across[0, 1] - figure.across[0, 0]
    widths = solid.sum(axis=1)[rows] * pixel
    return float(np.clip(np.median(widths) / 2 if rows.any() else 0.1, 0.06, 0.16))


def read_upper(figure: Figure, skin: Skin, half: float) -> tuple[Cloth | None, ColourName | None]:
    """The upper garment, and the colour that shows where it is open in front.

    The middle and the two sides are read apart. A jacket, coat or shirt under a backpack shows on both sides; a bag
    or a strap on one side only; so what two of the three agree on is the garment.
    """
    cloth = _not_skin(skin, figure.band(0.24, 0.43, 0.45 * half))
    side = figure.band(0.22, 0.47, 1.2 * half, 0.6 * half) * cloth
    zones = {
        "middle": figure.band(0.24, 0.43, 0.45 * half) * cloth,
        "left": side * (figure.across < 0),
        "right": side * (figure.across > 0),
        "shoulders": figure.band(0.195, 0.235, half, 0.03) * cloth,
        "waist": figure.band(0.445, 0.50, half) * cloth,
    }
    pattern = cloth_pattern(figure, figure.person * cloth, 0.25, 0.45, 0.75 * half)
    if pattern is not None:
        lab = dominant_colours(figure.lab, sum(zones.values()))
        return Cloth(pattern.colours, pattern, lab[0].lab, 1.0) if lab else None, None
    patches = {name: dominant_colours(figure.lab, weights) for name, weights in zones.items()}
    shares = {name: {patch.name.term: patch.share for patch in found} for name, found in patches.items()}
    terms = {patch.name.term for found in patches.values() for patch in found} - _bag_terms(shares)
    if not terms:
        return None, None
    term = max(
        sorted(terms), key=lambda name: sum(min(of.get(name, 0.0), _ZONE_CAP) for of in shares.values())
    )
    total = sum(of.get(term, 0.0) for of in shares.values()) / len(zones)
    of_term = (patch for found in patches.values() for patch in found if patch.name.term == term)
    best = max(of_term, key=lambda patch: patch.share)
    inner = None
    middle = patches["middle"][0] if patches["middle"] else None
    if middle is not None and middle.name.term != term and middle.share > 0.4:
        inner = middle.name
    return Cloth((best.name,), None, best.lab, total), inner


def _not_skin(skin: Skin, middle: np.ndarray) -> np.ndarray:
    """(H, W) 1 off the skin; everywhere, if most of the middle of the trunk passes for skin: it is brown cloth."""
    if float((middle * skin.mask).sum()) > 0.6 * float(middle.sum()):
        return np.ones_like(skin.mask)
    return 1 - skin.mask


def _bag_terms(shares: dict[str, dict[str, float]]) -> set[str]:
    """Colours of bags, hair and scarves: they do not reach the waist, where the garment of the upper zones shows."""
    waist = shares["waist"]
    if not waist:
        return set()
    below = max(waist, key=waist.__getitem__)
    around = max(shares[name].get(below, 0.0) for name in ("left", "right", "shoulders"))
    if waist[below] < 0.4 or around < 0.15:
        return set()
    return {term for of in shares.values() for term in of if waist.get(term, 0.0) < 0.2} - {below}


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
    hip = _plain_cloth(figure, figure.band(0.56, 0.65, 0.13) * cloth)
    shins = _plain_cloth(figure, figure.band(0.75, 0.87, 0.25) * cloth)
    bare = _share(figure, skin, 0.76, 0.86)
    if hip is None:
        return Legs(NOTHING, shins, bare)
    pattern = cloth_pattern(figure, figure.person * cloth, 0.55, 0.66, 0.08)
    if pattern is not None:
        hip = Cloth(pattern.colours, pattern, hip.lab, hip.share)
    under_upper = upper is not None and _same(hip, upper)
    if bare > _BARE:
        if under_upper and hair.value != "short":
            return Legs(NOTHING, None, bare)
        return Legs(_short_garment(figure, hair), hip, bare)
    if shins is None:
        return Legs(Reading("trousers", 0.4), hip, bare)
    if under_upper and not _same(hip, shins):
        return Legs(Reading("trousers", 0.5), shins, bare)
    if not _same(hip, shins) and _flare(figure) > _FLARE:
        return Legs(Reading("skirt", 0.6), hip, bare, Reading(shins.colours[0].term, 0.6))
    whole = _plain_cloth(figure, figure.band(0.56, 0.86, 0.2) * cloth) or hip
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


def _plain_cloth(figure: Figure, weights: np.ndarray) -> Cloth | None:
    patches = dominant_colours(figure.lab, weights, most=2)
    if not patches:
        return None
    return Cloth((patches[0].name,), None, patches[0].lab, patches[0].share)


def _same(first: Cloth, second: Cloth) -> bool:
    return bool(colour_distance(first.lab, second.lab) < _SAME_CLOTH)


def _share(figure: Figure, skin: Skin, top: float, bottom: float) -> float:
    """Share of bare skin in the person between two heights."""
    weights = figure.band(top, bottom, 0.25)
    return float((weights * skin.mask).sum() / max(float(weights.sum()), 1e-6))


def _width(figure: Figure, top: float, bottom: float) -> float:
    """Mean width of the person between two heights, in body heights."""
    rows = (figure.down >= top) & (figure.down < bottom)
    pixel = figure.across[0, 1] - figure.across[0, 0]
    return float((figure.person[rows] > 0.45).sum(axis=1).mean() * pixel) if rows.any() else 0.0


def read_sleeves(figure: Figure, skin: Skin, upper: Cloth | None) -> Reading:
    """Bare forearms are short sleeves, bare upper arms none; a skin-coloured garment tells nothing."""
    if upper is None:
        return NOTHING
    if passes_for_skin(upper.lab, skin.tone):
        return NOTHING
    forearm = _skin_rows(figure, skin, 0.37, 0.47, 0.0)
    upper_arm = _skin_rows(figure, skin, 0.24, 0.32, 0.03)
    if forearm < _BARE_ARM:
        return Reading("long", 0.6 + 0.4 * (1 - forearm / _BARE_ARM))
    kind = "none" if upper_arm > 0.6 else "short"
    return Reading(kind, 0.5 + 0.5 * min(1.0, (forearm - _BARE_ARM) / (1 - _BARE_ARM)))


def _skin_rows(figure: Figure, skin: Skin, top: float, bottom: float, inner: float) -> float:
    """Share of the rows between two heights in which at least the width of a narrow arm is bare."""
    rows = (figure.down >= top) & (figure.down < bottom)
    bare = (figure.band(top, bottom, 0.22, inner) > 0.3) * skin.mask
    pixel = figure.across[0, 1] - figure.across[0, 0]
    return float((bare.sum(axis=1)[rows] * pixel > _ARM_WIDTH).mean()) if rows.any() else 0.0


def upper_kind(sleeves: Reading, legs: Legs, inner: ColourName | None, skin: Skin) -> Reading:
    """A dress goes on over the thighs; an open jacket shows another colour in front."""
    if legs.cloth is None and legs.bare > _BARE:
        return Reading("dress", 0.7)
    if inner is not None and skin.face and sleeves.value == "long":
        return Reading("jacket", 0.6)
    return Reading("top", 0.6)


def read_shoes(figure: Figure, skin: Skin, legs: Legs) -> Reading:
    """The colour at the feet that is neither ground, its shadow, skin nor the trousers."""
    feet = figure.band(0.925, 0.99, 0.3) * (1 - skin.mask) * (1 - _shadow(figure))
    if legs.cloth is not None:
        other = colour_distance(figure.lab, legs.cloth.lab) > _SAME_CLOTH
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
    return (alike & (darker > 0.5) & (darker < 0.95)).astype(np.float32)


def read_head(figure: Figure, skin: Skin, upper: Cloth | None) -> tuple[Reading, Reading, Reading]:
    """Hair length, hair colour and hat colour: what covers the crown, and whether it hangs down beside the neck."""
    weights = figure.band(0.015, 0.055, 0.045)
    weights = weights * (1 - skin.mask * skin.face) * (weights > 0.3)
    crown = dominant_colours(figure.lab, weights, most=2)
    if not crown:
        return NOTHING, NOTHING, NOTHING
    top = crown[0]
    colour = hair_colour(top.lab)
    length = _hair_length(figure, skin, upper, top)
    if not colour:
        return length, NOTHING, Reading(top.name.term, top.name.confidence * top.share)
    return length, Reading(colour, top.share), NOTHING


def _hair_length(figure: Figure, skin: Skin, upper: Cloth | None, crown: Patch) -> Reading:
    """Long hair hides the narrow neck, and puts the colour of the crown on the shoulders."""
    rows = (figure.down >= 0.135) & (figure.down < 0.185)
    pixel = figure.across[0, 1] - figure.across[0, 0]
    solid = (figure.person > 0.45) * (np.abs(figure.across) < 0.14)
    neck = float(solid[rows].sum(axis=1).min() * pixel) if rows.any() else _NECK
    evidence = float(np.clip((neck - _NECK) / 0.02, -1.5, 1.5))
    if upper is None or colour_distance(upper.lab, crown.lab) > 1.3 * _SAME_CLOTH:
        alike = colour_distance(figure.lab, crown.lab) < _SAME_CLOTH
        hanging = figure.band(0.14, 0.25, 0.13) * alike * (1 - skin.mask * skin.face)
        area = float(hanging.sum() * pixel**2)
        evidence += float(np.clip((area - _LONG_HAIR) / _LONG_HAIR, -1.0, 1.5))
    return Reading("long" if evidence > 0 else "short", _certainty(1.3 * (abs(evidence) - _LEAST_EVIDENCE)))


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


def read_bag(
    figure: Figure, skin: Skin, half: float, upper: Cloth | None, lower: Cloth | None
) -> tuple[Reading, Reading]:
    """A compact patch on the trunk or beside it that has neither the clothes' colours nor the skin's.

    High up it is a backpack, at the hip a bag; the rest of the trunk's colours are logos, straps and hair.
    """
    if upper is None:
        return NOTHING, NOTHING
    foreign = (
        (figure.person > 0.4)
        & (skin.mask < 0.5)
        & (colour_distance(figure.lab, upper.lab) > 1.6 * _SAME_CLOTH)
    )
    if upper.pattern is not None or upper.share < 0.3:
        return NOTHING, NOTHING
    if lower is not None:
        foreign &= colour_distance(figure.lab, lower.lab) > 1.2 * _SAME_CLOTH
    foreign &= ((figure.down > 0.21) & (figure.down < 0.62))[:, None] & (np.abs(figure.across) < 0.3)
    pixel = float(figure.across[0, 1] - figure.across[0, 0])
    row = float(figure.down[1] - figure.down[0])
    labels, count = ndimage.label(ndimage.binary_opening(foreign, np.ones((3, 3))))
    for index in np.argsort(-np.bincount(labels.ravel(), minlength=count + 1)[1:]) + 1:
        rows, columns = np.nonzero(labels == index)
        area = len(rows) * pixel * row
        if area < _LEAST_BAG:
            break
        box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        if len(rows) < 0.55 * box:
            continue
        centre = float(figure.down[rows].mean())
        beside = abs(float(figure.across[rows, columns].mean())) > 0.5 * half
        if centre < 0.40 and (beside or not skin.face):
            kind = "backpack"
        elif centre >= 0.40 and (beside or area < 0.02):
            kind = "bag"
        else:
            continue
        patches = dominant_colours(figure.lab, (labels == index) * figure.person, most=2)
        if patches and patches[0].share > 0.5:
            return Reading(kind, 0.7), Reading(patches[0].name.term, patches[0].share)
    return NOTHING, NOTHING


def read_gender(hair: Reading, legs: Legs) -> Reading:
    """By hair length and by skirts and dresses; unknown where neither decides."""
    evidence = 0.0
    if hair.value:
        evidence += (1 if hair.value == "long" else -1) * 2 * hair.confidence
    if legs.cloth is None and legs.bare > _BARE:
        evidence += 0.6
    elif "skirt" in legs.kind.value:
        evidence += 0.6 * legs.kind.confidence
    elif legs.kind.value == "shorts":
        evidence -= 0.4 * legs.kind.confidence
    if abs(evidence) < _UNDECIDED:
        return NOTHING
    return Reading("female" if evidence > 0 else "male", _certainty(1.5 * (abs(evidence) - 0.5 * _UNDECIDED)))


def _certainty(evidence: float) -> float:
    """Evidence of either sign to (0, 1); 0.5 at none."""
    return float(1 / (1 + np.exp(-evidence)))
