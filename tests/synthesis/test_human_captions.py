"""Captions against the record they were written from, read back with a dictionary of the test's own."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from synthesis.drawn.attributes import sample_people
from synthesis.drawn.captions import LONG, MISTAKE_SHARE, SHORT, describe, tokens
from synthesis.drawn.renderer import Picture

TERM_OF = {
    "navy": "blue", "beige": "brown", "tan": "brown", "khaki": "brown", "maroon": "red", "lavender": "purple", "gray": "grey",
    "blonde": "blond", "blond": "blond",
}  # fmt: skip
TERM_OF |= {
    term: term
    for term in [
        "black",
        "white",
        "grey",
        "red",
        "orange",
        "yellow",
        "green",
        "blue",
        "purple",
        "pink",
        "brown",
    ]
}
EVERYTHING = dict.fromkeys(
    ("upper", "lower", "inner", "hair", "shoes", "bag", "hat", "scarf", "glasses", "print", "face"), 0.05
)
THINGS = {
    "backpack": ("bag", "backpack"), "rucksack": ("bag", "backpack"), "suitcase": ("bag", "suitcase"),
    "purse": ("bag", "handbag"), "skirt": ("lower", "skirt"), "shorts": ("lower", "shorts"), "leggings": ("lower", "leggings"),
    "jeans": ("lower", "jeans"), "boots": ("shoes", "boots"), "sandals": ("shoes", "sandals"), "beanie": ("hat", "knit hat"),
    "scarf": ("scarf", "scarf"), "hoodie": ("upper", "hoodie"), "dress": ("upper", "dress"),
}  # fmt: skip


def _picture(**changes) -> Picture:
    return replace(Picture(None, "front", True, EVERYTHING), **changes)


def _captions(count: int, words=SHORT, picture=None):
    for index, person in enumerate(sample_people(count, seed=6)):
        yield person, describe(person, picture or _picture(), random.Random(index), words)


def _colours_of(person) -> set[str]:
    parts = (person.upper, person.lower, person.shoes, person.bag, person.hat, person.scarf)
    colours = [part.colour for part in parts if part is not None]
    for garment in (person.upper, person.lower):
        if garment is not None:
            colours += [colour for colour in (garment.second, garment.inner) if colour is not None]
    return {colour.term for colour in colours} | {person.hair.term}


def test_colours_and_things_are_those_of_the_record():
    for person, caption in _captions(800):
        if caption.mistake:
            continue
        words = re.findall(r"[a-z\-]+", caption.text.lower())
        assert {TERM_OF[word] for word in words if word in TERM_OF} <= _colours_of(person), caption.text
        for word, (slot, kind) in THINGS.items():
            if word in words and not (word == "dress" and re.search("dress (shirt|shoes)", caption.text)):
                assert kind in getattr(person, slot).kind, caption.text
        if person.gender == "man":
            assert not {"she", "her", "woman", "lady", "girl"} & set(words)
        else:
            assert not {"he", "his", "man", "guy", "male"} & set(words)


def test_declared_mistakes_are_rare_and_real():
    captions = list(_captions(3000))
    wrong = [pair for pair in captions if pair[1].mistake]
    assert 0.4 * MISTAKE_SHARE < len(wrong) / len(captions) < 2 * MISTAKE_SHARE
    for person, caption in wrong:
        words = set(re.findall(r"[a-z]+", caption.text.lower()))
        if caption.mistake == "gender":
            assert not words & (
                {"he", "his", "man", "guy"} if person.gender == "man" else {"she", "her", "woman", "lady"}
            )
        found = re.search(r"(\w+) (?:denim )?jeans", caption.text)
        if caption.mistake == "lower" and found:
            assert TERM_OF[found[1]] != person.lower.colour.term
    assert {caption.mistake for _, caption in wrong} == {"gender", "upper", "lower", "shoes"}


@pytest.mark.parametrize(("words", "low", "high"), [(SHORT, 19, 30), (LONG, 27, 42)])
def test_lengths(words, low, high):
    counts = [len(caption.text.split()) for _, caption in _captions(400, words)]
    assert low < sum(counts) / len(counts) < high
    assert max(counts) <= words[1]
    assert sum(count < words[0] for count in counts) / len(counts) < 0.02


def test_what_cannot_be_seen_is_not_described():
    hidden = _picture(view="back", visible={"upper": 0.2, "lower": 0.2})
    for person, caption in _captions(400, picture=hidden):
        text = caption.text.lower()
        assert not re.search(
            "glasses|shoes|sneakers|backpack|scarf|print|logo", text.replace("dress shoes", "shoes")
        ), text
        if person.hair_style != "bald":
            assert "hair" not in text


def test_captions_vary():
    person = sample_people(1, seed=2)[0]
    texts = {describe(person, _picture(), random.Random(index)).text for index in range(200)}
    assert len(texts) > 150
    assert len({text.split()[0] for text in texts}) >= 4


def test_captions_are_sentences():
    for _, caption in _captions(500):
        text = caption.text
        assert text[0].isupper()
        assert text.endswith(".")
        assert "  " not in text
        assert not re.search(r"\ba [aeo]\w|\ban [^aeiou]", text), text


def test_tokens_are_lower_case_words():
    assert tokens("A man, in a T-shirt. He walks!") == ["a", "man", "in", "a", "t-shirt", "he", "walks"]
