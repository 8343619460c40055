"""Body, pose and viewpoint: a small skeleton in three dimensions and its projection to the picture.

Units: 1 = body height; x to the person's left, y down from the top of the head (0) to the soles (1), z forward.
Yaw turns the body about the vertical axis: 0 faces the camera, +90 degrees faces the right border of the picture,
180 shows the back. The projection is orthographic; a camera above the person moves what is near it down.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise
from math import atan2, cos, hypot, pi, radians, sin

from synthesis.drawn.attributes import Person
from synthesis.drawn.layers import Point

Vector = tuple[float, float, float]
SIDES = (-1, 1)  # the person's right and left

_SHOULDER_Y, _HIP_Y, _GROUND_Y = 0.232, 0.50, 0.985
_THIGH, _SHIN, _UPPER_ARM, _FOREARM = 0.235, 0.215, 0.155, 0.145
HEAD_Y = 0.083

# Cross sections of the torso: height, half width, half depth, centre forward of the spine.
_SECTIONS = {
    "man": (
        (0.178, 0.052, 0.040, 0.000),
        (0.196, 0.088, 0.050, 0.000),
        (0.222, 0.122, 0.060, 0.003),
        (0.290, 0.122, 0.078, 0.008),
        (0.410, 0.100, 0.068, 0.006),
        (0.500, 0.106, 0.074, -0.006),
        (0.545, 0.102, 0.070, -0.008),
    ),
    "woman": (
        (0.178, 0.046, 0.036, 0.000),
        (0.198, 0.072, 0.046, 0.000),
        (0.226, 0.103, 0.054, 0.004),
        (0.290, 0.104, 0.080, 0.020),
        (0.400, 0.080, 0.058, 0.008),
        (0.500, 0.112, 0.080, -0.014),
        (0.545, 0.110, 0.076, -0.014),
    ),
}


Arms = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Pose:
    """How one image shows the body: angles in radians, `pitch` the downward tilt of the camera as a slope.

    Attributes:
        stride: swing of the person's left leg, the right one's is opposite; 0 stands.
        arm_swing, elbow: of both arms, opposite to each other; `arms` instead: swing and elbow of the right and the left one.
        seat: forward swing of both thighs, with the shins upright; 0 stands.
        bend: how far a leg that swings back bends its knee, as a share of its swing.
        thumb: the side whose thumb is up, 0 none.
    """

    yaw: float
    stride: float
    arm_swing: float
    elbow: float
    pitch: float
    arms: Arms | None = None
    seat: float = 0.0
    bend: float = 0.75
    thumb: int = 0

    @property
    def view(self) -> str:
        """ "front", "back", "left" or "right" (the border of the picture the person faces)."""
        facing, sideways = cos(self.yaw), sin(self.yaw)
        if abs(facing) >= abs(sideways):
            return "front" if facing > 0 else "back"
        return "right" if sideways > 0 else "left"

    @property
    def walking(self) -> bool:
        """Whether the legs are apart."""
        return abs(self.stride) > 0.12


def sample_pose(view: str, pitch: float, rng: random.Random) -> Pose:
    """A pose for the wanted view; walking in seven of ten."""
    centre = {"front": 0.0, "right": pi / 2, "back": pi, "left": -pi / 2}[view]
    stride = rng.choice((-1, 1)) * (rng.uniform(0.2, 0.46) if rng.random() < 0.7 else rng.uniform(0.0, 0.07))
    return Pose(
        yaw=centre + radians(rng.uniform(-28, 28)),
        stride=stride,
        arm_swing=-stride * rng.uniform(0.5, 1.0) + rng.uniform(-0.06, 0.06),
        elbow=rng.uniform(0.12, 0.55),
        pitch=pitch,
    )


class Body:
    """The skeleton of `person` in `pose`, with the projections the drawing code asks for."""

    def __init__(self, person: Person, pose: Pose) -> None:
        self.person = person
        self.pose = pose
        self.width = 1.08 * person.build
        self.sections = [(y, w * self.width, d * self.width, z) for y, w, d, z in _SECTIONS[person.gender]]
        self._cos, self._sin = cos(pose.yaw), sin(pose.yaw)
        self._rise = 0.0
        self.legs = {side: self._leg(side) for side in SIDES}
        lowest = max(max(point[1] for point in leg) for leg in self.legs.values())
        self._rise = _GROUND_Y - lowest
        self.arms = {side: self._arm(side) for side in SIDES}

    def _leg(self, side: int) -> tuple[Vector, Vector, Vector, Vector]:
        """Hip, knee, ankle and toe."""
        stride = side * self.pose.stride
        swing = stride + self.pose.seat
        bend = 0.04 + (self.pose.bend * -stride if stride < 0 else 0.0) + self.pose.seat
        x = side * 0.054 * self.width
        hip = (x, _HIP_Y, -0.004)
        knee = (x * 1.02, hip[1] + _THIGH * cos(swing), hip[2] + _THIGH * sin(swing))
        shin = swing - bend
        ankle = (x, knee[1] + _SHIN * cos(shin), knee[2] + _SHIN * sin(shin))
        foot = max(-0.6, shin * 0.8)
        toe = (x + side * 0.012, ankle[1] + 0.022 - 0.075 * sin(foot), ankle[2] + 0.075 * cos(foot))
        return hip, knee, ankle, toe

    def _arm(self, side: int) -> tuple[Vector, Vector, Vector]:
        """Shoulder, elbow and hand."""
        swing, bend = side * self.pose.arm_swing, self.pose.elbow
        if self.pose.arms is not None:
            swing, bend = self.pose.arms[SIDES.index(side)]
        _, width, _, _ = self.sections[2]
        shoulder = (side * (width - 0.020), _SHOULDER_Y, 0.0)
        elbow = (
            shoulder[0] + side * 0.034,
            shoulder[1] + _UPPER_ARM * cos(swing),
            _UPPER_ARM * sin(swing),
        )
        lower = swing + bend
        hand = (elbow[0] + side * 0.006, elbow[1] + _FOREARM * cos(lower), elbow[2] + _FOREARM * sin(lower))
        return shoulder, elbow, hand

    def project(self, point: Vector) -> Point:
        """Body coordinates to figure coordinates of the picture."""
        x, y, z = point
        right = x * self._cos + z * self._sin
        near = z * self._cos - x * self._sin
        return right, y + self._rise + self.pose.pitch * near

    def depth(self, point: Vector) -> float:
        """Distance towards the camera; larger is nearer."""
        return point[2] * self._cos - point[0] * self._sin

    def section(self, y: float) -> tuple[float, float, float]:
        """Half width, half depth and forward offset of the torso at height `y`, interpolated."""
        rows = self.sections
        if y <= rows[0][0]:
            return rows[0][1:]
        for (y0, *low), (y1, *high) in pairwise(rows):
            if y <= y1:
                share = (y - y0) / (y1 - y0)
                return tuple(a + share * (b - a) for a, b in zip(low, high, strict=True))
        return rows[-1][1:]

    def prism(self, centre: Vector, half_width: float, half_depth: float) -> tuple[Point, float]:
        """Projected centre and half extent of an elliptic cylinder that turns with the body."""
        return self.project(centre), hypot(half_width * self._cos, half_depth * self._sin)

    def silhouette(self, rows: list[tuple[float, float, float, float]]) -> list[Point]:
        """Outline of a stack of elliptic sections (y, half width, half depth, offset), clockwise from the upper left."""
        left, right = [], []
        for y, half_width, half_depth, offset in rows:
            (x, top), extent = self.prism((0.0, y, offset), half_width, half_depth)
            left.append((x - extent, top))
            right.append((x + extent, top))
        return right + left[::-1]

    def surface(self, angle: float, y: float, ease: float = 1.0) -> Point:
        """The point of the torso's surface at `angle` (0 = the middle of the front, positive to the person's left)."""
        half_width, half_depth, offset = self.section(y)
        return self.project((ease * half_width * sin(angle), y, ease * half_depth * cos(angle) + offset))

    def facing(self, angle: float) -> float:
        """Cosine between the surface normal at `angle` and the camera; positive where the surface is seen."""
        return cos(angle + self.pose.yaw)

    def seen(self, start: float, end: float) -> tuple[float, float] | None:
        """The part of the surface angles [start, end] that faces the camera, or None."""
        half_width, half_depth, _ = self.section(0.35)
        # An ellipse, not a circle: its visible half begins where the outline is tangent to the line of sight.
        middle = atan2(-self._sin * half_depth, self._cos * half_width)
        middle += 2 * pi * round(((start + end) / 2 - middle) / (2 * pi))
        low, high = max(start, middle - pi / 2), min(end, middle + pi / 2)
        return (low, high) if high - low > 0.05 else None
