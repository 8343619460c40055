"""Batches depend on the seed, the name and the epoch, and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from data.cache import read_batch
from data.images import Pixels, read_image
from data.transforms import normalise
from engine.feeds import ImageFeed, PairBatches, Pairs
from engine.seeds import sample_seeds, seed_of
from models.backbones.blip.tokenizer import BlipTokenizer
from models.batch import Batch
from models.texts import TextBatch
from models.world import World
from tests.engine.process_share import Share

CPU = torch.device("cpu")
COUNT = 29


@pytest.fixture
def pairs(tokenizer) -> Pairs:
    words = ["red", "blue", "long", "white", "brown"]
    texts = tokenizer([" ".join(words[: 1 + i % 5]) + " shirt" * (i % 7) for i in range(COUNT)])
    return Pairs(np.arange(COUNT) % 12, texts, np.arange(COUNT) // 3)


@pytest.fixture
def make(crops, pairs):
    feed = ImageFeed(crops, (32, 16), None)

    def batches(world: World | None = None, *, seed: int = 1, name: str = "x", size: int = 8) -> PairBatches:
        return PairBatches(feed, pairs, size, world or World(), CPU, seed=seed, name=name, padding=2)

    return batches


def joined(parts: list[Batch]) -> Batch:
    return Batch(
        torch.cat([part.images for part in parts]),
        TextBatch.cat([part.texts for part in parts]),
        torch.cat([part.labels for part in parts]),
        torch.cat([part.seeds for part in parts]),
    )


def assert_equal(first: Batch, second: Batch) -> None:
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.texts.ids, second.texts.ids)
    assert torch.equal(first.texts.mask, second.texts.mask)
    assert torch.equal(first.labels, second.labels)
    assert torch.equal(first.seeds, second.seeds)


@pytest.mark.parametrize("size", [2, 4])
def test_processes_share_the_batches_of_one(make, size):
    whole = list(make().epoch(5))
    shares = [list(make(Share(rank, size)).epoch(5)) for rank in range(size)]
    assert len(whole) == COUNT // 8
    for step, expected in enumerate(whole):
        assert all(len(share[step]) == 8 // size for share in shares)
        assert_equal(joined([share[step] for share in shares]), expected)


def test_an_epoch_uses_every_pair_once_up_to_the_last_whole_batch(make, pairs):
    batches = list(make().epoch(0))
    labels = torch.cat([batch.labels for batch in batches])
    assert len(labels) == COUNT - COUNT % 8
    counts = torch.bincount(labels, minlength=COUNT // 3 + 1)
    assert bool((counts <= torch.bincount(torch.from_numpy(pairs.labels))).all())


def test_order_follows_seed_name_and_epoch_only(make):
    reference = list(make().epoch(2))
    for first, second in zip(reference, make().epoch(2), strict=True):
        assert_equal(first, second)
    for other in (make(seed=2).epoch(2), make(name="y").epoch(2), make().epoch(3)):
        assert any(not torch.equal(a.seeds, b.seeds) for a, b in zip(reference, other, strict=True))


def test_batches_know_how_many_epochs_have_gone_by(make):
    """With the part of their own; entered in the middle, an epoch goes on where it was."""
    for epoch in (0, 3):
        steps = make().steps
        assert steps > 1
        told = [batch.progress for batch in make().epoch(epoch)]
        assert all(progress.shape == () and progress.dtype == torch.float32 for progress in told)
        assert torch.stack(told).tolist() == pytest.approx([epoch + step / steps for step in range(steps)])
        assert [batch.progress for batch in make().epoch(epoch, 1)] == told[1:]


def test_an_epoch_entered_in_the_middle_is_the_rest_of_it(make):
    whole = list(make().epoch(1))
    for start in range(len(whole) + 1):
        rest = list(make().epoch(1, start))
        assert len(rest) == len(whole) - start
        for first, second in zip(rest, whole[start:], strict=True):
            assert_equal(first, second)


def test_small_sets_make_one_small_batch_and_too_small_ones_are_told(make):
    batches = make(Share(0, 2), size=100)
    assert (batches.steps, batches.batch_size) == (1, COUNT - 1)
    with pytest.raises(ValueError, match="fewer processes"):
        make(Share(0, 40), size=100)


def test_a_mistake_in_an_image_reaches_the_training(make, crops):
    crops[3].write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"03\.png"):
        list(make(size=29).epoch(0))


def test_the_cache_and_the_files_give_the_same_pixels(crops, tmp_path):
    files, cached = ImageFeed(crops, (32, 16), None), ImageFeed(crops, (32, 16), tmp_path / "cache")
    wanted = np.array([3, 0, 3, 11])
    assert torch.equal(files.pixels(wanted), cached.pixels(wanted))
    assert files.pixels(wanted)[1, 5, 5].tolist() == list(read_image(crops[0]).getpixel((5, 5)))
    parts = list(cached.batches(5, CPU))
    assert [len(part) for part in parts] == [5, 5, 2]
    assert torch.equal(torch.cat(parts), normalise(files.pixels(np.arange(12))))
    assert torch.equal(torch.cat(list(cached.batches(3, CPU, wanted))), normalise(files.pixels(wanted)))


def test_a_backbone_chooses_its_pixels(tmp_path, pairs, config):
    noise = np.random.default_rng(0).integers(0, 256, (12, 40, 20, 3), dtype=np.uint8)
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for path, picture in zip(paths, noise, strict=True):
        Image.fromarray(picture).save(path)
    own = Pixels((0.5, 0.4, 0.3), (0.5, 0.6, 0.7), "bicubic")
    cached, files = (
        ImageFeed.of(paths, config, (32, 16), pixels=own),
        ImageFeed(paths, (32, 16), None, pixels=own),
    )
    pixels = torch.from_numpy(read_batch(paths, (32, 16), interpolation="bicubic"))
    assert not torch.equal(pixels, ImageFeed(paths, (32, 16), None).pixels(np.arange(12)))
    expected = (pixels / 255 - torch.tensor(own.mean)) / torch.tensor(own.std)
    for feed in (cached, files):
        assert torch.equal(feed.pixels(np.arange(12)), pixels)
        found = torch.cat(list(feed.batches(5, CPU)))
        torch.testing.assert_close(found, expected.permute(0, 3, 1, 2), atol=1e-5, rtol=0)
        for batch in PairBatches(
            feed, pairs, 8, World(), CPU, seed=1, name="x", padding=0, erasing=0.0
        ).epoch(0):
            for image in batch.images:
                likely = torch.stack([found, found.flip(3)]).sub(image).abs().amax((2, 3, 4))
                assert likely.min() == 0


def test_seeds_are_distinct_and_known_for_ever():
    """These numbers are part of every result: a change of them changes all runs."""
    assert seed_of(0, "a", 1) == seed_of(0, "a", 1)
    assert len({seed_of(0, "a", 1), seed_of(0, "a1"), seed_of(0, "a", 2), seed_of(1, "a", 1)}) == 4
    assert seed_of("x") == 0x44B026B74216712D >> 1  # SHA-256 of "x" begins with 2d711642b726b044
    seeds = sample_seeds(seed_of("x"), np.arange(10_000))
    assert seeds.dtype == np.int64
    assert len(np.unique(seeds)) == 10_000
    assert (seeds >= 0).all()
    assert sample_seeds(seed_of("x"), np.array([17]))[0] == seeds[17]


def test_a_word_is_left_out_whole(crops):
    """Of a vocabulary of single letters; a word twice in a row, beside a comma, and with a hyphen."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        ",",
        "-",
        *letters,
        *(f"##{one}" for one in letters),
    ]
    tokenizer = BlipTokenizer(pieces)
    words = ["red", "t-shirt", "blue", "a"]
    caption = "red red, t-shirt blue a red"
    texts = tokenizer([caption] * COUNT)
    batches = PairBatches(
        ImageFeed(crops, (32, 16), None), Pairs(np.arange(COUNT) % 12, texts, np.arange(COUNT)), COUNT,
        World(), CPU, seed=1, name="x", padding=2, words=0.5,
    )  # fmt: skip
    lost = 0
    for epoch in range(20):
        (batch,) = batches.epoch(epoch)
        for ids, mask in zip(batch.feature_texts.ids, batch.feature_texts.mask, strict=True):
            left = tokenizer.decode(ids[mask])
            assert set(left.replace(",", " ").split()) <= set(words), left
            lost += 6 - len(left.replace(",", " ").split())
    assert 0.45 < lost / (6 * 20 * COUNT) < 0.55


def test_words_are_left_out_by_sample_and_epoch_and_the_ends_stay(make, pairs):
    plain, short = make(), make()
    short.words = 0.5
    lost = 0
    for whole, part in zip(plain.epoch(3), short.epoch(3), strict=True):
        assert torch.equal(whole.images, part.images)
        assert torch.equal(whole.texts.ids, part.texts.ids)
        assert whole.feature_texts is whole.texts
        for row in range(len(whole)):
            all_ids = whole.texts.ids[row][whole.texts.mask[row]].tolist()
            left = part.feature_texts.ids[row][part.feature_texts.mask[row]].tolist()
            rest = iter(all_ids)
            assert all(token in rest for token in left), "in the same order"
            assert (left[0], left[-1]) == (all_ids[0], all_ids[-1])
            lost += len(all_ids) - len(left)
    inner = sum(int(batch.texts.mask.sum()) - 2 * len(batch) for batch in plain.epoch(3))
    assert 0.3 < lost / inner < 0.7
    again = make()
    again.words = 0.5
    for first, second in zip(again.epoch(3), short.epoch(3), strict=True):
        assert torch.equal(first.feature_texts.ids, second.feature_texts.ids)
