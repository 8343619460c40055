from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from retrieval.evaluate import Evaluation, Ranking
from retrieval.pictures import draw_rank_lists, pick_queries, rank_lists

GREEN = (22, 150, 60)
QUERY_IDS, GALLERY_IDS = np.arange(12) % 6, np.repeat(np.arange(6), 3)


@pytest.fixture
def evaluation():
    scores = np.random.default_rng(0).normal(size=(12, 18)) + 1.5 * (QUERY_IDS[:, None] == GALLERY_IDS)
    order = np.argsort(-scores, axis=1)
    first = (GALLERY_IDS[order] == QUERY_IDS[:, None]).argmax(1) + 1
    ranking = Ranking({}, first, 1.0 / first, order[:, :10], -np.sort(-scores, axis=1)[:, :10])
    return Evaluation(ranking, ranking, 12, 18, 1.0)


@pytest.fixture
def images(tmp_path):
    """Files of many shapes and modes, of noise: the hardest picture to keep small."""
    rng, paths = np.random.default_rng(1), []
    for i in range(18):
        size = (int(rng.integers(20, 300)), int(rng.integers(20, 300)), 4)
        image = Image.fromarray(rng.integers(0, 255, size, np.uint8), "RGBA")
        if i % 4:
            image = image.convert("RGB").convert(("RGB", "L", "P")[i % 4 - 1])
        paths.append(tmp_path / f"{i}.png")
        image.save(paths[-1])
    return paths


def test_a_small_jpeg_of_the_drawn_queries(evaluation, images, tmp_path):
    captions = ["a man in a red jacket"] * 11 + ["word " * 200]
    out = tmp_path / "new" / "lists.jpg"
    chosen = rank_lists(out, evaluation, captions, QUERY_IDS, GALLERY_IDS, images, rows=12)
    assert sorted(chosen) == list(range(12))
    assert out.stat().st_size < 300_000
    with Image.open(out) as picture:
        assert picture.format == "JPEG"
        assert picture.width > 800
    assert list(out.parent.iterdir()) == [out]


def test_broken_and_missing_images_do_not_cost_the_picture(evaluation, images, tmp_path):
    images[0].write_bytes(b"no image")
    images[1] = tmp_path / "gone.jpg"
    rank_lists(tmp_path / "lists.jpg", evaluation, ["x" * 100] * 12, QUERY_IDS, GALLERY_IDS, images)
    assert (tmp_path / "lists.jpg").exists()


def test_hits_and_only_hits_are_framed_green():
    black = Image.new("RGB", (10, 22))
    shown = [("a", True), ("b", False), ("c", True)]
    sheet = np.asarray(draw_rank_lists([("query", "note", "a", shown)], lambda _: black))
    columns = np.flatnonzero((sheet == GREEN).all(-1).any(0))
    groups = np.split(columns, np.flatnonzero(np.diff(columns) > 84) + 1)
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    assert len(runs) == 2
    assert all(len(run) == 84 + 8 for run in runs)
    assert len(groups) == 2


def test_queries_are_half_found_half_not_and_drawn_by_seed():
    first = np.array([1] * 30 + [4] * 30)
    chosen = pick_queries(first, 8, 0)
    assert [first[query] == 1 for query in chosen] == [True] * 4 + [False] * 4
    assert chosen == pick_queries(first, 8, 0) != pick_queries(first, 8, 1)


@pytest.mark.parametrize(("found", "missed"), [(2, 30), (30, 2), (0, 30), (30, 0), (2, 1)])
def test_one_kind_fills_up_for_the_other(found, missed):
    first = np.array([1] * found + [9] * missed)
    chosen = pick_queries(first, 8, 0)
    assert len(set(chosen)) == len(chosen) == min(8, found + missed)
