"""TAL: RDE's triplet loss, in which every negative of the batch takes part and not only the hardest."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, relu, softmax

from losses.precision import no_autocast, widen


def triplet_alignment_loss(
    image_features: Tensor,
    text_features: Tensor,
    labels: Tensor,
    tau: float = 0.015,
    margin: float = 0.1,
) -> Tensor:
    """Triplet alignment loss per sample (Qin et al., CVPR 2024, section 3.3).

    With S = cosine, the positives of i being the texts j with y_j = y_i, and α = softmax over these of S_ij / τ, detached,

        L_i2t(i) = relu(margin - Σ_pos α_ij S_ij + τ log Σ_neg exp(S_ij / τ))

    L_t2i is the same on Sᵀ. A sample without any negative in the batch costs nothing.

    Args:
        image_features: (B, F) image features; row i belongs to row i of the texts. Normalised here.
        text_features: (B, F) text features. Normalised here.
        labels: (B,) integer identities or pseudo labels.
        tau: temperature; the smaller, the nearer to the hardest negative alone.
        margin: by which positives should be more similar than negatives.

    Returns:
        (B,) L_i2t(i) + L_t2i(i), in float32 (float64 for float64 features); RDE sums them over the batch.

    Raises:
        ValueError: the shapes do not belong together.
    """
    if image_features.shape != text_features.shape or labels.shape != image_features.shape[:1]:
        raise ValueError(
            "triplet_alignment_loss needs image and text features of one shape (B, F) and labels (B,); got "
            f"{tuple(image_features.shape)}, {tuple(text_features.shape)} and {tuple(labels.shape)}."
        )
    with no_autocast(image_features):
        image = normalize(widen(image_features), dim=1)
        text = normalize(widen(text_features), dim=1)
        similarity = image @ text.T
        same = labels[:, None] == labels[None, :]  # symmetric: it serves both directions
        forward = _one_direction(similarity, same, tau, margin)
        return forward + _one_direction(similarity.T, same, tau, margin)


def _one_direction(similarity: Tensor, same: Tensor, tau: float, margin: float) -> Tensor:
    scaled = similarity / tau
    alpha = softmax(scaled.detach().masked_fill(~same, -torch.inf), dim=1)
    positive = (alpha * similarity).sum(dim=1)
    negative = tau * scaled.masked_fill(same, -torch.inf).logsumexp(dim=1)  # -inf without any
    return relu(margin - positive + negative)
