"""Clothes and shoes, painted on a body from the skin outwards."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise
from math import pi

from synthesis.drawn.attributes import PRINT
from synthesis.drawn.colours import RGB
from synthesis.drawn.figure import SIDES, Body
from synthesis.drawn.layers import NEUTRAL, Layers, Point
from synthesis.drawn.patterns import texture


@dataclass(frozen=True)
class Cut:
    """The shape of a kind of garment: `ease` over the body, `hem` height, `flare` of what hangs below the hip."""

    ease: float
    hem: float
    flare: float = 0.0
    sleeve: float = 0.036  # radius of the sleeve at the shoulder


UPPER_CUTS: dict[str, Cut] = {
    "t-shirt": Cut(1.07, 0.530),
    "polo shirt": Cut(1.07, 0.535),
    "shirt": Cut(1.08, 0.550),
    "blouse": Cut(1.06, 0.530, 0.05),
    "tank top": Cut(1.02, 0.520),
    "sweater": Cut(1.12, 0.530, sleeve=0.040),
    "hoodie": Cut(1.16, 0.540, sleeve=0.043),
    "jacket": Cut(1.16, 0.535, sleeve=0.042),
    "suit jacket": Cut(1.14, 0.570, sleeve=0.041),
    "coat": Cut(1.18, 0.715, 0.12, sleeve=0.044),
    "down jacket": Cut(1.28, 0.545, sleeve=0.051),
    "dress": Cut(1.03, 0.720, 0.30),
}
_SKIRT_HEMS = {"skirt": 0.680, "long skirt": 0.880}
_LEG_WIDTHS = {"jeans": 0.94, "trousers": 1.04, "leggings": 0.84, "tights": 0.74, "shorts": 1.1}


def _rows(
    body: Body, top: float, hem: float, ease: float, flare: float
) -> list[tuple[float, float, float, float]]:
    """Sections of a garment from `top` to `hem`; below the hip it hangs from there and widens by `flare`."""
    heights = [top, *(y for y, *_ in body.sections if top < y < min(hem, 0.5))]
    rows = []
    for y in heights:
        half_width, half_depth, offset = body.section(y)
        rows.append((y, half_width * ease, half_depth * ease, offset))
    half_width, half_depth, offset = body.section(0.5)
    if hem > 0.5:
        rows.append((0.5, half_width * ease, half_depth * ease, offset))
        # A skirt has to hold the legs: its hem is as deep as the stride.
        drop = hem - 0.5
        deep = half_depth * ease + flare * drop + 0.8 * abs(body.pose.stride) * max(0.0, drop - 0.04)
        rows.append((hem, half_width * ease + flare * drop, deep, offset))
    else:
        half_width, half_depth, offset = body.section(hem)
        rows.append((hem, half_width * ease, half_depth * ease, offset))
    return rows


class Wardrobe:
    """Paints the clothes of one body; the order of calls (what covers what) is the renderer's."""

    def __init__(self, body: Body, layers: Layers, rng: random.Random) -> None:
        self.body, self.layers, self.rng = body, layers, rng
        person = body.person
        self.skin = layers.add("skin", person.skin)
        upper = person.upper
        self.upper = layers.add("upper", upper.colour.rgb, texture(layers.size, upper, layers.scale, rng))
        self.cut = UPPER_CUTS[upper.kind]
        self.lower = 0
        if person.lower is not None:
            weave = texture(layers.size, person.lower, layers.scale, rng)
            self.lower = layers.add("lower", person.lower.colour.rgb, weave)
        self.inner = layers.add("inner", upper.inner.rgb) if upper.inner else 0
        self.shoes = layers.add("shoes", person.shoes.colour.rgb)
        light_sole = person.shoes.kind == "sneakers"
        self.sole = layers.add("sole", (226, 224, 218) if light_sole else (46, 42, 40))

    # ---- legs -------------------------------------------------------------------------------------------------

    def leg(self, side: int) -> None:
        """One leg: skin, the shoe, and what covers it."""
        hip, knee, ankle, toe = (self.body.project(point) for point in self.body.legs[side])
        near = side == max(SIDES, key=lambda s: self.body.depth(self.body.legs[s][1]))
        tone = NEUTRAL if near else NEUTRAL - 12
        wide = self.body.width
        kind = self.body.person.lower.kind if self.body.person.lower else ""
        self.layers.limb([hip, knee, ankle], [0.054 * wide, 0.040 * wide, 0.024 * wide], self.skin, tone)
        self._shoe(ankle, toe, tone)
        boots = self.body.person.shoes.kind == "boots"
        over = boots and kind in ("", "tights", "skirt", "leggings")  # the shaft covers the leg
        if boots and not over:
            self.layers.limb([self._between(knee, ankle, 0.7), ankle], [0.036, 0.035], self.shoes, tone)
        if kind in _LEG_WIDTHS:
            self._trouser_leg(kind, (hip, knee, ankle), tone)
        if over:
            self.layers.limb(
                [self._between(knee, ankle, 0.45), ankle], [0.042 * wide, 0.034], self.shoes, tone
            )

    def _trouser_leg(self, kind: str, joints: tuple[Point, Point, Point], tone: int) -> None:
        hip, knee, ankle = joints
        wide = _LEG_WIDTHS[kind] * self.body.width
        if kind == "shorts":
            self.layers.limb(
                [hip, self._between(hip, knee, 0.5)], [0.060 * wide, 0.050 * wide], self.lower, tone
            )
            self._shorts_hem(
                self._between(hip, knee, 0.45), self._between(hip, knee, 0.95), 0.057 * wide, tone
            )
            return
        tight = kind in ("leggings", "tights")
        cuff = self._between(knee, ankle, 0.82)
        radii = [0.063 * wide, 0.049 * wide, (0.033 if tight else 0.037) * wide]
        self.layers.limb([hip, knee, cuff], radii, self.lower, tone)
        if not tight:
            reach = 0.03 * wide
            for height in (-0.06, 0.02, 0.72):
                x, y = self._between(knee, cuff, height + self.rng.uniform(-0.04, 0.04))
                self.layers.crease([(x - reach, y - 0.004), (x + reach * 0.4, y + 0.006)], 0.007, tone - 20)

    def _shorts_hem(self, start: Point, end: Point, radius: float, tone: int) -> None:
        """The straight lower part of a leg of shorts."""
        along = (end[0] - start[0], end[1] - start[1])
        length = max(0.02, (along[0] ** 2 + along[1] ** 2) ** 0.5)
        across = (radius * along[1] / length, -radius * along[0] / length)
        corners = [(start, 0.9), (end, 1.0), (end, -1.0), (start, -0.9)]
        outline = [(x + part * across[0], y + part * across[1]) for (x, y), part in corners]
        self.layers.polygon(outline, self.lower, tone, edge=14)

    def _shoe(self, ankle: Point, toe: Point, tone: int) -> None:
        kind = self.body.person.shoes.kind
        heel = (ankle[0] - 0.14 * (toe[0] - ankle[0]), ankle[1] + 0.012)
        if kind == "sandals":
            self.layers.limb([heel, toe], [0.026, 0.024], self.skin, tone)
            for x, y in (self._between(heel, toe, 0.35), self._between(heel, toe, 0.8)):
                self.layers.line([(x - 0.025, y), (x + 0.025, y)], 0.015, self.shoes, tone)
            self.layers.line(
                [(heel[0] - 0.026, toe[1] + 0.02), (toe[0] + 0.026, toe[1] + 0.02)], 0.013, self.shoes
            )
            return
        if kind == "high heels":
            self.layers.line([heel, (heel[0], ankle[1] + 0.042)], 0.016, self.shoes, tone)
            self.layers.limb([heel, toe], [0.027, 0.023], self.shoes, tone)
            return
        self.layers.limb([(heel[0], heel[1] - 0.002), toe], [0.033, 0.030], self.shoes, tone + 6)
        reach = 0.031 if toe[0] >= heel[0] else -0.031
        sole = [(heel[0] - reach, heel[1] + 0.024), (toe[0] + reach, toe[1] + 0.024)]
        self.layers.line(sole, 0.011, self.sole, tone - 10)

    @staticmethod
    def _between(start: Point, end: Point, share: float) -> Point:
        return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])

    def hips(self) -> None:
        """What joins the legs: trousers at the pelvis, a skirt, or bare skin under a dress."""
        body, lower = self.body, self.body.person.lower
        if lower is not None and lower.kind in _SKIRT_HEMS:
            flare = 0.16 if lower.kind == "skirt" else 0.10
            rows = _rows(body, 0.40, _SKIRT_HEMS[lower.kind], 1.03, flare)
            self.layers.polygon(body.silhouette(rows), self.lower)
            self._hang_folds(0.54, _SKIRT_HEMS[lower.kind])
            return
        paint = self.lower if lower is not None else self.skin
        self.layers.polygon(body.silhouette(_rows(body, 0.40, 0.548, 1.0, 0.0)), paint, edge=14)

    def _hang_folds(self, top: float, hem: float) -> None:
        for angle in (-1.3, -0.6, 0.1, 0.7, 1.4):
            turned = angle - self.body.pose.yaw + self.rng.uniform(-0.2, 0.2)
            x, y = self.body.surface(turned, top)
            self.layers.crease([(x, y), (1.25 * x, y + hem - top)], 0.010, NEUTRAL - 20)

    # ---- torso ------------------------------------------------------------------------------------------------

    def torso(self) -> None:
        """The upper garment without its sleeves, and everything on its surface: collar, buttons, opening, print."""
        body, upper = self.body, self.body.person.upper
        rows = _rows(body, 0.178, self.cut.hem, self.cut.ease, self.cut.flare)
        self.layers.polygon(body.silhouette(rows), self.upper)
        self._side_shade()
        if self.cut.hem > 0.6:
            self._hang_folds(0.52, self.cut.hem)
        if upper.is_open:
            self._opening()
        elif upper.kind in ("jacket", "down jacket", "coat", "shirt", "blouse"):
            self._front_line(0.0, 0.20, min(self.cut.hem, 0.6), NEUTRAL - 46)
        if upper.kind == "down jacket":
            self._quilting()
        if upper.kind == "hoodie":
            self._pocket()
        if upper.pattern == PRINT:
            self._print()
        self._folds()
        self._neckline()

    def _side_shade(self) -> None:
        """A soft shadow on the right half of the torso: light comes from the upper left."""
        rows = [
            (y, 0.94 * w, 0.94 * d, z)
            for y, w, d, z in _rows(self.body, 0.22, min(self.cut.hem, 0.5), 1.0, 0.0)
        ]
        outline = self.body.silhouette(rows)
        half = len(outline) // 2
        right = outline[:half]
        for (x0, y0), (x1, y1) in pairwise(right):
            self.layers.crease([(x0, y0), (x1, y1)], 0.035, NEUTRAL - 14)
            self.layers.crease([(-0.75 * x0, y0), (-0.75 * x1, y1)], 0.035, NEUTRAL + 8)

    def _front_line(self, angle: float, top: float, bottom: float, tone: int) -> None:
        if self.body.facing(angle) > 0.1:
            points = [self.body.surface(angle, y, self.cut.ease) for y in (top, 0.3, 0.42, bottom)]
            self.layers.crease(points, 0.008, tone)

    def _opening(self) -> None:
        """What an open garment shows between its edges."""
        narrow = self.body.person.upper.kind == "suit jacket"
        seen = self.body.seen(-0.62, 0.62)
        if seen is None:
            return
        share = {0.185: 0.75, 0.24: 1.0, 0.34: 0.9, 0.45: 0.95, 0.53: 1.05}
        if narrow:
            share = {0.185: 0.75, 0.24: 0.8, 0.33: 0.5, 0.42: 0.06}
        edges = [
            [
                self.body.surface(max(seen[0], min(seen[1], end * part)), y, self.cut.ease)
                for y, part in share.items()
            ]
            for end in (-0.62, 0.62)
        ]
        self.layers.polygon(edges[0] + edges[1][::-1], self.inner, edge=40)
        if narrow and self.body.person.gender == "man" and self.body.facing(0.0) > 0.3:
            tie = self.layers.add("tie", (120, 24, 34))
            points = [self.body.surface(0.0, y, self.cut.ease) for y in (0.20, 0.38)]
            self.layers.line(points, 0.020, tie)

    def _quilting(self) -> None:
        for y in (0.24, 0.30, 0.36, 0.42, 0.48):
            (x, top), extent = self.body.prism((0.0, y, 0.0), *self._eased(y))
            self.layers.crease(
                [(x - extent, top - 0.006), (x, top + 0.004), (x + extent, top - 0.006)], 0.010, NEUTRAL - 40
            )

    def _eased(self, y: float) -> tuple[float, float]:
        half_width, half_depth, _ = self.body.section(y)
        return half_width * self.cut.ease, half_depth * self.cut.ease

    def _pocket(self) -> None:
        seen = self.body.seen(-0.7, 0.7)
        if seen and seen[1] - seen[0] > 0.8:
            low, high = seen
            outline = [
                self.body.surface(low * 0.6, 0.425, self.cut.ease),
                self.body.surface(high * 0.6, 0.425, self.cut.ease),
                self.body.surface(high, 0.495, self.cut.ease),
                self.body.surface(low, 0.495, self.cut.ease),
            ]
            self.layers.crease([*outline, outline[0]], 0.008, NEUTRAL - 36)

    def _print(self) -> None:
        """A print on the chest: a block or a round sign with a bar under it."""
        second = self.body.person.upper.second
        seen = self.body.seen(-0.55, 0.55)
        if second is None or seen is None or seen[1] - seen[0] < 0.5:
            return
        paint = self.layers.add("print", second.rgb)
        low, high = seen
        if self.body.person.upper.kind == "hoodie":
            self._patch(paint, (low, high), 0.29, 0.345)
        else:
            self._patch(paint, (0.85 * low, 0.85 * high), 0.265, 0.335)
            self._patch(paint, (low, high), 0.350, 0.372)

    def _patch(self, paint: int, angles: tuple[float, float], top: float, bottom: float) -> None:
        corners = [(angles[0], top), (angles[1], top), (angles[1], bottom), (angles[0], bottom)]
        self.layers.polygon([self.body.surface(a, y, self.cut.ease) for a, y in corners], paint, edge=0)

    def _folds(self) -> None:
        """A few creases at the waist and under the arms."""
        for _ in range(4):
            angle = self.rng.uniform(-1.1, 1.1) - self.body.pose.yaw
            y = self.rng.uniform(0.34, 0.49)
            start = self.body.surface(angle, y, self.cut.ease * 0.95)
            end = (start[0] + self.rng.uniform(-0.045, 0.045), start[1] + self.rng.uniform(0.012, 0.04))
            self.layers.crease([start, end], 0.008, NEUTRAL + self.rng.choice((-20, -14, 12)))

    def _neckline(self) -> None:
        """Collar, hood or round neck."""
        body, kind = self.body, self.body.person.upper.kind
        second = self.layers.add("upper", self._darker(body.person.upper.colour.rgb))
        if kind == "hoodie":
            (x, y), extent = body.prism((0.0, 0.188, -0.03), 0.078, 0.055)
            self.layers.ellipse((x, y), (extent, 0.028), second)
            return
        if kind in ("t-shirt", "tank top", "dress", "sweater", "blouse"):
            if body.facing(0.0) > 0.2 and kind != "sweater":
                x, y = body.surface(0.0, 0.188, 1.0)
                deep = 0.034 if body.person.gender == "woman" else 0.020
                self.layers.ellipse((x * 0.8, y - 0.004), (0.036, deep), self.skin, edge=30)
            elif kind == "sweater":
                (x, y), extent = body.prism((0.0, 0.182, 0.0), 0.050, 0.042)
                self.layers.ellipse((x, y), (extent, 0.014), second)
            return
        front = body.facing(0.0) > 0.1
        for side in SIDES:
            start = body.surface(side * pi * 0.5, 0.180, 0.9)
            end = (
                body.surface(side * 0.12, 0.222, self.cut.ease)
                if front
                else body.surface(pi - side * 0.3, 0.192, 1.0)
            )
            self.layers.line([start, end], 0.020, second, NEUTRAL - 6)

    @staticmethod
    def _darker(rgb: RGB) -> RGB:
        return tuple(round(channel * 0.82) for channel in rgb)

    # ---- arms -------------------------------------------------------------------------------------------------

    def arm(self, side: int) -> None:
        """One arm: skin, hand and the sleeve."""
        shoulder, elbow, hand = (self.body.project(point) for point in self.body.arms[side])
        near = self.body.depth(self.body.arms[side][0]) >= -0.02
        tone = NEUTRAL if near else NEUTRAL - 12
        wide = self.body.width
        self.layers.limb([shoulder, elbow, hand], [0.031 * wide, 0.026 * wide, 0.018 * wide], self.skin, tone)
        self.layers.ellipse((hand[0], hand[1] + 0.008), (0.020, 0.024), self.skin, tone)
        radius = self.cut.sleeve * wide
        sleeves = self.body.person.upper.sleeves
        if sleeves == "short":
            end = self._between(shoulder, elbow, 0.62)
            self.layers.limb([shoulder, end], [radius, radius * 0.94], self.upper, tone)
        elif sleeves == "long":
            cuff = self._between(elbow, hand, 0.88)
            radii = [radius, radius * 0.85, radius * 0.66]
            self.layers.limb([shoulder, elbow, cuff], radii, self.upper, tone)
            self.layers.crease(
                [(elbow[0] - radius * 0.8, elbow[1]), (elbow[0] + radius * 0.3, elbow[1] + 0.01)],
                0.007,
                tone - 24,
            )
            if self.body.person.upper.kind == "down jacket":
                for share in (0.3, 0.65):
                    x, y = self._between(shoulder, elbow, share)
                    self.layers.crease([(x - radius, y), (x + radius, y)], 0.009, tone - 36)
