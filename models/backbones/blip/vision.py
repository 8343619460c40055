"""BLIP's image encoder: timm's vision transformer under the key names of BLIP's checkpoints."""

from __future__ import annotations

from functools import partial

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from losses.precision import no_autocast, widen
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
        tokens = self._embedded(images)
        for number, block in enumerate(self.blocks):
            if self.training and number < self.checkpoint_blocks:
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        return self.norm(tokens)

    def watched(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The same tokens, and the attention (B, heads, 1 + patches, 1 + patches) of every layer, from which a graph leads to them.

        In evaluation mode. Attention is computed plainly, in single precision: the blocks themselves never hold it.
        """
        check_images(images, self.image_size)
        with torch.no_grad():
            tokens = self._embedded(images)
        attentions: list[Tensor] = []
        with torch.enable_grad():
            tokens = tokens.requires_grad_()  # a leaf of this call's own: frozen weights give a graph, too
            for block in self.blocks:
                mixed, attention = _attend(block.attn, block.norm1(tokens))
                tokens = tokens + block.ls1(mixed)
                tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
                attentions.append(attention)
            return self.norm(tokens), attentions

    def _embedded(self, images: Tensor) -> Tensor:
        """What goes into the first block."""
        tokens = self.patch_embed(images)
        return torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.pos_embed


def _attend(attention: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """What a block's attention makes of tokens (B, N, D), and its weights (B, heads, N, N)."""
    parts = attention.qkv(tokens).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    query, key, value = widen(parts)
    with no_autocast(query):
        weights = (query @ key.transpose(2, 3) / query.shape[3] ** 0.5).softmax(3)
        mixed = (weights @ value).transpose(1, 2).flatten(2)
    return attention.proj(mixed), weights
