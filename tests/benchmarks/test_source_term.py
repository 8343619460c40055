"""The measurement of the source term: its table at a small size, and features that are what it says."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import cluster_metric, source_term
from clustering.pseudo_labels import cluster


def test_a_row_for_each_kind_of_source(monkeypatch):
    monkeypatch.setattr(source_term, "SEEDS", (0,))
    rows = source_term.measure(200, 0.3, 0.051)
    assert [row["source"] for row in rows] == ["none", "same model", "another model"]
    images = source_term.features(200, 0.3, 0, source_term.model(0))
    plain = cluster(images, None)
    assert (rows[0]["noise %"], rows[0]["clusters"]) == (plain.n_noise / 2, plain.n_clusters)
    assert len({row["eps"] for row in rows}) == 3


def test_a_row_for_each_metric(monkeypatch):
    monkeypatch.setattr(cluster_metric, "SEEDS", (0,))
    rows = cluster_metric.measure(200, 0.3)
    images = source_term.features(200, 0.3, 0, source_term.model(0))
    for row, (metric, eps) in zip(rows, (("profile", "auto"), ("jaccard", 0.6)), strict=True):
        found = cluster(images, metric=metric, eps=eps)
        assert (row["metric"], row["noise %"], row["clusters"]) == (
            metric,
            found.n_noise / 2,
            found.n_clusters,
        )
        assert row["ARI by seed"] == f"{row['ARI']:.3f}"


def test_features_are_two_halves_of_length_one():
    features = source_term.features(40, 1.0, 3, source_term.model(3))
    assert features.shape == (40, 512)
    for half in (features[:, :256], features[:, 256:]):
        assert np.linalg.norm(half, axis=1) == pytest.approx(1.0)
