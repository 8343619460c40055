"""BLIP's image encoder: a vision transformer under the key names of BLIP's checkpoints."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.backbones.blip.sizes import Size
from models.backbones.blip.vision_block import LAYER_NORM_EPS, VisionBlock, draw, draw_layers
from models.backbones.image_size import check_images, patch_grid


class BlipVision(nn.Module):
    """ViT with a class token, learned positions (1 + H/p * W/p), pre-norm blocks and a final LayerNorm.

    Args:
        size: widths and depths.
        image_size: (height, width) in pixels, multiples of the patch; need not be square.
        checkpoint_blocks: activations of that many of the first blocks are recomputed in the backward
            pass instead of kept, which trades about a third of their time for their memory.

    Raises ValueError where the image size is no multiple of the patch.
    """

    def __init__(self, size: Size, image_size: tuple[int, int], checkpoint_blocks: int = 0) -> None:
        super().__init__()
        self.image_size = image_size
        self.grid = patch_grid(image_size, size.patch)
        self.checkpoint_blocks = checkpoint_blocks
        width, tokens = size.vision_width, 1 + self.grid[0] * self.grid[1]
        patches = nn.Conv2d(3, width, kernel_size=size.patch, stride=size.patch)
        self.patch_embed = nn.Sequential(OrderedDict(proj=patches))
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, tokens, width))
        drop_paths = torch.linspace(
            0, size.drop_path, size.vision_depth
        ).tolist()  # the deeper, the more often
        self.blocks = nn.Sequential(*(VisionBlock(width, size.vision_heads, drop) for drop in drop_paths))
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        draw(self.pos_embed)
        nn.init.normal_(self.cls_token, std=1e-6)
        draw_layers(self.blocks)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), normalised, to tokens (B, 1 + patches, width), the class token first.

        Raises ValueError for images of another size than the model was built for.
        """
        tokens = self._embedded(images)
        for number, block in enumerate(self.blocks):
            if self.training and number < self.checkpoint_blocks:
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        return self.norm(tokens)

    def watched(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The same tokens, and the attention (B, heads, 1 + patches, 1 + patches) of every layer, from which a graph leads to them.

        In evaluation mode.
        """
        with torch.no_grad():
            tokens = self._embedded(images)
        attentions: list[Tensor] = []
        with torch.enable_grad():
            tokens = tokens.requires_grad_()  # a leaf of this call's own: frozen weights give a graph, too
            for block in self.blocks:
                tokens, attention = block.watched(tokens)
                attentions.append(attention)
            return self.norm(tokens), attentions

    def _embedded(self, images: Tensor) -> Tensor:
        """What goes into the first block."""
        check_images(images, self.image_size)
        tokens = self.patch_embed(images).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.pos_embed
