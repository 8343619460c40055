"""Which words of a caption speak of upper and of lower clothing.

PSPD's local loss (docs/methods/pspd.md) compares the words for upper-body and for lower-body clothing with the image.
`group` finds them by a small noun-phrase grammar over `captioning.lexicon`, without a download; `parse_reply`
reads a language model's "Upper: ... Lower: ..." instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from captioning.lexicon import (
    BELONGINGS,
    BODY,
    BOTH,
    COLOURS,
    COPULAS,
    DESCRIBERS,
    DETAILS,
    DETERMINERS,
    LOWER,
    LOWER_DETAILS,
    STOPS,
    UPPER,
    UPPER_DETAILS,
)

Words = tuple[str, ...]

JOINS = frozenset({"and", "&", ","})
# A sentence ends here: nothing attaches across it.
END = "."
OUTER_PUNCTUATION = ",'`?-–—/\\[]{}<>|_+=“”‘’…"

NEITHER: frozenset[str] = frozenset()
UPPER_ONLY = frozenset({"upper"})
LOWER_ONLY = frozenset({"lower"})
WHOLE_BODY = frozenset({"upper", "lower"})


@dataclass
class Garment:
    """Something worn, or a part of it ("white stripes"): its noun, all its words in order, where it is worn."""

    head: str
    words: list[str]
    groups: frozenset[str]


@dataclass
class _Phrase:
    """A run of content words, and the function words and commas that stand before it."""

    words: list[str]
    gap: list[str]
    head: str = ""
    kind: str = "modifiers"  # or garment, detail, other (belongings, body parts)
    groups: frozenset[str] = NEITHER


def group(caption: str) -> tuple[Words, Words]:
    """Words of the caption that describe clothing above and below the waist.

    Hats, scarves and glasses are upper; skirts, shoes and socks are lower; a dress, suit or uniform is both. Bags,
    other belongings, hair and body parts are neither, and keep their adjectives from the clothing.

    Args:
        caption: any text.

    Returns:
        (upper words, lower words): lower-cased, without punctuation, each word once, in order of first use. Both may
        be empty.
    """
    found: dict[str, dict[str, None]] = {"upper": {}, "lower": {}}
    for garment in garments(caption):
        for name in garment.groups:
            found[name].update(dict.fromkeys(garment.words))
    return tuple(found["upper"]), tuple(found["lower"])


def garments(caption: str) -> list[Garment]:
    """The garments of a caption in order, each with its own words.

    A garment takes the adjectives of its noun phrase ("a black and white striped shirt") and those behind a verb
    ("his shirt is red"). Details ("with white stripes") follow as entries of their own.
    """
    found: list[Garment] = []
    last: list[Garment] = []  # the garment that a detail or a verb refers to
    coordinated: list[Garment] = []  # all that "and" joins to it: "his shirt and pants are black"
    phrases = _phrases(_tokens(caption))
    for position, phrase in enumerate(phrases):
        if END in phrase.gap:
            last, coordinated = [], []
        if phrase.kind == "modifiers":
            for garment in _described_by(phrases, position, last, coordinated):
                garment.words += phrase.words
            coordinated = []
            continue
        if phrase.kind == "detail":
            of_last = last[0].groups if last else NEITHER
            found.append(Garment(phrase.head, phrase.words, _groups_of_detail(phrase.head, of_last)))
            continue
        joined = bool(JOINS & set(phrase.gap)) and set(phrase.gap) <= JOINS | DETERMINERS
        last = [Garment(phrase.head, phrase.words, phrase.groups)] if phrase.groups else []
        coordinated = last + (coordinated if joined else [])
        found += last
    return [garment for garment in found if garment.groups]


def _tokens(caption: str) -> list[str]:
    """Lower-case words, commas and sentence ends; words as the tokenizer sees them, less outer punctuation."""
    text = re.sub(r"[.!?:;()]", f" {END} ", caption.lower())
    text = re.sub(r'["*#~]', " ", text)
    tokens = []
    for raw in text.split():
        word = raw.strip(OUTER_PUNCTUATION)
        if raw in (END, "&"):
            tokens.append(raw)
            continue
        if raw.startswith(","):
            tokens.append(",")
        if word:
            tokens.append(word)
        if raw.endswith(",") and raw != ",":
            tokens.append(",")
    return tokens


def _phrases(tokens: list[str]) -> list[_Phrase]:
    """Cut the tokens into phrases with a head each, if they have one."""
    phrases: list[_Phrase] = []
    words: list[str] = []
    gap: list[str] = []
    for token in [*tokens, END]:
        is_word = token not in STOPS and token not in JOINS and token != END
        if words and (not is_word or _starts_anew(words[-1], token)):
            phrases.append(_classify(_Phrase(words, gap)))
            words, gap = [], []
        if is_word:
            words.append(token)
        else:
            gap.append(token)
    return phrases


def _starts_anew(previous: str, word: str) -> bool:
    """In "black shirt blue jeans" a colour behind a noun begins the next phrase."""
    return word in COLOURS and previous not in DESCRIBERS and _kind(previous)[0] in ("garment", "other")


def _kind(word: str) -> tuple[str, frozenset[str]]:
    """What a word is when nothing behind it makes it an adjective; compounds ("mini-dress") go by their end."""
    for form in (word, word.rsplit("-", 1)[-1]):
        for words, groups in ((UPPER, UPPER_ONLY), (LOWER, LOWER_ONLY), (BOTH, WHOLE_BODY)):
            if form in words:
                return "garment", groups
        if form in BELONGINGS or form in BODY:
            return "other", NEITHER
        if form in DETAILS:
            return "detail", NEITHER
        if form in COLOURS or form in DESCRIBERS:
            return "modifier", NEITHER
    if any(part in COLOURS or part in DESCRIBERS for part in word.split("-")):
        return "modifier", NEITHER
    return "unknown", NEITHER


def _classify(phrase: _Phrase) -> _Phrase:
    """Find the head, the last noun of the phrase; words before it describe it, unknown ones at most two."""
    kinds = [_kind(word) for word in phrase.words]
    heads = [i for i, (kind, _) in enumerate(kinds) if kind in ("garment", "detail", "other")]
    if not heads:
        phrase.words = [w for w, (kind, _) in zip(phrase.words, kinds, strict=True) if kind == "modifier"]
        return phrase
    at = heads[-1]
    phrase.head = phrase.words[at]
    phrase.kind, phrase.groups = kinds[at]
    kept = []
    for i, (word, (kind, _)) in enumerate(zip(phrase.words, kinds, strict=True)):
        name = i in range(at - 2, at) and not word.endswith("ly")
        if kind != "unknown" or name:
            kept.append(word)
    phrase.words = kept
    return phrase


def _described_by(
    phrases: list[_Phrase], position: int, last: list[Garment], coordinated: list[Garment]
) -> list[Garment]:
    """Which garments before an adjective without a noun it describes ("is red").

    If it describes the one that follows ("black and white shirt"), it is moved into the next phrase instead.
    """
    phrase = phrases[position]
    if phrase.gap and phrase.gap[-1] in COPULAS and last:
        return coordinated if len(phrase.gap) == 1 else last
    for following in phrases[position + 1 :]:
        if not set(following.gap) <= JOINS or not _begins_with_modifier(following):
            break
        if following.kind != "modifiers":
            phrases[position + 1].words = phrase.words + phrases[position + 1].words
            return []
    before = phrases[position - 1] if position else None
    enumerates = before is not None and before.kind == "modifiers" and bool(COPULAS & set(before.gap))
    return last if enumerates and set(phrase.gap) <= JOINS else []


def _begins_with_modifier(phrase: _Phrase) -> bool:
    return (
        bool(phrase.words)
        and _kind(phrase.words[0])[0] in ("modifier", "detail")
        and phrase.words[0] != phrase.head
    )


def _groups_of_detail(head: str, last: frozenset[str]) -> frozenset[str]:
    if head in UPPER_DETAILS:
        return UPPER_ONLY
    if head in LOWER_DETAILS:
        return LOWER_ONLY
    return last


_LABEL = re.compile(
    r"\b(upper|lower)(?:[ -]?(?:body|half|part|clothing|clothes|garments?|attributes?))*\s*(?::|：|=|\s-\s)",
    re.IGNORECASE,
)


def parse_reply(text: str) -> tuple[Words, Words] | None:
    """The words of an answer in the form "Upper: ... Lower: ...".

    Any case, order, line breaks, bullets, markdown or JSON punctuation, and talk before and after are accepted. Where
    a label is repeated, the last one counts (an echoed instruction comes before the answer); a missing label is an
    empty part.

    Args:
        text: the answer of a language model, or an attribute line of a released caption file.

    Returns:
        (upper words, lower words) as `group` gives them, or None if neither label is there.
    """
    plain = re.sub(r"[*_`\"\[\]{}#]", " ", text)
    labels = list(_LABEL.finditer(plain))
    if not labels:
        return None
    parts: dict[str, Words] = {"upper": (), "lower": ()}
    for index, label in enumerate(labels):
        final = index + 1 == len(labels)
        stop = len(plain) if final else labels[index + 1].start()
        parts[label[1].lower()] = _reply_words(plain[label.end() : stop], final)
    return parts["upper"], parts["lower"]


def _reply_words(part: str, final: bool) -> Words:
    """Content words of one part; behind the final part, a blank line or a further sentence is talk."""
    part = re.split(r"\n\s*\n", part.strip())[0]
    if final:
        part = re.split(r"[.!?](?:\s|$)", part)[0]
    words = (t for t in _tokens(part) if t not in STOPS and t not in JOINS and t != END)
    return tuple(dict.fromkeys(words))
