"""Templates of varied captions, their prompts, and what palette makes of them."""

from __future__ import annotations

import pytest

from captioning import prompts
from captioning.backends import Request
from captioning.backends.palette import PaletteBackend
from captioning.palette import Description
from captioning.palette.colours import ColourName
from captioning.palette.description import Reading
from captioning.palette.wording import templated
from captioning.templates import SLOTS, all_templates, template_of
from synthesis.generation.drawn_generator import DrawnGenerator
from synthesis.generation.prompts import plain_prompts

WORDS = {
    "upper": "a red t-shirt",
    "lower": "blue jeans",
    "shoes": "white sneakers",
    "hat": "a black cap",
    "hair": "short brown hair",
    "belongings": "a grey backpack",
}


def test_there_are_150_templates_and_each_is_known_by_its_text() -> None:
    templates = all_templates()
    assert len(templates) == len({template.text for template in templates}) == 150
    for template in templates:
        assert template_of(template.text) == template
        assert all(slot in template.text for slot in SLOTS.values()), template.text
    with pytest.raises(ValueError, match="No caption template reads"):
        template_of("A person.")


def test_a_filled_template_says_everything_once_and_leaves_no_slot() -> None:
    for template in all_templates():
        text = template.fill("woman", WORDS)
        assert not set("[]{}") & set(text)
        assert "  " not in text
        assert text.endswith(".")
        assert text[0].isupper()
        for slot, words in WORDS.items():
            said = words.removesuffix(" hair") if slot == "hair" else words
            assert text.count(said) == 1, (text, slot)


@pytest.mark.parametrize("left_out", [*WORDS, "hair belongings", "lower shoes hat", "shoes hair"])
def test_what_is_not_known_is_left_out(left_out) -> None:
    known = {slot: words for slot, words in WORDS.items() if slot not in left_out.split()}
    for template in all_templates():
        text = template.fill("man", known)
        assert text
        assert not any(sign in text for sign in (" .", " ,", ",,", "and .", "[", "  ", "with ."))
        assert all((words.removesuffix(" hair") in text) == (slot in known) for slot, words in WORDS.items())
    assert all(template.fill("man", {"hair": "long hair"}) == "" for template in all_templates())


def test_prompts_are_recognised_and_carry_their_template() -> None:
    assert prompts.kind_of(prompts.constant_prompt()) == "constant"
    for template in all_templates():
        prompt = prompts.variable_prompt(template)
        assert prompts.kind_of(prompt) == "variable"
        assert template_of(prompts.example_of(prompt)) == template
        assert prompts.payload_of(prompt) is None


def test_palette_fills_templates_from_what_it_reads(tmp_path) -> None:
    prompt = plain_prompts([0], seed=1)[0]
    image = tmp_path / "0.png"
    DrawnGenerator().generate([prompt], [prompt.seed])[0].save(image)
    asked = [prompts.constant_prompt(), *map(prompts.variable_prompt, all_templates()[:40])]
    replies = list(PaletteBackend().answer(Request(str(n), image, text) for n, text in enumerate(asked)))
    assert all(reply.status == "done" for reply in replies)
    assert len({reply.text for reply in replies}) > 30
    openings = [template.opening.split("{person}")[1].strip() for template in all_templates()[:40]]
    assert all(opening in reply.text for opening, reply in zip(openings, replies[1:], strict=True))


def test_a_description_of_nothing_gives_no_caption() -> None:
    assert templated(Description()) == ""
    red = Description(
        gender=Reading("male", 0.9), upper=Reading("top", 0.9), upper_colours=(ColourName("red", "", 0.9),), sleeves=Reading("short", 0.9)
    )  # fmt: skip
    assert templated(red) == "A man wearing a red t-shirt."
