"""The worlds that people can be drawn in: what is worn, by which cameras it is seen, where, and in which words it is told.

`STREET` is the demo of version 0.1. `SOURCE` and `TARGET` are a miniature of the real situation: plenty of general data that
a model was pre-trained on, and cameras and people that it has never seen. They share no combination of garments
(`attributes.share_of`), so no identity, and no sentence (`sentences`); garments, colours and most words are common to both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from synthesis.drawn.attributes import (
    LOWER_COLOURS,
    STREET_FASHION,
    UPPER_COLOURS,
    UPPER_KINDS,
    Fashion,
)
from synthesis.drawn.background import STREET_SCENERY, Scenery
from synthesis.drawn.camera import CAMERAS, STREET_OPTICS, Camera, Optics
from synthesis.drawn.wording import (
    CARRIED,
    COLOUR_WORDS,
    HAIR,
    MENTIONED,
    NOUNS,
    PATTERNS,
    POSES,
    STREET_WORDING,
    Wording,
    Words,
)


@dataclass(frozen=True)
class World:
    """Everything that renderer, attributes and captions need to know of a world.

    Attributes:
        name: as `WORLDS` has it.
        fashion: who lives there and what they wear.
        cameras: where pictures are taken, in turn; `optics` how.
        scenery: the colours of what stands behind people.
        wording: how pictures are described.
        images: of a person, unless a command says otherwise.
    """

    name: str
    fashion: Fashion
    cameras: tuple[Camera, ...]
    optics: Optics
    scenery: Scenery
    wording: Wording
    images: int = 4


STREET = World("street", STREET_FASHION, CAMERAS, STREET_OPTICS, STREET_SCENERY, STREET_WORDING)

# --- words: annotators of the target write as they like; the source has read all their words, and more ------------------

_TARGET_NOUNS = NOUNS | {
    "t-shirt": ("t-shirt", "tee", "short sleeved shirt", "tee shirt"),
    "sweater": ("jumper", "sweater", "knitted sweater", "pullover"),
    "hoodie": ("hoodie", "sweatshirt with a hood", "hooded top"),
    "jacket": ("jacket", "windbreaker", "zip up jacket"),
    "coat": ("coat", "trench coat", "long winter coat"),
    "down jacket": ("puffy jacket", "parka", "quilted jacket", "winter jacket"),
    "suit jacket": ("blazer", "suit jacket"),
    "jeans": ("jeans", "denims", "denim pants"),
    "trousers": ("trousers", "slacks", "pants", "long trousers"),
    "sneakers": ("sneakers", "trainers", "sports shoes", "shoes"),
    "backpack": ("backpack", "rucksack", "school bag"),
    "shoulder bag": ("shoulder bag", "sling bag", "satchel"),
    "handbag": ("handbag", "tote", "purse"),
    "suitcase": ("suitcase", "trolley"),
    "inner": ("shirt", "top", "t-shirt"),
    "print": ("picture", "logo", "print"),
    "glasses": ("glasses", "spectacles"),
}
_TARGET_WORDING = Wording(
    shape="target",
    colours=COLOUR_WORDS
    | {
        "dark blue": ("navy", "dark blue", "navy blue"),
        "dark grey": ("charcoal", "dark grey", "grey"),
        "dark red": ("burgundy", "dark red", "maroon"),
        "light blue": ("light blue", "sky blue", "blue"),
        "light brown": ("beige", "tan", "light brown"),
        "dark green": ("dark green", "olive", "green"),
        "white": ("white", "white", "off white"),
    },
    nouns=_TARGET_NOUNS,
    patterns=PATTERNS
    | {
        "checks": ("{first} and {second} checked {noun}", "{first} plaid {noun} with {second} in it"),
        "vertical stripes": (
            "{first} {noun} with thin {second} stripes",
            "{first} and {second} striped {noun}",
        ),
    },
    layered=("{outer} and under it {inner}", "{open}, {inner} showing"),
    hair=HAIR
    | {"bun": ("{colour} hair in a bun",), "ponytail": ("a {colour} ponytail", "{colour} hair tied back")},
    carried=CARRIED
    | {
        "backpack": ("carrying {bag}", "wearing {bag}", "bearing {bag} on both shoulders"),
        "handbag": ("holding {bag}", "carrying {bag} by the strap"),
    },
    poses=POSES
    | {
        "walking front": ("walking towards us", "walking to the camera"),
        "walking back": ("walking away", "leaving"),
        "walking side": ("walking past", "crossing to the {side}"),
    },
    subjects={
        "man": ("man", "man", "guy", "gentleman", "male", "young man", "pedestrian"),
        "woman": ("woman", "woman", "lady", "girl", "female", "young woman", "pedestrian"),
    },
    mentioned=MENTIONED | {"lower": 0.9, "shoes": 0.55, "hair": 0.5, "glasses": 0.4, "pose": 0.3},
    by_view={
        "front": {"glasses": 2.0, "hair": 0.8, "bag": 0.8},
        "back": {"bag": 1.1, "hair": 1.5, "shoes": 0.6, "lower": 0.95},
        "side": {"shoes": 1.4, "hair": 0.7, "lower": 1.0},
    },
    mistakes=0.03,
)
_OWN_WORDING = Wording(
    shape="source",
    colours=COLOUR_WORDS
    | {
        "black": ("black", "black", "jet black"),
        "red": ("red", "red", "bright red"),
        "blue": ("blue", "blue", "bright blue"),
        "dark green": ("dark green", "green", "olive"),
        "light grey": ("light grey", "light gray", "grey", "gray", "silver"),
        "white": ("white", "white", "cream"),
    },
    nouns=NOUNS
    | {
        "t-shirt": ("t-shirt", "short sleeved t-shirt", "tee shirt", "tee", "shirt with short sleeves"),
        "blouse": ("blouse", "top", "shirt", "long sleeved top"),
        "sweater": ("sweater", "pullover", "sweatshirt", "shirt with long sleeves", "long sleeved sweater"),
        "jacket": ("jacket", "long sleeved jacket", "zip up jacket"),
        "coat": ("coat", "long coat", "overcoat", "trench coat"),
        "short dress": ("short sleeved dress", "dress with short sleeves", "dress"),
        "long dress": ("long sleeved dress", "dress with long sleeves", "dress"),
        "jeans": ("jeans", "denim jeans", "denim pants", "pants"),
        "trousers": ("pants", "trousers", "long pants", "slacks"),
        "sneakers": ("sneakers", "shoes", "tennis shoes", "running shoes", "trainers"),
        "backpack": ("backpack", "rucksack", "book bag", "bag"),
        "handbag": ("handbag", "purse", "bag", "hand bag"),
    },
    patterns=PATTERNS
    | {
        "horizontal stripes": (
            "{first} and {second} striped {noun}",
            "{first} and {second} horizontally striped {noun}",
            "{first} {noun} with {second} stripes",
        ),
        "vertical stripes": (
            "{first} and {second} vertically striped {noun}",
            "{first} {noun} with {second} vertical stripes",
        ),
        "checks": (
            "{first} and {second} checkered {noun}",
            "{first} and {second} plaid {noun}",
            "{first} and {second} checked {noun}",
        ),
    },
    subjects={
        "man": ("man", "man", "young man", "guy", "male", "person", "pedestrian", "gentleman", "boy"),
        "woman": ("woman", "woman", "young woman", "lady", "girl", "female", "person", "pedestrian"),
    },
    mentioned=MENTIONED | {"shoes": 0.75, "hair": 0.75, "glasses": 0.6, "pose": 0.3},
    mistakes=0.0,
)


def _knowing(wording: Wording, other: Wording) -> Wording:
    """`wording` with every word of `other`, too, but in its own sentences: general data has read what annotators write."""

    def both(first: Words, second: Words) -> Words:
        return {
            key: (*words, *(w for w in second.get(key, ()) if w not in words)) for key, words in first.items()
        }

    return replace(
        wording,
        colours=both(wording.colours, other.colours),
        nouns=both(wording.nouns, other.nouns),
        patterns=both(wording.patterns, other.patterns),
        layered=tuple(dict.fromkeys((*wording.layered, *other.layered))),
        hair=both(wording.hair, other.hair),
        carried=both(wording.carried, other.carried),
        poses=both(wording.poses, other.poses),
        subjects=both(wording.subjects, other.subjects),
    )


_SOURCE_WORDING = _knowing(_OWN_WORDING, _TARGET_WORDING)

# --- source: many people, clean cameras, the words that stand beside pictures -------------------------------------------

_SOURCE_CAMERAS = (
    Camera("cam_a", (1.02, 1.0, 0.98), 0.04, ("wall", "street")),
    Camera("cam_b", (0.98, 1.0, 1.02), 0.10, ("street", "park", "wall")),
    Camera("cam_c", (1.0, 1.0, 1.0), 0.15, ("park", "street")),
    Camera("cam_d", (1.03, 1.01, 0.96), 0.07, ("wall", "park")),
)
SOURCE = World(
    name="source",
    fashion=Fashion(
        name="source",
        upper_colours=UPPER_COLOURS | {"orange": 7, "purple": 8, "pink": 8, "brown": 8},
        lower_colours=LOWER_COLOURS
        | {"red": 9, "yellow": 6, "orange": 4, "purple": 6, "pink": 6, "green": 10},
        jeans_colours={"blue": 60, "black": 20, "grey": 20},
        shares=frozenset({0, 1, 2}),
    ),
    cameras=_SOURCE_CAMERAS,
    optics=Optics(
        cut=0.03,
        gain=(0.85, 1.15),
        gamma=(0.85, 1.15),
        blur=(0.0, 0.6),
        blurred=0.05,
        noise=(0.0, 3.5),
        quality=(82, 95),
        occluded=0.03,
        crowded=0.03,
    ),
    scenery=STREET_SCENERY,
    wording=_SOURCE_WORDING,
)

# --- target: other cameras, places and people, and annotators who tell what they see --------------------------------------

_TARGET_CAMERAS = (
    Camera("cam_e", (1.2, 1.0, 0.765), 0.10, ("station", "shop")),
    Camera("cam_f", (0.8, 0.98, 1.18), 0.20, ("yard", "station")),
    Camera("cam_g", (0.89, 1.1, 0.87), 0.15, ("shop", "yard")),
)
_TARGET_UPPER = {
    kind: replace(settings, men=settings.men * more, women=settings.women * more)
    for kind, settings in UPPER_KINDS.items()
    for more in [
        {"down jacket": 3.0, "coat": 1.6, "hoodie": 1.6, "t-shirt": 0.7, "polo shirt": 0.6}.get(kind, 1.0)
    ]
}
TARGET = World(
    name="target",
    fashion=Fashion(
        name="target",
        seasons=("summer", "winter", "winter"),
        upper_kinds=_TARGET_UPPER,
        upper_colours=UPPER_COLOURS
        | {"black": 24, "grey": 16, "blue": 16, "white": 14, "orange": 3, "yellow": 4},
        lower_colours=LOWER_COLOURS | {"black": 30, "blue": 24, "grey": 18, "white": 5, "red": 3},
        jeans_colours={"blue": 60, "black": 28, "grey": 12},
        hats=0.28,
        shares=frozenset({3}),
        look_alikes=0.15,
    ),
    cameras=_TARGET_CAMERAS,
    optics=Optics(
        rows=(96, 180),
        aspect=(0.38, 0.48),
        body=(0.95, 1.04),
        cut=0.15,
        cut_body=(1.08, 1.22),
        offset=0.06,
        cast=0.04,
        gain=(0.7, 1.05),
        dark=0.12,
        dark_gain=(0.52, 0.7),
        gamma=(0.9, 1.25),
        slope=0.2,
        blur=(0.3, 1.0),
        blurred=0.15,
        strong_blur=(1.1, 1.7),
        noise=(3.0, 9.0),
        quality=(50, 80),
        occluded=0.12,
        crowded=0.12,
    ),
    scenery=Scenery(
        grounds=((92, 94, 98), (120, 116, 108), (138, 132, 126), (80, 84, 80)),
        walls=((188, 186, 176), (120, 112, 104), (94, 100, 106), (160, 148, 132)),
        foliage=((70, 88, 70), (96, 98, 66)),
    ),
    wording=_TARGET_WORDING,
    images=6,
)

WORLDS: dict[str, World] = {world.name: world for world in (STREET, SOURCE, TARGET)}
