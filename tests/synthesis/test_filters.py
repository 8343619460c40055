"""Which images of people are kept, on a table of key-point sets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from synthesis.filters import CONFIDENCE, REASONS, crop, is_whole_person, missing, reason_against
from synthesis.generation.parts import Person

NOSE, LEFT_EYE, RIGHT_EAR = 0, 1, 4
SHOULDER, WRIST = 5, 10
HIPS = (11, 12)
KNEE, ANKLE = 13, 16


def seen(*points: int, confidence: float = 0.9) -> np.ndarray:
    """Key points of which those are seen and the others hardly."""
    keypoints = np.zeros((17, 3))
    keypoints[:, 2] = 0.05
    keypoints[list(points), 2] = confidence
    return keypoints


def person(*points: int, box=(0.0, 0.0, 10.0, 30.0)) -> Person:
    return Person(box, 0.99, seen(*points))


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (range(17), ""),
        ((NOSE, SHOULDER, KNEE), ""),
        ((LEFT_EYE, WRIST, ANKLE), ""),
        ((RIGHT_EAR, 7, 14), ""),
        ((SHOULDER, WRIST, KNEE, ANKLE), "head"),
        ((NOSE, LEFT_EYE, KNEE), "upper"),
        ((NOSE, *HIPS, KNEE), "upper"),  # hips are asked for by no group and stand for none
        ((NOSE, SHOULDER, *HIPS), "lower"),
        ((NOSE, *range(5, 13)), "lower"),  # a portrait down to the hips
        ((), "head"),
        ((KNEE,), "head"),  # the first from the head down
        ((NOSE, RIGHT_EAR), "upper"),
    ],
)
def test_a_whole_person_is_seen_from_head_to_feet(points, expected):
    assert missing(seen(*points)) == expected
    assert is_whole_person(seen(*points)) is (expected == "")


def test_a_point_counts_above_the_threshold_and_not_at_it():
    assert not is_whole_person(seen(*range(17), confidence=CONFIDENCE))
    assert is_whole_person(seen(*range(17), confidence=np.nextafter(CONFIDENCE, 1)))
    assert is_whole_person(seen(*range(17), confidence=0.2), confidence=0.1)
    assert not is_whole_person(seen(*range(17), confidence=np.nan))


def test_every_set_of_seen_groups():
    """All 2 ** 17 sets would say no more: every point decides as the others of its group do."""
    groups = [range(5), range(5, 11), range(13, 17)]
    for chosen in itertools.product(*([None, *group] for group in groups)):
        expected = all(point is not None for point in chosen)
        assert is_whole_person(seen(*(point for point in chosen if point is not None))) is expected


@pytest.mark.parametrize("shape", [(17, 2), (16, 3), (3, 17), (1, 17, 3)])
def test_other_points_than_cocos_are_refused(shape):
    with pytest.raises(ValueError, match="17 key points"):
        is_whole_person(np.ones(shape))


def test_lists_are_taken_as_well():
    assert is_whole_person(seen(*range(17)).tolist())


@pytest.mark.parametrize(
    ("people", "expected"),
    [
        ([], "none"),
        ([person(*range(17))], ""),
        ([person(*range(17)), person(*range(17))], "several"),
        ([person(*range(17)), person()], "several"),  # also where the second one is hardly seen
        ([person(*range(5, 17))], "head"),
        ([person(0, 13)], "upper"),
        ([person(0, 5)], "lower"),
    ],
)
def test_exactly_one_person_or_a_word_why_not(people, expected):
    assert reason_against(people) == expected
    assert not expected or expected in REASONS


def test_the_crop_holds_every_pixel_that_the_box_touches():
    image = Image.fromarray(np.arange(40 * 20, dtype=np.uint8).reshape(40, 20)).convert("RGB")
    cut = crop(image, person(box=(3.2, 5.9, 9.1, 30.0)))
    assert cut.size == (7, 25)
    assert np.array_equal(np.asarray(cut), np.asarray(image)[5:30, 3:10])
    assert crop(image, person(box=(-5.0, -1.0, 99.0, 99.0))).tobytes() == image.tobytes()


@pytest.mark.parametrize("box", [(20.0, 0.0, 30.0, 10.0), (5.0, 5.0, 5.0, 9.0), (-9.0, -9.0, 0.0, 4.0)])
def test_a_box_beside_the_image_is_refused(box):
    with pytest.raises(ValueError, match="nothing of an image"):
        crop(Image.new("RGB", (20, 40)), person(box=box))
