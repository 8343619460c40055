"""Edits of images by instructions: InstructPix2Pix (Brooks et al., CVPR 2023), as diffusers has it.

It stands in the place of SynTBPR's noise-map-guided inversion and MasaCtrl, which are not here (docs/synthesis_diffusion.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from data.errors import UserError
from synthesis.generation import pipelines
from synthesis.generation.batches import in_batches
from synthesis.generation.parts import Edit, Prompt

# What the model is told, by the edit's kind and name.
INSTRUCTIONS: Mapping[str, Mapping[str, str]] = {
    "background": {
        "forest": "change the background to a forest",
        "desert": "change the background to a desert",
        "beach": "change the background to a beach",
        "airport": "change the background to the hall of an airport",
        "farm": "change the background to a farm",
        "lake": "change the background to the shore of a lake",
    },
    "weather": {
        "snowy": "make it a snowy day",
        "rainy": "make it a rainy day",
        "foggy": "make it a foggy day",
    },
    "style": {
        "oil painting": "make it an oil painting",
        "anime": "make it an anime drawing",
        "street photography": "make it look like street photography",
        "van Gogh": "make it look like a painting by van Gogh",
        "pointillism": "make it a pointillist painting",
    },
    "posture": {
        "sitting": "make the person sit",
        "raising hands": "make the person raise both hands",
        "thumb up": "make the person give a thumbs up",
        "running": "make the person run",
        "walking": "make the person walk",
    },
}


def instruction(edit: Edit) -> str:
    """The sentence for an edit.

    Raises:
        UserError: one that there is no sentence for.
    """
    try:
        return INSTRUCTIONS[edit.kind][edit.name]
    except KeyError:
        raise UserError(f"InstructPix2Pix has no instruction for the edit '{edit}'.") from None


class InstructPix2Pix:
    """Image and instruction to image, of the size of the image.

    A person's crop is brought to about `size` x `size` pixels of its own shape, edited there, and brought back. As with the
    generator an image has the same bytes alone and among others.

    Args:
        model: a folder as diffusers saves a StableDiffusionInstructPix2PixPipeline.
        guidance: how much the instruction counts.
        image_guidance: how much the image counts; more keeps more of it.
        steps: of denoising.
        size: the side in pixels of a square with as many pixels as an image is edited with.
        batch: images at a time; 0: 8 on a GPU, 1 on a CPU.
        safety_checker: keep the model's own, where it has one: what it flags comes out black, which is logged.
        device: where to compute.
        half: in half precision; on a GPU only.

    Raises:
        UserError: diffusers is missing, or no such model.
    """

    def __init__(
        self,
        model: str,
        guidance: float = 7.5,
        image_guidance: float = 1.5,
        steps: int = 50,
        size: int = 512,
        batch: int = 0,
        safety_checker: bool = True,
        device: torch.device | str = "cpu",
        half: bool = False,
    ) -> None:
        self._device, self._size = torch.device(device), size
        half = half and self._device.type == "cuda"
        self._pipeline = pipelines.load(
            "StableDiffusionInstructPix2PixPipeline",
            model,
            self._device,
            half=half,
            safety_checker=safety_checker,
        )
        self._multiple = self._grid(model)
        self._batch = pipelines.batch_size(batch, self._device)
        self._options = {
            "guidance_scale": guidance,
            "image_guidance_scale": image_guidance,
            "num_inference_steps": steps,
        }
        self.name = (
            f"{Path(model).name}, guidance {guidance:g} and {image_guidance:g}, {steps} steps, {size} px, "
            f"{'fp16' if half else 'fp32'}"
        )

    def _grid(self, model: str) -> int:
        """Pixels that both sides are a multiple of, so that every level of the network halves them evenly."""
        unet, channels = self._pipeline.unet, self._pipeline.vae.config.latent_channels
        if unet.config.in_channels != 2 * channels:
            raise UserError(
                f"{model} makes images from texts and edits none: name a model of InstructPix2Pix."
            )
        halvings = len(unet.config.block_out_channels) - 1
        return math.lcm(8, self._pipeline.vae_scale_factor * 2**halvings)

    def edit(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[Prompt],
        edits: Sequence[Edit],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        """One RGB image for each entry, of the size of its image; see `Editor`. The prompts are not needed."""
        entries = list(zip(images, edits, seeds, strict=True))
        sizes = [self.working_size(image.size) for image in images]
        return in_batches(
            sizes,
            self._batch,
            lambda numbers: self._edited([entries[number] for number in numbers], sizes[numbers[0]]),
            remedy="use a smaller size, or half precision",
        )

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height in which an image of a width and height is edited."""
        scale = self._size / math.sqrt(size[0] * size[1])
        width, height = (max(1, round(side * scale / self._multiple)) * self._multiple for side in size)
        return width, height

    @torch.inference_mode()
    def _edited(
        self, entries: list[tuple[Image.Image, Edit, int]], size: tuple[int, int]
    ) -> list[Image.Image]:
        made: Any = self._pipeline(
            [instruction(edit) for _, edit, _ in entries],
            image=[image.convert("RGB").resize(size, Image.Resampling.BICUBIC) for image, _, _ in entries],
            generator=pipelines.noise_sources([seed for _, _, seed in entries]),
            **self._options,
        )
        names = [f"{edit}, seed {seed}" for _, edit, seed in entries]
        pipelines.tell_flagged(getattr(made, "nsfw_content_detected", None), names)
        return [
            edited.convert("RGB").resize(image.size, Image.Resampling.BICUBIC)
            for edited, (image, _, _) in zip(made.images, entries, strict=True)
        ]
