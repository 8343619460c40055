"""Exact nearest neighbours, with a definite answer to ties.

The distance of two samples is the squared Euclidean distance in float64, summed in feature order
(`kernels.squared_distances`). Every sample is its own nearest neighbour; the others follow by distance, then by
index. Candidates come from blocked matrix products, whose rounding differs with block and thread count; the few at
the boundary are measured again in the definite way, so the answer depends on the features alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from clustering import kernels
from clustering.inputs import ClusteringError, as_features
from clustering.parallel import over_rows

_BLOCK_VALUES = 2**24  # a block of the distance matrix: 128 MiB in float64
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
    if len(features) <= k:
        raise ClusteringError(f"{len(features):,} samples are too few for {k} neighbours each.")
    indices = np.empty((len(features), k + 1), dtype=np.int64)
    indices[:, 0] = np.arange(len(features))
    farthest = np.empty(len(features), dtype=np.int64)
    for start, distances, slack in _distance_blocks(features, features, device):
        rows = torch.arange(distances.shape[0], device=distances.device)
        stop = start + len(rows)
        farthest[start:stop] = distances.argmax(dim=1).cpu().numpy()
        distances[rows, rows + start] = torch.inf
        indices[start:stop, 1:] = _nearest_of_block(features, distances, start, k, slack)
    return Neighbours(indices, pair_distances(features, features, indices[:, 0], farthest))


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
    nearest = np.concatenate(
        [d.argmin(dim=1).cpu().numpy() for _, d, _ in _distance_blocks(features, others, device)]
    )
    return pair_distances(features, others, np.arange(len(features)), nearest)


def _distance_blocks(
    features: np.ndarray, others: np.ndarray, device: torch.device | str
) -> Iterator[tuple[int, torch.Tensor, float]]:
    """Yield (first row, squared distances (rows, M) on the device, bound of their rounding error).

    Centred on the common mean, so that features crowded far from the origin keep their digits in
    ||a||^2 + ||b||^2 - 2 a.b.
    """
    centre = others.mean(axis=0)
    left = torch.from_numpy(features - centre).to(device)
    right = left if others is features else torch.from_numpy(others - centre).to(device)
    left_squares, right_squares = (left * left).sum(dim=1), (right * right).sum(dim=1)
    scale = float(left_squares.max() + right_squares.max())
    slack = (4 * features.shape[1] + 64) * np.finfo(np.float64).eps * scale
    rows = max(1, _BLOCK_VALUES // len(others))
    for start in range(0, len(features), rows):
        block = torch.addmm(right_squares, left[start : start + rows], right.T, alpha=-2.0)
        block += left_squares[start : start + rows, None]
        yield start, block, slack


def _nearest_of_block(
    features: np.ndarray, distances: torch.Tensor, start: int, k: int, slack: float
) -> np.ndarray:
    """The k nearest (rows, k) of a block by definite distance, then index, from approximate `distances`."""
    width = min(k + _SPARE, len(features) - 1)
    values, found = torch.topk(distances, width, dim=1, largest=False)
    found, worst = found.cpu().numpy(), values[:, -1].cpu().numpy()
    rows = np.repeat(np.arange(start, start + len(found)), width)
    exact = pair_distances(features, features, rows, found.ravel()).reshape(found.shape)
    order = np.lexsort((found, exact), axis=1)[:, :k]
    nearest, kth = np.take_along_axis(found, order, 1), np.take_along_axis(exact, order, 1)[:, -1]
    if width == len(features) - 1:
        return nearest
    # A sample that topk left out is at least worst - slack away; rows where that isn't beyond the k-th may hide a tie.
    for row in np.flatnonzero(kth >= worst - slack):
        within = torch.nonzero(distances[row] <= kth[row] + slack).ravel().cpu().numpy()
        exact_row = pair_distances(features, features, np.full(len(within), start + row), within)
        nearest[row] = within[np.lexsort((within, exact_row))[:k]]
    return nearest
