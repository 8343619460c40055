"""C-ITC: images resemble each other as their texts do, and an image a text as that text's image the other text."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from losses.precision import no_autocast, widen


def cyclic_loss(image_features: Tensor, text_features: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cyclic consistency (Goel et al., CyCLIP, NeurIPS 2022; weighted as in TBPS-CLIP).

    With cosines C between images (vv), texts (tt), images and texts (vt) and texts and images (tv),

        1/4 mean_ij (C_vv - C_tt)² + 1/4 mean_ij (C_vt - C_tv)²

    which is TBPS-CLIP's [1/4 mean(S_vv - S_tt)² + 1/4 mean(S_vt - S_tv)²] / s² for S = s C.

    Args:
        image_features: (B, F) image features; row i belongs to row i of the texts. Normalised here.
        text_features: (B, F) text features. Normalised here.
        weights: (B,) of the pairs, of their rows; a pair of weight 0 counts as one that costs nothing. None: all 1.

    Returns:
        The loss, a scalar in float32 (float64 for float64 features).

    Raises:
        ValueError: the shapes differ.
    """
    if image_features.shape != text_features.shape or image_features.ndim != 2:
        raise ValueError(
            "cyclic_loss needs image and text features of one shape (B, F); got "
            f"{tuple(image_features.shape)} and {tuple(text_features.shape)}."
        )
    with no_autocast(image_features):
        image = normalize(widen(image_features), dim=1)
        text = normalize(widen(text_features), dim=1)
        across = image @ text.T
        within = image @ image.T - text @ text.T
        rows = (within.square() + (across - across.T).square()).mean(dim=1) / 4
        return (rows if weights is None else rows * weights).mean()
