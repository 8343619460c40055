"""TSN's identity loss: the fused and the text feature name the pseudo class of their person."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from losses.precision import no_autocast, widen


def identity_loss(
    fused_logits: Tensor,
    text_logits: Tensor,
    labels: Tensor,
    fused_weight: float = 0.8,
    weights: Tensor | None = None,
) -> Tensor:
    """w · CE(fused) + (1 - w) · CE(text), each a mean over the batch; w = 0.8.

    Args:
        fused_logits: (B, C) of the one classifier on the fused feature.
        text_logits: (B, C) of the same classifier on the text feature.
        labels: (B,) integer classes, 0 <= label < C.
        fused_weight: w.
        weights: (B,) by which each sample's part of the means is multiplied. None: all 1.

    Returns:
        The loss, a scalar in float32 (float64 for float64 logits).

    Raises:
        ValueError: the shapes do not belong together.
    """
    if fused_logits.shape != text_logits.shape or labels.shape != fused_logits.shape[:1]:
        raise ValueError(
            "identity_loss needs two sets of logits of one shape (B, C) and labels (B,); got "
            f"{tuple(fused_logits.shape)}, {tuple(text_logits.shape)} and {tuple(labels.shape)}."
        )
    with no_autocast(fused_logits):
        fused = _cross_entropy(widen(fused_logits), labels, weights)
        text = _cross_entropy(widen(text_logits), labels, weights)
        return fused_weight * fused + (1 - fused_weight) * text


def _cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return cross_entropy(logits, labels)
    return (cross_entropy(logits, labels, reduction="none") * weights).mean()
