"""The text tower: open_clip's transformer with causal attention, on texts as long as they are."""

from __future__ import annotations

import torch
from open_clip.transformer import QuickGELU, TextTransformer
from torch import Tensor, nn

from models.backbones.clip.sizes import Size
from models.backbones.linear import speed_up

POSITIONS = 77
_KEPT = 20  # of CLIP's positions, those that its short training texts have trained well


class ClipText(TextTransformer):
    """CLIP's text tower without its projection.

    Args:
        size: widths and depths.
        vocab_size: number of token embeddings.
        length: number of positions.

    Raises ValueError for fewer positions than CLIP's 77.
    """

    def __init__(self, size: Size, vocab_size: int, length: int = POSITIONS) -> None:
        if length < POSITIONS:
            raise ValueError(
                f"text_length is {length}: CLIP has {POSITIONS} positions, which can be stretched only"
            )
        super().__init__(
            context_length=length,
            vocab_size=vocab_size,
            width=size.text_width,
            heads=size.text_heads,
            layers=size.text_layers,
            proj_type="none",
            pool_type="none",
            act_layer=QuickGELU if size.quick_gelu else nn.GELU,
        )
        speed_up(self)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (B, L) int64, L up to the number of positions, to normalised states (B, L, width).

        No token looks at what comes after it, so padding on the right needs no mask. Unlike open_clip's own forward pass
        this one takes texts that are not padded to all positions.
        """
        length = ids.shape[1]
        states = self.token_embedding(ids) + self.positional_embedding[:length]
        return self.ln_final(self.transformer(states, attn_mask=self.attn_mask[:length, :length]))


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
