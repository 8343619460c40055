"""Images from sentences, through diffusers' real pipelines with random weights."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest

from data.errors import UserError
from synthesis.generation.parts import Prompt
from synthesis.generation.personal import Personalisation, write_record
from synthesis.generation.pipelines import noise_sources
from synthesis.generation.registry import GENERATORS, make

pytest.importorskip("diffusers", reason="diffusion needs pip install -r requirements-synthesis.txt")

from synthesis.generation.diffusion import DiffusionGenerator
from tests.tiny_diffusion import save_pipeline

SMALL = {"steps": 3, "size": 32}
PROMPTS = [
    Prompt(number, text, {"age": "young"})
    for number, text in enumerate(
        ["a man in a red coat", "a woman", "a boy with a hat", "a girl", "an old man"]
    )
]
SEEDS = [7, 2**62 + 1, 2, 3, 4]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_pipeline(tmp_path_factory.mktemp("tiny") / "sd")


@pytest.fixture(scope="module")
def generator(model):
    return DiffusionGenerator(str(model), batch=5, **SMALL)


@pytest.fixture(scope="module")
def together(generator):
    return generator.generate(PROMPTS, SEEDS)


def levels(first, second) -> int:
    """The largest difference between two images in levels of grey."""
    return int(np.abs(np.asarray(first).astype(int) - np.asarray(second)).max())


def test_one_image_for_each_prompt_and_none_like_another(together):
    assert [(image.size, image.mode) for image in together] == [((32, 32), "RGB")] * 5
    assert len({image.tobytes() for image in together}) == 5
    assert all(np.asarray(image).std() > 5 for image in together)


def test_alone_and_among_others_an_image_has_the_same_bytes(generator, together):
    for place in (0, 1, 4):
        (alone,) = generator.generate([PROMPTS[place]], [SEEDS[place]])
        assert alone.tobytes() == together[place].tobytes()
    turned = generator.generate(PROMPTS[::-1], SEEDS[::-1])
    assert [image.tobytes() for image in turned[::-1]] == [image.tobytes() for image in together]


def test_another_batch_size_differs_by_rounding_alone(model, together):
    """A product of another shape adds in another order; after three steps that is a level of grey at most."""
    single = DiffusionGenerator(str(model), batch=1, **SMALL).generate(PROMPTS, SEEDS)
    assert max(map(levels, single, together)) <= 1


def test_seeds_and_prompts_decide(generator, together):
    same, other_seed, other_prompt = generator.generate(
        [PROMPTS[0], PROMPTS[0], PROMPTS[1]], [SEEDS[0], SEEDS[0] + 1, SEEDS[0]]
    )
    assert same.tobytes() == together[0].tobytes()
    assert other_seed.tobytes() != same.tobytes()
    assert other_prompt.tobytes() != same.tobytes()


def test_all_of_a_seed_counts():
    """torch's generator by itself takes the lower half of a seed on a CPU."""
    first, second = noise_sources([1, 1 + 2**32])
    assert first.initial_seed() != second.initial_seed()


def test_guidance_and_steps_are_heeded(model, together):
    for options in ({"guidance": 1.0, "steps": 3}, {"guidance": 8.5, "steps": 4}):
        (image,) = DiffusionGenerator(str(model), size=32, batch=5, **options).generate(
            PROMPTS[:1], SEEDS[:1]
        )
        assert image.tobytes() != together[0].tobytes()


def test_made_by_its_name_with_the_papers_settings(model):
    made = make(GENERATORS, "diffusers", {"model": str(model)}, device="cpu", half=True)
    assert made.name == "sd, guidance 8.5, 50 steps, 512 px, fp32"  # half precision is for GPUs


def test_no_progress_bars(model, capfd):
    DiffusionGenerator(str(model), **SMALL).generate(PROMPTS[:1], SEEDS[:1])
    said = capfd.readouterr()
    assert "it/s" not in said.err + said.out
    assert "%|" not in said.err + said.out


def test_weights_in_half_precision_alone_are_widened_on_a_cpu(tmp_path, together):
    narrow = save_pipeline(tmp_path / "narrow", half=True)
    assert not list(narrow.glob("unet/*model.safetensors"))
    images = DiffusionGenerator(str(narrow), batch=5, **SMALL).generate(PROMPTS, SEEDS)
    assert max(map(levels, images, together)) <= 8, "the same weights, rounded"


def test_what_the_safety_checker_flags_is_black_and_told(tmp_path, caplog):
    checked = save_pipeline(tmp_path / "checked", concept_weight=-2.0)
    images = DiffusionGenerator(str(checked), batch=3, **SMALL).generate(PROMPTS[:2], SEEDS[:2])
    assert all(image.getextrema() == ((0, 0),) * 3 for image in images)
    told = [record.getMessage() for record in caplog.records if "made an image black" in record.getMessage()]
    assert told == [
        f"The safety checker made an image black: prompt 0, seed 7; prompt 1, seed {2**62 + 1}. A person filter leaves it out."
    ]


def test_a_safety_checker_that_finds_nothing_or_is_left_out(tmp_path, caplog, together):
    checked = save_pipeline(tmp_path / "checked", concept_weight=2.0)
    for kept, words in ((True, ""), (False, "without a safety checker")):
        caplog.clear()
        made = DiffusionGenerator(str(checked), safety_checker=kept, batch=5, **SMALL)
        assert made.generate(PROMPTS[:1], SEEDS[:1])[0].tobytes() == together[0].tobytes()
        assert ("without a safety checker" in caplog.text) is bool(words)


@pytest.mark.parametrize("size", [0, 100, -8])
def test_a_size_that_does_not_go_is_refused(model, size):
    with pytest.raises(UserError, match="multiple of 8"):
        DiffusionGenerator(str(model), size=size)


def test_what_is_no_pipeline_is_refused(model, tmp_path):
    with pytest.raises(UserError, match=r"is no folder of a diffusion pipeline \(with model_index\.json"):
        DiffusionGenerator(str(tmp_path / "nowhere"))
    copy = shutil.copytree(model, tmp_path / "copy")
    (copy / "model_index.json").write_text('["no", "index"]')
    with pytest.raises(UserError, match="is no folder of a diffusion pipeline"):
        DiffusionGenerator(str(copy))
    cut = shutil.copytree(model, tmp_path / "cut")
    weights = cut / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="can't be loaded as a pipeline"):
        DiffusionGenerator(str(cut))


def test_a_missing_package_is_told_with_its_requirements(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"pip install -r requirements-synthesis\.txt"):
        DiffusionGenerator(str(model))


def test_weights_of_another_scenario_are_refused(model, tmp_path):
    with pytest.raises(
        UserError, match=r"'few' is asked for, and .* holds weights of 'none'.*engine\.personalisation"
    ):
        DiffusionGenerator(str(model), scenario="few")
    assert DiffusionGenerator(str(model), scenario="none", **SMALL)
    personal = shutil.copytree(model, tmp_path / "personal")
    write_record(personal, Personalisation("few", "sd", "demo", (1, 5), 9, False, 100, 0))
    assert DiffusionGenerator(str(personal), scenario="few", **SMALL)
    with pytest.raises(UserError, match="name the plain model"):
        DiffusionGenerator(str(personal), scenario="none")
