"""Adjectives and nouns of captions against hand-made tags, and the units made from them."""

from __future__ import annotations

import pytest

from models.methods.attribute_words import attribute_units, tag

# One letter per word, tagged by hand: a(djective), n(oun), . (neither).
TAGGED = [
    ("the man is wearing a black shirt and blue jeans", ".n...an.an"),
    ("a woman with long brown hair wears a red dress", ".n.aan..an"),
    ("she carries a small white handbag on her left shoulder", "...aan..an"),
    ("he is walking forward in grey sneakers with white soles", ".....an.an"),
    ("this person has short-sleeved striped t-shirt and dark-blue knee-length shorts", ".n.aan.aan"),
    ("a young boy dressed in a long-sleeve hooded sweatshirt", ".an...aan"),
    ("the girl has a leather backpack and is slightly turning", ".n..nn...."),
    ("he held something shiny while standing behind the red bicycle", "...a....an"),
    ("a pair of black leggings with a floral pattern", ".n.an..an"),
    ("the lady wore earrings and a reddish scarf", ".n.n..an"),
    ("an elderly man with a bald head carrying plastic bags", ".an..an.nn"),
    ("both of his arms are covered by white sleeves", "...n...an"),
]


@pytest.mark.parametrize(("caption", "expected"), TAGGED)
def test_hand_tagged_captions(caption, expected):
    letters = {"adjective": "a", "noun": "n", "other": "."}
    assert "".join(letters[tag(word)] for word in caption.split()) == expected


@pytest.mark.parametrize("word", ["", "a", "7", "2x", "'s", "-", "--"])
def test_what_is_no_word(word):
    assert tag(word) == "other"


def test_pieces_of_a_word_are_one_unit():
    words = [None, "a", "turquoise", "turquoise", "t-shirt", "t-shirt", "t-shirt", None, "jeans", None]
    assert attribute_units(words) == [0, 0, 1, 1, 2, 2, 2, 0, 3, 0]


def test_phrases_are_adjectives_with_their_nouns():
    words = ["a", "man", "in", "black", "leather", "shoes", None, "long", "hair", "and", "red"]
    assert attribute_units(words, phrases=True) == [0, 0, 0, 1, 1, 1, 0, 2, 2, 0, 0]


def test_a_new_adjective_begins_a_new_phrase():
    assert attribute_units(["white", "shirt", "blue", "jeans", "bag"], phrases=True) == [1, 1, 2, 2, 2]


def test_punctuation_parts_phrases():
    assert attribute_units(["black", "shirt", None, "jeans"], phrases=True) == [1, 1, 0, 0]


@pytest.mark.parametrize("phrases", [False, True])
def test_no_words_no_units(phrases):
    assert attribute_units([], phrases) == []
    assert attribute_units([None, None], phrases) == [0, 0]
