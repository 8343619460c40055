"""Index, query and evaluation are three ways to one ranking."""

from __future__ import annotations

import numpy as np
import pytest

from data.views import gallery, queries
from engine import checkpoints
from engine.feeds import ImageFeed
from retrieval.evaluate import evaluate
from serving.opening import open_searcher
from tests.serving.commands import CPU, run

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def index(demo, tmp_path_factory):
    directory = tmp_path_factory.mktemp("index") / "demo"
    assert run("index", "--images", demo.crops, "--checkpoint", demo.checkpoint, "--out", directory).code == 0
    return directory


def evaluated(demo, k_test):
    """The evaluation of the test split, batched as stage 5 does it."""
    model, content = checkpoints.load_retrieval_model(demo.checkpoint)
    images, gallery_ids = gallery(demo.records)
    captions, query_ids = queries(demo.records)
    feed = ImageFeed(
        [demo.dataset.path(record) for record in demo.records], tuple(content["image_size"]), None
    )
    result = evaluate(model, feed.batches(7, CPU.device), captions, query_ids, gallery_ids, k_test=k_test)
    return images, captions, query_ids, gallery_ids, result


def agree(found, scores, images, expected, expected_scores):
    """The same images in the same order; two that score alike to 1e-5 may have changed places."""
    np.testing.assert_allclose(scores, expected_scores, atol=2e-5)
    for place, image in enumerate(found):
        same = np.abs(expected_scores - expected_scores[place]) < 4e-5
        assert image in {images[index] for index in expected[same]}


@pytest.mark.parametrize("k_test", [0, 12])
def test_every_query_ranks_as_in_the_evaluation(demo, index, k_test):
    images, captions, _, _, result = evaluated(demo, k_test)
    searcher = open_searcher(index, CPU)
    ranking = result.best
    for number, caption in enumerate(captions):
        hits = searcher.by_sentence(caption, 10, k_test)
        assert len({hit.image for hit in hits}) == 10
        agree(
            [hit.image for hit in hits],
            np.array([hit.score for hit in hits]),
            images,
            ranking.indices[number],
            ranking.scores[number],
        )


def test_the_model_has_learnt_something_to_rank(demo):
    assert evaluated(demo, 0)[-1].itc["r1"] > 50
