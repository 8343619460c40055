"""The inner loop of the image pipeline on a CPU, compiled by numba: one pass from 8-bit planes to the encoder's floats.

It gives bit by bit what the steps of `data.transforms` give one after the other, and it releases the GIL. The signature is
explicit and compiled code is cached on disk: a machine compiles once, at the first import. `data.transforms` imports it at
the first batch, since numba takes a quarter of a second to import.
"""

from __future__ import annotations

import numba
import numpy as np

# What is cached names its module, so a copy that `hubconf.py` loads under another name must neither write nor read it.
_OPTIONS = {"nogil": True, "cache": __name__ == "data.kernels", "boundscheck": False}


@numba.njit("void(u1[:,:,:,::1], i8[:,::1], i8, f4[::1], f4[::1], f4[:,:,:,::1])", **_OPTIONS)
def augment_planes(planes, plan, pad, scale, shift, out):
    """Flip, pad and crop, normalise and erase images (B, 3, H, W) into `out` of the same shape.

    A row of `plan` (B, 7) is what `data.transforms._plan` decided for an image: flipped, top and left of the crop within
    the picture with `pad` black pixels around it, and top, left, height and width of the erased box.
    A pixel p of colour c becomes p * scale[c] - shift[c]; an erased one becomes 0.

    Columns are counted in unsigned numbers: an index that might be negative keeps a loop from becoming vector instructions.
    """
    count, channels, height, width = planes.shape
    end = np.uint64(width)
    for b in range(count):
        flipped, down, right = plan[b, 0], plan[b, 1] - pad, plan[b, 2] - pad
        box_top, box_bottom = plan[b, 3], plan[b, 3] + plan[b, 5]
        box_left, box_right = np.uint64(plan[b, 4]), np.uint64(plan[b, 4] + plan[b, 6])
        # The columns first..last see the picture; none does where the padding is wider than the picture.
        first = min(width, max(0, -right))
        last = max(first, min(width, width - right))
        begin, stop, seen = np.uint64(first), np.uint64(last), np.uint64(last - first)
        source = np.uint64(width - 1 - right - first if flipped else first + right)  # of column `begin`
        for c in range(channels):
            factor, offset = scale[c], shift[c]
            for y in range(height):
                if not 0 <= y + down < height:
                    for x in range(end):
                        out[b, c, y, x] = -offset
                else:
                    for x in range(begin):
                        out[b, c, y, x] = -offset
                    for x in range(stop, end):
                        out[b, c, y, x] = -offset
                    if flipped:
                        for x in range(seen):
                            out[b, c, y, begin + x] = planes[b, c, y + down, source - x] * factor - offset
                    else:
                        for x in range(seen):
                            out[b, c, y, begin + x] = planes[b, c, y + down, source + x] * factor - offset
                if box_top <= y < box_bottom:
                    for x in range(box_left, box_right):
                        out[b, c, y, x] = 0
