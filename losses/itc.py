"""Image-text contrast against any target distribution: TBPS-CLIP's and SynTBPR's N-ITC and R-ITC, and their soft targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, normalize

from losses.precision import no_autocast, widen


def label_targets(labels: Tensor) -> Tensor:
    """q_ij = [y_i = y_j] / |{j : y_i = y_j}|: (B,) integer labels -> (B, B) float32, symmetric, rows of sum 1."""
    same = (labels[:, None] == labels[None, :]).float()
    return same / same.sum(dim=1, keepdim=True)


def soft_targets(
    similarity: Tensor, labels: Tensor, alpha: float | Tensor, kind: Literal["sigmoid", "softmax"] = "sigmoid"
) -> Tensor:
    """q~ = alpha g(S) + (1 - alpha) q, rows normalised; no gradient flows through them.

    The sigmoid of a scaled cosine is near 1 wherever the cosine is positive, so that target is label smoothing whose
    strength grows with the batch: at a scale of 100 and alpha = 0.005 the positive keeps 0.385 of the mass at B = 320,
    0.72 at 80 and 0.81 at 48. The softmax of S itself, as the target of N-ITC, changes no gradient's direction:
    P - (alpha P + (1 - alpha) q) = (1 - alpha) (P - q).

    Args:
        similarity: (B, B), scaled; transposed for the targets of texts to images.
        labels: (B,) integer identities or pseudo labels.
        alpha: share of the model's own opinion, 0..1; a tensor () where it grows.
        kind: g, the sigmoid of each entry (SynTBPR) or the softmax of each row (TBPS-CLIP).

    Returns:
        (B, B) in float32 (float64 for float64 similarities).

    Raises:
        ValueError: no such kind, or the shapes do not belong together.
    """
    if similarity.shape != (len(labels), len(labels)):
        raise ValueError(
            f"soft_targets needs similarities (B, B) and labels (B,); got {tuple(similarity.shape)} and "
            f"{tuple(labels.shape)}."
        )
    if kind not in ("sigmoid", "softmax"):
        raise ValueError(f"kind is {kind!r}; soft targets are made by sigmoid or softmax.")
    wide = widen(similarity.detach())
    own = wide.sigmoid() if kind == "sigmoid" else wide.softmax(dim=1)
    mixed = alpha * own + (1 - alpha) * label_targets(labels).to(own.dtype)
    return mixed / mixed.sum(dim=1, keepdim=True)


def n_itc_loss(
    similarity: Tensor, targets: Tensor, targets_t2i: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """N-ITC: 1/2 [mean_i(-Σ_j q~_ij log P_ij) + the same on Sᵀ], P = softmax(S) by rows.

    Args:
        similarity: (B, B) of images (rows) to texts, scaled.
        targets: (B, B) q~ of images to texts, rows of sum 1.
        targets_t2i: (B, B) q~ of texts (rows) to images; None: `targets`, as is right for those of labels alone.
        weights: (B,) of the pairs; a pair of weight 0 counts as one that costs nothing. None: all 1.

    Returns:
        The loss, a scalar in float32 (float64 for float64 similarities).

    Raises:
        ValueError: the shapes do not belong together.
    """
    return _mean(n_itc_losses(similarity, targets, targets_t2i), weights)


def n_itc_losses(similarity: Tensor, targets: Tensor, targets_t2i: Tensor | None = None) -> Tensor:
    """(B,) what each pair adds to `n_itc_loss`, which is their mean; arguments and errors as there."""
    return _both_directions(_cross_entropy, similarity, targets, targets_t2i)


def r_itc_loss(
    similarity: Tensor,
    targets: Tensor,
    eps: float = 1e-8,
    targets_t2i: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """R-ITC: 1/2 [mean_i Σ_j P_ij (log P_ij - log(q~_ij + eps)) + the same on Sᵀ], P = softmax(S) by rows.

    Args:
        eps: keeps log(q~) finite where two samples differ in label; the larger, the milder negatives are pushed away.
        similarity, targets, targets_t2i, weights: as in `n_itc_loss`, and so are the result and the errors.
    """

    def divergence(similarity: Tensor, targets: Tensor) -> Tensor:
        log_fitted = log_softmax(similarity, dim=1)
        return (log_fitted.exp() * (log_fitted - torch.log(targets + eps))).sum(dim=1)

    return _mean(_both_directions(divergence, similarity, targets, targets_t2i), weights)


def scaled_cosines(image_features: Tensor, text_features: Tensor, scale: float | Tensor) -> Tensor:
    """S = scale · norm(V) norm(T)ᵀ: (B, F), (B, F) -> (B, B) of images (rows) to texts, in float32 (float64 for float64)."""
    with no_autocast(image_features):
        image, text = (normalize(widen(features), dim=1) for features in (image_features, text_features))
        return scale * image @ text.T


def pair_divergences(
    image_features: Tensor, text_features: Tensor, labels: Tensor, scale: float | Tensor
) -> Tensor:
    """How badly each pair of a batch fits its labels: 1/2 [KL(q_i || P_i) + the same on Sᵀ], S = scale · cosine.

    That is `n_itc_losses` less the entropy of q, so that a perfect fit is 0 however many pairs share a label.

    Args:
        image_features, text_features: (B, F), normalised here.
        labels: (B,) integer identities or pseudo labels.
        scale: inverse temperature of the similarities.

    Returns:
        (B,) in float32 (float64 for float64 features).
    """
    similarity = scaled_cosines(image_features, text_features, scale)
    entropy = (labels[:, None] == labels[None, :]).sum(dim=1).to(similarity.dtype).log()
    return n_itc_losses(similarity, label_targets(labels)) - entropy


def _cross_entropy(similarity: Tensor, targets: Tensor) -> Tensor:
    return -(targets * log_softmax(similarity, dim=1)).sum(dim=1)


def _both_directions(
    one_direction: Callable[[Tensor, Tensor], Tensor],
    similarity: Tensor,
    targets: Tensor,
    targets_t2i: Tensor | None,
) -> Tensor:
    """(B,) mean of `one_direction`(similarity, targets) -> (B,) on images to texts and on texts to images."""
    back = targets if targets_t2i is None else targets_t2i
    size = len(similarity)
    if not similarity.shape == targets.shape == back.shape == (size, size):
        raise ValueError(
            "Image-text contrast needs similarities and targets of one shape (B, B); got "
            f"{tuple(similarity.shape)}, {tuple(targets.shape)} and {tuple(back.shape)}."
        )
    with no_autocast(similarity):
        wide = widen(similarity)
        forth = one_direction(wide, targets.to(wide.dtype))
        return (forth + one_direction(wide.T, back.to(wide.dtype))) / 2


def _mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    return losses.mean() if weights is None else (losses * weights).mean()
