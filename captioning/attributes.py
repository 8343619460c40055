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
class _Phrase:
    """A run of content words, and the function words and commas that stand before it."""

    words: list[str]
    gap: list[str]
    head: str | None = None
    kind: str = "modifiers"  # or garment, detail, other (belongings, body parts)
    groups: frozenset[str] = NEITHER


def group(caption: str) -> tuple[Words, Words]:
    """Words of the caption that describe clothing above and below the waist.

    A garment takes the adjectives of its noun phrase ("a black and white striped shirt"), those behind a verb ("his
    shirt is red") and the details that follow it ("with white stripes"). Hats, scarves and glasses are upper; skirts,
    shoes and socks are lower; a dress, suit or uniform is both. Bags, other belongings, hair and body parts are
    neither, and keep their adjectives from the clothing.

    Args:
        caption: any text.

    Returns:
        (upper words, lower words): lower-cased, without punctuation, each word once, in order of first use. Both may
        be empty.
    """
    found: dict[str, dict[str, None]] = {"upper": {}, "lower": {}}

    def add(groups: frozenset[str], words: list[str]) -> None:
        for name in groups:
            found[name].update(dict.fromkeys(words))

    phrases = _phrases(_tokens(caption))
    last = coordinated = NEITHER
    for position, phrase in enumerate(phrases):
        if END in phrase.gap:
            last = coordinated = NEITHER
        if phrase.kind == "modifiers":
            add(_groups_of_modifiers(phrases, position, last, coordinated), phrase.words)
            coordinated = NEITHER
        elif phrase.kind == "detail":
            add(_groups_of_detail(phrase.head, last), phrase.words)
        else:
            add(phrase.groups, phrase.words)
            joined = bool(JOINS & set(phrase.gap)) and set(phrase.gap) <= JOINS | DETERMINERS
            coordinated = phrase.groups | (coordinated if joined else NEITHER)
            last = phrase.groups
    return tuple(found["upper"]), tuple(found["lower"])


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


def _groups_of_modifiers(
    phrases: list[_Phrase], position: int, last: frozenset[str], coordinated: frozenset[str]
) -> frozenset[str]:
    """Whose are adjectives without a noun: the garment's before ("is red") or after ("black and white shirt").

    `last` holds the groups of the garment before, `coordinated` those of all garments that "and" joins to it: "his
    shirt and pants are black" means both.
    """
    gap = phrases[position].gap
    if gap and gap[-1] in COPULAS and last:
        return coordinated if len(gap) == 1 else last
    for following in phrases[position + 1 :]:
        if not set(following.gap) <= JOINS or not _begins_with_modifier(following):
            break
        if following.kind == "detail":
            return _groups_of_detail(following.head, last)
        if following.kind != "modifiers":
            return following.groups
    before = phrases[position - 1] if position else None
    enumerates = before is not None and before.kind == "modifiers" and bool(COPULAS & set(before.gap))
    return last if enumerates and set(gap) <= JOINS else NEITHER


def _begins_with_modifier(phrase: _Phrase) -> bool:
    return (
        bool(phrase.words)
        and _kind(phrase.words[0])[0] in ("modifier", "detail")
        and phrase.words[0] != phrase.head
    )


def _groups_of_detail(head: str | None, last: frozenset[str]) -> frozenset[str]:
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
