"""A block of the vision transformer (Dosovitskiy et al., ICLR 2021): attention and a feed-forward layer, each behind its norm.

The names are those of BLIP's checkpoints, which are timm's, and so are the numbers that training from scratch starts from. timm
itself is left out: with torchvision, which it brings, it takes longer to load than torch does.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.attention import attend_plainly
from models.backbones.linear import Linear

# What the released weights were trained with, as every ViT of that code line; transformers' BLIP defaults to 1e-5.
LAYER_NORM_EPS = 1e-6
_SPREAD = 0.02  # standard deviation of the weights at the start


class VisionBlock(nn.Module):
    """Tokens (B, N, width) to tokens.

    Args:
        width: of the tokens; the feed-forward layer is four times as wide.
        heads: of the attention.
        drop_path: probability that in training a sample passes the attention by, and again the feed-forward layer (stochastic
            depth, Huang et al., ECCV 2016).
    """

    def __init__(self, width: int, heads: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        layers = {"fc1": Linear(width, 4 * width), "act": nn.GELU(), "fc2": Linear(4 * width, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.drop_path = drop_path

    def forward(self, tokens: Tensor) -> Tensor:
        """What comes out of both parts, each added to what goes into it."""
        tokens = tokens + self._passed_by(self.attn(self.norm1(tokens)))
        return tokens + self._passed_by(self.mlp(self.norm2(tokens)))

    def watched(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The same in evaluation mode, and the attention (B, heads, N, N)."""
        mixed, attention = self.attn.watched(self.norm1(tokens))
        tokens = tokens + mixed
        return tokens + self.mlp(self.norm2(tokens)), attention

    def _passed_by(self, added: Tensor) -> Tensor:
        """Zeroes samples with the probability and scales the others up."""
        if not (self.training and self.drop_path):
            return added
        keep = 1 - self.drop_path
        return added * added.new_empty(len(added), 1, 1).bernoulli_(keep).div_(keep)


class SelfAttention(nn.Module):
    """Every token looks at every other one, in several heads; tokens (B, N, width) to tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """By torch's own kernel, which never holds the attention."""
        mixed = F.scaled_dot_product_attention(*self._parts(tokens).unbind(0))
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def watched(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The same computed plainly, in single precision, and the attention (B, heads, N, N)."""
        mixed, weights = attend_plainly(*self._parts(tokens))
        return self.proj(mixed), weights

    def _parts(self, tokens: Tensor) -> Tensor:
        """(3, B, heads, N, width / heads): query, key and value."""
        return self.qkv(tokens).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)


def draw(weight: Tensor) -> None:
    """Fills a weight from a normal distribution by the inverse of its distribution function.

    As timm does: torch's `trunc_normal_` draws other numbers from one version to the next.
    """
    with torch.no_grad():
        weight.uniform_(-1, 1).erfinv_().mul_(_SPREAD * math.sqrt(2)).clamp_(-2, 2)


def draw_layers(module: nn.Module) -> None:
    """Draws the weights of all linear layers inside a module, in their order, and takes their biases to zero."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            draw(part.weight)
            nn.init.zeros_(part.bias)
