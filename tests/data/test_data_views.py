"""What each view shows, and what the unsupervised one can't reach."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np

from data.records import PedesDataset, Record
from data.views import LabelledPairs, UnlabelledImages, gallery, queries

RECORDS = [
    Record("a/1.jpg", 7, ("one", "two")),
    Record("a/2.jpg", 0, ()),
    Record("b/3.jpg", 7, ("one",)),
    Record("b/4.jpg", 900, ("four", "five", "six")),
]


def dataset(train: list[Record]) -> PedesDataset:
    return PedesDataset("cuhk_pedes", Path("/images"), train=train, val=[], test=RECORDS[:1])


def test_unlabelled_images_are_paths_in_order():
    view = UnlabelledImages(dataset(RECORDS), "train")
    assert list(view) == [view[i] for i in range(len(view))] == ["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg"]
    assert view.paths()[0] == "/images/a/1.jpg"
    assert list(UnlabelledImages(dataset(RECORDS), "test")) == ["a/1.jpg"]


def test_nothing_but_paths_is_reachable_from_the_unlabelled_view():
    view = UnlabelledImages(dataset([Record("x.jpg", 424242, ("a secret caption",))]), "train")
    seen, waiting = set(), [view]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, type):
            continue
        seen.add(id(thing))
        assert not isinstance(thing, (Record, PedesDataset))
        assert thing != 424242
        assert thing != "a secret caption"
        waiting.extend(gc.get_referents(thing))
    assert not hasattr(view, "__dict__")


def test_unlabelled_view_does_not_depend_on_identities_or_captions():
    rng = np.random.default_rng(0)
    identities, captions = rng.permutation([r.identity for r in RECORDS]), rng.permutation(4)
    shuffled = [
        Record(r.image, int(i), RECORDS[c].captions)
        for r, i, c in zip(RECORDS, identities, captions, strict=True)
    ]
    assert list(UnlabelledImages(dataset(shuffled), "train")) == list(
        UnlabelledImages(dataset(RECORDS), "train")
    )
    conflicting = [*RECORDS, Record("a/1.jpg", 8, ("other",))]
    assert list(UnlabelledImages(dataset(conflicting), "train")) == list(
        UnlabelledImages(dataset(RECORDS), "train")
    )


def test_labelled_pairs_queries_and_gallery_equal_plain_loops():
    pairs = [(i, c, r.identity) for i, r in enumerate(RECORDS) for c in r.captions]
    view = LabelledPairs(RECORDS)
    assert [view[i] for i in range(len(view))] == pairs
    captions, query_ids = queries(RECORDS)
    assert captions == [caption for _, caption, _ in pairs]
    assert query_ids.tolist() == [identity for _, _, identity in pairs]
    images, gallery_ids = gallery(RECORDS)
    assert images == [record.image for record in RECORDS]
    assert gallery_ids.tolist() == [7, 0, 7, 900]
    assert query_ids.dtype == gallery_ids.dtype == view.image_indices.dtype == np.int64


def test_views_of_nothing_are_empty():
    assert len(LabelledPairs([])) == 0
    assert queries([])[1].shape == (0,)
    assert gallery([])[0] == []
