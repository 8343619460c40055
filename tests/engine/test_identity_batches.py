"""P x K batches by their plain properties: how many labels, pairs and images, how often, and the same wherever they are made."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import ConfigError, load_config
from engine.feeds import ImageFeed, PairBatches, Pairs
from engine.identity_batches import IdentityBatches
from engine.seeds import seed_of
from models.batch import Batch
from models.world import World
from tests.engine.process_share import Share

CPU = torch.device("cpu")


def table(captions: list[list[int]], shuffle: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(image, label) of every pair in any order; ``captions`` has the captions of each image of each label."""
    rows, image = [], 0
    for label, counts in enumerate(captions):
        for count in counts:
            rows += [(image, 3 * label + 1)] * count
            image += 1
    images, labels = np.random.default_rng(shuffle).permutation(rows).T
    return images, labels


def batches_of(captions: list[list[int]], size: int, each: int, seed: int = 0, shuffle: int = 0):
    """An epoch as (batches, K-groups in each, pairs in each): pair indices (S, P, K), and the table."""
    images, labels = table(captions, shuffle)
    numbers = IdentityBatches(images, labels, size, each).order(seed)
    return (numbers % len(labels)).reshape(-1, size // each, each), images, labels


def check(captions: list[list[int]], size: int, each: int, seed: int, shuffle: int) -> None:
    batches, images, labels = batches_of(captions, size, each, seed, shuffle)
    assert len(batches) == len(labels) // size
    pairs_of, images_of = (
        Counter(labels.tolist()),
        Counter(labels[np.unique(images, return_index=True)[1]].tolist()),
    )
    for batch in batches:
        for group in batch:
            (label,) = set(labels[group].tolist())
            shown = Counter(group.tolist())
            if pairs_of[label] >= each:
                assert set(shown.values()) == {1}, "K distinct pairs"
            else:
                assert len(shown) == pairs_of[label], "all pairs there are"
                assert max(shown.values()) - min(shown.values()) <= 1, "none twice as often as it must"
            if images_of[label] >= each:
                assert len(set(images[group].tolist())) == each, "K distinct images"
        times = Counter(labels[batch[:, 0]].tolist())
        assert max(times.values()) <= -(-(size // each) // len(pairs_of)), "P labels where there are as many"
    whole = [label for label, count in pairs_of.items() if count >= each]
    seen = set(labels[batches.reshape(-1)].tolist())
    if len(whole) <= batches.shape[0] * batches.shape[1]:
        assert seen >= set(whole), "every label with enough pairs appears"
    else:
        assert seen <= set(whole), "they come before those that would repeat pairs"
        assert len(seen) == batches.shape[0] * batches.shape[1]


@settings(max_examples=300, deadline=None)
@given(
    captions=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=7), min_size=1, max_size=40),
    each=st.integers(1, 5),
    places=st.integers(1, 6),
    seed=st.integers(0, 2**62),
    shuffle=st.integers(0, 9),
)
def test_any_set_of_pairs_makes_batches_of_p_labels_with_k_pairs(captions, each, places, seed, shuffle):
    if sum(map(sum, captions)) >= each * places:
        check(captions, each * places, each, seed, shuffle)


@pytest.mark.parametrize("seed", range(5))
def test_sets_like_the_real_ones(seed):
    generator = np.random.default_rng(seed)
    few = [[2] * int(count) for count in generator.integers(1, 7, 300)]
    giant = [[2] * 400, *([[1, 2]] * 50), *([[1]] * 100)]  # pseudo labels: a large cluster beside small ones
    check(few, 64, 4, seed, seed)
    check(giant, 36, 4, seed, seed)


def test_where_everything_fits_each_pair_comes_once():
    """4 captions x K images, 2 captions x 2 K images, 1 caption x 3 K images; and labels of two images that fill their K."""
    captions = [[4] * 4, [2] * 8, [1] * 12, [2, 2], [1, 3], [4]] * 5
    for seed in range(10):
        batches, _, labels = batches_of(captions, 4 * 5, 4, seed)
        assert sorted(batches.reshape(-1).tolist()) == list(range(len(labels)))


def test_every_pair_is_as_likely_as_any_other():
    """Labels of few and of many pairs: over many epochs a label's share of the places is its share of the pairs."""
    captions = [[1], [2], [1, 1, 1], [2, 2], [1] * 6, [2] * 5, [1] * 13] * 4
    epochs = 2000
    times: Counter[int] = Counter()
    for seed in range(epochs):
        batches, _, labels = batches_of(captions, 12, 3, seed)
        times.update(labels[batches[:, :, 0].reshape(-1)].tolist())
    places = batches.shape[0] * batches.shape[1]
    for label, count in Counter(labels.tolist()).items():
        expected = places * count / len(labels)
        assert times[label] / epochs == pytest.approx(expected, abs=0.05 + 0.02 * expected)


def test_with_fewer_labels_than_places_they_come_again_and_none_more_than_the_others():
    batches, _, labels = batches_of([[1] * 9, [2] * 7, [1] * 3], 5 * 2, 2)
    for batch in batches:
        assert max(Counter(labels[batch[:, 0]].tolist()).values()) <= 2
    batches, _, labels = batches_of([[1] * 9], 4 * 2, 2)
    assert sorted(batches[0].reshape(-1).tolist()) == sorted(set(batches[0].reshape(-1).tolist()))


@pytest.fixture
def make(crops, tokenizer):
    """make(world, size=..., name=...) -> batches of 3 labels with 2 pairs each, out of 29 pairs."""
    images = np.concatenate([np.repeat(np.arange(11), 2), np.full(7, 11)])
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4])[images]
    pairs = Pairs(images, tokenizer(["a red shirt"] * len(images)), labels)
    feed = ImageFeed(crops, (32, 16), None)

    def batches(
        world: World | None = None, *, seed: int = 1, name: str = "x", size: int = 6, each: int | None = 2
    ):
        return PairBatches(
            feed,
            pairs,
            size,
            world or World(),
            CPU,
            seed=seed,
            name=name,
            companions=True,
            images_per_identity=each,
        )

    return batches


def parts(batches: list[Batch]) -> tuple[torch.Tensor, ...]:
    return tuple(
        torch.cat([getattr(batch, name) for batch in batches])
        for name in ("images", "labels", "seeds", "companion_found")
    )


def same(first: list[Batch], second: list[Batch]) -> bool:
    return all(torch.equal(*pair) for pair in zip(parts(first), parts(second), strict=True))


def test_batches_hold_three_labels_twice_and_no_two_samples_share_a_seed(make):
    for epoch in range(3):
        batches = list(make().epoch(epoch))
        assert len(batches) == make().steps == 29 // 6
        for batch in batches:
            assert sorted(Counter(batch.labels.tolist()).values()) == [2, 2, 2]
        seeds = torch.cat([batch.seeds for batch in batches])
        assert len(seeds.unique()) == len(seeds)


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_the_batches_of_one_process(make, size):
    whole = list(make().epoch(5))
    shares = [list(make(Share(rank, size)).epoch(5)) for rank in range(size)]
    assert same([batch for step in zip(*shares, strict=True) for batch in step], whole)


def test_the_order_follows_seed_name_and_epoch_and_can_be_entered_anywhere(make):
    whole = list(make().epoch(2))
    assert same(list(make().epoch(2)), whole)
    for start in range(len(whole)):
        assert same(list(make().epoch(2, start)), whole[start:])
    for other in (make(seed=2).epoch(2), make(name="y").epoch(2), make().epoch(3)):
        assert not same(list(other), whole)


def test_a_random_order_is_that_of_version_0_1(make):
    batches = make(each=None)
    order = np.random.default_rng(seed_of(1, "x", "order", 4)).permutation(29)[:24]
    labels = torch.cat([batch.labels for batch in batches.epoch(4)])
    assert labels.tolist() == batches.pairs.labels[order].tolist()


def test_batches_are_rounded_to_what_processes_and_identities_divide(make):
    assert make(size=100).batch_size == 28
    assert make(Share(0, 3), size=100, each=4).batch_size == 24
    with pytest.raises(ValueError, match="8 pairs of each identity: use fewer processes or"):
        make(Share(0, 4), size=6, each=8)


def test_a_batch_that_identities_do_not_fill_is_refused():
    with pytest.raises(ConfigError) as caught:
        load_config([], ["train.sampler=identity", "train.batch_size=30"])
    assert str(caught.value) == (
        "'train.sampler' (--set train.sampler=identity) has the value 'identity': it takes train.images_per_identity = 4 "
        "pairs of each identity, which a train.batch_size of 30 is no multiple of; change one of the two."
    )
    assert load_config([], ["train.sampler=identity"]).train.images_per_identity == 4
    assert load_config([], ["train.batch_size=30"]).train.sampler == "random"
