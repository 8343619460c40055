"""From 8-bit pixels to what an image encoder takes, with and without augmentation.

Every random number is a hash of (the sample's own seed, the number of the draw), so a sample looks the same in any
batch, on any rank and in any worker, and nothing has to be kept to resume.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from data.buffers import Buffers
from data.images import MEAN, STD, Statistics

__all__ = ["MEAN", "STD", "augment", "erase_boxes", "normalise", "scaled_pad", "uniform"]

ERASE_SCALE = (0.02, 0.4)
ERASE_RATIO = (0.3, 3.3)
_ERASE_ATTEMPTS = 10

# One number per kind of draw. Changing them changes every augmented image, and with them every pinned result.
_FLIP, _TOP, _LEFT, _ERASE, _ERASE_TOP, _ERASE_LEFT, _FIRST_ATTEMPT = range(7)
DRAWS = _FIRST_ATTEMPT + 2 * _ERASE_ATTEMPTS

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # SplitMix64's constants, as signed numbers
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def normalise(
    images: Tensor, buffers: Buffers | None = None, *, statistics: Statistics = (MEAN, STD)
) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 with this mean and standard deviation, on the images' device.

    `statistics` are two tuples of three numbers, for pixels in 0..1; without any, CLIP's and BLIP's. On a CPU the result's memory comes from `buffers`, if there are any.
    """
    result = empty_result(images, buffers)
    if images.is_cuda:
        return standardise(planes_of(images), statistics, result)
    plan = torch.zeros(len(images), 7, dtype=torch.int64)
    return _in_one_pass(planes_of(images), plan, 0, statistics, result)


def augment(
    images: Tensor,
    seeds: Tensor,
    *,
    pad: int = 10,
    flip: float = 0.5,
    erase: float = 0.5,
    buffers: Buffers | None = None,
    statistics: Statistics = (MEAN, STD),
) -> Tensor:
    """Training pixels: flip, pad and random crop, normalise, random erasing.

    images (B, H, W, 3) uint8 (fastest where they lie in memory as planes, as the cache's do), seeds (B,) int64 ->
    (B, 3, H, W) float32 on the images' device. `pad` black pixels are added on every side before the crop back to H x W.
    `flip` and `erase` are probabilities; an erased box covers 2 to 40 % of the image with a height to width ratio of 0.3
    to 3.3 and becomes zero, the mean colour (Zhong et al., Random Erasing Data Augmentation, AAAI 2020). Each row depends
    on its own image and seed only. `statistics` and `buffers` are those of `normalise`.
    Raises ValueError for images or seeds of another shape or type.
    """
    result = empty_result(images, buffers)
    count, _, height, width = result.shape
    check_seeds(seeds, count)
    plan = _plan(seeds, height, width, pad, flip, erase)
    if images.is_cuda:
        # One small transfer that nothing waits for; pinned or not, copies towards a GPU are safe without blocking.
        return _in_steps(
            planes_of(images), plan.to(images.device, non_blocking=True), pad, statistics, result
        )
    return _in_one_pass(planes_of(images), plan, pad, statistics, result)


def check_seeds(seeds: Tensor, count: int) -> None:
    """ValueError unless there is one int64 seed for each of `count` images."""
    if seeds.shape != (count,) or seeds.dtype != torch.int64:
        raise ValueError(
            f"augment needs one int64 seed per image: {count} images, seeds {tuple(seeds.shape)} {seeds.dtype}."
        )


def _in_one_pass(planes: Tensor, plan: Tensor, pad: int, statistics: Statistics, out: Tensor) -> Tensor:
    """On a CPU: every pixel is read once and written once."""
    from data.kernels import augment_planes  # only who turns pixels to floats needs numba

    scale, shift = (constant.flatten().numpy() for constant in _constants(planes.device, statistics))
    augment_planes(planes.numpy(), plan.numpy(), pad, scale, shift, out.numpy())
    return out


def _in_steps(planes: Tensor, plan: Tensor, pad: int, statistics: Statistics, out: Tensor) -> Tensor:
    """On a GPU: a few kernels for the whole batch."""
    flipped, top, left = plan[:, :3].unbind(dim=1)
    standardise(_crop(_flip(planes, flipped), top, left, pad), statistics, out)
    return out.mul_(keep_mask(plan[:, 3:], *out.shape[2:]))


def _plan(seeds: Tensor, height: int, width: int, pad: int, flip: float, erase: float) -> Tensor:
    """All decisions for a batch, (B, 7) int64: flipped, crop top, crop left, and the box of `erase_boxes`."""
    draws = uniform(seeds, DRAWS)
    crop = (draws[:, [_TOP, _LEFT]] * (2 * pad + 1)).long()
    flipped = (draws[:, [_FLIP]] < flip).long()
    return torch.cat([flipped, crop, erase_boxes(draws, height, width, erase)], dim=1)


def scaled_pad(image_size: tuple[int, int]) -> int:
    """The padding for images of (H, W): 10 pixels from 224 on, in proportion below, so that small images move as much."""
    return min(10, round(10 * max(image_size) / 224))


def uniform(seeds: Tensor, count: int) -> Tensor:
    """(B,) int64 seeds -> (B, count) float64 in [0, 1): draw k of a seed, by SplitMix64 hashing of both."""
    counters = torch.arange(1, count + 1, dtype=torch.int64, device=seeds.device) * _GOLDEN
    bits = _mix(_mix(seeds)[:, None] + counters)
    return (_shift_right(bits, 11)).double() * 2.0**-53


def erase_boxes(
    draws: Tensor,
    height: int,
    width: int,
    probability: float,
    scale: tuple[float, float] = ERASE_SCALE,
) -> Tensor:
    """The boxes to erase, (B, 4) int64: top, left, height, width; all zero where nothing is erased.

    Of ten drawn shapes, which cover a share of the image within `scale`, the first that fits into it is taken, as in
    torchvision's RandomErasing. `draws` are (B, DRAWS) uniform numbers.
    """
    shapes = draws[:, _FIRST_ATTEMPT:]
    low, high = scale
    area = height * width * (low + (high - low) * shapes[:, :_ERASE_ATTEMPTS])
    low, high = (math.log(bound) for bound in ERASE_RATIO)
    ratio = torch.exp(low + (high - low) * shapes[:, _ERASE_ATTEMPTS:])
    heights, widths = torch.sqrt(area * ratio).round().long(), torch.sqrt(area / ratio).round().long()
    fits = (heights < height) & (widths < width)
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
    erased = (draws[:, _ERASE] < probability) & fits.any(dim=1)
    box_height, box_width = heights.gather(1, first)[:, 0] * erased, widths.gather(1, first)[:, 0] * erased
    top = (draws[:, _ERASE_TOP] * (height - box_height + 1)).long() * erased
    left = (draws[:, _ERASE_LEFT] * (width - box_width + 1)).long() * erased
    return torch.stack([top, left, box_height, box_width], dim=1)


def empty_result(images: Tensor, buffers: Buffers | None) -> Tensor:
    """Memory for the encoder's (B, 3, H, W) of these images; ValueError unless they are (B, H, W, 3) uint8."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"Images must be (B, H, W, 3) uint8, not {tuple(images.shape)} {images.dtype}.")
    count, height, width, channels = images.shape
    if buffers is not None and not images.is_cuda:
        return buffers.empty(count, channels, height, width)
    return torch.empty(count, channels, height, width, device=images.device)


def planes_of(images: Tensor) -> Tensor:
    """(B, 3, H, W); no copy for images out of the cache, which lie that way in memory."""
    return images.permute(0, 3, 1, 2).contiguous()


def standardise(planes: Tensor, statistics: Statistics, out: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) of 0..255 with this mean and standard deviation, into `out`."""
    scale, shift = _constants(planes.device, statistics)
    return out.copy_(planes).mul_(scale).sub_(shift)


@cache
def _constants(device: torch.device, statistics: Statistics) -> tuple[Tensor, Tensor]:
    """1 / (255 std) and mean / std, (1, 3, 1, 1) each; kept per device, as copying them anew makes a GPU wait."""
    mean, std = torch.tensor(statistics).view(2, 1, 3, 1, 1)
    return (1 / (255 * std)).to(device), (mean / std).to(device)


def _flip(planes: Tensor, flipped: Tensor) -> Tensor:
    """Mirror the marked images. Choosing whole images out of both versions is 20 times faster than torch.where."""
    count = len(planes)
    rows = torch.arange(count, device=planes.device) + count * flipped
    return torch.cat([planes, planes.flip(3)]).index_select(0, rows)


def _crop(planes: Tensor, top: Tensor, left: Tensor, pad: int) -> Tensor:
    """Pad with black and cut each image at its own place.

    All possible crops are one strided view of the padded memory, so that a single index_select copies whole rows.
    """
    count, channels, height, width = planes.shape
    padded = functional.pad(planes, (pad, pad, pad, pad))
    plane, row = (height + 2 * pad) * (width + 2 * pad), width + 2 * pad
    last = ((count - 1) * channels * plane) + 2 * pad * row + 2 * pad
    crops = padded.as_strided((last + 1, channels, height, width), (1, plane, row, 1))
    starts = torch.arange(count, device=planes.device) * (channels * plane) + top * row + left
    return crops.index_select(0, starts)


def keep_mask(boxes: Tensor, height: int, width: int) -> Tensor:
    """(B, 4) boxes -> (B, 1, H, W) float32, 0 inside the box and 1 elsewhere."""
    top, left, box_height, box_width = boxes[:, :, None].unbind(dim=1)
    rows, columns = torch.arange(height, device=boxes.device), torch.arange(width, device=boxes.device)
    in_rows = ((rows >= top) & (rows < top + box_height)).float()
    in_columns = ((columns >= left) & (columns < left + box_width)).float()
    # 1 - outer product in one pass; comparing on the full grid took ten times longer.
    return torch.addcmul(
        in_rows.new_ones(()), in_rows[:, None, :, None], in_columns[:, None, None, :], value=-1
    )


def _mix(values: Tensor) -> Tensor:
    values = (values ^ _shift_right(values, 30)) * _MIX_1
    values = (values ^ _shift_right(values, 27)) * _MIX_2
    return values ^ _shift_right(values, 31)


def _shift_right(values: Tensor, bits: int) -> Tensor:
    """Logical shift; torch's own keeps the sign of int64."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)
