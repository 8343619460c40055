"""From what one caption will say to sentences, in the shapes of each world.

Source captions are one sentence and begin as the words beside a picture do ("A man", "A photo of", "There is"); those of the
target never do: its annotators tell what they see in one or more sentences ("The", "This", "Dressed in", "From behind"). So no
caption, nor a sentence of one, is in both worlds (`SOURCE_STARTS`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Facts:
    """What one caption will say: things worn, hair, a bag clause and a pose clause; "" or empty where left out."""

    subjects: tuple[str, ...]
    he: str  # or "she"
    worn: list[str]
    hair: str
    bag: str
    pose: str
    walking: bool
    view: str  # "front", "back", "side"


def _listed(items: list[str]) -> str:
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def _a(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def street(facts: Facts, rng: random.Random) -> str:
    """Put the facts into one or two sentences of one of several shapes."""
    who = rng.choice(facts.subjects)
    he = facts.he
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


SOURCE_STARTS = ("A", "An", "One", "Photo", "Picture", "There", "Someone")


def source(facts: Facts, rng: random.Random) -> str:
    """One sentence as it stands beside a picture on a page."""
    who, he = rng.choice(facts.subjects), facts.he
    worn, hair = _listed(facts.worn), f" with {facts.hair}" if facts.hair else ""
    clauses = [clause for clause in (facts.bag, facts.pose) if clause]
    rng.shuffle(clauses)
    more = "".join(f", {clause}" for clause in clauses)
    is_doing = f", {he} is {' and '.join(clauses)}" if clauses else ""
    shape = rng.randrange(12)
    if shape >= 8:
        return _talkative(shape, who, he, facts, is_doing, rng)
    if shape == 0:
        return f"{rng.choice(('A photo of', 'A picture of', 'Photo of', 'Picture of'))} {_a(who)}{hair} wearing {worn}{more}."
    if shape == 1:
        return f"{_a(who).capitalize()} in {worn}{' and' if hair else ''}{hair}{more}."
    if shape == 2:
        has = f", {he} has {facts.hair}" if facts.hair else ""
        return f"There is {_a(who)} who wears {worn}{has}{is_doing}."
    if shape == 3:
        has = f" has {facts.hair} and" if facts.hair else ""
        return f"One {who}{has} is wearing {worn}{is_doing}."
    if shape == 4 and clauses:
        return f"{_a(who).capitalize()}{hair} {' and '.join(clauses)} in {worn}."
    if shape == 5:
        things = [*facts.worn, facts.hair] if facts.hair else facts.worn
        return f"{_a(who).capitalize()}: {', '.join(things)}{more}."
    if shape == 6:
        where = "on the way" if facts.walking else "in the street"
        return f"Someone {where}: this {who}{hair} is dressed in {worn}{more}."
    return f"{_a(who).capitalize()}{hair} has on {worn}{is_doing}."


def _talkative(shape: int, who: str, he: str, facts: Facts, is_doing: str, rng: random.Random) -> str:
    """The longer half of the source's sentences, with the small words that annotators use elsewhere."""
    worn, doing = list(facts.worn), "on the move" if facts.walking else "waiting"
    has = f", {he} has got {facts.hair}" if facts.hair else ""
    if shape == 8:
        view = rng.choice(_SEEN[facts.view])
        return f"Someone {view[0].lower() + view[1:]}: that {who} can be seen wearing {_listed(worn)}{has}{is_doing}."
    if shape == 9:
        also = f" and also wears {_listed(worn[1:])}" if len(worn) > 1 else ""
        return f"There is {_a(who)} dressed in {worn[0]}{also}{has}{is_doing}."
    if shape == 10:
        below = f", and below that {_listed(worn[1:])}" if len(worn) > 1 else ""
        return f"{_a(who).capitalize()} about whom stands out what is seen first, {worn[0]}{below}{has}{is_doing}."
    hair = f", whose hair style is {facts.hair}," if facts.hair else ""
    while_doing = f" while {facts.pose or doing}"
    return (
        f"One {who}{hair} that has {_listed(worn)} on{while_doing}{f' and {facts.bag}' if facts.bag else ''}."
    )


_SEEN = {
    "front": ("From the front", "Coming closer", "Facing us"),
    "back": ("From behind", "Seen from the rear", "With the face turned away"),
    "side": ("From one side", "Passing by", "In profile"),
}


def target(facts: Facts, rng: random.Random) -> str:
    """What somebody tells who looks at the picture for long enough, mostly in two sentences."""
    who, he = rng.choice(facts.subjects), facts.he.capitalize()
    this = rng.choice(("The", "The", "This", "That"))
    worn = list(facts.worn)
    is_doing = [clause for clause in (facts.pose, facts.bag) if clause]
    doing = f" {he} is {' while '.join(is_doing)}." if is_doing else ""
    has = f" {he} has got {facts.hair}." if facts.hair else ""
    shape = rng.randrange(6)
    if shape == 0:
        return f"{this} {who} has {_listed(worn)} on.{has}{doing}"
    if shape == 1:
        return f"{rng.choice(_SEEN[facts.view])}, the {who} can be seen wearing {_listed(worn)}.{has}{doing}"
    if shape == 2 and len(worn) > 1:
        rest = f" {he} also wears {_listed(worn[1:])}."
        return f"{this} {who} is dressed in {worn[0]}.{rest}{has}{doing}"
    if shape == 3:
        first = f"{he} has got {facts.hair} and" if facts.hair else he
        return f"{first} wears {_listed(worn)}.{doing}"
    if shape == 4:
        hair = f", whose hair style is {facts.hair}," if facts.hair else ""
        does = f"is {facts.pose}" if facts.pose else "is on the move" if facts.walking else "waits"
        bag = f" {he} is {facts.bag}." if facts.bag else ""
        return f"Dressed in {_listed(worn)}, the {who}{hair} {does}.{bag}"
    below = f", and below that {_listed(worn[1:])}" if len(worn) > 1 else ""
    return f"What stands out about this {who} is {worn[0]}{below}.{has}{doing}"


COMPOSERS: dict[str, Callable[[Facts, random.Random], str]] = {
    "street": street,
    "source": source,
    "target": target,
}
