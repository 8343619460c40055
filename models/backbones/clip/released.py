"""Telling from CLIP's released tensors which model they are, so that it can be built without a configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from models.backbones.clip.checkpoints import WORDS, read_config
from models.backbones.clip.sizes import Size, named_as, size_of
from models.backbones.released import Released, layers
from models.backbones.torchscript import is_torchscript
from models.backbones.weights import CheckpointError

_HEAD = 64  # channels, in all of CLIP's and open_clip's models that do not say otherwise


def describe_clip(tensors: Mapping[str, Tensor], path: Path) -> Released | None:
    """The size that these tensors are of; None where they are not CLIP's.

    Args:
        tensors: under our names (`read_clip`).
        path: their file or open_clip's folder, whose configuration says what shapes do not.

    Raises CheckpointError for an architecture that is not there here, and where nothing says which activation was trained with.
    """
    rotary = "visual.blocks.0.mlp.fc1_g.weight" in tensors
    positions = tensors.get("visual.pos_embed" if rotary else "visual.positional_embedding")
    if WORDS not in tensors or positions is None or "image_projection.weight" not in tensors:
        return None
    patch = tensors["visual.patch_embed.proj.weight" if rotary else "visual.conv1.weight"].shape[-1]
    side = math.isqrt(positions.shape[-2] - 1) * patch
    if path.is_dir():
        size = size_of(read_config(path)["model_cfg"])
    else:
        size = _size_of_tensors(tensors, rotary, patch, side, quick_gelu=_quick_gelu(path, rotary))
    names = named_as(size) if size else None
    if names is None:
        raise CheckpointError(
            f"{path} is a CLIP of an architecture that is not there here, or under no name of open_clip's"
        )
    options = {name: value for name, value in names.items() if name != "size"}
    return Released("clip", names["size"], options, (side, side))


def _quick_gelu(path: Path, rotary: bool) -> bool:
    """Of a file alone: OpenAI published archives, all with QuickGELU; EVA-02's have none."""
    if rotary or is_torchscript(path):
        return not rotary
    raise CheckpointError(
        f"{path} does not say whether it was trained with QuickGELU: put the open_clip_config.json of its model beside it, in a "
        "folder with the file as open_clip_model.safetensors or open_clip_pytorch_model.bin, and name that folder"
    )


def _size_of_tensors(
    tensors: Mapping[str, Tensor], rotary: bool, patch: int, side: int, *, quick_gelu: bool
) -> Size:
    vision, text = ("visual.blocks." if rotary else "visual.transformer.resblocks."), tensors[WORDS].shape[1]
    embed_dim, width = tensors["image_projection.weight"].shape
    mlp = tensors[f"{vision}0.mlp.{'fc1_g' if rotary else 'c_fc'}.weight"].shape[0]
    return Size(
        embed_dim=embed_dim,
        vision_width=width,
        vision_layers=layers(tensors, vision),
        vision_heads=width // _HEAD,
        patch=patch,
        text_width=text,
        text_layers=layers(tensors, "text.transformer.resblocks."),
        text_heads=text // _HEAD,
        image_size=(side, side),
        vision_mlp=8 / 3 if rotary and mlp == int(width * 8 / 3) else mlp / width,
        quick_gelu=quick_gelu,
        rotary=rotary,
    )
