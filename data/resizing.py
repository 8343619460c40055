"""Resizing with antialiasing in whole numbers: the same bits by every version of every library, on every processor.

Each side is resized by itself, the width first. A pixel of the result is a weighted mean of those below the kernel, which is as
much wider than one pixel as the picture shrinks. Weights are rounded to 1 / 2^22 and the sums between and after the two passes
to 8 bits; so it has been in Pillow up to 12.3, whose results these are, and so it need not stay there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

_BITS = 22  # 255 and a kernel's negative parts still leave a sum within 32 bits
_HALF = 1 << (_BITS - 1)
# As Pillow's pixels are; others may be written.
_READ_ONLY = numba.types.Array(numba.uint8, 3, "C", readonly=True)
_ROWS, _BEGIN, _WEIGHTS = numba.uint8[:, ::1], numba.int64[::1], numba.int32[:, ::1]
_SIGNATURE = numba.void(_READ_ONLY, _BEGIN, _WEIGHTS, _BEGIN, _WEIGHTS, _ROWS, _ROWS)


def _tent(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic with a = -1/2 (IEEE Trans. ASSP 29(6), 1981)."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


Kernel = Callable[[NDArray[np.float64]], NDArray[np.float64]]
# Each with half its width.
KERNELS: dict[str, tuple[Kernel, float]] = {"bilinear": (_tent, 1.0), "bicubic": (_cubic, 2.0)}


@lru_cache(maxsize=4096)
def weights_of(length: int, wanted: int, interpolation: str) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Where the pixels of a side come from that is resized from `length` to `wanted`.

    Returns (wanted,) the first pixel that each is made of, and (wanted, taps) the weights of it and of those after it, in
    1 / 2^22; they add up to 1 but for rounding. No tap lies outside.
    """
    kernel, reach = KERNELS[interpolation]
    scale = length / wanted
    stretch = max(scale, 1.0)
    centres = (np.arange(wanted) + 0.5) * scale
    first = np.maximum(np.floor(centres - reach * stretch + 0.5).astype(np.int64), 0)
    last = np.minimum(np.floor(centres + reach * stretch + 0.5).astype(np.int64), length)
    taps = int((last - first).max())
    begin = np.minimum(first, length - taps)
    places = begin[:, None] + np.arange(taps)
    weights = kernel((places - centres[:, None] + 0.5) / stretch)
    weights[(places < first[:, None]) | (places >= last[:, None])] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    return begin, np.rint(weights * (1 << _BITS)).astype(np.int32)


def resize_pixels(
    pixels: NDArray[np.uint8], image_size: tuple[int, int], interpolation: str
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 to `image_size` = (height, width), by "bilinear" or "bicubic"."""
    height, width = image_size
    columns = weights_of(pixels.shape[1], width, interpolation)
    rows = weights_of(pixels.shape[0], height, interpolation)
    result = np.empty((height, width, 3), np.uint8)
    between = np.empty((pixels.shape[0], width * 3), np.uint8)
    _resize(np.ascontiguousarray(pixels), *columns, *rows, between, result.reshape(height, width * 3))
    return result


# Cached under its own name only: see data/kernels.py.
@numba.njit(_SIGNATURE, nogil=True, cache=__name__ == "data.resizing", boundscheck=False)
def _resize(pixels, begin_x, weights_x, begin_y, weights_y, between, out):
    """Both passes: `pixels` (H, W, 3) to `between` (H, 3 w), and that to `out` (h, 3 w)."""
    for y in range(pixels.shape[0]):
        for x in range(len(begin_x)):
            red = green = blue = np.int32(_HALF)
            for tap in range(weights_x.shape[1]):
                weight, place = weights_x[x, tap], begin_x[x] + tap
                red += weight * np.int32(pixels[y, place, 0])
                green += weight * np.int32(pixels[y, place, 1])
                blue += weight * np.int32(pixels[y, place, 2])
            between[y, 3 * x] = min(max(red >> _BITS, 0), 255)
            between[y, 3 * x + 1] = min(max(green >> _BITS, 0), 255)
            between[y, 3 * x + 2] = min(max(blue >> _BITS, 0), 255)
    sums = np.empty(out.shape[1], np.int32)
    for y in range(len(begin_y)):
        sums[:] = _HALF
        for tap in range(weights_y.shape[1]):
            weight, row = weights_y[y, tap], between[begin_y[y] + tap]
            for x in range(len(sums)):
                sums[x] += weight * np.int32(row[x])
        for x in range(len(sums)):
            out[y, x] = min(max(sums[x] >> _BITS, 0), 255)
