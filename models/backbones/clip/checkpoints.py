"""CLIP's released weights into our models: by name, in full or not at all, and nothing in silence.

Four layouts, told apart by their names: OpenAI's archives and open_clip's files of such models (the text tower's names stand
without a prefix), open_clip's files of models with a text tower of their own (`text.`, `visual.trunk.`), EVA-CLIP's own files
(`visual.blocks.0.mlp.w1`), and what this project writes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from models.backbones.weights import (
    CheckpointError,
    LoadReport,
    fill,
    interpolate_positions,
    missing_names,
    read_weights,
    some,
)

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
        path: a file in one of the layouts above; a TorchScript archive is read without running it.

    Raises CheckpointError for a missing, truncated or unsafe file, and for one whose towers are not the model's.
    """
    path = Path(path)
    source = dict(_renamed(name, tensor) for name, tensor in read_weights(path).items())
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
