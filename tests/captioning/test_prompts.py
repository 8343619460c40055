from __future__ import annotations

import pytest

from captioning import prompts
from captioning.gender import gender_of


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        (prompts.base_prompt(), "base"),
        (prompts.styled_prompt("he is wearing"), "styled"),
        (prompts.simplify_prompt("The man is wearing black."), "simplify"),
        (prompts.attribute_prompt("The man is wearing black."), "attributes"),
        (prompts.fixed_prompt(), "fixed"),
        (prompts.fixed_rewrite_prompt("a man in black"), "fixed"),
    ],
)
def test_every_prompt_is_recognised(prompt: str, kind: str) -> None:
    assert prompts.kind_of(prompt) == kind


def test_a_foreign_prompt_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="openai or transformers backend"):
        prompts.kind_of("What is in this picture?")


@pytest.mark.parametrize("caption", ["plain", "two\nlines", "{opening} {caption}", "Description: twice", ""])
def test_the_caption_comes_back_out_of_a_text_prompt(caption: str) -> None:
    for make in (prompts.simplify_prompt, prompts.attribute_prompt, prompts.fixed_rewrite_prompt):
        assert prompts.payload_of(make(caption)) == caption


def test_image_prompts_hold_no_caption() -> None:
    assert prompts.payload_of(prompts.base_prompt()) is None
    assert prompts.payload_of(prompts.styled_prompt("a man in")) is None
    assert prompts.payload_of(prompts.fixed_prompt()) is None


def test_base_prompt_asks_for_the_two_beginnings() -> None:
    assert "The man is wearing" in prompts.BASE_PROMPT
    assert "The woman is wearing" in prompts.BASE_PROMPT


@pytest.mark.parametrize(("stage", "count"), [("A", 5), ("C", 3)])
@pytest.mark.parametrize("gender", ["male", "female", "unknown"])
def test_openings_rotate_and_fit_their_gender(gender: str, stage: str, count: int) -> None:
    group = [prompts.opening(gender, index, stage) for index in range(count)]
    assert len(set(group)) == count
    assert group == [prompts.opening(gender, index + count, stage) for index in range(count)]
    for text in group:
        assert gender_of(text) == gender
        assert text == text.lower()
        assert f'"{text}"' in prompts.styled_prompt(text)


def test_captioner_openings_are_known_from_its_training() -> None:
    for gender, group in prompts.OPENINGS_STAGE_C.items():
        assert set(group) <= set(prompts.OPENINGS_STAGE_A[gender])


def test_unknown_stage_and_gender_are_refused() -> None:
    with pytest.raises(ValueError, match="stage"):
        prompts.opening("male", 0, "D")
    with pytest.raises(ValueError, match="gender"):
        prompts.opening("cat", 0)
