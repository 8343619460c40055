"""An index of a model that compares features alone: no tokens, no re-ranking, and the evaluation's ranking."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.views import gallery, queries
from engine import checkpoints
from engine.building import pixels_of
from engine.feeds import ImageFeed
from models import build_model
from models.backbones.resnet_lstm.words import Words
from retrieval.evaluate import evaluate
from serving.faiss_store import TOKENS
from serving.opening import open_searcher
from tests.serving.commands import CPU, run

pytestmark = pytest.mark.integration
IMAGE_SIZE = (96, 32)


@pytest.fixture(scope="module")
def checkpoint(demo, tmp_path_factory):
    """A SSAN with random weights, and statistics of the gallery."""
    directory = tmp_path_factory.mktemp("ssan")
    captions, _ = queries(demo.records)
    words = Words.train(captions, directory, 1000)
    torch.manual_seed(0)
    model = build_model("ssan", size="tiny", image_size=IMAGE_SIZE, tokenizer=words)
    feed = feed_of(demo, model)
    with torch.no_grad():
        for images in feed.batches(16, CPU.device):
            model.train().encode_images(images)
    checkpoints.save(directory / "best.pth", checkpoints.describe(model, "ssan", "tiny"))
    return directory / "best.pth"


def feed_of(demo, model) -> ImageFeed:
    return ImageFeed(
        [demo.dataset.path(record) for record in demo.records], IMAGE_SIZE, None, pixels=pixels_of(model)
    )


@pytest.fixture(scope="module")
def index(demo, checkpoint, tmp_path_factory):
    directory = tmp_path_factory.mktemp("index") / "ssan"
    assert run("index", "--images", demo.crops, "--checkpoint", checkpoint, "--out", directory).code == 0
    return directory


def test_every_query_ranks_as_in_the_evaluation(demo, checkpoint, index):
    model, _ = checkpoints.load_retrieval_model(checkpoint)
    images, gallery_ids = gallery(demo.records)
    captions, query_ids = queries(demo.records)
    batches = feed_of(demo, model).batches(7, CPU.device)
    ranking = evaluate(model, batches, captions, query_ids, gallery_ids, k_test=8).cosine
    searcher = open_searcher(index, CPU)
    for number, caption in enumerate(captions[:12]):
        hits = searcher.by_sentence(caption, 10)
        np.testing.assert_allclose([hit.score for hit in hits], ranking.scores[number], atol=1e-5)
        assert (
            hits[0].image == images[ranking.indices[number, 0]] or np.ptp(ranking.scores[number, :2]) < 1e-5
        )


def test_no_tokens_are_kept_and_re_ranking_is_refused(index, messages):
    assert not (index / TOKENS).exists()
    assert run("query", "--index", index, "a man in a red jacket", "--rerank", "8").code == 1
    assert "can't re-rank" in messages[-1]
    assert (
        run("query", "--index", index, "a man in a red jacket", "--json").json()["hits"][0]["reranked"]
        is False
    )


def test_an_update_and_more_like_this_need_no_tokens(demo, crops, checkpoint, tmp_path):
    arguments = ("index", "--images", crops, "--checkpoint", checkpoint, "--out", tmp_path / "index")
    assert run(*arguments).code == 0
    first = sorted(crops.rglob("*.jpg"))[0]
    first.unlink()
    assert "1 removed" in run(*arguments).output
    searcher = open_searcher(tmp_path / "index", CPU)
    hit = searcher.by_sentence("a woman in a blue dress", 1)[0]
    assert hit.row not in {other.row for other in searcher.like(hit, 5)}


def test_the_page_has_no_switch_for_re_ranking(index):
    page = pytest.importorskip("serving.page")
    blocks = page.make_page(open_searcher(index, CPU))
    switches = {
        block.elem_id: block.visible for block in blocks.blocks.values() if getattr(block, "elem_id", None)
    }
    assert switches["rerank"] is False
    assert switches["search"] is not False
