"""TSN's fusion encoder: one feature of an image and its text together."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from models.heads import Head

STARTS = ("torch", "normal")


class FusionEncoder(nn.Module):
    """Image tokens look at text tokens, then one transformer block, LayerNorm and a projection of the first token.

    Only the first token leaves the block, so only the first token enters its feed-forward part: the same numbers as the
    whole block, at 1 / N of the work.

    Args:
        image_width: of the image tokens, and of everything after them; heads are image_width / 64.
        text_width: of the text tokens.
        embed_dim: of the fused feature.
        start: the first weights of its matrices: "torch" (each Linear's own, uniform), or "normal", of standard deviation
            image_width^-0.5 with biases of zero, as TSN's released code starts them.
    """

    def __init__(self, image_width: int, text_width: int, embed_dim: int, start: str = "torch") -> None:
        super().__init__()
        heads = max(1, image_width // 64)
        self.image_norm = nn.LayerNorm(image_width)
        self.text_norm = nn.LayerNorm(text_width)
        self.crossattention = _Attention(image_width, text_width, heads)
        self.norm1 = nn.LayerNorm(image_width)
        self.attention = _Attention(image_width, image_width, heads)
        self.norm2 = nn.LayerNorm(image_width)
        self.mlp = nn.Sequential(
            nn.Linear(image_width, 4 * image_width), QuickGELU(), nn.Linear(4 * image_width, image_width)
        )
        self.norm = nn.LayerNorm(image_width)
        self.projection = Head(image_width, embed_dim)
        if start == "normal":
            for layer in self.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=image_width**-0.5)
                    nn.init.zeros_(layer.bias)

    def forward(self, image_tokens: Tensor, text_tokens: Tensor, text_mask: Tensor) -> Tensor:
        """(B, N, image_width), (B, L, text_width) and (B, L) bool, False at padding, to fused features (B, embed_dim)."""
        tokens = self.crossattention(self.image_norm(image_tokens), self.text_norm(text_tokens), text_mask)
        normed = self.norm1(tokens)
        first = tokens[:, :1] + self.attention(normed[:, :1], normed)
        first = first + self.mlp(self.norm2(first))
        return self.projection(self.norm(first[:, 0]))


class QuickGELU(nn.Module):
    """x · sigmoid(1.702 x), CLIP's approximation of GELU."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class _Attention(nn.Module):
    def __init__(self, width: int, source_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(source_width, 2 * width)
        self.output = nn.Linear(width, width)

    def forward(self, tokens: Tensor, source: Tensor, source_mask: Tensor | None = None) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(tokens), *self.key_value(source).chunk(2, dim=-1))
        )
        mask = None if source_mask is None else source_mask[:, None, None, :]
        context = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(context.transpose(1, 2).flatten(2))
