"""The three sizes BLIP comes in here; a size says every width, a checkpoint has to agree with it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Widths and depths of a BLIP model.

    `image_size` is (height, width) in pixels, used when a configuration names none. `text_ffn` is the
    hidden width of the text stack's feed-forward layers; the image encoder's is four times its width. Activations of the
    first `checkpoint_blocks` image blocks are recomputed in the backward pass unless a configuration says otherwise.
    """

    vision_width: int
    vision_depth: int
    vision_heads: int
    patch: int
    text_width: int
    text_layers: int
    text_heads: int
    text_ffn: int
    embed_dim: int
    image_size: tuple[int, int]
    drop_path: float = 0.0
    checkpoint_blocks: int = 4


# base and large are BLIP's (Li et al., ICML 2022, section 4.1): ViT-B/16 or ViT-L/16 with BERT-base.
# tiny is this project's own, small enough that the demo trains it from scratch on two CPU cores.
SIZES: dict[str, Size] = {
    "tiny": Size(128, 3, 4, 8, 128, 3, 4, 512, 256, (96, 48), checkpoint_blocks=0),
    "base": Size(768, 12, 12, 16, 768, 12, 12, 3072, 256, (224, 224)),
    "large": Size(1024, 24, 16, 16, 768, 12, 12, 3072, 256, (224, 224), drop_path=0.1),
}
