"""What the room accepts: finite float arrays, one row per sample, enough of them."""

from __future__ import annotations

import numpy as np
import torch


class ClusteringError(ValueError):
    """Features, labels or options that can't be clustered; the message says what to change."""


def as_features(features: np.ndarray | torch.Tensor, name: str = "features") -> np.ndarray:
    """The features as a C-contiguous float64 array (N, F).

    Raises ClusteringError if the array isn't two-dimensional or holds NaN or infinity.
    """
    if isinstance(features, torch.Tensor):
        features = features.detach().cpu().numpy()
    array = np.ascontiguousarray(features, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ClusteringError(f"{name} must be a table, one row per sample; got the shape {array.shape}.")
    broken = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if broken.size:
        raise ClusteringError(
            f"{broken.size:,} of {len(array):,} rows of {name} hold NaN or infinity (the first is row {broken[0]:,}): "
            "the model that made them has diverged; go back to an earlier checkpoint or lower the learning rate."
        )
    return array


def check_neighbourhood(count: int, k1: int, k2: int) -> None:
    """Refuse neighbourhoods that `count` samples can't have.

    Raises ClusteringError if k1 or k2 is out of range or there are fewer than k1 + 1 samples.
    """
    if k1 < 1 or not 1 <= k2 <= k1 + 1:
        raise ClusteringError(
            f"k1 = {k1} and k2 = {k2} don't fit: k1 must be at least 1 and k2 in 1..k1 + 1."
        )
    if count < k1 + 1:
        raise ClusteringError(
            f"{count:,} samples are too few to cluster: k1 = {k1} needs at least {k1 + 1}; add images or lower k1."
        )
