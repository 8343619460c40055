"""Which augmentation batches get, and further views of their images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.augmentations import augment_from_pool, augment_strongly
from data.transforms import augment
from engine.feeds import ImageFeed, PairBatches, Pairs
from engine.seeds import sample_seeds, seed_of
from models.world import World
from tests.engine.process_share import Share

CPU = torch.device("cpu")
COUNT = 29


@pytest.fixture
def make(crops, tokenizer):
    """make(world, **options) -> batches of 8 of ``COUNT`` pairs; pair p has the label p."""
    feed = ImageFeed(crops, (32, 16), None)
    pairs = Pairs(np.arange(COUNT) % 12, tokenizer(["red shirt"] * COUNT), np.arange(COUNT))

    def batches(world: World | None = None, **options) -> PairBatches:
        return PairBatches(feed, pairs, 8, world or World(), CPU, seed=1, name="x", padding=2, **options)

    return batches


@pytest.mark.parametrize("augmentation", ["default", "pool"])
def test_the_named_augmentation_by_the_seeds_of_the_samples(make, augmentation):
    batches = make(augmentation=augmentation, erasing=0.3)
    for batch in batches.epoch(3):
        chosen = batch.labels.numpy()
        seeds = torch.from_numpy(sample_seeds(seed_of(1, "x", "augment", 3), chosen))
        pixels = batches.feed.pixels(chosen % 12)
        if augmentation == "pool":
            expected = augment_from_pool(pixels, seeds)
        else:
            expected = augment(pixels, seeds, pad=2, erase=0.3)
        assert torch.equal(batch.images, expected)
        assert batch.views is None


@pytest.mark.parametrize("augmentation", ["default", "pool"])
def test_further_views_are_others_of_the_same_images(make, augmentation):
    kinds = ("same", "strong", "strong")
    batches = make(augmentation=augmentation, views=kinds)
    plain = make(augmentation=augmentation)
    for batch, without in zip(batches.epoch(1), plain.epoch(1), strict=True):
        assert torch.equal(batch.images, without.images), "the view that there is anyway stays as it is"
        assert batch.views.shape == (3, 8, 3, 32, 16)
        alone = make(augmentation=augmentation, erasing=0.5)
        for view, (kind, images) in enumerate(zip(kinds, batch.views, strict=True)):
            own = torch.from_numpy(sample_seeds(seed_of(1, "x", "view", view, 1), batch.labels.numpy()))
            pixels = batches.feed.pixels(batch.labels.numpy() % 12)
            expected = augment_strongly(pixels, own) if kind == "strong" else alone._augmented(pixels, own)
            assert torch.equal(images, expected)
        for one, other in ((batch.images, batch.views[0]), (batch.views[1], batch.views[2])):
            assert (one != other).flatten(1).any(1).sum() >= 4


@pytest.mark.parametrize("size", [2, 4])
def test_processes_share_and_a_resumed_epoch_goes_on(make, size):
    options = {"augmentation": "pool", "views": ("same", "strong")}
    whole = list(make(**options).epoch(5))
    shares = [list(make(Share(rank, size), **options).epoch(5)) for rank in range(size)]
    for step, expected in enumerate(whole):
        assert torch.equal(torch.cat([share[step].images for share in shares]), expected.images)
        assert torch.equal(torch.cat([share[step].views for share in shares], dim=1), expected.views)
    for first, second in zip(make(**options).epoch(5, 1), whole[1:], strict=True):
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.views, second.views)
