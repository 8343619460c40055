"""SSAN's compound ranking loss: a triplet loss with semi-hard negatives, and a weaker one on a companion caption.

A companion is a caption of another image of the same identity: it describes the person, and not always this picture.
"""

from __future__ import annotations

import torch
from torch import Tensor

from losses.hashing import mix_numbers, mix_seeds
from losses.precision import no_autocast, widen

SETTLED_EPOCH = 5  # before it, features say too little for one similarity to measure another
LEAST_RATIO = 0.6  # of the companion's similarity to that of the own caption; with alpha 0.2 a margin of 0.16
OWN_CAPTION, COMPANION = 0, 1  # the two terms, as `negative_draws` numbers them


def compound_ranking_loss(
    similarity: Tensor,
    companion_similarity: Tensor,
    companion_found: Tensor,
    labels: Tensor,
    seeds: Tensor,
    epoch: Tensor | int,
    level: int,
    alpha: float = 0.2,
    beta: float = 0.1,
) -> Tensor:
    """Term(S, alpha) + beta · Term(S', alpha2) of one level of features (SSAN, arXiv 2107.12666).

    Where several processes share a batch, each gathers the features and computes this number of the global batch.

    Args:
        similarity: (B, B) S: rows are images, columns their own captions, positives on the diagonal.
        companion_similarity: (B, B) S': the same images against every sample's companion caption.
        companion_found: (B,) bool, False where a sample has no companion and stands in for it with its own caption: it
            may be another's negative, but is no anchor of the second term.
        labels: (B,) integer identities or pseudo labels.
        seeds: (B,) int64, one per sample and epoch, from which its negatives are drawn.
        epoch: counted from 0, a number or a tensor () of the others' device.
        level: number of the level (global, local, relation), so that each draws negatives of its own.
        alpha: margin of the own caption.
        beta: weight of the companions' term.

    Returns:
        The loss, a scalar in float32 (float64 for float64 similarities).

    Raises:
        ValueError: the shapes do not belong together.
    """
    margins = companion_margins(similarity, companion_similarity, companion_found, epoch, alpha)
    own = ranking_term(similarity, labels, alpha, negative_draws(seeds, level, OWN_CAPTION))
    companion = ranking_term(companion_similarity, labels, margins, negative_draws(seeds, level, COMPANION))
    return own + beta * companion


def ranking_term(similarity: Tensor, labels: Tensor, margins: Tensor | float, draws: Tensor) -> Tensor:
    """Σ over image anchors + Σ over text anchors of relu(m_a - M[a, a] + M[a, n]), n one semi-hard negative of a.

    Semi-hard are the samples of another label with M[a, a] - m_a < M[a, n] < M[a, a]. An anchor that has none
    contributes nothing: harder negatives are never used. Text anchors read the transposed similarities.

    No shape depends on the values, so that a training step never waits for the device.

    Args:
        similarity: (B, B) M, rows are images, columns texts, positives on the diagonal.
        labels: (B,) integer labels.
        margins: (B,) m of each pair, the same for its image and its text, or one number; 0 leaves a pair's anchors out.
        draws: (2, B, B) numbers; of its semi-hard negatives, image anchor a takes the text n of the largest
            draws[0, a, n], text anchor a the image n of the largest draws[1, a, n]. See `negative_draws`.

    Returns:
        The sum, a scalar in float32 (float64 for float64 similarities).

    Raises:
        ValueError: the shapes do not belong together.
    """
    size = len(labels)
    if similarity.shape != (size, size) or draws.shape != (2, size, size):
        raise ValueError(
            f"ranking_term needs similarities ({size}, {size}) and draws (2, {size}, {size}) for {size} labels; got "
            f"{tuple(similarity.shape)} and {tuple(draws.shape)}."
        )
    with no_autocast(similarity):
        similarity = widen(similarity)
        if not isinstance(margins, Tensor):
            margins = similarity.new_full((), margins)
        margins = margins.to(similarity.dtype).expand(size)
        anchors = torch.stack([similarity, similarity.T])
        excess = anchors - similarity.diagonal()[:, None]  # of M[a, n] over M[a, a]
        other = labels[:, None] != labels[None, :]
        semi_hard = other & (excess < 0) & (excess > -margins[:, None])
        # float64 holds every hash of 32 bits, and -inf besides.
        drawn = draws.double().masked_fill(~semi_hard, -torch.inf).argmax(dim=2, keepdim=True)
        # Semi-hard: above 0, what relu would leave as it is.
        costs = margins + excess.gather(2, drawn).squeeze(2)
        return torch.where(semi_hard.any(dim=2), costs, 0).sum()


def companion_margins(
    similarity: Tensor,
    companion_similarity: Tensor,
    companion_found: Tensor,
    epoch: Tensor | int,
    alpha: float = 0.2,
) -> Tensor:
    """Margins alpha2 (B,) of the companions' term, 0 for a pair that is left out of it.

    Half of alpha in the first five epochs. Then alpha2 = (l + 1) alpha / 2 with l = min(|S'[a, a]| / |S[a, a]|, 1), so
    alpha / 2 <= alpha2 <= alpha; a pair of l < 0.6, whose companion says little about the picture, is left out. No
    gradient passes. Arguments as in `compound_ranking_loss`.

    Raises:
        ValueError: the shapes do not belong together.
    """
    if companion_similarity.shape != similarity.shape or companion_found.shape != similarity.shape[:1]:
        raise ValueError(
            "companion_margins needs two similarities of one shape (B, B) and companion_found (B,); got "
            f"{tuple(similarity.shape)}, {tuple(companion_similarity.shape)} and {tuple(companion_found.shape)}."
        )
    own = widen(similarity.detach()).diagonal().abs()
    companion = widen(companion_similarity.detach()).diagonal().abs()
    ratio = (companion / own.clamp(min=torch.finfo(own.dtype).tiny)).clamp(max=1)
    # Both cases, chosen between on the device: the epoch's value would have to be read.
    early = torch.as_tensor(epoch, device=own.device) < SETTLED_EPOCH
    margins = torch.where(early, alpha / 2, (ratio + 1) * (alpha / 2))
    return torch.where(companion_found & (early | (ratio >= LEAST_RATIO)), margins, 0)


def negative_draws(seeds: Tensor, level: int, term: int) -> Tensor:
    """Hashes (2, B, B) int64 for `ranking_term`: of the anchor's seed, level, term, direction and column.

    Args:
        seeds: (B,) int64, of the samples of the global batch.
        level: number of the level of features.
        term: OWN_CAPTION or COMPANION.
    """
    directions = torch.arange(2, device=seeds.device)
    purposes = (2 * level + term) * 2 + directions
    anchors = mix_numbers(mix_seeds(seeds), purposes[:, None])
    columns = torch.arange(len(seeds), device=seeds.device)
    return mix_numbers(anchors[..., None], columns)
