"""Source term, automatic eps and pairs within eps against full matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from clustering.distances import automatic_eps, jaccard_neighbours, profile_neighbours, source_term


def random_similarity(random, count, density):
    upper = np.triu(random.random((count, count)) * (random.random((count, count)) < density), 1)
    return sparse.csr_matrix(upper + upper.T + np.eye(count))


def full_distance(similarity, term, lam):
    return (1 - lam) * (1 - similarity.toarray()) + lam * (term[:, None] + term)


def full_eps(distance, ratio):
    values = distance[np.triu_indices(len(distance), 1)]
    values = np.sort(values[values > 1e-9])
    return values[: max(1, int(np.around(ratio * len(values))))].mean()


def as_set(pairs):
    return set(zip(*(side.tolist() for side in pairs), strict=True))


def loop_pairs(table, limit):
    return {(i, j) for i in range(len(table)) for j in range(i + 1, len(table)) if table[i, j] <= limit}


def profile_table(distance):
    return np.sqrt(((distance[:, None] - distance[None]) ** 2).sum(axis=2))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    count=st.integers(3, 60),
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    lam=st.sampled_from([0.0, 0.1, 0.6]),
    ratio=st.sampled_from([1e-6, 0.01, 0.051, 0.5, 1.0]),
    levels=st.sampled_from([1, 2, 1000]),
)
def test_eps_is_the_mean_of_the_smallest(seed, count, density, lam, ratio, levels):
    random = np.random.default_rng(seed)
    similarity = random_similarity(random, count, density)
    term = random.integers(0, levels + 1, count) / levels
    expected = full_eps(full_distance(similarity, term, lam), ratio)
    assert automatic_eps(similarity, term, lam, ratio) == pytest.approx(expected, abs=1e-12)


def test_eps_passes_over_distances_of_zero():
    similarity = sparse.csr_matrix(np.array([[1, 1, 0.5], [1, 1, 0.25], [0.5, 0.25, 1]]))
    assert automatic_eps(similarity, np.zeros(3), 0.0, 1.0) == pytest.approx((0.5 + 0.75) / 2)
    assert automatic_eps(sparse.csr_matrix(np.ones((3, 3))), np.zeros(3), 0.0, 0.5) == 0.0


# eps of 0.9 leaves only large entries of K, 1.6 lets pairs in that K does not hold.
@pytest.mark.parametrize("eps", [0.0, 0.9, 1.6])
@pytest.mark.parametrize("lam", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_pairs_within_eps(seed, lam, eps):
    random = np.random.default_rng(seed)
    term = random.random(40) if lam else np.zeros(40)
    blocks = np.kron(np.eye(8), np.ones((5, 5)))  # groups alike enough to be neighbours by profile, too
    similarity = sparse.csr_matrix(np.maximum(0.8 * blocks, random_similarity(random, 40, 0.05).toarray()))
    distance = full_distance(similarity, term, lam)
    assert as_set(profile_neighbours(similarity, term, lam, eps)) == loop_pairs(profile_table(distance), eps)
    assert as_set(jaccard_neighbours(similarity, term, lam, eps)) == loop_pairs(distance, eps)


def test_a_distance_equal_to_eps_is_within():
    similarity = sparse.csr_matrix(np.array([[1, 0.7], [0.7, 1]]))
    eps = float(np.sqrt(2) * (1 - 0.7))
    assert as_set(profile_neighbours(similarity, np.zeros(2), 0.0, eps)) == {(0, 1)}
    assert as_set(jaccard_neighbours(similarity, np.zeros(2), 0.0, 1 - 0.7)) == {(0, 1)}


def test_source_term_is_scaled_to_its_maximum(make_features):
    features, source = make_features(40, 5).astype(float), make_features(9, 5, seed=1).astype(float)
    raw = np.array([min(1 - np.exp(-((f - s) ** 2).sum()) for s in source) for f in features])
    np.testing.assert_allclose(source_term(features, source), raw / raw.max(), rtol=1e-12)
    np.testing.assert_array_equal(source_term(features, features), np.zeros(40))
