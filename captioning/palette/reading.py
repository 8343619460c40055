"""From the regions of a figure to a description."""

from __future__ import annotations

from captioning.palette.bag import read_bag
from captioning.palette.cloth import pattern_reading
from captioning.palette.colours import ColourName
from captioning.palette.description import NOTHING, Description, Reading, certainty
from captioning.palette.head import read_head
from captioning.palette.legs import BARE, Legs, read_legs, read_shoes
from captioning.palette.regions import Figure
from captioning.palette.skin import Skin, find_skin
from captioning.palette.upper import read_sleeves, read_upper, torso_half_width

# Below this mean difference from the border there is no telling a person from the background.
LEAST_CONTRAST = 4.0
# Evidence below this leaves the gender open.
_UNDECIDED = 1.1


def read_description(figure: Figure) -> Description:
    """All attributes of the figure; what cannot be told is left out."""
    if figure.contrast < LEAST_CONTRAST:
        return Description()
    skin = find_skin(figure)
    half = torso_half_width(figure)
    upper = read_upper(figure, skin, half)
    head = read_head(figure, skin, upper.cloth)
    legs = read_legs(figure, skin, upper.cloth, head.hair)
    bag, bag_colour = read_bag(figure, skin, half, upper, legs.cloth, head.crown)
    sleeves = read_sleeves(figure, skin, upper.cloth)
    inner = upper.inner
    return Description(
        gender=read_gender(head.hair, legs),
        upper=_upper_kind(sleeves, legs, inner, skin),
        upper_colours=upper.cloth.colours if upper.cloth else (),
        upper_pattern=pattern_reading(upper.cloth),
        inner_colour=Reading(inner.term, inner.confidence) if inner else NOTHING,
        sleeves=sleeves,
        lower=legs.kind,
        lower_colours=legs.cloth.colours if legs.cloth else (),
        lower_pattern=pattern_reading(legs.cloth),
        legs_colour=legs.below,
        shoe_colour=read_shoes(figure, skin, legs),
        hair=head.hair,
        hair_colour=head.hair_colour,
        hat_colour=head.hat_colour,
        bag=bag,
        bag_colour=bag_colour,
    )


def _upper_kind(sleeves: Reading, legs: Legs, inner: ColourName | None, skin: Skin) -> Reading:
    """A dress goes on over the thighs; an open jacket shows another colour in front."""
    if legs.cloth is None and legs.bare > BARE:
        return Reading("dress", 0.7)
    if inner is not None and skin.face and sleeves.value == "long":
        return Reading("jacket", 0.6)
    return Reading("top", 0.6)


def read_gender(hair: Reading, legs: Legs) -> Reading:
    """By hair length and by skirts and dresses; unknown where neither decides."""
    evidence = 0.0
    if hair.value:
        evidence += (1 if hair.value == "long" else -1) * 2 * hair.confidence
    if legs.cloth is None and legs.bare > BARE:
        evidence += 0.6
    elif "skirt" in legs.kind.value:
        evidence += 0.6 * legs.kind.confidence
    elif legs.kind.value == "shorts":
        evidence -= 0.4 * legs.kind.confidence
    if abs(evidence) < _UNDECIDED:
        return NOTHING
    return Reading("female" if evidence > 0 else "male", certainty(1.5 * (abs(evidence) - 0.5 * _UNDECIDED)))
