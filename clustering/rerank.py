"""k-reciprocal encoding and the Jaccard similarity it gives, sparse.

Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017, section 3.
"""

from __future__ import annotations

import numpy as np
import psutil
import torch
from scipy import sparse

from clustering import kernels
from clustering.inputs import ClusteringError, as_features, check_neighbourhood
from clustering.neighbours import nearest_neighbours, pair_distances
from clustering.parallel import over_rows

_CHUNK = 256  # rows of K a thread makes at a time


def jaccard_similarity(
    features: np.ndarray, k1: int = 20, k2: int = 6, *, device: torch.device | str = "cpu"
) -> sparse.csr_matrix:
    """K (N, N), float32: 1 minus the Jaccard distance of the k-reciprocal encodings. Symmetric, ones on the diagonal.

    features (N, F); k1: neighbours that make a reciprocal set; k2: neighbours averaged in the local query expansion.
    Raises ClusteringError if there are not more than k1 samples or features aren't finite.
    """
    return exact_similarity(as_features(features), k1, k2, device).astype(np.float32)


def exact_similarity(
    features: np.ndarray, k1: int, k2: int, device: torch.device | str = "cpu"
) -> sparse.csr_matrix:
    """K in float64, which thresholds need: float32's rounding would move pairs across eps. features (N, F) float64."""
    check_neighbourhood(len(features), k1, k2)
    neighbours = nearest_neighbours(features, k1, device)
    members = reciprocal_members(neighbours.indices, k1)
    weights = _gaussian_weights(features, members, neighbours.farthest)
    return _overlap_similarity(_expand_queries(weights, neighbours.indices, k2))


def reciprocal_members(indices: np.ndarray, k1: int) -> sparse.csr_matrix:
    """The expanded k1-reciprocal sets R* as a boolean matrix (N, N), row i the members for sample i.

    R(i, k) holds the j among i's k + 1 nearest that have i among theirs. Every candidate c in R(i, k1) whose half
    set h = R(c, round(k1 / 2)) lies in R(i, k1) by more than two thirds adds h. (CVPR 2017, equation 5, with a strict
    inequality; half sizes round half to even.) indices (N, k1 + 1): nearest neighbours, the sample itself first.
    """
    full, half = _reciprocal(indices, k1), _reciprocal(indices, round(k1 / 2))
    shared = full.multiply(full @ half.T).tocoo()  # |R(i, k1) & R(c, k1 / 2)| for every candidate c of i
    half_sizes = half.getnnz(axis=1)
    accepted = 3 * shared.data > 2 * half_sizes[shared.col]
    chosen = sparse.csr_matrix(
        (np.ones(accepted.sum(), np.int32), (shared.row[accepted], shared.col[accepted])), shape=full.shape
    )
    members = full + chosen @ half
    members.sort_indices()
    return members.astype(bool)


def _reciprocal(indices: np.ndarray, k: int) -> sparse.csr_matrix:
    """R(., k) as an int32 indicator matrix (N, N)."""
    count = len(indices)
    columns = indices[:, : k + 1].ravel().astype(np.int32)
    directed = sparse.csr_matrix(
        (np.ones(len(columns), np.int32), columns, np.arange(count + 1, dtype=np.int32) * (k + 1)),
        shape=(count, count),
    )
    return directed.multiply(directed.T).tocsr()


def _gaussian_weights(
    features: np.ndarray, members: sparse.csr_matrix, farthest: np.ndarray
) -> sparse.csr_matrix:
    """V (N, N): exp(-e_ij / max_j e_ij) on the members, every row divided by its sum."""
    lengths = np.diff(members.indptr)
    rows = np.repeat(np.arange(len(features)), lengths)
    distances = pair_distances(features, features, rows, members.indices)
    divisor = np.where(farthest > 0, farthest, 1.0)  # all features equal: all distances are 0 as they stand
    weights = np.exp(-distances / divisor[rows])
    sums = np.add.reduceat(weights, members.indptr[:-1])  # no row is empty: i is in R(i, k)
    weights /= np.repeat(sums, lengths)
    return sparse.csr_matrix((weights, members.indices, members.indptr), shape=members.shape)


def _expand_queries(weights: sparse.csr_matrix, indices: np.ndarray, k2: int) -> sparse.csr_matrix:
    """Local query expansion: the mean of V over the k2 nearest neighbours, the sample itself counted."""
    if k2 == 1:
        return weights
    count = len(indices)
    average = sparse.csr_matrix(
        (np.full(count * k2, 1.0 / k2), indices[:, :k2].ravel(), np.arange(count + 1) * k2),
        shape=(count, count),
    )
    return (average @ weights).tocsr()


def _overlap_similarity(weights: sparse.csr_matrix) -> sparse.csr_matrix:
    """K = m / (2 - m) with m_ij = sum_k min(V_ik, V_jk); rows of V sum to 1."""
    weights.sort_indices()
    count = weights.shape[0]
    by_row, by_column = kernels.triple(weights), kernels.triple(weights.tocsc())
    indptr = np.zeros(count + 1, dtype=np.int64)

    def measure(start: int, stop: int) -> None:
        kernels.similarity_lengths(*by_row[:2], *by_column[:2], start, stop, indptr[1:])

    over_rows(measure, count, _CHUNK)
    indptr = indptr.cumsum()
    indices, data = _allocate(int(indptr[-1]), count)

    def fill(start: int, stop: int) -> None:
        kernels.similarity_rows(*by_row, *by_column, indptr, indices, data, start, stop)

    over_rows(fill, count, _CHUNK)
    similarity = sparse.csr_matrix((data, indices, indptr), shape=weights.shape, copy=False)
    similarity.has_canonical_format = True
    return similarity


def _allocate(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and values of K; a sentence where memory can't hold them, before the system kills the run."""
    if 12 * size > psutil.virtual_memory().available:
        raise ClusteringError(
            f"The similarity of {count:,} samples would need {12 * size / 2**30:.1f} GiB, more than is free, because it is "
            f"not zero for {size / count**2:.0%} of the pairs: nearly all features are alike. Has the model collapsed?"
        )
    return np.empty(size, dtype=np.int32), np.empty(size, dtype=np.float64)
