"""Exact nearest neighbours, with a definite answer to ties.

The distance of two samples is the squared Euclidean distance in float64, summed in feature order
(`kernels.squared_distances`). Every sample is its own nearest neighbour; the others follow by distance, then by
index. Blocked float32 products propose candidates, which are measured again in the definite way. A row whose answer
lies within the products' rounding error is searched again in float64, and where that can't tell either, every sample
within its rounding error is measured. So the answer depends on the features alone, not on blocks, threads or device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from clustering import kernels
from clustering.inputs import ClusteringError, as_features
from clustering.parallel import over_rows

_BLOCK_VALUES = 2**23  # a block of the distance matrix: 32 MiB in float32
_SPARE = 8  # candidates beyond k, so that only rows with true ties need a second look


@dataclass(frozen=True)
class Neighbours:
    """indices (N, k + 1) int64, the sample itself first; farthest (N,) float64, the largest squared distance."""

    indices: np.ndarray
    farthest: np.ndarray


def pair_distances(left: np.ndarray, right: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Squared distances (P,) of left[rows] and right[columns], in the definite way. left (N, F), right (M, F)."""
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    columns = np.ascontiguousarray(columns, dtype=np.int64)
    out = np.empty(len(rows))
    over_rows(
        lambda start, stop: kernels.squared_distances(left, right, rows, columns, start, stop, out),
        len(rows),
        2**16,
    )
    return out


def nearest_neighbours(features: np.ndarray, k: int, device: torch.device | str = "cpu") -> Neighbours:
    """Each sample and its k nearest others. features (N, F); device: where the products run (needs float64).

    Raises ClusteringError if there are not more than k samples.
    """
    features = as_features(features)
    count = len(features)
    if count <= k:
        raise ClusteringError(f"{count:,} samples are too few for {k} neighbours each.")
    indices, farthest = np.empty((count, k + 1), dtype=np.int64), np.zeros(count)
    indices[:, 0] = rows = np.arange(count)
    for dtype in (torch.float32, torch.float64):
        unsettled = [rows[:0]]
        for block, distances, slack in _distance_blocks(features, rows, features, dtype, device):
            distances[torch.arange(len(block)), torch.from_numpy(block)] = torch.inf
            indices[block, 1:], near_settled = _nearest_of_block(features, block, distances, k, slack)
            distances[torch.arange(len(block)), torch.from_numpy(block)] = -torch.inf
            farthest[block], far_settled = _farthest_of_block(features, block, distances, slack)
            unsettled.append(block[~(near_settled & far_settled)])
        rows = np.concatenate(unsettled)
    return Neighbours(indices, farthest)


def nearest_distances(
    features: np.ndarray, others: np.ndarray, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Squared distance (N,) from each row of `features` (N, F) to the nearest row of `others` (M, F).

    Raises ClusteringError if the widths differ or `others` is empty.
    """
    features, others = as_features(features), as_features(others, "source features")
    if features.shape[1] != others.shape[1] or len(others) == 0:
        raise ClusteringError(
            f"source features must be as wide as the features; got {others.shape} for {features.shape}."
        )
    rows = np.arange(len(features))
    blocks = _distance_blocks(features, rows, others, torch.float64, device)
    nearest = np.concatenate([distances.argmin(dim=1).cpu().numpy() for _, distances, _ in blocks])
    return pair_distances(features, others, rows, nearest)


def _distance_blocks(
    features: np.ndarray, rows: np.ndarray, others: np.ndarray, dtype: torch.dtype, device: torch.device | str
) -> Iterator[tuple[np.ndarray, torch.Tensor, float]]:
    """Yield (some of the rows, their squared distances to all others, bound of the rounding error).

    The distances (rows, M) are on the device, in a buffer that the next block overwrites. Centred on the common
    mean, so that features crowded far from the origin keep their digits in ||a||^2 + ||b||^2 - 2 a.b.
    """
    centre = others.mean(axis=0)
    right = torch.from_numpy(others - centre).to(device)
    right_squares = (right * right).sum(dim=1)
    largest = right_squares.max()
    right, right_squares = right.to(dtype).T, right_squares.to(dtype)
    height = max(1, min(len(rows), _BLOCK_VALUES // len(others)))
    buffer = torch.empty((height, len(others)), dtype=dtype, device=device)
    for start in range(0, len(rows), height):
        block = rows[start : start + height]
        left = torch.from_numpy(features[block] - centre).to(device)
        left_squares = (left * left).sum(dim=1, keepdim=True)
        # |fl(a.b) - a.b| <= F u |a| |b| (Higham, Accuracy and Stability, 3.1), and a few roundings beside it; u = eps / 2
        slack = (
            (2 * features.shape[1] + 32)
            * torch.finfo(dtype).eps
            * float(torch.maximum(largest, left_squares.max()))
        )
        distances = buffer[: len(block)]
        with _full_precision():
            torch.addmm(right_squares, left.to(dtype), right, alpha=-2.0, out=distances)
        distances += left_squares.to(dtype)
        yield block, distances, slack


@contextmanager
def _full_precision() -> Iterator[None]:
    """float32 products in float32: training may have allowed TF32 or bfloat16, whose errors the bound doesn't hold."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)


def _nearest_of_block(
    features: np.ndarray, rows: np.ndarray, distances: torch.Tensor, k: int, slack: float
) -> tuple[np.ndarray, np.ndarray]:
    """(the k nearest (rows, k) by definite distance, then index; whether they are sure (rows,)).

    In float64 they are sure in any case: unsure rows measure every sample that could be among them.
    """
    width = min(k + _SPARE, len(features) - 1)
    values, found = torch.topk(distances, width, dim=1, largest=False)
    found, worst = found.cpu().numpy(), values[:, -1].double().cpu().numpy()
    exact = pair_distances(features, features, np.repeat(rows, width), found.ravel()).reshape(found.shape)
    order = np.lexsort((found, exact), axis=1)[:, :k]
    nearest, kth = np.take_along_axis(found, order, 1), np.take_along_axis(exact, order, 1)[:, -1]
    # A sample that topk left out is at least worst - slack away: if the k-th is nearer, none is missing.
    settled = (kth < worst - slack) | (width == len(features) - 1)
    if distances.dtype == torch.float64:
        for row in np.flatnonzero(~settled):
            within = torch.nonzero(distances[row] <= kth[row] + slack).ravel().cpu().numpy()
            exact_row = pair_distances(features, features, np.full(len(within), rows[row]), within)
            nearest[row] = within[np.lexsort((within, exact_row))[:k]]
        settled[:] = True
    return nearest, settled


def _farthest_of_block(
    features: np.ndarray, rows: np.ndarray, distances: torch.Tensor, slack: float
) -> tuple[np.ndarray, np.ndarray]:
    """(largest definite distance (rows,), whether it is sure). Of a tie in float64, either will do."""
    largest = distances.argmax(dim=1)
    exact = pair_distances(features, features, rows, largest.cpu().numpy())
    if distances.dtype == torch.float64:
        return exact, np.ones(len(rows), dtype=bool)
    distances[torch.arange(len(rows)), largest] = -torch.inf
    second = distances.amax(dim=1).double().cpu().numpy()
    return exact, exact > second + slack
