"""The inner loops, compiled by numba. Each releases the GIL and works on a range of rows, so that
threads share the work (`clustering.parallel`). Signatures are explicit and compiled code is cached on disk:
a machine compiles once, at the first import.

Sparse matrices come as CSR triples with int64 row pointers, int32 columns and float64 values.
"""

from __future__ import annotations

import numba
import numpy as np
from scipy import sparse

# What is cached names its module, so a copy that `hubconf.py` loads under another name must neither write nor read it.
_OPTIONS = {"nogil": True, "cache": __name__ == "clustering.kernels", "boundscheck": False}


@numba.njit("i8(i8[::1], i4[::1], i8)", **_OPTIONS)
def _after(indptr, indices, i):
    """Where the columns beyond i begin in row i; the columns of a row are sorted."""
    return indptr[i] + np.searchsorted(indices[indptr[i] : indptr[i + 1]], i, side="right")


@numba.njit("i8(f8, f8[::1])", **_OPTIONS)
def _bin(value, edges):
    """The b with edges[b] <= value < edges[b + 1], -1 if there is none. The edges are evenly spaced but for rounding."""
    last = edges.shape[0] - 1
    if not edges[0] <= value < edges[last]:
        return -1
    b = min(int((value - edges[0]) / (edges[last] - edges[0]) * last), last - 1)
    if value < edges[b]:
        return b - 1
    if value >= edges[b + 1]:
        return b + 1
    return b


@numba.njit("void(f8[:,::1], f8[:,::1], i8[::1], i8[::1], i8, i8, f8[::1])", **_OPTIONS)
def squared_distances(left, right, rows, columns, start, stop, out):
    """out[p] = ||left[rows[p]] - right[columns[p]]||^2 for p in start..stop.

    Summed in feature order without fused operations: the one definite value that decides ties. Such a sum waits for
    every addition, so four pairs go side by side: the same values, three times as fast.
    """
    width = left.shape[1]
    whole = start + (stop - start) // 4 * 4
    for p in range(start, whole, 4):
        a, b, c, d = left[rows[p]], left[rows[p + 1]], left[rows[p + 2]], left[rows[p + 3]]
        e, f, g, h = right[columns[p]], right[columns[p + 1]], right[columns[p + 2]], right[columns[p + 3]]
        s, t, u, v = 0.0, 0.0, 0.0, 0.0
        for i in range(width):
            s += (a[i] - e[i]) * (a[i] - e[i])
            t += (b[i] - f[i]) * (b[i] - f[i])
            u += (c[i] - g[i]) * (c[i] - g[i])
            v += (d[i] - h[i]) * (d[i] - h[i])
        out[p], out[p + 1], out[p + 2], out[p + 3] = s, t, u, v
    for p in range(whole, stop):
        total = 0.0
        for i in range(width):
            difference = left[rows[p], i] - right[columns[p], i]
            total += difference * difference
        out[p] = total


@numba.njit("void(f4, i8, i8, f4[:,::1], i4[:,::1], f4[:,::1], i4[::1])", **_OPTIONS)
def _offer(distance, i, j, near, near_index, far, far_index):
    """Keep `distance` of sample i to j if it is among the smallest, near[i] (ascending), or two largest, far[i]."""
    last = near.shape[1] - 1
    if distance < near[i, last]:
        p = last
        while p > 0 and near[i, p - 1] > distance:
            near[i, p], near_index[i, p] = near[i, p - 1], near_index[i, p - 1]
            p -= 1
        near[i, p], near_index[i, p] = distance, j
    if distance > far[i, 0]:
        far[i, 1], far[i, 0], far_index[i] = far[i, 0], distance, j
    elif distance > far[i, 1]:
        far[i, 1] = distance


@numba.njit("void(f4[:,::1], f4[::1], i8, i8, i8, i8, f4[:,::1], i4[:,::1], f4[:,::1], i4[::1])", **_OPTIONS)
def scan_rows(products, squares, row, column, start, stop, near, near_index, far, far_index):
    """Offer a tile of products a.b, its first sample `row` by `column`, to the samples of its rows start..stop."""
    last = near.shape[1] - 1
    for i in range(row + start, row + stop):
        worst, second = near[i, last], far[i, 1]
        for c in range(products.shape[1]):
            distance = squares[i] + squares[column + c] - np.float32(2.0) * products[i - row, c]
            if (distance < worst or distance > second) and column + c != i:
                _offer(distance, i, column + c, near, near_index, far, far_index)
                worst, second = near[i, last], far[i, 1]


@numba.njit("void(f4[:,::1], f4[::1], i8, i8, i8, i8, f4[:,::1], i4[:,::1], f4[:,::1], i4[::1])", **_OPTIONS)
def scan_columns(products, squares, row, column, start, stop, near, near_index, far, far_index):
    """Offer a tile of products to the samples of its columns start..stop; rows and columns have none in common."""
    last = near.shape[1] - 1
    worst, second = (
        near[column + start : column + stop, last].copy(),
        far[column + start : column + stop, 1].copy(),
    )
    for r in range(products.shape[0]):
        for c in range(stop - start):
            i = column + start + c
            distance = squares[i] + squares[row + r] - np.float32(2.0) * products[r, start + c]
            if distance < worst[c] or distance > second[c]:
                _offer(distance, i, row + r, near, near_index, far, far_index)
                worst[c], second[c] = near[i, last], far[i, 1]


@numba.njit("void(i8[::1], i4[::1], i8[::1], i4[::1], i8, i8, i8[::1])", **_OPTIONS)
def similarity_lengths(indptr, indices, t_indptr, t_indices, start, stop, lengths):
    """lengths[i] = number of rows of V that share a column with row i, for i in start..stop.

    V by rows and, transposed, by columns. Counting first lets the result be allocated once, at its size.
    """
    seen = np.full(indptr.shape[0] - 1, -1, dtype=np.int64)
    for i in range(start, stop):
        found = 0
        for p in range(indptr[i], indptr[i + 1]):
            for q in range(t_indptr[indices[p]], t_indptr[indices[p] + 1]):
                j = t_indices[q]
                found += seen[j] != i
                seen[j] = i
        lengths[i] = found


@numba.njit(
    "void(i8[::1], i4[::1], f8[::1], i8[::1], i4[::1], f8[::1], i8[::1], i4[::1], f8[::1], i8, i8)",
    **_OPTIONS,
)
def similarity_rows(
    indptr, indices, data, t_indptr, t_indices, t_data, out_indptr, columns, values, start, stop
):
    """Rows start..stop of K = m / (2 - m), m_ij = sum_k min(V_ik, V_jk), 1 on the diagonal, into CSR arrays.

    Columns come out sorted, and since all walks go up the columns of V, K_ij and K_ji are the same bit for bit.
    """
    count = indptr.shape[0] - 1
    overlap = np.zeros(count, dtype=np.float64)
    row_columns = np.empty(count + 1, dtype=np.int32)
    row_values = np.empty(count + 1, dtype=np.float64)
    for i in range(start, stop):
        for p in range(indptr[i], indptr[i + 1]):
            weight = data[p]
            for q in range(t_indptr[indices[p]], t_indptr[indices[p] + 1]):
                overlap[t_indices[q]] += min(weight, t_data[q])
        overlap[i] = 1.0  # a row sum of V, but for rounding
        filled = 0
        for j in range(count):  # without a branch: the zeros fall as they like, a guess would miss
            row_columns[filled] = j
            row_values[filled] = overlap[j]
            filled += overlap[j] > 0.0
        overlap[:] = 0.0
        for p in range(filled):
            columns[out_indptr[i] + p] = row_columns[p]
            values[out_indptr[i] + p] = row_values[p] / (2.0 - row_values[p])


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
        scattered = False
        for p in range(_after(indptr, indices, i), indptr[i + 1]):
            if data[p] < floor:
                continue
            j = indices[p]
            if not scattered:
                for q in range(indptr[i], indptr[i + 1]):
                    row[indices[q]] = data[q]
                scattered = True
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
        if scattered:
            for p in range(indptr[i], indptr[i + 1]):
                row[indices[p]] = 0.0
    return rows[:filled].copy(), columns[:filled].copy()


@numba.njit("void(i8[::1], f8[::1], i8, i8, f8[::1], f8[::1])", **_OPTIONS)
def row_norms(indptr, data, start, stop, norms, sums):
    """norms[i] = ||K_i||^2 and sums[i] = sum_j K_ij for i in start..stop."""
    for i in range(start, stop):
        norm, total = 0.0, 0.0
        for p in range(indptr[i], indptr[i + 1]):
            norm += data[p] * data[p]
            total += data[p]
        norms[i], sums[i] = norm, total


@numba.njit(
    "void(i8[::1], i4[::1], f8[::1], f8[::1], f8, f8, f8[::1], i8, i8, i8[::1], f8[::1])",
    **_OPTIONS,
)
def distance_histogram(indptr, indices, data, source, lam, zero, edges, start, stop, numbers, totals):
    """What the stored pairs i < j, i in start..stop, change in a histogram of all d_ij with the given edges.

    numbers and totals (bins,), sums of values: a stored pair leaves the bin of its base value, (1 - lam) +
    lam (s_i + s_j), and enters that of d_ij unless d_ij <= zero. Bins are closed below and open above.
    """
    for i in range(start, stop):
        for p in range(_after(indptr, indices, i), indptr[i + 1]):
            base = (1.0 - lam) + lam * (source[i] + source[indices[p]])
            b = _bin(base, edges)
            if b >= 0:
                numbers[b] -= 1
                totals[b] -= base
            distance = base - (1.0 - lam) * data[p]
            if distance > zero:
                b = _bin(distance, edges)
                if b >= 0:
                    numbers[b] += 1
                    totals[b] += distance


def triple(matrix: sparse.csr_matrix | sparse.csc_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pointers, indices, values) in the types that the kernels take."""
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32, copy=False), matrix.data
