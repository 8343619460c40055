"""Random numbers that are hashes of what they decide: the same for any batch, device and number of processes.

Integers of 32 bits held in int64: torch has no unsigned product on every device, and one that wraps keeps its low 32 bits.
"""

from __future__ import annotations

from torch import Tensor

MASK32 = 0xFFFFFFFF
GOLDEN = 0x9E3779B1  # spreads small numbers over 32 bits: 2^32 divided by the golden ratio


def mix(values: Tensor) -> Tensor:
    """A bijection of 0 .. 2^32 - 1 in which every bit depends on every bit (the constants of lowbias32)."""
    values = (values ^ (values >> 16)) * 0x7FEB352D & MASK32
    values = (values ^ (values >> 15)) * 0x846CA68B & MASK32
    return values ^ (values >> 16)


def mix_seeds(seeds: Tensor) -> Tensor:
    """Seeds of 64 bits to hashes of 32, both int64."""
    return mix(mix(seeds & MASK32) ^ mix((seeds >> 32) & MASK32 ^ 0x5BD1E995))


def mix_numbers(hashes: Tensor, numbers: Tensor) -> Tensor:
    """A hash of each hash with a number beside it; the two are broadcast against each other."""
    return mix(hashes ^ mix(numbers * GOLDEN & MASK32))
