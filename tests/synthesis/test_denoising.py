"""The loss that diffusion models are trained with, against loops and against diffusers' own arithmetic."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from data.errors import UserError
from synthesis.generation.denoising import Frozen, Noised, denoising_losses, draw, joined, squared


def tensors(*shape: int, count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(*shape, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_loss_against_loops(prediction):
    answer, latents, noise = tensors(2, 3, 4, 5)
    kept = torch.tensor([0.9, 0.2]).view(2, 1, 1, 1)
    found = denoising_losses(answer, latents, noise, kept, prediction)
    for sample, share in enumerate((0.9, 0.2)):
        total, count = 0.0, 0
        for place in np.ndindex(3, 4, 5):
            wanted = noise[sample][place].item()
            if prediction == "v_prediction":
                wanted = math.sqrt(share) * wanted - math.sqrt(1 - share) * latents[sample][place].item()
            total += (answer[sample][place].item() - wanted) ** 2
            count += 1
        assert found[sample].item() == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_latents_noise_and_target_are_diffusers_own(prediction, tmp_path):
    diffusers = pytest.importorskip("diffusers", reason="pip install -r requirements-synthesis.txt")
    from tests.tiny_diffusion import save_pipeline

    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(save_pipeline(tmp_path / "sd"))
    scheduler = diffusers.DDPMScheduler.from_config(
        pipeline.scheduler.config, prediction_type=prediction, clip_sample=False
    )
    pipeline.scheduler.register_to_config(prediction_type=prediction)
    frozen = Frozen(pipeline)
    shape = frozen.latent_shape(32)
    posterior, noise, times = (
        torch.stack(parts) for parts in zip(*(draw(n, shape, 1000) for n in range(2)), strict=True)
    )
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    batch = Noised(pixels, frozen.ids(["a man", "a woman"]), posterior, noise, times)
    seen = {}

    def network(noisy, at, states, return_dict):
        seen.update(noisy=noisy, times=at, states=states)
        return (torch.zeros_like(noisy),)

    states = frozen.states(batch.ids)
    losses = frozen.losses(network, batch, states)
    with torch.no_grad():
        spread = pipeline.vae.encode(pixels).latent_dist
        latents = (spread.mean + spread.logvar.mul(0.5).exp() * posterior) * 0.18215
        expected, *_ = pipeline.encode_prompt(["a man", "a woman"], "cpu", 1, False)
    assert torch.allclose(seen["noisy"], scheduler.add_noise(latents, noise, times), atol=1e-5)
    assert torch.equal(seen["times"], times)
    assert torch.allclose(seen["states"], expected, atol=1e-6), "texts are read as when images are made"
    target = noise if prediction == "epsilon" else scheduler.get_velocity(latents, noise, times)
    assert torch.allclose(losses, target.square().mean((1, 2, 3)), rtol=1e-4)


def test_a_model_that_predicts_something_else_is_refused():
    part = torch.nn.Linear(1, 1)
    scheduler = SimpleNamespace(config=SimpleNamespace(prediction_type="sample"))
    with pytest.raises(UserError, match="predicts 'sample'"):
        Frozen(SimpleNamespace(vae=part, text_encoder=part, tokenizer=None, scheduler=scheduler))


def test_what_is_drawn_depends_on_the_seed_alone():
    first = draw(5, (4, 8, 8), 1000)
    assert all(torch.equal(one, other) for one, other in zip(first, draw(5, (4, 8, 8), 1000), strict=True))
    posterior, noise, _ = first
    assert not torch.equal(posterior, noise)
    assert not torch.equal(noise, draw(6, (4, 8, 8), 1000)[1])
    times = torch.stack([draw(seed, (1, 1, 1), 10)[2] for seed in range(200)])
    assert set(times.tolist()) == set(range(10))


def test_batches_are_joined_in_order():
    batches = [Noised(*(torch.full((count, 2), float(count)) for _ in range(5))) for count in (1, 2)]
    both = joined(batches)
    assert both.ids.tolist() == [[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]]


@pytest.mark.parametrize("size", [(10, 30), (30, 10), (16, 16), (5, 7)])
def test_a_square_shows_the_whole_image(size):
    width, height = size
    image = Image.fromarray(
        np.stack([np.add.outer(np.arange(height) * 6, np.arange(width) * 2).astype(np.uint8)] * 3, -1)
    )
    square = squared(image, 32)
    assert square.shape == (3, 32, 32)
    assert square.min() >= -1
    assert square.max() <= 1
    corners = square[0, 0, 0], square[0, -1, -1]
    pixels = np.asarray(image)[..., 0] / 127.5 - 1
    assert corners[0].item() == pytest.approx(pixels[0, 0], abs=0.1), "head and feet are in it"
    assert corners[1].item() == pytest.approx(pixels[-1, -1], abs=0.1)


def test_what_lies_around_a_tall_crop_is_its_border():
    square = squared(Image.new("RGB", (10, 40), (255, 0, 0)), 40)
    assert torch.equal(square[0], torch.ones(40, 40))
    assert torch.equal(square[1:], -torch.ones(2, 40, 40))
