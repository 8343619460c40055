"""Families of prompts that a text model writes from rough words: appearance, profession, location and state.

The plain family needs nothing; all are laid out here, so that which family a prompt belongs to depends on the seed and on its
number alone.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from captioning.backends import Backend, Reply, Request
from captioning.pipeline import Progress, ask
from captioning.store import CaptionStore
from synthesis.generation.parts import Prompt
from synthesis.generation.prompts import AGES, EXTRAS, GENDERS, HAIR, draw_attributes, plain_prompts, seed_of

FAMILIES = ("plain", "appearance", "profession", "location", "state")

_PROFESSIONS = (
    "teacher", "nurse", "doctor", "cook", "mail carrier", "construction worker", "police officer", "student", "office worker",
    "salesperson", "mechanic", "farmer", "photographer", "musician", "gardener", "delivery rider", "security guard", "waiter",
)  # fmt: skip
_LOCATIONS = (
    "at a bus stop", "in a shopping mall", "on a university campus", "in a subway station", "at a crossing", "in a park",
    "in front of a supermarket", "on a bridge", "in a car park", "at a market", "in a hospital corridor", "on a staircase",
)  # fmt: skip
_STATES = (
    "in a hurry", "tired after work", "talking on the phone", "waiting for somebody", "carrying shopping home", "lost in thought",
    "laughing with a friend", "looking for the way", "listening to music", "drinking coffee", "cold in the wind", "warming up for a run",
)  # fmt: skip
_TOPICS = {"profession": _PROFESSIONS, "location": _LOCATIONS, "state": _STATES}

QUESTION = (
    "Turn these words about a person into one sentence that describes a photograph of the whole person: who it is, the clothes "
    "from head to feet, hair and what is carried. Invent clothes that fit where none are named, add no second person, and answer "
    "with the sentence alone.\nWords: {words}"
)


def families_of(shares: Mapping[str, float], count: int, seed: int) -> list[str]:
    """The family of each of `count` prompts, drawn by their shares."""
    names = [name for name in FAMILIES if shares.get(name, 0) > 0]
    weights = [shares[name] for name in names]
    return [
        random.Random(seed_of(seed, "family", number)).choices(names, weights)[0] for number in range(count)
    ]


def make_prompts(
    shares: Mapping[str, float],
    count: int,
    seed: int,
    store: CaptionStore | None = None,
    *,
    colours: bool = False,
) -> list[Prompt]:
    """All prompts of a run that are there, in order of their numbers.

    Args:
        shares: family -> how often, by weight.
        store: the texts of `ask_for_texts`; a prompt whose text model gave none is left out.
        colours: whether plain prompts name colours.
    """
    families = families_of(shares, count, seed)
    plain = plain_prompts(
        [n for n, family in enumerate(families) if family == "plain"], seed, colours=colours
    )
    found = {prompt.number: prompt for prompt in plain}
    for number, family in enumerate(families):
        if family == "plain" or store is None:
            continue
        record = store.get(str(number))
        if record and record["status"] == "done":
            words = rough_words(family, number, seed)
            found[number] = Prompt(number, record["text"], words, family, seed_of(seed, "images", number))
    return [found[number] for number in sorted(found)]


def rough_words(family: str, number: int, seed: int) -> dict[str, str]:
    """The words that a text model gets for one prompt."""
    rng = random.Random(seed_of(seed, "words", number))
    if family == "appearance":
        words = draw_attributes(rng)
        return {slot: words[slot] for slot in words if slot != "angle"}
    gender = rng.choice(GENDERS)
    return {
        "age": rng.choice(AGES),
        "gender": gender,
        "hair": "short" if gender == "man" else rng.choice(HAIR),
        "extra": rng.choice(EXTRAS),
        family: rng.choice(_TOPICS[family]),
    }


def question(words: Mapping[str, str]) -> str:
    """What the text model is asked."""
    return QUESTION.replace("{words}", ", ".join(f"{slot}: {word}" for slot, word in words.items()))


def ask_for_texts(
    shares: Mapping[str, float],
    count: int,
    seed: int,
    backend: Backend,
    store: CaptionStore,
    *,
    progress: Progress | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Have a text model write the prompts that `store` lacks; what it has is never asked again.

    Args:
        rank, world_size: this process's share; all processes write one store.

    Raises:
        ValueError: a backend that stops for good, or a store that cannot be written.
    """
    asked = {
        str(number): family
        for number, family in enumerate(families_of(shares, count, seed))
        if family != "plain" and number % world_size == rank
    }
    requests = [
        Request(key, None, question(rough_words(asked[key], int(key), seed))) for key in store.missing(asked)
    ]

    def keep(reply: Reply) -> None:
        error = {"error": reply.error} if reply.error else {}
        store.put(
            reply.key,
            status=reply.status,
            text=reply.text,
            family=asked[reply.key],
            model=backend.model,
            **error,
        )

    try:
        ask(backend, requests, keep, "prompts", progress)
    finally:
        store.flush()
