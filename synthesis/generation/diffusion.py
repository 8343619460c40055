"""Images of people from sentences, by a text-to-image diffusion model that diffusers loads (SynTBPR: Stable Diffusion 1.5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from data.errors import UserError
from synthesis.generation import pipelines
from synthesis.generation.batches import in_batches
from synthesis.generation.parts import Prompt
from synthesis.generation.personal import RECORD, check_scenario, read_record


class DiffusionGenerator:
    """Text to image. Guidance, steps and size are SynTBPR's (arXiv 2503.22171).

    Every image has its own noise, drawn on the CPU from its seed, and is computed in a batch of always the same shape: alone
    and among others it has the same bytes on one machine. Other batch sizes, devices and precisions differ by rounding.

    Args:
        model: a folder as diffusers saves a pipeline, the plain model or a personalised one ("few").
        adapters: a folder of adapters and new words ("all") for that model, which prompts name (`personal.STYLE`).
        scenario: "none", "few" or "all": refuse weights that are of another one. None: take what the weights are.
        guidance: how much the text counts (classifier-free guidance).
        steps: of denoising.
        size: of the square images in pixels, a multiple of 8.
        batch: images at a time; 0: 8 on a GPU, 1 on a CPU.
        safety_checker: keep the model's own, where it has one: what it flags comes out black, which is logged.
        device: where to compute.
        half: in half precision; on a GPU only.

    Raises:
        UserError: diffusers is missing, no such model, weights of another scenario, a size that does not go.
    """

    def __init__(
        self,
        model: str,
        adapters: str = "",
        scenario: str | None = None,
        guidance: float = 8.5,
        steps: int = 50,
        size: int = 512,
        batch: int = 0,
        safety_checker: bool = True,
        device: torch.device | str = "cpu",
        half: bool = False,
    ) -> None:
        if size < 8 or size % 8:
            raise UserError(f"Diffusion models make images of a multiple of 8 pixels, not of {size}.")
        self._device = torch.device(device)
        half = half and self._device.type == "cuda"
        if adapters and read_record(adapters) is None:
            raise UserError(
                f"{adapters} does not say what its adapters have seen ({RECORD} is missing): restore the file."
            )
        if scenario is not None:
            check_scenario(scenario, adapters or model)
        self._pipeline = pipelines.load(
            "AutoPipelineForText2Image", model, self._device, half=half, safety_checker=safety_checker
        )
        if adapters:
            from synthesis.generation.lora import add_adapters

            add_adapters(self._pipeline, Path(adapters))
        self._batch = pipelines.batch_size(batch, self._device)
        self._options = {
            "guidance_scale": guidance,
            "num_inference_steps": steps,
            "height": size,
            "width": size,
        }
        weights = " + ".join(Path(folder).name for folder in (model, adapters) if folder)
        self.name = (
            f"{weights}, guidance {guidance:g}, {steps} steps, {size} px, {'fp16' if half else 'fp32'}"
        )

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Image.Image]:
        """One RGB image for each pair of a prompt and a seed; see `Generator`."""
        pairs = list(zip(prompts, seeds, strict=True))
        return in_batches(
            [0] * len(pairs),
            self._batch,
            lambda numbers: self._made([pairs[number] for number in numbers]),
            remedy="use a smaller size, or half precision",
        )

    @torch.inference_mode()
    def _made(self, pairs: list[tuple[Prompt, int]]) -> Sequence[Image.Image]:
        made: Any = self._pipeline(
            [prompt.text for prompt, _ in pairs],
            generator=pipelines.noise_sources([seed for _, seed in pairs]),
            **self._options,
        )
        names = [f"prompt {prompt.number}, seed {seed}" for prompt, seed in pairs]
        pipelines.tell_flagged(getattr(made, "nsfw_content_detected", None), names)
        return [image.convert("RGB") for image in made.images]
