from __future__ import annotations

import random
from pathlib import Path

import pytest
from PIL import Image

from captioning import prompts
from captioning.attributes import parse_reply
from captioning.backends import Backend, Request, make_backend
from captioning.backends.palette import PaletteBackend
from captioning.palette import describe
from captioning.simplify import shorten
from synthesis.drawn.attributes import sample_people
from synthesis.drawn.camera import CAMERAS, sample_shot
from synthesis.drawn.renderer import ProceduralRenderer


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("crops")
    return [_draw(folder, index) for index in range(6)]


def _draw(folder: Path, index: int) -> Path:
    people = sample_people(index + 1, 11)
    shot = sample_shot(CAMERAS[0], "front", random.Random(index))
    path = folder / f"{index}.png"
    ProceduralRenderer().render(people[-1], shot, str(index)).image.save(path)
    return path


def answer(request: Request):
    (reply,) = PaletteBackend().answer([request])
    return reply


def test_it_is_a_backend() -> None:
    backend = make_backend("palette")
    assert isinstance(backend, Backend)
    assert isinstance(backend, PaletteBackend)
    assert backend.name == "palette"
    backend.close()


def test_every_image_prompt_is_answered_in_its_form(crops: list[Path]) -> None:
    for path in crops:
        base = answer(Request("k", path, prompts.base_prompt()))
        assert base.status == "done"
        assert base.text.startswith(("The man is wearing", "The woman is wearing", "The person is wearing"))
        styled = answer(Request("k", path, prompts.styled_prompt("a man in"), "a man in"))
        assert styled.text.startswith("a man in ")
        assert answer(Request("k", path, prompts.fixed_prompt())).text.startswith("The ")


def test_its_captions_survive_the_rules_that_simplify(crops: list[Path]) -> None:
    for number, path in enumerate(crops):
        for opening in prompts.OPENINGS_STAGE_A["female"]:
            text = answer(Request(str(number), path, prompts.styled_prompt(opening), opening)).text
            assert shorten(text) == text


def test_answers_are_deterministic_and_follow_the_key(crops: list[Path]) -> None:
    def styled(key: str) -> str:
        return answer(Request(key, crops[0], prompts.styled_prompt("he is wearing"), "he is wearing")).text

    assert styled("a") == styled("a")
    assert len({styled(str(key)) for key in range(30)}) > 5


def test_text_prompts_are_answered_by_rules() -> None:
    caption = "A man in a black and white striped shirt, blue jeans and red shoes carries a green bag. He seems happy."
    short = answer(Request("k", None, prompts.simplify_prompt(caption))).text
    assert "striped shirt" in short
    assert "happy" not in short
    attributes = answer(Request("k", None, prompts.attribute_prompt(caption))).text
    assert parse_reply(attributes) == (
        ("black", "white", "striped", "shirt"),
        ("blue", "jeans", "red", "shoes"),
    )
    fixed = answer(Request("k", None, prompts.fixed_rewrite_prompt(caption))).text
    assert fixed == (
        "The man is wearing black white striped shirt, blue jeans, red shoes. The man carries green bag."
    )


def test_an_unreadable_or_empty_image_is_a_reply_not_a_crash(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    for path in (broken, tmp_path / "missing.jpg"):
        reply = answer(Request("k", path, prompts.base_prompt()))
        assert (reply.status, reply.text) == ("failed", "")
        assert path.name in reply.error
    plain = tmp_path / "plain.png"
    Image.new("RGB", (40, 80), (90, 90, 90)).save(plain)
    assert answer(Request("k", plain, prompts.base_prompt())).status == "empty"


def test_an_image_prompt_without_image_is_refused() -> None:
    with pytest.raises(ValueError, match="has none"):
        answer(Request("k", None, prompts.base_prompt()))


@pytest.mark.integration
def test_colours_of_drawn_people_are_mostly_right() -> None:
    """Guards against regressions; docs/palette.md has the measured numbers."""
    rng = random.Random(5)
    right = {"upper": 0, "lower": 0, "sleeves": 0}
    asked = dict.fromkeys(right, 0)
    for index, person in enumerate(sample_people(150, 5)):
        view = rng.choice(("front", "back", "left", "right"))
        picture = ProceduralRenderer().render(person, sample_shot(rng.choice(CAMERAS), view, rng), str(index))
        read = describe(picture.image)
        answers = {"upper": (person.upper.colour.term, read.upper_colours)}
        if person.lower is not None and person.upper.kind != "dress":
            answers["lower"] = (person.lower.colour.term, read.lower_colours)
        for part, (truth, colours) in answers.items():
            asked[part] += 1
            right[part] += truth in {colour.term for colour in colours}
        asked["sleeves"] += 1
        right["sleeves"] += read.sleeves.value == person.upper.sleeves
    shares = {part: right[part] / asked[part] for part in right}
    assert shares["upper"] > 0.80, shares
    assert shares["lower"] > 0.80, shares
    assert shares["sleeves"] > 0.72, shares
