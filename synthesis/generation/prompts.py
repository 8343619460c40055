"""Prompts: descriptions of people, put together from words that are drawn slot by slot (SynTBPR, arXiv 2503.22171).

The family "plain" is used as it is:

    a young woman with long hair, wearing a cartoon hoodie with long sleeves, pleated skirt, a pair of sneakers, with a bag,
    walking away

Each slot is drawn with equal chances; the only rule is that men have short hair and wear no skirt and no dress. Released
prompts name no colour, so a text-to-image model chooses; `colours` adds one to the garments and the shoes. The other families
are rough words that a text model turns into a sentence (`synthesis.generation.families`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

from synthesis.generation.parts import Prompt
from synthesis.generation.personal import IDENTIFIER

AGES = ("young", "middle-aged", "old")
GENDERS = ("man", "woman")
HAIR = ("short", "long")
UPPER_STYLES = ("striped", "cartoon", "geometric", "letters and logo", "photography")
UPPERS = (
    "denim jacket", "knit sweater", "T-shirt", "hoodie", "blouse", "tank top", "polo shirt", "cardigan", "button-down shirt",
    "tunic", "vest",
)  # fmt: skip
SLEEVES = ("long", "short")
LOWERS: Mapping[str, tuple[str, ...]] = {
    "trousers": ("straight", "wide-leg", "pleated", "checked", "cropped"),
    "skirt": ("pleated", "denim", "floral", "A-line", "checked"),
    "dress": ("floral", "pleated", "striped", "flared", "knitted"),
    "pants": ("cargo", "striped", "sweat", "linen", "tapered"),
    "jeans": ("skinny", "straight", "ripped", "baggy", "faded", "flared"),
    "shorts": ("denim", "sports", "cargo", "checked", "linen"),
    "leggings": ("plain", "sports", "high-waisted", "patterned", "cropped"),
}
FEMALE_LOWERS = ("skirt", "dress")
SHOES = ("sneakers", "leather shoes", "boots", "sandals", "high heels")
EXTRAS = ("phone", "glasses", "mask", "scarf", "hat", "bag")
ANGLES = (
    "walking away", "walking towards the camera", "looking off to the side", "seen by a security camera", "seen from a rooftop",
    "seen by a corner-mounted camera",
)  # fmt: skip
COLOURS = ("black", "white", "grey", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
COLOURED = ("upper", "lower", "shoes")

_IDENTIFIED = {"man": "male", "woman": "female"}


def seed_of(*parts: object) -> int:
    """A 63-bit seed from any printable parts, the same everywhere."""
    return random.Random("/".join(map(str, parts))).getrandbits(63)


def draw_attributes(rng: random.Random, *, colours: bool = False) -> dict[str, str]:
    """A word for every slot, each with equal chances among those that are allowed."""
    gender = rng.choice(GENDERS)
    lower = rng.choice([kind for kind in LOWERS if gender == "woman" or kind not in FEMALE_LOWERS])
    attributes = {
        "age": rng.choice(AGES),
        "gender": gender,
        "hair": "short" if gender == "man" else rng.choice(HAIR),
        "upper style": rng.choice(UPPER_STYLES),
        "upper": rng.choice(UPPERS),
        "sleeves": rng.choice(SLEEVES),
        "lower style": rng.choice(LOWERS[lower]),
        "lower": lower,
        "shoes": rng.choice(SHOES),
        "extra": rng.choice(EXTRAS),
        "angle": rng.choice(ANGLES),
    }
    if colours:
        attributes |= {f"{slot} colour": rng.choice(COLOURS) for slot in COLOURED}
    return attributes


def plain_text(attributes: Mapping[str, str]) -> str:
    """The description that `draw_attributes`' words make."""

    def worn(slot: str) -> str:
        words = (attributes.get(f"{slot} colour", ""), attributes.get(f"{slot} style", ""), attributes[slot])
        return " ".join(word for word in words if word)

    extra = attributes["extra"]
    return (
        f"{_with_article(attributes['age'])} {attributes['gender']} with {attributes['hair']} hair, wearing "
        f"{_with_article(worn('upper'))} with {attributes['sleeves']} sleeves, "
        f"{worn('lower')}, a pair of {worn('shoes')}, with {extra if extra == 'glasses' else _with_article(extra)}, "
        f"{attributes['angle']}"
    )


def plain_prompts(
    numbers: list[int], seed: int, taken: set[str] | None = None, *, colours: bool = False
) -> list[Prompt]:
    """Plain prompts with pairwise different texts; one depends on `seed`, its number, and those before it only.

    Args:
        numbers: their places among all prompts of a run.
        seed: of the run.
        taken: texts that are not to come again; the new ones are added.
        colours: name a colour of garments and shoes.
    """
    taken = set() if taken is None else taken
    prompts = []
    for number in numbers:
        rng = random.Random(seed_of(seed, "prompt", number))
        text = ""
        while not text or text in taken:
            attributes = draw_attributes(rng, colours=colours)
            text = plain_text(attributes)
        taken.add(text)
        prompts.append(Prompt(number, text, attributes, "plain", seed_of(seed, "images", number)))
    return prompts


def identified(text: str, identifier: str = IDENTIFIER) -> str:
    """The text with its person named as a personalised model learned it: "a young man" becomes "a young male sks person".

    Whole words only: a salesman stays one.
    """
    return re.sub(r"\b(man|woman)\b", lambda found: f"{_IDENTIFIED[found[0]]} {identifier}", text)


def _with_article(words: str) -> str:
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"
