"""The image towers: CLIP's vision transformer from open_clip, EVA-02's from timm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from timm.models.eva import Eva
from torch import Tensor, nn

from models.backbones.clip.attention_rows import clip_row, eva_row
from models.backbones.clip.plain_attention import clip_block, eva_block
from models.backbones.clip.sizes import Size
from models.backbones.image_size import check_images, patch_grid
from models.backbones.linear import speed_up


class ClipVision(VisionTransformer):
    """CLIP's image tower without its projection.

    Args:
        size: widths and depths.
        image_size: (height, width) in pixels, multiples of the patch; need not be square.

    Raises ValueError where the image size is no multiple of the patch.
    """

    positions = "positional_embedding"  # the parameter, (1 + patches, width)

    def __init__(self, size: Size, image_size: tuple[int, int]) -> None:
        grid = patch_grid(image_size, size.patch)
        super().__init__(
            image_size=image_size,
            patch_size=size.patch,
            width=size.vision_width,
            layers=size.vision_layers,
            heads=size.vision_heads,
            mlp_ratio=size.vision_mlp,
            output_dim=size.embed_dim,
            pool_type="none",
            act_layer=QuickGELU if size.quick_gelu else nn.GELU,
        )
        self.proj = None  # the model has it, so that all tokens can be projected, and in single precision
        speed_up(self)
        self.image_size, self.grid = image_size, grid

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), normalised, to states (B, 1 + patches, width), the class token first.

        Raises ValueError for images of another size than the model was built for.
        """
        check_images(images, self.image_size)
        return super().forward(images)

    def with_attention(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The same states, and how much the class token looks at each of them in the last layer: (B, 1 + patches)."""
        check_images(images, self.image_size)
        blocks = self.transformer.resblocks
        found = self.forward_intermediates(
            images, [len(blocks) - 2], output_fmt="NLC", output_extra_tokens=True
        )
        before = torch.cat([found["image_intermediates_prefix"][0], found["image_intermediates"][0]], dim=1)
        return found["image_features"], clip_row(blocks[-1], before, 0)

    def watched(self, images: Tensor, layers: int) -> tuple[Tensor, list[Tensor]]:
        """The same states, and the attention (B, heads, 1 + patches, 1 + patches) of each of the last `layers` layers, from
        where gradients can be taken; the layers before have none."""
        check_images(images, self.image_size)
        blocks = list(self.transformer.resblocks)
        with torch.no_grad():
            states = self._embeds(images)
            for block in blocks[:-layers]:
                states = block(states)
        return _watched(self.ln_post, [partial(clip_block, block) for block in blocks[-layers:]], states)


class EvaVision(Eva):
    """EVA-02's image tower without its projection; arguments and errors as in `ClipVision`."""

    positions = "pos_embed"  # the parameter, (1, 1 + patches, width)

    def __init__(self, size: Size, image_size: tuple[int, int]) -> None:
        grid = patch_grid(image_size, size.patch)
        super().__init__(
            img_size=image_size,
            patch_size=size.patch,
            embed_dim=size.vision_width,
            depth=size.vision_layers,
            num_heads=size.vision_heads,
            mlp_ratio=size.vision_mlp,
            num_classes=0,
            global_pool="",
            qkv_fused=False,
            swiglu_mlp=True,
            scale_mlp=True,
            scale_attn_inner=True,
            use_rot_pos_emb=True,
            # Rotary positions are those of a 16 x 16 grid, however many patches there are along a side.
            ref_feat_shape=(16, 16),
        )
        speed_up(self)
        self.image_size, self.grid = image_size, grid

    def forward(self, images: Tensor) -> Tensor:
        """As `ClipVision`."""
        check_images(images, self.image_size)
        return super().forward(images)

    def with_attention(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As `ClipVision`."""
        check_images(images, self.image_size)
        states, [(patches, token)] = self.forward_intermediates(
            images, [len(self.blocks) - 2], return_prefix_tokens=True, output_fmt="NLC"
        )
        before = torch.cat([token, patches], dim=1)
        return states, eva_row(self.blocks[-1], before, self.rope.get_embed())

    def watched(self, images: Tensor, layers: int) -> tuple[Tensor, list[Tensor]]:
        """As `ClipVision`."""
        check_images(images, self.image_size)
        blocks = list(self.blocks)
        with torch.no_grad():
            states, rotation = self._pos_embed(self.patch_embed(images))
            states = self.norm_pre(states)
            for block in blocks[:-layers]:
                states = block(states, rope=rotation)
        plain = [partial(eva_block, block, rotation=rotation) for block in blocks[-layers:]]
        return _watched(self.norm, plain, states)


def _watched(norm: nn.Module, blocks: Sequence[Callable], states: Tensor) -> tuple[Tensor, list[Tensor]]:
    """What leaves the norm after these blocks, and their attentions."""
    attentions = []
    with torch.enable_grad():
        states = states.detach().requires_grad_()  # frozen weights give a graph, too
        for block in blocks:
            states, attention = block(states)
            attentions.append(attention)
        return norm(states), attentions


def image_tower(size: Size, image_size: tuple[int, int]) -> ClipVision | EvaVision:
    """The size's image tower with random weights."""
    return (EvaVision if size.rotary else ClipVision)(size, image_size)
