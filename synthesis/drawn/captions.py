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
    thing_phrase,
    upper_phrase,
)
from synthesis.drawn.renderer import Picture

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
    walking: bool


# Share of annotators who mention a thing that they notice.
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

    worn = [upper_phrase(person, seen, rng)]
    if person.lower is not None and told("lower"):
        worn.append(lower_phrase(person.lower, seen, rng))
    if told("shoes"):
        worn.append(thing_phrase(person.shoes, rng))
    for slot, thing in (("hat", person.hat), ("scarf", person.scarf)):
        if thing is not None and told(slot):
            worn.append(thing_phrase(thing, rng))
    if person.glasses and told("glasses"):
        worn.append(rng.choice(("glasses", "a pair of glasses")))
    if rng.random() < 0.15 and len(worn) > 2:
        worn = [worn[-1], *worn[:-1]]
    seen |= {"pose"} | ({"hair"} if person.hair_style == "bald" and person.hat is None else set())
    bag = ""
    if person.bag is not None and told("bag"):
        bag = bag_phrase(person.bag, _PRONOUNS[person.gender][1], rng)
    return _Facts(
        worn=worn,
        hair=hair_phrase(person, rng) if told("hair") else "",
        bag=bag,
        pose=pose_phrase(picture, rng) if told("pose") else "",
        walking=picture.walking,
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
        verb = "in" if facts.bag.startswith("wearing") else "wearing"
        return f"{start} {who}{hair} {verb} {_listed(facts.worn)}{more}."
    if shape == 3 and clauses:
        rest = f" and {clauses[1]}" if len(clauses) > 1 else ""
        return f"{start} {who}{hair} is {clauses[0]}{rest}. {he.capitalize()} wears {_listed(facts.worn)}."
    if shape == 4 and len(facts.worn) > 2:
        first, later = facts.worn[:2], facts.worn[2:]
        is_doing = f" and is {' and '.join(clauses)}" if clauses else ""
        return f"{start} {who}{hair} wears {_listed(first)}. {he.capitalize()} also has on {_listed(later)}{is_doing}."
    has = f" {he.capitalize()} has {facts.hair}." if facts.hair else ""
    carried = f" {he.capitalize()} is {facts.bag}." if facts.bag else ""
    does = f"is {facts.pose}" if facts.pose else "walks by" if facts.walking else "stands there"
    return f"Wearing {_listed(facts.worn)}, {start.lower()} {who} {does}.{has}{carried}"


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
