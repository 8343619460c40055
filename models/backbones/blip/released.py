"""Telling from BLIP's released tensors which model they are, so that it can be built without a configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from models.backbones.blip.checkpoints import POSITIONS
from models.backbones.blip.sizes import SIZES
from models.backbones.released import Released, layers
from models.backbones.weights import CheckpointError

_HEADS = ("vision_proj.weight", "text_proj.weight", "itm_head.weight")
_RETRIEVAL = "hf:Salesforce/blip-itm-base-coco"


def describe_blip(tensors: Mapping[str, Tensor], path: Path) -> Released | None:
    """The size that these tensors are of; None where they are not BLIP's.

    Args:
        tensors: under BLIP's own names (`blip_names`).

    Raises CheckpointError for a part of BLIP that can't search, and for a size that is not there here.
    """
    if POSITIONS not in tensors or "visual_encoder.patch_embed.proj.weight" not in tensors:
        return None
    if "text_encoder.embeddings.word_embeddings.weight" not in tensors:
        what = "captioner" if any(name.startswith("text_decoder.") for name in tensors) else "image encoder"
        raise CheckpointError(
            f"{path} is BLIP's {what}, which can't compare images with texts: name a retrieval model, such as {_RETRIEVAL}"
        )
    absent = [name for name in _HEADS if name not in tensors]
    if absent:
        raise CheckpointError(
            f"{path} lacks {', '.join(absent)}, without which untrained BLIP can't search: name a retrieval model, such as {_RETRIEVAL}"
        )
    patch = tensors["visual_encoder.patch_embed.proj.weight"].shape[-1]
    shape = (
        tensors[POSITIONS].shape[-1],
        layers(tensors, "visual_encoder.blocks."),
        patch,
        tensors["text_encoder.embeddings.word_embeddings.weight"].shape[1],
        layers(tensors, "text_encoder.encoder.layer."),
        tensors["text_encoder.encoder.layer.0.intermediate.dense.weight"].shape[0],
        tensors["vision_proj.weight"].shape[0],
    )
    for name, size in SIZES.items():
        known = (size.vision_width, size.vision_depth, size.patch, size.text_width, size.text_layers, size.text_ffn, size.embed_dim)  # fmt: skip
        if known == shape:
            side = math.isqrt(tensors[POSITIONS].shape[1] - 1) * patch
            return Released("blip", name, {}, (side, side))
    raise CheckpointError(f"{path} is BLIP in none of the sizes {', '.join(SIZES)}")
