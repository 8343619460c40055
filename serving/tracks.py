"""One person in many frames: following boxes from frame to frame, and telling which crop of a person adds something.

Following is simple on purpose. A box continues the track whose last box it overlaps most (intersection over union, at
least `LEAST_OVERLAP`, greedily from the largest); a track that no box continues in `PATIENCE` sampled frames has ended. A crop is
kept where it is the first of its track, or where its fingerprint differs in enough bits from that of the track's crop kept
last. So somebody who waits leaves one crop, and somebody who turns round a second one. Tracks are no identities: who leaves the
picture and comes back begins a new one, and two who cross may swap theirs.

The fingerprint is a difference hash: the crop in grey at 9 x 8 px, and for each of the 64 pairs of neighbours in a row a bit that
says whether the right one is brighter. Light and JPEG change few bits, another pose or another person many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

Box = tuple[int, int, int, int]  # left, top, width, height in pixels of the frame

LEAST_OVERLAP = 0.3
PATIENCE = 3


@dataclass
class Track:
    """A person who is followed: the box seen last, in which frame, and the fingerprint of the crop kept last."""

    number: int
    box: Box
    frame: int
    kept: int


@dataclass(frozen=True)
class Seen:
    """A box with its track's number, its fingerprint, and whether its crop is worth keeping."""

    box: Box
    track: int
    fingerprint: int
    keep: bool


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    wide = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    high = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    if wide <= 0 or high <= 0:
        return 0.0
    common = wide * high
    return common / (first[2] * first[3] + second[2] * second[3] - common)


def fingerprint_of(crop: np.ndarray) -> int:
    """The 64-bit difference hash of a crop (H, W, 3) uint8."""
    small = Image.fromarray(crop).convert("L").resize((9, 8), Image.Resampling.BOX)
    grey = np.asarray(small, np.int16)
    bits = (grey[:, 1:] > grey[:, :-1]).reshape(-1)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def difference(first: int, second: int) -> int:
    """In how many of the 64 bits two fingerprints differ."""
    return (first ^ second).bit_count()


class Tracker:
    """Follows the persons of one source.

    Args:
        every: how many frames lie between two that are looked at.
        least_difference: bits in which a crop must differ from its track's last one to be kept; 0 keeps all.
    """

    def __init__(self, every: int, least_difference: int) -> None:
        self.every, self.least_difference = every, least_difference
        self.tracks: dict[int, Track] = {}
        self._next = 0

    def follow(self, frame: int, boxes: Sequence[Box], fingerprints: Sequence[int]) -> list[Seen]:
        """The boxes of one frame with their tracks, in the same order."""
        continued = self._continued(frame, boxes)
        seen = []
        for box, fingerprint, track in zip(boxes, fingerprints, continued, strict=True):
            number = self._next if track is None else track.number
            keep = track is None or difference(track.kept, fingerprint) >= self.least_difference
            seen.append(Seen(box, number, fingerprint, keep))
            self.remember(frame, seen[-1])
        return seen

    def remember(self, frame: int, seen: Seen) -> None:
        """Takes up what was seen in a frame, now or by an earlier process."""
        track = self.tracks.get(seen.track)
        if track is None:
            self.tracks[seen.track] = Track(seen.track, seen.box, frame, seen.fingerprint)
            self._next = max(self._next, seen.track + 1)
            return
        track.box, track.frame = seen.box, frame
        if seen.keep:
            track.kept = seen.fingerprint

    def _continued(self, frame: int, boxes: Sequence[Box]) -> list[Track | None]:
        """For every box the track that it continues."""
        longest = PATIENCE * self.every
        self.tracks = {
            number: track for number, track in self.tracks.items() if frame - track.frame <= longest
        }
        pairs = [
            (overlap(track.box, box), place, track)
            for track in self.tracks.values()
            for place, box in enumerate(boxes)
        ]
        found: list[Track | None] = [None] * len(boxes)
        taken: set[int] = set()
        for amount, place, track in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2].number)):
            if amount >= LEAST_OVERLAP and found[place] is None and track.number not in taken:
                found[place] = track
                taken.add(track.number)
        return found
