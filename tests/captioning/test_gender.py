from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioning.gender import FEMALE_NOUNS, FEMALE_PRONOUNS, MALE_NOUNS, MALE_PRONOUNS, gender_of


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("The man is wearing a red shirt.", "male"),
        ("The woman is wearing a red shirt.", "female"),
        ("HE WEARS JEANS", "male"),
        ("a girl, in white", "female"),
        ("This guy has a bag", "male"),
        ("Lady with a handbag", "female"),
        ("his shirt is blue", "male"),
        ("Blue jeans and her white shoes", "female"),
        ("she's in black", "female"),
        ("a black shirt and jeans", "unknown"),
        ("", "unknown"),
    ],
)
def test_plain_captions(caption: str, expected: str) -> None:
    assert gender_of(caption) == expected


@pytest.mark.parametrize(
    "caption",
    [
        "a leather jacket",
        "this person wears the other shoes",
        "a human figure with a manicure",
        "a shirt with a mandala, a chest pocket and feathers",
        "there is a heather grey sweater",
        "a person in a man-made fibre coat",
        "the shelter where the person stands",
        "sheer tights, a helmet and thermal wear",
    ],
)
def test_words_that_contain_gender_words_decide_nothing(caption: str) -> None:
    assert gender_of(caption) == "unknown"


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("The woman is wearing a leather jacket; this is her bag.", "female"),
        ("A man walks next to a woman in a dress", "male"),
        ("Next to a young woman, the man wears a coat", "male"),
        ("With her hair open, the man beside the girl ...", "male"),
        ("A woman with a little boy, he has a cap", "female"),
        ("A person with arms crossed, the woman wears men's shoes", "female"),
        ("wearing men's shoes and her own coat", "female"),
        ("wearing women's shoes", "female"),
        ("a ladies' bag is carried by him", "male"),
        ("looks like a man", "male"),
        ("Not a man but a lady: she wears black", "female"),
        ("what does a man or woman wear?", "unknown"),
        ("a man or a woman, she wears red", "female"),
        ("either a boy or a girl in blue", "unknown"),
    ],
)
def test_mixed_captions_follow_the_subject(caption: str, expected: str) -> None:
    assert gender_of(caption) == expected


def test_every_listed_word_decides_alone() -> None:
    for word in MALE_NOUNS | MALE_PRONOUNS:
        assert gender_of(f"the photo shows {word} in blue") == "male", word
    for word in FEMALE_NOUNS | FEMALE_PRONOUNS:
        assert gender_of(f"the photo shows {word} in blue") == "female", word


@given(st.text())
def test_any_text_is_answered(text: str) -> None:
    assert gender_of(text) in {"male", "female", "unknown"}


@given(
    st.sampled_from(sorted(MALE_NOUNS | FEMALE_NOUNS)), st.text(alphabet="abcdefghij", min_size=1, max_size=4)
)
def test_a_longer_word_is_another_word(word: str, tail: str) -> None:
    longer = f"q{word}{tail}q"
    assert gender_of(f"a {longer} is seen") == "unknown"
