from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval import metrics
from retrieval.metrics import rank_queries, retrieval_metrics
from retrieval.results import METRICS


def by_loops(scores, query_ids, gallery_ids):
    """The protocol spelled out: sort every query's gallery, misses before hits where scores tie, and walk down."""
    totals = dict.fromkeys(METRICS, 0.0)
    for row, identity in zip(scores, query_ids, strict=True):
        ranked = sorted(range(len(gallery_ids)), key=lambda g: (-row[g], gallery_ids[g] == identity))
        hits, precisions, last, first = 0, [], 0, 0
        for rank, g in enumerate(ranked, start=1):
            if gallery_ids[g] == identity:
                hits += 1
                precisions.append(hits / rank)
                last = rank
                first = first or rank
        for k in (1, 5, 10):
            totals[f"r{k}"] += first <= k
        totals["mAP"] += sum(precisions) / len(precisions)
        totals["mINP"] += hits / last
    return {name: 100.0 * total / len(query_ids) for name, total in totals.items()}


@st.composite
def problems(draw):
    gallery_ids = draw(st.lists(st.integers(0, 5), min_size=1, max_size=25))
    query_ids = draw(st.lists(st.sampled_from(gallery_ids), min_size=1, max_size=12))
    seed = draw(st.integers(0, 2**31))
    levels = draw(st.sampled_from([2, 5, 10**6]))  # few levels: many ties
    scores = np.random.default_rng(seed).integers(0, levels, (len(query_ids), len(gallery_ids)))
    return scores / levels, np.array(query_ids), np.array(gallery_ids)


@settings(max_examples=80, deadline=None)
@given(problems())
def test_equals_plain_loops(problem):
    assert retrieval_metrics(*problem) == pytest.approx(by_loops(*problem))


@settings(max_examples=40, deadline=None)
@given(problems(), st.integers(0, 1000))
def test_order_of_queries_and_gallery_does_not_matter(problem, seed):
    scores, query_ids, gallery_ids = problem
    rng = np.random.default_rng(seed)
    q, g = rng.permutation(len(query_ids)), rng.permutation(len(gallery_ids))
    permuted = retrieval_metrics(scores[q][:, g], query_ids[q], gallery_ids[g])
    assert permuted == pytest.approx(retrieval_metrics(*problem))


@settings(max_examples=40, deadline=None)
@given(problems())
def test_only_the_order_of_scores_counts(problem):
    scores, query_ids, gallery_ids = problem
    shifted = np.exp(3.0 * scores) + np.arange(len(scores))[:, None]
    assert retrieval_metrics(shifted, query_ids, gallery_ids) == pytest.approx(retrieval_metrics(*problem))


@settings(max_examples=40, deadline=None)
@given(problems())
def test_bounds(problem):
    values = retrieval_metrics(*problem)
    assert 0.0 <= values["r1"] <= values["r5"] <= values["r10"] <= 100.0
    assert 0.0 < values["mINP"] <= 100.0
    assert 0.0 < values["mAP"] <= 100.0 + 1e-9


def test_perfect_and_worst_scores():
    ids = np.repeat(np.arange(6), 3)
    is_hit = (ids[:, None] == ids[None, :]).astype(np.float32)
    assert retrieval_metrics(is_hit, ids, ids) == dict.fromkeys(METRICS, 100.0)
    worst = retrieval_metrics(-is_hit, ids, ids)
    assert worst["r1"] == worst["r10"] == 0.0
    assert worst["mAP"] == pytest.approx(100 * (1 / 16 + 2 / 17 + 3 / 18) / 3)
    assert worst["mINP"] == pytest.approx(100 * 3 / 18)


def test_constant_scores_are_the_worst_scores():
    ids = np.repeat(np.arange(6), 3)
    is_hit = (ids[:, None] == ids[None, :]).astype(np.float32)
    assert retrieval_metrics(np.zeros((18, 18)), ids, ids) == retrieval_metrics(-is_hit, ids, ids)


def test_blocks_give_the_same_numbers(monkeypatch):
    rng = np.random.default_rng(0)
    gallery_ids, scores = rng.integers(0, 9, 50), rng.random((33, 50), dtype=np.float32)
    query_ids = rng.choice(gallery_ids, 33)
    whole = rank_queries(scores, query_ids, gallery_ids)
    monkeypatch.setattr(metrics, "_BLOCK_ENTRIES", 4 * 50)
    blocked = rank_queries(scores, query_ids, gallery_ids)
    for field in ("first_hit", "average_precision", "inverse_penalty"):
        np.testing.assert_allclose(getattr(blocked, field), getattr(whole, field), rtol=1e-14)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, lambda x: x.tolist()])
def test_accepts_arrays_tensors_and_lists(kind):
    scores, ids = np.array([[0.9, 0.1], [0.2, 0.3]]), np.array([7, 0])
    assert retrieval_metrics(kind(scores), kind(ids), kind(ids))["mAP"] == 100.0


def test_close_scores_in_double_precision_are_no_tie():
    values = retrieval_metrics(np.array([[0.5 + 1e-12, 0.5]]), [1], [1, 2])
    assert values["r1"] == 100.0


def test_queries_without_a_hit_are_counted_in_the_error():
    with pytest.raises(ValueError, match=r"2 of 3 queries .* identity 8"):
        retrieval_metrics(np.zeros((3, 2)), [1, 8, 9], [1, 2])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="NaN or infinite"):
        retrieval_metrics(np.array([[bad, 0.0]]), [1], [1, 2])


@pytest.mark.parametrize(
    ("shape", "queries", "gallery"), [((2, 2), [1], [1, 2]), ((1, 2), [1], [1]), ((0, 1), [], [1])]
)
def test_shapes_that_do_not_fit_are_refused(shape, queries, gallery):
    with pytest.raises(ValueError):
        retrieval_metrics(np.zeros(shape), np.array(queries, int), gallery)
