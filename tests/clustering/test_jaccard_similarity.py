"""The similarity against set loops and against the dense version."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.dense_pseudo_labels import dense_similarity
from clustering.neighbours import nearest_neighbours
from clustering.rerank import exact_similarity, jaccard_similarity, reciprocal_members


def loop_members(indices, k1):
    def near(i, k):
        return set(indices[i][: k + 1].tolist())

    def reciprocal(i, k):
        return {j for j in near(i, k) if i in near(j, k)}

    half = int(np.around(k1 / 2))
    members = []
    for i in range(len(indices)):
        own = reciprocal(i, k1)
        grown = set(own)
        for candidate in own:
            other = reciprocal(candidate, half)
            if len(other & own) > 2 / 3 * len(other) + 1e-9:
                grown |= other
        members.append(sorted(grown))
    return members


@pytest.mark.parametrize("k1", [1, 2, 5, 7, 20])
def test_reciprocal_members_follow_the_set_definition(make_features, k1):
    indices = nearest_neighbours(make_features(150, 3), k1).indices
    members = reciprocal_members(indices, k1)
    for i, expected in enumerate(loop_members(indices, k1)):
        assert members[i].indices.tolist() == expected


@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (20, 1), (7, 3), (1, 2), (30, 31)])
@pytest.mark.parametrize("spread", [None, 0.4])
def test_equals_the_dense_version(make_features, k1, k2, spread):
    features = make_features(180, 8, spread)
    similarity = exact_similarity(features.astype(np.float64), k1, k2)
    np.testing.assert_allclose(
        similarity.toarray(), dense_similarity(features.astype(np.float64), k1, k2), atol=1e-12
    )


def test_ties_equal_the_dense_version(tied_features):
    features = tied_features.astype(np.float64)
    np.testing.assert_allclose(
        exact_similarity(features, 10, 4).toarray(), dense_similarity(features, 10, 4), atol=1e-12
    )


def test_is_float32_csr_symmetric_with_ones_on_the_diagonal(make_features):
    similarity = jaccard_similarity(make_features(300, 12, 0.8))
    assert similarity.format == "csr"
    assert similarity.dtype == np.float32
    assert similarity.has_sorted_indices
    assert (similarity != similarity.T).nnz == 0
    assert (similarity.diagonal() == 1).all()
    assert 0 < similarity.data.min() <= similarity.data.max() <= 1 + 1e-6


def test_order_of_the_samples_does_not_matter(make_features):
    features = make_features(120, 10, 0.5)
    shuffle = np.random.default_rng(0).permutation(len(features))
    similarity, shuffled = jaccard_similarity(features), jaccard_similarity(features[shuffle])
    np.testing.assert_allclose(shuffled.toarray(), similarity[shuffle][:, shuffle].toarray(), atol=1e-6)


def test_samples_apart_share_nothing(make_features):
    features = np.concatenate([make_features(25, 4), 50 + make_features(25, 4, seed=1)])
    assert jaccard_similarity(features, k1=10)[:25, 25:].nnz == 0


def test_similarity_too_large_for_memory_is_explained(monkeypatch, make_features):
    monkeypatch.setattr("clustering.rerank.psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(ValueError, match=r"not zero for \d+% of the pairs"):
        jaccard_similarity(make_features(60, 4))
