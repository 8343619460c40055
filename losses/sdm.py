"""SDM: the global image-text loss of IRRA."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, normalize

from losses.precision import no_autocast, widen


def sdm_loss(
    image_features: Tensor,
    text_features: Tensor,
    labels: Tensor,
    scale: float = 50.0,
    eps: float = 1e-8,
    weights: Tensor | None = None,
) -> Tensor:
    """Similarity distribution matching (Jiang & Ye, CVPR 2023): how far the similarities are from the labels.

    With S = scale · norm(V) norm(T)ᵀ, P = softmax(S) by rows and q_ij = [y_i = y_j] / |{j : y_i = y_j}|,

        L_i2t = mean_i Σ_j P_ij (log P_ij - log(q_ij + eps)),

    L_t2i is the same on Sᵀ, and SDM = L_i2t + L_t2i.

    Args:
        image_features: (B, F) image features; row i belongs to row i of the texts. Normalised here.
        text_features: (B, F) text features. Normalised here.
        labels: (B,) integer identities or pseudo labels.
        scale: 1 / tau, of the cosines; IRRA's tau is 0.02.
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
            "sdm_loss needs image and text features of one shape (B, F) and labels (B,); got "
            f"{tuple(image_features.shape)}, {tuple(text_features.shape)} and {tuple(labels.shape)}."
        )
    with no_autocast(image_features):
        image = normalize(widen(image_features), dim=1)
        text = normalize(widen(text_features), dim=1)
        similarity = scale * image @ text.T
        same = labels[:, None] == labels[None, :]
        # `same` is symmetric and rows of one label have one count, so q serves both directions.
        log_target = torch.log(same.to(similarity.dtype) / same.sum(dim=1, keepdim=True) + eps)
        of_pairs = _divergences(similarity, log_target) + _divergences(similarity.T, log_target)
        return of_pairs.mean() if weights is None else (of_pairs * weights).mean()


def _divergences(similarity: Tensor, log_target: Tensor) -> Tensor:
    log_fitted = log_softmax(similarity, dim=1)
    return (log_fitted.exp() * (log_fitted - log_target)).sum(dim=1)
