"""The gender that a caption speaks of, read from whole words.

Stage A and stage C of the caption generation (docs/methods/pspd.md) choose the opening of the second, styled
caption by the gender of the first one. Whole words matter: "leather" contains "her", "this" contains "his" and
"woman" contains "man", and a substring test would call all three.
"""

from __future__ import annotations

import re
from typing import Literal

from captioning.lexicon import word_set

Gender = Literal["male", "female", "unknown"]

MALE_NOUNS = word_set(
    "man men male males boy boys guy guys gentleman gentlemen lad lads dude bloke fellow father dad grandfather "
    "grandpa husband son brother uncle boyfriend businessman businessmen schoolboy policeman postman fireman "
    "salesman workman mr sir mister"
)
FEMALE_NOUNS = word_set(
    "woman women female females girl girls lady ladies gal lass madam maam mother mom mum grandmother grandma wife "
    "daughter sister aunt girlfriend businesswoman businesswomen schoolgirl policewoman saleswoman waitress "
    "mrs ms miss"
)
MALE_PRONOUNS = word_set("he him his himself he's")
FEMALE_PRONOUNS = word_set("she her hers herself she's")

# A person named after one of these is beside the subject ("a person next to a woman"), not the subject.
COMPANION_WORDS = word_set("with beside behind near to by and toward towards following like not")
DETERMINERS = word_set("a an the this that another some one his her their two")
PHRASE_STARTS = COMPANION_WORDS | DETERMINERS
# Adjectives may stand between the preposition and the noun; more than two of them are no longer its phrase.
MAX_ADJECTIVES = 2

WORD = re.compile(r"[a-z]+(?:['-][a-z]+)*'?")


def gender_of(caption: str) -> Gender:
    """The gender of the person a caption describes.

    The decision, in order:

    1. the first gender noun that can be the subject: not a possessive ("men's shoes") and not a companion ("next
       to a woman", "with a boy", "not a man");
    2. without one, the first pronoun (he, his, she, her, ...);
    3. without that, the first companion noun or possessive, since it is all the caption says.

    "a man or a woman" names both genders at once and counts as neither.

    Args:
        caption: any text, in any case.

    Returns:
        "male", "female" or "unknown".
    """
    text = caption.lower().replace("’", "'").replace("ma'am", "maam")
    words = _without_alternatives(WORD.findall(text))
    subjects, pronouns, others = [], [], []
    for position, word in enumerate(words):
        pronoun = _lookup(word, MALE_PRONOUNS, FEMALE_PRONOUNS)
        if pronoun:
            pronouns.append(pronoun)
            continue
        noun = _lookup(re.sub(r"('s|')$", "", word), MALE_NOUNS, FEMALE_NOUNS)
        if noun:
            possessive = word.endswith(("'s", "s'"))
            aside = possessive or _is_companion(words, position)
            (others if aside else subjects).append(noun)
    found = subjects or pronouns or others
    return found[0] if found else "unknown"


def _lookup(word: str, male: frozenset[str], female: frozenset[str]) -> Gender | None:
    if word in male:
        return "male"
    return "female" if word in female else None


def _without_alternatives(words: list[str]) -> list[str]:
    """Drop "man or woman": both nouns of an alternative, which decides nothing."""
    nouns = MALE_NOUNS | FEMALE_NOUNS
    dropped: set[int] = set()
    for position, word in enumerate(words):
        if word != "or" or position == 0:
            continue
        after = position + 1
        if after < len(words) and words[after] in DETERMINERS:
            after += 1
        if after < len(words) and words[after] in nouns and words[position - 1] in nouns:
            dropped |= {position - 1, after}
    return [word for position, word in enumerate(words) if position not in dropped]


def _is_companion(words: list[str], position: int) -> bool:
    """Whether the noun at `position` ends a phrase "preposition (determiner) (adjectives) noun"."""
    start = position
    while start > 0 and position - start < MAX_ADJECTIVES and words[start - 1] not in PHRASE_STARTS:
        start -= 1
    if start > 0 and words[start - 1] in DETERMINERS:
        start -= 1
    return start > 0 and words[start - 1] in COMPANION_WORDS
