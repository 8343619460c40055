"""Retrieval with the project's own backbone at tiny size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.backbones.blip.retrieval import BlipRetrieval
from models.backbones.blip.tokenizer import BlipTokenizer
from retrieval.encode import encode_gallery, encode_queries
from retrieval.evaluate import evaluate
from retrieval.itm import candidates, score_pairs


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    words = [
        f"{a}{b}"
        for a in ["red", "blue", "green", "dark", "light"]
        for b in ["coat", "hat", "bag", "shoe", "sock"]
    ]
    tokenizer = BlipTokenizer.train(words * 5, tmp_path_factory.mktemp("tokenizer"), vocab_size=300)
    torch.manual_seed(0)
    model = BlipRetrieval("tiny", (32, 16), tokenizer=tokenizer).eval()
    rng = np.random.default_rng(0)
    captions = [" ".join(rng.choice(words, rng.integers(1, 30))) for _ in range(20)]
    return model, captions, torch.randn(12, 3, 32, 16)


def test_scores_equal_a_loop_with_texts_padded_to_the_full_length(blip):
    model, captions, images = blip
    gallery = encode_gallery(model, images.split(5), 12)
    rng = np.random.default_rng(1)
    pairs = np.stack([rng.integers(0, 20, 90), rng.integers(0, 12, 90)], axis=1)
    scores = score_pairs(model, captions, gallery, pairs)
    texts = model.tokenizer([*captions, " ".join(["redcoat"] * 72)])  # the long one makes all 73 wide
    with torch.no_grad():
        for (q, g), score in zip(pairs, scores, strict=True):
            tokens = gallery.tokens.read(np.array([g])).float()
            hidden = model.cross_encode(texts[q : q + 1], tokens)
            assert float(model.itm_head(hidden[:, 0])[0, 1]) == pytest.approx(float(score), abs=1e-4)


def test_half_precision_tokens_change_scores_by_little(blip):
    model, captions, images = blip
    pairs = np.stack([np.arange(12), np.arange(12)], axis=1)
    half, single = (
        score_pairs(model, captions, encode_gallery(model, [images], 12, token_dtype=dtype), pairs)
        for dtype in (torch.float16, torch.float32)
    )
    np.testing.assert_allclose(half, single, atol=1e-3)


def test_evaluation_and_candidates_run_through(blip):
    model, captions, images = blip
    gallery = encode_gallery(model, [images], 12)
    features = encode_queries(model, captions)
    image_to_text, text_to_image = candidates(model, captions, gallery, features, 8, 5)
    assert image_to_text.shape == (12, 5)
    assert text_to_image.shape == (20, 5)
    found = evaluate(model, images.split(4), captions, np.arange(20) % 6, np.arange(12) % 6, k_test=4)
    assert found.itm["r10"] >= found.itm["r1"]
