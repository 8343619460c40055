"""Rank-k, mAP and mINP of text-to-image retrieval.

Protocol: every caption queries the whole gallery; a hit is an image of the query's identity. With the ranks
r_1 < ... < r_H (from 1) of a query's H hits:

    Rank-k = [r_1 <= k]        AP = mean_j j / r_j        INP = H / r_H   (Ye et al., TPAMI 2021)

each averaged over queries, in percent.

Ties: an image that scores exactly like a hit but is none is ranked before the hit. So ties never favour hits, the
numbers do not depend on the order of the gallery, and a model that scores everything alike gets the worst value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_BLOCK_ENTRIES = 1 << 24  # scores ranked at a time: bounds the working memory at a few hundred MB


@dataclass(frozen=True)
class QueryRanks:
    """What one ranking says about each query.

    Attributes: `first_hit` (Q,) int64 rank from 1 of the best hit; `average_precision` and
    `inverse_penalty` (Q,) float64 in [0, 1].
    """

    first_hit: np.ndarray
    average_precision: np.ndarray
    inverse_penalty: np.ndarray

    @staticmethod
    def cat(
        parts: list[QueryRanks], join: Callable[[list[np.ndarray]], np.ndarray] = np.concatenate
    ) -> QueryRanks:
        """The queries of all parts, in order; `join` makes one array of the parts' arrays."""
        fields = ("first_hit", "average_precision", "inverse_penalty")
        return QueryRanks(*(join([getattr(part, field) for part in parts]) for field in fields))

    def summary(self) -> dict[str, float]:
        """{"r1", "r5", "r10", "mAP", "mINP"} in percent."""
        ranks = {f"r{k}": 100.0 * float((self.first_hit <= k).mean()) for k in (1, 5, 10)}
        return {
            **ranks,
            "mAP": 100.0 * float(self.average_precision.mean()),
            "mINP": 100.0 * float(self.inverse_penalty.mean()),
        }


def retrieval_metrics(
    scores: np.ndarray | Tensor, query_ids: np.ndarray | Tensor, gallery_ids: np.ndarray | Tensor
) -> dict[str, float]:
    """Rank-1/5/10, mAP and mINP in percent.

    Args:
        scores: (Q, G), larger is better.
        query_ids, gallery_ids: (Q,) and (G,) integer identities.

    Raises:
        ValueError: shapes that do not fit, scores that are not finite, or queries without any hit.
    """
    return rank_queries(scores, query_ids, gallery_ids).summary()


def rank_queries(
    scores: np.ndarray | Tensor, query_ids: np.ndarray | Tensor, gallery_ids: np.ndarray | Tensor
) -> QueryRanks:
    """The per-query values behind `retrieval_metrics`; same arguments and errors."""
    scores = torch.as_tensor(scores)
    query_ids = torch.as_tensor(query_ids, device=scores.device)
    gallery_ids = torch.as_tensor(gallery_ids, device=scores.device)
    _check_shapes(scores, query_ids, gallery_ids)
    check_hits(query_ids, gallery_ids)
    step = max(1, _BLOCK_ENTRIES // len(gallery_ids))
    parts = [
        _rank_block(scores[start : start + step], query_ids[start : start + step], gallery_ids)
        for start in range(0, len(query_ids), step)
    ]
    return QueryRanks.cat(parts)


def check_hits(query_ids: np.ndarray | Tensor, gallery_ids: np.ndarray | Tensor) -> None:
    """Raises ValueError when a query has no image of its identity in the gallery: no metric is defined for it."""
    query_ids, gallery_ids = torch.as_tensor(query_ids), torch.as_tensor(gallery_ids)
    absent = ~torch.isin(query_ids, gallery_ids)
    count = int(absent.sum())
    if count:
        first = int(query_ids[absent][0])
        raise ValueError(
            f"{count} of {len(query_ids)} queries have no image of their identity in the gallery "
            f"(the first: identity {first}); leave these queries out or complete the gallery."
        )


def _check_shapes(scores: Tensor, query_ids: Tensor, gallery_ids: Tensor) -> None:
    if query_ids.ndim != 1 or gallery_ids.ndim != 1 or scores.shape != (len(query_ids), len(gallery_ids)):
        raise ValueError(
            f"Scores of shape {tuple(scores.shape)} do not fit {tuple(query_ids.shape)} query identities and "
            f"{tuple(gallery_ids.shape)} gallery identities; scores are (queries, gallery)."
        )
    if not len(query_ids) or not len(gallery_ids):
        raise ValueError("Metrics need at least one query and one gallery image.")


def _rank_block(scores: Tensor, query_ids: Tensor, gallery_ids: Tensor) -> QueryRanks:
    """Ranks of all hits by counting: the j-th best hit stands behind j - 1 hits and all misses that score as much.

    One sort of the misses and a binary search per hit replace an argsort with its gathers.
    """
    if not scores.is_floating_point():
        scores = scores.double()
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("Some scores are NaN or infinite; the model or its features are broken.")
    is_hit = query_ids[:, None] == gallery_ids[None, :]
    count = is_hit.sum(dim=1)
    below_all = torch.tensor(-torch.inf, dtype=scores.dtype, device=scores.device)
    hits = torch.where(is_hit, scores, below_all).topk(int(count.max()), dim=1).values
    misses = _sorted_rows(torch.where(is_hit, below_all, scores))
    misses_ahead = scores.shape[1] - torch.searchsorted(misses, hits)
    position = torch.arange(1, hits.shape[1] + 1, device=scores.device)
    ranks = position + misses_ahead
    valid = position <= count[:, None]
    precision = torch.where(valid, position.double() / ranks, 0.0).sum(dim=1) / count
    hardest = ranks.gather(1, count[:, None] - 1).squeeze(1)
    return QueryRanks(*(part.cpu().numpy() for part in (ranks[:, 0], precision, count.double() / hardest)))


def _sorted_rows(values: Tensor) -> Tensor:
    """Rows in ascending order. On the CPU by numpy, whose vectorised sort takes a quarter of torch's time."""
    if values.is_cuda:
        return values.sort(dim=1).values
    return torch.from_numpy(np.sort(values.numpy(), axis=1))
