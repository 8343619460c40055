"""Head, hair, hats, scarves and bags."""

from __future__ import annotations

from math import cos, pi, sin

from synthesis.drawn.figure import HEAD_Y, SIDES, Body, Vector
from synthesis.drawn.layers import NEUTRAL, Layers, Point

_HEAD_WIDTH, _HEAD_DEPTH, _HEAD_HEIGHT = 0.052, 0.060, 0.071
_EYE = (40, 32, 30)


class Head:
    """Paints neck, head, hair, hat and scarf of one body."""

    def __init__(self, body: Body, layers: Layers) -> None:
        self.body, self.layers = body, layers
        person = body.person
        self.skin = layers.add("face", person.skin)
        self.hair = layers.add("hair", person.hair.rgb)
        self.facing, self.aside = cos(body.pose.yaw), sin(body.pose.yaw)
        self.centre, self.half = body.prism((0.0, HEAD_Y, 0.012), _HEAD_WIDTH, _HEAD_DEPTH)

    def behind(self) -> None:
        """Hair that hangs behind the body, seen from the front."""
        if self.facing > 0:
            self._hanging_hair()

    def neck(self) -> None:
        """The neck; before the torso's collar."""
        x, y = self.centre
        root = self.body.project((0.0, 0.19, 0.0))
        self.layers.limb([(x * 0.6, y + 0.04), root], [0.030, 0.036], self.skin, NEUTRAL - 12)

    def front(self) -> None:
        """Head, face, hair and hat; after the torso."""
        if self.body.person.scarf is not None:
            self._scarf()
        self._skull()
        if self.facing <= 0:
            self._hanging_hair()
        if self.body.person.hat is not None:
            self._hat()

    def _skull(self) -> None:
        x, y = self.centre
        person = self.body.person
        bald = person.hair_style == "bald"
        self.layers.ellipse((x, y), (self.half, _HEAD_HEIGHT), self.skin if bald else self.hair)
        if self.facing > -0.42:
            shift = 0.30 * self.aside * self.half
            width = self.half * (0.90 if self.facing > 0.5 else 0.74)
            lift = 0.0 if bald else 0.018
            self.layers.ellipse((x + shift, y + lift), (width, _HEAD_HEIGHT - lift * 0.9), self.skin, edge=10)
            if not bald:
                self._fringe(x + shift, y, width)
            self._features(x + shift, y, width)
        elif not bald and person.hair_style in ("short", "bun", "ponytail"):
            self.layers.ellipse((x, y + 0.062), (self.half * 0.6, 0.020), self.skin, edge=0)
        if bald or person.hair_style == "long":
            return
        for side in SIDES:
            ear = (side * _HEAD_WIDTH, HEAD_Y + 0.012, 0.006)
            if self.body.depth(ear) > -0.02:
                self.layers.ellipse(self.body.project(ear), (0.007, 0.013), self.skin, edge=10)

    def _fringe(self, x: float, y: float, width: float) -> None:
        top = y - _HEAD_HEIGHT
        points = [
            (x - width * 1.04, y - 0.004), (x - width * 0.9, y - 0.042), (x, top - 0.004),
            (x + width * 0.9, y - 0.042), (x + width * 1.04, y - 0.004), (x + width * 0.62, y - 0.032),
            (x - width * 0.1, y - 0.040), (x - width * 0.66, y - 0.026),
        ]  # fmt: skip
        self.layers.polygon(points, self.hair, edge=0)

    def _features(self, x: float, y: float, width: float) -> None:
        """Eyes, nose, mouth, beard and glasses on the visible part of the face."""
        eye = self.layers.add("features", _EYE)
        ahead = x + 0.55 * self.aside * width
        for side in SIDES:
            spot = ahead + side * 0.42 * width * max(0.0, self.facing)
            self.layers.ellipse((spot, y + 0.010), (0.007, 0.005), eye, edge=0)
        person = self.body.person
        if person.mask:
            self._mask(x, y, width)
        if person.beard and not person.mask:
            self.layers.ellipse(
                (x + 0.2 * self.aside * width, y + 0.057), (width * 0.62, 0.017), self.hair, edge=0
            )
        lips = self.layers.add("features", (176, 84, 80))
        self.layers.line([(ahead - 0.013, y + 0.042), (ahead + 0.013, y + 0.042)], 0.007, lips)
        if person.glasses:
            frame = self.layers.add("glasses", (22, 22, 26))
            reach = width * (0.86 if self.facing > 0.5 else 0.7)
            left, right = ahead - reach, ahead + reach
            if self.facing <= 0.5:
                left, right = sorted((ahead + 0.2 * self.aside * width, x - self.aside * width * 0.6))
            self.layers.line([(left, y + 0.008), (right, y + 0.008)], 0.006, frame)
            for side in SIDES:
                spot = ahead + side * 0.42 * width * max(0.0, self.facing)
                self.layers.ellipse((spot, y + 0.011), (0.017, 0.013), frame, edge=0)

    def _mask(self, x: float, y: float, width: float) -> None:
        """A cloth mask over nose and mouth."""
        paint = self.layers.add("mask", (206, 222, 232))
        middle = x + 0.25 * self.aside * width
        self.layers.ellipse((middle, y + 0.042), (width * 0.84, 0.026), paint, edge=16)

    def _hanging_hair(self) -> None:
        x, y = self.centre
        style = self.body.person.hair_style
        back = -0.055 * self.aside
        length = {"shoulder-length": 0.105, "long": 0.215}.get(style, 0.0)
        if length:
            wide = self.half * (1.12 if abs(self.facing) > 0.5 else 0.85)
            middle = x + back
            right = [(0.88, -0.02), (1.0, 0.25), (1.08, 0.6), (0.92, 0.9), (0.45, 1.02)]
            right = [(wide * part, y + length * drop if drop > 0 else y + drop) for part, drop in right]
            points = [(middle + reach, low) for reach, low in right] + [
                (middle - reach, low) for reach, low in right[::-1]
            ]
            self.layers.polygon(points, self.hair)
            for share in (-0.4, 0.3):
                crease = [(x + back + share * wide, y), (x + back + share * wide, y + length)]
                self.layers.crease(crease, 0.006, NEUTRAL + 14)
        elif style == "ponytail":
            root = self.body.project((0.0, HEAD_Y - 0.02, -0.055))
            tip = self.body.project((0.0, HEAD_Y + 0.13, -0.085))
            self.layers.limb([root, tip], [0.020, 0.014], self.hair)
        elif style == "bun":
            self.layers.ellipse(self.body.project((0.0, HEAD_Y - 0.052, -0.050)), (0.028, 0.026), self.hair)

    def side_strands(self) -> None:
        """Long hair in front of the shoulders, seen from the front or the side; after torso and arms."""
        style = self.body.person.hair_style
        if style not in ("long", "shoulder-length") or self.facing < -0.2:
            return
        x, y = self.centre
        length = 0.075 if style == "shoulder-length" else 0.16
        for side in SIDES:
            if side * self.aside > 0.5:
                continue  # the cheek that is turned away from the hair
            root = (x + side * self.half * 0.9, y + 0.01)
            tip = (x + side * self.half * (1.15 if abs(self.aside) < 0.5 else 1.0), y + length)
            self.layers.limb([root, tip], [0.013, 0.012], self.hair)

    def _hat(self) -> None:
        x, y = self.centre
        hat = self.body.person.hat
        paint = self.layers.add("hat", hat.colour.rgb)
        rim = y - 0.022
        wide, top = self.half * 1.1, y - _HEAD_HEIGHT - 0.006
        if hat.kind == "sun hat":
            self.layers.ellipse((x, rim), (self.half * 2.0, 0.019), paint, edge=30)
            wide = self.half * 1.0
        if hat.kind == "knit hat":
            top -= 0.008
        dome = [
            (x - wide, rim), (x - wide * 0.96, y - 0.052), (x - wide * 0.7, top + 0.012), (x - wide * 0.25, top),
            (x + wide * 0.25, top), (x + wide * 0.7, top + 0.012), (x + wide * 0.96, y - 0.052), (x + wide, rim),
        ]  # fmt: skip
        self.layers.polygon(dome, paint)
        if hat.kind == "knit hat":
            self.layers.line([(x - wide, rim - 0.004), (x + wide, rim - 0.004)], 0.026, paint, NEUTRAL - 22)
        elif hat.kind == "cap" and self.facing > -0.35:
            ahead = x + 1.15 * self.aside * self.half
            self.layers.ellipse(
                (ahead, rim + 0.002),
                (self.half * (0.85 if self.facing > 0.5 else 0.7), 0.012),
                paint,
                NEUTRAL - 26,
            )

    def _scarf(self) -> None:
        paint = self.layers.add("scarf", self.body.person.scarf.colour.rgb)
        (x, y), extent = self.body.prism((0.0, 0.178, 0.004), 0.068, 0.062)
        self.layers.ellipse((x, y), (extent, 0.027), paint, edge=34)
        if self.body.facing(0.35) > 0.2:
            start, end = (self.body.surface(0.35, height, 1.15) for height in (0.19, 0.33))
            self.layers.line([start, end], 0.040, paint, NEUTRAL - 6)


def paint_phone(body: Body, layers: Layers) -> None:
    """A phone in the hand that is nearer to the camera."""
    side = max(SIDES, key=lambda side: body.depth(body.arms[side][2]))
    x, y = body.project(body.arms[side][2])
    paint = layers.add("phone", (28, 30, 36))
    layers.polygon(
        [(x - 0.017, y - 0.03), (x + 0.017, y - 0.03), (x + 0.017, y + 0.03), (x - 0.017, y + 0.03)], paint
    )


def paint_thumb(body: Body, layers: Layers) -> None:
    """The thumb that a pose has up."""
    if body.pose.thumb:
        x, y = body.project(body.arms[body.pose.thumb][2])
        paint = layers.add("skin", body.person.skin)
        layers.limb([(x, y - 0.004), (x, y - 0.04)], [0.012, 0.009], paint)


class Bag:
    """Paints the bag of one body: the part behind the body first, the part in front of it later."""

    def __init__(self, body: Body, layers: Layers) -> None:
        self.body, self.layers = body, layers
        self.thing = body.person.bag
        if self.thing is None:
            return
        self.paint = layers.add("bag", self.thing.colour.rgb)
        dark = tuple(round(channel * 0.72) for channel in self.thing.colour.rgb)
        self.strap = layers.add("bag", dark)
        self.side = 1 if body.person.build < 1.03 else -1  # carried on the same side in every image

    def behind(self) -> None:
        """What the body hides: before the legs."""
        self._paint(in_front=False)

    def before(self) -> None:
        """What hides the body: after the torso and the arms."""
        self._paint(in_front=True)

    def _paint(self, in_front: bool) -> None:
        if self.thing is None:
            return
        if self.thing.kind == "backpack":
            self._backpack(in_front)
        elif self.thing.kind == "shoulder bag":
            self._shoulder_bag(in_front)
        elif self.thing.kind == "suitcase":
            self._suitcase(in_front)
        else:
            self._handbag(in_front)

    def _box(
        self, centre: Vector, half: tuple[float, float], top: float, bottom: float, paint: int
    ) -> list[Point]:
        """A box with cut corners that turns with the body; returns its upper corners."""
        (x, _), extent = self.body.prism(centre, *half)
        _, low = self.body.project((0.0, top, centre[2]))
        high = low + bottom - top
        cut = min(0.022, 0.4 * extent)
        outline = [
            (x - extent + cut, low), (x + extent - cut, low), (x + extent, low + cut), (x + extent, high - cut * 0.6),
            (x + extent - cut * 0.6, high), (x - extent + cut * 0.6, high), (x - extent, high - cut * 0.6), (x - extent, low + cut),
        ]  # fmt: skip
        self.layers.polygon(outline, paint, edge=40)
        return [(x - extent, low), (x + extent, low), (x + extent, high), (x - extent, high)]

    def _backpack(self, in_front: bool) -> None:
        body = self.body
        _, depth, _ = body.section(0.3)
        centre = (0.0, 0.32, -(depth + 0.030))
        if in_front == (body.depth(centre) > 0):
            wide = 0.096 * body.width
            left, right, low, _ = self._box(centre, (wide, 0.056), 0.195, 0.435, self.paint)
            if body.depth(centre) > 0.05:
                middle, reach = (left[0] + right[0]) / 2, (right[0] - left[0]) * 0.36
                pocket = [
                    (middle - reach, low[1] - 0.105),
                    (middle + reach, low[1] - 0.105),
                    (middle + reach, low[1] - 0.02),
                    (middle - reach, low[1] - 0.02),
                ]
                self.layers.crease([*pocket, pocket[0]], 0.009, NEUTRAL - 44)
                self.layers.crease(
                    [(middle - reach, left[1] + 0.05), (middle + reach, left[1] + 0.05)], 0.007, NEUTRAL - 36
                )
        if in_front:
            for side in SIDES:
                self._strap(
                    [
                        (side * angle, y)
                        for angle, y in ((1.5, 0.185), (0.78, 0.205), (0.74, 0.30), (1.2, 0.40))
                    ]
                )

    def _strap(self, points: list[tuple[float, float]], width: float = 0.024) -> None:
        """A strap over the surface of the torso, where that faces the camera."""
        seen = [(angle, y) for angle, y in points if self.body.facing(angle) > 0.02]
        if len(seen) > 1:
            self.layers.line(
                [self.body.surface(angle, y, 1.14) for angle, y in seen], width, self.strap, NEUTRAL
            )

    def _shoulder_bag(self, in_front: bool) -> None:
        body, side = self.body, self.side
        hip_width, _, _ = body.section(0.5)
        centre = (side * (hip_width + 0.042), 0.5, -0.01)
        if in_front:
            # Over the far shoulder, down to the bag: once across the chest, once across the back.
            front = [(-side * 0.9, 0.195), (-side * 0.3, 0.27), (side * 0.4, 0.36), (side * 1.1, 0.45)]
            self._strap(front, 0.019)
            self._strap([(pi - angle, y) for angle, y in front], 0.019)
        if in_front == (body.depth(centre) > -0.05):
            corners = self._box(centre, (0.050, 0.078), 0.435, 0.565, self.paint)
            (left, top), (right, _) = corners[0], corners[1]
            self.layers.crease([(left, top + 0.05), (right, top + 0.05)], 0.009, NEUTRAL - 44)

    def _handbag(self, in_front: bool) -> None:
        hand = self.body.arms[self.side][2]
        if in_front != (self.body.depth(hand) > -0.08):
            return
        x, y = self.body.project(hand)
        _, extent = self.body.prism((0.0, 0.5, 0.0), 0.058, 0.085)
        self.layers.line(
            [(x - extent * 0.6, y + 0.06), (x, y + 0.004), (x + extent * 0.6, y + 0.06)], 0.011, self.strap
        )
        outline = [
            (x - extent * 0.8, y + 0.05),
            (x + extent * 0.8, y + 0.05),
            (x + extent, y + 0.165),
            (x - extent, y + 0.165),
        ]
        self.layers.polygon(outline, self.paint, edge=40)
        self.layers.crease([(x - extent, y + 0.085), (x + extent, y + 0.085)], 0.008, NEUTRAL - 40)

    def _suitcase(self, in_front: bool) -> None:
        body, side = self.body, self.side
        centre = (side * 0.19, 0.85, -0.10)
        if in_front != (body.depth(centre) > 0):
            return
        hand = body.project(body.arms[side][2])
        top = body.project((centre[0], 0.74, centre[2]))
        self.layers.line([hand, top], 0.010, self.strap)
        corners = self._box(centre, (0.075, 0.050), 0.735, 0.955, self.paint)
        (left, low), (right, _) = corners[0], corners[1]
        for share in (0.3, 0.7):
            x = left + share * (right - left)
            self.layers.crease([(x, low + 0.01), (x, low + 0.2)], 0.008, NEUTRAL - 40)
        wheel = self.layers.add("bag", (34, 34, 36))
        for x in (left + 0.02, right - 0.02):
            self.layers.ellipse((x, low + 0.228), (0.012, 0.012), wheel)
