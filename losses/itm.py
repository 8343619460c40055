"""Image-text matching: hardest negatives, and the two-way cross-entropy over pairs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from losses.precision import no_autocast, widen


def hard_negatives(similarity: Tensor, labels: Tensor, candidate_labels: Tensor) -> tuple[Tensor, Tensor]:
    """For each row the most similar candidate of another label.

    Nothing here depends on the values in shape, so that a training step never waits for the device: a row that has no
    candidate of another label gets index 0 and `found` False, and its pair must be weighted with 0.

    Args:
        similarity: (Q, G) similarities of Q samples to G candidates of the other modality.
        labels: (Q,) integer labels of the samples.
        candidate_labels: (G,) integer labels of the candidates.

    Returns:
        (index, found): (Q,) int64, column of the hardest negative (the first of several equal ones); (Q,) bool.

    Raises:
        ValueError: the shapes do not belong together.
    """
    if similarity.shape != (len(labels), len(candidate_labels)):
        raise ValueError(
            f"hard_negatives got similarities {tuple(similarity.shape)} for {len(labels)} labels and "
            f"{len(candidate_labels)} candidate labels; give one row per label and one column per candidate."
        )
    other = labels[:, None] != candidate_labels[None, :]
    index = similarity.detach().masked_fill(~other, -torch.inf).argmax(dim=1)
    return index, other.any(dim=1)


def itm_loss(
    logits: Tensor, targets: Tensor, weights: Tensor | None = None, total: Tensor | None = None
) -> Tensor:
    """Two-way cross-entropy of match decisions: Σ w · CE / total.

    Args:
        logits: (P, 2) of P image-text pairs; index 1 is "match".
        targets: (P,) 1 for a matching pair, 0 for a negative.
        weights: (P,) 0 for a pair that does not exist (a sample without any negative), else what it counts. None: all 1.
        total: what the sum is divided by. None: the sum of the weights. A process that holds a share of the pairs gives
            the mean count per process here, so that the mean of the processes' losses is the mean over all pairs.

    Returns:
        The loss, a scalar in float32 (float64 for float64 logits); 0 if no pair exists.

    Raises:
        ValueError: the shapes do not belong together.
    """
    if logits.shape != (len(targets), 2):
        raise ValueError(
            f"itm_loss needs logits ({len(targets)}, 2) for {len(targets)} targets, got {tuple(logits.shape)}."
        )
    with no_autocast(logits):
        losses = cross_entropy(widen(logits), targets.long(), reduction="none")
        weights = torch.ones_like(losses) if weights is None else weights.to(losses.dtype)
        total = weights.sum() if total is None else total.to(losses.dtype)
        return (losses * weights).sum() / total.clamp(min=torch.finfo(losses.dtype).tiny)
