"""From a prompt's words to a drawn person and the camera that takes the picture; what no word says is drawn by lot."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from synthesis.drawn.attributes import (
    CHECKS,
    HAIR_COLOURS,
    HORIZONTAL,
    LOWER_COLOURS,
    PLAIN,
    PRINT,
    SHOE_COLOURS,
    SKIRT_COLOURS,
    UPPER_COLOURS,
    VERTICAL,
    Fashion,
    Garment,
    Person,
    Thing,
    sample_person,
)
from synthesis.drawn.background import Scenery
from synthesis.drawn.camera import Camera, Optics
from synthesis.drawn.colours import Colour, make_colour, sample_colour, vary
from synthesis.drawn.wording import STREET_WORDING
from synthesis.drawn.worlds import WORLDS, World

# Its cameras, places and light are none of the demo's: clear pictures in a few rooms and yards, as a text-to-image model makes.
IMAGINED = World(
    name="imagined",
    fashion=Fashion(name="imagined"),
    cameras=(
        Camera("level", (1.0, 1.0, 1.0), 0.06, ("shop", "station", "yard")),
        Camera("security", (0.95, 1.03, 0.96), 0.22, ("station", "shop")),
        Camera("rooftop", (1.04, 1.0, 0.95), 0.32, ("yard",)),
        Camera("corner", (0.96, 0.99, 1.06), 0.17, ("shop", "station")),
    ),
    optics=Optics(
        rows=(150, 220),
        aspect=(0.42, 0.5),
        body=(0.86, 0.97),
        cut=0.02,
        offset=0.03,
        gain=(0.9, 1.15),
        dark=0.04,
        gamma=(0.88, 1.1),
        blur=(0.0, 0.5),
        blurred=0.04,
        noise=(0.0, 3.0),
        quality=(85, 95),
        occluded=0.0,
        crowded=0.0,
    ),
    scenery=Scenery(
        grounds=((156, 150, 140), (112, 114, 120), (186, 180, 170)),
        walls=((210, 202, 188), (146, 156, 162), (178, 166, 150), (120, 128, 136)),
        foliage=((84, 110, 70),),
    ),
    wording=STREET_WORDING,  # never used: captions come from a captioning backend
)
ALL_WORLDS: Mapping[str, World] = {**WORLDS, IMAGINED.name: IMAGINED}


@dataclass(frozen=True)
class _Cut:
    """How a garment of the prompts is drawn: its kind, whether open, and colours that it mostly comes in."""

    kind: str
    is_open: float = 0.0
    colours: Mapping[str, float] | None = None


_DENIM = {"blue": 7, "black": 2, "grey": 1}
_UPPERS = {
    "denim jacket": _Cut("jacket", 0.5, _DENIM),
    "knit sweater": _Cut("sweater"),
    "T-shirt": _Cut("t-shirt"),
    "hoodie": _Cut("hoodie"),
    "blouse": _Cut("blouse"),
    "tank top": _Cut("tank top"),
    "polo shirt": _Cut("polo shirt"),
    "cardigan": _Cut("jacket", 1.0),
    "button-down shirt": _Cut("shirt"),
    "tunic": _Cut("coat"),
    "vest": _Cut("tank top"),
}
_PATTERNS = {"cartoon": PRINT, "letters and logo": PRINT, "photography": PRINT, "geometric": CHECKS}
_LOWERS = {
    "trousers": "trousers",
    "pants": "trousers",
    "jeans": "jeans",
    "shorts": "shorts",
    "leggings": "leggings",
    "skirt": "skirt",
    "dress": "long skirt",  # with an upper garment over it
}
_LOWER_PATTERNS = {"checked": CHECKS, "striped": VERTICAL, "patterned": HORIZONTAL, "floral": CHECKS}
_BAGS = ("backpack", "shoulder bag", "handbag", "suitcase")
_HAIR = {"short": ("short",), "long": ("long", "shoulder-length", "ponytail")}
_VIEWS = {
    "walking away": ("back",),
    "walking towards the camera": ("front",),
    "looking off to the side": ("left", "right"),
}
_CAMERAS = {
    "seen by a security camera": "security",
    "seen from a rooftop": "rooftop",
    "seen by a corner-mounted camera": "corner",
}
_ANY_VIEW = ("front", "back", "left", "right")


def person_of(attributes: Mapping[str, str], rng: random.Random, world: World = IMAGINED) -> Person:
    """The person whom the words describe; slots without a word are as in the world's fashion.

    Args:
        attributes: a prompt's (`synthesis.generation.prompts.draw_attributes`), or some of its slots.
        rng: decides what the words leave open, such as colours.
    """
    person = sample_person(rng, world.fashion)
    while person.gender != attributes.get("gender", person.gender):
        person = sample_person(rng, world.fashion)
    changes: dict = {}
    if attributes.get("hair"):
        changes["hair_style"] = rng.choice(_HAIR[attributes["hair"]])
    if attributes.get("age"):
        changes |= _aged(attributes["age"], person, rng)
    if attributes.get("upper"):
        changes["upper"] = _upper(attributes, rng)
        plain = changes["upper"].pattern == PLAIN
        changes["lower"] = _lower(attributes, plain, rng) if attributes.get("lower") else person.lower
        changes["shoes"] = Thing(
            attributes["shoes"], _coloured(attributes.get("shoes colour"), SHOE_COLOURS, rng)
        )
    if attributes.get("extra"):
        changes |= _carrying(attributes["extra"], rng)
    return replace(person, **changes)


def camera_of(
    attributes: Mapping[str, str], rng: random.Random, world: World = IMAGINED
) -> tuple[Camera, str]:
    """The camera and the view that the words ask for; a world without that camera gives any of its own."""
    angle = attributes.get("angle", "")
    known = {camera.name: camera for camera in world.cameras}
    name = _CAMERAS.get(angle, "level")
    camera = known[name] if name in known else rng.choice(world.cameras)
    return camera, rng.choice(_VIEWS.get(angle, _ANY_VIEW))


def _aged(age: str, person: Person, rng: random.Random) -> dict:
    names = {
        "old": ("grey",),
        "middle-aged": ("black", "brown", "grey"),
        "young": ("black", "brown", "blond", "red"),
    }
    name = rng.choice(names[age])
    build = {"old": 1.06, "middle-aged": 1.0, "young": 0.95}[age] * rng.uniform(0.96, 1.08)
    beard = person.beard and age != "young"
    return {"hair": Colour(name, "", vary(HAIR_COLOURS[name][0], rng)), "build": build, "beard": beard}


def _upper(attributes: Mapping[str, str], rng: random.Random) -> Garment:
    cut = _UPPERS[attributes["upper"]]
    colour = _coloured(attributes.get("upper colour"), cut.colours or UPPER_COLOURS, rng)
    style = attributes.get("upper style", "")
    pattern = rng.choice((HORIZONTAL, VERTICAL)) if style == "striped" else _PATTERNS.get(style, PLAIN)
    is_open = rng.random() < cut.is_open
    inner = (
        _coloured(None, {term: 1 for term in UPPER_COLOURS if term != colour.term}, rng) if is_open else None
    )
    second = None if pattern == PLAIN else _standing_out(colour, rng)
    return Garment(cut.kind, colour, pattern, second, attributes.get("sleeves", "long"), is_open, inner)


def _lower(attributes: Mapping[str, str], may_be_patterned: bool, rng: random.Random) -> Garment:
    kind = _LOWERS[attributes["lower"]]
    weights = SKIRT_COLOURS if "skirt" in kind else _DENIM if kind == "jeans" else LOWER_COLOURS
    colour = _coloured(attributes.get("lower colour"), weights, rng)
    style = attributes.get("lower style", "")
    # Two patterns in one picture of this size can't be told apart.
    pattern = (
        _LOWER_PATTERNS.get(style, PLAIN) if may_be_patterned and kind not in ("jeans", "leggings") else PLAIN
    )
    return Garment(kind, colour, pattern, None if pattern == PLAIN else _standing_out(colour, rng))


def _carrying(extra: str, rng: random.Random) -> dict:
    """What the prompt names is there, and none of the others."""
    found: dict = {"glasses": False, "bag": None, "hat": None, "scarf": None}
    weights = {"black": 3, "red": 2, "blue": 2, "brown": 2, "white": 2, "green": 1, "yellow": 1}
    if extra in ("glasses", "phone", "mask"):
        return found | {extra: True}
    kind = {"bag": rng.choice(_BAGS), "hat": rng.choice(("cap", "sun hat", "knit hat")), "scarf": "scarf"}[
        extra
    ]
    return found | {extra: Thing(kind, sample_colour(weights, rng))}


def _coloured(term: str | None, weights: Mapping[str, float], rng: random.Random) -> Colour:
    return make_colour(term, "", rng) if term else sample_colour(dict(weights), rng)


def _standing_out(colour: Colour, rng: random.Random) -> Colour:
    """A pattern's colour: light on dark, dark on light."""
    terms = ("black", "blue", "red") if sum(colour.rgb) > 450 else ("white", "yellow", "white")
    return make_colour(rng.choice([term for term in terms if term != colour.term]), "", rng)
