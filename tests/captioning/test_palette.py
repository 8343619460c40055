from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from captioning.attributes import group
from captioning.gender import gender_of
from captioning.palette import Description, Reading, describe, sentence
from captioning.palette.colours import TERMS, ColourName, even_illumination, name_colour, srgb_to_lab
from captioning.palette.dominant import dominant_colours
from captioning.palette.patterns import find_pattern
from captioning.palette.regions import HEIGHT, WIDTH, read_figure

SKIN, GROUND = (224, 182, 150), (150, 156, 150)
NAMED = {
    "black": (20, 20, 22),
    "white": (245, 245, 245),
    "grey": (128, 128, 128),
    "red": (200, 30, 35),
    "orange": (240, 130, 25),
    "yellow": (245, 215, 45),
    "green": (40, 140, 60),
    "blue": (35, 80, 190),
    "purple": (120, 45, 150),
    "pink": (240, 120, 170),
    "brown": (115, 70, 38),
}


def person(
    upper: tuple[int, int, int] = NAMED["red"],
    lower: tuple[int, int, int] = NAMED["blue"],
    sleeves: str = "long",
    short_legs: bool = False,
    size: tuple[int, int] = (80, 180),
) -> Image.Image:
    """A person of rectangles and ellipses, standing in front of a plain ground."""
    image = Image.new("RGB", (80, 180), GROUND)
    draw = ImageDraw.Draw(image)
    draw.ellipse((33, 6, 47, 30), fill=SKIN)
    draw.pieslice((33, 4, 47, 28), 180, 360, fill=(25, 22, 22))
    draw.rectangle((37, 28, 43, 34), fill=SKIN)
    arm = SKIN if sleeves != "long" else upper
    for left, right in ((16, 23), (57, 64)):
        draw.rectangle((left, 36, right, 90), fill=arm)
        draw.rectangle((left, 36, right, 58), fill=SKIN if sleeves == "none" else upper)
        draw.rectangle((left, 86, right, 92), fill=SKIN)
    draw.rectangle((24, 34, 56, 92), fill=upper)
    legs_end = 126 if short_legs else 166
    for left, right in ((26, 39), (41, 54)):
        draw.rectangle((left, 90, right, 168), fill=SKIN)
        draw.rectangle((left, 92, right, legs_end), fill=lower)
        draw.rectangle((left - 2, 166, right + 2, 175), fill=(15, 15, 15))
    return image.resize(size)


def lab_of(rgb: tuple[int, int, int]) -> tuple[float, float, float]:
    """CIE 15 written out for one colour, against the D65 white of the sRGB matrix."""
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
    matrix = (
        (0.4124564, 0.3575761, 0.1804375),
        (0.2126729, 0.7151522, 0.0721750),
        (0.0193339, 0.1191920, 0.9503041),
    )
    f = []
    for row in matrix:
        ratio = sum(m * c for m, c in zip(row, linear, strict=True)) / sum(row)
        f.append(ratio ** (1 / 3) if ratio > (6 / 29) ** 3 else ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_lab_is_cie_lab(rgb: tuple[int, int, int]) -> None:
    assert np.allclose(srgb_to_lab(np.array(rgb, np.uint8)), lab_of(rgb), atol=0.02)


def test_lab_of_published_values() -> None:
    assert np.allclose(srgb_to_lab(np.array([255, 0, 0], np.uint8)), (53.24, 80.09, 67.20), atol=0.05)
    assert np.allclose(srgb_to_lab(np.array([0, 0, 255], np.uint8)), (32.30, 79.19, -107.86), atol=0.05)


def test_typical_colours_have_their_names() -> None:
    for term, rgb in NAMED.items():
        assert name_colour(srgb_to_lab(np.array(rgb, np.uint8))).term == term
    assert set(NAMED) == set(TERMS)


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_every_colour_has_a_name(rgb: tuple[int, int, int]) -> None:
    name = name_colour(srgb_to_lab(np.array(rgb, np.uint8)))
    assert name.term in TERMS
    assert 0.5 <= name.confidence <= 1
    assert name.words.endswith(name.term)


def test_greys_are_never_coloured() -> None:
    for level in range(256):
        name = name_colour(srgb_to_lab(np.array([level] * 3, np.uint8)))
        assert name.term in ("black", "grey", "white"), level


def test_a_cast_is_weakened_but_not_inverted() -> None:
    pixels = np.full((8, 8, 3), (150, 120, 100), np.uint8)
    evened = even_illumination(pixels, np.ones((8, 8)))[0, 0].astype(int)
    assert 0 < evened[0] - evened[2] < 50


def test_dominant_colours_by_share() -> None:
    lab = np.zeros((20, 20, 3), np.uint8)
    lab[:14], lab[14:] = NAMED["green"], NAMED["white"]
    patches = dominant_colours(srgb_to_lab(lab), np.ones((20, 20)))
    assert [patch.name.term for patch in patches] == ["green", "white"]
    assert patches[0].share == pytest.approx(0.7, abs=0.05)
    assert dominant_colours(srgb_to_lab(lab), np.zeros((20, 20))) == []


@pytest.mark.parametrize("kind", ["horizontal stripes", "vertical stripes", "checks"])
def test_patterns_and_their_colours(kind: str) -> None:
    rows, columns = np.indices((28, 28)) // 3 % 2
    mask = {"horizontal stripes": rows, "vertical stripes": columns, "checks": rows & columns}[kind]
    pixels = np.where(mask[..., None], NAMED["white"], NAMED["red"]).astype(np.uint8)
    pattern = find_pattern(srgb_to_lab(pixels), np.ones((28, 28)))
    assert pattern is not None
    assert pattern.kind == kind
    assert {colour.term for colour in pattern.colours} == {"red", "white"}


def test_plain_noisy_and_two_coloured_cloth_has_no_pattern() -> None:
    noise = np.random.default_rng(0).normal(0, 8, (28, 28, 3))
    plain = np.clip(np.array(NAMED["blue"]) + noise, 0, 255).astype(np.uint8)
    halves = np.where((np.arange(28) < 14)[None, :, None], NAMED["red"], plain).astype(np.uint8)
    for pixels in (plain, halves):
        assert find_pattern(srgb_to_lab(pixels), np.ones((28, 28))) is None


@pytest.mark.parametrize("term", sorted(set(NAMED) - {"grey", "brown"}))
def test_colours_of_a_drawn_person(term: str) -> None:
    other = "black" if term != "black" else "white"
    upper = describe(person(upper=NAMED[term], lower=NAMED[other]))
    assert upper.upper_colours[0].term == term
    assert upper.lower_colours[0].term == other
    assert describe(person(upper=NAMED[other], lower=NAMED[term])).lower_colours[0].term == term


@pytest.mark.parametrize("sleeves", ["long", "short", "none"])
def test_sleeves_of_a_drawn_person(sleeves: str) -> None:
    assert describe(person(sleeves=sleeves)).sleeves.value == sleeves


def test_length_of_the_trousers() -> None:
    assert describe(person()).lower.value == "trousers"
    assert describe(person(short_legs=True)).lower.value in ("shorts", "skirt")


def test_landmarks_of_a_drawn_person() -> None:
    figure = read_figure(person())
    rows = np.abs(figure.down[:, None] - np.array([[0.0, 1.0]])).argmin(axis=0) / HEIGHT
    assert rows == pytest.approx([4 / 180, 176 / 180], abs=0.04)
    shirt = np.zeros((HEIGHT, WIDTH), bool)
    shirt[int(HEIGHT * 0.25) : int(HEIGHT * 0.45), WIDTH // 3 : -WIDTH // 3] = True
    assert figure.person[shirt].mean() > 3 * figure.person[:, :6].mean()


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"]
)
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (80, 160)])
def test_any_mode_and_size_is_read(mode: str, size: tuple[int, int]) -> None:
    image = person().convert("L").resize(size)
    image = image.convert("I").convert("I;16") if mode == "I;16" else person(size=size).convert(mode)
    assert isinstance(describe(image), Description)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_noise_is_read_without_error(width: int, height: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    description = describe(Image.fromarray(pixels))
    for value in vars(description).values():
        if isinstance(value, Reading):
            assert 0 <= value.confidence <= 1


def test_reading_does_not_depend_on_the_size_of_the_crop() -> None:
    small, large = describe(person(size=(60, 135))), describe(person(size=(400, 900)))
    assert [c.term for c in small.upper_colours] == [c.term for c in large.upper_colours]
    assert (small.sleeves.value, small.lower.value) == (large.sleeves.value, large.lower.value)


def test_an_empty_street_says_nothing() -> None:
    description = describe(Image.new("RGB", (80, 160), GROUND))
    assert description == Description()
    assert sentence(description, "base") == sentence(description, "styled", "he is wearing", 5) == ""


FULL = Description(
    gender=Reading("female", 0.9),
    upper=Reading("top", 0.9),
    upper_colours=(ColourName("black"), ColourName("white")),
    upper_pattern=Reading("horizontal stripes", 0.9),
    sleeves=Reading("short", 0.9),
    lower=Reading("trousers", 0.9),
    lower_colours=(ColourName("blue", "dark"),),
    shoe_colour=Reading("white", 0.9),
    hair=Reading("long", 0.9),
    hair_colour=Reading("brown", 0.9),
    hat_colour=Reading("red", 0.3),
    bag=Reading("backpack", 0.9),
    bag_colour=Reading("orange", 0.9),
)


def test_base_sentence_says_what_is_sure() -> None:
    assert sentence(FULL, "base") == (
        "The woman is wearing a black and white horizontally striped t-shirt, dark blue jeans and white shoes, "
        "with long brown hair and an orange backpack."
    )
    assert "red" not in sentence(FULL, "base")


@given(st.integers(0, 2**32 - 1), st.sampled_from(["he is wearing", "a woman in", "the person wears"]))
def test_styled_sentences_continue_their_opening(variant: int, opening: str) -> None:
    text = sentence(FULL, "styled", opening, variant)
    assert text == sentence(FULL, "styled", opening, variant)
    assert text.startswith(f"{opening} ")
    assert text.endswith(".")
    assert "  " not in text
    assert gender_of(text) == gender_of(opening)
    upper, lower = group(text)
    assert {"black", "white"} <= set(upper)
    assert "white" in lower
    assert {"blue", "navy"} & set(lower)


def test_styled_sentences_vary() -> None:
    texts = {sentence(FULL, "styled", "she is wearing", variant) for variant in range(200)}
    assert len(texts) > 60


def test_other_kinds() -> None:
    assert sentence(FULL, "attributes").splitlines()[0].startswith("Upper: a black and white")
    assert sentence(FULL, "fixed").count("The woman") == 3
    with pytest.raises(ValueError, match="opening"):
        sentence(FULL, "styled")
    with pytest.raises(ValueError, match="text"):
        sentence(FULL, "simplify")
