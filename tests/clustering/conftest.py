"""Features to cluster, shared by the tests of this room."""

from __future__ import annotations

import numpy as np
import pytest


def make_features(count, dimension, spread=None, *, width=None, seed=0, per_cluster=12):
    """(count, width) unit vectors on a `dimension`-dimensional subspace: random, or in clusters `spread` wide."""
    random = np.random.default_rng(seed)
    if spread is None:
        points = random.standard_normal((count, dimension))
    else:
        centres = random.standard_normal((max(2, count // per_cluster), dimension))
        points = centres[np.arange(count) % len(centres)] + spread * random.standard_normal(
            (count, dimension)
        )
    points = points @ random.standard_normal((dimension, width or dimension))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def make_ties(kind, count=120):
    """Features whose nearest neighbours tie: a lattice, duplicates, nearly constant, constant."""
    random = np.random.default_rng(7)
    if kind == "lattice":
        return random.integers(0, 3, (count, 3)).astype(np.float32)
    if kind == "duplicates":
        return np.tile(make_features(count // 4, 6, seed=3), (4, 1))
    if kind == "few distinct":
        return make_features(5, 6, seed=3)[random.integers(0, 5, count)]
    if (
        kind == "nearly constant"
    ):  # what float32 leaves of a collapsed model's features: a few steps of rounding
        return (0.1 + 1e-8 * random.standard_normal((count, 6))).astype(np.float32)
    return np.full((count, 6), 0.3, dtype=np.float32)


@pytest.fixture(name="make_features")
def make_features_fixture():
    return make_features


@pytest.fixture(params=["lattice", "duplicates", "few distinct", "nearly constant", "constant"])
def tied_features(request):
    return make_ties(request.param)
