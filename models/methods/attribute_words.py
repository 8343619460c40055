"""Which words of a caption of a person are adjectives or nouns, and which of them form a phrase.

A part-of-speech tagger would need a download, and these captions are a small language: closed-class words and verbs of
wearing, carrying and moving are listed, adjectives are listed or known by their ending, and what remains is a noun.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CLOSED = _words("""
    a an the this that these those some any each every either neither both all another other such no not nor none
    he she it they him her them his hers its their theirs himself herself itself we you i me my your our who whom whose
    which what where when while there here one two three four five six seven eight nine ten first second
    and or but so because if than then as though although also too very quite rather just only even still almost about
    of in on at by for from with without to into onto over under above below behind beside besides between before after
    around across along against through down up off out near toward towards past upon within during until inside outside
    beneath underneath forward forwards backward backwards away ahead together maybe perhaps possibly probably
    is are was were be been being am has have had having do does did doing can could will would shall should may might
    must seem seems appear appears something someone somebody somewhere anything nothing
    """)
_VERBS = _words("""
    carry carries carried wear wears wore worn hold holds held walk walks walked stand stands stood sit sits sat run runs
    ran face faces faced look looks looked use uses used talk talks talked ride rides rode push pushes pushed pull pulls
    pulled go goes went gone move moves moved come comes came put puts hang hangs hung reach reaches reached covered covers
    matches keep keeps kept bring brings brought make makes made show shows showed shown turn turns turned step steps stepped
    take takes took taken wrapped drape drapes draped tied tuck tucks tucked dressed paired read reads bend bends bent leans
    leaned raise raises raised complete completes completed consist consists feature features featured include includes
    included swing swings get gets got let lets see sees saw seen listen listens glance glances
    """)
_ING_NOT_VERB = _words("""clothing legging leggings earring earrings ring rings string strings stocking stockings sling lining piping wing
    wings building evening morning railing lettering writing marking markings painting shopping parking king""")
_LY_NOT_ADVERB = _words("curly frilly woolly belly friendly family jelly lily burly ugly")
_ADJECTIVES = _words("""
    black white red green blue yellow orange purple pink brown grey gray beige navy khaki tan maroon burgundy teal
    turquoise olive cream ivory gold golden silver violet lavender magenta crimson scarlet aqua cyan mustard peach coral
    lime charcoal indigo mint fuchsia rose bronze blonde blond brunette ginger pale dark light bright deep vivid neon
    pastel multi multicolor multicolour colorful colourful colorless plain solid dull transparent translucent
    long short medium mid large big small little tiny thin thick wide narrow tight loose baggy slim skinny fitted tall
    high low upper lower middle full half old older young younger elderly adult middle-aged slender heavy overweight chubby
    fat lean petite average male female asian caucasian casual formal athletic sporty smart elegant fashionable modern
    floral plaid checked tartan striped stripy stripey dotted spotted polka graphic tribal abstract geometric
    denim cotton woolen woollen wool knit knitted fur furry fluffy fuzzy silky shiny glossy matte metallic sheer
    lacy lace puffy quilted padded hooded sleeveless strapless backless collarless sleeved collared buttoned zipped
    open closed bare visible right left front bottom horizontal vertical diagonal similar different same new
    straight curly wavy messy neat bald long-haired flat round square rectangular oval pointed double single multiple
    several many few more less most least additional various matching contrasting flowing lightweight warm cool clean
    dirty ripped torn faded frayed cropped rolled flared pleated frilly ruffled printed patterned camouflage camo dressy
    cuffed laced bulky boxy roomy oversized oversize whole entire main lighter darker longer shorter bigger larger smaller
    thicker thinner reddish
    """)
_ED_NOT_ADJECTIVE = _words("bed sled shed seed weed feed need reed")
_ADJECTIVE_ENDINGS = ("ed", "ish", "less", "able", "ible", "ful", "ous", "ive", "ic")
_NOT_BY_ENDING = _words("fabric music picnic plastic olive sleeve dish fish comic mosaic") | _ED_NOT_ADJECTIVE
# The head of a compound that describes whatever its own class: "knee-length", "short-sleeve", "v-neck", "lace-up".
_DESCRIBING_HEADS = _words("length sleeve sleeves neck up on down high style size color colour toe waist top")


def tag(word: str) -> str:
    """`"adjective"`, `"noun"` or `"other"` for a lower-case word of a caption."""
    parts = [part for part in word.split("-") if part]
    if len(parts) > 1 and word not in _ADJECTIVES:
        # "black-and-white", "dark-blue": by the last part; "t-shirt" is the noun its last part is.
        return "adjective" if parts[-1] in _DESCRIBING_HEADS else tag(parts[-1])
    if word in _ADJECTIVES:
        return "adjective"
    if len(word) < 2 or not word.isalpha() or word in _CLOSED or word in _VERBS:
        return "other"
    if word.endswith("ing") and word not in _ING_NOT_VERB:
        return "other"
    if word.endswith("ly") and word not in _LY_NOT_ADVERB:
        return "other"
    if word.endswith(_ADJECTIVE_ENDINGS) and word not in _NOT_BY_ENDING:
        return "adjective"
    return "noun"


def attribute_units(words: Sequence[str | None], phrases: bool = False) -> list[int]:
    """Number the attribute words, or attribute phrases, that a caption's tokens belong to.

    Args:
        words: the word of every token; None where there is none (special tokens, punctuation). Equal neighbours are pieces
            of one word.
        phrases: number phrases, one or more adjectives with the nouns that follow them ("long black hair"), instead of
            single adjectives and nouns.

    Returns:
        For every token 0, or the number of its unit from 1 on.
    """
    runs = [(word, len(list(tokens))) for word, tokens in groupby(words)]
    tags = ["other" if word is None else tag(word) for word, _ in runs]
    numbers = _phrase_numbers(tags) if phrases else _word_numbers(tags)
    return [number for number, (_, length) in zip(numbers, runs, strict=True) for _ in range(length)]


def _word_numbers(tags: Sequence[str]) -> list[int]:
    numbers, count = [], 0
    for kind in tags:
        count += kind != "other"
        numbers.append(count if kind != "other" else 0)
    return numbers


def _phrase_numbers(tags: Sequence[str]) -> list[int]:
    numbers, count, start = [0] * len(tags), 0, 0
    while start < len(tags):
        nouns = start
        while nouns < len(tags) and tags[nouns] == "adjective":
            nouns += 1
        end = nouns
        while end < len(tags) and tags[end] == "noun":
            end += 1
        if start < nouns < end:
            count += 1
            numbers[start:end] = [count] * (end - start)
        start = max(end, start + 1)
    return numbers
