"""Pseudo labels against the dense procedure: the same labels, core samples and eps."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import DBSCAN

from benchmarks.dense_pseudo_labels import dense_cluster
from clustering.pseudo_labels import cluster, dbscan


def check(features, source=None, **options):
    found, expected = cluster(features, source, **options), dense_cluster(features, source, **options)
    assert found.eps == pytest.approx(expected.eps, abs=1e-9)
    np.testing.assert_array_equal(found.core, expected.core)
    np.testing.assert_array_equal(
        found.labels, expected.labels
    )  # both number clusters by their first core sample
    assert found.labels.dtype == np.int64
    assert found.n_clusters == len(set(found.labels.tolist()) - {-1})
    assert found.n_noise == (found.labels == -1).sum()
    return found


@pytest.mark.parametrize("options", [{}, {"metric": "jaccard", "eps": 0.6}, {"metric": "jaccard"}])
@pytest.mark.parametrize("with_source", [False, True])
@pytest.mark.parametrize("spread", [None, 0.3, 0.9])
@pytest.mark.parametrize("dimension", [8, 24, 128])
def test_equals_the_dense_version(make_features, dimension, spread, with_source, options):
    source = make_features(40, dimension, seed=9) if with_source else None
    check(make_features(240, dimension, spread), source, **options)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("dimension", "spread", "with_source", "options"),
    [(8, None, False, {"metric": "jaccard", "eps": 0.6}), (24, 0.6, True, {}), (512, 0.9, False, {})],
)
def test_equals_the_dense_version_at_two_thousand(make_features, dimension, spread, with_source, options):
    source = make_features(100, dimension, width=64, seed=9) if with_source else None
    check(make_features(2000, dimension, spread, width=64), source, **options)


@pytest.mark.parametrize("options", [{}, {"metric": "jaccard", "eps": 0.6}, {"metric": "jaccard"}, {"k2": 1}])
@pytest.mark.parametrize("with_source", [False, True])
def test_ties_equal_the_dense_version(tied_features, with_source, options):
    check(tied_features, tied_features[:7] + np.float32(0.125) if with_source else None, k1=10, **options)


@pytest.mark.parametrize(
    "options", [{"ratio": 0.01}, {"ratio": 0.5}, {"lam": 0.5}, {"min_samples": 1}, {"eps": 2.0}, {"eps": 0.0}]
)
def test_options_equal_the_dense_version(make_features, options):
    check(make_features(150, 8, 0.6), make_features(20, 8, seed=9), **options)


def test_finds_clusters_that_are_there():
    truth = np.arange(720) % 60  # fewer of the pairs than `ratio` lie inside a cluster
    features = np.eye(60)[truth] + 0.05 * np.random.default_rng(0).standard_normal((720, 60))
    np.testing.assert_array_equal(cluster(features).labels, truth)


def test_runs_repeat_bit_for_bit(make_features, monkeypatch):
    features = make_features(600, 12, 0.7)
    first = cluster(features)
    monkeypatch.setattr("clustering.parallel.torch.get_num_threads", lambda: 3)
    second = cluster(features)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.eps == pytest.approx(second.eps, abs=1e-14)


def test_eps_of_an_earlier_round_is_kept(make_features):
    features = make_features(240, 24, 0.3)
    automatic = cluster(features)
    np.testing.assert_array_equal(cluster(features, eps=automatic.eps).labels, automatic.labels)


@pytest.mark.parametrize("seed", range(20))
def test_dbscan_equals_scikit_learn(seed):
    random = np.random.default_rng(seed)
    count = 50
    graph = np.triu(random.random((count, count)) < 0.05, 1)
    labels, core = dbscan(count, *np.nonzero(graph), min_samples=4)
    distance = 1.0 - (graph | graph.T)
    np.fill_diagonal(distance, 0)
    model = DBSCAN(eps=0.5, min_samples=4, metric="precomputed").fit(distance)
    np.testing.assert_array_equal(labels, model.labels_)
    assert np.flatnonzero(core).tolist() == model.core_sample_indices_.tolist()


def test_pair_share_counts_the_pairs_within_eps(make_features):
    features = make_features(60, 4, 0.3)
    found = cluster(features, metric="jaccard", eps=0.6)
    distance = 1 - dense_cluster(features, metric="jaccard", eps=0.6).similarity
    assert found.pair_share == pytest.approx((distance[np.triu_indices(60, 1)] <= 0.6).mean())


def test_too_few_samples_are_refused(make_features):
    with pytest.raises(ValueError, match="20 samples are too few to cluster: k1 = 20 needs at least 21"):
        cluster(make_features(20, 4))
    assert len(cluster(make_features(21, 4)).labels) == 21


def test_features_that_are_not_finite_are_refused(make_features):
    features = make_features(40, 4)
    features[17, 2] = np.nan
    with pytest.raises(
        ValueError, match=r"1 of 40 rows of features hold NaN or infinity \(the first is row 17\)"
    ):
        cluster(features)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metric": "cosine"}, "no metric 'cosine'"),
        ({"eps": "wide"}, 'must be "auto"'),
        ({"eps": float("nan")}, 'must be "auto"'),
        ({"ratio": 5.1}, "ratio must be"),
        ({"lam": 1.0}, "lam must be"),
        ({"min_samples": 0}, "min_samples must be"),
        ({"k2": 30}, "don't fit"),
    ],
)
def test_options_out_of_range_are_refused(make_features, options, words):
    with pytest.raises(ValueError, match=words):
        cluster(make_features(40, 4), **options)
