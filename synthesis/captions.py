"""Descriptions as annotators write them: of what one image shows, in changing words, sometimes incomplete or wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from synthesis.attributes import CHECKS, HORIZONTAL, PRINT, VERTICAL, Garment, Person, Thing
from synthesis.colours import Colour, make_colour
from synthesis.renderer import Picture

MISTAKE_SHARE = 0.02
SHORT = (12, 40)  # words of a caption in CUHK-PEDES and RSTPReid
LONG = (24, 56)  # in ICFG-PEDES, whose captions list everything

# Share of the crop's pixels from which an annotator would notice a thing.
_NOTICED = {
    "upper": 0.01,
    "lower": 0.01,
    "inner": 0.005,
    "hair": 0.004,
    "shoes": 0.005,
    "bag": 0.007,
    "hat": 0.004,
    "scarf": 0.004,
    "glasses": 0.0005,
    "print": 0.003,
    "face": 0.006,
}
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
_SUBJECTS = {
    "man": ("man", "man", "man", "young man", "guy", "male", "person"),
    "woman": ("woman", "woman", "woman", "young woman", "lady", "girl", "female", "person"),
}
_PRONOUNS = {"man": ("he", "his"), "woman": ("she", "her")}


@dataclass(frozen=True)
class Caption:
    """A sentence or two, and which part of it the simulated annotator got wrong ("" where nothing)."""

    text: str
    mistake: str = ""


def colour_word(colour: Colour, rng: random.Random) -> str:
    """A name for the colour: its shade in two of three cases where it has one, with the usual synonyms."""
    words = COLOUR_WORDS.get(
        colour.name, (colour.name, colour.name, colour.term) if colour.shade else (colour.term,)
    )
    return rng.choice(words)


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _sleeved(garment: Garment, rng: random.Random) -> str:
    if garment.kind in ("shirt", "dress"):
        if garment.kind == "dress":
            prefix = {"short": "short sleeved ", "none": "sleeveless ", "long": "long sleeved "}[
                garment.sleeves
            ]
            return rng.choice((prefix, "")) + "dress"
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


def _upper(person: Person, seen: set[str], rng: random.Random) -> str:
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


def _lower(garment: Garment, seen: set[str], rng: random.Random) -> str:
    phrase = _patterned(garment, rng.choice(NOUNS[garment.kind]), seen, rng)
    if "skirt" in garment.kind:
        return _article(phrase)
    return f"a pair of {phrase}" if rng.random() < 0.12 else phrase


def _hair(person: Person, rng: random.Random) -> str:
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


def _thing(thing: Thing, rng: random.Random) -> str:
    phrase = f"{colour_word(thing.colour, rng)} {rng.choice(NOUNS[thing.kind])}"
    return (
        f"a pair of {phrase}"
        if phrase.endswith("s") and rng.random() < 0.15
        else phrase
        if phrase.endswith("s")
        else _article(phrase)
    )


def _bag(thing: Thing, his: str, rng: random.Random) -> str:
    """A clause that follows "is": how the bag is carried."""
    bag = _thing(thing, rng)
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


def _pose(picture: Picture, rng: random.Random) -> str:
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


def _listed(items: list[str]) -> str:
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


@dataclass
class _Facts:
    """What one caption will say: things worn, hair, a bag clause and a pose clause; "" or empty where left out."""

    worn: list[str]
    hair: str
    bag: str
    pose: str


_MENTIONED = {
    "lower": 0.96,
    "shoes": 0.6,
    "hat": 0.88,
    "scarf": 0.7,
    "glasses": 0.5,
    "hair": 0.62,
    "bag": 0.9,
    "pose": 0.35,
}


def _choose(person: Person, picture: Picture, eagerness: float, rng: random.Random) -> _Facts:
    """Pick what to mention of what can be seen; `eagerness` 0 is the usual annotator, 1 mentions everything."""
    seen = {slot for slot, share in _NOTICED.items() if picture.visible.get(slot, 0.0) >= share}
    if picture.view == "back":
        seen -= {"glasses", "print"}

    def told(slot: str) -> bool:
        share = _MENTIONED[slot]
        return slot in seen and rng.random() < share + (1 - share) * eagerness

    worn = [_upper(person, seen, rng)]
    if person.lower is not None and told("lower"):
        worn.append(_lower(person.lower, seen, rng))
    if told("shoes"):
        worn.append(_thing(person.shoes, rng))
    for slot, thing in (("hat", person.hat), ("scarf", person.scarf)):
        if thing is not None and told(slot):
            worn.append(_thing(thing, rng))
    if person.glasses and told("glasses"):
        worn.append(rng.choice(("glasses", "a pair of glasses")))
    if rng.random() < 0.15 and len(worn) > 2:
        worn = [worn[-1], *worn[:-1]]
    seen |= {"pose"} | ({"hair"} if person.hair_style == "bald" and person.hat is None else set())
    return _Facts(
        worn=worn,
        hair=_hair(person, rng) if told("hair") else "",
        bag=_bag(person.bag, _PRONOUNS[person.gender][1], rng)
        if person.bag is not None and told("bag")
        else "",
        pose=_pose(picture, rng) if told("pose") else "",
    )


def _compose(person: Person, facts: _Facts, rng: random.Random) -> str:
    """Put the facts into one or two sentences of one of several shapes."""
    who = rng.choice(_SUBJECTS[person.gender])
    he, _ = _PRONOUNS[person.gender]
    start = rng.choice(("A", "A", "The", "The", "This"))
    hair = f" with {facts.hair}" if facts.hair else ""
    clauses = [clause for clause in (facts.bag, facts.pose) if clause]
    rng.shuffle(clauses)
    tail = f" {he.capitalize()} is {' and '.join(clauses)}." if clauses else ""
    shape = rng.randrange(6)
    if shape == 0:
        has = f" {he.capitalize()} has {facts.hair}." if facts.hair else ""
        return f"{start} {who} is wearing {_listed(facts.worn)}.{has}{tail}"
    if shape == 1:
        return f"{start} {who}{hair} is dressed in {_listed(facts.worn)}.{tail}"
    if shape == 2:
        more = "".join(f", {clause}" for clause in clauses)
        return f"{start} {who}{hair} wearing {_listed(facts.worn)}{more}."
    if shape == 3 and clauses:
        rest = f" and {clauses[1]}" if len(clauses) > 1 else ""
        return f"{start} {who}{hair} is {clauses[0]}{rest}. {he.capitalize()} wears {_listed(facts.worn)}."
    if shape == 4 and len(facts.worn) > 2:
        first, later = facts.worn[:2], facts.worn[2:]
        is_doing = f" and is {' and '.join(clauses)}" if clauses else ""
        return f"{start} {who}{hair} wears {_listed(first)}. {he.capitalize()} also has on {_listed(later)}{is_doing}."
    has = (
        f" {he.capitalize()} has {facts.hair}{' and is ' + clauses[0] if clauses else ''}."
        if facts.hair
        else tail
    )
    rest = f" {he.capitalize()} is {clauses[1]}." if facts.hair and len(clauses) > 1 else ""
    return f"Wearing {_listed(facts.worn)}, {'the' if start == 'The' else 'this' if start == 'This' else 'a'} {who} walks by.{has}{rest}"


def _mistaken(person: Person, rng: random.Random) -> tuple[Person, str]:
    """The person as a careless annotator remembers it: one wrong colour, or the wrong gender."""
    kind = rng.choice(("gender", "upper", "lower", "shoes"))
    if kind == "lower" and person.lower is None:
        kind = "upper"
    if kind == "gender":
        return replace(person, gender="woman" if person.gender == "man" else "man"), kind
    part = getattr(person, kind)
    terms = [term for term in ("black", "white", "grey", "blue", "red", "green") if term != part.colour.term]
    wrong = replace(part, colour=make_colour(rng.choice(terms), "", rng))
    return replace(person, **{kind: wrong}), kind


def describe(person: Person, picture: Picture, rng: random.Random, words: tuple[int, int] = SHORT) -> Caption:
    """One annotator's caption of one picture.

    Args:
        person: the identity.
        picture: its rendered image; only what can be seen in it is described.
        rng: the annotator.
        words: least and greatest number of words aimed at; long captions mention nearly everything.
    """
    mistake = ""
    if rng.random() < MISTAKE_SHARE:
        person, mistake = _mistaken(person, rng)
    eagerness = 0.9 if words == LONG else 0.0
    text = ""
    for attempt in range(8):
        text = _compose(person, _choose(person, picture, eagerness, rng), rng)
        count = len(text.split())
        if words[0] <= count <= words[1]:
            break
        if count < words[0]:
            eagerness = min(1.0, eagerness + 0.25)
        elif attempt > 2:
            eagerness = 0.0
    return Caption(text, mistake)


def tokens(caption: str) -> list[str]:
    """Lower-case words without punctuation, as in the `processed_tokens` of CUHK-PEDES."""
    kept = "".join(c if c.isalnum() or c == "-" else " " for c in caption.lower())
    return kept.split()
