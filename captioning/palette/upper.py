"""The upper garment: its colours behind bags, straps and open jackets, its pattern and its sleeves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from captioning.palette.cloth import Cloth, cloth_pattern
from captioning.palette.colours import ColourName
from captioning.palette.description import NOTHING, Reading
from captioning.palette.dominant import Patch, dominant_colours
from captioning.palette.regions import Figure
from captioning.palette.skin import Skin, passes_for_skin

# A bag may fill one zone entirely; the garment shows in several.
_ZONE_CAP = 0.6
_IN_THE_MIDDLE = 0.25
# Share of the rows of the forearm and of the upper arm that must be bare, and the width (body heights) of an arm.
_BARE_FOREARM, _BARE_UPPER_ARM = 0.4, 0.6
_ARM_WIDTH = 0.018

Shares = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Upper:
    """The garment, the colour that shows where it is open in front, and the patch of a bag that hides it."""

    cloth: Cloth | None = None
    inner: ColourName | None = None
    hidden_by: Patch | None = None


def torso_half_width(figure: Figure) -> float:
    """Half the width of the torso in body heights: 0.06 from the side to 0.16 from the front."""
    rows = (figure.down > 0.24) & (figure.down < 0.44)
    solid = (figure.person > 0.45) & rows[:, None]
    pixel = figure.across[0, 1] - figure.across[0, 0]
    widths = solid.sum(axis=1)[rows] * pixel
    return float(np.clip(np.median(widths) / 2 if rows.any() else 0.1, 0.06, 0.16))


def read_upper(figure: Figure, skin: Skin, half: float) -> Upper:
    """Read the trunk in five zones and take the colour that most of them show.

    A jacket, coat or shirt under a backpack shows on both sides and at the waist; a bag or a strap in one zone only.
    """
    zones = _zones(figure, skin, half)
    pattern = cloth_pattern(figure, figure.person * _not_skin(figure, skin, half), 0.25, 0.45, 0.75 * half)
    if pattern is not None:
        whole = dominant_colours(figure.lab, sum(zones.values()))
        return Upper(Cloth(pattern.colours, pattern, whole[0].lab, 1.0) if whole else None)
    patches = {name: dominant_colours(figure.lab, weights) for name, weights in zones.items()}
    shares = {name: {patch.name.term: patch.share for patch in found} for name, found in patches.items()}
    everything = [patch for found in patches.values() for patch in found]
    before = _terms_before(shares)
    terms = sorted({patch.name.term for patch in everything} - before)
    if not terms:
        return Upper()
    term = max(terms, key=lambda name: sum(min(of.get(name, 0.0), _ZONE_CAP) for of in shares.values()))
    total = sum(of.get(term, 0.0) for of in shares.values()) / len(zones)
    best = max((patch for patch in everything if patch.name.term == term), key=lambda patch: patch.share)
    middle = patches["middle"][0] if patches["middle"] else None
    shows = middle is not None and middle.name.term != term and middle.share > 0.4
    hiding = _hiding_patch(patches, before, skin.face)
    return Upper(Cloth((best.name,), None, best.lab, total), middle.name if shows else None, hiding)


def _hiding_patch(patches: dict[str, list[Patch]], before: set[str], face: bool) -> Patch | None:
    """The largest patch in front of the garment; seen from the front, what is in the middle is a shirt or a scarf."""
    if face:
        before = before - {patch.name.term for patch in patches["middle"] if patch.share > _IN_THE_MIDDLE}
    trunk = [patch for name in ("middle", "left", "right") for patch in patches[name]]
    return max((p for p in trunk if p.name.term in before), key=lambda patch: patch.share, default=None)


def _zones(figure: Figure, skin: Skin, half: float) -> dict[str, np.ndarray]:
    """(H, W) weights of the middle, the two sides, the shoulders and the waist, off the skin."""
    cloth = _not_skin(figure, skin, half)
    side = figure.band(0.22, 0.47, 1.2 * half, 0.6 * half) * cloth
    return {
        "middle": figure.band(0.24, 0.43, 0.45 * half) * cloth,
        "left": side * (figure.across < 0),
        "right": side * (figure.across > 0),
        "shoulders": figure.band(0.195, 0.235, half, 0.03) * cloth,
        "waist": figure.band(0.445, 0.50, half) * cloth,
    }


def _not_skin(figure: Figure, skin: Skin, half: float) -> np.ndarray:
    """(H, W) 1 off the skin; everywhere, if most of the middle of the trunk passes for skin: it is brown cloth."""
    middle = figure.band(0.24, 0.43, 0.45 * half)
    if float((middle * skin.mask).sum()) > 0.6 * float(middle.sum()):
        return np.ones_like(skin.mask)
    return 1 - skin.mask


def _terms_before(shares: Shares) -> set[str]:
    """Colours of bags, hair and scarves: they do not reach the waist, where the garment of the upper zones shows."""
    waist = shares["waist"]
    if not waist:
        return set()
    below = max(waist, key=waist.__getitem__)
    around = max(shares[name].get(below, 0.0) for name in ("left", "right", "shoulders"))
    if waist[below] < 0.4 or around < 0.15:
        return set()
    return {term for of in shares.values() for term in of if waist.get(term, 0.0) < 0.2} - {below}


def read_sleeves(figure: Figure, skin: Skin, upper: Cloth | None) -> Reading:
    """Bare forearms are short sleeves, bare upper arms none; a skin-coloured garment tells nothing."""
    if upper is None:
        return NOTHING
    if passes_for_skin(upper.lab, skin.tone):
        return NOTHING
    forearm = _skin_rows(figure, skin, 0.37, 0.47, 0.0)
    upper_arm = _skin_rows(figure, skin, 0.24, 0.32, 0.03)
    if forearm < _BARE_FOREARM:
        return Reading("long", 0.6 + 0.4 * (1 - forearm / _BARE_FOREARM))
    kind = "none" if upper_arm > _BARE_UPPER_ARM else "short"
    return Reading(kind, 0.5 + 0.5 * min(1.0, (forearm - _BARE_FOREARM) / (1 - _BARE_FOREARM)))


def _skin_rows(figure: Figure, skin: Skin, top: float, bottom: float, inner: float) -> float:
    """Share of the rows between two heights in which at least the width of a narrow arm is bare."""
    rows = (figure.down >= top) & (figure.down < bottom)
    bare = (figure.band(top, bottom, 0.22, inner) > 0.3) * skin.mask
    pixel = figure.across[0, 1] - figure.across[0, 0]
    return float((bare.sum(axis=1)[rows] * pixel > _ARM_WIDTH).mean()) if rows.any() else 0.0
