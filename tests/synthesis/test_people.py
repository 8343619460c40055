"""Identities: no two alike, stable under the size of the set, colours near their names."""

from __future__ import annotations

import random

import pytest

from synthesis.drawn.attributes import UPPER_KINDS, sample_people
from synthesis.drawn.colours import ANCHORS, TERMS, make_colour, sample_colour, vary


def _distance(first, second) -> float:
    return sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5


def test_basic_terms_are_the_eleven():
    assert set(TERMS) == set(
        ["black", "white", "grey", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown"]
    )


@pytest.mark.parametrize("name", list(ANCHORS))
def test_a_varied_colour_stays_nearest_to_its_own_term(name):
    rng = random.Random(1)
    for _ in range(50):
        rgb = vary(ANCHORS[name], rng)
        nearest = min(ANCHORS, key=lambda other: _distance(ANCHORS[other], rgb))
        assert nearest[0] == name[0]


def test_colours_vary_within_a_term_and_keep_to_the_weights():
    rng = random.Random(2)
    drawn = [sample_colour({"red": 1, "blue": 3}, rng) for _ in range(400)]
    assert {colour.term for colour in drawn} == {"red", "blue"}
    assert len({colour.rgb for colour in drawn}) > 200
    assert 0.65 < sum(colour.term == "blue" for colour in drawn) / 400 < 0.85


def test_unknown_colour_is_an_error():
    with pytest.raises(KeyError):
        make_colour("mauve", "", random.Random(0))


def test_no_two_identities_share_a_description():
    descriptions = [person.description() for person in sample_people(3000, seed=4)]
    assert len(set(descriptions)) == len(descriptions)


def test_a_larger_set_begins_with_the_smaller_one():
    assert sample_people(40, seed=3)[:10] == sample_people(10, seed=3)
    assert sample_people(10, seed=3) != sample_people(10, seed=5)


def test_every_kind_of_garment_and_bag_is_worn_by_someone():
    people = sample_people(600, seed=0)
    assert {person.upper.kind for person in people} == set(UPPER_KINDS)
    lower = {person.lower.kind for person in people if person.lower}
    assert lower == {"jeans", "trousers", "shorts", "skirt", "long skirt", "leggings", "tights"}
    bags = {person.bag.kind if person.bag else None for person in people}
    assert bags == {None, "backpack", "shoulder bag", "handbag", "suitcase"}
    assert {person.gender for person in people} == {"man", "woman"}


def test_a_pattern_has_a_second_colour_of_another_name():
    for person in sample_people(500, seed=8):
        for garment in (person.upper, person.lower):
            if garment is not None:
                assert (garment.second is None) == (garment.pattern == "plain")
                assert garment.second is None or garment.second.term != garment.colour.term
        assert (person.upper.inner is not None) == person.upper.is_open
