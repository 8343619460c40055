"""The sizes CLIP comes in here; a size says every width, and open_clip's names stand for sizes, too."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

POSITIONS = 77  # of tokens in a text

# EVA-02's image towers by timm's names: width, layers, heads, patch.
_EVA_TOWERS = {
    "eva02_base_patch16_clip_224": (768, 12, 12, 16),
    "eva02_large_patch14_clip_224": (1024, 24, 16, 14),
    "eva02_large_patch14_clip_336": (1024, 24, 16, 14),
}
_EVA_MLP = 8 / 3
# What an open_clip configuration may say and be CLIP as it is here: a class token, causal text, CLIP's own vocabulary.
_VISION_KEYS = {"image_size", "width", "layers", "patch_size", "head_width", "mlp_ratio"}
_EVA_KEYS = {"image_size", "timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj"}
_TEXT_KEYS = {"context_length", "vocab_size", "width", "layers", "heads"}


@dataclass(frozen=True)
class Size:
    """Widths and depths of a CLIP model.

    Both towers are projected to `embed_dim`. `vision_mlp` is the hidden width of the image tower's feed-forward layers in
    its own width (the text tower's is 4). `image_size` is (height, width) in pixels, used when a configuration names none.
    `quick_gelu`: x sigmoid(1.702 x), as OpenAI's weights were trained with, in both towers. `rotary`: EVA-02's image tower
    (rotary positions, SwiGLU, LayerNorm within attention and feed-forward) in the place of CLIP's.
    """

    embed_dim: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    patch: int
    text_width: int
    text_layers: int
    text_heads: int
    image_size: tuple[int, int]
    vision_mlp: float = 4.0
    quick_gelu: bool = False
    rotary: bool = False


def architecture(name: str) -> Size:
    """The size that open_clip calls `name`, such as "ViT-L-14-336-quickgelu".

    Raises ValueError for a name that open_clip does not know, and for a model that is built otherwise.
    """
    import open_clip

    if name not in open_clip.list_models():
        raise ValueError(f"open_clip knows no architecture {name!r}: {_nearest(name)}")
    size = size_of(open_clip.get_model_config(name))
    if size is None or not _has_clips_texts(open_clip.get_model_config(name)):
        raise ValueError(
            f"open_clip's {name!r} is no CLIP of two transformers with CLIP's vocabulary: {_nearest(name)}"
        )
    return size


def _nearest(name: str) -> str:
    possible = {known.lower(): known for known in _possible()}
    close = difflib.get_close_matches(str(name).lower(), possible, n=4, cutoff=0.0)
    return (
        f"the nearest of the {len(possible)} that can be had are {', '.join(possible[one] for one in close)}"
    )


def check_length(length: int) -> None:
    """Refuses a number of text positions that can't be had. Raises ValueError."""
    if not isinstance(length, int) or length < POSITIONS:
        raise ValueError(
            f"text_length is {length!r}: CLIP has {POSITIONS} positions, which can be stretched only: "
            f"give a whole number of {POSITIONS} or more"
        )


def size_of(config: Mapping[str, Any]) -> Size | None:
    """An open_clip configuration as a size; None for one that has parts which are not there here."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    known = set(config) <= {"embed_dim", "quick_gelu", "custom_text", "vision_cfg", "text_cfg"}
    if not known or not set(text) <= _TEXT_KEYS:
        return None
    shared = {
        "embed_dim": config["embed_dim"],
        "text_width": text["width"],
        "text_layers": text["layers"],
        "text_heads": text["heads"],
        "image_size": (vision["image_size"],) * 2,
        "quick_gelu": config.get("quick_gelu", False),
    }
    if set(vision) <= _EVA_KEYS and vision["timm_model_name"] in _EVA_TOWERS:
        width, layers, heads, patch = _EVA_TOWERS[vision["timm_model_name"]]
        return Size(vision_width=width, vision_layers=layers, vision_heads=heads, patch=patch, vision_mlp=_EVA_MLP, rotary=True, **shared)  # fmt: skip
    if not set(vision) <= _VISION_KEYS or not isinstance(vision["layers"], int):
        return None
    return Size(
        vision_width=vision["width"],
        vision_layers=vision["layers"],
        vision_heads=vision["width"] // vision.get("head_width", 64),
        patch=vision["patch_size"],
        vision_mlp=vision.get("mlp_ratio", 4.0),
        **shared,
    )


def _has_clips_texts(config: Mapping[str, Any]) -> bool:
    text = config["text_cfg"]
    return (text["context_length"], text["vocab_size"]) == (POSITIONS, 49408)


def _possible() -> list[str]:
    import open_clip

    configs = {name: open_clip.get_model_config(name) for name in open_clip.list_models()}
    return [name for name, config in configs.items() if size_of(config) and _has_clips_texts(config)]


def named_as(size: Size) -> dict[str, str] | None:
    """What a model is built with to have this size, whatever its image size: a size's name, or open_clip's beside it; None
    where nobody has a name for it."""
    fitting = [name for name, other in SIZES.items() if replace(size, image_size=other.image_size) == other]
    if fitting:
        return {"size": fitting[0]}
    for name in _possible():
        other = architecture(name)
        if replace(size, image_size=other.image_size) == other:
            return {"size": "base", "arch": name}
    return None


# base is OpenAI's ViT-B/16 (Radford et al., ICML 2021), eva02-base EVA-CLIP's (Sun et al., arXiv 2303.15389).
# tiny is this project's own, small enough that the demo trains it from scratch on two CPU cores.
SIZES: dict[str, Size] = {
    "tiny": Size(128, 128, 3, 2, 8, 128, 3, 2, (96, 48)),
    "base": Size(512, 768, 12, 12, 16, 512, 12, 8, (224, 224), quick_gelu=True),
    "eva02-base": Size(512, 768, 12, 12, 16, 512, 12, 8, (224, 224), vision_mlp=_EVA_MLP, rotary=True),
}
