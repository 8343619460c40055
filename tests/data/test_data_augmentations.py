"""The pool of augmentations and the strong ones: every operation against torchvision's, the draws against a plain loop, and any batch."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torchvision.transforms.v2 import functional as vision

from data import augmentations
from data.augmentations import POOL, augment_from_pool, augment_strongly
from data.transforms import MEAN, STD, normalise, uniform
from tests.data.test_data_transforms import SKEWED, draw, pixels

NAMES = [operation.__name__ for operation in POOL]


def textures(count, height=48, width=24):
    return pixels(count, height, width).permute(0, 3, 1, 2).float()


def numbers(count, seed=0):
    return uniform(torch.arange(count) + 1000 * seed, 26)


def by_torchvision(name: str, image: torch.Tensor, own: list[float], colour) -> torch.Tensor:
    """One operation on one picture (3, H, W) of 0..1, its decisions made in plain Python."""
    height, width = image.shape[1:]
    if name == "jitter":
        image = vision.adjust_brightness(image, 0.9 + 0.2 * own[0])
        image = vision.adjust_contrast(image, 0.9 + 0.2 * own[1])
        return vision.adjust_saturation(image, 0.9 + 0.2 * own[2])
    if name == "rotate":
        return vision.rotate(image, 30 * own[0] - 15, interpolation=vision.InterpolationMode.BILINEAR)
    if name == "grey":
        return vision.rgb_to_grayscale(image, 3) if own[0] < 0.1 else image
    if name == "flip":
        return vision.horizontal_flip(image) if own[0] < 0.5 else image
    if name == "erase":
        for attempt in range(10 if own[3] < 0.5 else 0):
            area = height * width * (0.1 + 0.1 * own[6 + attempt])
            ratio = math.exp(math.log(0.3) + math.log(11) * own[16 + attempt])
            tall, wide = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if tall < height and wide < width:
                top, left = int(own[4] * (height - tall + 1)), int(own[5] * (width - wide + 1))
                return vision.erase(image, top, left, tall, wide, colour)
        return image
    tall, wide = height, width
    for attempt in range(10):
        area = 0.9 + 0.1 * own[2 + attempt]
        ratio = math.exp(math.log(3 / 4) + math.log(16 / 9) * own[12 + attempt])
        shape = round(height * math.sqrt(area / ratio)), round(width * math.sqrt(area * ratio))
        if shape[0] <= height and shape[1] <= width:
            tall, wide = shape
            break
    top, left = int(own[0] * (height - tall + 1)), int(own[1] * (width - wide + 1))
    return vision.resized_crop(image, top, left, tall, wide, [height, width], antialias=False)


@pytest.mark.parametrize("size", [(48, 24), (40, 40), (7, 31)])
@pytest.mark.parametrize("name", NAMES)
def test_every_operation_is_that_of_torchvision(name, size):
    images, draws, colour = textures(60, *size), numbers(60), torch.tensor([10.0, 20, 30])[:, None, None]
    before = images.clone()
    found = getattr(augmentations, name)(images, draws, colour)
    expected = [
        255 * by_torchvision(name, image / 255, own, colour / 255)
        for image, own in zip(images, draws.tolist(), strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(expected), atol=0.02, rtol=0)
    assert torch.equal(images, before)
    assert (found != images).flatten(1).any(1).float().mean() > 0.03


@pytest.mark.parametrize("statistics", [(MEAN, STD), SKEWED])
def test_two_operations_one_after_the_other(statistics):
    images, seeds = pixels(80), torch.arange(80) * 7919 - 40
    colour = torch.tensor(statistics[0])[:, None, None]
    expected, pairs = [], set()
    for image, seed in zip(images, seeds.tolist(), strict=True):
        picture, chosen = image.permute(2, 0, 1) / 255, []
        for turn in range(2):
            own = [draw(seed, 27 * turn + number) for number in range(27)]
            chosen.append(NAMES[int(own[0] * 6)])
            picture = by_torchvision(chosen[-1], picture, own[1:], colour)
        pairs.add(tuple(chosen))
        expected.append(vision.normalize(picture, *map(list, statistics)))
    found = augment_from_pool(images, seeds, statistics=statistics)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-3, rtol=0)
    assert len(pairs) > 25
    assert any(first == second for first, second in pairs)


@pytest.mark.parametrize("statistics", [(MEAN, STD), SKEWED])
def test_a_strong_view_step_by_step(statistics):
    """Cropped, mirrored, recoloured and made grey by torchvision, every decision in plain Python."""
    images, seeds = pixels(60), torch.arange(60) * 7919 - 40
    height, width = images.shape[1:3]
    expected, done = [], Counter()
    for image, seed in zip(images, seeds.tolist(), strict=True):
        own = [[draw(seed, 26 * turn + number) for number in range(26)] for turn in range(4)]
        picture, (tall, wide) = image.permute(2, 0, 1) / 255, (height, width)
        for attempt in range(10):
            area = 0.2 + 0.8 * own[0][2 + attempt]
            ratio = math.exp(math.log(3 / 4) + math.log(16 / 9) * own[0][12 + attempt])
            shape = round(height * math.sqrt(area / ratio)), round(width * math.sqrt(area * ratio))
            if shape[0] <= height and shape[1] <= width:
                tall, wide = shape
                break
        top, left = int(own[0][0] * (height - tall + 1)), int(own[0][1] * (width - wide + 1))
        picture = vision.resized_crop(picture, top, left, tall, wide, [height, width], antialias=False)
        if own[1][0] < 0.5:
            picture, done["flip"] = vision.horizontal_flip(picture), done["flip"] + 1
        if own[2][0] < 0.8:
            picture = vision.adjust_brightness(picture, 0.6 + 0.8 * own[2][1])
            picture = vision.adjust_contrast(picture, 0.6 + 0.8 * own[2][2])
            picture, done["jitter"] = (
                vision.adjust_saturation(picture, 0.6 + 0.8 * own[2][3]),
                done["jitter"] + 1,
            )
        if own[3][0] < 0.2:
            picture, done["grey"] = vision.rgb_to_grayscale(picture, 3), done["grey"] + 1
        expected.append(vision.normalize(picture, *map(list, statistics)))
    found = augment_strongly(images, seeds, statistics=statistics)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-3, rtol=0)
    assert 20 < done["flip"] < 40 < done["jitter"] < 56
    assert 5 < done["grey"] < 20


def test_a_strong_view_does_not_depend_on_its_batch():
    images, seeds = pixels(12), torch.arange(12) * 1_000_003
    together = augment_strongly(images, seeds)
    alone = [augment_strongly(i, s) for i, s in zip(images.split(1), seeds.split(1), strict=True)]
    assert torch.equal(torch.cat(alone), together)


def test_every_operation_comes_as_often(monkeypatch):
    seen = Counter()

    def counted(operation):
        def count(images, draws, colour):
            seen[operation.__name__] += len(images)
            return images

        return count

    monkeypatch.setattr(augmentations, "POOL", tuple(map(counted, POOL)))
    images = pixels(6000, 2, 2)
    assert torch.equal(augment_from_pool(images, torch.arange(6000)), normalise(images))
    assert set(seen) == set(NAMES)
    assert all(abs(count - 2000) < 200 for count in seen.values())


def test_probabilities_and_ranges():
    count = 4000
    draws, colour = numbers(count), torch.full((3, 1, 1), -1.0)
    images = (
        torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))
        .mul(255)
        .expand(count, -1, -1, -1)
    )
    for name, probability in (("grey", 0.1), ("flip", 0.5), ("erase", 0.5)):
        changed = (getattr(augmentations, name)(images, draws, colour) != images).flatten(1).any(1)
        assert changed.float().mean().item() == pytest.approx(probability, abs=0.03), name
    share = (augmentations.erase(images, draws, colour)[:, 0] == -1).float().mean((1, 2))
    assert share[share > 0].min() > 0.08
    assert share.max() < 0.225


@pytest.mark.parametrize("threads", [1, 3])
def test_a_sample_does_not_depend_on_its_batch(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        images, seeds = pixels(40, 96, 130), torch.arange(40) * 1_000_003
        together = augment_from_pool(images, seeds)
        for chunk in (1, 4, 16):
            parts = [
                augment_from_pool(i, s) for i, s in zip(images.split(chunk), seeds.split(chunk), strict=True)
            ]
            assert torch.equal(torch.cat(parts), together)
        order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
        assert torch.equal(augment_from_pool(images[order], seeds[order]), together[order])
    finally:
        torch.set_num_threads(before)


def test_images_stay_untouched_and_global_randomness_unused():
    images, seeds = pixels(17), torch.arange(17)
    before, view = images.clone(), images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    torch.manual_seed(1)
    first, after = augment_from_pool(images, seeds), torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(augment_from_pool(view, seeds), first)
    assert torch.equal(images, before)
    assert first.dtype == torch.float32
    assert augment_from_pool(pixels(0), torch.arange(0)).shape == (0, 3, 48, 24)
    assert len(torch.unique(augment_from_pool(pixels(1).repeat(32, 1, 1, 1), torch.arange(32)), dim=0)) > 20


@pytest.mark.parametrize(
    ("images", "seeds", "words"),
    [
        (torch.zeros(2, 3, 8, 8), torch.arange(2), "uint8"),
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), torch.arange(3), "one int64 seed per image"),
    ],
)
def test_wrong_shapes_are_refused(images, seeds, words):
    with pytest.raises(ValueError, match=words):
        augment_from_pool(images, seeds)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_same_images():
    images, seeds = pixels(64), torch.arange(64)
    expected = augment_from_pool(images, seeds)
    for own in (seeds, seeds.cuda()):
        torch.testing.assert_close(augment_from_pool(images.cuda(), own).cpu(), expected, atol=1e-3, rtol=0)
