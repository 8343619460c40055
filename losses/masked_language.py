"""Masked attribute words (CADA's ARA): which words are hidden, and the loss of guessing them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from losses.hashing import mix_numbers, mix_seeds
from losses.precision import no_autocast, widen


def hidden_units(units: Tensor, seeds: Tensor, probability: float) -> Tensor:
    """Which tokens to hide: each unit (a word, or a phrase) of a caption is hidden whole, with a given probability.

    The draw is a hash of the caption's seed and the unit's number: the same for any batch, device and process.

    Args:
        units: (B, L) int64; 0 where a token belongs to no unit, else the number of its unit in the caption, from 1.
        seeds: (B,) int64, one per caption.
        probability: of a unit to be hidden, 0..1.

    Returns:
        (B, L) bool.
    """
    draws = mix_numbers(mix_seeds(seeds)[:, None], units)
    return (units > 0) & (draws < int(probability * 2**32))


def masked_language_loss(
    logits: Tensor,
    targets: Tensor,
    hidden: Tensor,
    total: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the true token at every hidden position, averaged over the hidden positions.

    Args:
        logits: (B, L, V).
        targets: (B, L) int64, the tokens of the unmasked caption.
        hidden: (B, L) bool, the positions that were masked.
        total: what the sum is divided by; None: the number of hidden positions. A process that holds a share of the
            captions gives the mean count per process here.
        weights: (B,) by which each caption's part of the sum is multiplied. None: all 1.

    Returns:
        The loss, a scalar in float32 (float64 for float64 logits); 0 if nothing was hidden.

    Raises:
        ValueError: the shapes do not belong together.
    """
    if logits.shape[:2] != targets.shape or hidden.shape != targets.shape:
        raise ValueError(
            "masked_language_loss needs logits (B, L, V), targets (B, L) and hidden (B, L); got "
            f"{tuple(logits.shape)}, {tuple(targets.shape)} and {tuple(hidden.shape)}."
        )
    # The index -100 leaves a position out without a shape that depends on the data, which would stall the device.
    kept = torch.where(hidden, targets, -100).flatten()
    with no_autocast(logits):
        wide = widen(logits).flatten(0, 1)
        if weights is None:
            summed = cross_entropy(wide, kept, ignore_index=-100, reduction="sum")
        else:
            losses = cross_entropy(wide, kept, ignore_index=-100, reduction="none")
            summed = (losses.view(targets.shape) * weights[:, None]).sum()
        count = hidden.sum() if total is None else total
        return summed / count.to(summed.dtype).clamp(min=torch.finfo(summed.dtype).tiny)
