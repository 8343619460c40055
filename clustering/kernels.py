"""The four inner loops, compiled by numba. Each releases the GIL and works on a range of rows, so that
threads share the work (`clustering.parallel`). Signatures are explicit and compiled code is cached on disk:
a machine compiles once, at the first import.

Sparse matrices come as CSR triples with int64 row pointers, int32 columns and float64 values.
"""

from __future__ import annotations

import numba
import numpy as np
from scipy import sparse

_OPTIONS = {"nogil": True, "cache": True, "boundscheck": False}


@numba.njit("void(f8[:,::1], f8[:,::1], i8[::1], i8[::1], i8, i8, f8[::1])", **_OPTIONS)
def squared_distances(left, right, rows, columns, start, stop, out):
    """out[p] = ||left[rows[p]] - right[columns[p]]||^2 for p in start..stop.

    Summed in feature order without fused operations: the one definite value that decides ties.
    """
    for p in range(start, stop):
        a = left[rows[p]]
        b = right[columns[p]]
        total = 0.0
        for f in range(a.shape[0]):
            difference = a[f] - b[f]
            total += difference * difference
        out[p] = total


@numba.njit(
    "Tuple((i8[::1], i4[::1], f8[::1]))(i8[::1], i4[::1], f8[::1], i8[::1], i4[::1], f8[::1], i8, i8, i8)",
    **_OPTIONS,
)
def similarity_rows(indptr, indices, data, t_indptr, t_indices, t_data, start, stop, capacity):
    """Rows start..stop of K = m / (2 - m), m_ij = sum_k min(V_ik, V_jk), as (row lengths, columns, values).

    V by rows and, transposed, by columns; `capacity` bounds the number of values. Columns come out sorted, and
    since both walks go up the columns of V, K_ij and K_ji are the same number bit for bit.
    """
    count = indptr.shape[0] - 1
    overlap = np.zeros(count, dtype=np.float64)
    lengths = np.empty(stop - start, dtype=np.int64)
    columns = np.empty(capacity, dtype=np.int32)
    values = np.empty(capacity, dtype=np.float64)
    filled = 0
    for i in range(start, stop):
        for p in range(indptr[i], indptr[i + 1]):
            weight = data[p]
            for q in range(t_indptr[indices[p]], t_indptr[indices[p] + 1]):
                overlap[t_indices[q]] += min(weight, t_data[q])
        before = filled
        for j in range(count):
            m = overlap[j]
            if m > 0.0:
                columns[filled] = j
                values[filled] = m / (2.0 - m)
                filled += 1
                overlap[j] = 0.0
        lengths[i - start] = filled - before
    return lengths, columns[:filled].copy(), values[:filled].copy()


@numba.njit(
    "Tuple((i4[::1], i4[::1]))(i8[::1], i4[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8, f8, f8, i8, i8)",
    **_OPTIONS,
)
def profile_pairs(indptr, indices, data, norms, sums, source, lam, floor, limit, start, stop):
    """Pairs i < j, i in start..stop, with K_ij >= floor whose squared profile distance is at most limit.

    norms, sums: ||K_i||^2 and sum_j K_ij; source: the s_i. Returns (i of every pair, j of every pair).
    """
    count = indptr.shape[0] - 1
    row = np.zeros(count, dtype=np.float64)
    rows = np.empty(indptr[stop] - indptr[start], dtype=np.int32)
    columns = np.empty(indptr[stop] - indptr[start], dtype=np.int32)
    filled = 0
    for i in range(start, stop):
        for p in range(indptr[i], indptr[i + 1]):
            row[indices[p]] = data[p]
        for p in range(indptr[i], indptr[i + 1]):
            j = indices[p]
            if j <= i or data[p] < floor:
                continue
            product = 0.0
            for q in range(indptr[j], indptr[j + 1]):
                product += data[q] * row[indices[q]]
            gap = source[i] - source[j]
            squared = (1.0 - lam) ** 2 * (norms[i] + norms[j] - 2.0 * product)
            squared += 2.0 * lam * (1.0 - lam) * gap * (sums[j] - sums[i]) + lam * lam * count * gap * gap
            if squared <= limit:
                rows[filled] = i
                columns[filled] = j
                filled += 1
        for p in range(indptr[i], indptr[i + 1]):
            row[indices[p]] = 0.0
    return rows[:filled].copy(), columns[:filled].copy()


def triple(matrix: sparse.csr_matrix | sparse.csc_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pointers, indices, values) in the types that the kernels take."""
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32, copy=False), matrix.data
