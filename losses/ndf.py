"""NDF: the global image-text loss of PSPD, TSN and CADA."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, normalize

from losses.precision import no_autocast, widen


def ndf_loss(
    image_features: Tensor,
    text_features: Tensor,
    labels: Tensor,
    scale: float = 50.0,
    eps: float = 1e-8,
    weights: Tensor | None = None,
) -> Tensor:
    """Normalised distribution fitting: the similarity distribution against the label distribution, both ways.

    With S = scale · norm(V) norm(T)ᵀ, P = softmax(S) by rows and q_ij = [y_i = y_j] / |{j : y_i = y_j}|,

        L_i2t = mean_ij P (log P - log(q + eps)) + mean_ij q (log(q + eps) - log P) + mean_i (-Σ_j q_ij log P_ij)

    L_t2i is the same on Sᵀ, and NDF = (L_i2t + L_t2i) / 2. The two divergences are means over all B² entries, the
    cross-entropy over the B rows, as in the released code of PSPD and CADA.

    Args:
        image_features: (B, F) image features; row i belongs to row i of the texts. Normalised here.
        text_features: (B, F) text features. Normalised here.
        labels: (B,) integer identities or pseudo labels.
        scale: inverse temperature of the similarities.
        eps: keeps log(q) finite where two samples differ in label.
        weights: (B,) of the pairs: what row i of S and of Sᵀ adds to the means is multiplied by weights[i]. As a column,
            that others are compared with, a pair counts whatever its weight. None: all 1.

    Returns:
        The loss, a scalar in float32 (float64 for float64 features).

    Raises:
        ValueError: the shapes do not belong together.
    """
    if image_features.shape != text_features.shape or labels.shape != image_features.shape[:1]:
        raise ValueError(
            "ndf_loss needs image and text features of one shape (B, F) and labels (B,); got "
            f"{tuple(image_features.shape)}, {tuple(text_features.shape)} and {tuple(labels.shape)}."
        )
    with no_autocast(image_features):
        image = normalize(widen(image_features), dim=1)
        text = normalize(widen(text_features), dim=1)
        similarity = scale * image @ text.T
        same = labels[:, None] == labels[None, :]
        target = same.to(similarity.dtype) / same.sum(dim=1, keepdim=True)
        log_target = torch.log(target + eps)
        forward = _one_direction(similarity, target, log_target, weights)
        # `same` is symmetric and rows of one label have one count, so q serves both directions.
        backward = _one_direction(similarity.T, target, log_target, weights)
        return (forward + backward) / 2


def _one_direction(similarity: Tensor, target: Tensor, log_target: Tensor, weights: Tensor | None) -> Tensor:
    log_fitted = log_softmax(similarity, dim=1)
    fitted = log_fitted.exp()
    divergence = (fitted - target) * (log_fitted - log_target)  # both divergences, term by term
    likelihood = (target * log_fitted).sum(dim=1)
    if weights is not None:
        divergence, likelihood = divergence * weights[:, None], likelihood * weights
    return divergence.mean() - likelihood.mean()
