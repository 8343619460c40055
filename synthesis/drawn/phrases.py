"""The words for one thing that is worn, carried or done, chosen as different people would choose them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from synthesis.drawn.attributes import PRINT, Garment, Person, Thing
from synthesis.drawn.colours import Colour
from synthesis.drawn.renderer import Picture
from synthesis.drawn.wording import STREET_WORDING, Wording

_SLEEVES = {"short": "short", "none": "sleeveless", "long": "long"}


def _one(options: Sequence[str], rng: random.Random) -> str:
    """One of the options; where there is no choice nothing is drawn."""
    return options[0] if len(options) == 1 else rng.choice(options)


def colour_word(colour: Colour, rng: random.Random, wording: Wording = STREET_WORDING) -> str:
    """A name for the colour: its shade in two of three cases where it has one, with the usual synonyms."""
    words = wording.colours.get(
        colour.name, (colour.name, colour.name, colour.term) if colour.shade else (colour.term,)
    )
    return rng.choice(words)


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _sleeved(garment: Garment, wording: Wording, rng: random.Random) -> str:
    kind = garment.kind
    if kind in ("dress", "shirt"):
        kind = f"{_SLEEVES[garment.sleeves]} {kind}"
    return rng.choice(wording.nouns[kind])


def _patterned(garment: Garment, noun: str, seen: set[str], wording: Wording, rng: random.Random) -> str:
    """Colour, pattern and noun, without an article."""
    first = colour_word(garment.colour, rng, wording)
    if garment.second is None or (garment.pattern == PRINT and "print" not in seen):
        return f"{first} {noun}"
    second = colour_word(garment.second, rng, wording)
    if garment.pattern == PRINT:
        what, where = rng.choice(wording.nouns["print"]), rng.choice(wording.nouns["chest"])
        return f"{first} {noun} with {_article(second)} {what} on the {where}"
    return rng.choice(wording.patterns[garment.pattern]).format(first=first, second=second, noun=noun)


def upper_phrase(
    person: Person, seen: set[str], rng: random.Random, wording: Wording = STREET_WORDING
) -> str:
    """The upper garment, with what an open one shows and a print where `seen` says that they can be seen."""
    upper = person.upper
    outer = _patterned(upper, _sleeved(upper, wording, rng), seen, wording, rng)
    if upper.inner is None or "inner" not in seen:
        return _article(outer)
    inner = f"{colour_word(upper.inner, rng, wording)} {rng.choice(wording.nouns['inner'])}"
    if upper.kind == "suit jacket":
        inner = f"{colour_word(upper.inner, rng, wording)} {rng.choice(wording.nouns['inner of a suit'])}"
    return rng.choice(wording.layered).format(
        outer=_article(outer), open=_article(f"open {outer}"), inner=_article(inner)
    )


def lower_phrase(
    garment: Garment, seen: set[str], rng: random.Random, wording: Wording = STREET_WORDING
) -> str:
    """The lower garment: "blue jeans", "a red skirt"."""
    phrase = _patterned(garment, rng.choice(wording.nouns[garment.kind]), seen, wording, rng)
    if "skirt" in garment.kind:
        return _article(phrase)
    return f"a pair of {phrase}" if rng.random() < 0.12 else phrase


def hair_phrase(person: Person, rng: random.Random, wording: Wording = STREET_WORDING) -> str:
    """What follows "with": "short black hair", "a bald head"."""
    style = person.hair_style
    if style == "bald":
        return rng.choice(wording.hair[style])
    colour = colour_word(person.hair, rng, wording)
    return _one(wording.hair[style], rng).format(colour=colour, a_colour=_article(colour))


def thing_phrase(thing: Thing, rng: random.Random, wording: Wording = STREET_WORDING) -> str:
    """Shoes, a bag, a hat or a scarf: "white sneakers", "a pair of black boots", "a red cap"."""
    phrase = f"{colour_word(thing.colour, rng, wording)} {rng.choice(wording.nouns[thing.kind])}"
    if not phrase.endswith("s"):
        return _article(phrase)
    return f"a pair of {phrase}" if rng.random() < 0.15 else phrase


def bag_phrase(thing: Thing, his: str, rng: random.Random, wording: Wording = STREET_WORDING) -> str:
    """A clause that follows "is": how the bag is carried."""
    bag = thing_phrase(thing, rng, wording)
    return rng.choice(wording.carried[thing.kind]).format(bag=bag, his=his)


def side_of(view: str) -> str:
    """ "front", "back" or "side": the view as `Wording` tells it."""
    return view if view in ("front", "back") else "side"


def pose_phrase(picture: Picture, rng: random.Random, wording: Wording = STREET_WORDING) -> str:
    """A clause that follows "is": what the person does."""
    verb = "walking" if picture.walking else "standing"
    return rng.choice(wording.poses[f"{verb} {side_of(picture.view)}"]).format(side=picture.view)
