"""Stable Diffusion and InstructPix2Pix with random weights, a few thousand of them, saved as diffusers saves the real ones."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch


@cache
def _vocabulary() -> tuple[dict[str, int], tuple[str, ...]]:
    """CLIP's, as open_clip brings it: tokens with their numbers, and the merges."""
    from open_clip.tokenizer import SimpleTokenizer

    known = SimpleTokenizer()
    renamed = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    tokens = {renamed.get(token, token): number for token, number in known.encoder.items()}
    merges = sorted(known.bpe_ranks, key=known.bpe_ranks.get)
    return tokens, tuple(" ".join(pair) for pair in merges)


def _tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    tokens, merges = _vocabulary()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(tokens), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)


def _unet(channels: int) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=channels,
        out_channels=4,
        block_out_channels=(4, 8),
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )


def _parts(folder: Path, channels: int) -> dict[str, Any]:
    from diffusers import AutoencoderKL, PNDMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=49407,
    )
    autoencoder = AutoencoderKL(
        latent_channels=4,
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=2,
        sample_size=32,
    )
    # As Stable Diffusion 1.5 states them.
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
    )
    return {
        "vae": autoencoder,
        "text_encoder": CLIPTextModel(text),
        "tokenizer": _tokenizer(folder),
        "unet": _unet(channels),
        "scheduler": scheduler,
    }


def _checker(weight: float) -> dict[str, Any]:
    """A safety checker that finds everything with a weight below -1, nothing with one above 1."""
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    small = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(
            vision_config={**small, "image_size": 16, "patch_size": 8}, text_config=small, projection_dim=8
        )
    )
    torch.nn.init.normal_(checker.concept_embeds)
    torch.nn.init.constant_(checker.concept_embeds_weights, weight)
    torch.nn.init.constant_(checker.special_care_embeds_weights, weight)
    size = {"height": 16, "width": 16}
    return {
        "safety_checker": checker,
        "feature_extractor": CLIPImageProcessor(size=size, crop_size=size),
        "requires_safety_checker": True,
    }


def save_pipeline(
    folder: Path, *, editing: bool = False, concept_weight: float | None = None, half: bool = False
) -> Path:
    """A pipeline in a folder, of 5 MB: text to image, or with `editing` InstructPix2Pix.

    Args:
        folder: where it goes; the tokenizer's own files are left beside it.
        editing: InstructPix2Pix, whose network takes an image as well.
        concept_weight: of a safety checker's concepts; none: no checker.
        half: weights in half precision alone, under the names that go with it.
    """
    from diffusers import StableDiffusionInstructPix2PixPipeline, StableDiffusionPipeline

    kind = StableDiffusionInstructPix2PixPipeline if editing else StableDiffusionPipeline
    checker = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if concept_weight is not None:
        checker = _checker(concept_weight)
    pipeline = kind(**_parts(folder.with_name(f"{folder.name}-words"), 8 if editing else 4), **checker)
    if half:
        pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder, variant="fp16" if half else None)
    return folder
