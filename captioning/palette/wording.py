"""From a description to sentences: one fixed style for base captions, many shapes for styled ones.

Only readings that are sure are said. The variant (a number, usually a hash of the image's name) chooses synonyms, the
order of the clauses and the way they are joined; the same variant always gives the same sentence.
"""

from __future__ import annotations

from collections.abc import Sequence

from captioning.gender import gender_of
from captioning.palette.colours import ColourName
from captioning.palette.description import Description
from captioning.prompts import Kind
from captioning.templates import CONSTANT, Template, listed

# A colour whose name is less certain than this is left out of the sentence.
_SURE_COLOUR = 0.55

_PERSON = {"male": "man", "female": "woman", "": "person"}

# What people call these things: each first word is the fixed style's, the others are drawn for styled captions. A
# model that only ever reads one word for a thing does not understand a query that uses another.
_UPPER_NOUNS: dict[tuple[str, str], tuple[str, ...]] = {
    ("top", "short"): (
        "t-shirt",
        "short sleeved shirt",
        "short sleeved t-shirt",
        "tee shirt",
        "shirt with short sleeves",
        "short sleeved polo shirt",
        "tee",
    ),
    ("top", "long"): (
        "long sleeved shirt",
        "long sleeved top",
        "long sleeved sweater",
        "sweater",
        "button up shirt",
        "pullover",
        "sweatshirt",
        "shirt with long sleeves",
        "hoodie",
    ),
    ("top", "none"): ("sleeveless top", "tank top", "sleeveless shirt"),
    ("top", ""): ("shirt", "top", "blouse"),
    ("jacket", "long"): ("jacket", "long sleeved jacket", "coat", "suit jacket", "winter jacket"),
    ("coat", "long"): ("coat", "long coat", "overcoat"),
    ("dress", "short"): ("dress", "short sleeved dress", "dress with short sleeves"),
    ("dress", "long"): ("dress", "long sleeved dress", "dress with long sleeves"),
    ("dress", "none"): ("dress", "sleeveless dress"),
}
_LOWER_NOUNS = {
    "trousers": ("pants", "trousers", "long pants", "jeans", "a pair of pants"),
    "jeans": ("jeans", "pants", "blue jeans", "denim pants", "denim jeans", "a pair of jeans"),
    "shorts": ("shorts", "knee length shorts", "a pair of shorts"),
    "skirt": ("skirt", "short skirt", "knee length skirt"),
    "long skirt": ("long skirt", "ankle length skirt"),
    "": ("pants",),
}
_PATTERN_WORDS = {
    "horizontal stripes": ("horizontally striped", "striped"),
    "vertical stripes": ("vertically striped", "striped"),
    "checks": ("checked", "plaid", "checkered"),
    "": ("",),
}
_BAG_NOUNS = {
    "backpack": ("backpack", "backpack", "rucksack", "book bag"),
    "bag": ("bag",),
    "shoulder bag": ("shoulder bag", "bag", "messenger bag"),
    "handbag": ("handbag", "purse", "bag"),
    "suitcase": ("suitcase", "rolling suitcase"),
}
_HAT_NOUNS = ("hat", "cap", "baseball cap")
_SHOE_NOUNS = ("shoes", "sneakers", "tennis shoes", "running shoes", "a pair of shoes")
_HAIR_LENGTHS = {"long": ("long", "long", "shoulder length", "medium length"), "short": ("short",)}
_COLOUR_SYNONYMS = {
    "dark blue": ("dark blue", "navy blue", "navy"),
    "dark red": ("dark red", "maroon"),
    "light brown": ("light brown", "beige", "tan", "khaki"),
    "light purple": ("light purple", "lavender"),
    "grey": ("grey", "gray"),
    "dark grey": ("dark grey", "dark gray"),
    "light grey": ("light grey", "light gray"),
    "blond": ("blond", "blonde"),
}
_SUBJECTS = {
    "male": ("He", "The man", "The guy", "The young man", "The boy"),
    "female": ("She", "The woman", "The lady", "The young woman", "The girl"),
    "unknown": ("The person", "The person", "This person"),
}
_CARRYING = ("carries", "has", "is carrying", "is also carrying", "is holding")


class _Choice:
    """Draws from the variant's digits, one after the other; variant 0 always draws the first option."""

    def __init__(self, variant: int) -> None:
        self._left = abs(variant)

    def __call__(self, options: Sequence[str]) -> str:
        self._left, drawn = divmod(self._left, len(options))
        return options[drawn]

    def below(self, count: int) -> int:
        self._left, drawn = divmod(self._left, count)
        return drawn


def sentence(description: Description, kind: Kind, opening: str = "", variant: int = 0) -> str:
    """The description in words.

    Args:
        description: what was read.
        kind: "base" ("The man is wearing ..."), "styled" (continues `opening`), "attributes" ("Upper: ... Lower: ...")
            or "fixed" (the template of text style normalisation).
        opening: for "styled": the words to begin with.
        variant: chooses wording and order of a styled caption; the other kinds have one wording.

    Returns:
        the text, or "" where nothing can be said.

    Raises:
        ValueError: a kind that rewrites a text ("simplify") instead of describing an image, or a missing opening.
    """
    if kind == "base":
        return _base(description)
    if kind == "styled":
        if not opening:
            raise ValueError("A styled caption continues an opening: give the request one.")
        return _styled(description, opening, _Choice(variant))
    if kind == "attributes":
        first = _Choice(0)
        worn = (
            [upper_phrase(description, first)],
            [_lower_phrase(description, first), _shoes_phrase(description, first)],
        )
        upper, lower = (", ".join(phrase for phrase in phrases if phrase) for phrases in worn)
        return f"Upper: {upper}\nLower: {lower}" if upper or lower else ""
    if kind == "fixed":
        return _fixed(description)
    raise ValueError(f"A {kind} prompt holds a text to work on, not an image.")


def templated(description: Description, template: Template = CONSTANT, variant: int = 0) -> str:
    """The description in the shape of a template; "" where nothing can be said.

    Args:
        variant: chooses the wording, as in `sentence`.
    """
    choose = _Choice(variant)
    slots = {
        "upper": upper_phrase(description, choose),
        "lower": _lower_phrase(description, choose),
        "shoes": _shoes_phrase(description, choose),
        "hat": _hat_phrase(description, choose),
        "hair": _hair_phrase(description, choose),
        "belongings": _bag_phrase(description, choose),
    }
    return template.fill(_PERSON[_gender(description)], slots)


def _base(description: Description) -> str:
    first = _Choice(0)
    worn = _worn(description, first)
    if not worn:
        return ""
    tail = [_hair_phrase(description, first), _bag_phrase(description, first)]
    with_things = listed([phrase for phrase in tail if phrase])
    person = _PERSON[_gender(description)]
    return f"The {person} is wearing {listed(worn)}" + (f", with {with_things}." if with_things else ".")


def _styled(description: Description, opening: str, choose: _Choice) -> str:
    shape = choose.below(4)
    worn = _worn(description, choose)
    if not worn:
        return ""
    hair, bag = _hair_phrase(description, choose), _bag_phrase(description, choose)
    if shape == 1 and len(worn) > 1:
        worn = [*worn[1:], worn[0]]
    if shape == 2 and len(worn) > 1 and " with " not in worn[0]:
        text = f"{opening} {worn[0]} with {listed(worn[1:])}"
    else:
        text = f"{opening} {listed(worn)}"
    things = [phrase for phrase in (hair, bag) if phrase]
    if not things:
        return f"{text}."
    if shape in (0, 1):
        return f"{text}, with {listed(things)}."
    rest = [
        f"has {hair}" if hair else "",
        f"{choose(_CARRYING)} {bag}" if bag else "",
    ]
    subject = choose(_SUBJECTS[gender_of(opening)])
    return f"{text}. {subject} {listed([phrase for phrase in rest if phrase])}."


def _fixed(description: Description) -> str:
    first = _Choice(0)
    person = _PERSON[_gender(description)]
    parts = []
    worn = [
        upper_phrase(description, first),
        _lower_phrase(description, first),
        _shoes_phrase(description, first),
    ]
    if any(worn):
        parts.append(f"The {person} is wearing {listed([phrase for phrase in worn if phrase])}.")
    if hair := _hair_phrase(description, first):
        parts.append(f"The {person} has {hair}.")
    if bag := _bag_phrase(description, first):
        parts.append(f"The {person} carries {bag}.")
    return " ".join(parts)


def _worn(description: Description, choose: _Choice) -> list[str]:
    """Phrases for what is worn, from the top down, the hat last."""
    phrases = [
        upper_phrase(description, choose),
        _lower_phrase(description, choose),
        _shoes_phrase(description, choose),
        _hat_phrase(description, choose),
    ]
    return [phrase for phrase in phrases if phrase]


def upper_phrase(description: Description, choose: _Choice) -> str:
    """ "a black and white striped t-shirt", or "" where its colour could not be named."""
    colours = _colour_words(description.upper_colours, choose)
    if not colours:
        return ""
    kind = description.upper.value if description.upper.sure else "top"
    sleeves = description.sleeves.value if description.sleeves.sure else ""
    noun = choose(_UPPER_NOUNS.get((kind, sleeves)) or (kind,))
    pattern = _pattern_word(description.upper_pattern.value if description.upper_pattern.sure else "", choose)
    phrase = _with_article(f"{colours} {pattern} {noun}")
    if kind == "jacket" and description.inner_colour.sure:
        phrase += f" over a {description.inner_colour.value} shirt"
        phrase = phrase.replace(" over a orange", " over an orange")
    return phrase


def _lower_phrase(description: Description, choose: _Choice) -> str:
    colours = _colour_words(description.lower_colours, choose)
    kind = description.lower.value if description.lower.sure else ""
    if not colours or (not kind and description.upper.value == "dress"):
        return ""
    first = description.lower_colours[0]
    nouns = _LOWER_NOUNS["jeans" if kind == "trousers" and first.term == "blue" else kind]
    noun = choose(nouns)
    pattern = _pattern_word(description.lower_pattern.value if description.lower_pattern.sure else "", choose)
    pair, noun = ("a pair of ", noun[10:]) if noun.startswith("a pair of ") else ("", noun)
    phrase = f"{pair}{colours} {pattern} {noun}".replace("blue blue", "blue")
    if "skirt" in kind:
        phrase = _with_article(phrase)
        if description.legs_colour.sure:
            phrase += f" with {description.legs_colour.value} tights"
    return " ".join(phrase.split())


def _shoes_phrase(description: Description, choose: _Choice) -> str:
    shoes = description.shoe_colour
    if not shoes.sure:
        return ""
    noun = choose(_SHOE_NOUNS)
    colour = _called(shoes.value, choose)
    return f"a pair of {colour} {noun[10:]}" if noun.startswith("a pair of ") else f"{colour} {noun}"


def _hat_phrase(description: Description, choose: _Choice) -> str:
    hat = description.hat_colour
    return _with_article(f"{hat.value} {choose(_HAT_NOUNS)}") if hat.sure else ""


def _hair_phrase(description: Description, choose: _Choice) -> str:
    length = description.hair.value if description.hair.sure else ""
    length = choose(_HAIR_LENGTHS.get(length, (length,)))
    colour = _called(description.hair_colour.value, choose) if description.hair_colour.sure else ""
    return " ".join(word for word in (length, colour, "hair") if word) if length or colour else ""


def _bag_phrase(description: Description, choose: _Choice) -> str:
    if not description.bag.sure:
        return ""
    colour = description.bag_colour.value if description.bag_colour.sure else ""
    return _with_article(f"{colour} {choose(_BAG_NOUNS[description.bag.value])}")


def _gender(description: Description) -> str:
    return description.gender.value if description.gender.sure else ""


def _called(colour: str, choose: _Choice) -> str:
    """One of the names people give to a colour."""
    return choose(_COLOUR_SYNONYMS.get(colour, (colour,)))


def _colour_words(colours: Sequence[ColourName], choose: _Choice) -> str:
    sure = [colour for colour in colours if colour.confidence >= _SURE_COLOUR]
    words = dict.fromkeys(colour.words if len(sure) == 1 else colour.term for colour in sure)
    return " and ".join(_called(word, choose) for word in words)


def _pattern_word(pattern: str, choose: _Choice) -> str:
    return choose(_PATTERN_WORDS[pattern])


def _with_article(phrase: str) -> str:
    phrase = " ".join(phrase.split())
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
