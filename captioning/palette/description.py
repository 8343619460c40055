"""What is read off one person, each attribute with how sure the reading is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from captioning.palette.colours import ColourName

# A reading below this is not mentioned.
SURE = 0.5


@dataclass(frozen=True)
class Reading:
    """One attribute: `value` ("" = not there or not readable) and `confidence` in [0, 1]."""

    value: str = ""
    confidence: float = 0.0

    @property
    def sure(self) -> bool:
        """Whether the reading is good enough to be written down."""
        return bool(self.value) and self.confidence >= SURE


NOTHING = Reading()


def certainty(evidence: float) -> float:
    """Evidence of either sign to (0, 1): 0.5 at none (logistic function)."""
    return 1 / (1 + math.exp(-evidence))


@dataclass(frozen=True)
class Description:
    """The attributes of a person crop.

    Attributes:
        gender: "male" or "female"; by hair and cut of the clothes.
        upper: kind of the upper garment: "top", "jacket" (open over another colour), "coat" or "dress".
        upper_colours, lower_colours: one colour, or two of a pattern, the stronger first.
        upper_pattern, lower_pattern: "horizontal stripes", "vertical stripes", "checks" or "" for plain.
        inner_colour: what an open jacket shows.
        sleeves: "long", "short" or "none".
        lower: "trousers", "shorts", "skirt", "long skirt"; "" under a dress.
        legs_colour: tights or boots under a skirt or dress, if the legs are not bare.
        shoe_colour, hair_colour, hat_colour, bag_colour: a basic colour term, or a hair colour.
        hair: "short" or "long".
        bag: "backpack" or "bag".
    """

    gender: Reading = NOTHING
    upper: Reading = NOTHING
    upper_colours: tuple[ColourName, ...] = ()
    upper_pattern: Reading = NOTHING
    inner_colour: Reading = NOTHING
    sleeves: Reading = NOTHING
    lower: Reading = NOTHING
    lower_colours: tuple[ColourName, ...] = ()
    lower_pattern: Reading = NOTHING
    legs_colour: Reading = NOTHING
    shoe_colour: Reading = NOTHING
    hair: Reading = NOTHING
    hair_colour: Reading = NOTHING
    hat_colour: Reading = NOTHING
    bag: Reading = NOTHING
    bag_colour: Reading = NOTHING
