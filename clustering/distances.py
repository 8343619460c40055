"""Distances of the clustering step, none of them as a matrix: the source term, the automatic eps and the pairs within eps.

d_ij = (1 - lam) (1 - K_ij) + lam (s_i + s_j), with K sparse and s the source term. docs/clustering.md derives every
formula used here.
"""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
import torch
from scipy import sparse

from clustering import kernels
from clustering.neighbours import nearest_distances
from clustering.parallel import over_rows

# Sums of the same terms in another order differ by about 1e-12. A tie (duplicates, constant features, a value equal
# to eps) must not be decided by that, so "zero" and "within eps" allow this much.
TOLERANCE = 1e-9
_CHUNK = 256
_BINS = 2**15  # two rounds of so many reach 1e-9, and fit the cache


def source_term(features: np.ndarray, source: np.ndarray, device: torch.device | str = "cpu") -> np.ndarray:
    """s (N,) in 0..1: min over source images of 1 - exp(-||f_i - f_src||^2), divided by its maximum over i.

    features (N, F), source (M, F).
    """
    term = -np.expm1(-nearest_distances(features, source, device))
    largest = term.max()
    return term / largest if largest > 0 else term


def automatic_eps(similarity: sparse.csr_matrix, source: np.ndarray, lam: float, ratio: float) -> float:
    """The mean of the smallest `ratio` of the non-zero d_ij, i < j, to 1e-9. 0 if all are zero.

    similarity: K (N, N), symmetric; source: s (N,); lam: weight of the source term.
    Only the non-zeros of K differ from the base (1 - lam) + lam (s_i + s_j), whose count and sum below a threshold
    follow from the sorted s. Histograms of a bin of a bin close in on the threshold that holds the wanted number.
    """
    base = _BasePairs(source, lam)
    matrix = kernels.triple(similarity)
    low, high = 0.0, 1.0 + lam + TOLERANCE
    wanted = None
    smaller, their_sum = 0, 0.0  # of the stored pairs below `low`, less the base pairs that they replace
    while wanted is None or high - low > 1e-9:
        edges = np.linspace(low, high, _BINS + 1)
        numbers, totals = _stored_histogram(matrix, source, lam, edges)
        numbers, totals = smaller + numbers, their_sum + totals
        if wanted is None:
            nonzero = base.below(high)[0] + numbers[-1]
            if nonzero == 0:
                return 0.0
            wanted = max(1, int(np.around(ratio * nonzero)))
        edge = bisect_left(range(_BINS), wanted, key=lambda b: base.below(edges[b])[0] + numbers[b])
        low, high, smaller, their_sum = edges[edge - 1], edges[edge], numbers[edge - 1], totals[edge - 1]
    # What is left in the last bin is equal to 1e-9: its mean stands for each.
    (before, before_sum), (through, through_sum) = base.below(low), base.below(high)
    before, before_sum = before + smaller, before_sum + their_sum
    through, through_sum = through + numbers[edge], through_sum + totals[edge]
    rest = (wanted - before) * (through_sum - before_sum) / (through - before)
    return float((before_sum + rest) / wanted)


def _stored_histogram(
    matrix: tuple[np.ndarray, np.ndarray, np.ndarray], source: np.ndarray, lam: float, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the pairs that K holds change in the count and the sum (bins + 1,) of the d_ij below each edge."""

    def rows(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        numbers, totals = np.zeros(_BINS, dtype=np.int64), np.zeros(_BINS)
        kernels.distance_histogram(*matrix, source, lam, TOLERANCE, edges, start, stop, numbers, totals)
        return numbers, totals

    parts = over_rows(rows, len(source), 16 * _CHUNK)
    return tuple(np.concatenate([[0], sum(part[which] for part in parts).cumsum()]) for which in (0, 1))


class _BasePairs:
    """Counts and sums of (1 - lam) + lam (s_i + s_j) over the pairs i < j below a threshold."""

    def __init__(self, source: np.ndarray, lam: float):
        self.lam = lam
        self.sorted = np.sort(source)
        self.running = np.concatenate([[0.0], self.sorted.cumsum()])
        self.rank = np.arange(len(source))

    def below(self, threshold: float) -> tuple[int, float]:
        """(number of pairs, their sum) with a value below `threshold`."""
        room = threshold - (1.0 - self.lam)
        if room <= 0:
            return 0, 0.0
        room = room / self.lam if self.lam > 0 else math.inf
        ends = np.searchsorted(self.sorted, room - self.sorted)
        partners = np.maximum(ends - self.rank - 1, 0)  # those after i in sorted order
        sums = np.where(partners > 0, self.running[ends] - self.running[self.rank + 1], 0.0)
        number = int(partners.sum())
        return number, (1.0 - self.lam) * number + self.lam * float((sums + partners * self.sorted).sum())


def profile_neighbours(
    similarity: sparse.csr_matrix, source: np.ndarray, lam: float, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (i, j), i < j, whose rows of d are within eps of each other in Euclidean distance.

    Rows i and j of d differ by (1 - lam) J_ij +- lam (s_i - s_j) in their own two columns, so a pair within eps has
    J_ij <= eps / (sqrt(2) (1 - lam)): the candidates are large entries of K, and only they are computed.
    """
    floor = 1.0 - math.sqrt((eps * eps + TOLERANCE) / 2.0) / (1.0 - lam) - TOLERANCE
    if floor <= 0.0:
        return _blocked_pairs(similarity, source, lam, eps, "profile")
    norms, sums = _norms_and_sums(similarity)
    matrix = kernels.triple(similarity)
    return _join(
        over_rows(
            lambda start, stop: kernels.profile_pairs(
                *matrix, norms, sums, source, lam, floor, eps * eps + TOLERANCE, start, stop
            ),
            similarity.shape[0],
            _CHUNK,
        )
    )


def jaccard_neighbours(
    similarity: sparse.csr_matrix, source: np.ndarray, lam: float, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (i, j), i < j, with d_ij <= eps."""
    if (1.0 - lam) + lam * np.partition(source, 1)[:2].sum() <= eps + TOLERANCE:
        # pairs that K doesn't hold are within eps, too
        return _blocked_pairs(similarity, source, lam, eps, "jaccard")

    def rows(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        block = similarity[start:stop].tocoo()
        upper = block.col > block.row + start
        i, j = block.row[upper] + np.int32(start), block.col[upper]
        distances = (1.0 - lam) * (1.0 - block.data[upper]) + lam * (source[i] + source[j])
        within = distances <= eps + TOLERANCE
        return i[within], j[within]

    return _join(over_rows(rows, similarity.shape[0], _CHUNK))


def _blocked_pairs(
    similarity: sparse.csr_matrix, source: np.ndarray, lam: float, eps: float, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """Either metric when eps is so large that pairs outside K can be within it: whole rows, in blocks."""
    count = similarity.shape[0]
    (norms, sums), transposed = _norms_and_sums(similarity), similarity.T

    def rows(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        block = similarity[start:stop]
        if metric == "jaccard":
            values = (1.0 - lam) * (1.0 - block.toarray()) + lam * (source[start:stop, None] + source)
            limit = eps + TOLERANCE
        else:
            gap = source[start:stop, None] - source
            products = (block @ transposed).toarray()
            values = (1.0 - lam) ** 2 * (norms[start:stop, None] + norms - 2.0 * products)
            values += (
                2.0 * lam * (1.0 - lam) * gap * (sums - sums[start:stop, None]) + (lam * gap) ** 2 * count
            )
            limit = eps * eps + TOLERANCE
        i, j = np.nonzero(values <= limit)
        later = j > i + start
        return (i[later] + start).astype(np.int32), j[later].astype(np.int32)

    return _join(over_rows(rows, count, _CHUNK))


def _norms_and_sums(similarity: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """||K_i||^2 and sum_j K_ij of every row."""
    indptr, _, data = kernels.triple(similarity)
    norms, sums = np.empty(similarity.shape[0]), np.empty(similarity.shape[0])
    over_rows(
        lambda start, stop: kernels.row_norms(indptr, data, start, stop, norms, sums), len(norms), _CHUNK
    )
    return norms, sums


def _join(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
