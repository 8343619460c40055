"""The faiss side of an index against plain products: in full and in half precision, added to and taken from."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from data.errors import UserError
from serving import vectors

WIDTH = 16


@pytest.fixture
def features() -> np.ndarray:
    """600 features in 60 clusters."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((60, WIDTH)).repeat(10, 0) + 0.2 * rng.standard_normal((600, WIDTH))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def best_by_hand(features, rows, query, count):
    scores = {
        row: sum(float(a) * float(b) for a, b in zip(features[row], query, strict=True)) for row in rows
    }
    return sorted(rows, key=lambda row: -scores[row])[:count]


def made(features, rows, index=None):
    return vectors.brought_up_to(index, np.asarray(rows), lambda chosen: features[chosen], WIDTH)


def nearest(index, features, query, count):
    return vectors.nearest(index, query, count, lambda rows: features[rows])


def check(index, features, rows):
    assert sorted(vectors.rows_of(index)) == sorted(rows)
    for query in features[::97]:
        found, scores = nearest(index, features, query, 7)
        assert list(found) == best_by_hand(features, rows, query, 7)
        np.testing.assert_allclose(scores, features[found] @ query, atol=1e-6)


def test_an_exact_index_follows_its_images(features):
    index = made(features, range(100, 300))
    assert vectors.is_exact(index)
    check(index, features, list(range(100, 300)))
    later = [*range(50), *range(150, 300), 599]
    check(made(features, later, index), features, later)


def test_asked_for_more_than_there_is_it_gives_all(features):
    rows, scores = nearest(made(features, [3, 5]), features, features[5], 10)
    assert (list(rows), len(scores)) == ([5, 3], 2)


def test_an_index_in_half_precision_gives_exact_scores_and_follows_its_images(features, monkeypatch):
    monkeypatch.setattr(vectors, "EXACT_BELOW", 400)
    index = made(features, range(500))
    assert not vectors.is_exact(index)
    check(index, features, list(range(500)))
    later = sorted({*range(0, 450, 3), *range(250, 600)})
    changed = made(features, later, index)
    assert changed is index
    check(changed, features, later)


def test_the_scores_of_half_precision_decide_nothing_but_who_is_compared(features, monkeypatch):
    """With as many compared as asked for the order is still that of full precision."""
    monkeypatch.setattr(vectors, "EXACT_BELOW", 400)
    monkeypatch.setattr(vectors, "COMPARED", 1)
    twins = np.concatenate(
        [features, features * np.float32(1 - 2**-14)]
    )  # further apart in fp32 than in fp16
    index = made(twins, range(1200))
    rows, scores = nearest(index, twins, twins[5], 3)
    assert list(rows[:2]) == [5, 605]
    assert scores[0] > scores[1]
    np.testing.assert_array_equal(scores, twins[rows] @ twins[5])


def test_crossing_the_border_makes_the_other_kind(features, monkeypatch):
    monkeypatch.setattr(vectors, "EXACT_BELOW", 400)
    index = made(features, range(300))
    index = made(features, range(500), index)
    assert not vectors.is_exact(index)
    index = made(features, range(200), index)
    assert vectors.is_exact(index)
    check(index, features, list(range(200)))


def test_half_precision_finds_what_an_exact_search_finds(monkeypatch):
    """Also for queries that lie apart from all images, as sentences do."""
    monkeypatch.setattr(vectors, "EXACT_BELOW", 1000)
    rng = np.random.default_rng(1)
    values = rng.standard_normal((400, 32)).repeat(20, 0) + 0.7 * rng.standard_normal((8000, 32))
    values = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    index = vectors.brought_up_to(None, np.arange(8000), lambda rows: values[rows], 32)
    apart = rng.standard_normal((40, 32)).astype(np.float32)
    for query in [*values[::200], *apart]:
        exact = np.argsort(-(values @ query), kind="stable")[:10]
        assert set(nearest(index, values, query, 10)[0]) == set(exact)


@pytest.mark.parametrize("border", [1000, 100])
def test_a_written_index_is_read_as_it_was(features, tmp_path, monkeypatch, border):
    monkeypatch.setattr(vectors, "EXACT_BELOW", border)
    vectors.write(made(features, range(200)), tmp_path / "v")
    check(vectors.read(tmp_path / "v"), features, list(range(200)))
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_a_damaged_file_is_refused_in_a_sentence(features, tmp_path):
    path = tmp_path / "v"
    vectors.write(made(features, range(200)), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match="is damaged: delete this one file"):
        vectors.read(path)


def test_a_file_of_another_kind_is_refused_too(tmp_path):
    faiss.write_index(faiss.IndexFlatIP(WIDTH), str(tmp_path / "v"))
    with pytest.raises(UserError, match="delete this one file"):
        vectors.read(tmp_path / "v")


def test_a_disk_that_can_not_be_written_leaves_the_old_file(features, tmp_path):
    with pytest.raises(OSError, match="could not write"):
        vectors.write(made(features, range(9)), tmp_path / "nowhere" / "v")
