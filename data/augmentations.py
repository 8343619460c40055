"""Augmentations by name: flip, crop and erase (`data.transforms.augment`), two operations out of a pool, or strong ones.

The pool is TBPS-CLIP's (Cao et al., AAAI 2024) and SynTBPR's; strong ones are for losses that compare views of an image. As in `data.transforms` every random number is a hash of the
sample's seed: an image looks the same in any batch, on any process and device.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from data.buffers import Buffers
from data.images import MEAN, STD, Statistics
from data.transforms import (
    DRAWS,
    check_seeds,
    empty_result,
    erase_boxes,
    keep_mask,
    planes_of,
    standardise,
    uniform,
)

OPERATIONS = 2  # how many of the pool an image gets, one after the other; the same one may come twice
JITTER = 0.1
DEGREES = 15.0
CROP_SCALE, CROP_RATIO = (0.9, 1.0), (3 / 4, 4 / 3)
GREY, FLIP, ERASE = 0.1, 0.5, 0.5  # probabilities
POOL_ERASE_SCALE = (0.1, 0.2)
STRONG_CROP_SCALE = (0.2, 1.0)
STRONG_JITTER, STRONG_JITTERED, STRONG_GREY = 0.4, 0.8, 0.2  # by how much, and the probabilities
_CROP_ATTEMPTS = 10
_LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


def augment_from_pool(
    images: Tensor,
    seeds: Tensor,
    *,
    buffers: Buffers | None = None,
    statistics: Statistics = (MEAN, STD),
) -> Tensor:
    """Training pixels: two operations of `POOL`, drawn with replacement, then normalised.

    images (B, H, W, 3) uint8, seeds (B,) int64 -> (B, 3, H, W) float32 on the images' device. `statistics` and `buffers` are
    those of `data.transforms.normalise`. Raises ValueError for images or seeds of another shape or type.
    """
    result = empty_result(images, buffers)
    check_seeds(seeds, len(images))
    pixels = planes_of(images).float()
    colour = 255 * torch.tensor(statistics[0])[:, None, None]
    # Decided where the seeds are cheap to read: which rows an operation gets must not make a GPU wait.
    draws = uniform(seeds.cpu(), OPERATIONS * (1 + DRAWS)).view(-1, OPERATIONS, 1 + DRAWS)
    for turn in range(OPERATIONS):
        chosen = (draws[:, turn, 0] * len(POOL)).long()
        for number, operation in enumerate(POOL):
            rows = (chosen == number).nonzero()[:, 0]
            if len(rows):
                own, at, fill = (
                    part.to(pixels.device, non_blocking=True)
                    for part in (draws[rows, turn, 1:], rows, colour)
                )
                pixels.index_copy_(0, at, operation(pixels.index_select(0, at), own, fill))
    return standardise(pixels, statistics, result)


def augment_strongly(
    images: Tensor,
    seeds: Tensor,
    *,
    buffers: Buffers | None = None,
    statistics: Statistics = (MEAN, STD),
) -> Tensor:
    """A view that little is left of but who is in it: cropped, often recoloured, sometimes grey; then normalised.

    SimCLR's (Chen et al., ICML 2020, appendix A), in MoCo v2's strength: a crop of 20 to 100 % of the area, mirrored in half
    of all cases, jitter of 0.6 to 1.4 in four of five, grey in one of five. Without hue and blur, which TBPS-CLIP found
    harmful on people told apart by colours. Arguments, result and errors as `augment_from_pool`.
    """
    result = empty_result(images, buffers)
    check_seeds(seeds, len(images))
    pixels = planes_of(images).float()
    draws = uniform(seeds.cpu(), 4 * DRAWS).view(-1, 4, DRAWS).to(pixels.device, non_blocking=True)
    cropping, mirroring, recolouring, greying = draws.unbind(dim=1)
    pixels = flip(crop(pixels, cropping, scale=STRONG_CROP_SCALE), mirroring)
    recoloured = jitter(pixels, recolouring[:, 1:], strength=STRONG_JITTER)
    pixels = torch.where(_marked(recolouring, STRONG_JITTERED), recoloured, pixels)
    return standardise(grey(pixels, greying, probability=STRONG_GREY), statistics, result)


# The operations: (n, 3, H, W) pixels of 0..255, (n, DRAWS) uniform numbers, (3, 1, 1) mean colour -> pixels. What else
# they take is the pool's unless it is given.


def jitter(
    pixels: Tensor, draws: Tensor, _colour: Tensor | None = None, *, strength: float = JITTER
) -> Tensor:
    """Brightness, contrast and saturation, in this order, each multiplied by 0.9 to 1.1; never the hue."""
    factors = 1 - strength + 2 * strength * draws[:, :3].float()
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(dim=1)
    pixels = (brightness * pixels).clamp(max=255)
    # Row by row: a sum over all of an image alone would be divided over threads, and then round otherwise.
    mean = _luma(pixels).sum(dim=3, keepdim=True).sum(dim=2, keepdim=True) / pixels[0, 0].numel()
    pixels = (contrast * pixels + (1 - contrast) * mean).clamp(0, 255)
    return (saturation * pixels + (1 - saturation) * _luma(pixels)).clamp(0, 255)


def rotate(pixels: Tensor, draws: Tensor, _colour: Tensor) -> Tensor:
    """By -15 to 15 degrees around the middle; what comes from outside of the picture is black."""
    height, width = pixels.shape[2:]
    angle = torch.deg2rad(DEGREES * (2 * draws[:, 0] - 1))[:, None, None]
    down = torch.arange(height, device=pixels.device)[None, :, None] - (height - 1) / 2
    right = torch.arange(width, device=pixels.device)[None, None, :] - (width - 1) / 2
    x = torch.cos(angle) * right - torch.sin(angle) * down + (width - 1) / 2
    y = torch.sin(angle) * right + torch.cos(angle) * down + (height - 1) / 2
    return _resample(pixels, x, y)


def crop(
    pixels: Tensor,
    draws: Tensor,
    _colour: Tensor | None = None,
    *,
    scale: tuple[float, float] = CROP_SCALE,
) -> Tensor:
    """A part of 90 to 100 % of the area, resized to the whole; its sides may change their ratio by 3/4 to 4/3.

    Of ten drawn shapes the first that fits into the image is taken, as in torchvision's RandomResizedCrop; without any, the
    whole image. The ratio is to the image's own, which is 1 there.
    """
    height, width = pixels.shape[2:]
    shapes = draws[:, 2 : 2 + 2 * _CROP_ATTEMPTS]
    low, high = scale
    area = low + (high - low) * shapes[:, :_CROP_ATTEMPTS]
    low, high = (math.log(bound) for bound in CROP_RATIO)
    ratio = torch.exp(low + (high - low) * shapes[:, _CROP_ATTEMPTS:])
    heights, widths = (height * torch.sqrt(area / ratio)).round(), (width * torch.sqrt(area * ratio)).round()
    fits = (heights <= height) & (widths <= width)
    first, found = fits.to(torch.uint8).argmax(dim=1, keepdim=True), fits.any(dim=1, keepdim=True)
    tall = torch.where(found, heights.gather(1, first), height)
    wide = torch.where(found, widths.gather(1, first), width)
    y = _stretched(height, tall, draws[:, :1])
    x = _stretched(width, wide, draws[:, 1:2])
    return _resample(pixels, x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width))


def grey(
    pixels: Tensor, draws: Tensor, _colour: Tensor | None = None, *, probability: float = GREY
) -> Tensor:
    """Without colour, with a probability of 0.1."""
    return torch.where(_marked(draws, probability), _luma(pixels), pixels)


def flip(pixels: Tensor, draws: Tensor, _colour: Tensor | None = None) -> Tensor:
    """Mirrored, with a probability of 0.5."""
    return torch.where(_marked(draws, FLIP), pixels.flip(3), pixels)


def erase(pixels: Tensor, draws: Tensor, colour: Tensor) -> Tensor:
    """With a probability of 0.5 a box of 10 to 20 % of the image becomes the mean colour."""
    boxes = erase_boxes(draws, *pixels.shape[2:], ERASE, POOL_ERASE_SCALE)
    return torch.where(keep_mask(boxes, *pixels.shape[2:]) > 0, pixels, colour)


POOL: tuple[Callable[[Tensor, Tensor, Tensor], Tensor], ...] = (jitter, rotate, crop, grey, flip, erase)


def _marked(draws: Tensor, probability: float) -> Tensor:
    return (draws[:, 0] < probability)[:, None, None, None]


def _luma(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.unbind(dim=1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[:, None]


def _stretched(length: int, part: Tensor, draw: Tensor) -> Tensor:
    """Where the pixels of a side come from when a part of it (n, 1), at a drawn place, is resized to all: (n, length)."""
    start = (draw * (length - part + 1)).floor()
    place = (torch.arange(length, device=part.device) + 0.5) * part / length - 0.5
    return start + place.clamp(min=torch.zeros_like(part), max=part - 1)


def _resample(pixels: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The pixels at these columns and rows (n, H, W), counted from 0, between pixels in proportion; black outside."""
    height, width = pixels.shape[2:]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1).float()
    return grid_sample(pixels, grid, align_corners=False)
