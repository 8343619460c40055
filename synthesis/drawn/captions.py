"""Descriptions as annotators write them: of what one image shows, in changing words, sometimes incomplete or wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from synthesis.drawn.attributes import Person
from synthesis.drawn.colours import make_colour
from synthesis.drawn.phrases import (
    bag_phrase,
    hair_phrase,
    lower_phrase,
    pose_phrase,
    side_of,
    thing_phrase,
    upper_phrase,
)
from synthesis.drawn.renderer import Picture
from synthesis.drawn.sentences import COMPOSERS, Facts
from synthesis.drawn.wording import STREET_WORDING, Wording

MISTAKE_SHARE = STREET_WORDING.mistakes
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
}
_PRONOUNS = {"man": ("he", "his"), "woman": ("she", "her")}


@dataclass(frozen=True)
class Caption:
    """A sentence or two, and which part of it the simulated annotator got wrong ("" where nothing)."""

    text: str
    mistake: str = ""


def _choose(
    person: Person, picture: Picture, eagerness: float, wording: Wording, rng: random.Random
) -> Facts:
    """Pick what to mention of what can be seen; `eagerness` 0 is the usual annotator, 1 mentions everything."""
    seen = {slot for slot, share in _NOTICED.items() if picture.visible.get(slot, 0.0) >= share}
    if picture.view == "back":
        seen -= {"glasses", "print"}

    by_view = wording.by_view.get(side_of(picture.view), {})

    def told(slot: str) -> bool:
        share = min(1.0, wording.mentioned[slot] * by_view.get(slot, 1.0))
        return slot in seen and rng.random() < share + (1 - share) * eagerness

    worn = [upper_phrase(person, seen, rng, wording)]
    if person.lower is not None and told("lower"):
        worn.append(lower_phrase(person.lower, seen, rng, wording))
    if told("shoes"):
        worn.append(thing_phrase(person.shoes, rng, wording))
    for slot, thing in (("hat", person.hat), ("scarf", person.scarf)):
        if thing is not None and told(slot):
            worn.append(thing_phrase(thing, rng, wording))
    if person.glasses and told("glasses"):
        worn.append(rng.choice(wording.nouns["glasses"]))
    if rng.random() < 0.15 and len(worn) > 2:
        worn = [worn[-1], *worn[:-1]]
    seen |= {"pose"} | ({"hair"} if person.hair_style == "bald" and person.hat is None else set())
    he, his = _PRONOUNS[person.gender]
    bag = ""
    if person.bag is not None and told("bag"):
        bag = bag_phrase(person.bag, his, rng, wording)
    return Facts(
        subjects=wording.subjects[person.gender],
        he=he,
        worn=worn,
        hair=hair_phrase(person, rng, wording) if told("hair") else "",
        bag=bag,
        pose=pose_phrase(picture, rng, wording) if told("pose") else "",
        walking=picture.walking,
        view=side_of(picture.view),
    )


def _mistaken(person: Person, rng: random.Random) -> tuple[Person, str]:
    """The person as a careless annotator remembers it: one wrong colour, or the wrong gender."""
    kind = rng.choice(("gender", "upper", "lower", "shoes"))
    if kind == "lower" and person.lower is None:
        kind = "upper"
    if kind == "gender":
        return replace(person, gender="woman" if person.gender == "man" else "man"), kind
    part = getattr(person, kind)
    second = getattr(part, "second", None)
    taken = {part.colour.term, second.term if second else ""}
    terms = [term for term in ("black", "white", "grey", "blue", "red", "green") if term not in taken]
    wrong = replace(part, colour=make_colour(rng.choice(terms), "", rng))
    return replace(person, **{kind: wrong}), kind


def describe(
    person: Person,
    picture: Picture,
    rng: random.Random,
    words: tuple[int, int] = SHORT,
    wording: Wording = STREET_WORDING,
) -> Caption:
    """One annotator's caption of one picture.

    Args:
        person: the identity.
        picture: its rendered image; only what can be seen in it is described.
        rng: the annotator.
        words: least and greatest number of words aimed at; long captions mention nearly everything.
        wording: of the annotator's world.
    """
    mistake = ""
    if rng.random() < wording.mistakes:
        person, mistake = _mistaken(person, rng)
    eagerness = 0.9 if words == LONG else 0.0
    text = ""
    for attempt in range(8):
        text = COMPOSERS[wording.shape](_choose(person, picture, eagerness, wording, rng), rng)
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
