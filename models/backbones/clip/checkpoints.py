"""CLIP's released weights into our models: by name, in full or not at all, and nothing in silence.

A file, or a folder as open_clip keeps it on a hub (`open_clip_config.json` with `open_clip_model.safetensors` or
`open_clip_pytorch_model.bin`). Four layouts, told apart by their names: OpenAI's archives and open_clip's files of such models (the text tower's names stand
without a prefix), open_clip's files of models with a text tower of their own (`text.`, `visual.trunk.`), EVA-CLIP's own files
(`visual.blocks.0.mlp.w1`), and what this project writes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.backbones.clip.sizes import size_of
from models.backbones.weights import (
    CheckpointError,
    LoadReport,
    fill,
    interpolate_positions,
    missing_names,
    read_weights,
    some,
)

FOLDER_CONFIG = "open_clip_config.json"
FOLDER_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")

_KEPT = 20  # of CLIP's text positions, those that its short training texts have trained well
TEXT_POSITIONS = "text.positional_embedding"
WORDS = "text.token_embedding.weight"

# The temperature, what OpenAI's archive says about itself, constant masks and rotary angles, a token of EVA's pre-training.
_NOT_NEEDED = re.compile(
    r"^(logit_scale|logit_bias|input_resolution|context_length|vocab_size)$|(^|\.)attn_mask$|(^|\.)rope\.|\.mask_token$"
)
_NAMES = [
    (re.compile(r"^(?=(transformer|token_embedding|ln_final|positional_embedding)\b)"), "text."),
    (re.compile(r"^visual\.trunk\."), "visual."),
    (re.compile(r"^visual\.head\."), "image_projection."),
    (re.compile(r"\.attn\.inner_attn_ln\."), ".attn.norm."),
    (re.compile(r"\.attn\.([qv])_bias$"), r".attn.\1_proj.bias"),
    (re.compile(r"\.mlp\.ffn_ln\."), ".mlp.norm."),
    (re.compile(r"\.mlp\.w1\."), ".mlp.fc1_g."),
    (re.compile(r"\.mlp\.w2\."), ".mlp.fc1_x."),
    (re.compile(r"\.mlp\.w3\."), ".mlp.fc2."),
]
# Matrices that are multiplied from the right there.
_TRANSPOSED = {
    "visual.proj": "image_projection.weight",
    "text_projection": "text_projection.weight",
    "text.text_projection": "text_projection.weight",
}


def load_clip(model: nn.Module, path: str | Path) -> LoadReport:
    """Fills a `ClipRetrieval` (or a subclass) with the weights at `path`.

    Positions are interpolated to the model's image size and stretched to its text length. A vocabulary that lacks the mask
    alone is taken, and the mask's embedding keeps its random start.

    Args:
        model: left as it was if anything is wrong.
        path: a file in one of the layouts above, or open_clip's folder; a TorchScript archive is read without running it.

    Raises CheckpointError for a missing, truncated or unsafe file, and for one whose towers are not the model's.
    """
    path = Path(path)
    if path.is_dir():
        _check_config(read_config(path), model, path)
    source = read_clip(path)
    target = model.state_dict()
    interpolated = _fit_images(source, model, path) + _fit_texts(source, target)
    added = _add_mask(source, target)
    found = {name: source[name] for name in target if name in source}
    _check_shapes(found, target, path)
    missing = missing_names(found, target)
    needed = [name for name in missing if name.startswith(model.encoder_prefixes)]
    if needed:
        raise CheckpointError(
            f"{path} lacks {len(needed)} weights of the towers: {some(needed)}. Is it the file of another model? "
            "model.size and model.options.arch have to name its architecture"
        )
    missing = [*added, *missing]
    return fill(model, source, found, _NOT_NEEDED.search, missing=missing, interpolated=interpolated)


def read_clip(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, or of open_clip's folder, under our names. Raises CheckpointError as `load_clip`."""
    if path.is_dir():
        weights = next((path / name for name in FOLDER_WEIGHTS if (path / name).is_file()), None)
        if weights is None:
            raise CheckpointError(
                f"{path} has neither {' nor '.join(FOLDER_WEIGHTS)}: it is no folder of open_clip's"
            )
        path = weights
    return dict(_renamed(name, tensor) for name, tensor in read_weights(path).items())


def read_config(directory: Path) -> dict[str, Any]:
    """open_clip's configuration in its folder: `model_cfg` and `preprocess_cfg`. Raises CheckpointError without one."""
    path = directory / FOLDER_CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sections = content["model_cfg"], content["model_cfg"]["vision_cfg"], content["model_cfg"]["text_cfg"]
    except (OSError, ValueError, KeyError, TypeError):
        sections = ()
    if not sections or not all(isinstance(section, dict) for section in sections):
        raise CheckpointError(
            f"{path} is missing or no configuration of open_clip's: expected a folder that open_clip saved"
        )
    return content


def _check_config(config: Mapping[str, Any], model: nn.Module, path: Path) -> None:
    """What leaves no trace in the shapes: the activation, the heads, and the pixel statistics that the model was trained with."""
    settings, size = config["model_cfg"], model.size
    theirs = bool(settings.get("quick_gelu", False))
    if theirs != size.quick_gelu:
        raise CheckpointError(
            f"{path} was trained {'with' if theirs else 'without'} QuickGELU, and the model is built "
            f"{'with' if size.quick_gelu else 'without'} it: model.options.arch names the architecture, such as "
            f"ViT-B-16{'-quickgelu' if theirs else ''}"
        )
    stated = size_of(settings)
    if stated and (stated.vision_heads, stated.text_heads) != (size.vision_heads, size.text_heads):
        raise CheckpointError(
            f"{path} has {stated.vision_heads} and {stated.text_heads} attention heads, the model {size.vision_heads} and "
            f"{size.text_heads}: choose the size or model.options.arch that it was made with"
        )
    pixels = config.get("preprocess_cfg") or {}
    for key, ours in (("mean", model.pixel_mean), ("std", model.pixel_std)):
        if any(abs(a - b) > 1e-3 for a, b in zip(pixels.get(key, ours), ours, strict=True)):
            raise CheckpointError(
                f"{path} was trained on pixels of another {key} than CLIP's, {pixels[key]}: it is no CLIP as it is here"
            )


def _renamed(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    if name in _TRANSPOSED and tensor.ndim == 2:
        return _TRANSPOSED[name], tensor.T
    for pattern, ours in _NAMES:
        name = pattern.sub(ours, name)
    return name, tensor


def _fit_images(source: dict[str, Tensor], model: nn.Module, path: Path) -> list[str]:
    """Interpolates the image positions in `source` where the model's grid is another; the names it changed."""
    name, wanted = f"visual.{model.visual.positions}", model.visual.grid
    if name not in source or source[name].ndim not in (2, 3):
        return []
    positions = source[name].reshape(1, *source[name].shape[-2:])
    patches = positions.shape[1] - 1
    side = math.isqrt(patches)
    # Every released model is square; what this project saved may not be, and is then the model's own size.
    grid = (side, side) if side * side == patches else wanted
    if grid[0] * grid[1] != patches:
        raise CheckpointError(
            f"{path} has {patches} image positions, which are neither a square nor {wanted[0]}x{wanted[1]}"
        )
    if grid == wanted:
        return []
    source[name] = interpolate_positions(positions, grid, wanted).reshape(
        *source[name].shape[:-2], -1, positions.shape[2]
    )
    return [name]


def _fit_texts(source: dict[str, Tensor], target: Mapping[str, Tensor]) -> list[str]:
    """Stretches the text positions in `source` where the model reads longer texts; the names it changed."""
    positions, length = source.get(TEXT_POSITIONS), len(target[TEXT_POSITIONS])
    if positions is None or positions.ndim != 2 or len(positions) >= length:
        return []
    source[TEXT_POSITIONS] = stretch_positions(positions, length)
    return [TEXT_POSITIONS]


def _add_mask(source: dict[str, Tensor], target: Mapping[str, Tensor]) -> list[str]:
    """Gives a vocabulary that ends before the mask the model's embedding of it; what it added."""
    words, own = source.get(WORDS), target[WORDS]
    if words is None or words.shape != (len(own) - 1, own.shape[1]):
        return []
    source[WORDS] = torch.cat([words.to(own), own[-1:]])
    return [f"{WORDS} of the mask"]


def _check_shapes(found: Mapping[str, Tensor], target: Mapping[str, Tensor], path: Path) -> None:
    wrong = [name for name, tensor in found.items() if tensor.shape != target[name].shape]
    if not wrong:
        return
    if WORDS in wrong and found[WORDS].shape[1:] == target[WORDS].shape[1:]:
        raise CheckpointError(
            f"{path} has a vocabulary of {len(found[WORDS])} tokens, the tokenizer {len(target[WORDS])}: use the tokenizer it "
            "was trained with, model.tokenizer=bpe_simple_vocab_16e6.txt.gz for released files"
        )
    raise CheckpointError(
        f"{path} is a model of another architecture: {len(wrong)} weights differ, {wrong[0]} is "
        f"{tuple(found[wrong[0]].shape)} there and {tuple(target[wrong[0]].shape)} here. model.size and model.options.arch "
        "have to name its own"
    )


def stretch_positions(positions: Tensor, length: int) -> Tensor:
    """Text positions (P, D) for longer texts (length, D), as Long-CLIP (Zhang et al., ECCV 2024) stretches them.

    The first 20 stay; the others are read at equal, smaller steps, linearly, and go on beyond the last as they were going.
    """
    kept, rest = positions[:_KEPT], positions[_KEPT:].float()
    step = len(rest) / (length - _KEPT)
    places = torch.arange(length - _KEPT, dtype=torch.float64) * step
    before = places.long().clamp(max=len(rest) - 2)
    share = (places - before).float()[:, None]
    stretched = rest[before] + share * (rest[before + 1] - rest[before])
    return torch.cat([kept, stretched.to(positions.dtype)])
