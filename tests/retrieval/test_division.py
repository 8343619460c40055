"""Divided over processes, encoding, matching and evaluation give what one process gives; each holds its own tokens only."""

from __future__ import annotations

import copy
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from retrieval import itm
from retrieval.division import Division, assembled
from retrieval.encode import Gallery, encode_gallery, encode_queries
from retrieval.evaluate import Evaluation, StyleTexts, evaluate
from retrieval.itm import candidates, score_pairs, top
from tests.in_threads import Member, together

GALLERY_IDS = np.repeat(np.arange(8), 3)
QUERY_IDS = np.arange(40) % 8
# (processes, images of a batch): evenly; a last batch of one image; fewer batches than processes.
DIVISIONS = [(2, 6), (2, 23), (3, 5), (3, 7), (3, 24)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(itm, "_BLOCK_ROWS", 7)


def batches_of(images: Tensor, division: Division) -> tuple[Tensor, ...]:
    """This member's batches of the images."""
    rows = division.rows()
    return images[rows].split(division.piece) if len(rows) else ()


def share(
    model: nn.Module, images: Tensor, batch: int, member: Member, **options
) -> tuple[nn.Module, Gallery]:
    """A model of its own and the divided gallery of one member."""
    own, division = copy.deepcopy(model), Division(len(images), batch, member)
    own.calls.clear()
    return own, encode_gallery(own, batches_of(images, division), division, **options)


@pytest.mark.parametrize("count", [1, 5, 24, 25])
@pytest.mark.parametrize(("size", "piece"), [(1, 4), (2, 4), (3, 7), (3, 30)])
def test_every_row_has_one_owner_and_one_place(count, size, piece):
    def work(member: Member) -> list[int]:
        division = Division(count, piece, member)
        rows = division.rows()
        assert rows.tolist() == [row for block in division.pieces() for row in range(count)[block]]
        assert division.places(rows).tolist() == list(range(len(rows)))
        assert (division.owners(rows) == member.rank).all()
        own = [100 * np.arange(count)[block, None] + np.arange(3) for block in division.pieces()]
        np.testing.assert_array_equal(division.gather(own), 100 * np.arange(count)[:, None] + np.arange(3))
        return rows.tolist()

    shares = together(size, work)
    assert sorted(row for rows in shares for row in rows) == list(range(count))
    pieces = [-(-len(rows) // piece) for rows in shares]
    assert max(pieces) - min(pieces) <= 1


def test_rows_of_any_owner_are_put_in_order():
    owners = np.array([2, 0, 2, 2, 0])

    def work(member: Member) -> np.ndarray:
        return assembled(member, owners, [np.flatnonzero(owners == member.rank).astype(np.float32)])

    for rows in together(3, work):
        assert rows.dtype == np.float32
        assert rows.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("size", "batch"), DIVISIONS)
def test_all_features_and_only_the_own_tokens(tiny_model, tiny_images, size, batch):
    whole = encode_gallery(tiny_model, tiny_images.split(batch), 24)

    def work(member: Member) -> int:
        _, gallery = share(tiny_model, tiny_images, batch, member)
        torch.testing.assert_close(gallery.features, whole.features, rtol=0, atol=0)
        rows = gallery.division.rows()
        if not len(rows):
            assert gallery.tokens is None
            return 0
        own = gallery.tokens.read(np.arange(len(rows)))
        torch.testing.assert_close(own, whole.tokens.read(rows), rtol=0, atol=0)
        return len(gallery.tokens)

    held = together(size, work)
    assert sum(held) == 24  # once each
    assert max(held) <= batch * -(-24 // (batch * size))


@pytest.mark.parametrize("size", [2, 3])
def test_tokens_on_disk_take_each_process_its_share(tiny_model, tiny_images, tmp_path, size):
    def work(member: Member) -> int:
        _, gallery = share(tiny_model, tiny_images, 4, member, directory=tmp_path, memory_limit=0)
        with gallery:
            return gallery.tokens._file.seek(0, 2)

    one_image = 8 * 16 * 2  # tokens x width x bytes
    assert together(size, work) == [24 // size * one_image] * size


def test_another_number_of_images_than_the_share_is_an_error(tiny_model, tiny_images):
    def work(member: Member) -> None:
        encode_gallery(copy.deepcopy(tiny_model), tiny_images.split(7), Division(24, 7, member))

    with pytest.raises(ValueError, match=r"(14|10) announced"):
        together(2, work)


@pytest.mark.parametrize(("size", "batch"), [(2, 16), (2, 39), (3, 9), (3, 64)])
def test_queries_are_encoded_once_and_known_to_all(tiny_model, captions, size, batch):
    whole = encode_queries(tiny_model, captions, batch)

    def work(member: Member) -> list[tuple[int, int]]:
        own, seen = copy.deepcopy(tiny_model), []
        features = encode_queries(
            own, captions, batch, processes=member, progress=lambda *at: seen.append(at)
        )
        torch.testing.assert_close(features, whole, rtol=0, atol=0)
        return seen

    ends = sorted(at for seen in together(size, work) for at in seen)
    assert ends == [(min(start + batch, 40), 40) for start in range(0, 40, batch)]


@pytest.mark.parametrize(("size", "batch"), DIVISIONS)
def test_pairs_are_scored_once_by_who_holds_the_image(tiny_model, tiny_images, captions, size, batch):
    rng = np.random.default_rng(0)
    pairs = np.stack([rng.integers(0, 40, 150), rng.integers(0, 24, 150)], axis=1)
    gallery = encode_gallery(tiny_model, tiny_images.split(batch), 24)
    whole = score_pairs(tiny_model, captions, gallery, pairs)

    def work(member: Member) -> int:
        own, gallery = share(tiny_model, tiny_images, batch, member)
        scores = score_pairs(own, captions, gallery, pairs, batch_size=20)
        np.testing.assert_allclose(scores, whole, atol=1e-5)
        matched = sum(call[0] for call in own.calls)
        assert matched == (gallery.division.owners(pairs[:, 1]) == member.rank).sum()
        return matched

    assert sum(together(size, work)) == 150


@pytest.mark.parametrize("size", [2, 3])
def test_no_pairs_and_no_tokens(tiny_model, tiny_images, captions, size):
    def work(member: Member) -> None:
        own, gallery = share(tiny_model, tiny_images, 4, member)
        assert score_pairs(own, captions, gallery, np.empty((0, 2), int)).shape == (0,)
        own, gallery = share(tiny_model, tiny_images, 4, member, token_dtype=None)
        with pytest.raises(ValueError, match="without image tokens"):
            score_pairs(own, captions, gallery, np.array([[0, 0]]))

    together(size, work)


@pytest.mark.parametrize("size", [2, 3])
def test_the_best_of_each_row_by_shares_of_rows(size):
    matrix = torch.randn(40, 24, generator=torch.Generator().manual_seed(0))
    whole = matrix.topk(5, dim=1)
    rows_seen = []

    def similarity(rows: slice) -> Tensor:
        rows_seen.append(rows.stop - rows.start)
        return matrix[rows]

    for indices, scores in together(size, lambda member: top(similarity, 40, 24, 5, member)):
        np.testing.assert_array_equal(indices, whole.indices)
        np.testing.assert_array_equal(scores, whole.values)
    assert sum(rows_seen) == 40


@pytest.mark.parametrize(("size", "batch"), DIVISIONS)
def test_candidates_are_those_of_one_process(tiny_model, tiny_images, captions, size, batch):
    features = encode_queries(tiny_model, captions)
    gallery = encode_gallery(tiny_model, tiny_images.split(batch), 24)
    whole = candidates(tiny_model, captions, gallery, features, 6, 4)

    def work(member: Member) -> tuple[np.ndarray, np.ndarray]:
        own, gallery = share(tiny_model, tiny_images, batch, member)
        return candidates(own, captions, gallery, features, 6, 4)

    for found in together(size, work):
        np.testing.assert_array_equal(found[0], whole[0])
        np.testing.assert_array_equal(found[1], whole[1])


def check_same(found: Evaluation, whole: Evaluation) -> None:
    assert (found.queries, found.gallery) == (whole.queries, whole.gallery)
    for one, other in ((found.cosine, whole.cosine), (found.reranked, whole.reranked)):
        assert one.metrics == other.metrics
        for field in fields(one)[1:]:
            np.testing.assert_allclose(getattr(one, field.name), getattr(other, field.name), atol=1e-5)
        np.testing.assert_array_equal(one.indices, other.indices)


@pytest.mark.parametrize("styled", [False, True])
@pytest.mark.parametrize(("size", "batch"), DIVISIONS)
def test_an_evaluation_is_that_of_one_process(
    tiny_model, tiny_images, captions, tmp_path, size, batch, styled
):
    texts = [f"a {caption}" for caption in captions]
    options = {"k_test": 6, "text_batch_size": 9, "directory": tmp_path, "memory_limit": 9}
    options |= {"style": StyleTexts(texts, texts[:24], weight=0.3) if styled else None}
    whole = evaluate(tiny_model, tiny_images.split(batch), captions, QUERY_IDS, GALLERY_IDS, **options)

    def work(member: Member) -> Evaluation:
        own, division = copy.deepcopy(tiny_model), Division(24, batch, member)
        images = batches_of(tiny_images, division)
        return evaluate(own, images, captions, QUERY_IDS, GALLERY_IDS, division=division, **options)

    for found in together(size, work):
        check_same(found, whole)


def test_fewer_queries_than_processes(tiny_model, tiny_images, captions):
    whole = evaluate(tiny_model, [tiny_images], captions[:2], [0, 1], GALLERY_IDS, k_test=5)

    def work(member: Member) -> Evaluation:
        own, division = copy.deepcopy(tiny_model), Division(24, 24, member)
        images = batches_of(tiny_images, division)
        return evaluate(own, images, captions[:2], [0, 1], GALLERY_IDS, k_test=5, division=division)

    for found in together(3, work):
        check_same(found, whole)


@pytest.mark.parametrize(("size", "batch"), DIVISIONS)
def test_a_model_without_matching_is_divided_too(dual_model, tiny_images, captions, size, batch):
    features = encode_queries(dual_model, captions)
    gallery = encode_gallery(dual_model, tiny_images.split(batch), 24, token_dtype=None)
    chosen = candidates(dual_model, captions, gallery, features, 6, 4)
    whole = evaluate(dual_model, tiny_images.split(batch), captions, QUERY_IDS, GALLERY_IDS)

    def work(member: Member) -> None:
        own, gallery = share(dual_model, tiny_images, batch, member, token_dtype=None)
        for found, expected in zip(candidates(own, captions, gallery, features, 6, 4), chosen, strict=True):
            np.testing.assert_array_equal(found, expected)
        images = batches_of(tiny_images, gallery.division)
        found = evaluate(own, images, captions, QUERY_IDS, GALLERY_IDS, division=gallery.division)
        assert found.reranked is None
        assert found.itc == whole.itc

    together(size, work)
