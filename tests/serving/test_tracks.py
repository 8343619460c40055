"""Following boxes and thinning out crops, against plain counting."""

from __future__ import annotations

import random

import numpy as np
import pytest

from serving.tracks import PATIENCE, Tracker, difference, fingerprint_of, overlap
from tests.serving.footage_files import drawn


def counted(first, second) -> float:
    """Intersection over union by counting pixels."""
    one, other = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    for canvas, (left, top, wide, high) in ((one, first), (other, second)):
        canvas[top : top + high, left : left + wide] = True
    return (one & other).sum() / (one | other).sum()


def test_overlap_is_what_counting_pixels_gives():
    rng = random.Random(0)
    for _ in range(200):
        first, second = [
            (rng.randint(0, 20), rng.randint(0, 20), rng.randint(1, 20), rng.randint(1, 20)) for _ in "ab"
        ]
        assert overlap(first, second) == pytest.approx(counted(first, second))


def test_a_fingerprint_bears_light_and_tells_people_apart():
    person = drawn(4)
    brighter = np.clip(person.astype(int) + 12, 0, 255).astype(np.uint8)
    assert difference(fingerprint_of(person), fingerprint_of(person)) == 0
    assert difference(fingerprint_of(person), fingerprint_of(brighter)) <= 4
    assert difference(fingerprint_of(person), fingerprint_of(drawn(10))) >= 16
    slope = np.repeat(np.arange(0, 180, 20, dtype=np.uint8)[None, :, None], 8, 0).repeat(3, 2)
    assert fingerprint_of(slope) == 2**64 - 1  # every right neighbour is brighter
    assert fingerprint_of(slope[:, ::-1]) == 0


def test_a_walk_is_one_track_and_a_jump_another():
    tracker = Tracker(every=5, least_difference=16)
    steps = [tracker.follow(5 * step, [(10 + 3 * step, 0, 20, 60)], [7])[0] for step in range(6)]
    assert [seen.track for seen in steps] == [0] * 6
    assert [seen.keep for seen in steps] == [True] + [False] * 5
    (jumped,) = tracker.follow(30, [(300, 0, 20, 60)], [7])
    assert (jumped.track, jumped.keep) == (1, True)


def test_somebody_who_looks_different_is_kept_and_compared_with_what_was_kept():
    tracker = Tracker(every=1, least_difference=16)
    box = (0, 0, 20, 60)
    looks = [0, 2**10 - 1, 2**20 - 1, 2**30 - 1, 2**40 - 1]  # ten bits from one to the next
    kept = [tracker.follow(step, [box], [look])[0].keep for step, look in enumerate(looks)]
    assert kept == [True, False, True, False, True]


def test_zero_bits_keep_everything():
    tracker = Tracker(every=1, least_difference=0)
    assert all(tracker.follow(step, [(0, 0, 20, 60)], [5])[0].keep for step in range(4))


@pytest.mark.parametrize(("gone", "same"), [(PATIENCE - 1, True), (PATIENCE, False)])
def test_a_track_outlives_some_frames_without_a_box(gone, same):
    tracker = Tracker(every=10, least_difference=16)
    tracker.follow(0, [(0, 0, 20, 60)], [5])
    for step in range(1, gone + 1):
        tracker.follow(10 * step, [], [])
    assert (tracker.follow(10 * (gone + 1), [(0, 0, 20, 60)], [5])[0].track == 0) is same


def test_two_people_keep_their_tracks_in_any_order_of_the_boxes():
    tracker = Tracker(every=1, least_difference=16)
    tracker.follow(0, [(0, 0, 20, 60), (15, 0, 20, 60)], [1, 2])
    second = tracker.follow(1, [(16, 0, 20, 60), (1, 0, 20, 60)], [2, 1])
    assert [seen.track for seen in second] == [1, 0]


def test_what_an_earlier_process_saw_leads_to_the_same():
    rng = random.Random(1)
    frames = [[(rng.randint(0, 60), 0, 30, 60) for _ in range(rng.randint(0, 3))] for _ in range(30)]
    looks = [
        [rng.getrandbits(64) & rng.getrandbits(64) & rng.getrandbits(64) for _ in boxes] for boxes in frames
    ]
    whole = Tracker(2, 16)
    expected = [
        whole.follow(2 * number, *both) for number, both in enumerate(zip(frames, looks, strict=True))
    ]
    for cut in (1, 7, 20):
        resumed = Tracker(2, 16)
        for number, seen in enumerate(expected[:cut]):
            for one in seen:
                resumed.remember(2 * number, one)
        rest = [
            resumed.follow(2 * number, frames[number], looks[number]) for number in range(cut, len(frames))
        ]
        assert rest == expected[cut:]
