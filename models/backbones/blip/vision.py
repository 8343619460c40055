"""BLIP's image encoder: timm's vision transformer under the key names of BLIP's checkpoints."""

from __future__ import annotations

from functools import partial

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.backbones.blip.sizes import Size
from models.backbones.image_size import check_images, patch_grid
from models.backbones.linear import speed_up

# What the released weights were trained with, as every ViT of that code line; transformers' BLIP defaults to 1e-5.
LAYER_NORM_EPS = 1e-6


class BlipVision(VisionTransformer):
    """ViT with a class token, learned positions (1 + H/p * W/p), pre-norm blocks and a final LayerNorm.

    Args:
        size: widths and depths.
        image_size: (height, width) in pixels, multiples of the patch; need not be square.
        checkpoint_blocks: activations of that many of the first blocks are recomputed in the backward
            pass instead of kept, which trades about a third of their time for their memory.

    Raises ValueError where the image size is no multiple of the patch.
    """

    def __init__(self, size: Size, image_size: tuple[int, int], checkpoint_blocks: int = 0) -> None:
        grid = patch_grid(image_size, size.patch)
        super().__init__(
            img_size=image_size,
            patch_size=size.patch,
            embed_dim=size.vision_width,
            depth=size.vision_depth,
            num_heads=size.vision_heads,
            num_classes=0,
            global_pool="",
            drop_path_rate=size.drop_path,
            norm_layer=partial(nn.LayerNorm, eps=LAYER_NORM_EPS),
        )
        speed_up(self)
        self.image_size = image_size
        self.grid = grid
        self.checkpoint_blocks = checkpoint_blocks

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), normalised, to tokens (B, 1 + patches, width), the class token first.

        Raises ValueError for images of another size than the model was built for.
        """
        check_images(images, self.image_size)
        tokens = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.pos_embed
        for number, block in enumerate(self.blocks):
            if self.training and number < self.checkpoint_blocks:
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        return self.norm(tokens)
