"""A companion is a caption of another image of the same label, any of them equally likely, the same wherever it is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from engine.companions import Companions
from engine.feeds import ImageFeed, PairBatches, Pairs
from engine.seeds import sample_seeds, seed_of
from models.batch import Batch
from models.texts import TextBatch
from models.world import World
from tests.engine.process_share import Share

CPU = torch.device("cpu")
# Captions per image, by label: one with an image of many, one with a single image, one of single captions, one pair alone.
CAPTIONS = {4: {0: 2, 3: 1, 5: 4}, 9: {1: 3}, 0: {2: 1, 6: 1, 7: 1}, 7: {4: 1}, 2: {8: 2, 9: 2}}


def table(shuffle: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rows = [
        (i, label) for label, images in CAPTIONS.items() for i, count in images.items() for _ in range(count)
    ]
    images, labels = np.random.default_rng(shuffle).permutation(rows).T
    return images, labels


def choices_of(pair: int, images: np.ndarray, labels: np.ndarray) -> list[int]:
    """By the definition, pair by pair."""
    return [
        other
        for other in range(len(images))
        if labels[other] == labels[pair] and images[other] != images[pair]
    ]


@pytest.mark.parametrize("shuffle", [0, 1, 2])
def test_every_caption_of_another_image_of_the_label_is_equally_likely(shuffle):
    images, labels = table(shuffle)
    everything = np.arange(len(images))
    draws = 6000
    counts = np.zeros((len(images), len(images)), dtype=int)
    companions = Companions(images, labels)
    for epoch in range(draws):
        drawn, found = companions.draw(everything, sample_seeds(seed_of(3, "companion", epoch), everything))
        counts[everything, drawn] += 1
    statistic, freedom = 0.0, 0
    for pair in everything:
        choices = choices_of(pair, images, labels)
        assert found[pair] == bool(choices)
        allowed = choices or [pair]
        assert counts[pair].sum() == counts[pair, allowed].sum() == draws, (
            "of another image, of the same label"
        )
        expected = draws / len(allowed)
        statistic += float(((counts[pair, allowed] - expected) ** 2 / expected).sum())
        freedom += len(allowed) - 1
    assert chi2.sf(statistic, freedom) > 0.01
    assert chi2.cdf(statistic, freedom) > 0.01  # nor too even to be drawn at random


@pytest.mark.parametrize("seed", [0, 1])
def test_many_pairs_against_the_definition(seed):
    generator = np.random.default_rng(seed)
    image_labels = generator.integers(0, 12, 40)
    images = generator.integers(0, 40, 150)
    labels = image_labels[images]
    seeds = generator.integers(0, 2**62, 150)
    drawn, found = Companions(images, labels).draw(np.arange(150), seeds)
    for pair in range(150):
        choices = choices_of(pair, images, labels)
        assert found[pair] == bool(choices)
        assert drawn[pair] in (choices or [pair])
    some = generator.permutation(150)[:20]
    again, _ = Companions(images, labels).draw(some, seeds[some])
    assert (again == drawn[some]).all()


def test_one_image_and_one_pair_have_no_companion():
    for images in ([3], [3, 3]):
        drawn, found = Companions(np.array(images), np.zeros(len(images))).draw(
            np.arange(len(images)), np.full(len(images), 5)
        )
        assert drawn.tolist() == list(range(len(images)))
        assert not found.any()


@pytest.fixture
def make(crops, tokenizer):
    """make(world, seed=..., name=...) -> batches with companions; caption i has i words, so that it can be told."""
    images, labels = table()
    texts = tokenizer([" ".join(["red"] * (1 + pair)) for pair in range(len(images))])
    pairs = Pairs(images, texts, labels)
    feed = ImageFeed(crops, (32, 16), None)

    def batches(world: World | None = None, *, seed: int = 1, name: str = "round-0", companions: bool = True):
        return PairBatches(feed, pairs, 8, world or World(), CPU, seed=seed, name=name, companions=companions)

    return batches


def captions(texts: TextBatch) -> list[int]:
    """Which captions these are, by their numbers of words."""
    return (texts.mask.sum(1) - 3).tolist()


def drawn_in(batches: list[Batch]) -> list[tuple[int, int]]:
    return [
        pair
        for batch in batches
        for pair in zip(captions(batch.texts), captions(batch.companions), strict=True)
    ]


def test_batches_bring_companions_and_their_epoch(make):
    images, labels = table()
    seen = set()
    for epoch in range(5):
        for batch in make().epoch(epoch):
            assert batch.epoch == epoch
            for own, other, found in zip(
                captions(batch.texts), captions(batch.companions), batch.companion_found.tolist(), strict=True
            ):
                assert other in (choices_of(own, images, labels) if found else [own])
                seen.add(found)
    assert seen == {True, False}
    plain = next(iter(make(companions=False).epoch(0)))
    assert plain.companions is plain.companion_found is None


def test_companions_follow_seed_name_epoch_and_sample_only(make):
    reference = drawn_in(list(make().epoch(2)))
    assert drawn_in(list(make().epoch(2))) == reference
    assert drawn_in(list(make().epoch(2, 1))) == reference[8:]
    shares = [list(make(Share(rank, 2)).epoch(2)) for rank in range(2)]
    assert drawn_in([batch for step in zip(*shares, strict=True) for batch in step]) == reference
    for other in (make(seed=2).epoch(2), make(name="round-1").epoch(2), make().epoch(3)):
        changed = dict(drawn_in(list(other)))
        assert any(changed.get(own, companion) != companion for own, companion in reference)


def test_a_batch_moves_with_all_its_parts(make):
    batch = next(iter(make().epoch(4)))
    moved = batch.to("meta", non_blocking=True)
    assert {moved.images.device.type, moved.labels.device.type, moved.seeds.device.type} == {"meta"}
    assert moved.texts.ids.device.type == moved.companions.ids.device.type == "meta"
    assert moved.companion_found.device.type == "meta"
    assert batch.epoch.item() == 4
    assert moved.epoch.device.type == "meta"
    assert moved.shortened is None
    assert moved.companion_found.shape == batch.companion_found.shape == (8,)
