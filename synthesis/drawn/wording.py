"""How the people of a world write about a picture: their words, what they mention, and the shapes of their sentences.

Tables only; `phrases` and `captions` put them together. A table's entries are alternatives, drawn with equal chances.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Words = Mapping[str, tuple[str, ...]]

COLOUR_WORDS: Words = {
    "dark blue": ("dark blue", "navy blue", "navy", "blue"),
    "light blue": ("light blue", "blue", "light blue"),
    "dark red": ("dark red", "maroon", "red"),
    "light brown": ("light brown", "beige", "tan", "khaki"),
    "dark brown": ("dark brown", "brown"),
    "grey": ("grey", "gray"),
    "light grey": ("light grey", "light gray", "grey", "gray"),
    "dark grey": ("dark grey", "dark gray", "grey", "gray"),
    "light purple": ("light purple", "purple", "lavender"),
    "blond": ("blond", "blonde"),
}
NOUNS: Words = {
    "t-shirt": ("t-shirt", "t-shirt", "short sleeved t-shirt", "short sleeved shirt", "tee shirt"),
    "polo shirt": ("polo shirt", "polo", "short sleeved polo shirt"),
    "blouse": ("blouse", "top", "shirt"),
    "tank top": ("tank top", "sleeveless top", "sleeveless shirt"),
    "sweater": ("sweater", "long sleeved sweater", "pullover", "long sleeved shirt"),
    "hoodie": ("hoodie", "hooded sweatshirt", "hoodie sweatshirt"),
    "jacket": ("jacket", "jacket", "long sleeved jacket"),
    "suit jacket": ("suit jacket", "suit coat", "blazer"),
    "coat": ("long coat", "coat", "overcoat"),
    "down jacket": ("puffy jacket", "down jacket", "winter jacket", "padded jacket"),
    "short dress": ("short sleeved dress", "dress"),
    "sleeveless dress": ("sleeveless dress", "dress"),
    "long dress": ("long sleeved dress", "dress"),
    "short shirt": ("short sleeved shirt", "short sleeved button up shirt"),
    "long shirt": ("long sleeved shirt", "button up shirt", "shirt", "dress shirt"),
    "jeans": ("jeans", "jeans", "denim jeans", "denim pants"),
    "trousers": ("pants", "pants", "trousers", "long pants"),
    "leggings": ("leggings", "leggings", "tight pants"),
    "tights": ("tights", "stockings"),
    "shorts": ("shorts", "shorts", "knee length shorts"),
    "skirt": ("skirt", "short skirt", "knee length skirt"),
    "long skirt": ("long skirt", "long skirt", "ankle length skirt"),
    "sneakers": ("sneakers", "shoes", "tennis shoes", "running shoes"),
    "leather shoes": ("shoes", "leather shoes", "dress shoes"),
    "boots": ("boots",),
    "sandals": ("sandals",),
    "high heels": ("high heels", "heels", "high heeled shoes"),
    "backpack": ("backpack", "backpack", "rucksack", "book bag"),
    "shoulder bag": ("shoulder bag", "messenger bag", "bag"),
    "handbag": ("handbag", "purse", "bag"),
    "suitcase": ("suitcase", "rolling suitcase"),
    "cap": ("cap", "baseball cap", "hat"),
    "knit hat": ("knit hat", "beanie", "hat"),
    "sun hat": ("sun hat", "wide brimmed hat", "hat"),
    "scarf": ("scarf",),
    "inner": ("shirt", "shirt", "t-shirt", "top"),
    "inner of a suit": ("shirt", "dress shirt"),
    "print": ("print", "logo", "design", "graphic"),
    "chest": ("front", "chest"),
    "glasses": ("glasses", "a pair of glasses"),
}
# {first} and {second} are colours, {noun} the garment.
PATTERNS: Words = {
    "horizontal stripes": (
        "{first} and {second} striped {noun}",
        "{first} {noun} with {second} stripes",
        "striped {first} and {second} {noun}",
    ),
    "vertical stripes": (
        "{first} and {second} striped {noun}",
        "{first} {noun} with {second} vertical stripes",
    ),
    "checks": ("{first} and {second} checkered {noun}", "{first} and {second} plaid {noun}"),
}
# {outer} and {inner} come with their articles, {open} is the outer one as "an open ...".
LAYERED = ("{outer} over {inner}", "{open} and {inner}", "{outer} with {inner} underneath")
HAIR: Words = {
    "bald": ("a bald head", "no hair"),
    "ponytail": (
        "{colour} hair in a ponytail",
        "{a_colour} ponytail",
        "long {colour} hair tied back in a ponytail",
    ),
    "bun": ("{colour} hair in a bun", "{colour} hair tied up in a bun"),
    "shoulder-length": ("shoulder length {colour} hair", "medium length {colour} hair"),
    "short": ("short {colour} hair",),
    "long": ("long {colour} hair",),
}
# Clauses that follow "is". {bag} comes with its article, {his} is "his" or "her".
CARRIED: Words = {
    "backpack": (
        "carrying {bag}",
        "wearing {bag}",
        "carrying {bag} on {his} back",
        "wearing {bag} on {his} back",
    ),
    "shoulder bag": (
        "carrying {bag}",
        "carrying {bag} over {his} shoulder",
        "wearing {bag} across {his} body",
    ),
    "suitcase": ("pulling {bag}", "rolling {bag}", "pulling {bag} behind"),
    "handbag": (
        "carrying {bag}",
        "holding {bag}",
        "carrying {bag} in {his} hand",
        "holding {bag} in one hand",
    ),
}
# {side} is "left" or "right".
POSES: Words = {
    "walking front": (
        "walking towards the camera",
        "walking facing forward",
        "walking and facing the camera",
    ),
    "standing front": (
        "standing towards the camera",
        "standing facing forward",
        "standing and facing the camera",
    ),
    "walking back": ("walking away from the camera", "walking and facing away"),
    "standing back": ("standing with the back to the camera", "standing and facing away"),
    "walking side": ("walking to the {side}", "walking and facing {side}"),
    "standing side": ("standing sideways", "standing and facing {side}"),
}
SUBJECTS: Words = {
    "man": ("man", "man", "man", "young man", "guy", "male", "person"),
    "woman": ("woman", "woman", "woman", "young woman", "lady", "girl", "female", "person"),
}
# Share of annotators who mention a thing that they notice.
MENTIONED: Mapping[str, float] = {
    "lower": 0.96,
    "shoes": 0.6,
    "hat": 0.88,
    "scarf": 0.7,
    "glasses": 0.5,
    "hair": 0.62,
    "bag": 0.9,
    "pose": 0.35,
}


@dataclass(frozen=True)
class Wording:
    """The words of a world's annotators.

    Attributes:
        shape: which sentences they write (`captions`, `sentences`).
        mentioned: the share of annotators who mention a thing that they notice; `by_view` multiplies it for images seen
            from the "front", the "back" or a "side", so that captions of one person differ by view.
        mistakes: the share of captions with a wrong colour or the wrong gender.
    """

    shape: Literal["street", "source", "target"] = "street"
    colours: Words = field(default_factory=lambda: COLOUR_WORDS)
    nouns: Words = field(default_factory=lambda: NOUNS)
    patterns: Words = field(default_factory=lambda: PATTERNS)
    layered: tuple[str, ...] = LAYERED
    hair: Words = field(default_factory=lambda: HAIR)
    carried: Words = field(default_factory=lambda: CARRIED)
    poses: Words = field(default_factory=lambda: POSES)
    subjects: Words = field(default_factory=lambda: SUBJECTS)
    mentioned: Mapping[str, float] = field(default_factory=lambda: MENTIONED)
    by_view: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    mistakes: float = 0.02


STREET_WORDING = Wording()
