"""Nearest neighbours against loops that sum in feature order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clustering import neighbours
from clustering.neighbours import nearest_distances, nearest_neighbours, pair_distances


def loop_distance(a, b):
    total = 0.0
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        total += (x - y) * (x - y)
    return total


def loop_neighbours(features, k):
    features = features.astype(np.float64)
    table = [[loop_distance(a, b) for b in features] for a in features]
    order = [
        [i, *sorted((j for j in range(len(row)) if j != i), key=lambda j: (row[j], j))[:k]]
        for i, row in enumerate(table)
    ]
    return np.array(order), np.array([max(row) for row in table])


def check(features, k):
    indices, farthest = loop_neighbours(features, k)
    found = nearest_neighbours(features, k)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.farthest, farthest, rtol=1e-12)


def test_distances_are_summed_in_feature_order():
    random = np.random.default_rng(0)
    left, right = random.standard_normal((5, 37)), random.standard_normal((4, 37))
    rows, columns = np.repeat(np.arange(5), 4), np.tile(np.arange(4), 5)
    expected = [loop_distance(left[i], right[j]) for i, j in zip(rows, columns, strict=True)]
    np.testing.assert_array_equal(pair_distances(left, right, rows, columns), expected)


@pytest.mark.parametrize("dimension", [1, 2, 8, 64])
def test_random_features(make_features, dimension):
    check(make_features(80, dimension), 7)


def test_ties_go_by_index(tied_features):
    check(tied_features, 5)


def test_all_others_as_neighbours(tied_features):
    check(tied_features[:20], 19)


def test_features_crowded_far_from_the_origin():
    features = 1000.0 + 1e-5 * np.random.default_rng(0).standard_normal((60, 8))
    check(features, 6)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_features_of_any_scale(make_features, scale):
    check(scale * make_features(60, 8).astype(np.float64), 6)


def test_products_that_training_made_coarse_do_not_matter(make_features):
    features = make_features(100, 6)
    whole = nearest_neighbours(features, 9)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            np.testing.assert_array_equal(nearest_neighbours(features, 9).indices, whole.indices)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_blocks_and_threads_do_not_matter(make_features, monkeypatch):
    features = np.concatenate([make_features(150, 6), make_features(50, 6)])  # a quarter are duplicates
    whole = nearest_neighbours(features, 9).indices
    monkeypatch.setattr(neighbours, "_TILE", 48)
    monkeypatch.setattr("clustering.parallel.torch.get_num_threads", lambda: 3)
    np.testing.assert_array_equal(nearest_neighbours(features, 9).indices, whole)


def test_nearest_of_another_set(make_features):
    features, others = make_features(30, 4), make_features(11, 4, seed=1)
    expected = [min(loop_distance(a, b) for b in others.astype(float)) for a in features.astype(float)]
    np.testing.assert_allclose(nearest_distances(features, others), expected, rtol=1e-12)
    assert nearest_distances(features, features).max() == 0.0


def test_input_that_does_not_fit_is_refused(make_features):
    with pytest.raises(ValueError, match="too few for 20 neighbours"):
        nearest_neighbours(make_features(20, 4), 20)
    with pytest.raises(ValueError, match="as wide as the features"):
        nearest_distances(make_features(20, 4), make_features(20, 5))
