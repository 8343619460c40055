"""The inner loop of the image pipeline on a CPU, compiled by numba: one pass from 8-bit planes to the encoder's floats.

It gives bit by bit what the steps of `data.transforms` give one after the other, and it releases the GIL. The signature is
explicit and compiled code is cached on disk: a machine compiles once, at the first import.
"""

from __future__ import annotations

import numba
import numpy as np

_OPTIONS = {"nogil": True, "cache": True, "boundscheck": False}


@numba.njit("void(u1[::1], f4, f4, f4[::1])", **_OPTIONS)
def _scaled(source, factor, offset, out):
    for x in range(len(out)):
        out[x] = source[x] * factor - offset


@numba.njit("void(u1[::1], f4, f4, f4[::1])", **_OPTIONS)
def _scaled_mirrored(source, factor, offset, out):
    last = np.uint64(
        len(out) - 1
    )  # unsigned: an index that might be negative keeps the loop from becoming vector instructions
    for x in range(np.uint64(len(out))):
        out[x] = source[last - x] * factor - offset


@numba.njit("void(u1[:,:,:,::1], i8[:,::1], i8, f4[::1], f4[::1], f4[:,:,:,::1])", **_OPTIONS)
def augment_planes(planes, plan, pad, scale, shift, out):
    """Flip, pad and crop, normalise and erase images (B, 3, H, W) into `out` of the same shape.

    A row of `plan` (B, 7) is what `data.transforms._plan` decided for an image: flipped, top and left of the crop within
    the picture with `pad` black pixels around it, and top, left, height and width of the erased box.
    A pixel p of colour c becomes p * scale[c] - shift[c]; an erased one becomes 0.
    """
    count, channels, height, width = planes.shape
    for b in range(count):
        flipped, down, right = plan[b, 0], plan[b, 1] - pad, plan[b, 2] - pad
        box_top, box_left = plan[b, 3], plan[b, 4]
        box_bottom, box_right = box_top + plan[b, 5], box_left + plan[b, 6]
        # The columns first..last see the picture; none does where the padding is wider than the picture.
        first = min(width, max(0, -right))
        last = max(first, min(width, width - right))
        for c in range(channels):
            factor, offset = scale[c], shift[c]
            black = -offset
            for y in range(height):
                row = out[b, c, y]
                if not 0 <= y + down < height:
                    row[:] = black
                else:
                    source = planes[b, c, y + down]
                    row[:first] = black
                    row[last:] = black
                    if flipped:
                        start = width - right - last
                        _scaled_mirrored(
                            source[start : start + last - first], factor, offset, row[first:last]
                        )
                    else:
                        _scaled(source[first + right : last + right], factor, offset, row[first:last])
                if box_top <= y < box_bottom:
                    row[box_left:box_right] = 0
