"""What is odd about a data set's captions, and what each oddity does to a result."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from data.findings import Finding, Level
from data.records import NO_IDENTITY, SPLITS, PedesDataset, Record

LONG = 60  # words: about as many as the 77 tokens hold that CLIP reads (BLIP: 72 tokens)
_SHOWN = 3
_QUERIED = ("val", "test")

# Brackets, backslashes, assignments and addresses: what is left of a program or a file in a sentence about a person.
_CODE = re.compile(r"[{}<>\[\]\\|=^`]|https?:|\w\(\)|;$")


def check_captions(dataset: PedesDataset) -> list[Finding]:
    """The findings about every split's captions, and about those that train shares with test.

    Empty captions never become part of a record; reading the annotation counts them (`LeftOut`).
    """
    findings = []
    for split in SPLITS:
        records = dataset.split(split)
        findings += _shared_by_identities(split, records)
        for level, odd, what in _ODD:
            findings += _told(split, level, what, [c for _, c in _captions(records) if odd(c)])
    seen = {plain(caption) for _, caption in _captions(dataset.train)}
    repeated = [caption for _, caption in _captions(dataset.test) if plain(caption) in seen]
    effect = "{count} of test stand in train word for word, so these queries are not unseen sentences"
    return findings + _told("test", "note", effect, repeated)


def plain(caption: str) -> str:
    """What two captions are compared by: lower case, no punctuation, single spaces."""
    return " ".join(re.findall(r"\w+", caption.casefold()))


def has_other_script(caption: str) -> bool:
    """Whether a letter is not Latin. Accents, digits, punctuation and signs of any kind are fine, as is all of Latin-1 (µ, º)."""
    return any(
        unicodedata.category(letter).startswith("L")
        and not unicodedata.name(letter, "").startswith(("LATIN", "MODIFIER"))
        for letter in caption
        if letter > "\xff"
    )


def has_code(caption: str) -> bool:
    """Whether something in it is no prose: brackets of code, a backslash, an address."""
    return _CODE.search(caption) is not None


def _is_one_word(caption: str) -> bool:
    return len(caption.split()) == 1


def _is_long(caption: str) -> bool:
    return len(caption.split()) > LONG


_ODD: tuple[tuple[Level, Callable[[str], bool], str], ...] = (
    (
        "note",
        has_other_script,
        "{count} of {split} hold letters that are not Latin: no English vocabulary knows them, so they are left out",
    ),
    (
        "note",
        has_code,
        "{count} of {split} hold fragments of code or addresses: they are read as words. Mend them in the annotation",
    ),
    ("note", _is_one_word, "{count} of {split} are one word: as a query it fits many people"),
    (
        "note",
        _is_long,
        f"{{count}} of {{split}} have more than {LONG} words: text encoders read about as many and not the rest "
        "(training and evaluation count with their own vocabulary)",
    ),
)


def _captions(records: Iterable[Record]) -> Iterator[tuple[int, str]]:
    """Every caption with its identity."""
    return ((record.identity, caption) for record in records for caption in record.captions)


def _shared_by_identities(split: str, records: list[Record]) -> list[Finding]:
    """The same sentence on several people."""
    people: dict[str, set[int]] = defaultdict(set)
    for identity, caption in _captions(records):
        if identity != NO_IDENTITY:
            people[plain(caption)].add(identity)
    shared = [caption for _, caption in _captions(records) if len(people[plain(caption)]) > 1]
    if split in _QUERIED:
        effect = "no ranking serves all of them, as each person counts as a mistake for the others"
        return _told(
            split, "warning", f"{{count}} of {{split}} stand with several identities: {effect}", shared
        )
    effect = "in training each is a negative of the other's image"
    return _told(split, "note", f"{{count}} of {{split}} stand with several identities: {effect}", shared)


def _told(split: str, level: Level, sentence: str, captions: list[str]) -> list[Finding]:
    """One finding with the count and the first different captions; none without any."""
    if not captions:
        return []
    first = ", ".join(repr(_short(caption)) for caption in list(dict.fromkeys(captions))[:_SHOWN])
    count = f"{len(captions):,} caption(s)"
    return [Finding(level, f"{sentence.format(count=count, split=split)}. First: {first}.")]


def _short(caption: str, most: int = 60) -> str:
    return caption if len(caption) <= most else f"{caption[: most - 3]}..."
