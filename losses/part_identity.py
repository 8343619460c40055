"""SSAN's identity loss: every part of an image, and the same part of its caption, names the person by itself."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from losses.precision import no_autocast, widen


def part_identity_loss(image_logits: Tensor, text_logits: Tensor, labels: Tensor) -> Tensor:
    """(1 / K) Σ_k [CE(image part k) + CE(text part k)], each a mean over the batch (SSAN, arXiv 2107.12666).

    Args:
        image_logits: (B, K, C) of one level's K classifiers on an image's parts; K = 1 for whole-image features.
        text_logits: (B, K, C) of the same classifiers on the parts of its caption.
        labels: (B,) integer classes, 0 <= label < C.

    Returns:
        The loss, a scalar in float32 (float64 for float64 logits).

    Raises:
        ValueError: the shapes do not belong together.
    """
    if image_logits.shape != text_logits.shape or image_logits.ndim != 3 or len(labels) != len(image_logits):
        raise ValueError(
            "part_identity_loss needs two sets of logits of one shape (B, K, C) and labels (B,); got "
            f"{tuple(image_logits.shape)}, {tuple(text_logits.shape)} and {tuple(labels.shape)}."
        )
    with no_autocast(image_logits):
        named = labels[:, None].expand(-1, image_logits.shape[1]).flatten()
        image = cross_entropy(widen(image_logits).flatten(0, 1), named)
        return image + cross_entropy(widen(text_logits).flatten(0, 1), named)
