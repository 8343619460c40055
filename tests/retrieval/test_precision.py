"""One precision, the model's, in all verbs; whatever is computed from their results is float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from retrieval.encode import encode_gallery, encode_queries
from retrieval.evaluate import StyleTexts, evaluate, style_similarity
from retrieval.itm import candidates, cosine, merged, rerank, top
from retrieval.metrics import retrieval_metrics
from retrieval.verbs import TokenisedCaptions

GALLERY_IDS = np.repeat(np.arange(8), 3)
QUERY_IDS = np.arange(40) % 8


def bf16() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def crowded(people: int, width: int = 256) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Normalised text and image features (people, width), as a trained model's: cosines of 0.88 +- 0.01."""
    generator = torch.Generator().manual_seed(0)
    common = normalize(torch.randn(width, generator=generator), dim=0)
    of_person = (0.033 / width) ** 0.5 * torch.randn(people, width, generator=generator)
    of_one = (0.103 / width) ** 0.5 * torch.randn(2, people, width, generator=generator)
    texts, images = normalize(common + of_person + of_one, dim=2)
    return texts, images, np.arange(people)


def test_close_cosines_rank_as_in_double_precision_whatever_autocast_says():
    texts, images, identities = crowded(1000)
    exact = texts.double() @ images.double().T
    assert float(exact.mean()) == pytest.approx(0.88, abs=0.01)
    assert float(exact.std()) == pytest.approx(0.01, abs=0.002)
    wanted = retrieval_metrics(exact.numpy(), identities, identities)
    with bf16():
        rough = (texts @ images.T).float()
        scores = cosine(texts, images)(slice(0, 1000))
        order, best = top(cosine(texts, images), 1000, 1000, 10)
    assert scores.dtype == torch.float32
    assert retrieval_metrics(scores.numpy(), identities, identities) == pytest.approx(wanted)
    of_rough = retrieval_metrics(rough.numpy(), identities, identities)
    assert of_rough["r1"] < wanted["r1"] - 5  # or this example would show nothing
    np.testing.assert_allclose(best, exact.topk(10, dim=1).values.numpy(), atol=1e-6)
    assert best.dtype == np.float32
    np.testing.assert_array_equal(order[:, 0], exact.argmax(dim=1).numpy())


def test_reranked_scores_are_not_rounded_when_they_join_the_others(tiny_model, tiny_images, captions):
    gallery = encode_gallery(tiny_model, [tiny_images], 24)
    features = encode_queries(tiny_model, captions)
    similarity = cosine(features, gallery.features)
    with bf16():
        reranked = rerank(tiny_model, captions, gallery, similarity, 6)
        whole = merged(similarity(slice(0, 40)), reranked, slice(0, 40))
    assert whole.dtype == torch.float32
    placed = np.take_along_axis(whole.numpy(), reranked.indices, 1)
    gaps = reranked.scores[:, :-1] - reranked.scores[:, 1:]
    np.testing.assert_allclose(placed[:, :-1] - placed[:, 1:], gaps, atol=1e-5)


def test_the_style_protocol_is_float32(tiny_model, captions):
    plain = cosine(torch.rand(40, 8), torch.rand(24, 8))
    style = StyleTexts(captions, captions[:24], weight=0.3)
    rows = style_similarity(tiny_model, plain, style, 40, 24)
    expected = rows(slice(0, 40))
    with bf16():
        found = rows(slice(0, 40))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def watch(model) -> list[tuple[str, bool, torch.dtype]]:
    """Notes of every verb whether autocast is on, and the type of the image tokens that `match` gets."""
    seen: list[tuple[str, bool, torch.dtype]] = []

    def watched(name, verb):
        def call(*arguments):
            tokens = arguments[1].dtype if name == "match" else torch.float32
            seen.append((name, torch.is_autocast_enabled("cpu"), tokens))
            return verb(*arguments)

        return call

    for name in ("encode_images", "encode_texts", "match"):
        setattr(model, name, watched(name, getattr(model, name)))
    return seen


def evaluated(model, images, captions):
    return evaluate(model, images.split(5), captions, QUERY_IDS, GALLERY_IDS, k_test=6)


@pytest.mark.parametrize("precision", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("around", [False, True])
def test_the_verbs_compute_in_the_models_precision(tiny_model, tiny_images, captions, precision, around):
    if precision is not None:
        tiny_model.precision = precision
    seen = watch(tiny_model)
    with torch.autocast("cpu", torch.bfloat16, enabled=around):
        evaluated(tiny_model, tiny_images, captions)
        gallery = encode_gallery(tiny_model, [tiny_images], 24)
        texts = TokenisedCaptions(tiny_model, captions)
        candidates(tiny_model, texts, gallery, encode_queries(tiny_model, texts), 6, 4)
    narrow = precision is torch.bfloat16
    assert {name for name, *_ in seen} == {"encode_images", "encode_texts", "match"}
    assert {enabled for _, enabled, _ in seen} == {narrow}
    of_match = {tokens for name, _, tokens in seen if name == "match"}
    assert of_match == {torch.bfloat16 if narrow else torch.float32}


def test_an_evaluation_in_bf16_is_close_to_that_in_float32(tiny_model, tiny_images, captions):
    exact = evaluated(tiny_model, tiny_images, captions)
    tiny_model.precision = torch.bfloat16
    found = evaluated(tiny_model, tiny_images, captions)
    for ranking, wanted in ((found.cosine, exact.cosine), (found.reranked, exact.reranked)):
        assert ranking.scores.dtype == np.float32
        differences = np.abs(ranking.scores - wanted.scores)
        assert 0 < np.median(differences) < 0.01  # a few images change places with others
