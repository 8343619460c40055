"""The text tower: open_clip's transformer with causal attention, on texts as long as they are."""

from __future__ import annotations

from open_clip.transformer import QuickGELU, TextTransformer
from torch import Tensor, nn

from models.backbones.clip.sizes import POSITIONS, Size
from models.backbones.linear import speed_up


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
