"""Random numbers that depend on what is being done, never on when, where or beside what it is done.

Every draw is seeded by (seed, purpose, epoch, sample), so a resumed run, a run on more processes and an
undisturbed run see the same shuffles, crops and dropout seeds.
"""

from __future__ import annotations

import hashlib

import numpy as np


def seed_of(*parts: object) -> int:
    """A 63-bit seed from any printable parts; the same parts give the same seed on every machine."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def sample_seeds(base: int, indices: np.ndarray) -> np.ndarray:
    """One int64 seed per sample index (splitmix64 of base + index)."""
    with np.errstate(over="ignore"):
        state = np.uint64(base) + (indices.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(1)).astype(np.int64)
