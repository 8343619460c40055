"""Prompts: slots, rules, seeds, and the families that a text model writes."""

from __future__ import annotations

from collections import Counter

import pytest

from captioning.backends import Reply
from captioning.store import CaptionStore
from synthesis.generation import prompts
from synthesis.generation.families import ask_for_texts, families_of, make_prompts, question, rough_words
from synthesis.generation.prompts import FEMALE_LOWERS, LOWERS, identified, plain_prompts
from synthesis.generation.recipe import Recipe, edits_of, planned_images

MANY = plain_prompts(list(range(3000)), seed=3)


def test_men_have_short_hair_and_wear_no_skirt_and_no_dress() -> None:
    men = [prompt for prompt in MANY if prompt.attributes["gender"] == "man"]
    assert 1300 < len(men) < 1700
    for prompt in men:
        assert prompt.attributes["hair"] == "short"
        assert not set(prompt.text.replace(",", "").split()) & {"skirt", "dress", "woman", "long-hair"}
        assert "with short hair" in prompt.text
    assert {p.attributes["lower"] for p in MANY if p.attributes["gender"] == "woman"} == set(LOWERS)


def test_every_slot_is_drawn_with_equal_chances() -> None:
    slots = {
        "age": prompts.AGES,
        "gender": prompts.GENDERS,
        "upper": prompts.UPPERS,
        "upper style": prompts.UPPER_STYLES,
        "sleeves": prompts.SLEEVES,
        "shoes": prompts.SHOES,
        "extra": prompts.EXTRAS,
        "angle": prompts.ANGLES,
    }
    for slot, words in slots.items():
        counts = Counter(prompt.attributes[slot] for prompt in MANY)
        expected = len(MANY) / len(words)
        assert counts.keys() == set(words)
        # Five standard deviations of a binomial.
        assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values()), slot
    for gender, kinds in (("woman", set(LOWERS)), ("man", set(LOWERS) - set(FEMALE_LOWERS))):
        counts = Counter(p.attributes["lower"] for p in MANY if p.attributes["gender"] == gender)
        expected = sum(counts.values()) / len(kinds)
        assert counts.keys() == kinds
        assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


def test_there_are_more_than_a_hundred_thousand_descriptions() -> None:
    """Counted from the slots; those that are drawn differ pairwise."""
    shared = len(prompts.AGES) * len(prompts.UPPER_STYLES) * len(prompts.UPPERS) * len(prompts.SLEEVES)
    shared *= len(prompts.SHOES) * len(prompts.EXTRAS) * len(prompts.ANGLES)
    styles = {gender: sum(len(LOWERS[k]) for k in LOWERS if gender == "woman" or k not in FEMALE_LOWERS) for gender in prompts.GENDERS}  # fmt: skip
    assert shared * (styles["man"] + 2 * styles["woman"]) > 100_000
    assert all(5 <= len(styles) <= 6 for styles in LOWERS.values())
    assert len({prompt.text for prompt in MANY}) == len(MANY)


def test_a_prompt_depends_on_seed_and_number_and_not_on_how_many_follow() -> None:
    assert plain_prompts(list(range(40)), seed=3) == MANY[:40]
    assert plain_prompts(list(range(40)), seed=4)[0].text != MANY[0].text
    assert len({prompt.seed for prompt in MANY}) == len(MANY)
    images = planned_images(MANY[:200], 5)
    assert len({image.seed for image in images}) == len({image.path for image in images}) == 1000


def test_texts_name_what_the_slots_say() -> None:
    for prompt in MANY[:200]:
        assert not any("colour" in slot for slot in prompt.attributes)
        for slot, word in prompt.attributes.items():
            assert word in prompt.text, (slot, prompt.text)
    coloured = plain_prompts(list(range(50)), seed=3, colours=True)
    for prompt in coloured:
        assert f"{prompt.attributes['upper colour']} {prompt.attributes['upper style']}" in prompt.text
        assert f"a pair of {prompt.attributes['shoes colour']} {prompt.attributes['shoes']}" in prompt.text


def test_a_personalised_name_takes_the_place_of_whole_words_only() -> None:
    assert identified("a salesman and a woman, the postman's human face") == (
        "a salesman and a female sks person, the postman's human face"
    )
    assert identified("a young man", "xyz person") == "a young male xyz person"
    recipe = Recipe(prompts=20, identifier="sks person")
    plain = Recipe(prompts=20).all_prompts()
    for prompt, before in zip(recipe.all_prompts(), plain, strict=True):
        assert "male sks person" in prompt.text
        assert (prompt.seed, prompt.attributes) == (before.seed, before.attributes)


class Writer:
    """A text model that says what it was asked, and refuses every fifth time."""

    name = model = "writer"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def answer(self, requests):
        for request in requests:
            self.asked.append(request.key)
            assert request.image is None
            status = "refused" if int(request.key) % 5 == 0 else "done"
            yield Reply(request.key, "" if status == "refused" else f"Sentence {request.key}.", status)

    def close(self) -> None: ...


def test_written_families_are_asked_for_once_and_shared_by_processes(tmp_path) -> None:
    shares = {"plain": 1.0, "profession": 1.0, "state": 1.0}
    families = families_of(shares, 60, 0)
    assert set(families) == set(shares)
    writer, store = Writer(), CaptionStore(tmp_path / "prompts.jsonl")
    for rank in (1, 0, 1):
        ask_for_texts(shares, 60, 0, writer, store, rank=rank, world_size=2)
    written = [str(number) for number, family in enumerate(families) if family != "plain"]
    assert sorted(writer.asked, key=int) == written
    found = make_prompts(shares, 60, 0, store)
    for prompt in found:
        assert prompt.family == families[prompt.number]
        assert (prompt.text == f"Sentence {prompt.number}.") == (prompt.family != "plain")
    assert {prompt.number for prompt in found} == {n for n in range(60) if families[n] == "plain" or n % 5}
    # The same plain prompts as without a text model.
    assert make_prompts(shares, 60, 0) == [prompt for prompt in found if prompt.family == "plain"]


@pytest.mark.parametrize("family", ["appearance", "profession", "location", "state"])
def test_rough_words_keep_the_rules(family) -> None:
    for number in range(200):
        words = rough_words(family, number, 0)
        assert words == rough_words(family, number, 0)
        assert all(word in question(words) for word in words.values())
        if words["gender"] == "man":
            assert words["hair"] == "short"
            assert words.get("lower") not in FEMALE_LOWERS


def test_fewer_edits_are_part_of_more() -> None:
    for seed in range(50):
        few, more = (
            edits_of(seed, {"background": 2, "style": 1}),
            edits_of(seed, {"background": 4, "style": 5}),
        )
        assert set(few) <= set(more)
        assert (len(few), len(more)) == (3, 9)
    every = edits_of(0, {"background": 6, "weather": 3, "style": 5, "posture": 5})
    assert len(set(every)) == 19
    chosen = Counter(edits_of(seed, {"weather": 1})[0].name for seed in range(600))
    assert all(150 < count < 250 for count in chosen.values())
