"""The pseudo labels of docs/clustering.md with N x N matrices, step by step as the definition reads.

The measure of the sparse version: the tests ask for equal labels, benchmarks/pseudo_labels.py for its time. float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import DBSCAN

TOLERANCE = 1e-9  # what counts as zero, and as within eps; the definition has it too


@dataclass(frozen=True)
class DenseClusters:
    """labels (N,), core (N,) bool, the radius, and K (N, N)."""

    labels: np.ndarray
    core: np.ndarray
    eps: float
    similarity: np.ndarray


def dense_cluster(
    features: np.ndarray,
    source: np.ndarray | None = None,
    *,
    metric: str = "profile",
    eps: float | str = "auto",
    ratio: float = 0.051,
    lam: float = 0.1,
    min_samples: int = 4,
    k1: int = 20,
    k2: int = 6,
    ordered: bool = True,
) -> DenseClusters:
    """Cluster features (N, F). Options as clustering.pseudo_labels.cluster; ordered: see squared_distances."""
    features = np.asarray(features, dtype=np.float64)
    similarity = dense_similarity(features, k1, k2, ordered)
    distance = 1.0 - similarity
    if source is not None:
        term = 1.0 - np.exp(-squared_distances(features, np.asarray(source, np.float64), ordered).min(axis=1))
        term = term / term.max() if term.max() > 0 else term
        distance = (1.0 - lam) * distance + lam * (term[:, None] + term[None, :])
    if eps == "auto":
        upper = distance[np.triu_indices(len(distance), 1)]
        upper = np.sort(upper[upper > TOLERANCE])
        eps = upper[: max(1, int(np.around(ratio * upper.size)))].mean() if upper.size else 0.0
    labels, core = dense_dbscan(distance, metric, float(eps), min_samples)
    return DenseClusters(labels, core, float(eps), similarity)


def squared_distances(left: np.ndarray, right: np.ndarray, ordered: bool) -> np.ndarray:
    """(N, M) squared distances; ordered: summed in feature order, which decides ties, else by a matrix product."""
    if not ordered:
        squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :]
        return np.maximum(squares - 2.0 * left @ right.T, 0.0)
    out = np.zeros((len(left), len(right)))
    for i, row in enumerate(left):
        out[i] = np.cumsum((right - row) ** 2, axis=1)[:, -1]
    return out


def dense_similarity(features: np.ndarray, k1: int, k2: int, ordered: bool = True) -> np.ndarray:
    """K (N, N) of the k-reciprocal encoding (Zhong et al., CVPR 2017)."""
    count = len(features)
    distance = squared_distances(features, features, ordered)
    np.fill_diagonal(distance, -1.0)  # every sample is its own first neighbour
    rank = np.argsort(distance, axis=1, kind="stable")[:, : k1 + 1]
    np.fill_diagonal(distance, 0.0)
    largest = distance.max(axis=1, keepdims=True)
    distance /= np.where(largest > 0, largest, 1.0)
    encoding = np.zeros((count, count))
    for i in range(count):
        members = _expanded(rank, i, k1)
        weights = np.exp(-distance[i, members])
        encoding[i, members] = weights / weights.sum()
    if k2 > 1:
        encoding = np.stack([encoding[rank[i, :k2]].mean(axis=0) for i in range(count)])
    holders = [np.flatnonzero(column) for column in encoding.T]
    similarity = np.zeros((count, count))
    for i in range(count):
        overlap = np.zeros(count)
        for k in np.flatnonzero(encoding[i]):
            overlap[holders[k]] += np.minimum(encoding[i, k], encoding[holders[k], k])
        similarity[i] = overlap / (2.0 - overlap)
    np.fill_diagonal(similarity, 1.0)
    return similarity


def _reciprocal(rank: np.ndarray, i: int, k: int) -> np.ndarray:
    forward = rank[i, : k + 1]
    return forward[(rank[forward, : k + 1] == i).any(axis=1)]


def _expanded(rank: np.ndarray, i: int, k1: int) -> np.ndarray:
    reciprocal = _reciprocal(rank, i, k1)
    members = reciprocal
    for candidate in reciprocal:
        half = _reciprocal(rank, candidate, int(np.around(k1 / 2)))
        if 3 * len(np.intersect1d(half, reciprocal)) > 2 * len(half):
            members = np.append(members, half)
    return np.unique(members)


def dense_dbscan(
    distance: np.ndarray, metric: str, eps: float, min_samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """DBSCAN on the rows of `distance` (profile) or on `distance` itself (jaccard), as (labels, core)."""
    if metric == "profile":
        model = DBSCAN(eps=np.sqrt(eps**2 + TOLERANCE), min_samples=min_samples, algorithm="brute", n_jobs=-1)
        model.fit(distance)
    else:
        precomputed = np.maximum(distance, 0.0)
        np.fill_diagonal(precomputed, 0.0)
        model = DBSCAN(eps=eps + TOLERANCE, min_samples=min_samples, metric="precomputed").fit(precomputed)
    core = np.zeros(len(distance), dtype=bool)
    core[model.core_sample_indices_] = True
    return model.labels_, core
