"""Exact nearest neighbours, with a definite answer to ties.

The distance of two samples is the squared Euclidean distance in float64, summed in feature order
(`kernels.squared_distances`). Every sample is its own nearest neighbour; the others follow by distance, then by
index. Tiles of float32 products, each used for its rows and its columns, propose candidates, which are measured again
in the definite way. Where the products' rounding error leaves a row open, float64 products find every sample that could
be meant, and those are measured. So the answer depends on the features alone, not on tiles, threads or device.
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

_TILE = 2048  # a side of a tile of products: 16 MiB in float32
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
    rows = np.arange(count)
    near, far, floor, ceiling = _propose(features, min(k + _SPARE, count - 1), device)
    exact = pair_distances(features, features, np.repeat(rows, near.shape[1]), near.ravel()).reshape(
        near.shape
    )
    order = np.lexsort((near, exact), axis=1)[:, :k]
    nearest, kth = np.take_along_axis(near, order, 1), np.take_along_axis(exact, order, 1)[:, -1]
    farthest = pair_distances(features, features, rows, far)
    # Whatever wasn't proposed is at least `floor` and at most `ceiling` away: does that leave the answer open?
    open_rows = np.flatnonzero(((kth >= floor) & (near.shape[1] < count - 1)) | (farthest <= ceiling))
    _settle(features, open_rows, nearest, kth, farthest, device)
    return Neighbours(np.column_stack([rows, nearest]), farthest)


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
    blocks = _distance_blocks(features, rows, others, device)
    nearest = np.concatenate([distances.argmin(dim=1).cpu().numpy() for _, distances, _ in blocks])
    return pair_distances(features, others, rows, nearest)


def _propose(
    features: np.ndarray, width: int, device: torch.device | str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(the `width` samples that seem nearest (N, width), the one that seems farthest (N,), lower bound (N,) of the
    distances of all samples but the first, upper bound (N,) of those of all but the second)."""
    centred = torch.from_numpy(features - features.mean(axis=0)).to(device)
    squares = (centred * centred).sum(dim=1)
    largest = float(squares.max()) or 1.0  # brought to 1, lest float32 overflows
    centred, squares = (centred / largest**0.5).float(), (squares / largest).float().cpu().numpy()
    slack = _rounding(features.shape[1], torch.float32)
    count = len(features)
    near, near_index = np.full((count, width), np.inf, np.float32), np.zeros((count, width), np.int32)
    far, far_index = np.full((count, 2), -np.inf, np.float32), np.zeros(count, np.int32)
    state = near, near_index, far, far_index
    for row in range(0, count, _TILE):
        for column in range(row, count, _TILE):
            with _full_precision(centred.device):
                tile = torch.mm(centred[row : row + _TILE], centred[column : column + _TILE].T).cpu().numpy()
            _scan(kernels.scan_rows, tile.shape[0], tile, squares, row, column, state)
            if column > row:
                _scan(kernels.scan_columns, tile.shape[1], tile, squares, row, column, state)
    floor, ceiling = near[:, -1].astype(np.float64) - slack, far[:, 1].astype(np.float64) + slack
    return near_index, far_index, floor * largest, ceiling * largest


def _scan(
    kernel, length: int, tile: np.ndarray, squares: np.ndarray, row: int, column: int, state: tuple
) -> None:
    over_rows(lambda start, stop: kernel(tile, squares, row, column, start, stop, *state), length, _TILE // 8)


def _settle(
    features: np.ndarray,
    rows: np.ndarray,
    nearest: np.ndarray,
    kth: np.ndarray,
    farthest: np.ndarray,
    device: torch.device | str,
) -> None:
    """Correct `nearest` (N, k) and `farthest` (N,) of some rows in place, by float64 products.

    kth (N,): the distances of the k-th of `nearest`, so of samples at least as far as the k-th nearest.
    """
    for block, distances, slack in _distance_blocks(features, rows, features, device):
        farthest[block] = pair_distances(features, features, block, distances.argmax(dim=1).cpu().numpy())
        for row, approximate in zip(block, distances, strict=True):
            within = torch.nonzero(approximate <= kth[row] + slack).ravel().cpu().numpy()
            within = within[within != row]
            exact = pair_distances(features, features, np.full(len(within), row), within)
            nearest[row] = within[np.lexsort((within, exact))[: nearest.shape[1]]]


def _distance_blocks(
    features: np.ndarray, rows: np.ndarray, others: np.ndarray, device: torch.device | str
) -> Iterator[tuple[np.ndarray, torch.Tensor, float]]:
    """Yield (some of the rows, their squared distances (rows, M) to all others, bound of the rounding error).

    Centred on the common mean, so that features crowded far from the origin keep their digits in
    ||a||^2 + ||b||^2 - 2 a.b.
    """
    centre = others.mean(axis=0)
    right = torch.from_numpy(others - centre).to(device)
    right_squares = (right * right).sum(dim=1)
    height = max(1, _TILE * _TILE // len(others))
    for start in range(0, len(rows), height):
        block = rows[start : start + height]
        left = torch.from_numpy(features[block] - centre).to(device)
        left_squares = (left * left).sum(dim=1)
        largest = float(torch.maximum(right_squares.max(), left_squares.max()))
        distances = torch.addmm(right_squares, left, right.T, alpha=-2.0) + left_squares[:, None]
        yield block, distances, _rounding(features.shape[1], torch.float64) * largest


def _rounding(width: int, dtype: torch.dtype) -> float:
    """Bound of the error of a squared distance by products, relative to the largest squared norm.

    |fl(a.b) - a.b| <= F u |a| |b| (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), twice that in
    the distance, u being half the dtype's eps; the 16 covers the squares, the additions and the centring.
    """
    return (width + 16) * torch.finfo(dtype).eps


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """float32 products in float32: training may have allowed TF32 or bfloat16, whose errors the bound doesn't hold."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
