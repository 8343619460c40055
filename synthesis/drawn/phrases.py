"""The words for one thing that is worn, carried or done, chosen as different people would choose them."""

from __future__ import annotations

import random

from synthesis.drawn.attributes import CHECKS, HORIZONTAL, PRINT, VERTICAL, Garment, Person, Thing
from synthesis.drawn.colours import Colour
from synthesis.drawn.renderer import Picture

COLOUR_WORDS: dict[str, tuple[str, ...]] = {
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
NOUNS: dict[str, tuple[str, ...]] = {
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
}


def colour_word(colour: Colour, rng: random.Random) -> str:
    """A name for the colour: its shade in two of three cases where it has one, with the usual synonyms."""
    words = COLOUR_WORDS.get(
        colour.name, (colour.name, colour.name, colour.term) if colour.shade else (colour.term,)
    )
    return rng.choice(words)


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _sleeved(garment: Garment, rng: random.Random) -> str:
    if garment.kind == "dress":
        sleeves = {"short": "short sleeved ", "none": "sleeveless ", "long": "long sleeved "}
        return rng.choice((sleeves[garment.sleeves], "")) + "dress"
    if garment.kind == "shirt":
        if garment.sleeves == "short":
            return rng.choice(("short sleeved shirt", "short sleeved button up shirt"))
        return rng.choice(("long sleeved shirt", "button up shirt", "shirt", "dress shirt"))
    return rng.choice(NOUNS[garment.kind])


def _patterned(garment: Garment, noun: str, seen: set[str], rng: random.Random) -> str:
    """Colour, pattern and noun, without an article."""
    first = colour_word(garment.colour, rng)
    if garment.second is None or (garment.pattern == PRINT and "print" not in seen):
        return f"{first} {noun}"
    second = colour_word(garment.second, rng)
    if garment.pattern == HORIZONTAL:
        return rng.choice(
            (
                f"{first} and {second} striped {noun}",
                f"{first} {noun} with {second} stripes",
                f"striped {first} and {second} {noun}",
            )
        )
    if garment.pattern == VERTICAL:
        return rng.choice(
            (f"{first} and {second} striped {noun}", f"{first} {noun} with {second} vertical stripes")
        )
    if garment.pattern == CHECKS:
        return rng.choice((f"{first} and {second} checkered {noun}", f"{first} and {second} plaid {noun}"))
    what = rng.choice(("print", "logo", "design", "graphic"))
    return f"{first} {noun} with {_article(second)} {what} on the {rng.choice(('front', 'chest'))}"


def upper_phrase(person: Person, seen: set[str], rng: random.Random) -> str:
    """The upper garment, with what an open one shows and a print where `seen` says that they can be seen."""
    upper = person.upper
    outer = _patterned(upper, _sleeved(upper, rng), seen, rng)
    if upper.inner is None or "inner" not in seen:
        return _article(outer)
    inner = f"{colour_word(upper.inner, rng)} {rng.choice(('shirt', 'shirt', 't-shirt', 'top'))}"
    if upper.kind == "suit jacket":
        inner = f"{colour_word(upper.inner, rng)} {rng.choice(('shirt', 'dress shirt'))}"
    return rng.choice(
        (
            f"{_article(outer)} over {_article(inner)}",
            f"{_article('open ' + outer)} and {_article(inner)}",
            f"{_article(outer)} with {_article(inner)} underneath",
        )
    )


def lower_phrase(garment: Garment, seen: set[str], rng: random.Random) -> str:
    """The lower garment: "blue jeans", "a red skirt"."""
    phrase = _patterned(garment, rng.choice(NOUNS[garment.kind]), seen, rng)
    if "skirt" in garment.kind:
        return _article(phrase)
    return f"a pair of {phrase}" if rng.random() < 0.12 else phrase


def hair_phrase(person: Person, rng: random.Random) -> str:
    """What follows "with": "short black hair", "a bald head"."""
    style = person.hair_style
    if style == "bald":
        return rng.choice(("a bald head", "no hair"))
    colour = colour_word(person.hair, rng)
    if style == "ponytail":
        return rng.choice(
            (
                f"{colour} hair in a ponytail",
                f"{_article(colour)} ponytail",
                f"long {colour} hair tied back in a ponytail",
            )
        )
    if style == "bun":
        return rng.choice((f"{colour} hair in a bun", f"{colour} hair tied up in a bun"))
    if style == "shoulder-length":
        return rng.choice((f"shoulder length {colour} hair", f"medium length {colour} hair"))
    return f"{style} {colour} hair"


def thing_phrase(thing: Thing, rng: random.Random) -> str:
    """Shoes, a bag, a hat or a scarf: "white sneakers", "a pair of black boots", "a red cap"."""
    phrase = f"{colour_word(thing.colour, rng)} {rng.choice(NOUNS[thing.kind])}"
    if not phrase.endswith("s"):
        return _article(phrase)
    return f"a pair of {phrase}" if rng.random() < 0.15 else phrase


def bag_phrase(thing: Thing, his: str, rng: random.Random) -> str:
    """A clause that follows "is": how the bag is carried."""
    bag = thing_phrase(thing, rng)
    if thing.kind == "backpack":
        return rng.choice(
            (
                f"carrying {bag}",
                f"wearing {bag}",
                f"carrying {bag} on {his} back",
                f"wearing {bag} on {his} back",
            )
        )
    if thing.kind == "shoulder bag":
        return rng.choice(
            (f"carrying {bag}", f"carrying {bag} over {his} shoulder", f"wearing {bag} across {his} body")
        )
    if thing.kind == "suitcase":
        return rng.choice((f"pulling {bag}", f"rolling {bag}", f"pulling {bag} behind"))
    return rng.choice(
        (f"carrying {bag}", f"holding {bag}", f"carrying {bag} in {his} hand", f"holding {bag} in one hand")
    )


def pose_phrase(picture: Picture, rng: random.Random) -> str:
    """A clause that follows "is": what the person does."""
    verb = "walking" if picture.walking else "standing"
    if picture.view == "front":
        return rng.choice(
            (f"{verb} towards the camera", f"{verb} facing forward", f"{verb} and facing the camera")
        )
    if picture.view == "back":
        away = "walking away from the camera" if picture.walking else "standing with the back to the camera"
        return rng.choice((away, f"{verb} and facing away"))
    return rng.choice(
        (
            f"{verb} to the {picture.view}" if picture.walking else f"{verb} sideways",
            f"{verb} and facing {picture.view}",
        )
    )
