"""IRRA's cross-modal encoder: the words of a caption look at an image, then at each other."""

from __future__ import annotations

import torch
from open_clip.transformer import QuickGELU, Transformer
from torch import Tensor, nn

from models.backbones.linear import speed_up
from models.heads import Head

HEAD_WIDTH = 64


class CrossModalEncoder(nn.Module):
    """One cross attention, with a LayerNorm before it for either side and nothing added to it, then blocks of CLIP's kind.

    Args:
        width: of the tokens of both sides.
        layers: number of blocks.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.heads = max(1, width // HEAD_WIDTH)
        self.text_norm = nn.LayerNorm(width)
        self.image_norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, self.heads, batch_first=True)
        self.transformer = Transformer(width, layers, self.heads, act_layer=QuickGELU)
        self.norm = nn.LayerNorm(width)
        speed_up(self)
        attentions = [self.attention, *(block.attn for block in self.transformer.resblocks)]
        for attention in attentions:  # as CLIP starts its text tower
            nn.init.normal_(attention.in_proj_weight, std=width**-0.5)
            nn.init.normal_(attention.out_proj.weight, std=(2 * layers * width) ** -0.5)
        for block in self.transformer.resblocks:
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=(2 * layers * width) ** -0.5)

    def forward(self, text_tokens: Tensor, text_mask: Tensor, image_tokens: Tensor) -> Tensor:
        """(B, L, width), (B, L) bool, False at padding, and (B, N, width) to states (B, L, width).

        No word looks at padding: what is computed for a caption does not depend on the others in its batch.
        """
        images = self.image_norm(image_tokens)
        states, _ = self.attention(self.text_norm(text_tokens), images, images, need_weights=False)
        size, length = text_mask.shape
        bias = torch.zeros(size, 1, length, dtype=states.dtype, device=states.device)
        bias = bias.masked_fill(~text_mask[:, None], float("-inf")).expand(-1, length, -1)
        return self.norm(self.transformer(states, attn_mask=bias.repeat_interleave(self.heads, 0)))


def language_head(width: int, layers: int, vocab_size: int) -> nn.Sequential:
    """States to logits of the vocabulary; `layers` are those below it, which CLIP's start depends on."""
    head = nn.Sequential(nn.Linear(width, width), QuickGELU(), nn.LayerNorm(width), Head(width, vocab_size))
    nn.init.normal_(head[0].weight, std=(2 * width) ** -0.5)
    nn.init.normal_(head[3].weight, std=(2 * layers * width) ** -0.5)
    return head
