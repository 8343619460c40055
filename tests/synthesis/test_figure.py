"""Geometry of the body against hand-worked views, and of the canvas against counted pixels."""

from __future__ import annotations

import random
from math import cos, pi, radians, sin

import numpy as np
import pytest

from synthesis.drawn.attributes import sample_people
from synthesis.drawn.figure import SIDES, Body, Pose, sample_pose
from synthesis.drawn.layers import Layers

PERSON = sample_people(1, seed=0)[0]


def _standing(yaw: float, stride: float = 0.0) -> Body:
    return Body(PERSON, Pose(yaw=yaw, stride=stride, arm_swing=0.0, elbow=0.1, pitch=0.0))


@pytest.mark.parametrize(
    ("degrees", "view"),
    [(0, "front"), (30, "front"), (90, "right"), (180, "back"), (-90, "left"), (210, "back")],
)
def test_view_follows_yaw(degrees, view):
    assert Pose(radians(degrees), 0.0, 0.0, 0.0, 0.0).view == view


def test_sampled_poses_show_the_wanted_view():
    rng = random.Random(0)
    for view in ("front", "back", "left", "right"):
        assert {sample_pose(view, 0.1, rng).view for _ in range(60)} == {view}


@pytest.mark.parametrize("stride", [0.0, 0.3, -0.45])
def test_the_lowest_foot_stands_on_the_ground(stride):
    body = _standing(0.4, stride)
    lowest = max(body.project(point)[1] for leg in body.legs.values() for point in leg)
    assert lowest == pytest.approx(0.985)


def test_facing_right_moves_the_chest_right_and_the_left_arm_away():
    body = _standing(pi / 2)
    assert body.surface(0.0, 0.3)[0] > 0.05
    assert body.depth(body.arms[1][0]) < 0 < body.depth(body.arms[-1][0])


def test_front_and_back_views_mirror_the_arms():
    front, back = _standing(0.0), _standing(pi)
    for side in SIDES:
        assert front.project(front.arms[side][0])[0] == pytest.approx(-back.project(back.arms[side][0])[0])


@pytest.mark.parametrize("yaw", [0.0, 0.4, 1.2, pi / 2, 2.5, pi, -1.0])
def test_seen_angles_are_those_in_front_of_the_outline(yaw):
    """The surface point moves to the right of the picture with the angle exactly where it faces the camera."""
    body = _standing(yaw)
    half_width, half_depth, _ = body.section(0.35)
    seen = body.seen(-0.9, 0.9)
    for angle in np.linspace(-0.9, 0.9, 91):
        slope = half_width * cos(angle) * cos(yaw) - half_depth * sin(angle) * sin(yaw)
        if abs(slope) > 0.006:
            assert (slope > 0) == (seen is not None and seen[0] <= angle <= seen[1])


def test_visible_counts_what_is_not_covered():
    layers = Layers((100, 50), (0.0, 0.0), 10.0)
    red, blue = layers.add("upper", (255, 0, 0)), layers.add("bag", (0, 0, 255))
    layers.polygon([(0, 0), (5, 0), (5, 5), (0, 5)], red)
    layers.polygon([(0, 0), (2.5, 0), (2.5, 5), (0, 5)], blue)
    shares = layers.visible()
    assert shares["bag"] == pytest.approx(0.25, abs=0.02)
    assert shares["upper"] == pytest.approx(0.25, abs=0.02)


def test_flatten_gives_premultiplied_colour():
    layers = Layers((40, 40), (0.0, 0.0), 1.0)
    layers.polygon([(0, 0), (19, 0), (19, 39), (0, 39)], layers.add("upper", (200, 100, 50)), edge=0)
    colour, coverage, gain = layers.flatten(4)
    assert colour.shape == (10, 10, 3)
    assert np.allclose(colour[:, :5], (200, 100, 50))
    assert np.allclose(colour[:, 5:], 0)
    assert np.allclose(coverage[:, :5], 1)
    assert np.allclose(coverage[:, 5:], 0)
    assert np.allclose(gain, 1)
