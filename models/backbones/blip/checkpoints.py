"""BLIP's released weights into our models: by name, in full or not at all, and nothing in silence.

Two layouts: the authors' `.pth` files (`model_base.pth`, `model_base_caption_capfilt_large.pth`, ...), whose names
are ours, and what transformers saved: a directory (`config.json` with `model.safetensors` or `pytorch_model.bin`), or the file
of weights alone, which says nothing about heads and is taken at its word.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from models.backbones.blip.vision import LAYER_NORM_EPS
from models.backbones.weights import (
    CheckpointError,
    LoadReport,
    fill,
    interpolate_positions,
    missing_names,
    read_pth,
    read_safetensors,
    read_weights,
    some,
    stated_image_size,
)

POSITIONS = "visual_encoder.pos_embed"
_TRANSFORMERS_EPS = 1e-5  # of the image encoder, where a configuration is silent

# Momentum copies and queues of the contrastive pre-training, its temperature, and BERT's constant position numbers.
_TRAINING_STATE = re.compile(
    r"^(visual_encoder|text_encoder|vision_proj|text_proj)_m\.|^(image_queue|text_queue|idx_queue|ptr_queue|queue_ptr)$"
    r"|^temp$|^logit_scale$|\.position_ids$"
)
# What one of BLIP's files may hold for the other of our two models.
_BLIP_PARTS = ("visual_encoder.", "text_encoder.", "text_decoder.", "vision_proj.", "text_proj.", "itm_head.")

_TRANSFORMERS_NAMES = [
    (re.compile(r"^vision_model\.embeddings\.class_embedding$"), "visual_encoder.cls_token"),
    (re.compile(r"^vision_model\.embeddings\.position_embedding$"), POSITIONS),
    (re.compile(r"^vision_model\.embeddings\.patch_embedding\."), "visual_encoder.patch_embed.proj."),
    (
        re.compile(r"^vision_model\.encoder\.layers\.(\d+)\.self_attn\.projection\."),
        r"visual_encoder.blocks.\1.attn.proj.",
    ),
    (
        re.compile(r"^vision_model\.encoder\.layers\.(\d+)\.self_attn\.qkv\."),
        r"visual_encoder.blocks.\1.attn.qkv.",
    ),
    (
        re.compile(r"^vision_model\.encoder\.layers\.(\d+)\.layer_norm([12])\."),
        r"visual_encoder.blocks.\1.norm\2.",
    ),
    (re.compile(r"^vision_model\.encoder\.layers\.(\d+)\.mlp\."), r"visual_encoder.blocks.\1.mlp."),
    (re.compile(r"^vision_model\.post_layernorm\."), "visual_encoder.norm."),
    (re.compile(r"^text_model\."), "text_encoder."),
]


def load_blip(model: nn.Module, path: str | Path, source_grid: tuple[int, int] | None = None) -> LoadReport:
    """Fills a `BlipRetrieval` or `BlipCaptioner` (or a subclass) with the weights at `path`.

    Args:
        model: left as it was if anything is wrong.
        path: a file of weights (`.pth`, `.bin` or `.safetensors`), or a directory saved by transformers
            (BlipForConditionalGeneration, BlipForImageTextRetrieval, BlipModel).
        source_grid: (rows, columns) of patches in the file's position embedding; None takes that of the image size which
            the file states, as checkpoints of this project do, else a square one, as every released file has. Another grid
            than the model's is interpolated bicubically.

    Raises CheckpointError for a missing, truncated or unsafe file, and for one whose encoder is not the model's.
    """
    path = Path(path)
    if path.is_dir():
        source, note = _read_transformers(path, model)
    else:
        source, note = blip_names(read_weights(path)), ""
        stated = stated_image_size(path)
        if source_grid is None and stated is not None:
            source_grid = (stated[0] // model.size.patch, stated[1] // model.size.patch)
    target = model.state_dict()
    interpolated = _fit_positions(source, model.visual_encoder.grid, source_grid, path)
    found = {name: source[name] for name in target if name in source}
    _check_shapes(found, target, path)
    missing = missing_names(found, target)
    needed = [name for name in missing if name.startswith(model.encoder_prefixes)]
    if needed:
        raise CheckpointError(
            f"{path} lacks {len(needed)} weights of the {type(model).__name__}'s encoders: {some(needed)}. "
            "Is it the file of another model? See checkpoint/README.md"
        )

    def is_ignored(name: str) -> bool:
        return bool(_TRAINING_STATE.search(name)) or _of_the_other_model(name, target)

    return fill(model, source, found, is_ignored, missing=missing, interpolated=interpolated, note=note)


def _read_transformers(directory: Path, model: nn.Module) -> tuple[dict[str, Tensor], str]:
    """The tensors of a directory saved by transformers, under BLIP's own names, and the report's note."""
    config = _read_config(directory)
    _check_heads(config, model, directory)
    weights = directory / "model.safetensors"
    if weights.is_file():
        tensors = read_safetensors(weights)
    elif (directory / "pytorch_model.bin").is_file():
        tensors = read_pth(directory / "pytorch_model.bin")
    else:
        raise CheckpointError(f"{directory} has neither model.safetensors nor pytorch_model.bin")
    return blip_names(tensors), _epsilon_note(config)


def _read_config(directory: Path) -> dict:
    path = directory / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{directory} has no config.json: expected a directory saved by transformers")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        raise CheckpointError(f"{path} is not valid JSON: download it again") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "blip":
        raise CheckpointError(f"{path} describes a model of type {kind!r}: only 'blip' can be loaded")
    return config


def _check_heads(config: dict, model: nn.Module, directory: Path) -> None:
    """Heads leave no trace in the shapes. Where the file is silent, transformers means its defaults: 12 and 8."""
    for part, default, ours in (
        ("vision_config", 12, model.size.vision_heads),
        ("text_config", 8, model.size.text_heads),
    ):
        theirs = (config.get(part) or {}).get("num_attention_heads", default)
        if theirs != ours:
            raise CheckpointError(
                f"{directory}: {part} has {theirs} attention heads, the model {ours}: choose the size it was made with"
            )


def _epsilon_note(config: dict) -> str:
    """The image encoder's epsilon, where it is not ours. It is no reason to refuse: transformers' conversions of the released
    files state its default, and were not trained with it."""
    stated = (config.get("vision_config") or {}).get("layer_norm_eps", _TRANSFORMERS_EPS)
    if stated == LAYER_NORM_EPS:
        return ""
    return f"a LayerNorm epsilon of {stated} in config.json; {LAYER_NORM_EPS} is used, BLIP's own"


def blip_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of either layout under BLIP's own names, which transformers' patterns do not match."""
    return {_blip_name(name): tensor for name, tensor in tensors.items()}


def _blip_name(name: str) -> str:
    for pattern, ours in _TRANSFORMERS_NAMES:
        if pattern.search(name):
            return pattern.sub(ours, name)
    return name


def _fit_positions(
    source: dict[str, Tensor], wanted: tuple[int, int], grid: tuple[int, int] | None, path: Path
) -> list[str]:
    """Interpolates the position embedding in `source` where the model's grid is another; the names it changed."""
    if POSITIONS not in source or source[POSITIONS].ndim != 3:
        return []
    patches = source[POSITIONS].shape[1] - 1
    side = math.isqrt(patches)
    if grid is None:
        grid = (side, side) if side * side == patches else wanted
    if grid[0] * grid[1] != patches:
        raise CheckpointError(
            f"{path} has {patches} image positions, which are not {grid[0]}x{grid[1]}: say source_grid as rows, columns"
        )
    if grid == wanted:
        return []
    source[POSITIONS] = interpolate_positions(source[POSITIONS], grid, wanted)
    return [POSITIONS]


def _check_shapes(found: Mapping[str, Tensor], target: Mapping[str, Tensor], path: Path) -> None:
    wrong = [name for name, tensor in found.items() if tensor.shape != target[name].shape]
    if not wrong:
        return
    words = [name for name in wrong if name.endswith("word_embeddings.weight")]
    if words and found[words[0]].shape[1:] == target[words[0]].shape[1:]:
        raise CheckpointError(
            f"{path} has a vocabulary of {len(found[words[0]])} words, the tokenizer {len(target[words[0]])}: "
            "use the tokenizer it was trained with, bert-base-uncased's for BLIP's own files"
        )
    example = wrong[0]
    raise CheckpointError(
        f"{path} is a model of another size: {len(wrong)} weights differ, {example} is "
        f"{tuple(found[example].shape)} there and {tuple(target[example].shape)} here"
    )


def _of_the_other_model(name: str, target: Iterable[str]) -> bool:
    part = next((part for part in _BLIP_PARTS if name.startswith(part)), None)
    return part is not None and not any(ours.startswith(part) for ours in target)
