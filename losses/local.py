"""Local matching: regions of a text (upper and lower garment; two halves) decide match or no match by themselves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from losses.itm import itm_loss
from losses.precision import no_autocast, widen


def masked_token_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean of each row's marked tokens; of a row without any, its first token.

    Args:
        tokens: (P, L, D) last hidden states of the cross-encoder.
        mask: (P, L) bool, the tokens that belong to the region.

    Returns:
        (P, D) in the tokens' type; the sum is taken in float32 at least.

    Raises:
        ValueError: the shapes do not belong together.
    """
    if tokens.ndim != 3 or mask.shape != tokens.shape[:2]:
        raise ValueError(
            f"masked_token_mean needs tokens (P, L, D) and a mask (P, L), got {tuple(tokens.shape)} and {tuple(mask.shape)}."
        )
    first = torch.zeros_like(mask)
    first[:, 0] = True
    chosen = torch.where(mask.any(dim=1, keepdim=True), mask, first)
    with no_autocast(tokens):
        wide = widen(tokens)
        weights = chosen.to(wide.dtype)
        mean = torch.einsum("pl,pld->pd", weights, wide) / weights.sum(dim=1, keepdim=True)
    return mean.to(tokens.dtype)


def local_loss(
    region_logits: Sequence[Tensor],
    targets: Tensor,
    weights: Tensor | None = None,
    total: Tensor | None = None,
) -> Tensor:
    """Mean two-way cross-entropy of every region's decision on every pair (two regions, 3B pairs: 6B decisions).

    Args:
        region_logits: for each region the (P, 2) logits of the shared head on that region's token mean.
        targets, weights, total: of the P pairs, as in `losses.itm.itm_loss`.

    Returns:
        The loss, a scalar.
    """
    return torch.stack([itm_loss(logits, targets, weights, total) for logits in region_logits]).mean()
