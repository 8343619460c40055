from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval import itm as module
from retrieval.encode import encode_gallery, encode_queries
from retrieval.evaluate import StyleTexts, evaluate
from retrieval.metrics import retrieval_metrics

GALLERY_IDS = np.repeat(np.arange(8), 3)
QUERY_IDS = np.arange(40) % 8


def plain_scores(model, images, captions, k_test=None):
    """The (Q, G) score matrices of both protocols, straight from the definition and in double precision."""
    gallery = encode_gallery(model, [images], len(images))
    cosines = (encode_queries(model, captions) @ gallery.features.T).double().numpy()
    if k_test is None:
        return cosines
    model.eval()
    tokens = gallery.tokens.read(np.arange(len(images))).float()
    scores = cosines - 1e3
    for q, caption in enumerate(captions):
        for g in np.argsort(-cosines[q], kind="stable")[:k_test]:
            with torch.no_grad():
                logit = model.match(model.tokenizer([caption]), tokens[g : g + 1])[0, 1]
            scores[q, g] = float(logit) + cosines[q, g]
    return scores


def test_both_protocols_equal_whole_matrices(tiny_model, tiny_images, captions, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_BLOCK_ENTRIES", 7 * 24)
    found = evaluate(
        tiny_model,
        tiny_images.split(5),
        captions,
        QUERY_IDS,
        GALLERY_IDS,
        k_test=6,
        directory=tmp_path,
        memory_limit=9,
    )
    itc = plain_scores(tiny_model, tiny_images, captions)
    itm = plain_scores(tiny_model, tiny_images, captions, 6)
    assert found.itc == pytest.approx(retrieval_metrics(itc, QUERY_IDS, GALLERY_IDS))
    assert found.itm == pytest.approx(retrieval_metrics(itm, QUERY_IDS, GALLERY_IDS))
    assert found.itc != found.itm
    for ranking, matrix in ((found.cosine, itc), (found.reranked, itm)):
        order = np.argsort(-matrix, axis=1, kind="stable")
        np.testing.assert_array_equal(ranking.indices, order[:, :10])
        hits = GALLERY_IDS[order] == QUERY_IDS[:, None]
        np.testing.assert_array_equal(ranking.first_hit, hits.argmax(1) + 1)
    np.testing.assert_allclose(found.reranked.scores[:, :6], -np.sort(-itm, axis=1)[:, :6], atol=1e-5)
    assert (found.queries, found.gallery) == (40, 24)
    assert found.best is found.reranked
    assert found.seconds > 0
    assert not list(tmp_path.iterdir())


def test_without_reranking_no_pair_is_matched(tiny_model, tiny_images, captions):
    tiny_model.calls.clear()
    found = evaluate(tiny_model, [tiny_images], captions, QUERY_IDS, GALLERY_IDS, k_test=0)
    assert found.itm is None
    assert found.best is found.cosine
    assert not tiny_model.calls


def test_a_gallery_smaller_than_the_list(tiny_model, tiny_images, captions):
    found = evaluate(tiny_model, [tiny_images[:4]], captions[:2], [0, 1], [0, 0, 1, 1], k_test=32)
    assert found.reranked.indices.shape == (2, 4)
    assert sorted(found.reranked.indices[0]) == [0, 1, 2, 3]


def test_style_protocol_is_the_weighted_sum(tiny_model, tiny_images, captions):
    styled_queries = [f"a {caption}" for caption in captions]
    styled_gallery = [f"person {i} in {captions[i]}" for i in range(24)]
    styled_queries[3] = styled_gallery[5] = "  "
    style = StyleTexts(styled_queries, styled_gallery, weight=0.3)
    found = evaluate(tiny_model, [tiny_images], captions, QUERY_IDS, GALLERY_IDS, k_test=0, style=style)
    plain = plain_scores(tiny_model, tiny_images, captions)
    texts = (
        encode_queries(tiny_model, styled_queries) @ encode_queries(tiny_model, styled_gallery).T
    ).numpy()
    expected = 0.7 * plain + 0.3 * texts
    expected[3], expected[:, 5] = plain[3], plain[:, 5]
    assert found.itc == pytest.approx(retrieval_metrics(expected, QUERY_IDS, GALLERY_IDS))
    np.testing.assert_allclose(found.cosine.scores[:, 0], expected.max(1), atol=1e-6)


@pytest.mark.parametrize(
    ("style", "message"),
    [
        (StyleTexts(["x"] * 39, ["x"] * 24), "39 texts for 40 queries"),
        (StyleTexts(["x"] * 40, ["x"] * 24, weight=1.5), "share between 0 and 1"),
    ],
)
def test_style_texts_are_checked(tiny_model, tiny_images, captions, style, message):
    with pytest.raises(ValueError, match=message):
        evaluate(tiny_model, [tiny_images], captions, QUERY_IDS, GALLERY_IDS, style=style)


def test_wrong_counts_are_said_before_encoding(tiny_model, captions):
    with pytest.raises(ValueError, match="40 captions but 3 query"):
        evaluate(tiny_model, [], captions, [1, 2, 3], GALLERY_IDS)
    with pytest.raises(ValueError, match="no image of their identity"):
        evaluate(tiny_model, [], captions, QUERY_IDS + 1, GALLERY_IDS)


def test_a_model_without_matching_is_ranked_by_features_alone_and_keeps_no_tokens(
    dual_model, tiny_model, tiny_images, captions, tmp_path
):
    asked = {"k_test": 6, "directory": tmp_path, "memory_limit": 0}  # any tokens would have to go to a file
    found = evaluate(dual_model, [tiny_images], captions, QUERY_IDS, GALLERY_IDS, **asked)
    same = evaluate(tiny_model, [tiny_images], captions, QUERY_IDS, GALLERY_IDS, k_test=0)
    assert found.itm is None
    assert found.reranked is None
    assert found.itc == same.itc
    assert found.best is found.cosine
