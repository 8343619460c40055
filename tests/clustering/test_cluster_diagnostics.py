"""Diagnosis and figure of clusterings that are fine, empty or collapsed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from clustering.diagnostics import diagnose, draw_clusters, principal_plane
from clustering.pseudo_labels import Clusters


def clusters(labels, eps=0.9, pair_share=0.01):
    labels = np.array(labels)
    return Clusters(labels, labels >= 0, eps, int(labels.max()) + 1, int((labels < 0).sum()), pair_share)


def test_a_good_clustering_has_no_warning():
    diagnosis = diagnose(clusters([0, 0, 1, 1, 1, 2, 2, -1]))
    assert diagnosis.sizes.tolist() == [3, 2, 2]
    assert diagnosis.noise_share == pytest.approx(1 / 8)
    assert diagnosis.usable
    assert diagnosis.warnings == ()
    assert (
        diagnosis.summary()
        == "3 clusters; sizes 2..3, median 2; noise 12.5%; eps 0.9000 covers 1.000% of the pairs"
    )


@pytest.mark.parametrize(
    ("labels", "words", "usable"),
    [
        ([-1] * 9, "Nothing clusters: all 9 samples", False),
        ([0] * 9, "Everything clusters together", False),
        ([0] * 8 + [1], "One cluster takes nearly everything", True),
        ([-1] * 18 + [0, 1], "90% of 20 samples are noise", True),
        ([-1] * 5 + [0] * 4, "a single cluster, of 4 samples", False),
    ],
)
def test_a_useless_clustering_is_said_with_advice(labels, words, usable):
    diagnosis = diagnose(clusters(labels))
    assert diagnosis.usable is usable
    (warning,) = diagnosis.warnings
    assert words in warning
    assert "cluster.ratio" in warning
    assert "clusters" in diagnosis.summary()


def test_principal_plane_keeps_a_plane(make_features):
    flat = np.random.default_rng(0).standard_normal((50, 2)) * [3, 1]
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((7, 7)))[0][:2]
    points, shares = principal_plane(flat @ turn)
    assert shares.sum() == pytest.approx(1)
    assert shares[0] > shares[1]
    between = np.linalg.norm(flat[:, None] - flat, axis=2)
    np.testing.assert_allclose(np.linalg.norm(points[:, None] - points, axis=2), between, atol=1e-9)


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, -1, 2, 2, 2], [-1] * 8, [0] * 8])
@pytest.mark.parametrize("width", [1, 5])
def test_figure_is_written(tmp_path, labels, width):
    path = tmp_path / "new" / "clusters.png"
    draw_clusters(clusters(labels), np.random.default_rng(0).standard_normal((8, width)), path)
    with Image.open(path) as image:
        assert image.size == (1440, 600)
