"""Edits by instructions, through diffusers' real InstructPix2Pix with random weights."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from data.errors import UserError
from synthesis.generation.instruct_pix2pix import INSTRUCTIONS, InstructPix2Pix, instruction
from synthesis.generation.parts import EDITS, Edit, Prompt
from synthesis.generation.registry import EDITORS, make

pytest.importorskip("diffusers", reason="diffusion needs pip install -r requirements-synthesis.txt")

from tests.tiny_diffusion import save_pipeline

PROMPT = Prompt(0, "a man")
FOREST, RAIN, SIT = Edit("background", "forest"), Edit("weather", "rainy"), Edit("posture", "sitting")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_pipeline(tmp_path_factory.mktemp("tiny") / "pix2pix", editing=True)


@pytest.fixture(scope="module")
def editor(model):
    return InstructPix2Pix(str(model), steps=3, size=32, batch=2)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def edit(editor, images, edits, seeds) -> list[Image.Image]:
    return editor.edit(images, [PROMPT] * len(images), edits, seeds)


def test_every_edit_has_an_instruction_of_its_own():
    assert {kind: tuple(names) for kind, names in INSTRUCTIONS.items()} == dict(EDITS)
    texts = [instruction(Edit(kind, name)) for kind, names in EDITS.items() for name in names]
    assert len(set(texts)) == 19
    with pytest.raises(UserError, match="no instruction for the edit 'weather: hail'"):
        instruction(Edit("weather", "hail"))


def test_edits_keep_the_size_and_change_the_image(editor):
    images = [picture(13, 39), picture(32, 32), picture(60, 20), picture(13, 39, 1)]
    edited = edit(editor, images, [FOREST, FOREST, RAIN, SIT], [1, 2, 3, 4])
    assert [image.size for image in edited] == [image.size for image in images]
    assert all(image.mode == "RGB" for image in edited)
    assert all(
        np.abs(np.asarray(new).astype(int) - np.asarray(old)).mean() > 5
        for new, old in zip(edited, images, strict=True)
    )


def test_alone_and_among_others_an_edit_has_the_same_bytes(editor):
    images, edits, seeds = [picture(16, 48, n) for n in range(3)], [FOREST, RAIN, SIT], [1, 2, 3]
    together = edit(editor, images, edits, seeds)
    assert len({image.tobytes() for image in together}) == 3
    for place in range(3):
        (alone,) = edit(editor, images[place : place + 1], edits[place : place + 1], seeds[place : place + 1])
        assert alone.tobytes() == together[place].tobytes()


def test_instruction_image_and_seed_decide(editor):
    image = picture(16, 48)
    made = edit(
        editor, [image, image, image, picture(16, 48, 9)], [FOREST, RAIN, FOREST, FOREST], [1, 1, 2, 1]
    )
    assert len({one.tobytes() for one in made}) == 4


@pytest.mark.parametrize("size", [(16, 48), (100, 300), (50, 50), (640, 480), (3, 90)])
def test_images_are_edited_in_their_own_shape_and_at_about_the_size_asked_for(editor, size):
    width, height = editor.working_size(size)
    assert width % 8 == height % 8 == 0
    assert 0.4 < width * height / 32**2 < 2.3 or min(width, height) == 8
    assert (width >= height) or size[0] < size[1]


def test_a_model_that_edits_nothing_is_refused(tmp_path):
    plain = save_pipeline(tmp_path / "plain")
    with pytest.raises(UserError):
        InstructPix2Pix(str(plain))


def test_made_by_its_name(model):
    made = make(EDITORS, "instruct_pix2pix", {"model": str(model)}, device="cpu", half=False)
    assert made.name == "pix2pix, guidance 7.5 and 1.5, 50 steps, 512 px, fp32"
