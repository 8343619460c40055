"""Which tokens of a caption a model is asked to guess, and what stands in their place (BERT's masking)."""

from __future__ import annotations

import torch
from torch import Tensor

from losses.hashing import MASK32, mix_numbers, mix_seeds

MASKED, REPLACED = 0.8, 0.1  # of the chosen tokens; the others stay as they are


def mask_tokens(
    ids: Tensor,
    maskable: Tensor,
    seeds: Tensor,
    mask_id: int,
    replacements: int,
    probability: float = 0.15,
) -> tuple[Tensor, Tensor]:
    """Chooses tokens of every caption and hides them: 80 % behind the mask, 10 % behind another token, 10 % not at all.

    Each token is chosen with the probability. Where none of a caption is, its first is, and becomes the mask. The draws are
    hashes of the caption's seed and the token's column: the same for any batch, padding, device and process.

    Args:
        ids: (B, L) int64.
        maskable: (B, L) bool, the tokens that may be chosen.
        seeds: (B,) int64, one per caption.
        mask_id: of the token that hides others.
        replacements: another token is drawn from the ids below this.
        probability: of a token to be chosen, 0..1.

    Returns:
        ids (B, L) with the chosen tokens hidden, and the chosen tokens (B, L) bool.
    """
    columns = torch.arange(ids.shape[1], device=ids.device)
    drawn = mix_numbers(
        mix_seeds(seeds)[:, None, None], 3 * columns[:, None] + torch.arange(3, device=ids.device)
    )
    choice, kind, other = drawn.unbind(2)
    chosen = maskable & (choice < _share(probability))
    first = maskable & (maskable.long().cumsum(1) == 1) & ~chosen.any(1, keepdim=True)
    masked = first | (chosen & (kind < _share(MASKED)))
    replaced = chosen & ~masked & (kind < _share(MASKED + REPLACED))
    hidden = torch.where(replaced, other * replacements >> 32, ids).masked_fill(masked, mask_id)
    return hidden, chosen | first


def _share(probability: float) -> int:
    return round(probability * (MASK32 + 1))
