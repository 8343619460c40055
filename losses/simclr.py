"""SS-I: two augmented views of an image recognise each other among those of the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from losses.precision import no_autocast, widen


def simclr_loss(first: Tensor, second: Tensor, temperature: float = 0.1) -> Tensor:
    """NT-Xent (Chen et al., SimCLR, ICML 2020, equation 1), a mean over all 2B views.

    Each view is classified among the other 2B - 1 by cosine / temperature; right is the other view of its image.

    Args:
        first: (B, F) projected features of one view of each image. Normalised here.
        second: (B, F) of another view of the same images, in the same order. Normalised here.
        temperature: of the cosines.

    Returns:
        The loss, a scalar in float32 (float64 for float64 features).

    Raises:
        ValueError: the shapes differ.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(
            f"simclr_loss needs two views of one shape (B, F); got {tuple(first.shape)} and {tuple(second.shape)}."
        )
    with no_autocast(first):
        views = normalize(torch.cat([widen(first), widen(second)]), dim=1)
        itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
        logits = (views @ views.T / temperature).masked_fill(itself, -torch.inf)
        other = torch.arange(len(views), device=views.device).roll(len(first))
        return cross_entropy(logits, other)
