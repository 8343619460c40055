"""What a latent diffusion model is trained with: its pixels as noisy latents, and how far its answer is from the noise.

Ho et al., "Denoising Diffusion Probabilistic Models" (NeurIPS 2020), eq. 14, in the latents of Rombach et al. (CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from data.errors import UserError


@dataclass
class Noised:
    """A batch: images, texts, and everything random about them, so that a step depends on its seeds alone.

    Attributes:
        pixels: (B, 3, S, S), -1 to 1.
        ids: (B, T), the tokens of each image's text.
        posterior: (B, C, s, s), the normal draw that a latent is made from within the autoencoder's distribution.
        noise: (B, C, s, s), what is added to the latents.
        times: (B,), how far each latent is gone.
    """

    pixels: Tensor
    ids: Tensor
    posterior: Tensor
    noise: Tensor
    times: Tensor

    def to(self, device: torch.device) -> Noised:
        """The same batch on a device."""
        return Noised(*(getattr(self, part.name).to(device, non_blocking=True) for part in fields(self)))


def joined(batches: Sequence[Noised]) -> Noised:
    """Several batches as one."""
    return Noised(*(torch.cat([getattr(batch, part.name) for batch in batches]) for part in fields(Noised)))


def draw(seed: int, latent: tuple[int, int, int], times: int) -> tuple[Tensor, Tensor, Tensor]:
    """The posterior's draw, the noise and the time of one image, from its seed alone.

    Args:
        latent: channels, height, width.
        times: how many there are.
    """
    generator = torch.Generator().manual_seed(seed & 0xFFFFFFFF)
    posterior, noise = torch.randn(2, *latent, generator=generator)
    return posterior, noise, torch.randint(times, (), generator=generator)


class Frozen:
    """The parts of a pipeline that personalisation leaves as they are, and the arithmetic between them."""

    def __init__(self, pipeline: Any) -> None:
        for part in (pipeline.vae, pipeline.text_encoder):
            part.requires_grad_(False).eval()
        self.autoencoder, self.text_encoder = pipeline.vae, pipeline.text_encoder
        self.tokenizer = pipeline.tokenizer
        settings = pipeline.scheduler.config
        self.prediction = settings.prediction_type
        if self.prediction not in ("epsilon", "v_prediction"):
            raise UserError(
                f"Personalising a model that predicts '{self.prediction}' is not known here: use one that predicts the noise "
                "(epsilon, as Stable Diffusion 1.5) or v_prediction."
            )
        self.kept = pipeline.scheduler.alphas_cumprod.to(pipeline.device)  # (T,), of the latent's variance
        self.factor = pipeline.vae_scale_factor

    def latent_shape(self, size: int) -> tuple[int, int, int]:
        """Channels, height and width of the latent of a square image of `size` pixels."""
        return self.autoencoder.config.latent_channels, size // self.factor, size // self.factor

    def ids(self, texts: Sequence[str]) -> Tensor:
        """(B, T): tokens, padded to the model's length as when it makes images."""
        options = {"padding": "max_length", "max_length": self.tokenizer.model_max_length, "truncation": True}
        return self.tokenizer(list(texts), return_tensors="pt", **options).input_ids

    def states(self, ids: Tensor) -> Tensor:
        """(B, T, width): what the network reads of the texts."""
        return self.text_encoder(ids)[0]

    def latents(self, batch: Noised) -> Tensor:
        """(B, C, s, s): draws from the autoencoder's distribution of each image, in single precision."""
        with torch.no_grad(), torch.autocast(batch.pixels.device.type, enabled=False):
            spread = self.autoencoder.encode(batch.pixels.float()).latent_dist
            return (spread.mean + spread.std * batch.posterior) * self.autoencoder.config.scaling_factor

    def losses(self, network: nn.Module, batch: Noised, states: Tensor) -> Tensor:
        """(B,): the mean squared error of the network's answer for each image, see `denoising_losses`."""
        latents = self.latents(batch)
        kept = self.kept[batch.times].view(-1, 1, 1, 1)
        noisy = kept.sqrt() * latents + (1 - kept).sqrt() * batch.noise
        answer = network(noisy, batch.times, states, return_dict=False)[0]
        return denoising_losses(answer, latents, batch.noise, kept, self.prediction)


def denoising_losses(answer: Tensor, latents: Tensor, noise: Tensor, kept: Tensor, prediction: str) -> Tensor:
    """How far a network's answer is from what it should say, for each image.

    z_t = sqrt(a) z + sqrt(1 - a) e. The answer should be e ("epsilon"), or sqrt(a) e - sqrt(1 - a) z ("v_prediction";
    Salimans and Ho, ICLR 2022).

    Args:
        answer, latents, noise: (B, C, s, s); z is the latents, e the noise.
        kept: (B, 1, 1, 1), a.
        prediction: one of the two.

    Returns:
        (B,), mean squared errors in single precision.
    """
    wanted = noise if prediction == "epsilon" else kept.sqrt() * noise - (1 - kept).sqrt() * latents
    return (answer.float() - wanted.float()).square().mean((1, 2, 3))


def squared(image: Image.Image, size: int) -> Tensor:
    """(3, size, size), -1 to 1: the whole image in the middle of a square, its outermost pixels drawn out over the rest.

    The usual square out of the middle would cut heads and feet off a person's crop.
    """
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    pixels = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))
    left, top = (size - width) // 2, (size - height) // 2
    around = ((top, size - height - top), (left, size - width - left), (0, 0))
    square = np.pad(pixels, around, mode="edge")
    return torch.from_numpy(square).permute(2, 0, 1).float() / 127.5 - 1
