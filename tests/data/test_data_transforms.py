"""Augmentation against a plain loop per image, its distributions, and its independence from the batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data import transforms
from data.transforms import MEAN, STD, augment, erase_boxes, normalise, scaled_pad, uniform

MASK = 2**64 - 1
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SKEWED = ((0.2, 0.4, 0.6), (0.1, 0.3, 0.7))  # three different colours, so that none can take another's place


def pixels(count, height=48, width=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


def splitmix(value: int) -> int:
    """The output function of SplitMix64 (Steele et al., OOPSLA 2014) on Python's integers."""
    value &= MASK
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK
    return value ^ (value >> 31)


def draw(seed: int, number: int) -> float:
    return (splitmix(splitmix(seed) + (number + 1) * 0x9E3779B97F4A7C15) >> 11) / 2**53


def augment_one(
    image: np.ndarray, seed: int, pad: int, flip: float, erase: float, statistics=(MEAN, STD)
) -> np.ndarray:
    """One image, step by step, with numpy."""
    height, width = image.shape[:2]
    if draw(seed, 0) < flip:
        image = image[:, ::-1]
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    top, left = int(draw(seed, 1) * (2 * pad + 1)), int(draw(seed, 2) * (2 * pad + 1))
    crop = padded[top : top + height, left : left + width].astype(np.float64) / 255
    result = ((crop - np.array(statistics[0])) / np.array(statistics[1])).transpose(2, 0, 1)
    if draw(seed, 3) < erase:
        for attempt in range(10):
            area = height * width * (0.02 + 0.38 * draw(seed, 6 + attempt))
            ratio = math.exp(math.log(0.3) + math.log(11) * draw(seed, 16 + attempt))
            box_height, box_width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if box_height < height and box_width < width:
                y = int(draw(seed, 4) * (height - box_height + 1))
                x = int(draw(seed, 5) * (width - box_width + 1))
                result[:, y : y + box_height, x : x + box_width] = 0
                break
    return result


@pytest.mark.parametrize("statistics", [None, HALVES, SKEWED])
def test_normalise_is_the_formula(statistics):
    images = pixels(3)
    mean, std = torch.tensor(statistics or (MEAN, STD), dtype=torch.float64)
    expected = (images.double() / 255 - mean) / std
    result = normalise(images) if statistics is None else normalise(images, statistics=statistics)
    assert result.dtype == torch.float32
    assert result.is_contiguous()
    torch.testing.assert_close(result.double(), expected.permute(0, 3, 1, 2), atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 9),
    height=st.integers(4, 40),
    width=st.integers(4, 40),
    pad=st.integers(0, 10),
    flip=st.sampled_from([0.0, 0.5, 1.0]),
    erase=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(-(2**63), 2**63 - 10),
    statistics=st.sampled_from([(MEAN, STD), HALVES, SKEWED]),
)
def test_equals_the_plain_loop(count, height, width, pad, flip, erase, seed, statistics):
    images = pixels(count, height, width)
    seeds = torch.arange(count) + seed
    expected = [
        augment_one(image.numpy(), int(own), pad, flip, erase, statistics)
        for image, own in zip(images, seeds, strict=True)
    ]
    result = augment(images, seeds, pad=pad, flip=flip, erase=erase, statistics=statistics)
    assert result.shape == (count, 3, height, width)
    np.testing.assert_allclose(result.numpy(), np.stack(expected), atol=1e-5)


def test_a_sample_does_not_depend_on_its_batch():
    images, seeds = pixels(17), torch.arange(17) * 1_000_003
    together = augment(images, seeds)
    for chunk in (1, 4, 16):
        parts = [augment(i, s) for i, s in zip(images.split(chunk), seeds.split(chunk), strict=True)]
        assert torch.equal(torch.cat(parts), together)
    order = torch.randperm(17, generator=torch.Generator().manual_seed(1))
    assert torch.equal(augment(images[order], seeds[order]), together[order])
    assert torch.equal(augment(images, seeds), together)


def test_images_that_lie_as_planes_are_the_same_and_stay_untouched():
    """As the cache holds them: nothing is copied on the way, so nothing may be written to."""
    images, seeds = pixels(17), torch.arange(17)
    planes = images.permute(0, 3, 1, 2).contiguous()
    view, before = planes.permute(0, 2, 3, 1), planes.clone()
    assert torch.equal(augment(view, seeds), augment(images, seeds))
    assert torch.equal(normalise(view), normalise(images))
    assert torch.equal(planes, before)


@pytest.mark.parametrize("size", [(48, 24), (7, 5), (5, 31)])
@pytest.mark.parametrize("pad", [0, 3, 10])
def test_one_pass_on_a_cpu_gives_the_bits_of_the_steps_on_a_gpu(size, pad):
    images, seeds = pixels(40, *size), torch.arange(40)
    planes = images.permute(0, 3, 1, 2).contiguous()
    plan = transforms._plan(seeds, *size, pad, 0.5, 0.5)
    for statistics in ((MEAN, STD), HALVES):
        steps = transforms._in_steps(planes, plan, pad, statistics, torch.empty(planes.shape))
        assert torch.equal(augment(images, seeds, pad=pad, statistics=statistics), steps)
        plain = transforms.standardise(planes, statistics, torch.empty(planes.shape))
        assert torch.equal(normalise(images, statistics=statistics), plain)


def test_the_mask_is_zero_in_the_boxes():
    boxes = torch.tensor([[0, 0, 0, 0], [3, 2, 4, 5], [0, 1, 8, 1], [7, 6, 1, 2]])
    expected = torch.ones(4, 1, 8, 8)
    for image, (top, left, height, width) in zip(expected, boxes.tolist(), strict=True):
        image[:, top : top + height, left : left + width] = 0
    assert torch.equal(transforms.keep_mask(boxes, 8, 8), expected)


def test_an_empty_batch_stays_empty():
    assert augment(pixels(0), torch.arange(0)).shape == normalise(pixels(0)).shape == (0, 3, 48, 24)


def test_same_image_with_another_seed_looks_different():
    images = pixels(1).repeat(32, 1, 1, 1)
    results = augment(images, torch.arange(32)).flatten(1)
    assert len(torch.unique(results, dim=0)) == 32


def test_off_switches_leave_the_plain_pixels():
    images = pixels(5)
    assert torch.equal(augment(images, torch.arange(5), pad=0, flip=0.0, erase=0.0), normalise(images))
    flipped = augment(images, torch.arange(5), pad=0, flip=1.0, erase=0.0)
    assert torch.equal(flipped, normalise(images).flip(3))


def test_global_random_state_is_neither_used_nor_changed():
    images, seeds = pixels(4), torch.arange(4)
    torch.manual_seed(1)
    first, after = augment(images, seeds), torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(augment(images, seeds), first)


def test_draws_are_uniform_and_independent():
    draws = uniform(torch.arange(20_000), 26).numpy()
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean(0) - 0.5).max() < 5 * math.sqrt(1 / 12 / 20_000)
    histogram = np.stack([np.histogram(column, 20, (0, 1))[0] for column in draws.T])
    assert ((histogram - 1_000) ** 2 / 1_000).sum(1).max() < 60  # chi square, 19 degrees of freedom, p < 1e-5
    correlation = np.corrcoef(draws.T) - np.eye(26)
    assert np.abs(correlation).max() < 5 / math.sqrt(20_000)
    serial = np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]
    assert abs(serial) < 5 / math.sqrt(20_000)


def test_flip_and_erase_happen_half_of_the_time():
    count = 4_000
    images = torch.zeros(count, 8, 8, 3, dtype=torch.uint8)
    images[:, :, :4] = 255
    left_is_white = augment(images, torch.arange(count), pad=0, erase=0.0)[:, 0, 0, 0] > 0
    assert abs(left_is_white.float().mean() - 0.5) < 0.04
    boxes = erase_boxes(uniform(torch.arange(count), 26), 384, 128, 0.5)
    assert abs((boxes[:, 2] > 0).float().mean() - 0.5) < 0.04


def test_crops_reach_every_offset_evenly():
    count, pad = 11_000, 5
    images = torch.full((count, 12, 12, 3), 255, dtype=torch.uint8)
    result = augment(images, torch.arange(count), pad=pad, flip=0.0, erase=0.0)[:, 0] > 0
    rows = torch.where(result[:, 0].any(1), (~result.any(2)).sum(1), -(~result.any(2)).sum(1))
    columns = torch.where(result[:, :, 0].any(1), (~result.any(1)).sum(1), -(~result.any(1)).sum(1))
    for offsets in (rows, columns):
        counts = torch.bincount(offsets + pad, minlength=11)
        assert counts.shape == (11,)
        assert (counts - 1_000).abs().max() < 170


@pytest.mark.parametrize(("height", "width"), [(384, 128), (96, 48), (224, 224)])
def test_boxes_have_the_published_shapes(height, width):
    top, left, box_height, box_width = erase_boxes(uniform(torch.arange(5_000), 26), height, width, 1.0).T
    assert (box_height > 0).float().mean() > 0.999
    share = box_height * box_width / (height * width)
    ratio = box_height / box_width
    assert share.min() > 0.015
    assert share.max() < 0.41
    assert ratio.min() > 0.25
    assert ratio.max() < 3.6
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + box_height <= height).all()
    assert (left + box_width <= width).all()
    if height == width:  # every shape fits, so nothing skews the mean
        assert abs(share.mean() - 0.21) < 0.01
        assert abs(ratio.log().mean()) < 0.05


@pytest.mark.parametrize("statistics", [(MEAN, STD), SKEWED])
def test_erased_pixels_are_the_mean_colour(statistics):
    images, seeds = pixels(64), torch.arange(64)
    erased, whole = (augment(images, seeds, erase=share, statistics=statistics) for share in (1.0, 0.0))
    changed = erased != whole
    assert (erased[changed] == 0).all()
    assert 0.1 < changed.float().mean() < 0.3


def test_scaled_pad():
    assert [scaled_pad(size) for size in ((224, 224), (384, 128), (96, 48), (112, 56))] == [10, 10, 4, 5]


@pytest.mark.parametrize(
    ("images", "seeds", "words"),
    [
        (torch.zeros(2, 3, 8, 8), torch.arange(2), "uint8"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.arange(2), r"\(B, H, W, 3\)"),
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), torch.arange(3), "one int64 seed per image"),
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), torch.zeros(2), "int64"),
    ],
)
def test_wrong_shapes_are_refused(images, seeds, words):
    with pytest.raises(ValueError, match=words):
        augment(images, seeds)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_same_images():
    images, seeds = pixels(32), torch.arange(32)
    torch.testing.assert_close(augment(images.cuda(), seeds).cpu(), augment(images, seeds), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        augment(images.cuda(), seeds.cuda()).cpu(), augment(images, seeds), atol=1e-5, rtol=0
    )
