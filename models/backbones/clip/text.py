"""The text tower: open_clip's transformer with causal attention, on texts as long as they are."""

from __future__ import annotations

from open_clip.transformer import QuickGELU, TextTransformer
from torch import Tensor, nn

from models.backbones.clip.attention_rows import clip_row
from models.backbones.clip.sizes import POSITIONS, Size, check_length
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
        check_length(length)
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
        states, mask = self._embedded(ids)
        return self.ln_final(self.transformer(states, attn_mask=mask))

    def with_attention(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The same states, and how much a caption's last token looks at each of them in the last layer: (B, L).

        Args:
            mask: (B, L) bool, False at padding, which it does not see.
        """
        states, causal = self._embedded(ids)
        blocks = self.transformer.resblocks
        states, [before] = self.transformer.forward_intermediates(states, causal, [len(blocks) - 2])
        return self.ln_final(states), clip_row(blocks[-1], before, mask.sum(1) - 1, hidden=~mask)

    def _embedded(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """What goes into the first layer, and the causal mask of that length."""
        length = ids.shape[1]
        states = self.token_embedding(ids) + self.positional_embedding[:length]
        return states, self.attn_mask[:length, :length]
