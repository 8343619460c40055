from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval import itm
from retrieval.encode import encode_gallery, encode_queries
from retrieval.itm import candidates, cosine, merged, rerank, score_pairs


@pytest.fixture
def gallery(tiny_model, tiny_images):
    return encode_gallery(tiny_model, tiny_images.split(7), 24)


def pair_by_pair(model, captions, gallery, pairs):
    """The definition: one caption, one image, one call."""
    model.eval()
    tokens = gallery.tokens.read(np.arange(len(gallery))).float()
    with torch.no_grad():
        logits = [model.match(model.tokenizer([captions[q]]), tokens[g : g + 1])[0, 1] for q, g in pairs]
    return np.array([float(logit) for logit in logits])


def random_pairs(count, captions, images, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, captions, count), rng.integers(0, images, count)], axis=1)


@pytest.mark.parametrize("batch_size", [None, 1, 16])
@pytest.mark.parametrize("block_bytes", [1, 5000, 1 << 30])
def test_scores_equal_pair_by_pair(tiny_model, captions, gallery, monkeypatch, batch_size, block_bytes):
    monkeypatch.setattr(itm, "_BLOCK_BYTES", block_bytes)
    pairs = random_pairs(150, 40, 24)
    scores = score_pairs(tiny_model, captions, gallery, pairs, batch_size=batch_size)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, pair_by_pair(tiny_model, captions, gallery, pairs), atol=1e-5)


def test_captions_are_tokenised_once_and_the_mode_restored(tiny_model, captions, gallery):
    tiny_model.tokenizer.asked = 0
    score_pairs(tiny_model, captions, gallery, random_pairs(200, 40, 24))
    assert tiny_model.tokenizer.asked == 40
    assert tiny_model.training


def test_images_are_shared_and_texts_padded_to_their_band(tiny_model, captions, gallery):
    pairs = np.stack(np.meshgrid(np.arange(40), np.arange(24), indexing="ij"), -1).reshape(-1, 2)
    score_pairs(tiny_model, captions, gallery, pairs, batch_size=200)
    calls = np.array(tiny_model.calls)
    lengths = np.array([1 + len(caption.split()) for caption in captions])
    assert calls[:, 0].sum() == len(pairs)
    assert calls[:, 2].sum() < len(pairs) / 4
    assert (calls[:, 0] * calls[:, 1]).sum() < 0.8 * len(pairs) * lengths.max()


def test_no_pairs_and_progress(tiny_model, captions, gallery):
    assert score_pairs(tiny_model, captions, gallery, np.empty((0, 2), int)).shape == (0,)
    seen = []
    score_pairs(
        tiny_model,
        captions,
        gallery,
        random_pairs(99, 40, 24),
        batch_size=20,
        progress=lambda *s: seen.append(s),
    )
    assert seen[-1] == (99, 99)
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("pair", "what"), [([40, 0], "captions"), ([0, 24], "images"), ([-1, 0], "captions")]
)
def test_pairs_out_of_range_are_refused(tiny_model, captions, gallery, pair, what):
    with pytest.raises(ValueError, match=what):
        score_pairs(tiny_model, captions, gallery, np.array([pair]))


@pytest.mark.parametrize("k_test", [1, 5, 24, 100])
def test_rerank_equals_a_loop_over_queries(tiny_model, captions, gallery, k_test):
    features = encode_queries(tiny_model, captions)
    similarity = cosine(features, gallery.features)
    reranked = rerank(tiny_model, captions, gallery, similarity, k_test)
    matrix = (features @ gallery.features.T).numpy()
    whole = merged(similarity(slice(0, 40)), reranked, slice(0, 40)).numpy()
    for q in range(40):
        by_cosine = np.argsort(-matrix[q], kind="stable")
        chosen = by_cosine[:k_test]
        logits = pair_by_pair(tiny_model, captions, gallery, [(q, g) for g in chosen])
        expected = chosen[np.argsort(-(logits + matrix[q, chosen]), kind="stable")]
        np.testing.assert_array_equal(reranked.indices[q], expected)
        np.testing.assert_allclose(reranked.scores[q], np.sort(logits + matrix[q, chosen])[::-1], atol=1e-5)
        order = np.argsort(-whole[q], kind="stable")
        np.testing.assert_array_equal(order, np.concatenate([expected, by_cosine[k_test:]]))


def test_rerank_needs_at_least_one(tiny_model, captions, gallery):
    with pytest.raises(ValueError, match="k_test is 0"):
        rerank(tiny_model, captions, gallery, cosine(torch.zeros(40, 8), gallery.features), 0)


def candidates_by_loops(model, captions, gallery, features, k_tests, k):
    matrix = (gallery.features @ features.T).numpy().astype(np.float64)
    both = []
    for scores, is_image in ((matrix, True), (matrix.T, False)):
        rows = []
        for i, row in enumerate(scores):
            first = np.argsort(-row, kind="stable")[:k_tests]
            pairs = [(other, i) if is_image else (i, other) for other in first]
            total = pair_by_pair(model, captions, gallery, pairs) + row[first]
            rows.append(first[np.argsort(-total, kind="stable")][:k])
        both.append(np.array(rows))
    return both


@pytest.mark.parametrize(("k_tests", "k"), [(6, 4), (1, 1), (10, 10)])
def test_candidates_equal_loops_in_both_directions(tiny_model, captions, gallery, k_tests, k):
    features = encode_queries(tiny_model, captions)
    found = candidates(tiny_model, captions, gallery, features, k_tests, k)
    expected = candidates_by_loops(tiny_model, captions, gallery, features, k_tests, k)
    for array, plain in zip(found, expected, strict=True):
        assert array.dtype == np.int64
        np.testing.assert_array_equal(array, plain)


def test_candidates_score_each_pair_once(tiny_model, captions, gallery):
    features = encode_queries(tiny_model, captions)
    tiny_model.calls.clear()
    image_to_text, text_to_image = candidates(tiny_model, captions, gallery, features, 40, 20)
    assert sum(call[0] for call in tiny_model.calls) == 40 * 24
    assert image_to_text.shape == (24, 20)
    assert text_to_image.shape == (40, 20)


def test_candidates_of_fewer_images_than_k(tiny_model, captions, gallery):
    features = encode_queries(tiny_model, captions)
    image_to_text, text_to_image = candidates(tiny_model, captions, gallery, features, 26, 26)
    assert image_to_text.shape == (24, 26)
    assert text_to_image.shape == (40, 24)


@pytest.mark.parametrize(("k_tests", "k"), [(5, 6), (5, 0)])
def test_candidate_counts_are_checked(tiny_model, captions, gallery, k_tests, k):
    with pytest.raises(ValueError, match="k_tests"):
        candidates(tiny_model, captions, gallery, torch.zeros(40, 8), k_tests, k)


def test_a_gallery_without_tokens_is_refused(tiny_model, captions, tiny_images):
    gallery = encode_gallery(tiny_model, [tiny_images], 24, token_dtype=None)
    with pytest.raises(ValueError, match="without image tokens"):
        score_pairs(tiny_model, captions, gallery, np.array([[0, 0]]))


def test_without_matching_candidates_are_the_nearest_by_cosine(dual_model, captions, tiny_images):
    gallery = encode_gallery(dual_model, [tiny_images], 24, token_dtype=None)
    features = encode_queries(dual_model, captions)
    found = candidates(dual_model, captions, gallery, features, 6, 4)
    matrix = (gallery.features @ features.T).numpy().astype(np.float64)
    for array, scores in zip(found, (matrix, matrix.T), strict=True):
        np.testing.assert_array_equal(array, np.argsort(-scores, axis=1, kind="stable")[:, :4])
