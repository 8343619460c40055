"""DreamBooth and low-rank adapters on a tiny pipeline: what learns, what stays, and what comes back from a file."""

from __future__ import annotations

import copy

import pytest
import torch

from data.errors import UserError
from synthesis.generation.denoising import Noised, draw
from synthesis.generation.parts import Prompt

pytest.importorskip("diffusers", reason="personalisation needs pip install -r requirements-synthesis.txt")
pytest.importorskip("peft", reason="personalisation needs pip install -r requirements-synthesis.txt")

from synthesis.generation import pipelines
from synthesis.generation.diffusion import DiffusionGenerator
from synthesis.generation.dreambooth import OWN_TEXT, PRIOR_TEXT, DreamBooth
from synthesis.generation.lora import WORDS, StyleAdapters, add_adapters
from synthesis.generation.personal import STYLE, Personalisation, write_record
from tests.tiny_diffusion import save_pipeline

CPU = torch.device("cpu")
PROMPTS = [Prompt(0, f"{STYLE}a man in a red coat"), Prompt(1, "a woman")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_pipeline(tmp_path_factory.mktemp("tiny") / "sd")


@pytest.fixture
def pipeline(model):
    return opened(model)


def opened(model):
    return pipelines.load("AutoPipelineForText2Image", model, CPU, half=False, safety_checker=True)


def batch(task, texts, seed: int = 0) -> Noised:
    frozen = task.frozen
    draws = [draw(seed + place, frozen.latent_shape(16), len(frozen.kept)) for place in range(len(texts))]
    pixels = torch.rand(len(texts), 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return Noised(pixels, frozen.ids(texts), *(torch.stack(parts) for parts in zip(*draws, strict=True)))


def steps(task, batches, count: int = 2) -> None:
    optimizer = torch.optim.AdamW([weight for weight in task.parameters() if weight.requires_grad], lr=0.05)
    task.train()
    for _ in range(count):
        torch.stack(list(task(batches).values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def state(module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in module.state_dict().items()}


def changed(before, after) -> set[str]:
    return {name for name, weight in before.items() if not torch.equal(weight, after[name])}


def made(pipeline, texts=tuple(prompt.text for prompt in PROMPTS)) -> list[bytes]:
    images = pipeline(
        list(texts),
        generator=pipelines.noise_sources([1, 2]),
        num_inference_steps=2,
        guidance_scale=8.5,
        height=16,
        width=16,
    ).images
    return [image.tobytes() for image in images]


def test_dreambooths_loss_is_the_few_images_and_the_weighted_prior(pipeline):
    task = DreamBooth(pipeline, prior_weight=0.3)
    own, prior = batch(task, [OWN_TEXT] * 2), batch(task, [PRIOR_TEXT] * 2, seed=9)
    both = task((own, prior))
    assert both["own"].item() == pytest.approx(task((own, None))["own"].item(), rel=1e-5)
    assert both["prior"].item() == pytest.approx(0.3 * task((prior, None))["own"].item(), rel=1e-5)
    assert set(task((own, None))) == {"own"}


def test_dreambooth_changes_the_network_alone_and_its_folder_is_a_model(pipeline, model, tmp_path):
    before = {name: state(getattr(pipeline, name)) for name in ("unet", "vae", "text_encoder")}
    plain = made(pipeline)
    task = DreamBooth(pipeline)
    steps(task, (batch(task, [OWN_TEXT] * 2), batch(task, [PRIOR_TEXT] * 2, seed=9)))
    assert changed(before["unet"], state(pipeline.unet)) == set(before["unet"]), "the network as a whole"
    assert not changed(before["vae"], state(pipeline.vae))
    assert not changed(before["text_encoder"], state(pipeline.text_encoder))
    learned = made(pipeline)
    assert all(one != other for one, other in zip(learned, plain, strict=True))
    task.save(tmp_path / "personal")
    assert made(opened(tmp_path / "personal")) == learned


def test_recomputed_activations_give_the_same_gradients(model):
    gradients = []
    for recompute in (False, True):
        task = DreamBooth(opened(model), recompute=recompute).train()
        task((batch(task, [OWN_TEXT]), None))["own"].backward()
        gradients.append({name: weight.grad.clone() for name, weight in task.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name


def test_adapters_change_nothing_at_their_start(pipeline):
    plain = made(pipeline, ["a man", "a woman"])
    StyleAdapters(pipeline, rank=2)
    assert made(pipeline, ["a man", "a woman"]) == plain


def test_adapters_and_words_learn_and_nothing_else_does(pipeline):
    before = {name: state(getattr(pipeline, name)) for name in ("unet", "vae", "text_encoder")}
    task = StyleAdapters(pipeline, rank=2)
    starts = copy.deepcopy(task.state_dict())
    assert set(starts) == {"words", *(f"adapters.{number}" for number in range(len(task.adapters)))}
    assert (
        len(task.adapters) == 2 * 4 * 2 * 4
    )  # A and B; four products; to itself and to the text; four places
    assert {weight.shape[0] if weight.shape[0] == 2 else weight.shape[1] for weight in task.adapters} == {2}
    steps(task, (batch(task, [PROMPTS[0].text, f"{STYLE}a girl"]), None))
    assert changed(starts, task.state_dict()) == set(starts)
    after = {name.replace(".base_layer", ""): weight for name, weight in state(pipeline.unet).items()}
    assert not changed(before["unet"], after)
    assert not changed(before["vae"], state(pipeline.vae))
    kept = {name.replace(".known", ""): weight for name, weight in state(pipeline.text_encoder).items()}
    assert not changed(before["text_encoder"], kept), "also every word that was there before"


def test_adapters_out_of_a_file_make_the_images_of_those_that_learned(pipeline, model, tmp_path):
    task = StyleAdapters(pipeline, rank=2, seed=3)
    plain = made(pipeline)
    steps(task, (batch(task, [PROMPTS[0].text] * 2), None), count=6)
    learned = made(pipeline)
    assert all(one != other for one, other in zip(learned, plain, strict=True))
    task.save(tmp_path)
    other = opened(model)
    add_adapters(other, tmp_path)
    assert made(other) == learned
    options = {"steps": 2, "size": 16, "batch": 2}
    with pytest.raises(UserError, match=r"what its adapters have seen \(personal\.json is missing"):
        DiffusionGenerator(str(model), str(tmp_path), scenario="none", **options)
    write_record(tmp_path, Personalisation("all", "sd", "demo", (1,), 2, True, 6, 3))
    generator = DiffusionGenerator(str(model), str(tmp_path), scenario="all", **options)
    assert [image.tobytes() for image in generator.generate(PROMPTS, [1, 2])] == learned


def test_the_words_are_two_tokens_of_their_own(pipeline):
    task = StyleAdapters(pipeline, rank=2)
    ids = task.frozen.ids([f"{STYLE}a man"])[0].tolist()
    assert [ids.index(49408), ids.index(49409)] == [5, 6]  # <start> in the style of
    states = task.frozen.states(task.frozen.ids([f"{STYLE}a man", "a man"]))
    with torch.no_grad():
        task.words.add_(1)
    moved = task.frozen.states(task.frozen.ids([f"{STYLE}a man", "a man"]))
    assert not torch.equal(states[0, 5:], moved[0, 5:])
    assert torch.equal(states[1], moved[1])


def test_the_same_seed_starts_the_same_and_draws_from_nobody(model):
    torch.manual_seed(1)
    untouched = torch.randn(1)
    torch.manual_seed(1)
    first = StyleAdapters(opened(model), rank=2, seed=5).state_dict()
    assert torch.equal(torch.randn(1), untouched)
    second = StyleAdapters(opened(model), rank=2, seed=5).state_dict()
    assert not changed(first, second)
    assert changed(first, StyleAdapters(opened(model), rank=2, seed=6).state_dict())


def test_what_holds_no_adapters_for_this_model_is_refused(pipeline, tmp_path):
    with pytest.raises(UserError, match="holds no adapters for this model"):
        add_adapters(pipeline, tmp_path)
    (tmp_path / WORDS).write_bytes(b"no weights")
    with pytest.raises(UserError, match="holds no adapters for this model"):
        add_adapters(pipeline, tmp_path)
